//! `GET /images/json`.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::{
    engine::{
        Engine,
        images::{
            inspect::ManifestSummary,
            look_up::{Found, find_in},
            parents::Family,
            tree::Tree,
        },
        tenants::Scope,
    },
    model::{
        Error, ErrorKind, Result,
        filters::Filters,
        image::{Descriptor, documents::ImageDocument},
        limits,
        reference::{Digest, Reference},
        time::Timestamp,
    },
    work::Carried,
};

/// Filters that dockerd knows here.
const FILTERS: [&str; 8] = ["dangling", "label", "label!", "before", "since", "reference", "until", "containerd"];

/// What the list holds besides the images.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Which images.
    pub filters: Filters,
    /// Also those that the steps of builds left.
    pub all: bool,
    /// All manifests of each.
    pub manifests: bool,
    /// Bytes that other images have, too.
    pub shared_size: bool,
}

/// A line of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageSummary {
    /// Its id.
    pub id: Digest,
    /// Names with tags.
    pub repo_tags: Vec<String>,
    /// Names with the digest.
    pub repo_digests: Vec<String>,
    /// When it was built.
    pub created: Timestamp,
    /// Bytes, content and snapshots.
    pub size: u64,
    /// Bytes of snapshots that other images of the tenant have, too; `None` if not asked for.
    pub shared_size: Option<u64>,
    /// Its labels.
    pub labels: Option<IndexMap<String, String>>,
    /// The image that it was made on, if it was made here.
    pub parent: Option<Digest>,
    /// What its names point at.
    pub descriptor: Descriptor,
    /// All manifests, if asked for.
    pub manifests: Option<Vec<ManifestSummary>>,
}

impl Engine {
    /// The images of a tenant, newest first.
    pub async fn image_list(&self, scope: &Scope, options: &ListOptions) -> Result<Vec<ImageSummary>> {
        options.filters.allow_only(&FILTERS)?;
        let _place = Carried::here().place().await?;
        let mut held = 0;
        let dangling = options.filters.boolean("dangling")?;
        let mut images = self.images.all(scope.tenant()).await?;
        if options.all {
            let mut steps = self.images.all(&scope.tenant().of_builds()).await?;
            steps.retain(|step| images.iter().all(|image| image.id() != step.id()));
            images.append(&mut steps);
        }
        let family = match images.iter().any(|image| image.references().is_empty()) {
            true => known(self.images.family(scope).await)?.unwrap_or_default(),
            false => Family::default(),
        };
        let span = self.time_span(&images, &options.filters).await?;
        let mut chains = ChainUse::default();
        let mut list = Vec::new();
        for found in images {
            let (tree, document) = match known(self.images.known_tree(&found).await)? {
                Some(tree) => {
                    let Some((_, content)) = tree.choose(None) else { continue };
                    let document = content.document.clone();
                    (tree, document)
                }
                None => (Arc::new(Tree::unread(&found.target)), unread(&found)),
            };
            chains.count(&tree);
            let created = document.created.unwrap_or_default();
            let labels = document.config.labels.clone();
            let label = |key: &str| labels.as_ref()?.get(key).map(String::as_str);
            let is_nameless = found.references().is_empty();
            let is_step = is_nameless && family.is_parent(found.id());
            if !span.contains(created)
                || (is_step && !options.all)
                || dangling.is_some_and(|wanted| wanted != is_nameless || is_step)
                || !options.filters.matches_labels(label)
            {
                continue;
            }
            let Some(found) = with_matching_names(found, &options.filters) else { continue };
            held += labels.iter().flatten().map(|(key, value)| key.len() + value.len()).sum::<usize>();
            if held > limits::JOB_ANSWERS {
                let most = limits::mib(limits::JOB_ANSWERS);
                return Err(Error::invalid(format!("the labels of the images are larger than {most}: ask for fewer")));
            }
            let own = if options.shared_size { chains_of(&tree) } else { Vec::new() };
            list.push((self.summary(scope, &found, &tree, document, options).await?, own));
        }
        if options.shared_size {
            for (summary, own) in &mut list {
                summary.shared_size = Some(self.shared_size(own, &chains).await);
            }
        }
        let mut list: Vec<ImageSummary> = list.into_iter().map(|(summary, _)| summary).collect();
        list.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(list)
    }

    async fn summary(
        &self,
        scope: &Scope,
        found: &Found,
        tree: &Tree,
        document: ImageDocument,
        options: &ListOptions,
    ) -> Result<ImageSummary> {
        let mut size = 0;
        for (variant, content) in tree.available() {
            size += content.size() + variant.descriptor.size + self.images.unpacked_size(content).await;
        }
        if tree.target.digest
            != tree.variants.first().map_or_else(|| tree.target.digest.clone(), |v| v.descriptor.digest.clone())
        {
            size += tree.target.size;
        }
        let manifests = match options.manifests {
            true => Some(self.manifest_summaries(scope, found, tree).await?),
            false => None,
        };
        Ok(ImageSummary {
            id: found.id().clone(),
            repo_tags: found.repo_tags(),
            repo_digests: found.repo_digests(),
            created: document.created.unwrap_or_default(),
            size,
            shared_size: None,
            labels: document.config.labels,
            parent: tree.parent.clone(),
            descriptor: found.target.clone(),
            manifests,
        })
    }

    async fn shared_size(&self, own: &[String], chains: &ChainUse) -> u64 {
        let mut size = 0;
        for chain in own.iter().filter(|chain| chains.is_shared(chain)) {
            size += self.images.snapshot_size(chain).await;
        }
        size
    }

    async fn time_span(&self, images: &[Found], filters: &Filters) -> Result<TimeSpan> {
        let mut span = TimeSpan::default();
        for name in filters.get("before") {
            let created = self.created(images, name).await?;
            span.before = Some(span.before.map_or(created, |before| before.min(created)));
        }
        for name in filters.get("since") {
            let created = self.created(images, name).await?;
            span.since = Some(span.since.map_or(created, |since| since.max(created)));
        }
        for until in filters.get("until") {
            let until = Timestamp::parse_query(until)?;
            span.before = Some(span.before.map_or(until, |before| before.min(until)));
        }
        Ok(span)
    }

    async fn created(&self, images: &[Found], name: &str) -> Result<Timestamp> {
        let found = find_in(images.to_vec(), name)?;
        let tree = self.images.tree(&found).await?;
        let (_, content) = tree.choose(None).ok_or_else(|| Error::no_such_image(name))?;
        Ok(content.document.created.unwrap_or_default())
    }
}

/// The snapshots of all its platforms.
fn chains_of(tree: &Tree) -> Vec<String> {
    tree.available().flat_map(|(_, content)| content.document.chain_ids()).collect()
}

/// `None` where containerd does not answer: the list shows what is known.
fn known<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(None),
        read => read.map(Some),
    }
}

/// What stands for the configuration of an image that cannot be read now.
fn unread(found: &Found) -> ImageDocument {
    let created = found.records.iter().map(|record| record.created).min();
    ImageDocument { created, ..ImageDocument::default() }
}

/// `before`, `since` and `until`, both ends left out.
#[derive(Clone, Copy, Debug, Default)]
struct TimeSpan {
    since: Option<Timestamp>,
    before: Option<Timestamp>,
}

impl TimeSpan {
    fn contains(self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time > since) && self.before.is_none_or(|before| time < before)
    }
}

/// How many images have a snapshot.
#[derive(Default)]
struct ChainUse(std::collections::HashMap<String, usize>);

impl ChainUse {
    fn count(&mut self, tree: &Tree) {
        let chains: std::collections::HashSet<String> = chains_of(tree).into_iter().collect();
        for chain in chains {
            *self.0.entry(chain).or_default() += 1;
        }
    }

    fn is_shared(&self, chain: &str) -> bool {
        self.0.get(chain).is_some_and(|count| *count > 1)
    }
}

/// `reference` shows of an image the names that match, and drops it if none does.
fn with_matching_names(mut found: Found, filters: &Filters) -> Option<Found> {
    let patterns = filters.get("reference");
    if patterns.is_empty() {
        return Some(found);
    }
    let fits = |reference: &Reference| patterns.iter().any(|pattern| reference_matches(reference, pattern));
    found.records.retain(|record| super::look_up::reference_of(record).is_some_and(|reference| fits(&reference)));
    (!found.records.is_empty()).then_some(found)
}

/// As Go's `path.Match` on `name`, `name:tag` and `name@digest`, each in its short form.
fn reference_matches(reference: &Reference, pattern: &str) -> bool {
    matches(pattern.as_bytes(), reference.familiar().as_bytes())
        || matches(pattern.as_bytes(), reference.familiar_name().as_bytes())
}

/// `*` and `?` stop at slashes, `[a-z]` and `[^a-z]` are classes, a backslash takes the meaning away.
/// A star takes as little as it can, and only the last one is ever given more: what a former one would get, the last one has.
fn matches(mut pattern: &[u8], mut text: &[u8]) -> bool {
    let mut star = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            (pattern, star) = (rest, Some((rest, text)));
        } else if let Some((rest, others)) = matches_one(pattern, text) {
            (pattern, text) = (rest, others);
        } else if pattern.is_empty() && text.is_empty() {
            return true;
        } else {
            let Some((rest, [first, others @ ..])) = star else { return false };
            if *first == b'/' {
                return false;
            }
            (pattern, text, star) = (rest, others, Some((rest, others)));
        }
    }
}

/// What is left of both when the pattern's first item is the text's first letter.
fn matches_one<'p, 't>(pattern: &'p [u8], text: &'t [u8]) -> Option<(&'p [u8], &'t [u8])> {
    let [first, others @ ..] = text else { return None };
    let (fits, rest) = match pattern {
        [b'?', rest @ ..] => (*first != b'/', rest),
        [b'[', class @ ..] => {
            let end = class.iter().skip(1).position(|c| *c == b']')? + 1;
            (in_class(&class[..end], *first), &class[end + 1..])
        }
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (literal == first, rest),
        [] => return None,
    };
    fits.then_some((rest, others))
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let (negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    while let [low, tail @ ..] = rest {
        let (high, tail) = match tail {
            [b'-', high, tail @ ..] => (high, tail),
            tail => (low, tail),
        };
        found |= (*low..=*high).contains(&byte);
        rest = tail;
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        let reference = |text: &str| Reference::parse(text).unwrap().or_latest();
        assert!(reference_matches(&reference("alpine:3"), "alpine"));
        assert!(reference_matches(&reference("alpine:3"), "alp*"));
        assert!(reference_matches(&reference("alpine:3"), "*:3"));
        assert!(reference_matches(&reference("a/b:3"), "a/?"));
        assert!(!reference_matches(&reference("a/b:3"), "*"));
        assert!(reference_matches(&reference("a/b:3"), "*/[a-c]:[^4]"));
        assert!(!reference_matches(&reference("alpine:3"), "alpine:4"));
        assert!(!reference_matches(&reference("alpine:3"), "["));
        assert!(reference_matches(&reference("a/bab:3"), "*/*a[b-c]"));
        assert!(!reference_matches(&reference("a/bab:3"), "*b"));
    }

    #[test]
    fn stars_cost_neither_time_nor_stack() {
        let name = "a".repeat(120);
        assert!(!matches("*a".repeat(50).as_bytes(), format!("{name}b").as_bytes()));
        assert!(matches("*".repeat(1 << 20).as_bytes(), name.as_bytes()));
        assert!(!matches(format!("{}b", "*a*".repeat(20)).as_bytes(), name.as_bytes()));
    }

    #[test]
    fn ends_of_the_span_do_not_belong_to_it() {
        let at = |seconds| Timestamp::from_unix(seconds, 0);
        let span = TimeSpan { since: Some(at(1)), before: Some(at(3)) };
        assert_eq!([1, 2, 3].map(|time| span.contains(at(time))), [false, true, false]);
    }
}
