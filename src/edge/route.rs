//! A table of routes. Small and our own, since Docker's paths have names with slashes in their middle
//! (`/images/{name}/json`), which the radix router below axum cannot express. Handlers stay axum's.

use std::{borrow::Cow, future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use axum::{
    body::Body,
    handler::Handler,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{Method, Request, StatusCode};

use super::{audit::Called, error, extract::PathName, server::Api};
use crate::model::Error;

/// An answer that is being made.
pub type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

type Served<S> = Box<dyn Fn(Request<Body>, S) -> Answer + Send + Sync>;

/// One line of a table, whose handlers reach `S` by axum's `State`.
pub struct Route<S> {
    /// HTTP's verb.
    pub method: Method,
    /// As in the API's specification: literal parts and at most one `{name}`, which may contain slashes.
    pub path: &'static str,
    /// The specification's operationId.
    pub operation: &'static str,
    handler: Option<Served<S>>,
}

impl<S: Clone + Send + Sync + 'static> Route<S> {
    /// A known call that is not built yet: answers 501.
    pub fn new(method: Method, path: &'static str, operation: &'static str) -> Self {
        Self { method, path, operation, handler: None }
    }

    /// Binds the handler.
    #[must_use]
    pub fn to<H, T>(mut self, handler: H) -> Self
    where
        H: Handler<T, S> + Sync,
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
pub struct Table<S> {
    routes: Arc<[Route<S>]>,
    state: S,
}

impl<S: Clone> Clone for Table<S> {
    fn clone(&self) -> Self {
        Self { routes: self.routes.clone(), state: self.state.clone() }
    }
}

impl<S: Clone + Send + Sync + 'static> Table<S> {
    /// A table of `routes`, of which the first match in order wins.
    pub fn new(routes: Vec<Route<S>>, state: S) -> Self {
        Self { routes: routes.into(), state }
    }

    /// The route of a request, by a path whose escapes are resolved, and the variable part of it.
    pub fn find<'p>(&self, method: &Method, path: &'p str) -> Option<(&Route<S>, &'p str)> {
        let mut of_method = self.routes.iter().filter(|route| route.method == *method);
        of_method.find_map(|route| Some((route, route.matches(path)?)))
    }

    /// Answers a request of `route`; a panic of the handler is a 500.
    pub async fn call(&self, route: &Route<S>, name: &str, mut request: Request<Body>) -> Response {
        let Some(handler) = &route.handler else {
            let refusal = Error::call_not_implemented(route.method.as_str(), route.path);
            return called(route, name, refusal.into_response());
        };
        if !name.is_empty() {
            request.extensions_mut().insert(PathName(name.to_owned()));
        }
        let answer = AssertUnwindSafe(async { handler(request, self.state.clone()).await });
        let response = answer.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(operation = route.operation, "the handler of {} panicked", route.operation);
            error::message(StatusCode::INTERNAL_SERVER_ERROR, &format!("ringer failed in {}", route.operation))
        });
        called(route, name, response)
    }
}

/// An API whose paths are as they stand.
impl<S: Clone + Send + Sync + 'static> Api for Table<S> {
    fn answer(&self, request: Request<Body>) -> Answer {
        let table = self.clone();
        Box::pin(async move {
            let path = decoded(request.uri().path()).map(Cow::into_owned);
            let found = path.as_deref().and_then(|path| table.find(request.method(), path));
            match found {
                Some((route, name)) => table.call(route, name, request).await,
                None => error::message(StatusCode::NOT_FOUND, "page not found"),
            }
        })
    }
}

/// An answer that says which call it is one to.
pub fn called<S>(route: &Route<S>, name: &str, mut response: Response) -> Response {
    response.extensions_mut().insert(Called { operation: route.operation, object: name.to_owned() });
    response
}

/// The path with its percent escapes resolved; `None` if they are not well-formed or not UTF-8.
pub fn decoded(path: &str) -> Option<Cow<'_, str>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &'static str) -> Route<()> {
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
    fn escapes_are_resolved() {
        assert_eq!(decoded("/images/a%2Fb/json").as_deref(), Some("/images/a/b/json"));
        assert!(decoded("/%zz").is_none());
        assert!(decoded("/%f").is_none());
    }
}
