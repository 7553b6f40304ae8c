//! `--change` of import and commit: `ENV A=b`, `CMD ["sh"]` … laid over a configuration.

use serde_json::{Value, json};

use crate::model::{Error, Result, container::HealthConfig, image::ImageConfig, time::parse_go_duration};

/// Applies instructions in their order. Errors are 400, in dockerd's words where it has some.
pub fn apply(config: &mut ImageConfig, changes: &[String]) -> Result<()> {
    let mut has_command = false;
    for line in changes.iter().flat_map(|change| change.lines()) {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            apply_one(config, line)?;
            match line.split_whitespace().next().unwrap_or_default().to_uppercase().as_str() {
                "CMD" => has_command = true,
                // The command that was there belongs to another entrypoint.
                "ENTRYPOINT" if !has_command => config.cmd = None,
                _ => {}
            }
        }
    }
    Ok(())
}

fn apply_one(config: &mut ImageConfig, line: &str) -> Result<()> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let word = word.to_uppercase();
    let some = || {
        if rest.is_empty() { Err(Error::invalid(format!("{word} requires at least one argument"))) } else { Ok(()) }
    };
    match word.as_str() {
        "CMD" => config.cmd = Some(command(config, rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(config, rest)),
        "ENV" => {
            some()?;
            for (key, value) in pairs("ENV", rest)? {
                config.env.retain(|old| old.split('=').next() != Some(&key));
                config.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => {
            some()?;
            config.labels.get_or_insert_default().extend(pairs("LABEL", rest)?);
        }
        "EXPOSE" => {
            some()?;
            for port in words(rest)? {
                config.exposed_ports.get_or_insert_default().extend(ports(&port)?);
            }
        }
        "VOLUME" => {
            some()?;
            let places = json_words(rest).map_or_else(|| words(rest), Ok)?;
            config.volumes.get_or_insert_default().extend(places.into_iter().map(|place| (place, json!({}))));
        }
        "USER" => {
            some()?;
            config.user = one_word("USER", rest)?;
        }
        "WORKDIR" => {
            some()?;
            config.working_dir = join(&config.working_dir, &one_word("WORKDIR", rest)?);
        }
        "STOPSIGNAL" => {
            some()?;
            config.stop_signal = Some(one_word("STOPSIGNAL", rest)?);
        }
        "ONBUILD" => {
            some()?;
            config.on_build.get_or_insert_default().push(rest.to_owned());
        }
        "SHELL" => {
            let shell = json_words(rest).filter(|words| !words.is_empty());
            config.shell =
                Some(shell.ok_or_else(|| Error::invalid("SHELL requires the arguments to be in JSON form"))?);
        }
        "HEALTHCHECK" => config.healthcheck = Some(health_check(rest)?),
        _ => return Err(Error::invalid(format!("{word} is not a valid change command"))),
    }
    Ok(())
}

/// A JSON list is the command itself, anything else is for the shell.
fn command(config: &ImageConfig, rest: &str) -> Vec<String> {
    json_words(rest).unwrap_or_else(|| {
        let shell = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        shell.into_iter().chain([rest.to_owned()]).collect()
    })
}

fn json_words(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

fn one_word(instruction: &str, text: &str) -> Result<String> {
    let mut words = words(text)?;
    match (words.len(), words.pop()) {
        (1, Some(word)) => Ok(word),
        // A path or a user may hold spaces when it is the whole rest of the line.
        _ if instruction == "WORKDIR" => Ok(text.to_owned()),
        _ => Err(Error::invalid(format!("{instruction} requires exactly one argument"))),
    }
}

/// `a=b c="d e"`, or the old form `a the whole rest`.
fn pairs(instruction: &str, text: &str) -> Result<Vec<(String, String)>> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let Some((key, value)) = text.split_once(char::is_whitespace) else {
            return Err(Error::invalid(format!("{instruction} must have two arguments")));
        };
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words(text)?
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(Error::invalid(format!("{instruction} names can not be blank"))),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => {
                Err(Error::invalid(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")))
            }
        })
        .collect()
}

/// Words with quotes and backslashes taken off, as a shell does.
fn words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (_, other) => word.get_or_insert_default().push(other),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid(format!(
            "unexpected end of statement while looking for matching quote in {text:?}"
        )));
    }
    words.extend(word);
    Ok(words)
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Result<Vec<(String, Value)>> {
    let invalid = || Error::invalid(format!("invalid containerPort: {text}"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?);
    let protocol = protocol.to_lowercase();
    if first > last || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| (format!("{port}/{protocol}"), json!({}))).collect())
}

fn join(folder: &str, path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{}/{path}", folder.trim_end_matches('/')),
    }
}

/// `NONE`, or `--interval=30s … CMD command`.
fn health_check(text: &str) -> Result<HealthConfig> {
    let mut check = HealthConfig::default();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let duration = || {
            let parsed = parse_go_duration(value).and_then(|duration| duration.num_nanoseconds());
            parsed.ok_or_else(|| Error::invalid(format!("time: invalid duration {value:?}")))
        };
        match name {
            "interval" => check.interval = duration()?,
            "timeout" => check.timeout = duration()?,
            "start-period" => check.start_period = duration()?,
            "start-interval" => check.start_interval = duration()?,
            "retries" => {
                check.retries = value
                    .parse()
                    .map_err(|_| Error::invalid(format!("HEALTHCHECK retries is not a number: {value:?}")))?;
            }
            _ => return Err(Error::invalid(format!("unknown flag: --{name}"))),
        }
        rest = after.trim_start();
    }
    let (kind, command_line) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command_line = command_line.trim();
    check.test = Some(match kind.to_uppercase().as_str() {
        "NONE" if command_line.is_empty() => vec!["NONE".to_owned()],
        "CMD" if !command_line.is_empty() => match json_words(command_line) {
            Some(words) => ["CMD".to_owned()].into_iter().chain(words).collect(),
            None => vec!["CMD-SHELL".to_owned(), command_line.to_owned()],
        },
        _ => return Err(Error::invalid(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"))),
    });
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> ImageConfig {
        let mut config = ImageConfig::default();
        apply(&mut config, &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()).unwrap();
        config
    }

    fn refused(line: &str) -> String {
        apply(&mut ImageConfig::default(), &[line.to_owned()]).unwrap_err().message().to_owned()
    }

    #[test]
    fn commands_have_two_forms() {
        assert_eq!(changed(&["CMD x y"]).cmd.unwrap(), ["/bin/sh", "-c", "x y"]);
        assert_eq!(changed(&[r#"ENTRYPOINT ["/usr/bin/dumb-init", "/entrypoint"]"#]).entrypoint.unwrap().len(), 2);
    }

    #[test]
    fn pairs_are_read_with_quotes() {
        let config = changed(&[r#"ENV A=b C="d e""#, "ENV A other words", r"LABEL x=y\ z"]);
        assert_eq!(config.env, ["C=d e", "A=other words"]);
        assert_eq!(config.labels.unwrap()["x"], "y z");
    }

    #[test]
    fn the_others_are_carried_out() {
        let config = changed(&[
            "EXPOSE 80 90-91/udp",
            "VOLUME /a /b",
            "USER u",
            "WORKDIR /a",
            "WORKDIR b",
            "STOPSIGNAL INT",
            "HEALTHCHECK --interval=1s --retries=3 CMD true",
            "ONBUILD RUN x",
            "expose 7",
        ]);
        let ports: Vec<_> = config.exposed_ports.unwrap().into_keys().collect();
        assert_eq!(ports, ["80/tcp", "90/udp", "91/udp", "7/tcp"]);
        assert_eq!(config.volumes.unwrap().len(), 2);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("u", "/a/b"));
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (1_000_000_000, 3));
        assert_eq!(check.test.unwrap(), ["CMD-SHELL", "true"]);
    }

    #[test]
    fn others_are_refused_in_dockerds_words() {
        assert_eq!(refused("FROM x"), "FROM is not a valid change command");
        assert_eq!(refused("bogus x"), "BOGUS is not a valid change command");
        assert!(refused("ENV A").contains("two arguments"));
        assert!(refused("EXPOSE x").contains("invalid containerPort"));
        assert!(refused("ENV A=\"b").contains("matching quote"));
    }
}
