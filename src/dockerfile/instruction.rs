//! What the instructions of a Dockerfile say, variables not yet replaced.

use super::{
    flags::{Flags, Kind},
    health::health_check,
    parser::{Heredoc, Node, heredoc_of, node},
    suggest::suggestion,
    words::{self, Pair},
};
use crate::model::{Error, Result, container::HealthConfig, limits};

/// All that there are.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A command as a list, or as a line for the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The list, or one line; nothing at all is an empty list.
    pub words: Vec<String>,
    /// The line is for the shell.
    pub for_shell: bool,
    /// Documents that the line names.
    pub heredocs: Vec<Heredoc>,
}

/// `ADD` and `COPY`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopySources {
    /// `--from`: a stage or an image; empty for the context.
    pub from: String,
    /// `--chown`.
    pub chown: String,
    /// `--chmod`.
    pub chmod: String,
    /// A flag that only BuildKit carries out.
    pub beyond: Option<String>,
    /// Paths, patterns, URLs.
    pub sources: Vec<String>,
    /// Files that stand in the Dockerfile.
    pub documents: Vec<Heredoc>,
    /// Where to.
    pub destination: String,
}

/// One instruction of a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Instruction {
    /// `ADD`: as `COPY`, with URLs, and tars are unpacked.
    Add(CopySources),
    /// `ARG`: names with their defaults.
    Arg(Vec<(String, Option<String>)>),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(CopySources),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Vec<Pair>),
    /// `EXPOSE`
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    HealthCheck(HealthConfig),
    /// `LABEL`
    Label(Vec<Pair>),
    /// A label of the request: taken as it is.
    LiteralLabel(Pair),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`: the instruction as text.
    OnBuild(String),
    /// `RUN`, with the first of its flags, which only BuildKit knows.
    Run(CommandLine, Option<String>),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

/// An instruction and how it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What it says.
    pub instruction: Instruction,
    /// For `Step 1/3 : …`.
    pub shown: String,
}

/// `FROM`, without the stage's steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// Image or stage.
    pub base: String,
    /// `AS name`, lower case; empty for none.
    pub name: String,
    /// `--platform`.
    pub platform: String,
}

/// What a node is.
pub enum Line {
    /// The beginning of a stage.
    From(From),
    /// An instruction of the stage, or an argument before the first.
    Step(Step),
}

/// Reads a node.
pub fn line(node: &Node, escape: char) -> Result<Line> {
    if node.keyword.eq_ignore_ascii_case("from") {
        return from(node).map(Line::From);
    }
    let instruction = instruction(node, escape)?;
    Ok(Line::Step(Step { instruction, shown: node.original.trim().to_owned() }))
}

/// Reads an instruction that is no `FROM`.
pub fn instruction(node: &Node, escape: char) -> Result<Instruction> {
    let keyword = node.keyword.to_uppercase();
    let no_flags = || Flags::parse(&node.flags, &[]).map(drop);
    let some = || if node.rest.is_empty() { Err(at_least_one(&keyword)) } else { Ok(()) };
    let one = || {
        if node.rest.is_empty() {
            Err(Error::invalid(format!("{keyword} requires exactly one argument")))
        } else {
            Ok(())
        }
    };
    Ok(match keyword.as_str() {
        "ADD" | "COPY" => return copy(node, &keyword),
        "ARG" => {
            some()?;
            Instruction::Arg(arguments(&node.rest, escape)?)
        }
        "CMD" => {
            no_flags()?;
            Instruction::Cmd(command_line(node)?)
        }
        "ENTRYPOINT" => {
            no_flags()?;
            Instruction::Entrypoint(command_line(node)?)
        }
        "ENV" | "LABEL" => {
            no_flags()?;
            some()?;
            let pairs = words::pairs(&keyword, &node.rest, escape)?;
            if pairs.iter().any(|pair| pair.key.is_empty()) {
                return Err(Error::invalid(format!("{keyword} names can not be blank")));
            }
            if keyword == "ENV" { Instruction::Env(pairs) } else { Instruction::Label(pairs) }
        }
        "EXPOSE" => {
            some()?;
            no_flags()?;
            let mut ports = words::split_plain(&node.rest);
            ports.sort();
            Instruction::Expose(ports)
        }
        "HEALTHCHECK" => Instruction::HealthCheck(health_check(&node.flags, &node.rest)?),
        "MAINTAINER" => {
            one()?;
            no_flags()?;
            Instruction::Maintainer(node.rest.clone())
        }
        "ONBUILD" => return on_build(node, escape),
        "RUN" => {
            let kinds =
                [("mount", Kind::List), ("network", Kind::Text), ("security", Kind::Text), ("device", Kind::List)];
            let flags = Flags::parse(&node.flags, &kinds)?;
            Instruction::Run(command_line(node)?, flags.first_of(&kinds.map(|(name, _)| name)))
        }
        "SHELL" => {
            no_flags()?;
            match words::json_list(&node.rest)? {
                Some(words) if !words.is_empty() => Instruction::Shell(words),
                None if !node.rest.is_empty() => {
                    return Err(Error::invalid("SHELL requires the arguments to be in JSON form"));
                }
                _ => return Err(at_least_one("SHELL")),
            }
        }
        "STOPSIGNAL" => {
            one()?;
            Instruction::StopSignal(node.rest.clone())
        }
        "USER" => {
            one()?;
            no_flags()?;
            Instruction::User(node.rest.clone())
        }
        "VOLUME" => {
            some()?;
            no_flags()?;
            let places = words::json_list(&node.rest)?.unwrap_or_else(|| words::split_plain(&node.rest));
            let places: Vec<String> = places.iter().map(|place| place.trim().to_owned()).collect();
            if places.is_empty() {
                return Err(at_least_one("VOLUME"));
            }
            if places.iter().any(String::is_empty) {
                return Err(Error::invalid("VOLUME specified can not be an empty string"));
            }
            Instruction::Volume(places)
        }
        "WORKDIR" => {
            one()?;
            no_flags()?;
            Instruction::Workdir(node.rest.clone())
        }
        _ => {
            let (keyword, known) = (shown(&node.keyword), suggestion(&node.keyword, &KEYWORDS));
            return Err(Error::invalid(format!("unknown instruction: {keyword}{known}")));
        }
    })
}

impl Instruction {
    /// Replaces variables where this instruction has them replaced.
    pub fn expand(&mut self, expand: &dyn Fn(&str) -> Result<String>) -> Result<()> {
        let whole = std::cell::Cell::new(0);
        let one = |text: &mut String| -> Result<()> {
            *text = expand(text)?;
            whole.set(whole.get() + text.len());
            match whole.get() > limits::EXPANDED {
                true => Err(Error::invalid(format!("variables become more than {}", limits::mib(limits::EXPANDED)))),
                false => Ok(()),
            }
        };
        match self {
            Self::Env(pairs) | Self::Label(pairs) => {
                for pair in pairs {
                    one(&mut pair.key)?;
                    one(&mut pair.value)?;
                }
            }
            Self::Add(copy) | Self::Copy(copy) => {
                one(&mut copy.chown)?;
                one(&mut copy.chmod)?;
                copy.sources.iter_mut().try_for_each(one)?;
                one(&mut copy.destination)?;
            }
            Self::Volume(places) => places.iter_mut().try_for_each(one)?,
            Self::StopSignal(text) | Self::User(text) | Self::Workdir(text) => one(text)?,
            Self::Arg(arguments) => {
                for (name, value) in arguments {
                    one(name)?;
                    value.as_mut().map_or(Ok(()), one)?;
                }
            }
            // Commands see variables in their environment; ports are split after their replacement.
            Self::Cmd(_) | Self::Entrypoint(_) | Self::Run(..) | Self::Expose(_) => {}
            Self::HealthCheck(_) | Self::OnBuild(_) | Self::Maintainer(_) | Self::Shell(_) | Self::LiteralLabel(_) => {}
        }
        Ok(())
    }
}

fn from(node: &Node) -> Result<From> {
    let words = words::split_plain(&node.rest);
    let name = match &words[..] {
        [_] => String::new(),
        [_, as_word, name] if as_word.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
            if !lower.starts_with(|c: char| c.is_ascii_lowercase()) || !lower.chars().all(fits) {
                return Err(Error::invalid(format!(
                    "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
                )));
            }
            lower
        }
        _ => return Err(Error::invalid("FROM requires either one or three arguments")),
    };
    let flags = Flags::parse(&node.flags, &[("platform", Kind::Text)])?;
    Ok(From { base: words[0].clone(), name, platform: flags.text("platform") })
}

fn copy(node: &Node, keyword: &str) -> Result<Instruction> {
    let mut words = words::json_list(&node.rest)?.unwrap_or_else(|| words::split_plain(&node.rest));
    if words.len() < 2 {
        return Err(Error::invalid(format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
        )));
    }
    let add = [("keep-git-dir", Kind::Switch), ("checksum", Kind::Text), ("unpack", Kind::Switch)];
    let copy = [("from", Kind::Text), ("parents", Kind::Switch)];
    let both = [("chown", Kind::Text), ("chmod", Kind::Text), ("link", Kind::Switch), ("exclude", Kind::List)];
    let known = match keyword {
        "ADD" => both.into_iter().chain(add).collect::<Vec<_>>(),
        _ => both.into_iter().chain(copy).collect(),
    };
    let flags = Flags::parse(&node.flags, &known)?;
    let destination = words.pop().unwrap_or_default();
    if heredoc_of(&destination).is_some() {
        return Err(Error::invalid(format!("{keyword} cannot accept a heredoc as a destination")));
    }
    let is_document =
        |word: &String| heredoc_of(word).is_some_and(|word| node.heredocs.iter().any(|doc| word.name == doc.name));
    let sources = CopySources {
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        beyond: flags.first_of(&["exclude", "parents", "keep-git-dir", "checksum", "unpack"]),
        sources: words.into_iter().filter(|word| !is_document(word)).collect(),
        documents: node.heredocs.clone(),
        destination,
    };
    Ok(if keyword == "ADD" { Instruction::Add(sources) } else { Instruction::Copy(sources) })
}

fn command_line(node: &Node) -> Result<CommandLine> {
    let list = words::json_list(&node.rest)?;
    let for_shell = list.is_none();
    let line = || if node.rest.is_empty() { Vec::new() } else { vec![node.rest.clone()] };
    Ok(CommandLine { words: list.unwrap_or_else(line), for_shell, heredocs: node.heredocs.clone() })
}

fn arguments(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>> {
    let argument = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(Error::invalid("ARG names can not be blank")),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((word, None)),
    };
    words::split(rest, escape).into_iter().map(argument).collect()
}

fn on_build(outer: &Node, escape: char) -> Result<Instruction> {
    if outer.rest.is_empty() {
        return Err(at_least_one("ONBUILD"));
    }
    Flags::parse(&outer.flags, &[])?;
    let keyword = node(&outer.rest, escape, outer.line)?.keyword.to_uppercase();
    match keyword.as_str() {
        "ONBUILD" => return Err(Error::invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        "MAINTAINER" | "FROM" => {
            return Err(Error::invalid(format!("{keyword} isn't allowed as an ONBUILD trigger")));
        }
        _ => {}
    }
    let mut text = outer.original.trim_start()["ONBUILD".len()..].trim_start().to_owned();
    for heredoc in &outer.heredocs {
        text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
    }
    Ok(Instruction::OnBuild(text))
}

fn shown(word: &str) -> std::borrow::Cow<'_, str> {
    limits::shown(word, limits::SHOWN)
}

fn at_least_one(keyword: &str) -> Error {
    Error::invalid(format!("{keyword} requires at least one argument"))
}
