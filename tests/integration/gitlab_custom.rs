//! `ringer gitlab` under a stand-in for a GitLab Runner with the custom executor.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use crate::support::{
    custom_executor::{CustomRunner, Ended, Job, SECRET, TOKEN},
    daemon::Daemon,
    forge::Images,
    place::{self, Place},
};

/// For what the daemon does behind the back of its clients.
const LIMIT: Duration = Duration::from_secs(60);

/// A script that does not end by itself.
const LONG: &str = "echo begun; sleep 1000; echo not reached";

/// A registry that asks for a password, and a daemon.
struct Lab {
    daemon: Daemon,
    images: Images,
    place: Place,
}

impl Lab {
    async fn start() -> Self {
        let place = Place::start();
        let images = Images::of_custom_executor(&place).await;
        let flag = format!("--insecure-registry={}", images.address());
        let daemon = Daemon::start_at(&place, &[&flag]).await;
        Self { daemon, images, place }
    }

    fn runner(&self, prepare_args: &[&str]) -> CustomRunner<'_> {
        let helper = format!("--helper-image={}", self.images.gitlab_helper());
        CustomRunner::new(&self.daemon, &[&[helper.as_str()], prepare_args].concat())
    }

    fn job(&self, id: u64, image: &str, script: &str) -> Job {
        let mut job = Job::of(id, image, script).and("get_sources", "mkdir -p \"$CI_PROJECT_DIR\"");
        let registry = self.images.address();
        job.response["credentials"] =
            json!([{"type": "registry", "url": registry, "username": "ringer", "password": "secret"}]);
        job
    }

    fn jobs(&self) -> String {
        let output = self.daemon.ringer(&["job", "ls", "--json"]).output().expect("ringer runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

#[tokio::test]
async fn a_job_runs_in_its_image_with_helper_services_and_cache_and_nobody_asks_gitlab() {
    let lab = Lab::start().await;
    let address = format!("{}:8929", place::ADDRESS);
    let gitlab: TcpListener = place::listen(&lab.place.path(), address.parse().unwrap()).expect("a free port");
    gitlab.set_nonblocking(true).unwrap();
    let script = "test -z \"$BASH_VERSION\" && echo in sh; git --version 2>/dev/null || echo no git here; cat source; \
                  wget -q -O- http://db:8080; wget -q -O- http://127.0.0.1__ringer__web:8080/files/note; echo built > product; \
                  test -S /var/run/docker.sock && echo has a socket; ps -o args; mkdir kept && echo once > kept/file";
    let sources =
        "mkdir -p \"$CI_PROJECT_DIR\" && cd \"$CI_PROJECT_DIR\" && git init -q . && echo from the sources > source";
    let mut job = lab
        .job(7, &lab.images.job(), script)
        .and("prepare_script", "echo \"Running on $(hostname)...\"")
        .and("get_sources", sources)
        .and(
            "restore_cache",
            "gitlab-runner cache-extractor --file /cache/group/project/default/cache.zip || echo no cache",
        )
        .and("step_release", "echo release of $(cat product)")
        .and("after_script", "echo after $(cat product)")
        .and(
            "archive_cache",
            "gitlab-runner cache-archiver --file /cache/group/project/default/cache.zip --timeout 10 --path kept",
        )
        .and("upload_artifacts_on_success", "cat product > /dev/null && gitlab-runner --version");
    job.response["services"] =
        json!([{"name": lab.images.web(), "alias": "db, other", "entrypoint": null, "command": null}]);
    // All that ringer is told of where GitLab is.
    let url = json!(format!("http://gitlab-ci-token:{TOKEN}@{address}/group/project.git"));
    job.response["git_info"]["repo_url"] = url.clone();
    let variable = json!({"key": "CI_SERVER_URL", "value": format!("http://{address}"), "public": true});
    job.response["variables"].as_array_mut().unwrap().push(variable);

    let runner = lab.runner(&["--keep-cache"]);
    let outcome = runner.run(&job);
    let log = &outcome.log;
    assert_eq!((outcome.ended, outcome.tries), (Ended::Success, 1), "{log}");
    for told in [
        "Running on ",
        "no cache\n",
        "in sh\n",
        "no git here\n",
        "from the sources\n",
        "served by ringer/web\n",
        "a file of the image\n",
        "has a socket\n",
        "release of built\n",
        "after built\n",
        "Version: stand-in\n",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
    assert_eq!(lab.jobs(), "[]", "it is gone with its cleanup");
    for secret in [TOKEN, SECRET, "secret\"", "cmluZ2VyOnNlY3JldA"] {
        assert!(!lab.daemon.log().contains(secret) && !log.contains(secret), "{secret} is in a log");
    }
    assert!(gitlab.accept().is_err(), "somebody asked GitLab");

    let mut later = lab
        .job(8, &lab.images.gitlab_helper(), "test -n \"$BASH_VERSION\" && echo in bash; cat kept/file")
        .and("restore_cache", "gitlab-runner cache-extractor --file /cache/group/project/default/cache.zip");
    later.response["image"]["entrypoint"] = json!([""]);
    later.response["git_info"]["repo_url"] = url;
    let mut other = later.clone();
    let outcome = runner.run(&later);
    assert_eq!(outcome.ended, Ended::Success, "{}", outcome.log);
    assert!(outcome.log.contains("in bash\nonce\n"), "{}", outcome.log);
    let mut protected = other.clone();
    other.response["job_info"]["project_id"] = json!(43);
    protected.response["git_info"]["protected"] = json!(true);
    for (job, whose) in [(&other, "another project's"), (&protected, "a protected branch's")] {
        let outcome = runner.run(job);
        assert!(outcome.ended != Ended::Success && outcome.log.contains("no cache at"), "{whose}: {}", outcome.log);
    }
}

#[tokio::test]
async fn failures_of_scripts_of_jobs_and_of_the_system_are_told_apart() {
    let lab = Lab::start().await;
    let runner = lab.runner(&[]);
    let failing = lab.job(1, &lab.images.job(), "echo here; exit 7").and("after_script", "echo afterwards");
    let outcome = runner.run(&failing);
    assert_eq!((outcome.ended, outcome.tries), (Ended::ScriptFailure(7), 1), "{}", outcome.log);
    assert!(outcome.log.contains("here\n") && outcome.log.contains("afterwards\n"), "{}", outcome.log);

    let outcome = runner.run(&lab.job(2, "", "true"));
    assert_eq!((outcome.ended, outcome.tries), (Ended::SystemFailure, 3), "{}", outcome.log);
    assert!(outcome.log.contains("the job names no image: give it an image:"), "{}", outcome.log);
    let default = format!("--default-image={}", lab.images.job());
    let outcome = lab.runner(&[&default]).run(&lab.job(2, "", "true"));
    assert_eq!(outcome.ended, Ended::Success, "{}", outcome.log);

    let absent = format!("{}/absent:1", lab.images.address());
    let outcome = runner.run(&lab.job(3, &absent, "true"));
    assert_eq!((outcome.ended, outcome.tries), (Ended::SystemFailure, 3), "{}", outcome.log);
    assert!(outcome.log.contains(&format!("pulling {absent}")), "{}", outcome.log);
    let mut never = lab.job(3, &lab.images.job(), "true");
    never.response["image"]["pull_policy"] = json!(["never"]);
    assert!(runner.run(&never).log.contains("is not here, and is never to be pulled"));

    let mut stranger = lab.job(4, &lab.images.job(), "true");
    stranger.response["credentials"] = json!(null);
    let outcome = runner.run(&stranger);
    assert_eq!(outcome.ended, Ended::SystemFailure, "without its credentials: {}", outcome.log);

    let mut many = lab.job(5, &lab.images.job(), "true");
    many.response["services"] = json!(vec![json!({"name": lab.images.web()}); 33]);
    let outcome = runner.run(&many);
    assert_eq!((outcome.ended, outcome.tries), (Ended::ScriptFailure(1), 1), "{}", outcome.log);
    assert!(outcome.log.contains("the job has 33 services, and may have 32"), "{}", outcome.log);
    assert_eq!(lab.jobs(), "[]", "nothing is left of any");
}

#[tokio::test]
async fn a_docker_daemon_of_a_jobs_own_is_refused_once_with_what_to_write() {
    let lab = Lab::start().await;
    let dind = format!("{}/docker:28-dind", lab.images.address());
    let copied = lab
        .place
        .command("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"])
        .args(["--src-creds=ringer:secret", "--dest-creds=ringer:secret"])
        .args([format!("docker://{}", lab.images.job()), format!("docker://{dind}")])
        .status();
    assert!(copied.expect("skopeo is there").success());
    let mut job = lab.job(1, &lab.images.job(), "true");
    job.response["services"] = json!([{"name": dind}]);
    let outcome = lab.runner(&[]).run(&job);
    assert_eq!((outcome.ended, outcome.tries), (Ended::ScriptFailure(1), 1), "{}", outcome.log);
    let told = outcome.log.contains("rule privileged") && outcome.log.contains("leave out docker:dind");
    assert!(told && lab.jobs() == "[]", "{}", outcome.log);
}

#[tokio::test]
async fn a_stage_that_is_ended_leaves_its_container_to_the_next_and_its_job_to_the_cleanup() {
    let lab = Lab::start().await;
    let job = lab
        .job(1, &lab.images.job(), LONG)
        .and("after_script", "ps -o args | grep -c [s]leep || true; echo afterwards");
    for signal in [Signal::TERM, Signal::KILL] {
        let (runner, trace) = (lab.runner(&[]), tempfile::NamedTempFile::new().unwrap());
        let build = runner.begin(&job, trace.path());
        assert_eq!(build.prepare(), Ended::Success, "{}", build.log());
        build.stage("get_sources");
        let mut stage = build.start_stage("build_script").expect("a script");
        build.until_told("begun");
        let all = Command::new("ps").args(["-eo", "args"]).output().expect("ps is there").stdout;
        let all = String::from_utf8_lossy(&all).into_owned();
        assert!(all.contains("gitlab run") && !all.contains(TOKEN) && !all.contains(SECRET), "{all}");
        let group = Pid::from_raw(i32::try_from(stage.id()).unwrap()).unwrap();
        let told = Instant::now();
        kill_process_group(group, signal).expect("the group is there");
        let status = stage.wait().unwrap();
        assert!(!status.success() && told.elapsed() < Duration::from_secs(9), "{signal:?}: {:?}", told.elapsed());
        build.stage("after_script");
        assert!(build.log().contains("0\nafterwards\n"), "{}", build.log());
        assert!(!build.log().contains("not reached"), "{}", build.log());
        build.cleanup();
        assert_eq!(lab.jobs(), "[]");
        build.cleanup();
    }
}

#[tokio::test]
async fn a_killed_runner_leaves_nothing() {
    let lab = Lab::start().await;
    let mut job = lab.job(1, &lab.images.job(), "true");
    job.response["services"] = json!([{"name": lab.images.web(), "alias": "db"}]);
    let (runner, trace) = (lab.runner(&[]), tempfile::NamedTempFile::new().unwrap());
    let build = runner.begin(&job, trace.path());
    // It starts each call in a group of its own, as the real one does.
    let mut command = Command::new("sh");
    let helper = format!("--helper-image={}", lab.images.gitlab_helper());
    let admin = lab.daemon.admin_host();
    command
        .args(["-c", "setsid --wait \"$@\" && echo prepared && exec sleep 1000", "sh", env!("CARGO_BIN_EXE_ringer")])
        .args(["gitlab", "prepare", &helper, "--admin-host", &admin]);
    build.place(&mut command);
    let mut process = command.stdin(Stdio::null()).spawn().expect("sh is there");
    build.until_told("prepared\n");
    let jobs: serde_json::Value = serde_json::from_str(&lab.jobs()).unwrap();
    assert_eq!(jobs[0]["owner_pid"], process.id(), "{jobs}");
    assert!(jobs[0]["expires"].is_string(), "and it ends in time whatever happens: {jobs}");
    process.kill().unwrap();
    process.wait().unwrap();
    let deadline = Instant::now() + LIMIT;
    while lab.jobs() != "[]" {
        assert!(Instant::now() < deadline, "{}", lab.jobs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
