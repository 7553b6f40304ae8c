//! A Docker socket under test, as named on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};

/// `NAME=unix://PATH[,netns=PID][,admin=PATH][,buildctl=PROGRAM][,reference][,job=POLICY]`: one daemon to run the cases on.
#[derive(Clone, Debug)]
pub struct Socket {
    /// What the table calls it.
    pub name: String,
    /// Where its unix socket is.
    pub path: PathBuf,
    /// A process in the network namespace where its published ports are reached.
    pub netns: Option<u32>,
    /// The socket through which jobs are made on it.
    pub admin: Option<PathBuf>,
    /// The client by which it is asked, if it is a BuildKit alone.
    pub buildctl: Option<PathBuf>,
    /// Whether its answers are what the others are held against.
    pub reference: bool,
    /// The policy of the job of ringer's whose it is.
    pub job: Option<String>,
}

impl FromStr for Socket {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, rest) = text.split_once('=').context("expected NAME=unix://PATH")?;
        let mut parts = rest.split(',');
        let path = parts
            .next()
            .and_then(|host| host.strip_prefix("unix://"))
            .context("expected a host of the form unix://PATH")?;
        let (name, path) = (name.to_owned(), PathBuf::from(path));
        let mut socket = Self { name, path, netns: None, admin: None, buildctl: None, reference: false, job: None };
        for part in parts {
            match part.split_once('=') {
                Some(("netns", pid)) => socket.netns = Some(pid.parse().context("netns takes a process id")?),
                Some(("admin", path)) => socket.admin = Some(path.into()),
                Some(("buildctl", program)) => socket.buildctl = Some(program.into()),
                None if part == "reference" => socket.reference = true,
                Some(("job", policy)) => socket.job = Some(policy.to_owned()),
                _ => bail!("unknown setting of a socket: {part}"),
            }
        }
        Ok(socket)
    }
}

/// The sockets that the others are held against: those marked so, else the first.
pub fn mark_references(sockets: &mut [Socket]) {
    if sockets.iter().all(|socket| !socket.reference)
        && let Some(first) = sockets.first_mut()
    {
        first.reference = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_follow_the_path() {
        let socket: Socket = "d=unix:///run/d.sock,netns=7,reference,job=ci".parse().expect("it is well formed");
        assert_eq!((socket.name.as_str(), socket.netns, socket.reference), ("d", Some(7), true));
        assert_eq!(socket.job.as_deref(), Some("ci"));
        assert_eq!(socket.path, PathBuf::from("/run/d.sock"));
    }

    #[test]
    fn the_first_socket_is_the_reference_unless_one_is_marked() {
        let mut sockets = ["a=unix:///a", "b=unix:///b"].map(|text| text.parse::<Socket>().expect("it is well formed"));
        mark_references(&mut sockets);
        assert_eq!(sockets.map(|socket| socket.reference), [true, false]);
    }
}
