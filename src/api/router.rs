//! Finds a request's route. Small and our own, since Docker's paths have names with slashes in their middle
//! (`/images/{name}/json`), which the radix router below axum cannot express. Handlers stay axum's.

use std::{borrow::Cow, convert::Infallible, future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use axum::{
    body::Body,
    handler::Handler,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};

use super::{ApiState, compat::ApiVersion, error, extract::PathName};
use crate::model::Error;

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
type Served = Box<dyn Fn(Request<Body>, ApiState) -> Answer + Send + Sync>;

/// One line of the table.
pub struct Route {
    /// HTTP's verb.
    pub method: Method,
    /// As in Docker's specification: literal parts and at most one `{name}`, which may contain slashes.
    pub path: &'static str,
    /// Docker's operationId.
    pub operation: &'static str,
    handler: Option<Served>,
}

impl Route {
    /// A known call that is not built yet: answers 501.
    pub fn new(method: Method, path: &'static str, operation: &'static str) -> Self {
        Self { method, path, operation, handler: None }
    }

    /// Binds the handler.
    #[must_use]
    pub fn to<H, T>(mut self, handler: H) -> Self
    where
        H: Handler<T, ApiState> + Sync,
        T: 'static,
    {
        self.handler = Some(Box::new(move |request, state| Box::pin(handler.clone().call(request, state))));
        self
    }

    /// Whether the call is carried out.
    pub fn is_served(&self) -> bool {
        self.handler.is_some()
    }

    /// The variable part of `path` if the route matches; empty for a route without one.
    fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        let Some((before, rest)) = self.path.split_once('{') else {
            return (self.path == path).then_some("");
        };
        let (_, after) = rest.split_once('}').expect("a route's braces are closed");
        let name = path.strip_prefix(before)?.strip_suffix(after)?;
        (!name.is_empty()).then_some(name)
    }
}

/// All routes with the state of their handlers.
#[derive(Clone)]
pub struct Router {
    routes: Arc<[Route]>,
    state: ApiState,
    server: HeaderValue,
}

impl Router {
    /// A router over `routes`, the first match in order wins. `server` is the `Server` header.
    pub fn new(routes: Vec<Route>, state: ApiState, server: HeaderValue) -> Self {
        Self { routes: routes.into(), state, server }
    }

    /// Answers a request; never fails, and a panic of a handler is a 500.
    pub async fn oneshot(&self, mut request: Request<Body>) -> Response {
        let Some(path) = decoded(request.uri().path()).map(Cow::into_owned) else {
            return error::message(StatusCode::BAD_REQUEST, "invalid URL escape in the path");
        };
        if let Some(clean) = cleaned(&path) {
            return redirect(&clean, request.uri().query());
        }
        let (version, path) = split_version(&path);
        if request.method() == Method::OPTIONS {
            // dockerd knows every path for OPTIONS. Without CORS headers the answer allows a browser nothing.
            if let Err(TooOld(text)) = version {
                return self.too_old(text);
            }
            let mut response = StatusCode::OK.into_response();
            self.add_headers(&mut response);
            return response;
        }
        let found = self
            .routes
            .iter()
            .filter(|route| route.method == *request.method())
            .find_map(|route| Some((route, route.matches(path)?)));
        let Some((route, name)) = found else {
            return error::message(StatusCode::NOT_FOUND, "page not found");
        };
        let version = match version {
            Ok(version) => version,
            Err(TooOld(text)) => return self.too_old(text),
        };
        request.extensions_mut().insert(version);
        if !name.is_empty() {
            request.extensions_mut().insert(PathName(name.to_owned()));
        }
        let mut response = self.call(route, request).await;
        self.add_headers(&mut response);
        response
    }

    async fn call(&self, route: &Route, request: Request<Body>) -> Response {
        let Some(handler) = &route.handler else {
            return Error::call_not_implemented(route.method.as_str(), route.path).into_response();
        };
        let answer = AssertUnwindSafe(async { handler(request, self.state.clone()).await });
        answer.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(operation = route.operation, "the handler of {} panicked", route.operation);
            error::message(StatusCode::INTERNAL_SERVER_ERROR, &format!("ringer failed in {}", route.operation))
        })
    }

    /// The answer to a version that is not spoken any more. Not in JSON: so old a client would not read that.
    fn too_old(&self, text: &str) -> Response {
        let oldest = ApiVersion::OLDEST;
        let text = format!(
            "client version {text} is too old. Minimum supported API version is {oldest}, please upgrade your client to a \
             newer version\n"
        );
        let plain = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        let mut response = (StatusCode::BAD_REQUEST, plain, text).into_response();
        self.add_headers(&mut response);
        response.headers_mut().remove("docker-experimental");
        response
    }

    /// What dockerd sends with every answer of a known route. `Ostype` and `Docker-Experimental` are spelled as
    /// Go's canonical form has them; clients read them without regard to case.
    fn add_headers(&self, response: &mut Response) {
        if response.extensions().get::<Bare>().is_some() {
            return;
        }
        let version = ApiVersion::NEWEST.to_string();
        let headers = response.headers_mut();
        headers.insert(
            HeaderName::from_static("api-version"),
            HeaderValue::from_str(&version).expect("digits and a dot fit into a header"),
        );
        headers.insert(HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false"));
        headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
        headers.insert(header::SERVER, self.server.clone());
    }
}

/// Put on an answer that dockerd's WebSocket library writes past its router, without the headers of all others.
#[derive(Clone, Copy)]
pub struct Bare;

impl hyper::service::Service<Request<Body>> for Router {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Body>) -> Self::Future {
        let router = self.clone();
        Box::pin(async move { Ok(router.oneshot(request).await) })
    }
}

/// The path with its percent escapes resolved; `None` if they are not well-formed or not UTF-8.
fn decoded(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(Cow::Owned(String::from_utf8(bytes).ok()?))
}

/// The path without empty and dot segments, if it has any: dockerd redirects to it.
fn cleaned(path: &str) -> Option<String> {
    let segments = || path.split('/').skip(1);
    let last = segments().count().saturating_sub(1);
    if !segments().enumerate().any(|(i, part)| (part.is_empty() && i != last) || part == "." || part == "..") {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    for (i, part) in segments().enumerate() {
        match part {
            ".." => drop(kept.pop()),
            "." => {}
            "" if i != last => {}
            part => kept.push(part),
        }
    }
    Some(format!("/{}", kept.join("/")))
}

fn redirect(path: &str, query: Option<&str>) -> Response {
    // As in Go's `URL.String`: what may not stand in a path is escaped again.
    let escaped: String = path
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            byte if b"-_.~/:@!$&'()*+,;=".contains(&byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, format!("{escaped}{query}"))]).into_response()
}

/// A version of the API that is not spoken any more, as the client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TooOld<'a>(&'a str);

/// Takes the `/v1.41` prefix off.
fn split_version(path: &str) -> (Result<ApiVersion, TooOld<'_>>, &str) {
    let split = || {
        let (text, rest) = path.strip_prefix("/v")?.split_once('/')?;
        let version: ApiVersion = text.parse().ok()?;
        Some((version.spoken().ok_or(TooOld(text)), &path[path.len() - rest.len() - 1..]))
    };
    split().unwrap_or((Ok(ApiVersion::NEWEST), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &'static str) -> Route {
        Route::new(Method::GET, path, "X")
    }

    #[test]
    fn names_may_contain_slashes() {
        let inspect = route("/images/{name}/json");
        assert_eq!(inspect.matches("/images/a/b:5000/c/json"), Some("a/b:5000/c"));
        assert_eq!(inspect.matches("/images/json"), None);
        assert_eq!(inspect.matches("/images//json"), None);
        assert_eq!(route("/volumes/{name}").matches("/volumes/a"), Some("a"));
        assert_eq!(route("/info").matches("/info/"), None);
    }

    #[test]
    fn prefix_is_clamped_to_what_we_speak() {
        assert_eq!(split_version("/v1.41/info"), (Ok(ApiVersion::v1(41)), "/info"));
        assert_eq!(split_version("/v1.99/info"), (Ok(ApiVersion::NEWEST), "/info"));
        assert_eq!(split_version("/volumes/v1"), (Ok(ApiVersion::NEWEST), "/volumes/v1"));
        assert_eq!(split_version("/v1.41"), (Ok(ApiVersion::NEWEST), "/v1.41"));
        for old in ["1", "1.12", "1..2", ".", "0.1", "1.23"] {
            assert_eq!(split_version(&format!("/v{old}/info")), (Err(TooOld(old)), "/info"));
        }
    }

    /// As dockerd 28 answered.
    #[tokio::test]
    async fn version_that_is_too_old_is_refused() {
        let (state, _folder) = crate::api::testing::state().await;
        let ask = async |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let response = crate::api::router(state.clone()).oneshot(request).await;
            let status = response.status().as_u16();
            let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, kind.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
        };
        let text = "client version 1 is too old. Minimum supported API version is 1.24, please upgrade your client to a \
                    newer version\n";
        let refused = (400, "text/plain; charset=utf-8".to_owned(), text.to_owned());
        assert_eq!(ask(Method::GET, "/v1/info").await, refused);
        assert_eq!(ask(Method::OPTIONS, "/v1/info").await, refused);
        assert_eq!(ask(Method::GET, "/v1/nosuch").await.0, 404);
        assert_eq!(ask(Method::GET, "/v1.24/_ping").await.0, 200);
    }

    #[test]
    fn paths_are_cleaned_as_by_dockerd() {
        assert_eq!(cleaned("//info").as_deref(), Some("/info"));
        assert_eq!(cleaned("/containers//json").as_deref(), Some("/containers/json"));
        assert_eq!(cleaned("/a/../info").as_deref(), Some("/info"));
        assert_eq!(cleaned("/networks/"), None);
        assert_eq!(cleaned("/info"), None);
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(decoded("/images/a%2Fb/json").as_deref(), Some("/images/a/b/json"));
        assert!(decoded("/%zz").is_none());
        assert!(decoded("/%f").is_none());
    }
}
