//! What is kept of builds, and builds themselves, by Docker's own API: clients that do not speak gRPC see and end them.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use super::{Builder, deaths::runs, jobs::OfJob, until, walls::registry_of};
use crate::support::daemon::Daemon;

#[tokio::test(flavor = "multi_thread")]
async fn usage_and_prunes_of_the_api_are_about_ones_own_buildkit() {
    let Some(builder) = Builder::start().await else { return };
    let (job, other) = (OfJob::new(&builder, &[]).await, OfJob::new(&builder, &[]).await);
    let cache = async |job: &OfJob<'_>| {
        let usage = job.job.client.get("/v1.47/system/df?type=build-cache").await.json();
        usage["BuildCache"].as_array().expect("a list").clone()
    };
    assert!(cache(&job).await.is_empty() && super::deaths::buildkitd(&builder).is_empty(), "none is started to say so");
    let dockerfile = "FROM box\nRUN --mount=type=cache,target=/c echo kept > /c/x\nRUN echo built > /made\n";
    job.must_build(&["-t", "x"], dockerfile);
    let records = cache(&job).await;
    let of_kind = |kind: &str| records.iter().filter(|record| record["Type"] == kind).cloned().collect::<Vec<_>>();
    assert_eq!(of_kind("exec.cachemount").len(), 1, "{records:#?}");
    let steps = of_kind("regular");
    let step = steps.iter().find(|record| record["Description"].as_str().unwrap().contains("/made")).expect("the step");
    assert!(step["Size"].as_u64().unwrap() > 0 && step["UsageCount"] == 1 && step["InUse"] == false, "{step}");
    let parents = step["Parents"].as_array().expect("the step before");
    assert!(steps.iter().any(|record| record["ID"] == parents[0]), "{steps:#?}");
    assert!(step["CreatedAt"].as_str().unwrap() > "2026" && step["LastUsedAt"].is_string(), "{step}");
    assert!(cache(&other).await.is_empty(), "it is the job's own");
    // By a filter, then all.
    let prune = async |query: &str| {
        let query = query.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
        job.job.client.post(&format!("/v1.47/build/prune?{query}"), Value::Null).await
    };
    let wrong = prune(r#"filters={"mutable":["1"]}"#).await;
    assert_eq!(
        (wrong.status, wrong.message().as_str()),
        (400, "failed to prune build cache: invalid filter 'mutable'")
    );
    let both = prune(r#"filters={"until":["1h"],"unused-for":["1h"]}"#).await;
    assert!(both.status == 400 && both.message().contains("conflicting filters"), "{}", both.text());
    let late = prune(r#"filters={"until":["x"]}"#).await;
    let told = "failed to prune build cache: \"until\" filter expects a duration (e.g., '24h') or a timestamp: failed to parse value as time \
                or duration: \"x\"";
    assert_eq!((late.status, late.message().as_str()), (400, told));
    let recent = prune(r#"all=1&filters={"until":["1h"]}"#).await.json();
    assert_eq!(recent["SpaceReclaimed"], 0, "{recent}");
    let mounts = prune(r#"all=1&filters={"type":["exec.cachemount"]}"#).await.json();
    assert_eq!(mounts["CachesDeleted"], serde_json::json!([of_kind("exec.cachemount")[0]["ID"]]));
    let (_, before) = (job.must_build(&["-t", "x"], dockerfile), cache(&job).await.len());
    let all = prune("all=1").await.json();
    assert!(all["SpaceReclaimed"].as_u64().unwrap() > 0, "{all}");
    assert_eq!(all["CachesDeleted"].as_array().unwrap().len(), before);
    assert!(cache(&job).await.is_empty());
    assert!(!job.must_build(&["-t", "x"], dockerfile).contains("CACHED"));
}

/// As CLI up to 22 do it when their user breaks a build off.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_cancelled_by_the_name_that_its_client_gave_it() {
    let Some(builder) = Builder::start().await else { return };
    let (job, other) = (OfJob::new(&builder, &[]).await, OfJob::new(&builder, &[]).await);
    let files = registry_of(&job);
    files.put_page("/Dockerfile", "text/plain", b"FROM box\nRUN sleep 424211\n");
    let query = format!("/build?version=2&buildid=mine&remote=http://{}/Dockerfile", files.host());
    let build = async { job.job.client.post(&query, Value::Null).await };
    let cancel = async {
        until("the step runs", async || runs("11")).await;
        for (client, id) in [(&other.job.client, "mine"), (&job.job.client, "nosuch")] {
            assert_eq!(client.post(&format!("/build/cancel?id={id}"), Value::Null).await.status, 200);
            assert!(runs("11"));
        }
        assert_eq!(job.job.client.post("/build/cancel?id=mine", Value::Null).await.status, 200);
    };
    let (told, ()) = tokio::join!(build, cancel);
    assert!(
        told.text()
            .trim_end()
            .ends_with(r#"{"errorDetail":{"message":"context canceled"},"error":"context canceled"}"#),
        "{}",
        told.text()
    );
    until("the step is gone", async || !runs("11")).await;
    let none = job.job.client.post("/build/cancel", Value::Null).await;
    assert_eq!((none.status, none.message().as_str()), (400, "build ID not provided"));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_told_without_a_builder_that_does_not_come_up() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("buildkitd");
    fs::write(&broken, "#!/bin/sh\necho buildkitd: broken >&2\nexit 1\n").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::start_with(&[&format!("--buildkitd={}", broken.display())]).await;
    // That of an earlier life.
    fs::create_dir_all(daemon.folder().join("data/buildkit/default")).unwrap();
    let usage = daemon.get("/v1.47/system/df").await;
    assert_eq!((usage.status, &usage.json()["BuildCache"]), (200, &serde_json::json!([])));
    assert!(daemon.log().contains("buildkitd ended at start: broken"), "{}", daemon.log());
}
