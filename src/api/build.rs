//! `POST /build` and `POST /build/prune`.

mod with_buildkit;

use axum::{extract::State, response::Response};
use futures_util::StreamExt;
use http::{HeaderMap, Request};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{ApiState, answer::Json, body::go_error, images::reader, query::Query, stream::JsonStream};
use crate::{
    backend::builds::CacheRoom,
    engine::{
        build::{BuildLimits, BuildRequest, PruneRequest},
        tenants::Scope,
    },
    model::{self, Error, filters::Filters, registry_auth::RegistryAuth},
};

/// The version of builders that is BuildKit.
const BUILDKIT: &str = "2";

/// What a build may be asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct BuildQuery {
    version: String,
    session: String,
    buildid: String,
    dockerfile: String,
    remote: String,
    t: Vec<String>,
    q: bool,
    nocache: bool,
    pull: bool,
    /// Absent is yes.
    rm: Vec<String>,
    forcerm: bool,
    target: String,
    /// JSON, as the next ones are.
    buildargs: String,
    labels: String,
    cachefrom: String,
    ulimits: String,
    outputs: String,
    platform: String,
    networkmode: String,
    extrahosts: Vec<String>,
    securityopt: Vec<String>,
    squash: bool,
    isolation: String,
    shmsize: String,
    /// What is no number counts as none, as the next ones do.
    memory: String,
    memswap: String,
    cpushares: String,
    cpuperiod: String,
    cpuquota: String,
    cpusetcpus: String,
    cpusetmems: String,
    cgroupparent: String,
}

/// `POST /build`
pub async fn image_build(
    State(api): State<ApiState>,
    scope: Scope,
    Query(query): Query<BuildQuery>,
    messages: JsonStream,
    request: Request<axum::body::Body>,
) -> Result<Response, Error> {
    query.refuse()?;
    if query.version == BUILDKIT {
        let (head, body) = request.into_parts();
        return with_buildkit::build(&api, &scope, query, &head.headers, body, messages).await;
    }
    let build = query.request(request.headers())?;
    let stream = api.engine.image_build(&scope, build, reader(request.into_body()).await).await?;
    Ok(messages.progress(stream.map(|message| message.map(GoEscaped))))
}

impl BuildQuery {
    /// What is not carried out.
    fn refuse(&self) -> Result<(), Error> {
        match self.version.as_str() {
            "" | "1" | BUILDKIT => {}
            other => return Err(Error::invalid(format!("invalid version {other:?}"))),
        }
        if !self.securityopt.is_empty() {
            return Err(Error::invalid("security options are not supported on linux"));
        }
        if self.squash {
            return Err(Error::invalid("squash is only supported with experimental mode"));
        }
        if !matches!(self.isolation.as_str(), "" | "default") {
            return Err(Error::invalid(format!("unsupported isolation: {:?}", self.isolation)));
        }
        if self.version != BUILDKIT && !matches!(self.outputs.as_str(), "" | "null" | "[]") {
            return Err(Error::not_implemented("build outputs are BuildKit's: build with it, or leave them out"));
        }
        Ok(())
    }

    fn request(self, headers: &HeaderMap) -> Result<BuildRequest, Error> {
        let number = |text: &str| text.parse().unwrap_or(0);
        let limits = BuildLimits {
            network_mode: self.networkmode.into(),
            extra_hosts: self.extrahosts,
            shm_size: match self.shmsize.as_str() {
                "" => 0,
                text => text
                    .parse()
                    .map_err(|_| Error::invalid(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?,
            },
            ulimits: json(&self.ulimits, "error reading ulimit settings")?,
            memory: number(&self.memory),
            memory_swap: number(&self.memswap),
            cpu_shares: number(&self.cpushares),
            cpu_period: number(&self.cpuperiod),
            cpu_quota: number(&self.cpuquota),
            cpuset_cpus: self.cpusetcpus,
            cpuset_mems: self.cpusetmems,
            cgroup_parent: self.cgroupparent,
        };
        let rm = self.rm.first().map_or("", String::as_str);
        Ok(BuildRequest {
            dockerfile: self.dockerfile,
            remote: self.remote,
            tags: self.t.into_iter().filter(|tag| !tag.is_empty()).collect(),
            quiet: self.q,
            no_cache: self.nocache,
            pull: self.pull,
            remove: rm.is_empty() || super::query::is_true(rm),
            force_remove: self.forcerm,
            target: self.target,
            arguments: json(&self.buildargs, "error reading build args")?,
            labels: json(&self.labels, "error reading labels")?,
            cache_from: json(&self.cachefrom, "error reading cache-from")?,
            platform: match self.platform.as_str() {
                "" => None,
                text => Some(text.parse()?),
            },
            credentials: credentials(headers),
            limits,
        })
    }
}

fn json<T: DeserializeOwned + Default>(text: &str, reading: &str) -> Result<T, Error> {
    if text.is_empty() || text == "null" {
        return Ok(T::default());
    }
    model::json::check(text.as_bytes(), model::limits::QUERY_VALUES).map_err(|error| error.context(reading))?;
    serde_json::from_str(text).map_err(|error| {
        let told = match error.is_syntax() || error.is_eof() {
            true => go_error::syntax(&error, text.as_bytes()).message().trim_start_matches("invalid JSON: ").to_owned(),
            false => error.to_string(),
        };
        Error::invalid(format!("{reading}: {told}"))
    })
}

/// `X-Registry-Config`: credentials by registry. What cannot be read counts as none.
fn credentials(headers: &HeaderMap) -> IndexMap<String, RegistryAuth> {
    let value = headers.get("x-registry-config").and_then(|value| value.to_str().ok()).unwrap_or_default();
    RegistryAuth::all_from_header(value)
}

/// Go writes `<`, `>` and `&` in JSON as `\u003c` … since browsers may read it; ` ---> ` is in every build.
struct GoEscaped<T>(T);

impl<T: Serialize> Serialize for GoEscaped<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(&self.0).map_err(serde::ser::Error::custom)?;
        // Outside of strings JSON has none of them.
        let text = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        RawValue::from_string(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// What to prune.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct BuildPruneQuery {
    all: bool,
    filters: Filters,
    keep_storage: String,
    reserved_space: String,
    max_used_space: String,
    min_free_space: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildPruneBody {
    caches_deleted: Option<Vec<String>>,
    space_reclaimed: u64,
}

/// `POST /build/prune`
pub async fn build_prune(
    State(api): State<ApiState>,
    scope: Scope,
    Query(query): Query<BuildPruneQuery>,
) -> Result<Json<BuildPruneBody>, Error> {
    let reserved = bytes("reserved-space", &query.reserved_space)?;
    let request = PruneRequest {
        all: query.all,
        filters: query.filters,
        room: CacheRoom {
            reserved: if reserved == 0 { bytes("keep-storage", &query.keep_storage)? } else { reserved },
            max_used: bytes("max-used-space", &query.max_used_space)?,
            min_free: bytes("min-free-space", &query.min_free_space)?,
        },
    };
    let pruned = api.engine.build_prune(&scope, &request).await?;
    Ok(Json(BuildPruneBody {
        caches_deleted: (!pruned.deleted.is_empty()).then_some(pruned.deleted),
        space_reclaimed: pruned.reclaimed,
    }))
}

/// Which build to cancel.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct BuildCancelQuery {
    id: String,
}

/// `POST /build/cancel`: of a build that has ended, or that nobody knows, it is success as well.
pub async fn build_cancel(
    State(api): State<ApiState>,
    scope: Scope,
    Query(query): Query<BuildCancelQuery>,
) -> Result<(), Error> {
    if query.id.is_empty() {
        return Err(Error::invalid("build ID not provided"));
    }
    if let Some(builder) = &api.buildkit {
        builder.cancel(scope.tenant(), &query.id);
    }
    Ok(())
}

fn bytes(name: &str, text: &str) -> Result<u64, Error> {
    let wrong = || {
        Error::invalid(format!(
            "{name} is in bytes and expects an integer, got {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        ))
    };
    if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<BuildRequest, Error> {
        let query: BuildQuery = crate::api::query::parse(query)?;
        query.refuse()?;
        query.request(&HeaderMap::new())
    }

    #[test]
    fn containers_of_steps_go_unless_the_client_says_otherwise() {
        for (query, remove) in [("", true), ("rm=1", true), ("rm=0", false), ("rm=", true), ("rm=false", false)] {
            assert_eq!(asked(query).unwrap().remove, remove, "{query}");
        }
    }

    #[test]
    fn maps_are_json() {
        let request =
            asked("buildargs=%7B%22A%22%3A%22b%22%2C%22C%22%3Anull%7D&t=x&t=&t=y&memory=oops&cpushares=7").unwrap();
        assert_eq!(request.arguments["A"].as_deref(), Some("b"));
        assert_eq!(request.arguments["C"], None);
        assert_eq!(request.tags, ["x", "y"]);
        assert_eq!((request.limits.memory, request.limits.cpu_shares), (0, 7));
        assert!(asked("labels=x").unwrap_err().message().starts_with("error reading labels: "));
    }

    #[test]
    fn what_is_not_carried_out_is_refused() {
        use crate::model::ErrorKind::{InvalidParameter, NotImplemented};
        for (query, kind, text) in [
            ("outputs=%5B%7B%22Type%22%3A%22local%22%7D%5D", NotImplemented, "build outputs"),
            ("version=3", InvalidParameter, "invalid version \"3\""),
            ("squash=1", InvalidParameter, "squash is only supported with experimental mode"),
            ("securityopt=x", InvalidParameter, "security options are not supported on linux"),
            ("isolation=hyperv", InvalidParameter, "unsupported isolation: \"hyperv\""),
        ] {
            let error = asked(query).unwrap_err();
            assert_eq!(error.kind(), kind, "{query}");
            assert!(error.message().contains(text), "{}", error.message());
        }
    }

    #[test]
    fn arrows_are_escaped_as_go_does() {
        assert_eq!(serde_json::to_string(&GoEscaped(" ---> <&")).unwrap(), r#"" ---\u003e \u003c\u0026""#);
    }
}
