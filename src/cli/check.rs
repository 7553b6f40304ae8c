//! `ringer config`: what a configuration file means, and whether the forges and registries in it let us. Asks these, and no daemon.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use futures_util::future::join_all;
use ringer::{
    admin::ReachAnswer,
    engine::policies,
    model::{Error, ErrorKind, Result},
    registry::Registry,
    supervisor::{
        check::{self, Checked, JobImage, OwnUrl},
        hooks,
        images::Rung,
        settings::{ForgeSettings, Mode},
    },
};

use super::admin::AdminHost;
use crate::config::{self, Http, ServeOptions, run::RunSettings};

/// The configuration of `ringer run`
#[derive(Args, Debug)]
pub struct ConfigCommand {
    #[command(flatten)]
    admin: AdminHost,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Read the file, try every forge and registry with its credentials, and print what its jobs would get. The daemon that runs, if one
    /// does, asks each forge from inside a job
    Check {
        /// TOML file with the forges
        #[arg(long, value_name = "PATH", default_value = "/etc/ringer/config.toml")]
        config: PathBuf,
    },
}

impl ConfigCommand {
    /// 0 if all is well, 1 if a forge or a registry refuses us or does not answer, 2 if the file is wrong.
    pub fn run(self) -> ExitCode {
        let Verb::Check { config } = self.verb;
        let admin = self.admin;
        match config::run::resolve(&config, ServeOptions::default()) {
            Ok((config, RunSettings { settings, .. })) => super::in_runtime(async move {
                let registry = Registry::new(config.engine.registry())?;
                let registries = check::check_registries(&settings.registries, &registry).await;
                let checked = check::check(&settings).await.into_iter();
                let found = checked.map(async |checked| Found {
                    from_job: FromJob::ask(&admin, checked.settings).await,
                    policy: policies::of_jobs(&config.engine, checked.settings.policy.as_deref()),
                    checked,
                });
                Ok(print(&registries, &join_all(found).await, config.http.as_ref()))
            }),
            Err(error) => {
                eprintln!("ringer: {}", error.chain());
                ExitCode::from(2)
            }
        }
    }
}

/// What the daemon that runs finds from inside a job.
enum FromJob {
    /// Each address, and whether it is reached.
    Reached(Vec<ReachAnswer>),
    /// No daemon runs here, or it has not read this file.
    NotTried(Error),
    /// It tried, and could not.
    Failed(Error),
}

impl FromJob {
    async fn ask(admin: &AdminHost, forge: &ForgeSettings) -> Self {
        let asked = async { admin.client()?.reach(&forge.name).await };
        match asked.await {
            Ok(reached) if reached.first().is_some_and(|first| first.url == forge.url) => Self::Reached(reached),
            Ok(_) => Self::NotTried(Error::conflict(
                "the daemon that runs has another address of it: it has not read this file",
            )),
            // Nobody is there, or nobody of that name.
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::NotFound) => Self::NotTried(error),
            Err(error) => Self::Failed(error),
        }
    }

    fn is_well(&self) -> bool {
        match self {
            Self::Reached(reached) => reached.iter().all(|reached| reached.trouble.is_none()),
            Self::NotTried(_) => true,
            Self::Failed(_) => false,
        }
    }
}

/// What was found of one forge, from here and from inside a job.
struct Found<'a> {
    checked: Checked<'a>,
    /// The name of what its jobs may do.
    policy: Result<String>,
    from_job: FromJob,
}

impl Found<'_> {
    fn is_well(&self) -> bool {
        let Checked { greeting, own_url, webhook, .. } = &self.checked;
        let is_answered = greeting.is_ok() && self.policy.is_ok() && !matches!(webhook, Some(Err(_)));
        is_answered && self.from_job.is_well() && !matches!(own_url, Some(OwnUrl::Loopback(_)))
    }
}

fn print(registries: &[(&str, Result<()>)], forges: &[Found<'_>], http: Option<&Http>) -> ExitCode {
    for (host, login) in registries {
        match login {
            Ok(()) => println!("{host}: takes the credentials"),
            Err(error) => println!("{host}: FAILS: {}", error.chain()),
        }
    }
    for Found { checked, policy, from_job } in forges {
        print!("{}{}{}", told(checked, http), told_policy(policy), told_from_job(from_job));
    }
    let is_well = registries.iter().all(|(_, login)| login.is_ok()) && forges.iter().all(Found::is_well);
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn told(checked: &Checked<'_>, http: Option<&Http>) -> String {
    let settings = checked.settings;
    let mut text = match &checked.greeting {
        Ok(greeting) => format!("{}: {greeting}\n", settings.name),
        Err(error) => format!("{}: FAILS: {}\n", settings.name, error.chain()),
    };
    let mut line = |words: String| writeln!(text, "  {words}").expect("a String takes all");
    if let Some(own) = &checked.own_url {
        line(format!("ROOT_URL: {}", own_url(own, &settings.url)));
    }
    line(format!("labels: {}", settings.labels.iter().cloned().collect::<Vec<_>>().join(", ")));
    line(format!(
        "mode: {}; jobs at once: {}{}{}",
        mode(settings.mode),
        settings.concurrency,
        warm(settings),
        limits(settings)
    ));
    if settings.branch_caches {
        line("caches: each branch its own".to_owned());
    }
    if let (Some(_), Some(http)) = (&settings.webhook_secret, http) {
        let at = http.public_url.clone().unwrap_or_else(|| format!("http://(what leads to {})", http.address));
        line(format!(
            "webhook to make there: {at}/webhook/{}, event \"Workflow jobs\", with webhook_secret",
            settings.name
        ));
    }
    match &checked.webhook {
        Some(Ok(places)) => line(format!(
            "webhook that ringer makes: {} at {}; whether the token may make it is seen at the start",
            hooks::address(settings.public_url.as_deref().unwrap_or_default(), &settings.name),
            places.join(", ")
        )),
        Some(Err(error)) => line(format!("webhook that ringer makes: FAILS: {}", error.chain())),
        None => {}
    }
    if let Some(repositories) = &settings.repositories {
        line(format!("only jobs of: {}", repositories.iter().cloned().collect::<Vec<_>>().join(", ")));
    }
    let out = settings.left_out;
    for (is_out, whose) in [(out.forks, "pull requests of forks"), (out.public_repositories, "public repositories")] {
        if is_out {
            line(format!("no jobs of: {whose}"));
        }
    }
    let Some(images) = &checked.images else { return text };
    let (image, rung) = &images.runner;
    line(format!("runner image: {image} ({})", source(*rung, "runner_image")));
    if let (true, Some(default)) = (images.default_may_be_runner, &settings.images.default) {
        line(format!(
            "[runner] default_image {default}: looked into at the first job; if it holds the runner, it is the runner image"
        ));
    }
    let of_forge = if settings.images.job.is_some() { "job_image" } else { "runner_image" };
    for JobImage { repository, image, rung } in &images.jobs {
        let whose = repository.as_ref().map_or("jobs".to_owned(), |repository| format!("jobs of {repository}"));
        line(format!("{whose} that name no image: {image} ({})", source(*rung, of_forge)));
    }
    text
}

fn told_policy(policy: &Result<String>) -> String {
    match policy {
        Ok(name) => format!("  policy of jobs: {name}\n"),
        Err(error) => format!("  policy of jobs: FAILS: {}\n", error.chain()),
    }
}

fn told_from_job(from_job: &FromJob) -> String {
    let line = |ReachAnswer { url, trouble }: &ReachAnswer| match trouble {
        None => format!("  from inside a job: {url} answers\n"),
        Some(trouble) => format!("  from inside a job: {url} FAILS: {trouble}\n"),
    };
    match from_job {
        FromJob::Reached(reached) => reached.iter().map(line).collect(),
        FromJob::NotTried(error) => format!("  from inside a job: not tried: {}\n", error.chain()),
        FromJob::Failed(error) => format!("  from inside a job: FAILS: {}\n", error.chain()),
    }
}

fn own_url(own: &OwnUrl, configured: &str) -> String {
    match own {
        OwnUrl::Same => "as instance_url".to_owned(),
        OwnUrl::Other(own) => {
            format!("jobs are told {own}, and only instance_url is opened to them: the two should be the same")
        }
        OwnUrl::Loopback(own) => {
            format!(
                "FAILS: jobs are told {own}, where each one finds itself: it should be {configured}, in the server's app.ini"
            )
        }
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Socket => "socket",
        Mode::Single { docker: false } => "single, without Docker",
        Mode::Single { docker: true } => "single, with Docker",
    }
}

fn warm(settings: &ForgeSettings) -> String {
    if settings.warm > 0 { format!("; that wait: {}", settings.warm) } else { String::new() }
}

fn limits(settings: &ForgeSettings) -> String {
    let limits = settings.limits;
    let memory = limits.memory.map(|bytes| format!("; memory: {} MiB", bytes >> 20));
    let cpus = limits.nano_cpus.map(|nano| format!("; cpus: {}.{:02}", nano / 1_000_000_000, nano / 10_000_000 % 100));
    let pids = limits.pids.map(|pids| format!("; pids: {pids}"));
    let disk = limits.disk.map(|bytes| format!("; disk: {} MiB", bytes >> 20));
    [memory, cpus, pids, disk].into_iter().flatten().collect()
}

/// The key that says so; `of_forge` is the forge's.
fn source(rung: Rung, of_forge: &'static str) -> &'static str {
    match rung {
        Rung::Repository => "[runner] images of repositories",
        Rung::Forge => of_forge,
        Rung::Default => "[runner] default_image",
        Rung::BuiltIn => "built in",
    }
}
