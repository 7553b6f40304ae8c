//! `prepare_exec`: a job with a container of the image that GitLab's job names, one with git and gitlab-runner beside it, and its services.
//! It is called again after a failure, up to three times, and begins anew then.

use std::{collections::BTreeSet, env};

use clap::Args;
use ringer::{
    admin::{JobAnswer, JobBody},
    model::{Error, Result, reference::Reference},
};
use serde_json::{Value, json};

use super::{
    BUILD, HELPER, NETWORK,
    contract::{self, BUILDS, CACHE, Contract},
    docker::Docker,
    logins::Logins,
    remove,
    response::{Image, JobResponse, PullPolicy},
    services::{self, Service},
    terminated,
    variables::Variables,
};
use crate::cli::{admin::AdminClient, job::Limits, values};

/// Volumes of the job.
const BUILDS_VOLUME: &str = "ringer-builds";
const CACHE_VOLUME: &str = "ringer-cache";

/// The job's own socket, where programs look for one.
const SOCKET: &str = "/var/run/docker.sock";

/// Becomes the best shell that an image has, where gitlab-runner looks for one (`shells/bash.go`).
const SHELL: &str = "for shell in /usr/local/bin/bash /usr/bin/bash /bin/bash /usr/local/bin/sh /usr/bin/sh /bin/sh /busybox/sh; do \
                     [ -x $shell ] && exec $shell; done; echo shell not found >&2; exit 1";

/// What the scripts call gitlab-runner is gitlab-runner-helper in upstream's image; and the job's own user is to write to what is made for it.
const HELPER_SHELL: &str = "umask 0000; { command -v gitlab-runner || ln -s \"$(command -v gitlab-runner-helper)\" \
                            /usr/local/bin/gitlab-runner; } >/dev/null 2>&1; ";

/// `prepare_args` after `gitlab prepare`.
#[derive(Args, Debug)]
pub struct Prepare {
    /// Image of jobs that name none [default: they fail]
    #[arg(long, value_name = "IMAGE")]
    default_image: Option<values::Image>,
    /// Image with git and gitlab-runner for sources, caches and artifacts [default: upstream's, of gitlab-runner's own version]
    #[arg(long, value_name = "IMAGE")]
    helper_image: Option<values::Image>,
    /// When images are asked for at their registries, for jobs that do not say
    #[arg(long, value_name = "WHEN", default_value = "always")]
    pull_policy: PullPolicy,
    /// Keep what jobs write to /cache, GitLab's caches above all, and BuildKit's cache, for later jobs of the same project; those of
    /// protected branches and tags have their own
    #[arg(long)]
    keep_cache: bool,
    #[command(flatten)]
    limits: Limits,
}

impl Prepare {
    /// Makes everything.
    pub async fn carry_out(self, admin: &AdminClient, contract: &Contract) -> Result<()> {
        let response = contract.response()?;
        let terminated = terminated()?;
        let made = self.make_job(admin, &response).await?;
        println!("ringer: job {}", made.name);
        // What is made so far goes with the job, which gitlab-runner has removed in any case.
        let job = Job::new(&self, &made, &response);
        tokio::select! {
            prepared = job.prepare() => prepared,
            error = terminated => Err(error),
        }
    }

    /// A job that ends with gitlab-runner, whatever becomes of it, and some time after GitLab's own limit.
    async fn make_job(&self, admin: &AdminClient, response: &JobResponse) -> Result<JobAnswer> {
        let runner = contract::runner()?;
        let cache_key = self.keep_cache.then(|| response.cache_key()).transpose()?;
        remove(admin, &response.name()).await?;
        let body = JobBody {
            name: Some(response.name()),
            owner_pid: Some(runner),
            ttl: Some(response.ttl()),
            cache_key,
            cache_volumes: self.keep_cache.then(|| CACHE_VOLUME.parse()).into_iter().collect::<Result<_>>()?,
            ..self.limits.clone().body()?
        };
        admin.create(&body).await
    }
}

/// What is made in a job.
struct Job<'a> {
    flags: &'a Prepare,
    response: &'a JobResponse,
    docker: Docker,
    variables: Variables,
    logins: Logins,
}

impl<'a> Job<'a> {
    fn new(flags: &'a Prepare, made: &JobAnswer, response: &'a JobResponse) -> Self {
        let variables = Variables::of_environment();
        let logins = Logins::new(&response.credentials, &variables);
        Self { flags, response, docker: Docker::at(&made.socket), variables, logins }
    }

    async fn prepare(&self) -> Result<()> {
        let image = self.image()?;
        services::check(&self.response.services)?;
        self.get(&image, &self.response.image).await?;
        self.docker.make_network(NETWORK).await?;
        let services = self.start_services().await?;
        self.make_helper().await?;
        self.make_build(&image).await?;
        services::wait_for(&self.docker, &services).await
    }

    fn image(&self) -> Result<Reference> {
        let named = self.variables.expand(&self.response.image.name);
        match (&self.flags.default_image, named.trim()) {
            (Some(values::Image(default)), "") => Ok(default.clone()),
            (None, "") => Err(Error::system(
                "the job names no image: give it an image: in .gitlab-ci.yml, or all such jobs one by ringer gitlab prepare --default-image",
            )),
            (_, named) => reference(named),
        }
    }

    async fn start_services(&self) -> Result<Vec<Service>> {
        let (mut started, mut taken) = (Vec::new(), BTreeSet::new());
        for (number, service) in self.response.services.iter().enumerate() {
            let named = self.variables.expand(&service.name);
            let names = services::names(service, &named, &mut taken);
            if names.is_empty() {
                println!("ringer: the service {named} is there already, and left out");
                continue;
            }
            let image = reference(&named)?;
            self.get(&image, service).await?;
            let mut config = services::overrides(service);
            config["Env"] = json!(services::environment(self.response, service, &self.variables));
            let container = format!("ringer-service-{number}");
            let host = json!({"Privileged": services::is_docker_daemon(&named), "Binds": Self::binds()});
            self.create(&container, &image, service, config, host, &names).await?;
            self.docker.start(&container).await?;
            println!("ringer: started the service {named} as {}", names.join(", "));
            started.push(Service { container, image: named });
        }
        Ok(started)
    }

    async fn make_helper(&self) -> Result<()> {
        let image = match &self.flags.helper_image {
            Some(values::Image(image)) => image.clone(),
            None => reference(&helper_image(self.variables.get("CI_RUNNER_VERSION").unwrap_or_default()))?,
        };
        let settings = Image::default();
        self.get(&image, &settings).await?;
        let shell = json!({"Entrypoint": ["sh", "-c"], "Cmd": [format!("{HELPER_SHELL}{SHELL}")], "User": "0:0"});
        self.create_for_scripts(HELPER, &image, &settings, shell, vec![]).await
    }

    async fn make_build(&self, image: &Reference) -> Result<()> {
        let settings = &self.response.image;
        let mut shell = json!({"Cmd": ["sh", "-c", SHELL]});
        if !settings.entrypoint.is_empty() {
            shell["Entrypoint"] = json!(settings.entrypoint);
        }
        self.create_for_scripts(BUILD, image, settings, shell, vec![format!("{SOCKET}:{SOCKET}")]).await
    }

    /// What all containers of the job share.
    fn binds() -> Vec<String> {
        vec![format!("{BUILDS_VOLUME}:{BUILDS}"), format!("{CACHE_VOLUME}:{CACHE}")]
    }

    /// One that is started for each script.
    async fn create_for_scripts(
        &self,
        name: &str,
        image: &Reference,
        settings: &Image,
        mut config: Value,
        binds: Vec<String>,
    ) -> Result<()> {
        for key in ["AttachStdin", "AttachStdout", "AttachStderr", "OpenStdin", "StdinOnce"] {
            config[key] = json!(true);
        }
        config["Env"] = json!(self.variables.all());
        let binds = [Self::binds(), binds].concat();
        self.create(name, image, settings, config, json!({"Binds": binds}), &[]).await
    }

    async fn create(
        &self,
        name: &str,
        image: &Reference,
        settings: &Image,
        mut config: Value,
        mut host: Value,
        names: &[String],
    ) -> Result<()> {
        config["Image"] = json!(image.familiar());
        let docker = settings.docker();
        if !docker.user.is_empty() {
            config["User"] = json!(self.variables.expand(&docker.user));
        }
        host["NetworkMode"] = json!(NETWORK);
        // What it writes comes over the attached stream; little of it is kept beside.
        host["LogConfig"] = json!({"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}});
        config["HostConfig"] = host;
        config["NetworkingConfig"] = json!({"EndpointsConfig": {NETWORK: {"Aliases": names}}});
        self.docker.create(name, &config).await
    }

    /// Gets an image as its policy says: the first way that works.
    async fn get(&self, image: &Reference, settings: &Image) -> Result<()> {
        let usual = [self.flags.pull_policy];
        let policies = if settings.pull_policy.is_empty() { &usual[..] } else { &settings.pull_policy };
        let mut failed = Error::system("no way to get it");
        for policy in policies {
            match self.get_by(*policy, image, settings).await {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn get_by(&self, policy: PullPolicy, image: &Reference, settings: &Image) -> Result<()> {
        if policy != PullPolicy::Always && self.docker.has_image(image).await {
            println!("ringer: using the image {} that is here", image.familiar());
            return Ok(());
        }
        if policy == PullPolicy::Never {
            return Err(Error::system(format!(
                "the image {} is not here, and is never to be pulled",
                image.familiar()
            )));
        }
        println!("ringer: pulling the image {}", image.familiar());
        let platform = self.variables.expand(&settings.docker().platform);
        self.docker.pull(image, &platform, self.logins.header(image.registry())).await
    }
}

fn reference(text: &str) -> Result<Reference> {
    Ok(Reference::parse(text)?.or_latest())
}

/// Upstream's, as gitlab-runner names it for itself; one that is no release takes the latest.
fn helper_image(version: &str) -> String {
    let is_release = version.split('.').count() == 3 && version.chars().all(|c| c.is_ascii_digit() || c == '.');
    let version = if is_release { format!("v{version}") } else { "latest".to_owned() };
    let architecture = match env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    };
    format!("registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper:{architecture}-{version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_is_of_the_runners_own_version() {
        assert!(helper_image("18.6.0").ends_with("-v18.6.0"));
        for other in ["", "development version", "18.6.0~beta.1.g2", "../../evil:1"] {
            assert!(helper_image(other).ends_with("-latest"), "{other}");
        }
    }
}
