//! `--change` of import and commit, and the steps of a build that only change the configuration.

use super::{
    expand::{Variables, expand, expand_words},
    instruction::{self, CommandLine, Instruction},
    parser, ports,
};
use crate::model::{Error, Result, container::merge_health, image::ImageConfig, limits, signal::Signal};

/// Instructions that `--change` may have.
const ALLOWED: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "HEALTHCHECK",
    "ENV",
    "EXPOSE",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Applies instructions in their order. Errors are 400, in dockerd's words where it has some.
pub fn apply(config: &mut ImageConfig, changes: &[String]) -> Result<()> {
    if changes.iter().all(|change| change.trim().is_empty()) {
        return Ok(());
    }
    let parsed = parser::parse(&changes.join("\n"))?;
    let mut instructions = Vec::new();
    for node in &parsed.nodes {
        // `SHELL` is ours: it makes the shell forms that follow it mean what they say.
        if !ALLOWED.iter().chain(&["SHELL"]).any(|allowed| node.keyword.eq_ignore_ascii_case(allowed)) {
            return Err(Error::invalid(format!("{} is not a valid change command", node.keyword)));
        }
        instructions.push(instruction::instruction(node, parsed.escape)?);
    }
    let mut has_command = false;
    for mut instruction in instructions {
        let variables = Variables::of_lines(&config.env);
        instruction.expand(&|text| expand(text, parsed.escape, &variables))?;
        change(config, &instruction, &variables, parsed.escape, &mut has_command)?;
    }
    Ok(())
}

/// Carries out an instruction that only changes the configuration. Answers how the history tells it; `None` for
/// instructions that do more than that. `has_command` is whether the stage has said `CMD`: an `ENTRYPOINT` takes away one
/// that it has from its image.
pub fn change(
    config: &mut ImageConfig,
    instruction: &Instruction,
    variables: &Variables,
    escape: char,
    has_command: &mut bool,
) -> Result<Option<String>> {
    let told = carry_out(config, instruction, variables, escape, has_command)?;
    limits::configuration(sizes(config))?;
    Ok(told)
}

/// Of the texts that instructions make longer.
fn sizes(config: &ImageConfig) -> impl Iterator<Item = usize> {
    let lists = [&config.cmd, &config.entrypoint, &config.on_build, &config.shell];
    let lists = lists.into_iter().flatten().flatten().chain(&config.env).map(String::len);
    let labels = config.labels.iter().flatten().map(|(key, value)| key.len() + value.len());
    let places = config.volumes.iter().flatten().map(|(place, _)| place.len());
    let ports = config.exposed_ports.iter().flatten().map(|(port, _)| port.len());
    lists.chain(labels).chain(places).chain(ports)
}

fn carry_out(
    config: &mut ImageConfig,
    instruction: &Instruction,
    variables: &Variables,
    escape: char,
    has_command: &mut bool,
) -> Result<Option<String>> {
    Ok(Some(match instruction {
        Instruction::Cmd(line) => {
            config.cmd = command(config, line);
            *has_command |= !line.words.is_empty();
            format!("CMD {}", go_quoted(config.cmd.as_deref().unwrap_or_default()))
        }
        Instruction::Entrypoint(line) => {
            config.entrypoint = command(config, line).filter(|words| !words.is_empty());
            if !*has_command {
                config.cmd = None;
            }
            format!("ENTRYPOINT {}", go_quoted(config.entrypoint.as_deref().unwrap_or_default()))
        }
        Instruction::Env(pairs) => {
            let mut told = "ENV".to_owned();
            for pair in pairs {
                let line = format!("{}={}", pair.key, pair.value);
                match config.env.iter_mut().find(|old| old.split('=').next() == Some(&pair.key)) {
                    Some(old) => *old = line,
                    None => config.env.push(line),
                }
                told.push_str(&format!(" {}", pair.shown()));
            }
            told
        }
        Instruction::Label(pairs) => labels(config, pairs),
        Instruction::LiteralLabel(pair) => labels(config, std::slice::from_ref(pair)),
        Instruction::Expose(words) => {
            let (mut told, mut length) = (Vec::new(), 0);
            for word in words {
                let expanded = expand_words(word, escape, variables)?;
                length += expanded.iter().map(String::len).sum::<usize>();
                told.extend(expanded);
                if length > limits::EXPANDED {
                    let most = limits::mib(limits::EXPANDED);
                    return Err(Error::invalid(format!("variables become more than {most}")));
                }
            }
            let mut exposed = 0;
            for port in &told {
                let ports = ports::exposed(port)?;
                exposed += ports.len();
                if exposed > limits::EXPOSED {
                    return Err(Error::invalid(format!("EXPOSE names more than {} ports", limits::EXPOSED)));
                }
                config.exposed_ports.get_or_insert_default().extend(ports);
            }
            format!("EXPOSE {}", told.join(" "))
        }
        Instruction::HealthCheck(check) => {
            // What is not said is as it was before, as with dockerd.
            config.healthcheck = merge_health(Some(check.clone()), config.healthcheck.as_ref());
            // What Go prints of the structure.
            let times = [check.interval, check.timeout, check.start_period, check.start_interval].map(go_duration);
            let test = check.test.as_deref().unwrap_or_default().join(" ");
            format!("HEALTHCHECK &{{[{test}] {} {}}}", times.join(" "), check.retries)
        }
        Instruction::OnBuild(text) => {
            config.on_build.get_or_insert_default().push(text.clone());
            format!("ONBUILD {text}")
        }
        Instruction::Shell(words) => {
            config.shell = Some(words.clone());
            format!("SHELL [{}]", words.join(" "))
        }
        Instruction::StopSignal(signal) => {
            Signal::parse(signal).map_err(|_| Error::invalid(format!("invalid signal: {signal}")))?;
            config.stop_signal = Some(signal.clone());
            format!("STOPSIGNAL {signal}")
        }
        Instruction::User(user) => {
            config.user.clone_from(user);
            format!("USER {user}")
        }
        Instruction::Volume(places) => {
            for place in places {
                if place.is_empty() {
                    return Err(Error::invalid("VOLUME specified can not be an empty string"));
                }
                config.volumes.get_or_insert_default().insert(place.clone(), serde_json::json!({}));
            }
            format!("VOLUME [{}]", places.join(" "))
        }
        Instruction::Workdir(path) => {
            config.working_dir = working_dir(&config.working_dir, path)?;
            format!("WORKDIR {}", config.working_dir)
        }
        Instruction::Add(_)
        | Instruction::Arg(_)
        | Instruction::Copy(_)
        | Instruction::Maintainer(_)
        | Instruction::Run(..) => return Ok(None),
    }))
}

fn labels(config: &mut ImageConfig, pairs: &[super::words::Pair]) -> String {
    let mut told = "LABEL".to_owned();
    for pair in pairs {
        config.labels.get_or_insert_default().insert(pair.key.clone(), pair.value.clone());
        told.push_str(&format!(" {}", pair.shown()));
    }
    told
}

/// A line goes to the shell.
pub fn command(config: &ImageConfig, line: &CommandLine) -> Option<Vec<String>> {
    if !line.for_shell {
        return Some(line.words.clone());
    }
    (!line.words.is_empty()).then(|| shell(config).into_iter().chain(line.words.iter().cloned()).collect())
}

/// What runs lines: `/bin/sh -c`, unless `SHELL` said otherwise.
pub fn shell(config: &ImageConfig) -> Vec<String> {
    let own = config.shell.clone().filter(|words| !words.is_empty());
    own.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
}

fn working_dir(before: &str, path: &str) -> Result<String> {
    if path.is_empty() {
        return Err(Error::invalid("cannot normalize nothing"));
    }
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("/{before}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// `1h2m3.5s`, as Go prints times.
fn go_duration(nanos: i64) -> String {
    let fraction = |nanos: i64, unit: i64| {
        let text = format!("{}.{:0width$}", nanos / unit, nanos % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `["a" "b"]`, Go's `%q` of a list.
fn go_quoted(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| go_quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

fn go_quote(word: &str) -> String {
    let mut quoted = String::from('"');
    for character in word.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            control if control.is_control() => quoted.push_str(&format!("\\x{:02x}", control as u32)),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
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
    fn pairs_are_read_with_quotes_and_variables() {
        let config = changed(&[r#"ENV A=b C="d e""#, "ENV A other words", r"LABEL x=y\ z v=$C"]);
        assert_eq!(config.env, ["A=other words", "C=d e"]);
        assert_eq!(config.labels.as_ref().unwrap()["x"], "y z");
        assert_eq!(config.labels.unwrap()["v"], "d e");
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
        assert_eq!(refused("bogus x"), "bogus is not a valid change command");
        assert_eq!(refused("ENV A"), "ENV must have two arguments");
        assert_eq!(refused("EXPOSE x"), "Invalid containerPort: x");
        assert!(refused("ENV A=\"b").contains("matching double-quote"));
        assert_eq!(refused("STOPSIGNAL FOO"), "invalid signal: FOO");
    }

    #[test]
    fn history_tells_commands_as_go_does() {
        for (nanos, text) in [(0, "0s"), (1_500_000_000, "1.5s"), (7_200_000_000_000, "2h0m0s"), (250_000_000, "250ms")]
        {
            assert_eq!(go_duration(nanos), text);
        }
        assert_eq!(go_quoted(&["a\"b".to_owned(), "c\n".to_owned()]), r#"["a\"b" "c\n"]"#);
    }
}
