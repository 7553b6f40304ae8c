//! Forgejo's answers, as far as they are read (`modules/structs/runner.go`, `action.go`).

use serde::Deserialize;

use crate::{
    model::{Error, Result},
    supervisor::{forge::server, origin::Origin},
};

/// `GET /api/forgejo/v1/version`.
#[derive(Deserialize)]
pub struct Version {
    pub version: String,
}

/// `GET /repositories/{id}`.
#[derive(Deserialize)]
pub struct Repository {
    pub full_name: String,
}

/// One of `GET …/actions/runners/jobs`, which waits or runs, or of `GET …/actions/runs/{run}/jobs`.
#[derive(Deserialize)]
pub struct Job {
    pub id: i64,
    #[serde(default)]
    pub run_id: i64,
    pub handle: String,
    pub repo_id: i64,
    #[serde(default)]
    pub name: String,
    pub runs_on: Option<Vec<String>>,
    /// 0 of one that no runner has yet.
    #[serde(default)]
    pub task_id: i64,
    pub status: String,
}

/// `POST …/actions/runners`.
#[derive(Deserialize)]
pub struct Registered {
    pub id: i64,
    pub uuid: String,
    pub token: String,
}

/// `GET /repos/{owner}/{repo}/actions/runs/{run}`.
#[derive(Deserialize)]
pub struct Run {
    pub html_url: String,
    is_fork_pull_request: Option<bool>,
    #[serde(default)]
    trigger_event: String,
    /// A branch or tag without what comes before its name; of a pull request `#NUMBER`.
    #[serde(default)]
    prettyref: String,
    /// JSON.
    #[serde(default)]
    event_payload: String,
    repository: Option<server::Repository>,
}

impl Run {
    /// A branch or tag by its whole name, since both may be called alike; a pull request apart by what runs of it: the fork's workflow, or
    /// by `pull_request_target` the repository's own. `None` of what tells neither.
    fn cache_scope(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Payload {
            r#ref: Option<String>,
        }
        if matches!(self.trigger_event.as_str(), "pull_request" | "pull_request_target") {
            let is_one = self.prettyref.strip_prefix('#').is_some_and(|number| number.parse::<u64>().is_ok());
            return is_one.then(|| format!("{}:{}", self.trigger_event, self.prettyref));
        }
        let payload: Payload = serde_json::from_str(&self.event_payload).ok()?;
        payload.r#ref.filter(|name| name.starts_with("refs/heads/") || name.starts_with("refs/tags/"))
    }

    /// Whence its jobs come. A pull request of somebody who is not trusted counts as a fork's.
    pub fn origin(&self) -> Result<Origin> {
        let repository =
            self.repository.as_ref().ok_or_else(|| Error::invalid("the run does not tell its repository"))?;
        let is_of_fork = self.is_fork_pull_request.map(|is| is && self.trigger_event != "pull_request_target");
        let cache_scope = self.cache_scope();
        Ok(Origin { is_of_fork, is_public: repository.is_public(), cache_scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_tells_whence_its_jobs_come() {
        let origin = |more: &str| {
            let run: Run = serde_json::from_str(&format!(r#"{{"html_url": "http://f/1"{more}}}"#)).unwrap();
            run.origin()
        };
        let fork = r##", "is_fork_pull_request": true, "trigger_event": "pull_request", "prettyref": "#7", "repository": {"private": false}"##;
        let scope = Some("pull_request:#7".to_owned());
        assert_eq!(origin(fork).unwrap(), Origin { is_of_fork: Some(true), is_public: true, cache_scope: scope });
        let target = origin(&fork.replace("\"pull_request\"", "\"pull_request_target\"")).unwrap();
        assert_eq!((target.is_of_fork, target.cache_scope.as_deref()), (Some(false), Some("pull_request_target:#7")));
        let internal = r#", "repository": {"private": false, "internal": true}"#;
        assert_eq!(origin(internal).unwrap(), Origin { is_of_fork: None, is_public: false, cache_scope: None });
        origin("").unwrap_err();
    }

    #[test]
    fn a_tag_is_no_branch_of_its_name_and_a_branch_no_pull_request() {
        let scope = |event: &str, pretty: &str, payload: &str| {
            let json = serde_json::json!({
                "html_url": "http://f/1", "trigger_event": event, "prettyref": pretty, "event_payload": payload,
                "repository": {"private": true},
            });
            serde_json::from_value::<Run>(json).unwrap().origin().unwrap().cache_scope
        };
        let push = |name: &str, whole: &str| scope("push", name, &format!(r#"{{"ref": "{whole}", "more": [1]}}"#));
        assert_eq!(push("main", "refs/heads/main").as_deref(), Some("refs/heads/main"));
        assert_eq!(push("main", "refs/tags/main").as_deref(), Some("refs/tags/main"));
        assert_eq!(push("#7", "refs/heads/#7").as_deref(), Some("refs/heads/#7"));
        for payload in ["", "{}", "[", r#"{"ref": null}"#, r#"{"ref": "main"}"#, r#"{"ref": "refs/pull/7/head"}"#] {
            assert_eq!(scope("push", "main", payload), None, "{payload}");
        }
        assert_eq!(scope("pull_request", "main", r#"{"ref": "refs/heads/main"}"#), None);
    }
}
