//! `POST /images/{name}/tag`.

use indexmap::IndexMap;

use crate::{
    engine::{Engine, images::reach::Held, tenants::Scope},
    model::{
        Error, Result,
        event::EventType,
        reference::{Digest, Reference},
    },
};

impl Engine {
    /// Gives an image a further name. `repository` may carry the tag itself.
    pub async fn image_tag(&self, scope: &Scope, image: &str, repository: &str, tag: &str) -> Result<()> {
        let name = new_name(repository, tag)?;
        let found = self.images.find(scope.tenant(), image).await?;
        self.images.point(scope.tenant(), &name, &found.target, Held::default()).await?;
        self.image_event(scope, "tag", found.id().as_str(), &name.familiar(), IndexMap::new());
        Ok(())
    }

    /// An event about an image, with its labels and its name as dockerd gives them.
    pub(crate) fn image_event(
        &self,
        scope: &Scope,
        action: &str,
        actor: &str,
        name: &str,
        labels: IndexMap<String, String>,
    ) {
        let mut attributes = labels;
        attributes.insert("name".to_owned(), name.to_owned());
        self.events.publish(scope.tenant(), EventType::Image, action, actor, attributes);
    }
}

/// A name that an image can be given: with a tag, without a digest.
pub fn new_name(repository: &str, tag: &str) -> Result<Reference> {
    let name = Reference::parse(repository)?;
    if name.digest().is_some() {
        return Err(Error::invalid("refusing to create a tag with a digest reference"));
    }
    if name.familiar_name() == "sha256" {
        return Err(Error::invalid("refusing to create an ambiguous tag using digest algorithm as name"));
    }
    if tag.is_empty() { Ok(name.or_latest()) } else { name.with_tag(tag) }
}

/// A name as commit, import and push with a tag take it.
pub fn import_name(text: &str) -> Result<Reference> {
    let name = Reference::parse(text)?;
    if name.digest().is_some() {
        return Err(Error::invalid("cannot import digest reference"));
    }
    Ok(name)
}

/// A name for pulling: `tag` may be a digest, and wins over what `text` carries.
pub fn pull_name(text: &str, tag: &str) -> Result<Reference> {
    let name = Reference::parse(text)?;
    if tag.is_empty() {
        return Ok(name);
    }
    match tag.parse::<Digest>() {
        Ok(digest) => Ok(name.with_digest(digest)),
        Err(_) => name.with_tag(tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_names_are_checked_in_dockerds_words() {
        let refused = |repository: &str, tag: &str| new_name(repository, tag).unwrap_err().message().to_owned();
        assert_eq!(refused("y", "-2"), "invalid tag format");
        assert_eq!(refused("sha256", "2"), "refusing to create an ambiguous tag using digest algorithm as name");
        assert_eq!(refused("Y", "2"), "invalid reference format: repository name (library/Y) must be lowercase");
        assert_eq!(new_name("y:3", "").unwrap().familiar(), "y:3");
        assert_eq!(new_name("y", "").unwrap().familiar(), "y:latest");
    }

    #[test]
    fn pulled_names_may_have_a_digest_as_tag() {
        let digest = Digest::of(b"a");
        assert_eq!(pull_name("a", digest.as_str()).unwrap().digest(), Some(&digest));
        assert_eq!(pull_name("a:1", "2").unwrap().tag(), Some("2"));
        assert_eq!(pull_name("a", "sha256:12").unwrap_err().message(), "invalid tag format");
    }
}
