//! Runs one program with a time limit and takes everything it printed.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// What a program left behind when it was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit code, or 128 + the signal that ended it; `None` when its time ran out.
    pub code: Option<i32>,
    /// Everything it wrote to its standard output.
    pub stdout: String,
    /// Everything it wrote to its standard error.
    pub stderr: String,
}

/// Runs the command in a process group of its own with no input. When it ends, or when its time is up, whatever is left of
/// the group is killed, so that a step cannot leave a client behind.
pub fn run(command: &mut Command, limit: Duration) -> std::io::Result<Output> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
    let stdout = read_all(child.stdout.take());
    let stderr = read_all(child.stderr.take());
    let code = wait(&mut child, limit)?;
    kill_group(&child);
    if code.is_none() {
        child.wait()?;
    }
    Ok(Output { code, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() })
}

/// Kills every process of the child's group.
pub fn kill_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // The group is usually gone by now, which is what we want.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<i32>> {
    use std::os::unix::process::ExitStatusExt;

    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(None)
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_takes_too_long_has_no_exit_code() {
        let output = run(Command::new("sh").args(["-c", "echo begun; sleep 60"]), Duration::from_millis(300));
        let output = output.expect("sh is there");
        assert_eq!((output.code, output.stdout.as_str()), (None, "begun\n"));
    }

    #[test]
    fn a_background_process_does_not_hold_the_step() {
        let output = run(Command::new("sh").args(["-c", "sleep 60 & exit 3"]), Duration::from_secs(20));
        assert_eq!(output.expect("sh is there").code, Some(3));
    }
}
