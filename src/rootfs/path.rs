//! Container paths as text: cleaned as Go's `filepath.Clean` does, before any link is looked at.

pub use crate::model::path::clean_absolute;

/// The folder and the last part of a cleaned path; the root has neither.
pub fn split_last(cleaned: &str) -> Option<(&str, &str)> {
    let (folder, last) = cleaned.rsplit_once('/')?;
    (!last.is_empty()).then_some((if folder.is_empty() { "/" } else { folder }, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_has_no_folder() {
        assert_eq!(split_last("/a/b"), Some(("/a", "b")));
        assert_eq!(split_last("/a"), Some(("/", "a")));
        assert_eq!(split_last("/"), None);
    }
}
