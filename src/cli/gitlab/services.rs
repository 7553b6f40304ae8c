//! `services:` of a job: containers beside its own, which it reaches by their names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader, Read},
    time::{Duration, Instant},
};

use ringer::model::{Error, Result};
use serde_json::{Value, json};

use super::{
    docker::{Docker, Inspected},
    response::{Image, JobResponse, Variable},
    variables::Variables,
};

/// How many a job may have. People have three or four.
const MOST: usize = 32;

/// How long they have until somebody listens at one of their ports, as with gitlab-runner's docker executor.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often that is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of the table of a service's connections that are looked at.
const TABLE: u64 = 1 << 20;

/// A service that was started.
pub struct Service {
    /// Its container.
    pub container: String,
    /// What the job calls its image.
    pub image: String,
}

/// Refuses more of them than there may be.
pub fn check(services: &[Image]) -> Result<()> {
    if services.len() > MOST {
        return Err(Error::forbidden(format!("the job has {} services, and may have {MOST}", services.len())));
    }
    Ok(())
}

/// The names of a service: those of its image, then those that the job gives it; none that another has already.
pub fn names(service: &Image, image: &str, taken: &mut BTreeSet<String>) -> Vec<String> {
    let all = names_of_image(image).into_iter().chain(service.aliases().map(str::to_owned));
    all.filter(|name| taken.insert(name.clone())).collect()
}

/// `registry.example.org:5000/a/b:1` is `registry.example.org__a__b` and `registry.example.org-a-b`.
fn names_of_image(image: &str) -> Vec<String> {
    let name = image.split('@').next().unwrap_or_default();
    let name = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
    let name = match name.split_once('/') {
        Some((host, path)) => format!("{}/{path}", host.split(':').next().unwrap_or_default()),
        None => name.to_owned(),
    };
    vec![name.replace('/', "__"), name.replace('/', "-")]
}

/// What a service's container gets of variables: those of the job that are in its repository anyway, and its own.
pub fn environment(job: &JobResponse, service: &Image, variables: &Variables) -> Vec<String> {
    let public = public(job).filter_map(|name| Some((name, variables.get(name)?.to_owned())));
    let own = service.variables.iter().map(|variable| (variable.key.as_str(), variables.expand(&variable.value)));
    public.chain(own).map(|(name, value)| format!("{name}={value}")).collect()
}

/// The names of a job's public variables. The last of a name is what the job has; one before it may be public where that is not.
fn public(job: &JobResponse) -> impl Iterator<Item = &str> {
    let last: BTreeMap<&str, &Variable> =
        job.variables.iter().map(|variable| (variable.key.as_str(), variable)).collect();
    let public = last.into_values().filter(|variable| variable.public && !variable.file);
    public.map(|variable| variable.key.as_str()).filter(move |name| !job.secrets.contains_key(*name))
}

/// What of it is not as its image has it.
pub fn overrides(service: &Image) -> Value {
    let mut config = json!({});
    for (key, words) in [("Entrypoint", &service.entrypoint), ("Cmd", &service.command)] {
        if !words.is_empty() {
            config[key] = json!(words);
        }
    }
    config
}

/// Whether an image is called like Docker's own daemon, which is asked for with privileges: who may not have them is told by the refusal
/// what to write instead; without it would start and fail in words that tell nobody why.
pub fn is_docker_daemon(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.strip_prefix("docker:").is_some_and(|tag| tag.contains("dind"))
}

/// Waits until each of them listens. One that does not is told of, with its log, and the job goes on without, as with the docker executor.
pub async fn wait_for(docker: &Docker, services: &[Service]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for service in services {
        if let Some(why) = wait_for_one(docker, service, deadline).await? {
            let log = docker.log(&service.container).await.unwrap_or_default();
            println!("ringer: the service {} did not start: {why}\n{}", service.image, String::from_utf8_lossy(&log));
        }
    }
    Ok(())
}

/// Why it does not listen, if so.
async fn wait_for_one(docker: &Docker, service: &Service, deadline: Instant) -> Result<Option<String>> {
    loop {
        let inspected = docker.inspect(&service.container).await?;
        let ports = ports(&inspected);
        if !inspected.state.running {
            return Ok(Some("it has ended".to_owned()));
        }
        if ports.is_empty() || ports.iter().any(|port| listens(inspected.state.pid, *port)) {
            return Ok(None);
        }
        if Instant::now() > deadline {
            return Ok(Some(format!("nobody listens at {ports:?} after {} s", PATIENCE.as_secs())));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Where it is expected to listen: what its image says, or the variable by which a service tells another.
fn ports(service: &Inspected) -> Vec<u16> {
    let told =
        service.config.env.iter().find_map(|variable| variable.strip_prefix("HEALTHCHECK_TCP_PORT=")?.parse().ok());
    let exposed = service.config.exposed_ports.keys().filter_map(|port| port.strip_suffix("/tcp")?.parse().ok());
    told.map_or_else(|| exposed.collect(), |port| vec![port])
}

/// Whether somebody listens at a port of the network that a process sees, and not for that network's own programs alone.
fn listens(pid: i32, port: u16) -> bool {
    ["tcp", "tcp6"].iter().any(|table| {
        let Ok(file) = File::open(format!("/proc/{pid}/net/{table}")) else { return false };
        BufReader::new(file.take(TABLE)).lines().map_while(Result::ok).any(|line| is_listener(&line, port))
    })
}

/// A line is `0: ADDRESS:PORT REMOTE STATE …`, in hexadecimal digits; 0A listens.
fn is_listener(line: &str, port: u16) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let (local, state) = (words.next().unwrap_or_default(), words.nth(1));
    let Some((address, number)) = local.split_once(':') else { return false };
    let is_loopback = (address.len() == 8 && address.ends_with("7F")) || address == "00000000000000000000000001000000";
    state == Some("0A") && !is_loopback && u16::from_str_radix(number, 16) == Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_named_after_their_images() {
        for (image, names) in [
            ("postgres", ["postgres", "postgres"]),
            ("postgres:16", ["postgres", "postgres"]),
            ("tutum/wordpress:latest", ["tutum__wordpress", "tutum-wordpress"]),
            ("127.0.0.1:5000/ringer/web", ["127.0.0.1__ringer__web", "127.0.0.1-ringer-web"]),
            ("a/b@sha256:00", ["a__b", "a-b"]),
        ] {
            assert_eq!(names_of_image(image), names, "{image}");
        }
    }

    #[test]
    fn a_service_is_given_no_secret_of_a_public_name() {
        let job = JobResponse::read(
            br#"{"id":1,"token":"t","secrets":{"VAULT":{"vault":{}}},"variables":[
                {"key":"SHOWN","value":"secret","public":false},{"key":"SHOWN","value":"shown","public":true},
                {"key":"HIDDEN","value":"shown","public":true},{"key":"HIDDEN","value":"secret","public":false},
                {"key":"FILE","value":"shown","public":true},{"key":"FILE","value":"secret","public":true,"file":true},
                {"key":"VAULT","value":"shown","public":true}]}"#,
        );
        let job = job.unwrap();
        assert_eq!(public(&job).collect::<Vec<_>>(), ["SHOWN"]);
    }

    #[test]
    fn a_name_is_given_once() {
        let (service, mut taken) = (Image::default(), BTreeSet::new());
        assert_eq!(names(&service, "redis:7", &mut taken), ["redis"]);
        assert!(names(&service, "redis:6", &mut taken).is_empty());
    }

    #[test]
    fn a_docker_of_the_jobs_own_is_known_by_its_name() {
        for (image, is_one) in [
            ("docker:dind", true),
            ("registry.example.org/library/docker:28-dind-rootless", true),
            ("docker:28-cli", false),
            ("example/dind", false),
        ] {
            assert_eq!(is_docker_daemon(image), is_one, "{image}");
        }
    }

    #[test]
    fn listeners_are_told_from_connections_and_loopback() {
        let line =
            |local: &str, state: &str| format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000");
        assert!(is_listener(&line("00000000:1F90", "0A"), 8080));
        assert!(is_listener(&line("0500A8C0:1F90", "0A"), 8080));
        assert!(is_listener(&line("00000000000000000000000000000000:1F90", "0A"), 8080));
        assert!(!is_listener(&line("0100007F:1F90", "0A"), 8080));
        assert!(!is_listener(&line("00000000:1F90", "01"), 8080));
        assert!(!is_listener(&line("00000000:1F91", "0A"), 8080));
        assert!(!is_listener("  sl  local_address rem_address   st", 8080));
    }
}
