//! What is timed: each workload is a function that does it once and gives its times.

pub mod builds;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use self::builds::Build;
use super::jobs::Jobs;
use crate::http::{Body, Client};
use crate::socket::Socket;

/// The times of one run of a workload. The metric without a name is the whole, one that begins with a comma a whole of its own.
pub type Measured = anyhow::Result<Vec<(&'static str, Duration)>>;

/// One thing that CI does all day.
pub struct Workload {
    /// What the table calls it.
    pub name: &'static str,
    /// How often it is done in a daemon's turn of one round.
    pub repeats: usize,
    /// What is done.
    pub work: Work,
}

/// What is done once.
pub enum Work {
    /// Calls of Docker's API.
    Calls(fn(&mut Bench) -> Measured),
    /// A build, which a BuildKit does alone as well.
    Build(Build),
}

/// In the order of the table.
pub static WORKLOADS: &[Workload] = &[
    Workload { name: "ping, kept-alive connection", repeats: 20, work: Work::Calls(ping) },
    Workload { name: "inspect", repeats: 20, work: Work::Calls(inspect) },
    Workload { name: "run without network", repeats: 4, work: Work::Calls(|bench| bench.run_once("none")) },
    Workload { name: "run on the default bridge", repeats: 4, work: Work::Calls(|bench| bench.run_once("default")) },
    Workload { name: "a run, on ringer in a new job", repeats: 4, work: Work::Calls(run_in_a_new_job) },
    Workload { name: "8 runs at once on the bridge", repeats: 1, work: Work::Calls(eight_at_once) },
    Workload { name: "exec `true`", repeats: 8, work: Work::Calls(exec_true) },
    Workload { name: "log, 64 MiB in lines of 100 bytes", repeats: 1, work: Work::Calls(log_64_mib) },
    Workload { name: "archive PUT of 3 small files", repeats: 6, work: Work::Calls(|bench| bench.put("/put", 3)) },
    Workload { name: "archive GET of 3 small files", repeats: 6, work: Work::Calls(|bench| bench.get("/small")) },
    Workload {
        name: "archive PUT of 1000 small files",
        repeats: 1,
        work: Work::Calls(|bench| bench.put("/put-many", 1000)),
    },
    Workload { name: "archive GET of 1000 small files", repeats: 1, work: Work::Calls(|bench| bench.get("/many")) },
    Workload { name: "network cycle", repeats: 2, work: Work::Calls(network_cycle) },
    Workload { name: "a job like act's", repeats: 1, work: Work::Calls(job) },
    Workload { name: "BuildKit: 5 steps", repeats: 2, work: Work::Build(Build::anew(&builds::FIVE)) },
    Workload { name: "BuildKit: the same, cached", repeats: 4, work: Work::Build(Build::again(&builds::FIVE)) },
    Workload { name: "BuildKit: 10 empty steps", repeats: 2, work: Work::Build(Build::anew(&builds::EMPTY)) },
    Workload { name: "BuildKit: COPY of 150 MB", repeats: 1, work: Work::Build(Build::anew(&builds::LARGE)) },
    Workload { name: "BuildKit: context of 5000 files", repeats: 1, work: Work::Build(Build::anew(&builds::MANY)) },
];

/// One daemon under the clock, with a container to work in.
pub struct Bench {
    path: PathBuf,
    /// Where jobs are made, on a daemon that has them.
    admin: Option<PathBuf>,
    client: Client,
    container: String,
}

impl Bench {
    /// Starts the container that execs and archives use, and puts the files there that are read later.
    pub fn begin(socket: &Socket) -> anyhow::Result<Self> {
        let mut bench = Self::at(&socket.path, socket.admin.clone());
        bench.container = bench.create(&json!({ "Image": "busybox", "Cmd": ["sleep", "3600"] }), "")?;
        bench.start(&bench.container.clone())?;
        let container = bench.container.clone();
        bench.exec(&container, &["mkdir", "/put", "/put-many", "/small", "/many"])?;
        bench.put("/small", 3)?;
        bench.put("/many", 1000)?;
        Ok(bench)
    }

    /// Without that container.
    pub fn at(path: &Path, admin: Option<PathBuf>) -> Self {
        Self { path: path.to_owned(), admin, client: Client::new(path), container: String::new() }
    }

    fn call(&mut self, method: &str, target: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { Body::Empty } else { Body::Json(body) };
        let answer = self.client.request(method, &format!("/v1.41{target}"), body)?;
        let answer = answer.success().with_context(|| format!("{method} {target}"))?;
        if answer.body.is_empty() { Ok(Value::Null) } else { answer.json() }
    }

    fn create(&mut self, config: &Value, name: &str) -> anyhow::Result<String> {
        let query = if name.is_empty() { String::new() } else { format!("?name={name}") };
        let created = self.call("POST", &format!("/containers/create{query}"), config)?;
        Ok(created["Id"].as_str().context("create gives an Id")?.to_owned())
    }

    fn start(&mut self, container: &str) -> anyhow::Result<()> {
        self.call("POST", &format!("/containers/{container}/start"), &Value::Null).map(drop)
    }

    fn wait(&mut self, container: &str) -> anyhow::Result<()> {
        let waited = self.call("POST", &format!("/containers/{container}/wait"), &Value::Null)?;
        ensure!(waited["StatusCode"] == 0, "the container failed: {waited}");
        Ok(())
    }

    fn remove(&mut self, container: &str) -> anyhow::Result<()> {
        self.call("DELETE", &format!("/containers/{container}?force=1&v=1"), &Value::Null).map(drop)
    }

    /// Makes a container, starts it, waits for its end and removes it.
    pub fn run_once(&mut self, network: &str) -> Measured {
        let config = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "NetworkMode": network } });
        let mut clock = Clock::start();
        let container = self.create(&config, "")?;
        let create = clock.lap();
        self.start(&container)?;
        let start = clock.lap();
        self.wait(&container)?;
        let wait = clock.lap();
        self.remove(&container)?;
        let rm = clock.lap();
        Ok(vec![("", create + start + wait + rm), ("create", create), ("start", start), ("wait", wait), ("rm", rm)])
    }

    fn exec(&mut self, container: &str, command: &[&str]) -> anyhow::Result<()> {
        let config = json!({ "Cmd": command, "AttachStdout": true, "AttachStderr": true });
        let exec = self.call("POST", &format!("/containers/{container}/exec"), &config)?;
        let id = exec["Id"].as_str().context("exec create gives an Id")?;
        self.client.hijack(&format!("/v1.41/exec/{id}/start"), &json!({ "Detach": false, "Tty": false }))?;
        let inspected = self.call("GET", &format!("/exec/{id}/json"), &Value::Null)?;
        ensure!(inspected["ExitCode"] == 0, "{command:?} failed: {inspected}");
        Ok(())
    }

    fn put(&mut self, path: &str, files: usize) -> Measured {
        let archive = archive(files)?;
        let target = format!("/v1.41/containers/{}/archive?path={path}&noOverwriteDirNonDir=true", self.container);
        let clock = Instant::now();
        self.client.request("PUT", &target, Body::Tar(&archive))?.success()?;
        Ok(vec![("", clock.elapsed())])
    }

    fn get(&mut self, path: &str) -> Measured {
        let target = format!("/v1.41/containers/{}/archive?path={path}", self.container);
        let clock = Instant::now();
        let answer = self.client.request("GET", &target, Body::Empty)?.success()?;
        let taken = clock.elapsed();
        ensure!(answer.body.len() > 1024, "an archive of {} bytes", answer.body.len());
        Ok(vec![("", taken)])
    }
}

fn ping(bench: &mut Bench) -> Measured {
    let clock = Instant::now();
    bench.client.request("GET", "/_ping", Body::Empty)?.success()?;
    Ok(vec![("", clock.elapsed())])
}

fn inspect(bench: &mut Bench) -> Measured {
    let target = format!("/containers/{}/json", bench.container);
    let clock = Instant::now();
    bench.call("GET", &target, &Value::Null)?;
    Ok(vec![("", clock.elapsed())])
}

/// As by `docker run`. On a daemon with jobs the clock begins before there is a socket.
fn run_in_a_new_job(bench: &mut Bench) -> Measured {
    let config = json!({ "Image": "busybox", "Cmd": ["true"] });
    let mut clock = Clock::start();
    let mut jobs = bench.admin.as_deref().map(Jobs::at);
    let job = jobs.as_mut().map(Jobs::make).transpose()?;
    let made = clock.lap();
    let mut inside = Bench::at(job.as_ref().map_or(&bench.path, |job| &job.socket), None);
    let container = inside.create(&config, "")?;
    inside.start(&container)?;
    inside.wait(&container)?;
    let ran = clock.lap();
    match jobs.as_mut().zip(job.as_ref()) {
        Some((jobs, job)) => jobs.remove(job)?,
        None => inside.remove(&container)?,
    }
    Ok(vec![("", made + ran)])
}

fn eight_at_once(bench: &mut Bench) -> Measured {
    let clock = Instant::now();
    std::thread::scope(|scope| {
        let path = &bench.path;
        let one = move || Bench::at(path, None).run_once("default").map(drop);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<()>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the harness panicked")))
        };
        threads.into_iter().try_for_each(join)
    })?;
    Ok(vec![("", clock.elapsed())])
}

fn exec_true(bench: &mut Bench) -> Measured {
    let container = bench.container.clone();
    let clock = Instant::now();
    bench.exec(&container, &["true"])?;
    Ok(vec![("", clock.elapsed())])
}

/// The writing is timed by the wait: the container ends when the daemon has taken its last line.
fn log_64_mib(bench: &mut Bench) -> Measured {
    const BYTES: u64 = 64 * 1024 * 1024;
    let script = format!("yes {} | head -c {BYTES}", "x".repeat(99));
    let config = json!({ "Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": { "NetworkMode": "none" } });
    let container = bench.create(&config, "")?;
    let mut clock = Clock::start();
    bench.start(&container)?;
    bench.wait(&container)?;
    let written = clock.lap();
    let mut count = Counter(0);
    let target = format!("/v1.41/containers/{container}/logs?stdout=1&stderr=1");
    let status = bench.client.stream("GET", &target, Body::Empty, &mut count)?;
    let read = clock.lap();
    ensure!(status == 200 && count.0 > BYTES, "status {status}, {} bytes of {BYTES}", count.0);
    bench.remove(&container)?;
    Ok(vec![(", written", written), (", read", read)])
}

fn network_cycle(bench: &mut Bench) -> Measured {
    let container = json!({ "Container": bench.container });
    let mut clock = Clock::start();
    bench.call("POST", "/networks/create", &json!({ "Name": "bench-cycle", "Driver": "bridge" }))?;
    let create = clock.lap();
    bench.call("POST", "/networks/bench-cycle/connect", &container)?;
    let connect = clock.lap();
    bench.call("POST", "/networks/bench-cycle/disconnect", &container)?;
    let disconnect = clock.lap();
    bench.call("DELETE", "/networks/bench-cycle", &Value::Null)?;
    let remove = clock.lap();
    Ok(vec![
        ("", create + connect + disconnect + remove),
        ("create", create),
        ("connect", connect),
        ("disconnect", disconnect),
        ("remove", remove),
    ])
}

/// A network, a service and a job container with two volumes each, ten steps of copy in, exec and copy out, and everything removed.
/// The agents say /var/run/act; dockerd 28 refuses to follow that link.
fn job(bench: &mut Bench) -> Measured {
    let mut clock = Clock::start();
    bench.call("POST", "/networks/create", &json!({ "Name": "bench-job", "Driver": "bridge" }))?;
    let mut containers = Vec::new();
    for name in ["service", "job"] {
        let config = json!({
            "Image": "busybox",
            "Entrypoint": ["tail", "-f", "/dev/null"],
            "HostConfig": {
                "NetworkMode": "bench-job",
                "Mounts": [
                    { "Type": "volume", "Source": format!("bench-{name}-env"), "Target": "/run/act" },
                    { "Type": "volume", "Source": format!("bench-{name}-work"), "Target": "/work" },
                ],
            },
            "NetworkingConfig": { "EndpointsConfig": { "bench-job": { "Aliases": [name] } } },
        });
        let container = bench.create(&config, &format!("bench-{name}"))?;
        bench.start(&container)?;
        containers.push(container);
    }
    let setup = clock.lap();
    let archive = archive(2)?;
    let target = format!("/v1.41/containers/{}/archive?path=/run/act", containers[1]);
    for _ in 0..10 {
        bench.client.request("PUT", &target, Body::Tar(&archive))?.success()?;
        bench.exec(&containers[1], &["sh", "-c", "cat /run/act/file0 > /work/out; echo done"])?;
        bench.client.request("GET", &format!("{target}/file0"), Body::Empty)?.success()?;
    }
    let steps = clock.lap();
    for container in &containers {
        bench.remove(container)?;
    }
    for volume in ["bench-service-env", "bench-service-work", "bench-job-env", "bench-job-work"] {
        bench.call("DELETE", &format!("/volumes/{volume}"), &Value::Null)?;
    }
    bench.call("DELETE", "/networks/bench-job", &Value::Null)?;
    let teardown = clock.lap();
    Ok(vec![
        ("", setup + steps + teardown),
        ("set-up", setup),
        ("10 steps: PUT, exec, GET", steps),
        ("tear-down", teardown),
    ])
}

/// A tar archive of that many files of 1 KiB.
fn archive(files: usize) -> anyhow::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for number in 0..files {
        let mut header = tar::Header::new_ustar();
        header.set_size(1024);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("file{number}"), [b'x'; 1024].as_slice())?;
    }
    Ok(builder.into_inner()?)
}

struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}

struct Counter(u64);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
