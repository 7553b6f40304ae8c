//! `RUN`: a container of the tenant, whose changes become a layer.

use std::sync::Arc;

use super::{
    builder::Builder,
    cancelled_error,
    stage::{BaseImage, StageState},
};
use crate::{
    dockerfile::{CommandLine, changes},
    engine::container::Container,
    model::{
        Error, Result,
        container::{Config, ContainerCreateRequest, HealthConfig},
        id::ContainerId,
        image::{
            Descriptor, ImageConfig, ImageForContainer,
            documents::{Manifest, media_type},
        },
    },
};

impl Builder<'_> {
    pub(super) async fn run(&mut self, state: &mut StageState, line: &CommandLine, flag: Option<&str>) -> Result<()> {
        if let Some(flag) = flag {
            return Err(Error::requires_buildkit(flag));
        }
        let command = command(&state.config, line)?;
        let arguments = state.arguments.beside(&state.config.env);
        let told = with_arguments(state, &arguments, &command);
        if self.find(state, &told).await? {
            return Ok(());
        }
        let image = match &state.image {
            Some(image) => image.for_container(),
            None => nothing(state),
        };
        let config = Config {
            image: state.id().to_owned(),
            cmd: Some(command.clone()),
            // Cleared, not inherited.
            entrypoint: Some(vec![String::new()]),
            env: Some([state.config.env.clone(), arguments].concat()),
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
            ..state.config.to_container_config()
        };
        let request = ContainerCreateRequest {
            config,
            host_config: self.request.limits.host_config(),
            ..ContainerCreateRequest::default()
        };
        let (engine, tenant) = (self.engine.clone(), self.tenant.clone());
        let created = async move { engine.create_of(&tenant, request, image).await };
        let created = self.engine.run("container_create", created).await?;
        for warning in &created.warnings {
            self.output.say(format!(" ---> [Warning] {warning}\n")).await;
        }
        self.entered(&created.id).await;
        self.run_to_end(&created.id, &command).await?;
        let layer = self.engine.images.backend.store_changes(self.lease, &created.id).await?;
        self.commit(state, &told, Some(layer)).await
    }

    async fn run_to_end(&self, id: &ContainerId, command: &[String]) -> Result<()> {
        let container = self.engine.containers.get(self.tenant, id.as_str())?;
        let mut pieces = container.console.attach(true, true);
        self.engine.container_start(self.tenant, id.as_str()).await?;
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

/// The command with its heredocs. A heredoc that is the whole line is the script; others belong to the shell's line.
fn command(config: &ImageConfig, line: &CommandLine) -> Result<Vec<String>> {
    let mut line = line.clone();
    if let [document] = &line.heredocs[..]
        && line.words.len() == 1
        && crate::dockerfile::parser::heredoc_of(&line.words[0]).is_some()
    {
        let script = document.text();
        if script.starts_with("#!") {
            return Err(Error::not_implemented("scripts with an interpreter line in RUN heredocs need BuildKit"));
        }
        line.words = vec![script];
    } else {
        for document in &line.heredocs {
            let text = format!("\n{}{}", document.content, document.name);
            line.words.iter_mut().for_each(|word| word.push_str(&text));
        }
    }
    changes::command(config, &line).filter(|words| !words.is_empty()).ok_or_else(Error::no_command_specified)
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
