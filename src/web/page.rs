//! `GET /`: one page for people, without scripts, pictures or anything of elsewhere. It asks for itself again.
//!
//! All of its texts come from forges and jobs; `maud` escapes them, and addresses are links only where they are of the web.

use std::sync::LazyLock;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::header;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::WebState;
use crate::{
    edge::measure::RefusedCall,
    engine::jobs::KeptCache,
    model::time::{Timestamp, rough},
    supervisor::{ForgeView, LaunchView, Supervisor, WaitingJob, record::Stage},
};

/// Between two times that a browser asks.
const REFRESH: &str = "5";

/// Launches that have ended, of which the last ones are shown.
const ENDED: usize = 20;

/// Jobs that wait, of which the first ones are shown.
const WAITING: usize = 200;

/// Caches, of which the last used ones are shown.
const CACHES: usize = 50;

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem; color: #1c2128; background: #fff }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem }
p { color: #57606a; margin: .2rem 0 }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th { text-align: left; font-weight: 600; color: #57606a; border-bottom: 2px solid #d0d7de }
th, td { padding: .3rem .8rem .3rem 0; vertical-align: top }
td { border-bottom: 1px solid #eaeef2; overflow-wrap: break-word }
td.short { white-space: nowrap }
.good { color: #1a7f37 } .bad { color: #cf222e } .busy { color: #0969da }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117 } th, p { color: #8d96a0 } th { border-color: #30363d } td { border-color: #21262d }
  .good { color: #3fb950 } .bad { color: #f85149 } .busy, a { color: #58a6ff }
}
";

/// Nothing but the style of the page itself.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// `GET /`.
pub(super) async fn show(State(state): State<WebState>) -> Response {
    let supervisor = state.supervisor.as_ref();
    let launches = match supervisor {
        Some(supervisor) => supervisor.launches().await,
        None => Vec::new(),
    };
    let forges = supervisor.map(Supervisor::forges).unwrap_or_default();
    let refused = state.measures.last_refused().into_iter().map(|call| (state.name_of(&call), call)).collect();
    let (caches, is_draining) = (state.engine.kept_caches(), supervisor.is_some_and(Supervisor::is_draining));
    let page = page(&Seen { launches, forges, refused, caches, is_draining });
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, page.into_string()).into_response()
}

impl WebState {
    /// What people call the job that asked.
    fn name_of(&self, call: &RefusedCall) -> String {
        let Some(id) = &call.job else { return "-".to_owned() };
        self.engine.job_inspect(id.as_str()).map_or_else(|_| id.to_string(), |job| job.record.name.clone())
    }
}

/// What is shown.
struct Seen {
    launches: Vec<LaunchView>,
    forges: Vec<ForgeView>,
    refused: Vec<(String, RefusedCall)>,
    caches: Vec<KeptCache>,
    is_draining: bool,
}

fn page(seen: &Seen) -> Markup {
    let (live, mut ended): (Vec<_>, Vec<_>) = seen.launches.iter().partition(|launch| launch.record.is_live());
    ended.reverse();
    ended.truncate(ENDED);
    let waiting: Vec<_> =
        seen.forges.iter().flat_map(|forge| forge.queue.iter().map(move |job| (forge, job))).collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH);
                title { "ringer: " (live.len()) " running, " (waiting.len()) " waiting" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "ringer" }
                p { "As of " (clock(Timestamp::now())) " UTC" @if seen.is_draining { ", " span.bad { "draining: nothing is launched" } } }
                h2 { "Pools" } (pools(&seen.forges))
                h2 { "Running" } (jobs(&live, "No runner is there."))
                h2 { "Waiting" } (queue(&waiting))
                h2 { "Ended" } (jobs(&ended, "No runner has ended yet."))
                h2 { "Refused by policies" } (refusals(&seen.refused))
                h2 { "Caches that jobs left" } (caches(&seen.caches))
            }
        }
    }
}

fn table(head: &[&str], rows: &[Markup], if_none: &str) -> Markup {
    html! {
        @if rows.is_empty() { p { (if_none) } } @else {
            div.wide {
                table {
                    thead { tr { @for name in head { th scope="col" { (name) } } } }
                    tbody { @for row in rows { tr { (row) } } }
                }
            }
        }
    }
}

fn pools(forges: &[ForgeView]) -> Markup {
    let row = |forge: &ForgeView| {
        html! {
            td.short { (link(&forge.url, &forge.name)) }
            td {
                @match &forge.trouble {
                    Some(trouble) => span.bad { (trouble) },
                    None if forge.looked.is_none() => "not looked at yet",
                    None if forge.held > 0 => span.bad { "launches failed: tried again later" },
                    None => span.good { "ok" },
                }
            }
            td.short { (forge.live) " of " (forge.concurrency) }
            td.short { (forge.queue.iter().filter(|job| job.why.is_none()).count()) }
            td.short { @match forge.looked { Some(at) => { (age(at)) " ago" }, None => "-" } }
            td.short { @if forge.takes_hooks { "webhook" } @else { "-" } }
        }
    };
    let rows: Vec<_> = forges.iter().map(row).collect();
    table(&["Forge", "State", "Runners", "Waiting", "Looked at", "Told by"], &rows, "No forge is configured.")
}

fn jobs(launches: &[&LaunchView], if_none: &str) -> Markup {
    let row = |launch: &&LaunchView| {
        let record = &launch.record;
        let work = record.work.as_ref();
        let repository = work.map(|job| &job.repository).or(record.class.repository.as_ref());
        let begun = record.times.begun;
        html! {
            td.short { (record.name) }
            td { (repository.map_or("-", String::as_str)) }
            td { @match work { Some(job) => (link(&job.url, &job.name)), None => "-" } }
            td { (record.job_image.as_deref().unwrap_or("-")) }
            td.short { (launch.pulled >> 20) " MiB, " (launch.shared >> 20) " shared" }
            td.short { (rough(launch.cpu)) @if let Some(memory) = launch.memory { ", " (memory >> 20) " MiB" } }
            td { (state(&record.stage)) }
            td.short { @match record.times.ended { Some(at) => (rough(at.since(begun))), None => (age(begun)) } }
        }
    };
    let rows: Vec<_> = launches.iter().map(row).collect();
    table(&["Name", "Repository", "Job", "Image", "Pulled", "Used", "State", "Age"], &rows, if_none)
}

fn state(stage: &Stage) -> Markup {
    html! {
        @match stage {
            Stage::Preparing => "preparing",
            Stage::Waiting => "waiting for its job",
            Stage::Running => span.busy { "running" },
            Stage::Ending(why) => { "ending: " (why) },
            Stage::Ended(how) if how == "success" => span.good { "success" },
            Stage::Ended(how) if how == "cancelled" => "cancelled",
            Stage::Ended(how) => span.bad { (how) },
        }
    }
}

fn queue(waiting: &[(&ForgeView, &WaitingJob)]) -> Markup {
    let row = |(forge, WaitingJob { queued, why }): &(&ForgeView, &WaitingJob)| {
        html! {
            td.short { (forge.name) }
            td { (queued.job.repository) }
            td { (link(&queued.job.url, &queued.job.name)) }
            td { (queued.labels.join(", ")) }
            td.short { @match queued.since { Some(at) => (age(at)), None => "-" } }
            td { @match why { Some(why) => span.bad { "left alone: " (why) }, None => "a runner is launched when there is room" } }
        }
    };
    let rows: Vec<_> = waiting.iter().take(WAITING).map(row).collect();
    html! {
        (table(&["Forge", "Repository", "Job", "Labels", "Age", ""], &rows, "No job waits."))
        @if waiting.len() > WAITING { p { "and " (waiting.len() - WAITING) " more" } }
    }
}

fn refusals(refused: &[(String, RefusedCall)]) -> Markup {
    let row = |(name, call): &(String, RefusedCall)| {
        html! {
            td.short { (age(call.time)) " ago" }
            td { (name) }
            td { (call.operation) }
            td { (call.rule.as_str()) }
        }
    };
    let rows: Vec<_> = refused.iter().map(row).collect();
    table(&["When", "Job", "Call", "Rule"], &rows, "No call was refused.")
}

fn caches(all: &[KeptCache]) -> Markup {
    let row = |cache: &KeptCache| {
        html! {
            td { (cache.key.as_deref().unwrap_or("-")) }
            td { @match &cache.volume { Some(name) => { "volume " (name) }, None => "BuildKit" } }
            td.short { (cache.bytes >> 20) " MiB" }
            td.short { @if cache.is_in_use { span.busy { "in use" } } @else { (age(cache.used)) " ago" } }
        }
    };
    let rows: Vec<_> = all.iter().take(CACHES).map(row).collect();
    html! {
        @if !all.is_empty() {
            p { (all.len()) ", " (all.iter().map(|cache| cache.bytes).sum::<u64>() >> 20) " MiB as of their last jobs' ends" }
        }
        (table(&["Of", "What", "Size", "Used"], &rows, "No job has left one."))
    }
}

/// A link where it is an address of the web, and else the bare text: what a forge says is no script of ours.
fn link(url: &str, text: &str) -> Markup {
    let text = if text.is_empty() { "-" } else { text };
    let is_of_the_web = url.starts_with("https://") || url.starts_with("http://");
    html! { @if is_of_the_web { a href=(url) rel="noreferrer noopener" { (text) } } @else { (text) } }
}

fn age(since: Timestamp) -> String {
    rough(since.elapsed())
}

/// Hours, minutes and seconds.
fn clock(time: Timestamp) -> String {
    let text = time.to_string();
    text.split('T').nth(1).unwrap_or(&text).chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::{job::JobLimits, policy::Key},
        supervisor::{
            balance::Class,
            forge::QueuedJob,
            record::{ForgeJob, LaunchRecord},
        },
    };

    const EVIL: &str = "<script>alert('x')</script>\"&";

    fn job(url: &str) -> ForgeJob {
        ForgeJob {
            id: 1,
            run: None,
            task: None,
            is_heard: false,
            repository: EVIL.to_owned(),
            name: EVIL.to_owned(),
            url: url.to_owned(),
        }
    }

    fn launched(record: LaunchRecord) -> LaunchView {
        LaunchView { record: record.into(), pulled: 3 << 20, shared: 0, cpu: Duration::from_secs(7), memory: None }
    }

    fn seen() -> Seen {
        let mut record =
            LaunchRecord::new("gitea-1".to_owned(), "gitea".to_owned(), Class::default(), JobLimits::default());
        record.work = Some(job("javascript:alert(1)"));
        record.job_image = Some(EVIL.to_owned());
        let ended = LaunchRecord { stage: Stage::Ended(EVIL.to_owned()), ..record.clone() };
        let queued = QueuedJob {
            job: job("https://forge/a?b=1&c=\"2\""),
            labels: vec![EVIL.to_owned()],
            handle: None,
            since: None,
        };
        let call = RefusedCall { time: Timestamp::now(), job: None, operation: "ContainerCreate", rule: Key::ALL[0] };
        Seen {
            launches: vec![LaunchView { memory: Some(5 << 20), ..launched(record) }, launched(ended)],
            forges: vec![ForgeView {
                name: "gitea".to_owned(),
                url: "https://forge".to_owned(),
                trouble: Some(EVIL.to_owned()),
                looked: None,
                concurrency: 4,
                live: 1,
                held: 0,
                queue: vec![WaitingJob { queued, why: Some(EVIL.to_owned()) }],
                takes_hooks: true,
                runner_images: Vec::new(),
            }],
            refused: vec![(EVIL.to_owned(), call)],
            caches: vec![KeptCache {
                key: Some(EVIL.to_owned()),
                volume: Some(EVIL.to_owned()),
                used: Timestamp::now(),
                bytes: 9 << 20,
                is_in_use: false,
            }],
            is_draining: true,
        }
    }

    #[test]
    fn what_forges_and_jobs_say_is_text() {
        let text = page(&seen()).into_string();
        assert!(!text.contains("<script") && !text.contains("javascript:"), "{text}");
        assert_eq!(text.matches("&lt;script&gt;").count(), 15, "and it is shown: {text}");
        assert!(text.contains("href=\"https://forge/a?b=1&amp;c=&quot;2&quot;\""), "{text}");
    }

    #[test]
    fn an_empty_page_says_so() {
        let nothing = Seen {
            launches: Vec::new(),
            forges: Vec::new(),
            refused: Vec::new(),
            caches: Vec::new(),
            is_draining: false,
        };
        let text = page(&nothing).into_string();
        for words in [
            "No runner is there.",
            "No job waits.",
            "No call was refused.",
            "No forge is configured.",
            "No job has left one.",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn the_policy_knows_the_style_and_nothing_else() {
        let text = page(&seen()).into_string();
        let style = text.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let hash = BASE64_STANDARD.encode(Sha256::digest(style));
        assert!(POLICY.contains(&format!("style-src 'sha256-{hash}'")), "as a browser computes it");
        for foreign in ["src=", "<link", "@import", "url(", " style=", " onclick"] {
            assert!(!text.contains(foreign), "{foreign}");
        }
    }
}
