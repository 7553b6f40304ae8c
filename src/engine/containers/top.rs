//! `GET /containers/{id}/top`.

use std::{collections::HashSet, io, process::Stdio};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use crate::{
    engine::{Engine, tenants::Scope},
    model::{Error, Result, container::ContainerState, error::Context, limits},
    work::Carried,
};

/// What `ps` says of a container's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// Headings.
    pub titles: Vec<String>,
    /// A row a process.
    pub processes: Vec<Vec<String>>,
}

impl Engine {
    /// Runs the host's `ps` with the client's arguments and keeps the rows of this container, as dockerd does.
    pub async fn container_top(&self, scope: &Scope, reference: &str, arguments: &str) -> Result<Top> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let id = container.id().as_str();
        let state = container.turn().await?.state();
        match state {
            ContainerState::Running(_) | ContainerState::Paused(_) => {}
            ContainerState::Restarting(_) => {
                return Err(Error::conflict(format!(
                    "Container {id} is restarting, wait until the container is running"
                )));
            }
            _ => return Err(Error::not_running(id)),
        }
        let arguments = if arguments.is_empty() { "-ef" } else { arguments };
        check_arguments(arguments)?;
        let pids: HashSet<u32> = match self.backends.runtime.pids(container.id()).await {
            Ok(pids) => pids.into_iter().collect(),
            Err(error) => return Err(self.told_by_end(&container, error).await),
        };
        // How much `ps` takes and says is the container's to choose.
        let _place = Carried::here().place().await?;
        let top = select(&ps(arguments).await?, &pids)?;
        self.events.container(&container.record(), "top", &[]);
        Ok(top)
    }
}

/// What `ps` says. A process may have made its command line long, and the client may ask for it a thousand times.
async fn ps(arguments: &str) -> Result<String> {
    let mut ps = Command::new("ps");
    ps.args(arguments.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    crate::descriptors::give_back(ps.kill_on_drop(true).as_std_mut());
    let mut ps = ps.spawn().context("running ps")?;
    let (output, reason) = tokio::join!(beginning(ps.stdout.take()), beginning(ps.stderr.take()));
    let (output, reason) = (output.context("reading from ps")?, reason.context("reading from ps")?);
    if output.len() as u64 > limits::PROCESS_TABLE {
        return Err(Error::invalid(format!("ps says more than {}", limits::mib(output.len()))));
    }
    if !ps.wait().await.context("running ps")?.success() {
        return Err(Error::system(format!("ps: {}", String::from_utf8_lossy(&reason).trim())));
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

async fn beginning(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limits::PROCESS_TABLE + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// `ps` must be told to print process numbers as they are, or a row could pose as another process.
fn check_arguments(arguments: &str) -> Result<()> {
    let renames_pid = arguments.split_whitespace().any(|word| word.contains("pid=") && !word.contains("ppid="));
    if renames_pid {
        return Err(Error::invalid(format!("specifying \"{arguments}\" is not allowed")));
    }
    Ok(())
}

fn select(output: &str, pids: &HashSet<u32>) -> Result<Top> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let pid_column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::system("Couldn't find PID field in ps output"))?;
    let row = |line: &str| {
        // The last column may hold blanks.
        let mut words = line.split_whitespace();
        let mut row: Vec<String> = words.by_ref().take(titles.len() - 1).map(str::to_owned).collect();
        let rest: Vec<&str> = words.collect();
        if !rest.is_empty() {
            row.push(rest.join(" "));
        }
        row
    };
    let belongs = |row: &Vec<String>| {
        row.get(pid_column).and_then(|pid| pid.parse().ok()).is_some_and(|pid: u32| pids.contains(&pid))
    };
    let processes = lines.map(row).filter(belongs).collect();
    Ok(Top { titles, processes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_column_keeps_its_words() {
        let output = "UID PID CMD\nroot 7 sleep 1 2\nroot 8 top\n";
        let top = select(output, &HashSet::from([7])).unwrap();
        assert_eq!(top.processes, vec![vec!["root", "7", "sleep 1 2"]]);
    }

    #[test]
    fn a_renamed_pid_column_is_refused() {
        assert!(check_arguments("-o pid=foo").is_err());
        assert!(check_arguments("-o pid,ppid").is_ok());
    }
}
