//! URLs that clients name, as errors and logs show them.

use std::borrow::Cow;

/// Without the credentials that may stand before the host: as Go shows it `user:***@`; a user alone, which over HTTP is a token as often, is
/// no more shown.
pub fn without_credentials(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((said, _)) = authority.rsplit_once('@') else { return url.into() };
    let shown = match said.split_once(':') {
        Some((user, _)) => format!("{user}:***"),
        None if scheme.starts_with("http") => "***".to_owned(),
        None => return url.into(),
    };
    format!("{scheme}://{shown}{}", &rest[said.len()..]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_a_door_is_not_shown() {
        for (url, shown) in [
            ("http://h/a@b:c", "http://h/a@b:c"),
            ("https://me:word@h:5/a?b#c", "https://me:***@h:5/a?b#c"),
            ("https://me:w@rd@h", "https://me:***@h"),
            ("https://token@h/a.git#v1", "https://***@h/a.git#v1"),
            ("https://me:@h?a=b@c", "https://me:***@h?a=b@c"),
            ("ssh://git@h/a", "ssh://git@h/a"),
            ("ssh://git:word@h/a", "ssh://git:***@h/a"),
            ("git@h:a/b", "git@h:a/b"),
            ("no url", "no url"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
