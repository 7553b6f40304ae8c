//! Whence jobs come, and which are left out for that: those of forks' pull requests, and of public repositories.

/// Whence a job comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether its workflow is that of a pull request from another repository, where the forge tells. By `pull_request_target` the
    /// repository's own runs, so it is none.
    pub is_of_fork: Option<bool>,
    /// Whether everybody sees its repository.
    pub is_public: bool,
    /// What its caches are kept apart by from those of other branches, tags and pull requests, where the forge tells.
    pub cache_scope: Option<String>,
}

/// Jobs that do not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Those of pull requests of forks.
    pub forks: bool,
    /// Those of repositories that everybody sees.
    pub public_repositories: bool,
}

impl LeftOut {
    /// Whether whence a job comes has to be asked.
    pub fn is_any(self) -> bool {
        self.forks || self.public_repositories
    }

    /// Why a job of a repository does not run here, if so.
    pub fn refusal(self, repository: &str, origin: &Origin) -> Option<String> {
        if self.public_repositories && origin.is_public {
            return Some(format!("{repository} is public, and public_repositories = false"));
        }
        match origin.is_of_fork.filter(|_| self.forks) {
            Some(true) => Some("it is of a fork's pull request, and forks = false".to_owned()),
            None if self.forks => {
                Some("nobody tells whether it is of a fork's pull request, and forks = false".to_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_does_not_run_nor_what_nobody_tells() {
        let of = |is_of_fork, is_public| Origin { is_of_fork, is_public, cache_scope: None };
        let left_out = |forks, public_repositories| LeftOut { forks, public_repositories };
        let refuses = |left_out: LeftOut, origin: Origin| left_out.refusal("a/b", &origin).is_some();
        let none = LeftOut::default();
        assert!(!none.is_any() && left_out(true, false).is_any() && left_out(false, true).is_any());
        for origin in [of(Some(true), true), of(None, false)] {
            assert!(!refuses(none, origin));
        }
        assert!(
            refuses(left_out(false, true), of(Some(false), true)) && !refuses(left_out(false, true), of(None, false))
        );
        assert!(
            refuses(left_out(true, false), of(Some(true), false)) && refuses(left_out(true, false), of(None, false))
        );
        assert!(!refuses(left_out(true, false), of(Some(false), true)));
    }
}
