//! `compat run`: every client, every case, every socket, then the table.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::agent::{Agent, AgentKind};
use crate::case_file::{self, Step, Subject};
use crate::docker_cli::{DockerCli, load_images};
use crate::document;
use crate::report::{Asked, Outcome, Report, Row};
use crate::requests::{self, Deviations, OfJob};
use crate::socket::{Socket, mark_references};

/// What to run on what.
#[derive(clap::Args)]
pub struct RunArguments {
    /// A daemon: NAME=unix://PATH[,netns=PID][,reference][,job=POLICY]; the first is the reference unless others are marked
    #[arg(required = true)]
    sockets: Vec<Socket>,
    /// A docker CLI to run the cases with: all of them, or only those named behind its path. The last one given is
    /// also the one that the other clients use. With `first`, the other references are asked only where an answer is
    /// not that one's
    #[arg(long = "cli", value_name = "NAME=PATH[,first=REFERENCE][,CASE...]")]
    clis: Vec<Given>,
    /// What `compat/clients/NAME` needs: the folder of its part
    #[arg(long = "client", value_name = "NAME=FOLDER[,first=REFERENCE]")]
    clients: Vec<Given>,
    /// An agent's program: act, forgejo-runner, gitea-runner, woodpecker-cli or gitlab-runner
    #[arg(long = "agent", value_name = "NAME=PATH[,first=REFERENCE]")]
    agents: Vec<Given>,
    /// Only clients, subjects, agents and steps whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Image archives to load on every daemon first
    #[arg(long = "image", value_name = "TAR")]
    images: Vec<PathBuf>,
    /// The folder of the .case files and, beside it, the requests, the deviations, the clients and the workflows
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/cases"))]
    cases: PathBuf,
    /// A registry in the network namespace of each daemon
    #[arg(long, default_value = "127.0.0.1:5000")]
    registry: String,
    /// A registry there that asks for the user `ringer` and the password `secret`
    #[arg(long, default_value = "127.0.0.1:5001")]
    login_registry: String,
    /// Certificates for tcp://127.0.0.1:2376 in the network namespace of each daemon: the folders `client` and `stranger`,
    /// whose own CA (`own-ca.pem`) no daemon knows
    #[arg(long, value_name = "FOLDER")]
    certificates: Option<PathBuf>,
    /// Print every answer of the reference, to see what a case really shows
    #[arg(long)]
    show: bool,
    /// Write every difference to this file too
    #[arg(long, value_name = "FILE")]
    differences: Option<PathBuf>,
    /// Put the table into this file, between its marks, unless only a part is run
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// The same with the table's short form, a line for each client
    #[arg(long, value_name = "FILE")]
    write_summary: Option<PathBuf>,
}

/// Something given by its path.
#[derive(Clone, Debug)]
pub struct Given {
    name: String,
    path: PathBuf,
    /// The reference that is asked before the others.
    first: Option<String>,
    /// The only cases to run, unless there are none.
    cases: Vec<String>,
}

impl Given {
    /// Whether a run asks the socket: in the first one, all references wait for the one that goes first, if it is there.
    fn asks(&self, asked: Asked, socket: &Socket, sockets: &[Socket]) -> bool {
        let first = |socket: &Socket| self.first.as_ref().is_some_and(|name| *name == socket.name);
        asked == Asked::All || !socket.reference || first(socket) || !sockets.iter().any(first)
    }
}

impl FromStr for Given {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, rest) = text.split_once('=').context("expected NAME=PATH")?;
        let mut parts = rest.split(',');
        let path = PathBuf::from(parts.next().unwrap_or_default());
        let mut given = Self { name: name.to_owned(), path, first: None, cases: Vec::new() };
        for part in parts {
            match part.strip_prefix("first=") {
                Some(reference) => given.first = Some(reference.to_owned()),
                None => given.cases.push(part.to_owned()),
            }
        }
        Ok(given)
    }
}

/// Runs everything and prints the table; gives whether all that ran passed.
pub fn run(arguments: &RunArguments) -> anyhow::Result<bool> {
    let mut sockets = arguments.sockets.clone();
    mark_references(&mut sockets);
    for socket in &sockets {
        load_images(socket, &arguments.images)?;
    }

    let mut report = Report::default();
    let mut deviations = read_deviations(arguments, &sockets)?;
    run_requests(arguments, &sockets, &mut deviations, &mut report)?;
    run_clis(arguments, &sockets, &mut deviations, &mut report)?;
    run_clients(arguments, &sockets, &mut deviations, &mut report)?;
    run_agents(arguments, &sockets, &mut report)?;

    if arguments.show {
        println!("{}", report.answers(&sockets));
    }
    let details = report.details(&sockets);
    println!("\n{details}");
    if let Some(path) = &arguments.differences {
        std::fs::write(path, &details).with_context(|| format!("writing {}", path.display()))?;
    }
    let table = report.table(&sockets);
    println!("{table}");
    let wrong = report.wrong_cases(&sockets);
    for case in &wrong {
        println!("no reference passes, so the case is wrong: {case}");
    }
    let (passed, failed, absent) = report.counts(&sockets);
    if absent > 0 {
        println!("compat: {absent} absent or for later");
    }
    println!("compat: {passed} passed, {failed} failed");
    ensure!(passed + failed + absent > 0, "nothing matched --only");
    let whole = arguments.only.is_none();
    for line in deviations.unused().iter().filter(|_| whole) {
        println!("explains nothing any more: {line}");
    }
    if let Some(path) = arguments.write.as_ref().filter(|_| whole) {
        document::write(path, &report, &sockets)?;
    }
    if let Some(path) = arguments.write_summary.as_ref().filter(|_| whole) {
        document::block(path, "compat", &report.summary(&sockets))?;
    }
    Ok(failed == 0 && wrong.is_empty())
}

/// Says what runs, and when it is over how long it took.
struct Timed(Instant);

impl Timed {
    fn start(what: String) -> Self {
        eprint!("{what}");
        Self(Instant::now())
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        eprintln!(", {:.1} s", self.0.elapsed().as_secs_f64());
    }
}

/// The subjects whose name matches, else only the matching steps of each. The steps before a matching one run too, since
/// it may need what they made.
fn chosen(client: &str, subjects: Vec<Subject>, only: Option<&str>) -> Vec<Subject> {
    let Some(only) = only.filter(|only| !client.contains(only)) else { return subjects };
    let cut = |mut subject: Subject| {
        if !subject.name.contains(only) {
            let last = subject.steps.iter().rposition(|step| step.name.contains(only))?;
            subject.steps.truncate(last + 1);
        }
        Some(subject)
    };
    subjects.into_iter().filter_map(cut).collect()
}

fn read_deviations(arguments: &RunArguments, sockets: &[Socket]) -> anyhow::Result<Deviations> {
    let mut deviations = Deviations::read(&beside(&arguments.cases, "deviations"))?;
    if let Some(policy) = sockets.iter().find_map(|socket| socket.job.as_deref()) {
        deviations = deviations.and(Deviations::read(&beside(&arguments.cases, "deviations-of-jobs"))?);
        let refused = beside(&arguments.cases, &format!("refused-by-{policy}"));
        if refused.exists() {
            // What is refused is so whatever else is known of it.
            deviations = Deviations::read(&refused)?.and(deviations);
        }
    }
    Ok(deviations)
}

/// The raw requests need no client at all. They ask for each field of the API, also for those that policies are there to refuse, so that
/// through the socket of a job they are sent under `trusted` alone.
fn run_requests(
    arguments: &RunArguments,
    sockets: &[Socket],
    deviations: &mut Deviations,
    report: &mut Report,
) -> anyhow::Result<()> {
    if sockets.iter().any(|socket| socket.job.as_ref().is_some_and(|policy| policy != "trusted")) {
        return Ok(());
    }
    let only = arguments.only.as_deref().filter(|only| !requests::CLIENT.contains(only));
    for set in requests::read_folder(&beside(&arguments.cases, "requests"))? {
        if only.is_some_and(|only| !set.name.contains(only)) {
            continue;
        }
        let _timed = Timed::start(format!("{}: {} ({} requests)", requests::CLIENT, set.name, set.requests.len()));
        report.add(sockets, |_| {
            let seen = on_all(sockets, |socket| requests::send(&set, socket, &arguments.registry, &arguments.images))?;
            Ok(requests::rows(&set, &seen, sockets, deviations))
        })?;
    }
    Ok(())
}

fn run_clis(
    arguments: &RunArguments,
    sockets: &[Socket],
    deviations: &mut Deviations,
    report: &mut Report,
) -> anyhow::Result<()> {
    for given in &arguments.clis {
        let mut subjects = chosen("docker", case_file::read_folder(&arguments.cases)?, arguments.only.as_deref());
        subjects.retain(|subject| given.cases.is_empty() || given.cases.contains(&subject.name));
        let cli = given.path.exists().then(|| (given, docker_cli(arguments, given.name.clone(), given.path.clone())));
        run_cases(&given.name, cli.as_ref(), &subjects, sockets, deviations, report)?;
    }
    Ok(())
}

/// Every folder of `compat/clients` is a client; one whose part was not given is absent.
fn run_clients(
    arguments: &RunArguments,
    sockets: &[Socket],
    deviations: &mut Deviations,
    report: &mut Report,
) -> anyhow::Result<()> {
    let folder = beside(&arguments.cases, "clients");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for name in names {
        let subjects = chosen(&name, case_file::read_folder(&folder.join(&name))?, arguments.only.as_deref());
        let part = arguments.clients.iter().find(|given| given.name == name && given.path.exists());
        let cli = part.zip(arguments.clis.last()).map(|(part, cli)| {
            let environment = vec![("PART", part.path.clone()), ("CLIENT", folder.join(&name))];
            (part, DockerCli { environment, ..docker_cli(arguments, name.clone(), cli.path.clone()) })
        });
        run_cases(&name, cli.as_ref(), &subjects, sockets, deviations, report)?;
    }
    Ok(())
}

fn docker_cli(arguments: &RunArguments, name: String, program: PathBuf) -> DockerCli {
    DockerCli {
        name,
        program,
        prelude: arguments.cases.join("prelude.sh"),
        registries: [arguments.registry.clone(), arguments.login_registry.clone()],
        images: arguments.images.clone(),
        environment: arguments.certificates.iter().map(|folder| ("CERTIFICATES", folder.clone())).collect(),
    }
}

fn run_cases(
    client: &str,
    cli: Option<&(&Given, DockerCli)>,
    subjects: &[Subject],
    sockets: &[Socket],
    deviations: &mut Deviations,
    report: &mut Report,
) -> anyhow::Result<()> {
    for subject in subjects {
        let known = of_job(client, subject, sockets, deviations);
        let absent = if cli.is_none() { ", absent" } else { "" };
        let _timed = Timed::start(format!("{client}: {} ({} steps{absent})", subject.name, subject.steps.len()));
        report.add(sockets, |asked| {
            let observed = on_all(sockets, |socket| {
                Ok(match cli {
                    None => vec![Outcome::Absent; subject.steps.len()],
                    Some((given, _)) if !given.asks(asked, socket, sockets) => {
                        vec![Outcome::NotAsked; subject.steps.len()]
                    }
                    Some((_, cli)) => {
                        cli.run(subject, socket, |at| socket.job.is_none() || known[at] != Some(OfJob::NotAsked))?
                    }
                })
            })?;
            let row = |(at, step): (usize, &Step)| {
                let (exit, reason) = match &known[at] {
                    Some(OfJob::Answers { exit, reason }) => (Some(exit.unwrap_or(step.exit)), Some(reason.clone())),
                    Some(OfJob::Refused { reason }) => (None, Some(reason.clone())),
                    Some(OfJob::NotAsked) | None => (Some(step.exit), None),
                };
                Row {
                    client: client.to_owned(),
                    case: subject.name.clone(),
                    step: step.name.clone(),
                    exit: step.exit,
                    exit_of_job: exit,
                    deviation: reason.or_else(|| step.deviation.clone()),
                    later: step.later.is_some(),
                    observed: observed.iter().map(|steps| steps[at].clone()).collect(),
                }
            };
            Ok(subject.steps.iter().enumerate().map(row).collect())
        })?;
    }
    Ok(())
}

/// What is known of each step, if a socket is a job's.
fn of_job(client: &str, subject: &Subject, sockets: &[Socket], deviations: &mut Deviations) -> Vec<Option<OfJob>> {
    let has_job = sockets.iter().any(|socket| socket.job.is_some());
    let mut known = |step: &Step| deviations.of_step(&format!("{client} {}: {}", subject.name, step.name));
    subject.steps.iter().map(|step| if has_job { known(step) } else { None }).collect()
}

fn run_agents(arguments: &RunArguments, sockets: &[Socket], report: &mut Report) -> anyhow::Result<()> {
    for kind in AgentKind::ALL {
        let name = kind.name();
        if arguments.only.as_deref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let given = arguments.agents.iter().find(|given| given.name == name && given.path.exists());
        let workflows = beside(&arguments.cases, "workflows");
        let agent = given.map(|given| (given, Agent { kind, program: given.path.clone(), workflows }));
        for case in kind.cases() {
            let absent = if agent.is_none() { " (absent)" } else { "" };
            let _timed = Timed::start(format!("{name}: {}{absent}", case.name()));
            report.add(sockets, |asked| {
                let ask = |socket| match &agent {
                    None => Ok(Outcome::Absent),
                    Some((given, _)) if !given.asks(asked, socket, sockets) => Ok(Outcome::NotAsked),
                    Some((_, agent)) => agent.run(*case, socket).map(Outcome::Answer),
                };
                let observed = sockets.iter().map(ask).collect::<Result<_, _>>()?;
                Ok(vec![Row {
                    client: name.to_owned(),
                    case: "jobs".to_owned(),
                    step: case.name().to_owned(),
                    exit: 0,
                    exit_of_job: Some(0),
                    deviation: None,
                    later: false,
                    observed,
                }])
            })?;
        }
    }
    Ok(())
}

fn beside(cases: &Path, name: &str) -> PathBuf {
    cases.parent().unwrap_or(cases).join(name)
}

/// Does the work on all sockets at once: they are different daemons.
fn on_all<T: Send>(sockets: &[Socket], work: impl Fn(&Socket) -> anyhow::Result<T> + Sync) -> anyhow::Result<Vec<T>> {
    thread::scope(|scope| {
        let threads: Vec<_> = sockets.iter().map(|socket| scope.spawn(|| work(socket))).collect();
        let join = |(thread, socket): (thread::ScopedJoinHandle<'_, anyhow::Result<T>>, &Socket)| {
            let result = thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the harness panicked")));
            result.with_context(|| format!("on {}", socket.name))
        };
        threads.into_iter().zip(sockets).map(join).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_may_go_first() {
        let mut sockets = ["a=unix:///a,reference", "b=unix:///b,reference", "ours=unix:///c"]
            .map(|text| text.parse::<Socket>().expect("it is well formed"));
        let given: Given = "docker=/bin/docker,first=b,run,exec".parse().expect("it is well formed");
        assert_eq!(given.cases, ["run", "exec"]);
        let asked =
            |asked, sockets: &[Socket]| sockets.iter().map(|to| given.asks(asked, to, sockets)).collect::<Vec<_>>();
        assert_eq!(asked(Asked::First, &sockets), [false, true, true]);
        assert_eq!(asked(Asked::All, &sockets), [true, true, true]);
        sockets[1].name = "gone".to_owned();
        assert_eq!(asked(Asked::First, &sockets), [true, true, true], "nobody is there to go first");
    }
}
