//! A whole Dockerfile: arguments for all, then stages.

use super::{
    instruction::{self, Instruction, Line, Step},
    parser::{self, Parsed},
    words::Pair,
};
use crate::model::{Error, Result};

/// One `FROM` with what follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Image or stage that it begins with, variables not yet replaced.
    pub base: String,
    /// Its name, lower case; empty for none.
    pub name: String,
    /// `--platform`.
    pub platform: String,
    /// For `Step 1/3 : …`.
    pub shown: String,
    /// What is done.
    pub steps: Vec<Step>,
}

/// A Dockerfile that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct Dockerfile {
    /// `ARG` before the first `FROM`.
    pub arguments: Vec<Step>,
    /// The stages in their order.
    pub stages: Vec<Stage>,
    /// What escapes.
    pub escape: char,
    /// What dockerd warns of.
    pub warnings: Vec<String>,
}

impl Dockerfile {
    /// Reads a file; `name` is how it was asked for.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid(format!("the Dockerfile ({name}) cannot be empty")));
        }
        let parsed = parser::parse(&String::from_utf8_lossy(text))
            .map_err(|error| error.context(format!("failed to parse {name}")))?;
        Self::of_lines(parsed)
    }

    fn of_lines(parsed: Parsed) -> Result<Self> {
        let (mut arguments, mut stages) = (Vec::new(), Vec::<Stage>::new());
        for node in &parsed.nodes {
            let line = instruction::line(node, parsed.escape)
                .map_err(|error| error.context(format!("dockerfile parse error on line {}", node.line)))?;
            match (line, stages.last_mut()) {
                (Line::From(from), _) => stages.push(Stage {
                    base: from.base,
                    name: from.name,
                    platform: from.platform,
                    shown: node.original.trim().to_owned(),
                    steps: Vec::new(),
                }),
                (Line::Step(step), Some(stage)) => stage.steps.push(step),
                (Line::Step(step @ Step { instruction: Instruction::Arg(_), .. }), None) => arguments.push(step),
                (Line::Step(_), None) => return Err(Error::invalid("no build stage in current context")),
            }
        }
        Ok(Self { arguments, stages, escape: parsed.escape, warnings: parsed.warnings })
    }

    /// Leaves the stages after `target` out, which is a name or a number.
    pub fn stop_at(&mut self, target: &str) -> Result<()> {
        if target.is_empty() {
            return Ok(());
        }
        let named = self.stages.iter().position(|stage| stage.name.eq_ignore_ascii_case(target));
        let numbered = || target.parse().ok().filter(|number| *number < self.stages.len());
        let last = named
            .or_else(numbered)
            .ok_or_else(|| Error::invalid(format!("target stage {target:?} could not be found")))?;
        self.stages.truncate(last + 1);
        Ok(())
    }

    /// Adds labels of the request to the last stage.
    pub fn add_labels(&mut self, labels: impl IntoIterator<Item = (String, String)>) {
        let Some(last) = self.stages.last_mut() else { return };
        for (key, value) in labels {
            let pair = Pair { key, value };
            let shown = format!("LABEL {}", pair.shown());
            last.steps.push(Step { instruction: Instruction::LiteralLabel(pair), shown });
        }
    }

    /// How many steps are counted.
    pub fn len(&self) -> usize {
        self.arguments.len() + self.stages.iter().map(|stage| 1 + stage.steps.len()).sum::<usize>()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What an `ONBUILD` has stored, as an instruction.
pub fn trigger(text: &str) -> Result<Step> {
    let parsed = parser::parse(text)?;
    let [node] = &parsed.nodes[..] else { return Err(Error::invalid("onbuild trigger should be a single expression")) };
    Ok(Step { instruction: instruction::instruction(node, parsed.escape)?, shown: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Dockerfile::parse("Dockerfile", text.as_bytes()).unwrap_err().message().to_owned()
    }

    #[test]
    fn stages_are_cut_at_the_target() {
        let text = b"ARG V=1\nFROM a:$V AS One\nRUN x\nFROM --platform=linux/amd64 b\nCOPY --from=one /x /y\n";
        let mut file = Dockerfile::parse("Dockerfile", text).unwrap();
        assert_eq!((file.len(), file.stages[0].name.as_str(), file.stages[1].base.as_str()), (5, "one", "b"));
        file.add_labels([("l".to_owned(), "v".to_owned())]);
        assert_eq!(file.stages[1].steps[1].shown, "LABEL l=v");
        file.stop_at("ONE").unwrap();
        assert_eq!(file.stages.len(), 1);
        assert_eq!(file.stop_at("two").unwrap_err().message(), "target stage \"two\" could not be found");
    }

    /// All of it seen with dockerd 28.
    #[test]
    fn mistakes_are_named_in_dockerds_words() {
        for (text, error) in [
            ("FORM busybox\n", "dockerfile parse error on line 1: unknown instruction: FORM (did you mean FROM?)"),
            ("FROM\n", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
            (
                "FROM busybox as 1x\n",
                "dockerfile parse error on line 1: invalid name for build stage: \"1x\", name can't start with a number or \
                 contain symbols",
            ),
            ("\n", "failed to parse Dockerfile: file with no instructions"),
            ("", "the Dockerfile (Dockerfile) cannot be empty"),
            ("RUN true\n", "no build stage in current context"),
            (
                "FROM x\nCOPY a\n",
                "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. \
                 Destination could not be determined",
            ),
            ("FROM x\nENV a\n", "failed to parse Dockerfile: ENV must have two arguments"),
            ("FROM x\nLABEL =x\n", "dockerfile parse error on line 2: LABEL names can not be blank"),
            (
                "FROM x\nHEALTHCHECK FOO x\n",
                "dockerfile parse error on line 2: Unknown type \"FOO\" in HEALTHCHECK (try CMD)",
            ),
            ("FROM x\nHEALTHCHECK CMD\n", "dockerfile parse error on line 2: Missing command after HEALTHCHECK CMD"),
            (
                "FROM x\nHEALTHCHECK --interval=1 CMD x\n",
                "dockerfile parse error on line 2: time: missing unit in duration \"1\"",
            ),
            (
                "FROM x\nSHELL foo\n",
                "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form",
            ),
            ("FROM x\nSHELL []\n", "dockerfile parse error on line 2: SHELL requires at least one argument"),
            ("FROM x\nONBUILD FROM x\n", "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger"),
            (
                "FROM x\nVOLUME [\"\"]\n",
                "dockerfile parse error on line 2: VOLUME specified can not be an empty string",
            ),
            ("FROM x\nUSER\n", "dockerfile parse error on line 2: USER requires exactly one argument"),
            (
                "FROM x\nCMD [1]\n",
                "failed to parse Dockerfile: when using JSON array syntax, arrays must be comprised of strings only",
            ),
            ("ARG\nFROM x\n", "dockerfile parse error on line 1: ARG requires at least one argument"),
        ] {
            assert_eq!(refused(text), error, "{text}");
        }
    }

    #[test]
    fn trigger_is_one_instruction() {
        assert!(matches!(trigger("RUN echo x").unwrap().instruction, Instruction::Run(..)));
        assert!(trigger("RUN a\nRUN b").is_err());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good: [&[u8]; 3] = [
            b"# escape=`\nARG V=1\nFROM --platform=$BUILDPLATFORM alpine:${V:-3} AS one\nRUN --mount=type=cache,target=/x `\n  echo \"a b\"\n",
            b"FROM a\nENV A=b C=\"d e\"\nCOPY --from=0 --chown=1:2 [\"x\", \"/y/\"]\nRUN <<EOF\nset -e\nEOF\nEXPOSE 80/tcp 100-200\n",
            b"FROM scratch\nHEALTHCHECK --interval=1s CMD x\nONBUILD ADD . /\nSHELL [\"sh\"]\nVOLUME /a b\nLABEL \"k\"='v'\nSTOPSIGNAL 9\n",
        ];
        crate::model::fuzz::each(&good, |input| drop(Dockerfile::parse("Dockerfile", input)));
    }
}
