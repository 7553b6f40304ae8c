//! A tenant's images by name, by id and by the beginning of an id.

use std::collections::BTreeMap;

use crate::{
    backend::images::ImageRecord,
    engine::images::ImageStore,
    model::{
        Error, ErrorKind, Result,
        id::TenantId,
        image::Descriptor,
        reference::{Digest, Reference},
    },
};

/// Shorter beginnings of an id are names; dockerd's limit.
const SHORTEST_ID: usize = 4;

/// What a client named.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// What all the records point at.
    pub target: Descriptor,
    /// All names the tenant has for it, sorted.
    pub records: Vec<ImageRecord>,
    /// The name that was asked for; `None` if it was an id.
    pub named: Option<Reference>,
}

impl Found {
    /// The image's id.
    pub fn id(&self) -> &Digest {
        &self.target.digest
    }

    /// The first twelve digits of the id, as messages show it.
    pub fn short_id(&self) -> &str {
        short(&self.target.digest)
    }

    /// Names with a tag or digest.
    pub fn references(&self) -> Vec<Reference> {
        self.records.iter().filter_map(reference_of).collect()
    }

    /// `alpine:3.20` …
    pub fn repo_tags(&self) -> Vec<String> {
        let tagged = self.references();
        tagged.iter().filter(|reference| reference.tag().is_some()).map(Reference::familiar).collect()
    }

    /// `alpine@sha256:…`, one for each repository.
    pub fn repo_digests(&self) -> Vec<String> {
        let mut names: Vec<String> = self.references().iter().map(Reference::familiar_name).collect();
        names.sort();
        names.dedup();
        names.into_iter().map(|name| format!("{name}@{}", self.target.digest)).collect()
    }
}

/// The first twelve digits of a digest.
pub fn short(digest: &Digest) -> &str {
    let hex = digest.hex();
    &hex[..hex.len().min(12)]
}

/// The name of a record; `None` if its image lost its last name (then it is called by its digest).
pub fn reference_of(record: &ImageRecord) -> Option<Reference> {
    if record.name.parse::<Digest>().is_ok() {
        return None;
    }
    Reference::parse(&record.name).ok()
}

/// A tenant's images, each with all its names.
pub fn by_target(records: Vec<ImageRecord>) -> Vec<Found> {
    let mut images: BTreeMap<Digest, Found> = BTreeMap::new();
    for record in records {
        let target = record.target.clone();
        let found = images.entry(target.digest.clone());
        let found = found.or_insert_with(|| Found { target, records: Vec::new(), named: None });
        found.records.push(record);
    }
    for found in images.values_mut() {
        found.records.sort_by(|a, b| a.name.cmp(&b.name));
    }
    images.into_values().collect()
}

impl ImageStore {
    /// All images of a tenant.
    pub(crate) async fn all(&self, tenant: &TenantId) -> Result<Vec<Found>> {
        Ok(by_target(self.backend.list_images(tenant).await?))
    }

    /// Finds what a client calls `text`: a name (with `latest` where no tag is given), `name@digest`, an id, or the
    /// beginning of one. A name wins over an id. The steps of builds, which no list shows, are found by their ids.
    pub(crate) async fn find(&self, tenant: &TenantId, text: &str) -> Result<Found> {
        let found = find_in(self.all(tenant).await?, text);
        match found {
            Err(missing) if missing.kind() == ErrorKind::NotFound => {
                let step = find_in(self.all(&tenant.of_builds()).await?, text);
                step.map_err(|_| missing)
            }
            found => found,
        }
    }
}

/// As [`ImageStore::find`], in a list that is at hand.
pub fn find_in(images: Vec<Found>, text: &str) -> Result<Found> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id =
        (SHORTEST_ID..=64).contains(&digits.len()) && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    if is_id && (digits.len() == 64 || text.starts_with("sha256:")) {
        let full = format!("sha256:{digits}");
        return by_id(images, digits)?.ok_or_else(|| Error::no_such_image(&full));
    }
    let reference = Reference::parse(text)?.or_latest();
    let is_named = |found: &Found| found.records.iter().any(|record| matches(record, &reference));
    if let Some(found) = images.iter().find(|found| is_named(found)) {
        return Ok(Found { named: Some(reference), ..found.clone() });
    }
    if is_id && let Some(found) = by_id(images, digits)? {
        return Ok(found);
    }
    Err(Error::no_such_image(&reference.familiar()))
}

/// `name:tag` is the record of that name; `name@digest` is any record of that repository with that target.
fn matches(record: &ImageRecord, wanted: &Reference) -> bool {
    match wanted.digest() {
        None => record.name == wanted.to_string(),
        Some(digest) => {
            record.target.digest == *digest && reference_of(record).is_some_and(|own| own.name() == wanted.name())
        }
    }
}

fn by_id(images: Vec<Found>, digits: &str) -> Result<Option<Found>> {
    let mut matching = images.into_iter().filter(|found| found.target.digest.hex().starts_with(digits));
    match (matching.next(), matching.next()) {
        (Some(_), Some(_)) => Err(Error::ambiguous_image(digits)),
        (found, _) => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::model::time::Timestamp;

    fn record(name: &str, content: &str) -> ImageRecord {
        ImageRecord {
            tenant: TenantId::default_tenant(),
            name: name.to_owned(),
            target: Descriptor::of("m", content.as_bytes()),
            labels: HashMap::new(),
            created: Timestamp::zero(),
            updated: Timestamp::zero(),
        }
    }

    fn images() -> Vec<Found> {
        by_target(vec![
            record("docker.io/library/a:latest", "one"),
            record("docker.io/library/a:2", "one"),
            record("reg.test/b:1", "two"),
            record(Digest::of(b"three").as_str(), "three"),
        ])
    }

    #[test]
    fn names_ids_and_prefixes_are_found() {
        let one = Digest::of(b"one");
        for text in ["a", "docker.io/library/a", "a:2", one.as_str(), one.hex(), &one.hex()[..7]] {
            assert_eq!(*find_in(images(), text).unwrap().id(), one, "{text}");
        }
        let by_digest = format!("a@{one}");
        assert_eq!(*find_in(images(), &by_digest).unwrap().id(), one);
        assert!(find_in(images(), &format!("b@{one}")).is_err(), "another repository's digest");
    }

    #[test]
    fn missing_ones_are_named_as_dockerd_does() {
        let text = |name: &str| find_in(images(), name).unwrap_err().message().to_owned();
        assert_eq!(text("nosuch"), "No such image: nosuch:latest");
        assert_eq!(text("nosuch:1"), "No such image: nosuch:1");
        let digest = Digest::of(b"none");
        assert_eq!(text(digest.hex()), format!("No such image: {digest}"));
        assert_eq!(find_in(images(), "Bad").unwrap_err().kind(), ErrorKind::InvalidParameter);
    }

    #[test]
    fn prefix_of_two_is_ambiguous() {
        let digest = |digits: &str| format!("sha256:{digits:0<64}").parse::<Digest>().unwrap();
        let with = |name: &str, digits: &str| {
            let mut record = record(name, name);
            record.target.digest = digest(digits);
            record
        };
        let images = by_target(vec![with("docker.io/library/x:1", "abcd1"), with("docker.io/library/x:2", "abcd2")]);
        let error = find_in(images.clone(), "abcd").unwrap_err();
        assert!(error.message().starts_with("ambiguous reference"), "{}", error.message());
        assert_eq!(*find_in(images.clone(), "abcd2").unwrap().id(), digest("abcd2"));
        assert_eq!(find_in(images, "abc").unwrap_err().message(), "No such image: abc:latest");
    }

    #[test]
    fn digests_name_each_repository_once() {
        let one = find_in(images(), "a").unwrap();
        assert_eq!(one.repo_tags(), ["a:2", "a:latest"]);
        assert_eq!(one.repo_digests(), [format!("a@{}", Digest::of(b"one"))]);
        let three = find_in(images(), Digest::of(b"three").as_str()).unwrap();
        assert!(three.repo_tags().is_empty() && three.repo_digests().is_empty());
    }
}
