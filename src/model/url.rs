//! URLs that clients name, as errors and logs show them.

use std::borrow::Cow;

/// Without the credentials that may stand before the host: as Go shows it `user:***@`; a user alone, which over HTTP is a token as often, is
/// no more shown. Where what stands before the first `/`, `?` or `#` is no host, a password may have the sign unescaped: then all is hidden up to the
/// last `@`.
pub fn without_credentials(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let before_host = if is_host(authority) { authority } else { rest };
    let Some((said, _)) = before_host.rsplit_once('@') else { return url.into() };
    let shown = match said.split_once(':') {
        Some((user, _)) => format!("{user}:***"),
        None if scheme.to_ascii_lowercase().starts_with("http") => "***".to_owned(),
        None => return url.into(),
    };
    format!("{scheme}://{shown}{}", &rest[said.len()..]).into()
}

/// Whether an authority can be one, as far as its port tells.
fn is_host(authority: &str) -> bool {
    let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let port = host.rsplit_once(']').map_or(host, |(_, port)| port).split_once(':').map_or("", |(_, port)| port);
    port.is_empty() || port.parse::<u16>().is_ok()
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
            ("https://me:pa/ss@h/a", "https://me:***@h/a"),
            ("https://me:pa#ss@h", "https://me:***@h"),
            ("https://me:pa?s@s@h", "https://me:***@h"),
            ("https://[::1]:5/a@b", "https://[::1]:5/a@b"),
            ("https://h:5/a@b", "https://h:5/a@b"),
            ("HTTPS://token@h", "HTTPS://***@h"),
            ("ssh://git@h/a", "ssh://git@h/a"),
            ("ssh://git:word@h/a", "ssh://git:***@h/a"),
            ("git@h:a/b", "git@h:a/b"),
            ("no url", "no url"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
