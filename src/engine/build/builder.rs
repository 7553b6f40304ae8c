//! Going through a Dockerfile, stage by stage.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    BuildRequest,
    cache::Cache,
    cancelled_error,
    context::Context,
    message::Output,
    stage::{BaseImage, StageState},
};
use crate::{
    backend::images::Lease,
    dockerfile::{
        Dockerfile, Instruction, Stage,
        args::BuildArguments,
        expand::{Variables, expand},
        stages::trigger,
    },
    engine::{Engine, containers::delete::DeleteOptions, tenants::Scope},
    model::{Error, Result, id::ContainerId, image::Platform, reference::Reference},
};

/// A stage that is done.
pub(super) struct StageResult {
    /// Lower case; empty for none.
    pub name: String,
    /// `None` if it made nothing of nothing.
    pub image: Option<Arc<BaseImage>>,
}

/// A build under way.
pub(super) struct Builder<'a> {
    pub engine: &'a Engine,
    pub scope: &'a Scope,
    pub request: &'a BuildRequest,
    pub lease: &'a Lease,
    pub output: &'a Output,
    pub cancelled: &'a CancellationToken,
    pub context: Option<&'a Context>,
    pub cache: Cache,
    pub done: Vec<StageResult>,
    pub escape: char,
    arguments: BuildArguments,
    /// Of steps so far, not yet removed.
    containers: Vec<ContainerId>,
    step: usize,
    steps: usize,
}

impl<'a> Builder<'a> {
    pub async fn new(
        engine: &'a Engine,
        scope: &'a Scope,
        request: &'a BuildRequest,
        lease: &'a Lease,
        output: &'a Output,
        cancelled: &'a CancellationToken,
        context: Option<&'a Context>,
    ) -> Result<Self> {
        Ok(Self {
            engine,
            scope,
            request,
            lease,
            output,
            cancelled,
            context,
            cache: Cache::open(engine, scope, request).await?,
            done: Vec::new(),
            escape: '\\',
            arguments: BuildArguments::new(request.arguments.clone()),
            containers: Vec::new(),
            step: 0,
            steps: 0,
        })
    }

    /// Carries everything out; the image's id.
    pub async fn build(&mut self, mut dockerfile: Dockerfile, names: &[Reference]) -> Result<String> {
        dockerfile.stop_at(&self.request.target)?;
        let mut labels: Vec<_> = self.request.labels.clone().into_iter().collect();
        labels.sort();
        dockerfile.add_labels(labels);
        for warning in &dockerfile.warnings {
            self.output.say_error(&format!("{warning}\n")).await;
        }
        self.steps = dockerfile.len();
        self.escape = dockerfile.escape;
        for step in dockerfile.arguments {
            if self.cancelled.is_cancelled() {
                return Err(cancelled_error());
            }
            self.announce(&step.shown).await;
            let mut instruction = step.instruction;
            let variables = Variables::of_lines(&self.arguments.beside(&[]));
            instruction.expand(&|text| expand(text, self.escape, &variables))?;
            if let Instruction::Arg(arguments) = instruction {
                for (name, default) in arguments {
                    self.arguments.declare_global(&name, default)?;
                }
            }
        }
        for stage in dockerfile.stages {
            self.stage(stage).await?;
        }
        let unused = self.arguments.unused();
        if !unused.is_empty() {
            let unused = unused.join(" ");
            self.output.say(format!("[Warning] One or more build-args [{unused}] were not consumed\n")).await;
        }
        let last = self.done.last().and_then(|stage| stage.image.clone());
        let image = last.ok_or_else(|| Error::system("No image was generated. Is your Dockerfile empty?"))?;
        self.name(&image, names).await?;
        Ok(image.id().to_string())
    }

    async fn stage(&mut self, stage: Stage) -> Result<()> {
        if !stage.name.is_empty() && self.done.iter().any(|done| done.name == stage.name) {
            return Err(Error::system(format!("{} stage name already used", stage.name)));
        }
        self.announce(&stage.shown).await;
        let mut state = self.begin(&stage).await?;
        self.output.say(format!(" ---> {}\n", state.short_id())).await;
        for step in stage.steps {
            if self.cancelled.is_cancelled() {
                return Err(cancelled_error());
            }
            self.announce(&step.shown).await;
            self.step(&mut state, step.instruction).await?;
            self.output.say(format!(" ---> {}\n", state.short_id())).await;
        }
        if state.image.is_some() {
            self.output.say_id(state.id()).await;
        }
        self.arguments.merge_used(&state.arguments);
        self.done.push(StageResult { name: stage.name, image: state.image });
        Ok(())
    }

    async fn begin(&mut self, stage: &Stage) -> Result<StageState> {
        let variables = Variables::of_lines(&self.arguments.of_globals());
        let expand = |text: &str| expand(text, self.escape, &variables);
        let platform = match stage.platform.as_str() {
            "" => self.request.platform.clone(),
            text => {
                let text = expand(text)?;
                let platform: Result<Platform> = text.parse();
                Some(platform.map_err(|error| error.context(format!("failed to parse platform {text}")))?)
            }
        };
        let base = expand(&stage.base)?;
        if base.is_empty() {
            return Err(Error::system(format!("base name ({}) should not be blank", stage.base)));
        }
        let image = self.base(&base, platform.as_ref()).await?;
        let platform = platform.unwrap_or_else(Platform::host);
        let mut state = StageState::new(image, platform, self.arguments.for_stage());
        let triggers = state.config.on_build.take().unwrap_or_default();
        if !triggers.is_empty() {
            let s = if triggers.len() == 1 { "" } else { "s" };
            self.output.say(format!("# Executing {} build trigger{s}", triggers.len())).await;
            self.output.say("\n").await;
        }
        for text in triggers {
            self.step(&mut state, trigger(&text)?.instruction).await?;
        }
        Ok(state)
    }

    async fn announce(&mut self, shown: &str) {
        self.step += 1;
        self.output.say(format!("Step {}/{} : {shown}", self.step, self.steps)).await;
        self.output.say("\n").await;
    }

    /// One instruction, and the end of its container.
    async fn step(&mut self, state: &mut StageState, instruction: Instruction) -> Result<()> {
        let carried_out = self.carry_out(state, instruction).await;
        let keep = match &carried_out {
            Ok(()) => !self.request.remove && !self.request.force_remove,
            Err(_) => !self.request.force_remove,
        };
        if !keep || self.cancelled.is_cancelled() {
            self.remove_containers().await;
        }
        carried_out
    }

    /// A step runs in this container.
    pub async fn entered(&mut self, id: &ContainerId) {
        self.containers.push(id.clone());
        self.output.say(format!(" ---> Running in {}\n", id.short())).await;
    }

    /// A step that needs no container shows one as dockerd does.
    pub async fn show_container(&mut self) {
        let id = ContainerId::random();
        self.output.say(format!(" ---> Running in {}\n", id.short())).await;
        if self.request.remove || self.request.force_remove {
            self.say_removed(&id).await;
        }
    }

    async fn remove_containers(&mut self) {
        for id in std::mem::take(&mut self.containers) {
            if let Ok(container) = self.engine.containers.get(self.scope.tenant(), id.as_str()) {
                let options = DeleteOptions { force: true, volumes: true };
                if let Err(error) = self.engine.remove(&container, options).await {
                    let (id, error) = (id.short(), error.chain());
                    self.output.say(format!("Removing intermediate container {id}: {error}\n")).await;
                    continue;
                }
            }
            self.say_removed(&id).await;
        }
    }

    async fn say_removed(&self, id: &ContainerId) {
        self.output.say(format!(" ---> Removed intermediate container {}\n", id.short())).await;
    }
}
