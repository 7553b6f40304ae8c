//! The one order in which an image is chosen: the workflow's `container:` (the runner's own business) > the repository's >
//! the forge's > `[runner] default_image` > what is built in.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::reference::Reference;

/// What is configured of images, for one forge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// The image with the forge's runner program.
    pub runner: Option<String>,
    /// The image in which jobs run that name none.
    pub job: Option<String>,
    /// The same, by repository: `name` or `owner/name`.
    pub of_repositories: BTreeMap<String, String>,
    /// `[runner] default_image`: a runner image if it holds the forge's runner program, else the last rung for jobs.
    pub default: Option<String>,
}

/// Which rung of the order said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// `[runner.repo_images]`, `[runner.images.<repository>]`.
    Repository,
    /// `job_image`, `runner_image` of the forge.
    Forge,
    /// `[runner] default_image`.
    Default,
    /// Ours.
    BuiltIn,
}

impl Images {
    /// The image of a repository's jobs. `default_is_runner` says that the default image holds the runner and is so none for jobs.
    pub fn of_job(&self, repository: Option<&str>, default_is_runner: bool, built_in: &str) -> (String, Rung) {
        let of_repository = repository.and_then(|repository| self.of_repository(repository));
        let default = self.default.as_deref().filter(|_| !default_is_runner);
        let rungs = [
            (of_repository, Rung::Repository),
            (self.job.as_deref(), Rung::Forge),
            (default, Rung::Default),
            (Some(built_in), Rung::BuiltIn),
        ];
        let first = rungs.into_iter().find_map(|(image, rung)| Some((image?.to_owned(), rung)));
        first.expect("the last rung is always there")
    }

    /// The image with the runner program; for forges of which `default_image` is no runner image.
    pub fn of_runner(&self, built_in: &str) -> (String, Rung) {
        match &self.runner {
            Some(image) => (image.clone(), Rung::Forge),
            None => (built_in.to_owned(), Rung::BuiltIn),
        }
    }

    /// The registries, `host[:port]`, of all that is configured.
    pub fn registries(&self) -> BTreeSet<String> {
        let single = [&self.runner, &self.job, &self.default].into_iter().flatten();
        let references = single.chain(self.of_repositories.values()).filter_map(|image| Reference::parse(image).ok());
        references.map(|reference| reference.registry().to_owned()).collect()
    }

    /// The longer key wins: one with its owner is meant for that repository alone.
    pub fn of_repository(&self, repository: &str) -> Option<&str> {
        let name = repository.rsplit('/').next().unwrap_or(repository);
        let find = |wanted: &str| {
            self.of_repositories
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(wanted))
                .map(|(_, image)| image.as_str())
        };
        find(repository).or_else(|| find(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Images {
        let of = |key: &str, image: &str| (key.to_owned(), image.to_owned());
        Images {
            runner: None,
            job: Some("of-forge".to_owned()),
            of_repositories: [of("tool", "of-name"), of("Org/Tool", "of-both")].into(),
            default: Some("default".to_owned()),
        }
    }

    #[test]
    fn each_rung_is_reached() {
        let mut images = images();
        let of =
            |images: &Images, repository: Option<&str>, is_runner: bool| images.of_job(repository, is_runner, "ours");
        assert_eq!(of(&images, Some("org/tool"), false), ("of-both".to_owned(), Rung::Repository));
        assert_eq!(of(&images, Some("other/tool"), false), ("of-name".to_owned(), Rung::Repository));
        assert_eq!(of(&images, Some("org/else"), false), ("of-forge".to_owned(), Rung::Forge));
        assert_eq!(of(&images, None, false), ("of-forge".to_owned(), Rung::Forge));
        images.job = None;
        assert_eq!(of(&images, Some("org/else"), false), ("default".to_owned(), Rung::Default));
        assert_eq!(of(&images, Some("org/else"), true), ("ours".to_owned(), Rung::BuiltIn));
        images.default = None;
        assert_eq!(of(&images, Some("org/else"), false), ("ours".to_owned(), Rung::BuiltIn));
    }
}
