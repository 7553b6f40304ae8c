//! What Gitea and Forgejo have in common: where in the API the jobs are that we run, and the lists of runners and tasks.

mod webhooks;

use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use tokio::sync::{Mutex, OnceCell};

use super::http::{Api, Refusal, segments};
use crate::{
    model::{Error, Result},
    supervisor::{balance::Class, record::Registration, secret::Secret, settings::ForgeSettings},
};

/// Entries of a list that are asked for at once: neither gives more, unless its administrator lets it.
const PAGE: usize = 50;

/// Pages that are read: of a longer queue the rest comes when its head is done.
const PAGES: usize = 40;

/// Between two looks while runners are there: neither server tells them of a user's cancel.
const FOLLOWED: Duration = Duration::from_secs(2);

/// A server of either kind.
pub struct Server {
    /// Its API.
    pub api: Api,
    /// Where it is.
    pub url: String,
    /// How long a job may take, in seconds.
    pub job_timeout: u64,
    poll_interval: Duration,
    owner: Option<String>,
    /// The server's, an organisation's, or the token's user's; found once.
    scope: OnceCell<String>,
    /// How many entries a page has at this server; asked once.
    page_size: OnceCell<usize>,
    /// One asks for a registration token at a time: a scope's is made when it is first asked for, and of two that are made at once one is
    /// invalid from the start.
    asking: Mutex<()>,
}

/// `GET /user`.
#[derive(Deserialize)]
struct User {
    login: String,
    #[serde(default)]
    is_admin: bool,
}

/// `GET /settings/api`: `[api] MAX_RESPONSE_ITEMS` of its configuration.
#[derive(Deserialize)]
struct Limits {
    max_response_items: usize,
}

/// What is read of a repository.
#[derive(Deserialize)]
pub struct Repository {
    private: bool,
    /// Of an organisation or user whom only those see who belong to it.
    #[serde(default)]
    internal: bool,
}

impl Repository {
    /// Whether everybody sees it.
    pub fn is_public(&self) -> bool {
        !self.private && !self.internal
    }
}

/// One of `GET …/actions/runners`.
#[derive(Deserialize)]
struct Runner {
    id: i64,
    #[serde(default)]
    name: String,
}

/// `GET …/actions/runners`: Forgejo's is a bare list, Gitea's and that of some Forgejo before 15 is in an object.
struct Runners(Vec<Runner>);

impl<'de> Deserialize<'de> for Runners {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Bare(Option<Vec<Runner>>),
            Named {
                #[serde(deserialize_with = "null_is_empty")]
                runners: Vec<Runner>,
            },
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Bare(runners) => Self(runners.unwrap_or_default()),
            Either::Named { runners } => Self(runners),
        })
    }
}

/// For lists that Go writes so when they are empty. One that is not there is no list: what says something else is no answer.
pub fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// `…/actions/runners/registration-token`.
#[derive(Deserialize)]
struct Token {
    token: Secret,
}

/// `GET /repos/…/actions/tasks`.
#[derive(Deserialize)]
struct Tasks {
    workflow_runs: Option<Vec<Task>>,
}

/// What a runner does for a job.
#[derive(Deserialize)]
pub struct Task {
    /// The server's number of it.
    pub id: i64,
    /// What the workflow calls the job.
    #[serde(default)]
    pub name: String,
    /// How far it is, or how it ended.
    #[serde(default)]
    pub status: String,
}

impl Server {
    /// The one that is configured.
    pub fn new(settings: &ForgeSettings) -> Result<Self> {
        Ok(Self {
            api: Api::new(settings)?,
            url: settings.url.clone(),
            job_timeout: settings.job_timeout.as_secs(),
            poll_interval: settings.poll_interval,
            owner: settings.owner.clone(),
            scope: OnceCell::new(),
            page_size: OnceCell::new(),
            asking: Mutex::default(),
        })
    }

    /// Between two looks.
    pub fn pause(&self, has_runners: bool) -> Duration {
        if has_runners { self.poll_interval.min(FOLLOWED) } else { self.poll_interval }
    }

    /// Where the jobs are: `admin`, `orgs/NAME` or `user`.
    pub async fn scope(&self) -> Result<&str> {
        self.scope.get_or_try_init(|| self.find_scope()).await.map(String::as_str)
    }

    /// Where a runner of a class is registered.
    pub async fn scope_of(&self, class: &Class) -> Result<String> {
        match &class.repository {
            Some(repository) => Ok(format!("repos/{}", segments(repository))),
            None => Ok(self.scope().await?.to_owned()),
        }
    }

    async fn find_scope(&self) -> Result<String> {
        let user: User = self.api.get("api/v1/user").await.map_err(|refusal| self.token_refused(refusal))?;
        match &self.owner {
            None if user.is_admin => Ok("admin".to_owned()),
            None => Ok("user".to_owned()),
            Some(owner) if owner.eq_ignore_ascii_case(&user.login) => Ok("user".to_owned()),
            Some(owner) => {
                let path = format!("orgs/{}", segments(owner));
                match self.api.get::<serde_json::Value>(&format!("api/v1/{path}")).await {
                    Ok(_) => Ok(path),
                    Err(refusal) if refusal.status == Some(StatusCode::NOT_FOUND) => Err(Error::invalid(format!(
                        "owner {owner:?} is no organisation at {}, and the token is not that user's but {}'s",
                        self.url, user.login
                    ))),
                    Err(refusal) => Err(refusal.into()),
                }
            }
        }
    }

    /// Entries that a page holds at most: a page with fewer is the last.
    pub async fn page_size(&self) -> usize {
        let asked = async {
            let limits: Limits = self.api.get("api/v1/settings/api").await?;
            Ok::<_, Refusal>(limits.max_response_items.clamp(1, PAGE))
        };
        self.page_size.get_or_try_init(|| asked).await.copied().unwrap_or(PAGE)
    }

    /// Pages of a list until one is not full. `path` ends within its query, after `?` or `&`.
    pub async fn pages<T: DeserializeOwned, I>(
        &self,
        path: &str,
        entries: impl Fn(T) -> Vec<I>,
    ) -> Result<Vec<I>, Refusal> {
        let (mut all, size) = (Vec::new(), self.page_size().await);
        for page in 1..=PAGES {
            let found = entries(self.api.get(&format!("{path}limit={size}&page={page}")).await?);
            // More than was asked for is a list without pages.
            let is_last = found.len() != size;
            all.extend(found);
            if is_last {
                break;
            }
        }
        Ok(all)
    }

    async fn runners(&self, scope: &str) -> Result<Vec<Registration>> {
        let path = format!("api/v1/{scope}/actions/runners?");
        let runners = self.pages(&path, |Runners(runners)| runners).await?.into_iter();
        Ok(runners.map(|Runner { id, name }| Registration { id, name, scope: scope.to_owned() }).collect())
    }

    /// Of these registrations, those that are there.
    pub async fn registered(&self, registrations: &[Registration]) -> Result<Vec<Registration>> {
        let mut scopes: Vec<&str> = registrations.iter().map(|registration| registration.scope.as_str()).collect();
        scopes.sort_unstable();
        scopes.dedup();
        let mut there = Vec::new();
        for scope in scopes {
            there.extend(self.runners(scope).await?);
        }
        Ok(registrations.iter().filter(|registration| there.contains(registration)).cloned().collect())
    }

    /// Those whose name begins with `prefix`, where runners of a class are registered, or else where all jobs are.
    pub async fn registrations(&self, prefix: &str, class: Option<&Class>) -> Result<Vec<Registration>> {
        let scope = match class {
            Some(class) => self.scope_of(class).await?,
            None => self.scope().await?.to_owned(),
        };
        let mut runners = self.runners(&scope).await?;
        runners.retain(|runner| runner.name.starts_with(prefix));
        Ok(runners)
    }

    /// With what runners register at a scope. Gitea before 1.26 also gave it for a GET, before 1.24 for nothing else, as Forgejo does.
    pub async fn registration_token(&self, scope: &str) -> Result<Secret> {
        let path = format!("api/v1/{scope}/actions/runners/registration-token");
        let is_missing =
            |refusal: &Refusal| matches!(refusal.status, Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED));
        let _one_asks = self.asking.lock().await;
        match self.api.call::<Token>(Method::POST, &path, None::<&()>).await {
            Ok(token) => Ok(token.token),
            Err(refusal) if is_missing(&refusal) => Ok(self.api.get::<Token>(&path).await?.token),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Takes one back.
    pub async fn deregister(&self, registration: &Registration) -> Result<()> {
        let path = format!("api/v1/{}/actions/runners/{}", registration.scope, registration.id);
        Ok(self.api.delete(&path).await?)
    }

    /// The newest tasks of a repository.
    pub async fn tasks(&self, repository: &str) -> Result<Vec<Task>> {
        let path = format!("api/v1/repos/{}/actions/tasks?limit={PAGE}", segments(repository));
        Ok(self.api.get::<Tasks>(&path).await?.workflow_runs.unwrap_or_default())
    }

    /// An error that tells what the token has to be, if that is what is wrong.
    pub fn token_refused(&self, refusal: Refusal) -> Error {
        match refusal.status {
            Some(StatusCode::UNAUTHORIZED) => Error::forbidden(format!(
                "{} does not take the token: it has to be an access token with the scopes read:user, write:admin (or \
                 write:organization with an owner) and write:repository, or a registration token of its runners",
                self.url
            ))
            .with_source(Error::from(refusal)),
            _ => refusal.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_bare_named_or_as_null() {
        let count = |json: &str| serde_json::from_str::<Runners>(json).unwrap().0.len();
        assert_eq!(count(r#"[{"id": 1, "name": "a"}]"#), 1);
        assert_eq!(count(r#"{"total_count": 1, "runners": [{"id": 1}]}"#), 1);
        assert_eq!(count("null"), 0);
        assert_eq!(count(r#"{"total_count": 0, "runners": null}"#), 0);
        assert!(
            serde_json::from_str::<Runners>(r#"{"message": "back in an hour"}"#).is_err(),
            "no runner has gone by that"
        );
    }
}
