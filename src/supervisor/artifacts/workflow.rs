//! The few lines of a workflow that are read: `env` of the whole and of one job.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser};

use crate::model::{Error, Result, reference::Reference};

/// Names of the variable, ours first.
const NAMES: [&str; 2] = ["RINGER_IMAGE", "EPHEMERD_IMAGE"];

/// What says that a job goes on without.
const OPTIONAL: [&str; 2] = ["RINGER_IMAGE_OPTIONAL", "EPHEMERD_IMAGE_OPTIONAL"];

/// Values in a workflow, and how deep they lie in each other: far beyond what people write.
const VALUES: usize = 50_000;
const DEPTH: usize = 100;

/// An image that a job names.
pub struct Named {
    /// The image, or why what is written is none.
    pub image: Result<String>,
    /// Whether the job goes on without.
    pub is_optional: bool,
}

/// The image that a job of a workflow names: the job's own variables go before the workflow's. `None` also for a job that is none of this
/// file: of a workflow that another calls, the caller's variables are not seen.
pub fn artifact_image(text: &str, job: &str) -> Result<Option<Named>> {
    // GitHub may read what we cannot.
    if !NAMES.iter().any(|name| text.contains(name)) {
        return Ok(None);
    }
    let document = Document::read(text)?;
    let job = document.root().and_then(|root| document.get(root, "jobs")).and_then(|jobs| document.get(jobs, job));
    // A job of the called workflow may have the same key.
    let Some(job) = job.filter(|job| document.get(*job, "uses").is_none()) else { return Ok(None) };
    let scopes = [Some(job), document.root()];
    let scopes: Vec<usize> = scopes.into_iter().flatten().filter_map(|of| document.get(of, "env")).collect();
    let find = |names: [&'static str; 2]| {
        let of = |env: &usize| names.into_iter().find_map(|name| Some((name, document.get(*env, name)?)));
        scopes.iter().find_map(of)
    };
    let Some((name, value)) = find(NAMES) else { return Ok(None) };
    let is_optional = find(OPTIONAL).is_some_and(|(_, value)| document.text(value) == Some("true"));
    let image = match document.text(value).map(str::trim) {
        // As a job says that it wants none of what its workflow names.
        Some("") => return Ok(None),
        Some(text) if text.contains("${{") => {
            Err(Error::invalid(format!("{name} is an expression: the image has to be written out in the workflow")))
        }
        Some(text) => Reference::parse(text).map(|_| text.to_owned()),
        None => Err(Error::invalid(format!("{name} is no text"))),
    };
    Ok(Some(Named { image, is_optional }))
}

/// Values by their number. An alias is the number of what it stands for, so nothing is ever copied.
struct Document<'t> {
    values: Vec<Value<'t>>,
}

enum Value<'t> {
    Text(std::borrow::Cow<'t, str>),
    List,
    Map(Vec<(usize, usize)>),
}

/// What is being read: a list, or a map with the key whose value is next.
struct Open {
    value: usize,
    key: Option<usize>,
}

impl<'t> Document<'t> {
    fn read(text: &'t str) -> Result<Self> {
        let refused = |words: &str| Error::invalid(format!("the workflow {words}"));
        let mut document = Self { values: Vec::new() };
        let (mut open, mut anchors) = (Vec::<Open>::new(), HashMap::new());
        for event in Parser::new_from_str(text) {
            let (event, _) = event.map_err(|error| refused("is no YAML").with_source(error))?;
            let (value, anchor, opens) = match event {
                Event::Scalar(text, _, anchor, _) => (Value::Text(text), anchor, false),
                Event::SequenceStart(anchor, _) => (Value::List, anchor, true),
                Event::MappingStart(anchor, _) => (Value::Map(Vec::new()), anchor, true),
                Event::Alias(anchor) => {
                    let number = anchors.get(&anchor).copied().ok_or_else(|| refused("has an alias of nothing"))?;
                    document.put(open.last_mut(), number);
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                    continue;
                }
                // There is one document.
                Event::DocumentEnd => break,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => continue,
            };
            let number = document.values.len();
            if number == VALUES || open.len() == DEPTH {
                return Err(refused("is too large"));
            }
            document.values.push(value);
            if anchor != 0 {
                anchors.insert(anchor, number);
            }
            document.put(open.last_mut(), number);
            if opens {
                open.push(Open { value: number, key: None });
            }
        }
        Ok(document)
    }

    fn put(&mut self, into: Option<&mut Open>, number: usize) {
        let Some(into) = into else { return };
        let Value::Map(entries) = &mut self.values[into.value] else { return };
        match into.key.take() {
            Some(key) => entries.push((key, number)),
            None => into.key = Some(number),
        }
    }

    fn root(&self) -> Option<usize> {
        (!self.values.is_empty()).then_some(0)
    }

    fn get(&self, of: usize, key: &str) -> Option<usize> {
        let Value::Map(entries) = &self.values[of] else { return None };
        entries.iter().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }

    fn text(&self, of: usize) -> Option<&str> {
        if let Value::Text(text) = &self.values[of] { Some(text) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image_of(text: &str, job: &str) -> Option<(Result<String>, bool)> {
        artifact_image(text, job).unwrap().map(|named| (named.image, named.is_optional))
    }

    fn named(text: &str, job: &str) -> Option<String> {
        image_of(text, job).map(|(image, _)| image.unwrap())
    }

    const WORKFLOW: &str = r#"
on: push
env: {EPHEMERD_IMAGE: "ghcr.io/acme/deps:1", OTHER: &other ghcr.io/acme/other}
jobs:
  of-workflow: {runs-on: self-hosted, steps: [run: env]}
  of-job:
    env:
      # ours goes before the other
      EPHEMERD_IMAGE: never
      RINGER_IMAGE: >-
        ghcr.io/acme/own
  none: {env: {EPHEMERD_IMAGE: ''}}
  calls: {uses: ./.github/workflows/other.yml}
  by-alias: {env: {RINGER_IMAGE: *other}}
"#;

    #[test]
    fn a_jobs_variable_goes_before_its_workflows() {
        for (job, image) in [
            ("of-workflow", Some("ghcr.io/acme/deps:1")),
            ("of-job", Some("ghcr.io/acme/own")),
            ("by-alias", Some("ghcr.io/acme/other")),
            ("none", None),
            ("calls", None),
            ("of-another-file", None),
        ] {
            assert_eq!(named(WORKFLOW, job).as_deref(), image, "{job}");
        }
        assert_eq!(named("jobs: {a: {env: text}}", "a"), None);
        assert_eq!(named("- a list", "a"), None);
        assert_eq!(named("", "a"), None);
    }

    #[test]
    fn what_is_not_written_out_is_refused() {
        let text = "jobs: {a: {env: {RINGER_IMAGE: '${{ vars.IMAGE }}'}}, b: {env: {RINGER_IMAGE: [x], RINGER_IMAGE_OPTIONAL: true}}}";
        let (image, is_optional) = image_of(text, "a").unwrap();
        assert!(image.unwrap_err().message().contains("is an expression") && !is_optional);
        let (image, is_optional) = image_of(text, "b").unwrap();
        assert!(image.is_err() && is_optional);
        let (image, _) = image_of("jobs: {a: {env: {RINGER_IMAGE: No Image}}}", "a").unwrap();
        assert!(image.is_err());
    }

    #[test]
    fn a_workflow_that_would_grow_or_never_end_is_read_as_it_is() {
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for n in 1..60 {
            let before = n - 1;
            bomb += &format!("a{n}: &a{n} [*a{before}, *a{before}, *a{before}, *a{before}]\n");
        }
        bomb += "jobs: {a: {env: {RINGER_IMAGE: found}}}\n";
        assert_eq!(named(&bomb, "a").as_deref(), Some("found"));
        for unread in ["[".repeat(100_000), "- x\n".repeat(60_000), "jobs: *nothing".to_owned()] {
            assert!(artifact_image(&format!("# RINGER_IMAGE\n{unread}"), "a").is_err());
            assert_eq!(named(&unread, "a"), None, "it names none");
        }
    }
}
