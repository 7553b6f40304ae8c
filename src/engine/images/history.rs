//! `GET /images/{name}/history`.

use std::sync::Arc;

use crate::{
    engine::{
        Engine,
        images::{look_up::Found, tree::Tree},
        tenants::Scope,
    },
    model::{
        Error, Result,
        image::{Platform, documents::HistoryEntry},
        time::Timestamp,
    },
};

/// One step of an image's making, newest first in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    /// The image's id for the newest step, `<missing>` for the others.
    pub id: String,
    /// When.
    pub created: Timestamp,
    /// The command.
    pub created_by: String,
    /// Names of the image, for the newest step.
    pub tags: Vec<String>,
    /// Bytes of the step's layer on disk; 0 if it made none.
    pub size: u64,
    /// Comment.
    pub comment: String,
}

impl Engine {
    /// How an image came about.
    pub async fn image_history(
        &self,
        scope: &Scope,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<HistoryLine>> {
        let found = self.images.find(scope.tenant(), image).await?;
        let tree = self.images.tree(&found).await?;
        let wanted = || platform.cloned().unwrap_or_else(Platform::host).to_string();
        let chosen = tree.choose(platform).ok_or_else(|| Error::platform_not_provided(image, &wanted()));
        let (_, content) = chosen?;
        let mut chains = content.document.chain_ids().into_iter();
        let mut lines = Vec::new();
        for entry in &content.document.history {
            let chain = if entry.empty_layer { None } else { chains.next() };
            let size = match chain {
                Some(chain) => self.images.snapshot_size(&chain).await,
                None => 0,
            };
            lines.push(line(entry, size));
        }
        lines.reverse();
        self.name_steps(scope, found, tree, &mut lines).await?;
        Ok(lines)
    }

    /// Each image that was made here is one step more than the one it was made on.
    async fn name_steps(&self, scope: &Scope, found: Found, tree: Arc<Tree>, lines: &mut [HistoryLine]) -> Result<()> {
        let mut image = Some((found, tree));
        for line in lines {
            let Some((found, tree)) = image.take() else { break };
            line.id = found.id().to_string();
            line.tags = found.repo_tags();
            let Some(parent) = &tree.parent else { break };
            // It may have been removed since.
            if let Ok(parent) = self.images.find(scope.tenant(), parent.as_str()).await {
                let tree = self.images.tree(&parent).await?;
                image = Some((parent, tree));
            }
        }
        Ok(())
    }
}

fn line(entry: &HistoryEntry, size: u64) -> HistoryLine {
    HistoryLine {
        id: "<missing>".to_owned(),
        created: entry.created.unwrap_or_default(),
        created_by: entry.created_by.clone(),
        tags: Vec::new(),
        size,
        comment: entry.comment.clone(),
    }
}
