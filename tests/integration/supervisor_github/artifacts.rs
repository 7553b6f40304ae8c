//! Artifact images: what a workflow names is at `/deps` before the first step of its jobs.

use ringer::{
    backend::images::samples::{Packing, Sample, image, tar},
    model::image::{ImageConfig, Platform},
};
use serde_json::json;

use super::Lab;
use crate::support::{
    github::{Fault, NewJob, Reply},
    launches,
};

fn tool(path: &str, words: &str) -> Sample {
    let script = format!("echo {words}");
    image(&Platform::host().to_string(), ImageConfig::default(), &[(tar(&[(path, script.as_bytes())]), Packing::Gzip)])
}

impl Lab {
    fn push_image(&self, name: &str, image: &Sample) -> String {
        self.images.push(self.github.place(), name, image)
    }

    /// The logs of jobs that are pushed together, once all have ended so.
    async fn logs(&self, jobs: Vec<NewJob>, conclusion: &str) -> Vec<String> {
        let jobs = self.github.push("tool", jobs);
        self.github.until_jobs(&jobs, "completed").await;
        let logs: Vec<String> = jobs.iter().map(|id| self.github.model().jobs[id].log.clone()).collect();
        let all: Vec<_> = jobs.iter().map(|id| self.github.job(*id)["conclusion"].clone()).collect();
        assert!(all.iter().all(|one| one == conclusion), "{all:?} {logs:#?}\n{}", self.daemon.log());
        logs
    }
}

#[tokio::test]
async fn the_image_that_a_workflow_names_is_there_before_the_first_step() {
    let Some(lab) = Lab::start("").await else { return };
    let shared = lab.push_image("acme/shared", &tool("bin/tool", "tool of all"));
    let own = lab.push_image("acme/own", &tool("deps/bin/tool", "tool of one"));
    let workflow = json!({
        "env": {"EPHEMERD_IMAGE": shared},
        "jobs": {"all": {}, "own": {"env": {"RINGER_IMAGE": own}}, "none": {"env": {"RINGER_IMAGE": ""}}},
    });
    let job = |key: &str, steps: &[&str]| NewJob::of(key, steps).in_workflow(key, &workflow.to_string());
    let uses = ["sh /deps/bin/tool; if touch /deps/more; then exit 1; fi"];
    let inside = job("all", &uses).container_with(&lab.images.job(), &["/deps:/deps"]);
    let jobs = vec![job("all", &uses), job("own", &uses), job("none", &["test ! -e /deps"]), inside];
    let logs = lab.logs(jobs, "success").await;
    for (log, words) in logs.iter().zip(["tool of all", "tool of one", "", "tool of all"]) {
        assert!(log.contains(words), "{log}");
    }
    assert!(logs[0].contains(&format!("ringer: {shared} (sha256:")), "{}", logs[0]);
    assert!(!logs[2].contains("ringer: "), "nothing is said where nothing is asked for: {}", logs[2]);
    launches::until_all_ended(&lab.daemon, 4).await;

    lab.logs(vec![job("all", &uses)], "success").await;
    let ended = launches::until_all_ended(&lab.daemon, 5).await;
    assert_eq!(ended[4]["pulled"], 0, "fetched and unpacked once: {:#?}", ended[4]);
    lab.is_clean();
    let hooks = std::fs::read_dir(lab.daemon.folder().join("data/runner-hooks")).expect("a folder").count();
    assert_eq!(hooks, 0);
}

#[tokio::test]
async fn an_image_that_cannot_be_had_fails_the_job_unless_it_is_optional() {
    let Some(lab) = Lab::start("").await else { return };
    let none = format!("{}/acme/none", lab.images.address());
    let workflow = json!({"jobs": {
        "expression": {"env": {"RINGER_IMAGE": "${{ vars.IMAGE }}"}},
        "missing": {"env": {"EPHEMERD_IMAGE": none}},
        "optional": {"env": {"EPHEMERD_IMAGE": none, "EPHEMERD_IMAGE_OPTIONAL": true}},
    }});
    let job = |key: &str| NewJob::of(key, &["echo stepped"]).in_workflow(key, &workflow.to_string());
    let failed = lab.logs(vec![job("expression"), job("missing")], "failure").await;
    assert!(failed[0].contains("ringer: artifact image: RINGER_IMAGE is an expression"), "{}", failed[0]);
    assert!(failed[1].contains("ringer: artifact image: pulling") && failed[1].contains("acme/none"), "{}", failed[1]);
    assert!(!failed.concat().contains("stepped"), "no step is begun");
    let went_on = lab.logs(vec![job("optional")], "success").await;
    assert!(went_on[0].contains("acme/none") && went_on[0].contains("stepped"), "{}", went_on[0]);

    // A token need not be allowed to read workflows.
    lab.github.model().fail_next("/contents/", Fault::Answer(Reply::error(403, "Resource not accessible")));
    let went_on = lab.logs(vec![job("missing")], "success").await;
    assert!(went_on[0].contains("ci.yml cannot be read") && went_on[0].contains("stepped"), "{}", went_on[0]);
    launches::until_all_ended(&lab.daemon, 4).await;
    lab.is_clean();
}
