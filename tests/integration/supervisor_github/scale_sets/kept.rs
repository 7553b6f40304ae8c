//! Which scale sets there are: those of the configuration, and nobody else's.

use std::{collections::BTreeSet, fs};

use super::{
    super::{LONG, config},
    by_scale_set, listening,
};
use crate::support::{
    github::{GitHub, NewJob, ORG, TOKEN},
    launches,
};

#[tokio::test]
async fn a_changed_configuration_keeps_the_set_and_hears_of_its_jobs() {
    let Some(lab) = listening("", |_| {}).await else { return };
    let long = lab.run_long_job().await;
    let set = *lab.github.model().service.sets.keys().next().expect("a set");
    lab.reload(&by_scale_set(&lab.github, &lab.images, "labels = ['self-hosted', 'linux', 'new']")).await;
    let jobs = lab.github.push("one", vec![NewJob::of("new", &["true"]).labels(&["new"])]);
    lab.github.until_jobs(&jobs, "success").await;
    assert_eq!(lab.github.job(long)["status"], "in_progress", "it goes on");
    assert!(lab.github.model().service.sets.keys().eq([&set]), "the same");
    // Who has taken the place of its pool hears how it ends.
    lab.github.model().cancel(long);
    assert_eq!(launches::until_all_ended(&lab.daemon, 2).await[0]["outcome"], "cancelled");
    lab.is_clean();
}

#[tokio::test]
async fn another_way_removes_the_set_when_its_runners_have_ended() {
    let Some(mut lab) = listening("", |_| {}).await else { return };
    let long = lab.run_long_job().await;
    let by_poll = config(&lab.github, &lab.images, &format!("token = '{TOKEN}'"));
    lab.reload(&by_poll).await;
    lab.runs("one", "by poll").await;
    lab.github.until("asked no more", |model| model.only_set().capacity == 0).await;
    lab.github.model().cancel(long);
    assert_eq!(launches::until_all_ended(&lab.daemon, 2).await[0]["outcome"], "cancelled", "it is heard of to its end");
    lab.github.until("removed", |model| model.service.sets.is_empty()).await;
    lab.is_clean();

    lab.reload(&by_scale_set(&lab.github, &lab.images, "")).await;
    let long = lab.github.push("long", vec![NewJob::of("long", &[LONG])]);
    lab.github.until_jobs(&long, "in_progress").await;
    lab.reload(&by_poll).await;
    lab.github.until("asked no more", |model| model.only_set().capacity == 0).await;
    assert!(lab.daemon.end().success());
    assert!(lab.github.model().service.sets.is_empty(), "nobody would listen to it");
}

#[test]
fn the_check_says_by_what_a_set_is_reached_and_what_it_cannot_keep() {
    let github = GitHub::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("config.toml");
    let check = |more: &str| {
        let who = format!("token = '{TOKEN}'\norg = '{ORG}'\ndiscovery = 'scale-set'");
        let text = format!("[github]\ninstance_url = '{}'\n{who}\n{more}\n", github.url());
        fs::write(&path, text).expect("a file in our folder");
        github.place().config_check(&path, &[])
    };
    let (status, told) = check("scale_set = 'linux-ci'");
    assert_eq!(status, Some(0), "{told}");
    assert!(
        told.contains("scale set linux-ci at orgs/acme") && told.contains("linux, linux-ci, self-hosted"),
        "{told}"
    );
    assert!(github.model().service.sets.is_empty(), "nothing is made");
    let (status, told) = check("build_cache = true");
    assert!(status != Some(0) && told.contains("name the repositories in repos"), "{told}");
    github.model().service.is_absent = true;
    let (status, told) = check("");
    assert!(status != Some(0) && told.contains("from 3.9 on: set discovery to"), "{told}");
}

#[tokio::test]
async fn a_purge_removes_our_set_and_no_other() {
    let theirs = |github: &GitHub| github.model().foreign_set("orgs/acme", "theirs");
    let Some(lab) = listening("", theirs).await else { return };
    lab.run_long_job().await;
    let told = lab.daemon.ringer(&["purge", "--forge", "github"]).output().expect("ringer runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert_eq!(lab.github.model().only_set().name, "theirs");
    lab.is_clean();
    lab.daemon.ringer(&["uncordon"]).output().expect("ringer runs");
    lab.runs("one", "again").await;
}

#[tokio::test]
async fn a_set_that_is_named_and_somebody_elses_is_left_alone() {
    let theirs = |github: &GitHub| github.model().foreign_set("orgs/acme", "theirs");
    let Some(lab) = listening("scale_set = 'theirs'", theirs).await else { return };
    lab.until_told("there is a scale set theirs at orgs/acme already, which this ringer has not made").await;
    assert!(lab.github.model().only_set().session.is_none());
}

#[tokio::test]
async fn each_repository_has_a_set_of_its_own_by_the_name_that_is_configured() {
    let prepare = |github: &GitHub| {
        for name in ["own", "other"] {
            github.push(name, Vec::new());
        }
    };
    let Some(lab) = listening("repos = ['own', 'other']\nscale_set = 'Linux-CI'\nconcurrency = 1", prepare).await
    else {
        return;
    };
    let named = |name: &str| NewJob::of(name, &["true"]).labels(&["linux-ci"]);
    let (own, other) = (lab.github.push("own", vec![named("own")]), lab.github.push("other", vec![named("other")]));
    let nobodys = lab.github.push("third", vec![named("third")]);
    lab.github.until_jobs(&own, "success").await;
    lab.github.until_jobs(&other, "success").await;
    let ended = launches::until_all_ended(&lab.daemon, 2).await;
    let repositories: BTreeSet<&str> = ended.iter().filter_map(|launch| launch["repository"].as_str()).collect();
    assert_eq!(repositories, ["acme/other", "acme/own"].into());
    assert_eq!(lab.github.job(nobodys[0])["status"], "queued");
    let model = lab.github.model();
    assert_eq!(model.service.most, 1, "no more than there is room for");
    let scopes: BTreeSet<&str> = model.service.sets.values().map(|set| set.scope.as_str()).collect();
    assert_eq!(scopes, ["repos/acme/other", "repos/acme/own"].into());
    assert!(model.service.sets.values().all(|set| set.name == "Linux-CI"));
}

#[tokio::test]
async fn a_server_that_keeps_one_label_is_said_to_and_left_alone() {
    let Some(lab) = listening("", |github| github.model().service.keeps_one_label = true).await else { return };
    let told = lab.until_told("keeps one label of a scale set alone").await;
    assert!(told.contains("set discovery to \"webhook\" or \"poll\""), "{told}");
    assert!(lab.github.model().service.sets.is_empty(), "what was made is removed again");
    lab.reload(&by_scale_set(&lab.github, &lab.images, "concurrency = 2")).await;
    lab.github.until("tried again", |model| model.service.made == 2).await;
    lab.until_told("keeps one label of a scale set alone").await;
    assert_eq!(lab.github.model().service.made, 2, "no loop");
    lab.reload(&config(&lab.github, &lab.images, &format!("token = '{TOKEN}'"))).await;
    lab.runs("one", "by poll").await;
}
