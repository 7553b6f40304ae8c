//! The commands of `docs/policy.md` do what is said there.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{cli, page, remains};
use crate::support::daemon::Daemon;

const PAGE: &str = include_str!("../../../docs/policy.md");

/// A policy that the page shows.
fn example(first_line: &str) -> &'static str {
    let examples = PAGE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    examples.into_iter().find(|text| text.starts_with(first_line)).expect("the page has it")
}

/// The flags with which it starts ringer, with a folder that is there.
fn flags<'a>(script: &'a str, folder: &'a str) -> Vec<&'a str> {
    let line = script.lines().find_map(|line| line.strip_prefix("ringer serve ")).expect("it starts a daemon");
    line.split(' ').map(|word| if word.starts_with('/') { folder } else { word }).collect()
}

#[tokio::test]
async fn the_commands_of_the_page_on_policies_do_what_it_says() {
    let scripts = page::scripts(PAGE);
    assert_eq!(scripts.len(), 2, "each has its place below: {scripts:?}");
    let place = tempfile::tempdir().unwrap();
    let policies = place.path().join("policies");
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("named.toml"), example("base = \"trusted\"")).unwrap();
    fs::write(place.path().join("deploy.toml"), example("# Debuggers")).unwrap();
    let daemon =
        Daemon::start_with(&[&["--preload", "box"], flags(scripts[0], policies.to_str().unwrap()).as_slice()].concat())
            .await;
    let Some(()) = page::prepare_compose(&daemon, place.path()) else { return };
    daemon.import_box().await;
    let run = |script: &str| page::bash(&daemon, place.path(), script).output().expect("bash runs");
    let told = |script: &str| {
        let output = run(script);
        format!("{:?} {}{}", output.status.code(), String::from_utf8_lossy(&output.stdout), cli::stderr(&output))
    };

    let lines: Vec<&str> = scripts[0].lines().collect();
    let (compose, create) = (run(lines[0]), run(lines[1]));
    assert!(compose.status.success(), "{}", cli::stderr(&compose));
    assert!(create.status.success(), "{}", cli::stderr(&create));
    let created: Value = serde_json::from_slice(&create.stdout).unwrap();
    assert!(run(&format!("ringer job rm {}", created["id"])).status.success());
    let of_etc = "docker run --rm -v /etc:/x box true";
    let job = |policy: &str| format!("ringer job run {policy} -- {of_etc}");
    let sentence = PAGE.split("```\n").nth(1).expect("the page begins with a refusal").trim();
    assert!(told(&job("--policy ci")).contains(sentence), "{}", told(&job("--policy ci")));
    assert!(told(&job("")).contains("refused by the policy strict, rule binds: "), "jobs have that of the flag");
    assert!(told(&job("--policy named")).starts_with("Some(0) "), "{}", told(&job("--policy named")));
    assert!(
        told(&job("--policy ./deploy.toml")).contains("refused by the policy "),
        "{}",
        told(&job("--policy ./deploy.toml"))
    );

    explained(place.path());
    let trying: Vec<&str> = scripts[1].lines().collect();
    assert!(told(trying[0]).starts_with("Some(0) "), "{}", told(trying[0]));
    assert!(told(trying[1]).contains("\"SYS_PTRACE\""), "{}", told(trying[1]));
    let all = told(trying[2]);
    assert!(all.starts_with("Some(1) ") && all.contains("rule privileged") && all.contains("rule binds"), "{all}");
    fs::write(place.path().join("deploy.toml"), "base = \"ci\"\nprivilegd = true\n").unwrap();
    assert!(told(trying[0]).contains("line 2: unknown key privilegd"), "{}", told(trying[0]));
    remains::gone_of(&daemon, "job-").await;
}

/// A create with two dangers.
fn explained(folder: &Path) {
    let create = json!({"Image": "box", "HostConfig": {"Privileged": true, "Binds": ["/etc:/x"]}});
    fs::write(folder.join("create.json"), create.to_string()).unwrap();
}
