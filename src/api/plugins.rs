//! Plugins. None can be installed, so there are none: what asks for one is answered as by a dockerd without any, and
//! what would install one says that it cannot.

use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::{
    answer::Json,
    extract::Path,
    query::{FiltersQuery, Query},
};
use crate::model::{Error, Result, reference::Reference};

/// `GET /plugins`
pub async fn plugin_list(Query(query): Query<FiltersQuery>) -> Result<Response> {
    query.filters.allow_only(&["capability", "enabled"])?;
    Ok(Json([(); 0]).into_response())
}

/// `GET /plugins/{name}/json`, which `docker inspect` asks when nothing else has the name; also removal, disabling,
/// push and settings.
pub async fn plugin_of_name(Path(name): Path) -> Error {
    Error::no_such_plugin(&name)
}

/// Query of enabling.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EnableQuery {
    timeout: String,
}

/// `POST /plugins/{name}/enable`
pub async fn plugin_enable(Path(name): Path, Query(query): Query<EnableQuery>) -> Error {
    let timeout = query.timeout;
    match timeout.parse::<i64>() {
        Ok(_) => Error::no_such_plugin(&name),
        // 500 in dockerd too.
        Err(_) => Error::system(format!("strconv.Atoi: parsing {timeout:?}: invalid syntax")),
    }
}

/// Query of what looks into a registry.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RemoteQuery {
    remote: String,
}

/// `POST /plugins/{name}/upgrade`
pub async fn plugin_upgrade(Path(name): Path, Query(query): Query<RemoteQuery>) -> Error {
    match check_reference(&query.remote) {
        Ok(()) => Error::no_such_plugin(&if name.contains(':') { name } else { format!("{name}:latest") }),
        Err(error) => error,
    }
}

/// `GET /plugins/privileges` and `POST /plugins/pull`
pub async fn plugin_pull(Query(query): Query<RemoteQuery>) -> Error {
    check_reference(&query.remote).err().unwrap_or_else(not_installed)
}

/// Query of making one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateQuery {
    name: String,
}

/// `POST /plugins/create`
pub async fn plugin_create(Query(query): Query<CreateQuery>) -> Error {
    let name = &query.name;
    let refused = |error: Error| error.context(format!("failed to parse reference {name}"));
    check_reference(name).map_err(refused).err().unwrap_or_else(not_installed)
}

/// 500 in dockerd too.
fn check_reference(text: &str) -> Result<()> {
    Reference::parse(text).map(drop).map_err(|error| Error::system(error.message().to_owned()))
}

fn not_installed() -> Error {
    Error::not_implemented("plugins are not implemented by ringer")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;

    use crate::api::testing;

    /// As dockerd 28 answered, but for the 501.
    #[tokio::test]
    async fn there_are_no_plugins() {
        let (state, _folder) = testing::state().await;
        for (method, path, status, text) in [
            ("GET", "/plugins?filters=%7B%22foo%22%3A%5B%22a%22%5D%7D", 400, "invalid filter 'foo'"),
            ("GET", "/plugins/privileges", 500, "invalid reference format"),
            ("POST", "/plugins/pull?remote=a", 501, "plugins are not implemented by ringer"),
            ("GET", "/plugins/a/json", 404, "plugin \"a\" not found"),
            ("DELETE", "/plugins/a", 404, "plugin \"a\" not found"),
            ("POST", "/plugins/a/enable", 500, "strconv.Atoi: parsing \"\": invalid syntax"),
            ("POST", "/plugins/a/enable?timeout=3", 404, "plugin \"a\" not found"),
            ("POST", "/plugins/a/upgrade?remote=b", 404, "plugin \"a:latest\" not found"),
            ("POST", "/plugins/create", 500, "failed to parse reference : invalid reference format"),
        ] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let (answered, answer) = testing::send(&state, request).await;
            assert_eq!((answered, answer["message"].as_str()), (status, Some(text)), "{method} {path}");
        }
    }
}
