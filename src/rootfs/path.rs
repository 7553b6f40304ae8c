//! Container paths as text: cleaned as Go's `filepath.Clean` does, before any link is looked at.

/// An absolute path without `.`, `..` and double slashes; `..` at the root stays there.
pub fn clean_absolute(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The folder and the last part of a cleaned path; the root has neither.
pub fn split_last(cleaned: &str) -> Option<(&str, &str)> {
    let (folder, last) = cleaned.rsplit_once('/')?;
    (!last.is_empty()).then_some((if folder.is_empty() { "/" } else { folder }, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for (path, cleaned) in
            [("", "/"), ("a", "/a"), ("/../../etc", "/etc"), ("/a//b/./c/..", "/a/b"), (".", "/"), ("/a/", "/a")]
        {
            assert_eq!(clean_absolute(path), cleaned, "{path}");
        }
        assert_eq!(split_last("/a/b"), Some(("/a", "b")));
        assert_eq!(split_last("/a"), Some(("/", "a")));
        assert_eq!(split_last("/"), None);
    }
}
