//! `POST /containers/{id}/wait`.

use std::{future::Future, sync::Arc};

use crate::{
    engine::{
        Engine,
        container::{Container, WaitOutcome},
        tenants::Scope,
    },
    model::Result,
};

/// What a client waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// That it does not run; true at once for one that was never started.
    #[default]
    NotRunning,
    /// That it ends after this call.
    NextExit,
    /// That it is gone.
    Removed,
}

impl Engine {
    /// Finds the container, then waits. The answer's headers go out between the two: clients start the
    /// container only when they have them.
    pub async fn container_wait(
        &self,
        scope: &Scope,
        reference: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = WaitOutcome> + Send + use<>> {
        let container = match self.containers.get(scope.tenant(), reference) {
            // Of a start that is under way the end is waited for.
            Ok(container) => {
                drop(container.turn().await);
                Some(container)
            }
            // Gitea's runner waits for a container that may have removed itself already.
            Err(missing) => match self.containers.last_words(scope.tenant(), reference) {
                Some(outcome) => return Ok(wait(None, 0, condition, Some(outcome))),
                None => return Err(missing),
            },
        };
        let exits = container.as_ref().map_or(0, |container| container.snapshot().exits);
        Ok(wait(container, exits, condition, None))
    }
}

async fn wait(
    container: Option<Arc<Container>>,
    exits: u64,
    condition: WaitCondition,
    known: Option<WaitOutcome>,
) -> WaitOutcome {
    let Some(container) = container else {
        return known.unwrap_or(WaitOutcome { status_code: 0, error: None });
    };
    let snapshot = container
        .wait_for(|snapshot| {
            snapshot.removed
                || match condition {
                    // One that is started again and again has ended at its first end.
                    WaitCondition::NotRunning => !snapshot.record.state.counts_as_running() || snapshot.exits > exits,
                    WaitCondition::NextExit => snapshot.exits > exits,
                    WaitCondition::Removed => false,
                }
        })
        .await;
    WaitOutcome::of(&snapshot)
}
