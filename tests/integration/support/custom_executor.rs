//! A stand-in for a GitLab Runner with the custom executor, which calls a driver as the real one does: the order, the environment, the files
//! and the process groups of `executors/custom` and `common/build.go` in gitlab-runner's sources (18), its tries, and what it makes of exit
//! codes. It waits less between tries, and has no GitLab: a job is what a test says. Of its scripts the frame is the real one's
//! (`shells/bash.go`), and the lines are the test's.

use std::{
    fs,
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::daemon::Daemon;

/// How often gitlab-runner prepares a job whose system fails (`PreparationRetries` of `common/const.go`).
const TRIES: usize = 3;

/// For a script on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Before the user's scripts, in the order of `common/build.go`.
const BEFORE: [&str; 4] = ["prepare_script", "get_sources", "restore_cache", "download_artifacts"];

/// The token of a job, which nobody else may learn.
pub const TOKEN: &str = "glcbt-64_of-a-test";

/// The value of a variable that is none of the repository's.
pub const SECRET: &str = "hunter2-of-a-test";

/// How a job ended, as GitLab is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// All its scripts did what they should.
    Success,
    /// One did not, with this number.
    ScriptFailure(i64),
    /// It could not be run.
    SystemFailure,
}

/// What GitLab hands out.
#[derive(Clone)]
pub struct Job {
    /// As in `JOB_RESPONSE_FILE`.
    pub response: Value,
    /// Stages with their scripts; those that are not here are empty, and such are not run.
    pub scripts: Vec<(&'static str, String)>,
}

impl Job {
    /// One with an image and a script.
    pub fn of(id: u64, image: &str, script: &str) -> Self {
        let variable = |key: &str, value: &str, public: bool| json!({"key": key, "value": value, "public": public, "internal": false, "file": false, "masked": !public, "raw": false});
        let response = json!({
            "id": id,
            "token": format!("{TOKEN}-{id}"),
            "allow_git_fetch": true,
            "job_info": {"name": "test", "stage": "test", "project_id": 42, "project_name": "project"},
            "git_info": {"repo_url": format!("https://gitlab-ci-token:{TOKEN}@gitlab.example.org/group/project.git"), "ref": "main", "sha": "0"},
            "runner_info": {"timeout": 600, "runner_session_url": ""},
            "variables": [
                variable("CI_JOB_ID", &id.to_string(), true),
                variable("CI_PROJECT_DIR", "/builds/group/project", true),
                variable("GREETING", "hello", true),
                variable("DEPLOY_KEY", SECRET, false),
            ],
            "steps": [],
            "image": {"name": image},
            "services": [],
            "artifacts": null, "cache": null, "credentials": null, "dependencies": null, "features": {},
        });
        Self { response, scripts: vec![("build_script", script.to_owned())] }
    }

    /// With a script for another stage, or in place of that stage's own.
    pub fn and(mut self, stage: &'static str, script: &str) -> Self {
        self.scripts.retain(|(known, _)| *known != stage);
        self.scripts.push((stage, script.to_owned()));
        self
    }

    fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.response["variables"].as_array().expect("a list");
        all.iter().filter_map(|variable| Some((variable["key"].as_str()?, variable["value"].as_str()?)))
    }
}

/// A runner with its configuration.
pub struct CustomRunner<'d> {
    daemon: &'d Daemon,
    prepare_args: Vec<String>,
}

/// What became of a job.
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// What GitLab shows.
    pub log: String,
    /// How often it was prepared.
    pub tries: usize,
}

impl<'d> CustomRunner<'d> {
    /// One whose driver is ringer on this daemon, with further `prepare_args`.
    pub fn new(daemon: &'d Daemon, prepare_args: &[&str]) -> Self {
        Self { daemon, prepare_args: prepare_args.iter().map(|word| (*word).to_owned()).collect() }
    }

    /// Does a job from its beginning to its end.
    pub fn run(&self, job: &Job) -> Outcome {
        let trace = tempfile::NamedTempFile::new().expect("a temporary file");
        for tries in 1.. {
            let build = Build::begin(self, job, trace.path());
            let prepared = build.prepare();
            let is_last = tries == TRIES || prepared != Ended::SystemFailure;
            let ended = if prepared == Ended::Success { build.run_scripts() } else { prepared };
            build.cleanup();
            if is_last {
                return Outcome { ended, log: build.log(), tries };
            }
        }
        unreachable!("the tries have an end")
    }

    /// Begins a job, for tests that go through it themselves.
    pub fn begin(&self, job: &Job, trace: &Path) -> Build<'_> {
        Build::begin(self, job, trace)
    }
}

/// One try of a job.
pub struct Build<'r> {
    runner: &'r CustomRunner<'r>,
    job: Job,
    folder: tempfile::TempDir,
    trace: PathBuf,
}

impl<'r> Build<'r> {
    fn begin(runner: &'r CustomRunner<'r>, job: &Job, trace: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("custom-executor").tempdir().expect("a temporary folder");
        let mut file = fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.path().join("response.json"))
            .expect("a file in our folder");
        serde_json::to_writer(&mut file, &job.response).expect("the file takes it");
        Self { runner, job: job.clone(), folder, trace: trace.to_owned() }
    }

    /// Both calls before the scripts.
    pub fn prepare(&self) -> Ended {
        let output = self.driver(&["gitlab", "config"]).stdout(Stdio::piped()).output().expect("the driver runs");
        if !output.status.success() {
            return self.ended(output.status.code());
        }
        let config: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&config["builds_dir"], &config["driver"]["name"]), (&json!("/builds"), &json!("ringer")));
        let flags: Vec<&str> = self.runner.prepare_args.iter().map(String::as_str).collect();
        let status = self.driver(&[&["gitlab", "prepare"], &flags[..]].concat()).status().expect("the driver runs");
        self.ended(status.code())
    }

    /// The scripts, in the order of `common/build.go`: `executeScript`.
    pub fn run_scripts(&self) -> Ended {
        for stage in BEFORE {
            let ended = self.stage(stage);
            if ended != Ended::Success {
                return ended;
            }
        }
        let is_users = |stage: &&str| stage.starts_with("step_") || *stage == "build_script";
        let steps: Vec<&str> = self.job.scripts.iter().map(|(stage, _)| *stage).filter(is_users).collect();
        let failed = steps.iter().map(|stage| self.stage(stage)).find(|ended| *ended != Ended::Success);
        self.stage("after_script");
        let (cache, artifacts) = match failed {
            None => ("archive_cache", "upload_artifacts_on_success"),
            Some(_) => ("archive_cache_on_failure", "upload_artifacts_on_failure"),
        };
        let rest = [cache, artifacts, "cleanup_file_variables"].map(|stage| self.stage(stage));
        failed.or(rest.into_iter().find(|ended| *ended != Ended::Success)).unwrap_or(Ended::Success)
    }

    /// One stage to its end.
    pub fn stage(&self, stage: &str) -> Ended {
        let Some(mut child) = self.start_stage(stage) else { return Ended::Success };
        self.ended(child.wait().expect("a child can be waited for").code())
    }

    /// Starts one; `None` if it has no script.
    pub fn start_stage(&self, stage: &str) -> Option<Child> {
        let (_, lines) = self.job.scripts.iter().find(|(name, _)| *name == stage)?;
        let folder = tempfile::Builder::new().prefix("script").tempdir_in(self.folder.path()).expect("a folder").keep();
        let path = folder.join("script");
        fs::write(&path, self.script(stage, lines)).expect("a file in our folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("our own file");
        let path = path.display().to_string();
        Some(self.driver(&["gitlab", "run", &path, stage]).spawn().expect("the driver runs"))
    }

    /// The last call.
    pub fn cleanup(&self) {
        let status = self.driver(&["gitlab", "cleanup"]).status().expect("the driver runs");
        assert!(status.success(), "{}", self.log());
    }

    /// What the calls have said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.trace).expect("our own file")).into_owned()
    }

    /// Waits until they say something.
    pub fn until_told(&self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "nobody says {text:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A call of the driver, in a process group of its own.
    pub fn driver(&self, arguments: &[&str]) -> Command {
        let mut command = self.runner.daemon.ringer(arguments);
        self.place(&mut command);
        command.process_group(0);
        command
    }

    /// Gives a program folder, environment and output of a call.
    pub fn place(&self, command: &mut Command) {
        let path = |name: &str| self.folder.path().join(name);
        let trace = fs::File::options().append(true).open(&self.trace).expect("our own file");
        let prefixed = self.job.variables().map(|(name, value)| (format!("CUSTOM_ENV_{name}"), value.to_owned()));
        command
            .current_dir(self.folder.path())
            .env("TMPDIR", self.folder.path())
            .env("BUILD_FAILURE_EXIT_CODE", "1")
            .env("SYSTEM_FAILURE_EXIT_CODE", "2")
            .env("BUILD_EXIT_CODE_FILE", path("build_exit_code"))
            .env("JOB_RESPONSE_FILE", path("response.json"))
            .envs(prefixed)
            .env("CUSTOM_ENV_CI_JOB_IMAGE", self.job.response["image"]["name"].as_str().unwrap_or_default())
            .env("CUSTOM_ENV_CI_JOB_SERVICES", "")
            .stdin(Stdio::null())
            .stdout(trace.try_clone().expect("the file again"))
            .stderr(trace);
    }

    /// As `executors/custom/command` has it.
    fn ended(&self, code: Option<i32>) -> Ended {
        match code {
            Some(0) => Ended::Success,
            Some(1) => {
                let number = fs::read_to_string(self.folder.path().join("build_exit_code")).unwrap_or_default();
                Ended::ScriptFailure(number.lines().next().map_or(1, |line| line.parse().expect("a number")))
            }
            _ => Ended::SystemFailure,
        }
    }

    /// As `BashWriter.Finish` frames it.
    fn script(&self, stage: &str, lines: &str) -> String {
        let exports: String =
            self.job.variables().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect();
        let folder = if BEFORE[..2].contains(&stage) { "" } else { "cd \"$CI_PROJECT_DIR\"\n" };
        format!(
            "#!/usr/bin/env bash\n\ntrap exit 1 TERM\n\nif set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\n\
             set +o noclobber\n: | eval {}\nexit 0\n",
            quoted(&format!("{exports}{folder}{lines}\n"))
        )
    }
}

/// `helpers.ShellEscape`
fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '\n' => "\\n".to_owned(),
            '\'' | '\\' => format!("\\{c}"),
            c => c.to_string(),
        })
        .collect();
    format!("$'{escaped}'")
}
