//! Which instruction does what.

use super::{builder::Builder, stage::StageState};
use crate::{
    dockerfile::{
        Instruction, changes,
        expand::{Variables, expand},
    },
    model::{Result, image::ImageConfig},
};

impl Builder<'_> {
    pub(super) async fn carry_out(&mut self, state: &mut StageState, mut instruction: Instruction) -> Result<()> {
        let mut lines = state.config.env.clone();
        lines.extend(state.arguments.beside(&state.config.env));
        let variables = Variables::of_lines(&lines);
        instruction.expand(&|text| expand(text, self.escape, &variables))?;
        match &instruction {
            Instruction::Run(line, flag) => self.run(state, line, flag.as_deref()).await,
            Instruction::Copy(sources) => self.copy(state, sources, "COPY", &variables).await,
            Instruction::Add(sources) => self.copy(state, sources, "ADD", &variables).await,
            Instruction::Arg(arguments) => {
                let mut told = Vec::new();
                for (name, default) in arguments {
                    told.push(match default {
                        Some(default) => format!("{name}={default}"),
                        None => name.clone(),
                    });
                    state.arguments.declare(name, default.clone())?;
                }
                self.configure(state, &format!("ARG {}", told.join(" "))).await
            }
            Instruction::Maintainer(author) => {
                state.author.clone_from(author);
                self.configure(state, &format!("MAINTAINER {author}")).await
            }
            other => {
                if let Instruction::HealthCheck(_) = other {
                    self.note_override(&state.config).await;
                }
                let config = &mut state.config;
                let told = changes::change(config, other, &variables, self.escape, &mut state.has_command)?;
                let told = told.unwrap_or_default();
                match other {
                    Instruction::Workdir(_) => self.make_working_dir(state, &told).await,
                    _ => self.configure(state, &told).await,
                }
            }
        }
    }

    /// dockerd says when a health check replaces another.
    async fn note_override(&self, config: &ImageConfig) {
        let test = config.healthcheck.as_ref().and_then(|check| check.test.as_deref()).unwrap_or_default();
        if test.first().is_some_and(|kind| kind != "NONE") {
            self.output.say(format!("Note: overriding previous HEALTHCHECK: [{}]\n", test.join(" "))).await;
        }
    }

    /// A step that only changes the configuration.
    async fn configure(&mut self, state: &mut StageState, told: &str) -> Result<()> {
        // dockerd's history has two spaces here, and one in the steps that make layers.
        let command = [changes::shell(&state.config), vec!["#(nop) ".to_owned(), told.to_owned()]].concat();
        if self.find(state, &command).await? {
            return Ok(());
        }
        self.show_container().await;
        self.commit(state, &command, None).await
    }

    /// `WORKDIR` makes the folder, so that it is there for the next `COPY`.
    async fn make_working_dir(&mut self, state: &mut StageState, told: &str) -> Result<()> {
        let command = [changes::shell(&state.config), vec![format!("#(nop) {told}")]].concat();
        if self.find(state, &command).await? {
            return Ok(());
        }
        self.show_container().await;
        let path = state.config.working_dir.clone();
        let layer = self.on_pad(state.image.as_deref(), move |view| view.make_working_dir(&path)).await?;
        self.commit(state, &command, Some(layer)).await
    }
}
