//! `compat run`: every client, every case, every socket, then the table.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;

use anyhow::{Context, ensure};

use crate::agent::{Agent, AgentKind};
use crate::case_file::{self, Subject};
use crate::docker_cli::{DockerCli, load_images};
use crate::report::{Observed, Report, Row};
use crate::socket::{Socket, mark_references};

/// What to run on what.
#[derive(clap::Args)]
pub struct RunArguments {
    /// A daemon: NAME=unix://PATH[,netns=PID][,reference]; the first is the reference unless others are marked
    #[arg(required = true)]
    sockets: Vec<Socket>,
    /// A docker CLI to run the cases with
    #[arg(long = "cli", value_name = "NAME=PATH")]
    clis: Vec<Given>,
    /// An agent's program: act, forgejo-runner, gitea-runner, woodpecker-cli or gitlab-runner
    #[arg(long = "agent", value_name = "NAME=PATH")]
    agents: Vec<Given>,
    /// Only subjects, agents and steps whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Image archives to load on every daemon first
    #[arg(long = "image", value_name = "TAR")]
    images: Vec<PathBuf>,
    /// The folder of the .case files and, beside it, the workflows
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/cases"))]
    cases: PathBuf,
    /// A registry in the network namespace of each daemon
    #[arg(long, default_value = "127.0.0.1:5000")]
    registry: String,
    /// A registry there that asks for the user `ringer` and the password `secret`
    #[arg(long, default_value = "127.0.0.1:5001")]
    login_registry: String,
    /// Print every answer of the reference, to see what a case really shows
    #[arg(long)]
    show: bool,
    /// Write every difference to this file too
    #[arg(long, value_name = "FILE")]
    differences: Option<PathBuf>,
}

/// A program given by its path.
#[derive(Clone, Debug)]
pub struct Given {
    name: String,
    path: PathBuf,
}

impl FromStr for Given {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = text.split_once('=').context("expected NAME=PATH")?;
        Ok(Self { name: name.to_owned(), path: PathBuf::from(path) })
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
    let subjects = chosen(case_file::read_folder(&arguments.cases)?, arguments.only.as_deref());
    for given in &arguments.clis {
        run_cli(arguments, given, &subjects, &sockets, &mut report)?;
    }
    run_agents(arguments, &sockets, &mut report)?;

    if arguments.show {
        println!("{}", report.answers(&sockets));
    }
    let details = report.details(&sockets);
    println!("\n{details}");
    if let Some(path) = &arguments.differences {
        std::fs::write(path, &details).with_context(|| format!("writing {}", path.display()))?;
    }
    println!("{}", report.table(&sockets));
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
    Ok(failed == 0 && wrong.is_empty())
}

/// The subjects whose name matches, else only the matching steps of each. The steps before a matching one run too, since
/// it may need what they made.
fn chosen(subjects: Vec<Subject>, only: Option<&str>) -> Vec<Subject> {
    let Some(only) = only else { return subjects };
    let cut = |mut subject: Subject| {
        if !subject.name.contains(only) {
            let last = subject.steps.iter().rposition(|step| step.name.contains(only))?;
            subject.steps.truncate(last + 1);
        }
        Some(subject)
    };
    subjects.into_iter().filter_map(cut).collect()
}

fn run_cli(
    arguments: &RunArguments,
    given: &Given,
    subjects: &[Subject],
    sockets: &[Socket],
    report: &mut Report,
) -> anyhow::Result<()> {
    let cli = given.path.exists().then(|| DockerCli {
        name: given.name.clone(),
        program: given.path.clone(),
        prelude: arguments.cases.join("prelude.sh"),
        registries: [arguments.registry.clone(), arguments.login_registry.clone()],
        images: arguments.images.clone(),
    });
    for subject in subjects {
        eprintln!("{}: {} ({} steps)", given.name, subject.name, subject.steps.len());
        let mut observed = match &cli {
            None => sockets.iter().map(|_| vec![None; subject.steps.len()]).collect(),
            Some(cli) => {
                on_all(sockets, |socket| Ok(cli.run(subject, socket)?.into_iter().map(Some).collect::<Vec<_>>()))?
            }
        };
        for (at, step) in subject.steps.iter().enumerate() {
            report.rows.push(Row {
                client: given.name.clone(),
                case: subject.name.clone(),
                step: step.name.clone(),
                exit: step.exit,
                deviation: step.deviation.clone(),
                later: step.later.is_some(),
                observed: take_column(&mut observed, at),
            });
        }
    }
    Ok(())
}

fn run_agents(arguments: &RunArguments, sockets: &[Socket], report: &mut Report) -> anyhow::Result<()> {
    for kind in AgentKind::ALL {
        let name = kind.name();
        if arguments.only.as_deref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let given = arguments.agents.iter().find(|given| given.name == name);
        let agent = given.filter(|given| given.path.exists()).map(|given| Agent {
            kind,
            program: given.path.clone(),
            workflows: workflows(&arguments.cases),
        });
        for case in kind.cases() {
            eprintln!("{name}: {}{}", case.name(), if agent.is_none() { " (absent)" } else { "" });
            let observed = match &agent {
                None => vec![None; sockets.len()],
                Some(agent) => {
                    sockets.iter().map(|socket| agent.run(*case, socket).map(Some)).collect::<Result<_, _>>()?
                }
            };
            report.rows.push(Row {
                client: name.to_owned(),
                case: "jobs".to_owned(),
                step: case.name().to_owned(),
                exit: 0,
                deviation: None,
                later: false,
                observed,
            });
        }
    }
    Ok(())
}

fn workflows(cases: &Path) -> PathBuf {
    cases.parent().unwrap_or(cases).join("workflows")
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

fn take_column(observed: &mut [Vec<Option<Observed>>], at: usize) -> Vec<Option<Observed>> {
    observed.iter_mut().map(|steps| steps[at].take()).collect()
}
