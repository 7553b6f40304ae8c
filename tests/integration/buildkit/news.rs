//! What is told of builds.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Builder, jobs::OfJob};

/// All of the past that has to do with images, as `type action name`, ids left out.
async fn told(job: &OfJob<'_>) -> Vec<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let path = format!("/events?since=1&until={}.{:09}", now.as_secs(), now.subsec_nanos());
    let events = job.job.client.get(&path).await.text();
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let word = |value: &Value| value.as_str().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
    events
        .map(|event| {
            let (id, name) = (&event["Actor"]["ID"], &event["Actor"]["Attributes"]["name"]);
            let name = if id == name { word(name) } else { name.as_str().unwrap_or_default().to_owned() };
            format!("{} {} {name}", event["Type"].as_str().unwrap(), event["Action"].as_str().unwrap())
        })
        .collect()
}

/// As dockerd 28 with its containerd store tells it: the image once, then its names. Of steps nothing is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_told_to_its_tenant_alone_once_and_by_each_name() {
    let Some(builder) = Builder::start().await else { return };
    let (job, other) = (OfJob::new(&builder, &[]).await, OfJob::new(&builder, &[]).await);
    let before = [told(&job).await, told(&other).await];
    let dockerfile = "FROM box\nRUN echo built > /made\n";
    job.must_build(&["-t", "x", "-t", "reg.test/y:1"], dockerfile);
    job.must_build(&["-t", "x"], dockerfile);
    job.must_build(&[], dockerfile);
    let (mine, others) = (told(&job).await, told(&other).await);
    let names = ["create sha256", "tag x:latest", "tag reg.test/y:1", "create sha256", "tag x:latest", "create sha256"];
    assert_eq!(mine[before[0].len()..], names.map(|name| format!("image {name}")));
    assert_eq!(others, before[1]);
}
