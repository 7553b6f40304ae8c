//! From a reference to its manifest: the first endpoint that has it.

use reqwest::Method;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;
use tracing::debug;

use crate::{
    model::{
        Result,
        image::Descriptor,
        json, limits,
        reference::{Digest, Reference},
        registry_auth::RegistryAuth,
    },
    registry::{
        Registry,
        endpoint::{Endpoint, endpoints},
        failure::Failure,
        session::{FetchedManifest, Session, read_limited},
    },
};

/// Pages of a tag list larger than this are refused.
const TAG_LIST_LIMIT: usize = 8 << 20;

/// What a reference means at a registry right now.
pub struct Resolved {
    /// For everything else of this image.
    pub session: Session,
    /// What it points at. Without bytes the caller has them already.
    pub target: Descriptor,
    /// The document, unless the caller said that it has it.
    pub fetched: Option<FetchedManifest>,
}

impl Registry {
    /// Asks the endpoints in order. A document that `have` knows is not fetched: registries count fetches
    /// of manifests, and a job asks for the same image again and again.
    pub async fn resolve(
        &self,
        reference: &Reference,
        auth: &RegistryAuth,
        have: &(dyn Fn(&Digest) -> Option<Descriptor> + Send + Sync),
    ) -> Result<Resolved> {
        let mut last = Failure::Other(format!("no endpoint for {}", reference.familiar_name()));
        for endpoint in endpoints(reference.registry(), &self.config).await {
            let base = endpoint.base.clone();
            match self.resolve_at(endpoint, reference, auth, have).await {
                Ok(resolved) => return Ok(resolved),
                Err(failure) => {
                    debug!(registry.url = %base, "no answer for {reference} from {base}: {}", failure.text());
                    last = more_telling(last, failure);
                }
            }
        }
        Err(last.of_pull(reference))
    }

    async fn resolve_at(
        &self,
        endpoint: Endpoint,
        reference: &Reference,
        auth: &RegistryAuth,
        have: &(dyn Fn(&Digest) -> Option<Descriptor> + Send + Sync),
    ) -> Result<Resolved, Failure> {
        let session = Session::open(self, endpoint, reference, auth).await?;
        let wanted = match reference.digest() {
            Some(digest) => digest.to_string(),
            None => {
                let tag = reference.tag().unwrap_or("latest");
                if let Some((digest, _)) = session.head_manifest(tag).await?
                    && let Some(target) = have(&digest)
                {
                    return Ok(Resolved { session, target, fetched: None });
                }
                tag.to_owned()
            }
        };
        let fetched = session.get_manifest(&wanted).await?;
        Ok(Resolved { session, target: fetched.descriptor.clone(), fetched: Some(fetched) })
    }

    /// All tags of a repository, for `docker pull -a`.
    pub async fn tags(&self, reference: &Reference, auth: &RegistryAuth) -> Result<Vec<String>> {
        let mut last = Failure::Other(format!("no endpoint for {}", reference.familiar_name()));
        for endpoint in endpoints(reference.registry(), &self.config).await {
            match self.tags_at(endpoint, reference, auth).await {
                Ok(tags) => return Ok(tags),
                Err(failure) => last = more_telling(last, failure),
            }
        }
        Err(last.of_pull(reference))
    }

    async fn tags_at(
        &self,
        endpoint: Endpoint,
        reference: &Reference,
        auth: &RegistryAuth,
    ) -> Result<Vec<String>, Failure> {
        #[derive(Deserialize)]
        struct TagList {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let session = Session::open(self, endpoint, reference, auth).await?;
        let mut path = format!("/v2/{}/tags/list", reference.repository());
        let (mut tags, mut pages) = (Vec::new(), 0);
        loop {
            let answer = session.request(Method::GET, &path, HeaderMap::new()).await?;
            let next = answer.headers().get(LINK).and_then(|link| next_page(link.to_str().ok()?));
            let body = read_limited(answer, &Method::GET, &session.url(&path)?, TAG_LIST_LIMIT).await?;
            json::check(&body, limits::TAGS)
                .map_err(|error| Failure::Other(format!("invalid tag list of {reference}: {error}")))?;
            let list: TagList = serde_json::from_slice(&body)
                .map_err(|error| Failure::Other(format!("invalid tag list of {reference}: {error}")))?;
            tags.extend(list.tags.unwrap_or_default());
            pages += 1;
            if tags.len() > limits::TAGS || pages > limits::TAG_PAGES {
                return Err(Failure::Other(format!("the tag list of {reference} is too long")));
            }
            match next {
                Some(next) if next.starts_with('/') => path = next,
                _ => return Ok(tags),
            }
        }
    }
}

/// Of two failures the one that says more: where TLS to an insecure registry failed, what plain HTTP said counts;
/// and a registry's own refusal counts more than a mirror that could not be reached.
pub(super) fn more_telling(before: Failure, now: Failure) -> Failure {
    match (&before, &now) {
        (Failure::Refused(..) | Failure::NoCredentials(_), Failure::Transport(..)) => before,
        _ => now,
    }
}

/// `</v2/x/tags/list?last=a&n=100>; rel="next"`
fn next_page(link: &str) -> Option<String> {
    let (target, relation) = link.split_once('>')?;
    relation.contains("next").then(|| target.trim_start_matches('<').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_page_is_read_from_link_header() {
        assert_eq!(next_page("</v2/x/tags/list?last=a>; rel=\"next\"").unwrap(), "/v2/x/tags/list?last=a");
        assert!(next_page("garbage").is_none());
    }
}
