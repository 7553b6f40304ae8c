//! `GET /containers/{id}/logs`.

use crate::{
    engine::{Engine, tenants::Scope},
    logs::{LogStream, ReadOptions},
    model::{Error, Result},
};

impl Engine {
    /// Reads the log. Says also whether the container has a terminal: then nothing is framed.
    pub fn container_logs(&self, scope: &Scope, reference: &str, options: ReadOptions) -> Result<(LogStream, bool)> {
        let tty = self.containers.get(scope.tenant(), reference)?.record().config.tty;
        let stream = self.container_log(scope, reference, ReadOptions { framed: !tty, ..options })?;
        Ok((stream, tty))
    }

    /// The log as `options` say it.
    pub fn container_log(&self, scope: &Scope, reference: &str, options: ReadOptions) -> Result<LogStream> {
        let container = self.containers.get(scope.tenant(), reference)?;
        if !options.stdout && !options.stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        if container.is_being_removed() {
            return Err(Error::conflict("can not get logs from container which is dead or marked for removal"));
        }
        container.log.read(options)
    }
}
