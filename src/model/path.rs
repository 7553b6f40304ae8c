//! Paths as text.

/// An absolute path without `.`, `..` and double slashes, as Go's `filepath.Clean` makes it before any link is looked at;
/// `..` at the root stays there.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for (path, cleaned) in [
            ("", "/"),
            ("a", "/a"),
            ("/../../etc", "/etc"),
            ("/tmp/../etc/", "/etc"),
            ("/a//b/./c/..", "/a/b"),
            ("//a/./b", "/a/b"),
            ("/../..", "/"),
            (".", "/"),
            ("/a/", "/a"),
        ] {
            assert_eq!(clean_absolute(path), cleaned, "{path}");
        }
    }
}
