//! Our answers beside those of a real dockerd (28.5), captured by `scripts/capture-answers`.

mod fuzz;
mod policy;
mod scope;
mod server;

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt;
use serde::Deserialize;

use super::testing;

#[derive(Debug, Deserialize)]
struct Case {
    method: String,
    path: String,
    #[serde(rename = "type", default)]
    content_type: String,
    body: Option<String>,
    answer: Answer,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Answer {
    status: u16,
    #[serde(rename = "type")]
    content_type: String,
    body: String,
}

impl Case {
    fn request(&self) -> Request<Body> {
        let mut request = Request::builder().method(self.method.as_str()).uri(&self.path);
        if !self.content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, &self.content_type);
        }
        request.body(self.body.clone().map(Body::from).unwrap_or_default()).unwrap()
    }
}

/// Where we differ, and why.
const DIFFERENCES: [(&str, &str); 2] = [
    // Our lists of strings and single strings are one type, which cannot say which of both was meant.
    ("/containers/create", r#"{"Image":"x","Cmd":3}"#),
    // Which struct is wanted in place of an array has another name here.
    ("/volumes/create", "[1 2]"),
];

#[tokio::test]
async fn answers_are_those_of_dockerd() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../api-spec/captured/errors.json")).unwrap();
    let (state, _folder) = testing::state().await;
    let mut wrong = Vec::new();
    for case in &cases {
        let body = case.body.as_deref().unwrap_or_default();
        if DIFFERENCES.contains(&(case.path.as_str(), body)) {
            continue;
        }
        let response = testing::oneshot(&state, case.request()).await;
        let content_type = response.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        let ours = Answer {
            status: response.status().as_u16(),
            content_type: content_type.unwrap_or_default(),
            body: match case.method.as_str() {
                // hyper leaves the body of an answer to HEAD out.
                "HEAD" => String::new(),
                _ => String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap(),
            },
        };
        // A call that is not built yet says so.
        if ours != case.answer && ours.status != 501 {
            wrong
                .push(format!("{} {} {body}\n  dockerd {:?}\n  ringer  {ours:?}", case.method, case.path, case.answer));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn every_operation_has_one_route() {
    let routes = super::routes::routes();
    for (index, route) in routes.iter().enumerate() {
        let twin = routes[..index].iter().find(|other| other.method == route.method && other.path == route.path);
        assert!(twin.is_none(), "{} {} stands twice", route.method, route.path);
    }
}
