//! `ringer config`: what a configuration file means, and whether the forges and registries in it let us. Asks these, and no daemon.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use futures_util::future::join_all;
use ringer::{
    admin::ReachAnswer,
    model::{Error, Result},
    registry::Registry,
    supervisor::{
        check::{self, Checked, JobImage, OwnUrl},
        hooks,
        images::Rung,
        settings::{ForgeSettings, Mode, Settings},
    },
};

use super::admin::AdminHost;
use crate::config::{self, Http, ServeOptions};

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
            Ok((config, settings)) => super::in_runtime(async move {
                let registry = Registry::new(config.engine.registry())?;
                let registries = check::check_registries(&settings.registries, &registry).await;
                let forges = check::check(&settings).await;
                let from_jobs = from_jobs(&admin, &settings).await;
                Ok(print(&registries, &forges, &from_jobs, config.http.as_ref()))
            }),
            Err(error) => {
                eprintln!("ringer: {}", error.chain());
                ExitCode::from(2)
            }
        }
    }
}

/// What the daemon that runs finds from inside a job, forge by forge: an error is that it was not tried.
async fn from_jobs(admin: &AdminHost, settings: &Settings) -> Vec<Result<Vec<ReachAnswer>>> {
    let asked = settings.forges.iter().map(async |forge| {
        let reached = admin.client()?.reach(&forge.name).await?;
        match reached.first() {
            Some(first) if first.url == forge.url => Ok(reached),
            _ => Err(Error::conflict("the daemon that runs has another address of it: it has not read this file")),
        }
    });
    join_all(asked).await
}

fn print(
    registries: &[(&str, Result<()>)],
    forges: &[Checked<'_>],
    from_jobs: &[Result<Vec<ReachAnswer>>],
    http: Option<&Http>,
) -> ExitCode {
    for (host, login) in registries {
        match login {
            Ok(()) => println!("{host}: takes the credentials"),
            Err(error) => println!("{host}: FAILS: {}", error.chain()),
        }
    }
    for (forge, from_job) in forges.iter().zip(from_jobs) {
        print!("{}{}", told(forge, http), told_from_job(from_job));
    }
    let is_well = |forge: &Checked<'_>| {
        let has_webhook = !matches!(forge.webhook, Some(Err(_)));
        forge.greeting.is_ok() && has_webhook && !matches!(forge.own_url, Some(OwnUrl::Loopback(_)))
    };
    let is_reached = |reached: &ReachAnswer| reached.trouble.is_none();
    let are_reached = from_jobs.iter().flatten().flatten().all(is_reached);
    let is_well = registries.iter().all(|(_, login)| login.is_ok()) && forges.iter().all(is_well) && are_reached;
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
    line(format!("mode: {}; jobs at once: {}{}", mode(settings.mode), settings.concurrency, limits(settings)));
    if let Some(policy) = &settings.policy {
        line(format!("policy: {policy}"));
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

fn told_from_job(reached: &Result<Vec<ReachAnswer>>) -> String {
    let line = |ReachAnswer { url, trouble }: &ReachAnswer| match trouble {
        None => format!("  from inside a job: {url} answers\n"),
        Some(trouble) => format!("  from inside a job: {url} FAILS: {trouble}\n"),
    };
    match reached {
        Ok(reached) => reached.iter().map(line).collect(),
        Err(error) => format!("  from inside a job: not tried: {}\n", error.chain()),
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
