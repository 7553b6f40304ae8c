//! Webhooks that ringer makes itself, since `[http] public_url` says where it is found: at the real Gitea, and at GitHub's fake.

use serde_json::Value;

use crate::support::{
    daemon::Daemon,
    forge::{Gitea, Images, LONG, WORKFLOW},
    github::{GitHub, Model, NewJob, ORG, TOKEN},
    hooks::{self, Delivery},
    launches,
};

/// What another instance's would be.
const OTHERS: &str = "http://192.0.2.9/webhook/gitea?by=ringer-00000000";

fn purge(daemon: &Daemon) -> String {
    let output = daemon.ringer(&["purge"]).output().expect("ringer runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until so many were made in all its lives.
async fn until_made(daemon: &Daemon, count: usize) {
    launches::until_logged_times(daemon, "made the webhook", count).await;
}

fn urls(webhooks: &[Value]) -> Vec<&str> {
    webhooks.iter().filter_map(|webhook| webhook["config"]["url"].as_str()).collect()
}

fn of_gitea(gitea: &Gitea, token: &str, runner: &str, job: &str) -> String {
    let (http, url) = (hooks::reachable_section(), gitea.url());
    format!(
        "{http}[gitea]\ninstance_url = '{url}'\ntoken = '{token}'\nlabels = ['lab']\nrunner_image = '{runner}'\njob_image = '{job}'\n\
         poll_interval = '600s'\n"
    )
}

fn of_github(github: &GitHub, token: &str, image: &str, seconds: u32) -> String {
    let (http, url) = (hooks::reachable_section(), github.url());
    format!(
        "{http}[github]\ninstance_url = '{url}'\norg = '{ORG}'\ntoken = '{token}'\njob_image = '{image}'\ndiscovery = 'webhook'\n\
         poll_interval = '{seconds}s'\n"
    )
}

#[tokio::test]
async fn gitea_has_one_webhook_in_each_life_and_none_after_a_purge() {
    let Some(gitea) = Gitea::start().await else { return };
    let Some(images) = Images::start(gitea.place()).await else { return };
    gitea.add_webhook_of_all(OTHERS, "of-others").await;
    let text = of_gitea(&gitea, gitea.token(), &images.runner(), &images.job());
    let mut daemon = Daemon::launching(gitea.place(), &text).await;
    until_made(&daemon, 1).await;
    let first = gitea.webhooks().await;
    let own = urls(&first).last().copied().unwrap_or_default().to_owned();
    assert!(own.starts_with(&format!("http://{}/webhook/gitea?by=ringer-", hooks::address())), "{first:#?}");
    assert_eq!(urls(&first), [OTHERS, &own]);
    assert!(first[1]["config"].get("secret").is_none(), "{first:#?}");

    daemon.kill();
    daemon.restart().await;
    until_made(&daemon, 2).await;
    let second = gitea.webhooks().await;
    assert_eq!(urls(&second), [OTHERS, &own], "of the life before none is left");
    assert_ne!(first[1]["id"], second[1]["id"], "whose secret nobody knows any more");

    gitea.empty_repository("hooked").await;
    let quick = LONG.replace("sleep 1000", "true");
    let commit = gitea.commit("hooked", &[(WORKFLOW, &quick)]).await;
    gitea.until_jobs("hooked", &commit, 1, "success").await;
    launches::until_all_ended(&daemon, 1).await;
    let client = hooks::client(gitea.place());
    assert_eq!(hooks::number(&client, "ringer_hook_deliveries_total{forge=\"gitea\",verdict=\"unsigned\"}").await, 0.0);

    let told = purge(&daemon);
    assert!(told.contains("webhooks: 1;"), "{told}");
    assert_eq!(urls(&gitea.webhooks().await), [OTHERS]);
}

#[tokio::test]
async fn a_token_that_may_make_no_webhook_is_told_the_scope() {
    let Some(gitea) = Gitea::start().await else { return };
    let text = |scopes: &str| of_gitea(&gitea, &gitea.new_token(scopes), "none/runner", "none/job");
    // One that may see the webhooks and make none.
    let daemon = Daemon::launching(gitea.place(), &text("read:user,read:admin,write:repository")).await;
    launches::until_logged(&daemon, "no webhook, so the queue is looked at every 600 s").await;
    assert!(daemon.log().contains("it needs the scope write:admin"), "{}", daemon.log());
    let file = daemon.folder().join("config.toml");
    std::fs::write(&file, text("read:user,write:repository")).expect("our folder");
    let (code, said) = gitea.place().config_check(&file, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("webhook that ringer makes: FAILS: ") && said.contains("write:admin"), "{said}");
}

#[tokio::test]
async fn github_tells_of_jobs_by_a_webhook_that_was_made_for_it() {
    let github = GitHub::start();
    let Some(images) = Images::with_actions_runner(github.place()).await else { return };
    let text = |seconds: u32| of_github(&github, TOKEN, &images.actions_runner(), seconds);
    let mut daemon = Daemon::launching(github.place(), &text(600)).await;
    until_made(&daemon, 1).await;
    let secret = |github: &GitHub| {
        let model = github.model();
        let [webhook] = model.webhooks.as_slice() else { panic!("{} webhooks", model.webhooks.len()) };
        assert_eq!(webhook.scope, "orgs/acme");
        assert!(webhook.url.starts_with(&format!("http://{}/webhook/github?by=ringer-", hooks::address())));
        webhook.secret.clone()
    };
    let first = secret(&github);
    let job = github.push("hooked", vec![NewJob::of("quick", &["true"])])[0];
    let delivery = Delivery::of_job(&github.job(job), "acme/hooked", &first);
    assert_eq!(delivery.send(&hooks::client(github.place())).await.status, 202);
    github.until_jobs(&[job], "success").await;
    launches::until_all_ended(&daemon, 1).await;

    daemon.end();
    daemon.restart().await;
    until_made(&daemon, 2).await;
    assert_ne!(secret(&github), first, "nobody has to keep it");
    assert!(!daemon.log().contains(&first), "it is in the log");

    // At a place that is configured no more it is taken away.
    let file = daemon.folder().join("config.toml");
    let of_repository = text(600).replace("discovery =", "repos = ['hooked']\ndiscovery =");
    std::fs::write(&file, of_repository).expect("our folder");
    daemon.hang_up();
    let scopes = |model: &Model| model.webhooks.iter().map(|webhook| webhook.scope.clone()).collect::<Vec<_>>();
    github.until("at the repository alone", |model| scopes(model) == ["repos/acme/hooked"]).await;

    // Where no public_url is set any more it is taken away, and looked for once, where it was.
    let asked = |part: &str| github.model().times(part);
    let lists = [asked("GET /api/v3/orgs/acme/hooks"), asked("GET /api/v3/repos/acme/hooked/hooks")];
    let polling = text(1).replace(&hooks::reachable_section(), "").replace("discovery = 'webhook'\n", "");
    std::fs::write(&file, polling).expect("our folder");
    daemon.end();
    daemon.restart().await;
    github.until("taken away", |model| model.webhooks.is_empty()).await;
    let looks = asked("GET /api/v3/orgs/acme/repos");
    github.until("looked at again", |model| model.times("GET /api/v3/orgs/acme/repos") >= looks + 3).await;
    assert_eq!(asked("GET /api/v3/orgs/acme/hooks"), lists[0]);
    assert_eq!(asked("GET /api/v3/repos/acme/hooked/hooks"), lists[1] + 1);
}

#[tokio::test]
async fn where_no_webhook_may_be_made_the_queue_is_asked_and_somebody_told() {
    let github = GitHub::start();
    let Some(images) = Images::with_actions_runner(github.place()).await else { return };
    github.model().tokens.insert("ghp_narrow".to_owned(), ["repo", "admin:org"].into());
    let daemon =
        Daemon::launching(github.place(), &of_github(&github, "ghp_narrow", &images.actions_runner(), 1)).await;
    launches::until_logged(&daemon, "no webhook, so the queue is looked at every 1 s").await;
    assert!(daemon.log().contains("needs the scope admin:org_hook"), "{}", daemon.log());
    let job = github.push("hooked", vec![NewJob::of("quick", &["true"])])[0];
    github.until_jobs(&[job], "success").await;
}
