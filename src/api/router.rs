//! The Docker API around its table of routes: versions in the path, paths as dockerd cleans them, the headers of every answer.

use std::borrow::Cow;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};

use super::{ApiState, compat::ApiVersion};
use crate::{
    edge::{
        error,
        route::{self, Route, Table},
    },
    model::{Result, id::TenantId},
    policy::Asked,
};

/// Answers the requests of the Docker API.
#[derive(Clone)]
pub struct Router {
    table: Table<ApiState>,
    state: ApiState,
    server: HeaderValue,
}

impl Router {
    /// A router over `routes`, the first match in order wins. `server` is the `Server` header.
    pub fn new(routes: Vec<Route<ApiState>>, state: ApiState, server: HeaderValue) -> Self {
        Self { table: Table::new(routes, state.clone()), state, server }
    }

    /// Answers a request; never fails, and a panic of a handler is a 500.
    pub async fn oneshot(&self, mut request: Request<Body>) -> Response {
        let Some(path) = route::decoded(request.uri().path()).map(Cow::into_owned) else {
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
        let Some((route, name)) = self.table.find(request.method(), path) else {
            return error::message(StatusCode::NOT_FOUND, "page not found");
        };
        let version = match version {
            Ok(version) => version,
            Err(TooOld(text)) => return self.too_old(text),
        };
        request.extensions_mut().insert(version);
        let mut response = match self.permit(route, &request) {
            Ok(()) => self.table.call(route, name, request).await,
            Err(refusal) => route::called(route, name, refusal.into_response()),
        };
        self.add_headers(&mut response);
        response
    }

    /// Whether the tenant behind the connection may make this call at all. One that nobody knows is refused by the handler.
    fn permit(&self, route: &Route<ApiState>, request: &Request<Body>) -> Result<()> {
        let tenant = request.extensions().get::<TenantId>();
        match tenant.and_then(|tenant| self.state.engine.tenants.get(tenant).ok()) {
            Some(tenant) => tenant.permit(Asked::Call(route.operation)),
            None => Ok(()),
        }
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
}
