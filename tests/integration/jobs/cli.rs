//! `ringer job`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Job, remains, until_only};
use crate::support::daemon::Daemon;

pub(super) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command with a job says to this input.
fn answers(daemon: &Daemon, input: &str, command: &[&str]) -> String {
    let mut child = daemon
        .ringer(&[&["job", "run", "--quiet", "--"], command].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ringer runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the command reads");
    String::from_utf8(child.wait_with_output().expect("it ends").stdout).expect("text")
}

/// Runs `script` in a shell with a job of its own.
fn run(daemon: &Daemon, flags: &[&str], script: &str) -> Output {
    let command = [&["job", "run"], flags, &["--", "sh", "-c", script]].concat();
    daemon.ringer(&command).stdin(Stdio::null()).output().expect("ringer runs")
}

#[tokio::test]
async fn a_command_gets_a_socket_streams_and_its_exit_code_back() {
    let daemon = Daemon::start().await;
    let rootfs = daemon.folder().join("box.tar");
    std::fs::write(&rootfs, crate::support::boxes::rootfs()).unwrap();
    let script = format!(
        "set -e; docker import {} box >/dev/null; docker network create n >/dev/null; \
         docker run -d --name web --network n -v data:/data box sleep 1000 >/dev/null; \
         docker exec web sh -c 'dd if=/dev/zero of=/big bs=1000 count=400; dd if=/dev/zero of=/data/big bs=1000 count=200' 2>/dev/null; \
         docker exec web echo from the exec; docker ps -q | wc -l; echo problem >&2; exit 7",
        rootfs.display()
    );
    let output = run(&daemon, &["--name", "mine"], &script);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from the exec\n1\n", "{}", stderr(&output));
    let told = stderr(&output);
    assert!(
        told.starts_with("problem\nringer: job mine: removed 1 container, 1 network, 1 volume, 1 image, "),
        "{told}"
    );
    assert_eq!(told.lines().count(), 2, "{told}");
    let bytes: f64 =
        told.rsplit(", ").next().and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok()).expect(&told);
    assert!((600.0..700.0).contains(&bytes), "what its containers and volumes took: {told}");
    assert_eq!(
        answers(&daemon, "from outside\n", &["sh", "-c", "read line; echo got $line; cat"]),
        "got from outside\n"
    );
    assert_eq!(daemon.ringer(&["job", "ls", "--json"]).output().unwrap().stdout, b"[]\n");
    remains::gone_of(&daemon, "job-").await;
}

/// What a shell in `folder` does with a job of its own.
pub(super) fn run_in(daemon: &Daemon, folder: &std::path::Path, flags: &[&str], script: &str) -> Output {
    let import = format!("docker import {} box >/dev/null && ", daemon.folder().join("box.tar").display());
    let script = import + script;
    let command = [&["job", "run", "--quiet"], flags, &["--", "sh", "-c", &script]].concat();
    daemon.ringer(&command).current_dir(folder).stdin(Stdio::null()).output().expect("ringer runs")
}

#[tokio::test]
async fn a_job_binds_the_folder_that_it_was_run_in_and_no_other() {
    let daemon = Daemon::start().await;
    std::fs::write(daemon.folder().join("box.tar"), crate::support::boxes::rootfs()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let (folder, other) = (place.path().join("work"), place.path().join("other"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(folder.join("file"), "from the machine\n").unwrap();
    std::os::unix::fs::symlink(&other, folder.join("out")).unwrap();
    std::os::unix::fs::symlink(&folder, place.path().join("link")).unwrap();

    let script = "docker run --rm -v $PWD:/src box sh -c 'cat /src/file; echo back > /src/new' && \
                  docker run --rm -v $PWD/a/b:/b box sh -c 'echo deep > /b/new'";
    for (start, flags) in [("work", &[][..]), ("link", &[])] {
        let output = run_in(&daemon, &place.path().join(start), flags, script);
        assert_eq!(output.status.code(), Some(0), "{start}: {}", stderr(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "from the machine\n", "{start}");
        for (path, text) in [("new", "back\n"), ("a/b/new", "deep\n")] {
            assert_eq!(std::fs::read_to_string(folder.join(path)).unwrap(), text, "{start}: {path}");
            std::fs::remove_file(folder.join(path)).unwrap();
        }
        std::fs::remove_dir_all(folder.join("a")).unwrap();
    }

    let refused = |flags: &[&str], bind: &str, expected: &str| {
        let output = run_in(&daemon, &folder, flags, &format!("docker run --rm -v {bind} box true"));
        assert_eq!(output.status.code(), Some(125), "{bind}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{bind}: {}", stderr(&output));
    };
    let all = other.display().to_string();
    refused(&[], &format!("{all}:/x"), "refused by the policy ci, rule binds");
    refused(&[], "/:/x", "refused by the policy ci, rule binds");
    refused(&["--no-bind"], "$PWD:/x", "refused by the policy ci, rule binds");
    refused(&[], "$PWD/out:/x", "link");
    refused(&[], "$PWD/out/made:/x", "link");
    refused(&["--bind", &format!("{all}:ro")], &format!("{all}:/x"), "refused by the policy ci, rule binds");
    refused(&["--bind", &format!("{all}:ro")], &format!("{all}/made:/x:ro"), "bind source path does not exist");
    assert!(std::fs::read_dir(&other).unwrap().next().is_none(), "nothing was made where nothing may be written");
    let read =
        run_in(&daemon, &folder, &["--bind", "../other:ro"], &format!("docker run --rm -v {all}:/x:ro box ls /x"));
    assert_eq!(read.status.code(), Some(0), "{}", stderr(&read));

    // Nobody gives away all of the machine by where his shell is, nor what the daemon keeps.
    let output = run_in(&daemon, std::path::Path::new("/"), &[], "docker run --rm -v /etc:/x box true");
    assert!(stderr(&output).contains("refused by the policy ci, rule binds: /etc"), "{}", stderr(&output));
    let output = run_in(&daemon, &daemon.folder().join("data"), &[], "true");
    assert!(stderr(&output).contains("ringer's own files are there"), "{}", stderr(&output));
    remains::gone_of(&daemon, "job-").await;
}

#[tokio::test]
async fn signals_reach_the_command_and_the_job_goes() {
    let daemon = Daemon::start().await;
    let passed_on = [
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
    ];
    let traps: String = passed_on.iter().map(|(name, _)| format!("trap 'echo {name}' {name}; ")).collect();
    let script = format!("{traps} trap 'echo caught; exit 3' TERM; echo $RINGER_JOB; while :; do sleep 0.05; done");
    let mut child = daemon
        .ringer(&["job", "run", "--", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let job = lines.next().unwrap();
    for (name, signal) in passed_on {
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(lines.next().as_deref(), Some(name));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(lines.next().as_deref(), Some("caught"));
    assert_eq!(child.wait().unwrap().code(), Some(3));
    remains::gone_of(&daemon, &job).await;
    // Ctrl-C at a terminal comes from there to all that read from it: the command gets it once. ringer is stopped until it has it, so that a second
    // one would not be taken for the same.
    let script = "trap 'echo caught; caught=1' INT; kill -STOP $PPID; echo ready; while [ -z $caught ]; do sleep 0.05; done; \
                  kill -CONT $PPID; n=0; while [ $n -lt 10 ]; do sleep 0.05; n=$((n+1)); done; echo ended";
    let mut terminal = at_a_terminal(&daemon, script);
    let mut lines = BufReader::new(terminal.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.trim() == "ready"));
    terminal.stdin.as_ref().unwrap().write_all(b"\x03").unwrap();
    let said: Vec<String> = lines.collect();
    terminal.wait().unwrap();
    assert_eq!(said.iter().filter(|line| line.contains("caught")).count(), 1, "{said:?}");
    assert!(said.iter().any(|line| line.trim() == "ended"), "{said:?}");
}

/// `ringer job run` in a terminal of its own, whose keys are our writes.
fn at_a_terminal(daemon: &Daemon, script: &str) -> std::process::Child {
    // The shell goes on when its terminal interrupts, and stands between `script`, which stops when its child does, and ringer.
    let command = format!("trap : INT; {} job run --quiet -- sh -c \"$SCRIPT\"; exit", env!("CARGO_BIN_EXE_ringer"));
    std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("SCRIPT", script)
        .env("RINGER_ADMIN_HOST", daemon.admin_host())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is there, with util-linux")
}

#[tokio::test]
async fn a_command_that_cannot_run_is_said_and_leaves_no_job() {
    let daemon = Daemon::start().await;
    let output = daemon.ringer(&["job", "run", "--", "/nonexistent/program"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("starting /nonexistent/program: No such file or directory"),
        "{}",
        stderr(&output)
    );
    assert_eq!(daemon.ringer(&["job", "ls", "--json"]).output().unwrap().stdout, b"[]\n");
    let nobody = daemon.ringer(&["job", "ls", "--admin-host", "unix:///nonexistent/admin.sock"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    let told = stderr(&nobody);
    assert!(told.contains("asking the daemon at unix:///nonexistent/admin.sock: No such file"), "{told}");
}

#[tokio::test]
async fn jobs_are_made_listed_extended_and_removed() {
    let daemon = Daemon::start().await;
    let job = Job::create(&daemon, &["--name", "mine", "--ttl", "1h", "--owner", "1000"]);
    let admin = std::fs::metadata(daemon.folder().join("run/admin.sock")).unwrap();
    assert_eq!(admin.permissions().mode() & 0o777, 0o600, "root's alone");
    let listed = || String::from_utf8(daemon.ringer(&["job", "ls"]).output().unwrap().stdout).unwrap();
    assert!(listed().lines().nth(1).unwrap().contains("mine"), "{}", listed());
    let again = daemon.ringer(&["job", "create", "--name", "mine"]).output().unwrap();
    assert!(stderr(&again).contains("the name mine is in use by job job-"), "{}", stderr(&again));
    let extended = daemon.ringer(&["job", "extend", "mine", "--ttl", "2h"]).output().unwrap();
    let extended: Value = serde_json::from_slice(&extended.stdout).unwrap();
    assert!(extended["expires"].as_str() > job.answer["expires"].as_str(), "{extended}");

    // Runners open the socket as users of their own: the folder is theirs, the socket everybody's who gets there.
    let socket = job.answer["socket"].as_str().unwrap();
    assert_eq!(job.answer["docker_host"], format!("unix://{socket}"));
    let folder = std::path::Path::new(socket).parent().unwrap();
    let (user, other) = (reaches(folder, socket, 1000), reaches(folder, socket, 1001));
    assert!(user && !other, "{user} {other}");

    for bad in [&["--ttl", "0"][..], &["--owner-pid", "-4"], &["--name", "a b"], &["--memory", "x"]] {
        let output = daemon.ringer(&[&["job", "create"], bad].concat()).output().unwrap();
        assert!(!output.status.success() && !output.stderr.is_empty(), "{bad:?}");
    }
    // What is in the way is told, and holds up nobody else.
    let held = folder.join("held");
    std::fs::create_dir(&held).unwrap();
    rustix::mount::mount("none", &held, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let mut removal = daemon.ringer(&["job", "rm", "mine"]).stdout(Stdio::piped()).spawn().unwrap();
    let told = "ending (removed): removing the folder of a job's socket: Device or resource busy";
    crate::support::images::wait_until(async || listed().contains(told)).await;
    let other = daemon.ringer(&["job", "run", "--", "true"]).output().unwrap();
    assert!(other.status.success(), "{}", stderr(&other));
    rustix::mount::unmount(&held, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(removal.wait().unwrap().success());
    let mut said = String::new();
    removal.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("removed 0 containers"), "{said}");
    let gone = daemon.ringer(&["job", "inspect", "mine"]).output().unwrap();
    assert_eq!(stderr(&gone), "ringer: no such job: mine\n");
}

/// Whether a user can connect. The test's own folder is root's; it is opened for the way to the job's.
fn reaches(folder: &std::path::Path, socket: &str, uid: u32) -> bool {
    let above = folder.ancestors().skip(1).take(3);
    for folder in above {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).unwrap();
    }
    let uid = uid.to_string();
    let status = std::process::Command::new("setpriv")
        .args([
            "--reuid",
            &uid,
            "--regid",
            &uid,
            "--clear-groups",
            "docker",
            "-H",
            &format!("unix://{socket}"),
            "version",
        ])
        .env("HOME", "/tmp")
        .output();
    status.expect("setpriv is there").status.success()
}

#[tokio::test]
async fn an_owner_that_is_killed_takes_its_job_along() {
    let daemon = Daemon::start().await;
    let mut owner = daemon
        .ringer(&["job", "run", "--", "sh", "-c", "echo $RINGER_JOB; exec sleep 1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let job = BufReader::new(owner.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    remains::gone_of(&daemon, &job).await;
    until_only(&daemon, &[]).await;
}

#[tokio::test]
async fn a_job_whose_command_fails_is_kept_for_a_while_to_look_at() {
    let mut daemon = Daemon::start().await;
    std::fs::write(daemon.folder().join("box.tar"), crate::support::boxes::rootfs()).unwrap();
    let flags = ["--no-bind", "--name", "mine", "--keep-on-failure", "1h"];
    let script = "docker run --name left box true && exit ";
    let output = run_in(&daemon, daemon.folder(), &flags, &format!("{script}0"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    until_only(&daemon, &[]).await;

    let output = run_in(&daemon, daemon.folder(), &flags, &format!("{script}3"));
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let said = stderr(&output);
    let host = said.split("DOCKER_HOST=").nth(1).and_then(|rest| rest.split(';').next()).expect("where it is");
    let listed = std::process::Command::new("docker").args(["-H", host, "ps", "-aq", "--filter", "name=left"]).output();
    assert_eq!(listed.unwrap().stdout.iter().filter(|&&byte| byte == b'\n').count(), 1, "{said}");
    // Also the next daemon does not take the end of its owner for its own.
    daemon.kill();
    daemon.restart().await;
    until_only(&daemon, &["mine"]).await;
    assert!(daemon.ringer(&["job", "rm", "mine"]).output().unwrap().status.success());
    remains::gone_of(&daemon, "job-").await;
}
