//! `RUN`: a container of the tenant, whose changes become a layer.

use std::sync::Arc;

use super::{
    builder::Builder,
    cancelled_error,
    files::TempFolder,
    stage::{BaseImage, StageState},
};
use crate::{
    backend::images::NewLayer,
    dockerfile::{
        CommandLine, changes,
        parser::{Heredoc, heredoc_of},
    },
    engine::container::Container,
    model::{
        Error, Result,
        container::{Config, ContainerCreateRequest, HealthConfig, MountKind, MountPoint},
        id::ContainerId,
        image::{
            Descriptor, ImageConfig, ImageForContainer,
            documents::{Manifest, media_type},
        },
    },
};

/// Where scripts are seen in their containers, as with BuildKit: under `/dev`, so that no layer keeps them.
const SCRIPTS: &str = "/dev/pipes";

impl Builder<'_> {
    pub(super) async fn run(&mut self, state: &mut StageState, line: &CommandLine, flag: Option<&str>) -> Result<()> {
        if let Some(flag) = flag {
            return Err(Error::requires_buildkit(flag));
        }
        let run = Run::of(&state.config, line)?;
        let arguments = state.arguments.beside(&state.config.env);
        let told = with_arguments(state, &arguments, &run.told);
        if self.find(state, &told).await? {
            return Ok(());
        }
        let folder = match &run.script {
            Some(script) => {
                Some(TempFolder::with_file(&self.engine.config.data_root, &script.name, &script.text(), 0o755)?)
            }
            None => None,
        };
        let mount = folder.as_ref().zip(run.script).map(|(folder, script)| mount(folder, &script.name));
        let layer = self.run_container(state, &run.command, arguments, mount).await;
        if let Some(folder) = folder {
            folder.remove().await;
        }
        self.commit(state, &told, Some(layer?)).await
    }

    /// Runs a command to its end; what it changed.
    async fn run_container(
        &mut self,
        state: &StageState,
        command: &[String],
        arguments: Vec<String>,
        mount: Option<MountPoint>,
    ) -> Result<NewLayer> {
        let image = match &state.image {
            Some(image) => image.for_container(),
            None => nothing(state),
        };
        let config = Config {
            image: state.id().to_owned(),
            cmd: Some(command.to_vec()),
            // Cleared, not inherited.
            entrypoint: Some(vec![String::new()]),
            env: Some([state.config.env.clone(), arguments].concat()),
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
            ..state.config.to_container_config()
        };
        let request = ContainerCreateRequest {
            config,
            host_config: self.request.limits.host_config(),
            own_mounts: mount.into_iter().collect(),
            ..ContainerCreateRequest::default()
        };
        let (engine, tenant) = (self.engine.clone(), self.scope.clone());
        let created = async move { engine.create_of(&tenant, request, image).await };
        let created = self.engine.run("container_create", created).await?;
        for warning in &created.warnings {
            self.output.say(format!(" ---> [Warning] {warning}\n")).await;
        }
        self.entered(&created.id).await;
        self.run_to_end(&created.id, command).await?;
        self.engine.images.backend.store_changes(self.lease, &created.id).await
    }

    async fn run_to_end(&self, id: &ContainerId, command: &[String]) -> Result<()> {
        let container = self.engine.containers.get(self.scope.tenant(), id.as_str())?;
        let mut pieces = container.console.attach(true, true);
        self.engine.container_start(self.scope, id.as_str()).await?;
        loop {
            let piece = tokio::select! {
                () = self.cancelled.cancelled() => return Err(cancelled_error()),
                piece = pieces.recv() => piece,
            };
            let Some((stream, bytes)) = piece else { break };
            self.output.say_output(stream, &bytes).await;
        }
        let code = exit_code(&container).await;
        if code == 0 {
            return Ok(());
        }
        self.output.set_exit_code(code);
        Err(Error::build_command_failed(&command.join(" "), code))
    }
}

async fn exit_code(container: &Arc<Container>) -> i64 {
    let ended = container.wait_for(|snapshot| snapshot.removed || !snapshot.record.state.counts_as_running()).await;
    ended.record.state.ended().map_or(0, |ended| ended.exit_code)
}

/// A line with its heredocs.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    /// Of the container.
    command: Vec<String>,
    /// The command as the history has it: with all that it does.
    told: Vec<String>,
    /// What the command is the path of; its name is a file's.
    script: Option<Heredoc>,
}

impl Run {
    /// A heredoc that is the whole line is the shell's script, or a program of its own if it names its interpreter;
    /// others are read by the shell.
    fn of(config: &ImageConfig, line: &CommandLine) -> Result<Self> {
        let command = |words: Vec<String>| {
            let line = CommandLine { words, ..line.clone() };
            changes::command(config, &line).filter(|words| !words.is_empty()).ok_or_else(Error::no_command_specified)
        };
        let mut whole = line.words.clone();
        for Heredoc { content, name, .. } in &line.heredocs {
            whole.iter_mut().for_each(|word| word.push_str(&format!("\n{content}{name}")));
        }
        let alone = match (&line.heredocs[..], &line.words[..]) {
            ([document], [word]) if heredoc_of(word).is_some() => Some(document),
            _ => None,
        };
        let run =
            |words: Vec<String>| command(words).map(|command| Self { told: command.clone(), command, script: None });
        match alone {
            // As BuildKit does, by the document as it stands: a tab before it makes it the shell's.
            Some(script) if script.content.starts_with("#!") => Ok(Self {
                command: command(vec![format!("{SCRIPTS}/{}", script.file_name()?)])?,
                told: command(whole)?,
                script: Some(script.clone()),
            }),
            Some(script) => run(vec![script.text()]),
            None => run(whole),
        }
    }
}

/// A script's place in its container.
fn mount(folder: &TempFolder, name: &str) -> MountPoint {
    MountPoint {
        kind: MountKind::Bind,
        source: folder.path().join(name).to_string_lossy().into_owned(),
        destination: format!("{SCRIPTS}/{name}"),
        propagation: "rprivate".to_owned(),
        ..MountPoint::default()
    }
}

/// How the history tells a command: with the arguments that it saw, so that others make another image.
fn with_arguments(state: &StageState, arguments: &[String], command: &[String]) -> Vec<String> {
    if arguments.is_empty() {
        return command.to_vec();
    }
    let name = |line: &String| line.split('=').next().unwrap_or_default().to_owned();
    let mut told: Vec<String> = arguments.iter().filter(|line| state.arguments.is_told(&name(line))).cloned().collect();
    told.sort();
    [vec![format!("|{}", told.len())], told, command.to_vec()].concat()
}

/// An image without layers, for a container of `FROM scratch`.
fn nothing(state: &StageState) -> ImageForContainer {
    let empty = Descriptor::of(media_type::OCI_CONFIG, b"{}");
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: empty.clone(),
        layers: Vec::new(),
        annotations: indexmap::IndexMap::new(),
    };
    let document = crate::model::image::documents::ImageDocument {
        platform: state.platform.clone(),
        ..crate::model::image::documents::ImageDocument::default()
    };
    BaseImage { variant: empty.clone(), target: empty, manifest, document }.for_container()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::{Dockerfile, Instruction};

    fn run(text: &str) -> Result<Run> {
        let file = Dockerfile::parse("Dockerfile", format!("FROM x\n{text}").as_bytes()).unwrap();
        let Instruction::Run(line, _) = &file.stages[0].steps[0].instruction else { panic!("no RUN") };
        Run::of(&ImageConfig::default(), line)
    }

    /// What the shell is given.
    fn line(text: &str) -> String {
        let Run { mut command, told, script } = run(text).unwrap();
        assert_eq!((&command, script), (&told, None));
        command.pop().unwrap()
    }

    #[test]
    fn heredoc_alone_is_the_shells_script() {
        assert_eq!(line("RUN <<EOF\necho $a\nEOF\n"), "echo $a\n");
        assert_eq!(line("RUN <<-'EOF'\n\t\techo $a\n\tEOF\n"), "echo $a\n");
        assert_eq!(line("RUN << EOF\ntrue\nEOF\n"), "true\n");
        assert_eq!(line("RUN <<-EOF\n\t#!/bin/cat\nEOF\n"), "#!/bin/cat\n");
    }

    #[test]
    fn heredocs_of_a_command_are_read_by_the_shell() {
        assert_eq!(line("RUN python3 <<EOF\n#!x\nEOF\n"), "python3 <<EOF\n#!x\nEOF");
        assert_eq!(line("RUN <<EOF cat\n#!x\nEOF\n"), "<<EOF cat\n#!x\nEOF");
        assert_eq!(line("RUN <<A <<B\n#!x\nA\nb\nB\n"), "<<A <<B\n#!x\nA\nb\nB");
        assert_eq!(line("RUN cat <<A 3<<-'B'\na\nA\n\tb\nB\n"), "cat <<A 3<<-'B'\na\nA\n\tb\nB");
    }

    #[test]
    fn script_with_an_interpreter_is_run_by_its_path() {
        let made = run("RUN <<-'EOF'\n#!/bin/cat\n\ta\nEOF\n").unwrap();
        assert_eq!(made.command, ["/bin/sh", "-c", "/dev/pipes/EOF"]);
        assert_eq!(made.told, ["/bin/sh", "-c", "<<-'EOF'\n#!/bin/cat\n\ta\nEOF"]);
        assert_eq!(made.script.unwrap().text(), "#!/bin/cat\na\n");
        let refused = run("RUN <<../x\n#!/bin/cat\n../x\n").unwrap_err();
        assert_eq!(refused.message(), "invalid heredoc name \"../x\"");
    }
}
