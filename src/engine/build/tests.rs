//! Builds on the fakes: what the client sees, what is found again, and what is left. Steps that write files are in
//! `tests/integration/build.rs`.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::sync::Semaphore;

use super::{BuildMessage, BuildRequest, BuildStream, PruneRequest};
use crate::{
    backend::images::samples::tar,
    engine::{
        Engine,
        images::{Body, DeleteOptions, ListOptions},
        tenants::Scope,
        testing::Fakes,
    },
    model::{ErrorKind, Result},
    work::Carried,
};

struct Bench {
    engine: Engine,
    scope: Scope,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let Fakes { engine, folder, .. } = Fakes::with_box().await;
        Self { scope: engine.default_scope(), engine, folder }
    }

    async fn begin(&self, dockerfile: &str, request: BuildRequest) -> Result<BuildStream> {
        let context = body(&[("Dockerfile", dockerfile.as_bytes())]);
        self.engine.image_build(&self.scope, request, context).await
    }

    /// All messages, ids and sums as `ID`.
    async fn build(&self, dockerfile: &str, request: BuildRequest) -> Vec<String> {
        let mut stream = self.begin(dockerfile, request).await.unwrap();
        let mut lines = Vec::new();
        while let Some(message) = stream.next().await {
            lines.push(match message.unwrap() {
                BuildMessage::Progress(message) => message.stream.unwrap_or_default(),
                BuildMessage::Aux { .. } => "aux".to_owned(),
                BuildMessage::Failed { detail, .. } => format!("{} {:?}", detail.message, detail.code),
            });
        }
        let ids = regex::Regex::new("[0-9a-f]{12,64}").unwrap();
        lines.retain(|line| line != "\n");
        lines.iter().map(|line| ids.replace_all(line.trim_end(), "ID").into_owned()).collect()
    }

    async fn images(&self) -> usize {
        self.engine.image_list(&self.scope, &ListOptions::default()).await.unwrap().len()
    }

    async fn steps(&self) -> usize {
        self.engine.build_cache_usage(&self.scope).await.unwrap().len()
    }

    fn containers(&self) -> usize {
        self.engine.containers.list(self.scope.tenant()).len()
    }
}

fn body(files: &[(&str, &[u8])]) -> Body {
    Box::pin(std::io::Cursor::new(tar(files)))
}

fn removing() -> BuildRequest {
    BuildRequest { remove: true, ..BuildRequest::default() }
}

fn tagged(name: &str) -> BuildRequest {
    BuildRequest { tags: vec![name.to_owned()], ..removing() }
}

#[tokio::test]
async fn stream_is_the_classic_builders() {
    let bench = Bench::new().await;
    let mut lines = bench.build("FROM box\nENV A=b\nRUN echo out; echo err >&2\n", tagged("new")).await;
    // Which of the two outputs comes first is nobody's promise.
    lines[8..10].sort();
    assert_eq!(
        lines,
        [
            "Step 1/3 : FROM box",
            " ---> ID",
            "Step 2/3 : ENV A=b",
            " ---> Running in ID",
            " ---> Removed intermediate container ID",
            " ---> ID",
            "Step 3/3 : RUN echo out; echo err >&2",
            " ---> Running in ID",
            "\u{1b}[91merr\n\u{1b}[0m",
            "out",
            " ---> Removed intermediate container ID",
            " ---> ID",
            "aux",
            "Successfully built ID",
            "Successfully tagged new:latest",
        ]
    );
    assert_eq!((bench.images().await, bench.containers()), (2, 0), "no step is listed, no container left");
    let history = bench.engine.image_history(&bench.scope, "new", None).await.unwrap();
    assert_eq!(history[0].created_by, "/bin/sh -c echo out; echo err >&2");
    assert_eq!(history[1].created_by, "/bin/sh -c #(nop)  ENV A=b");
    assert!(!bench.folder.path().join("data/tmp/build").read_dir().unwrap().any(|_| true), "the context is gone");
}

#[tokio::test]
async fn what_was_built_is_found_until_something_differs() {
    let bench = Bench::new().await;
    let cached = async |dockerfile: &str, request: BuildRequest| {
        bench.build(dockerfile, request).await.iter().filter(|line| *line == " ---> Using cache").count()
    };
    let file = "FROM box\nARG A=1\nRUN echo $A\nCMD x\n";
    assert_eq!(cached(file, removing()).await, 0);
    assert_eq!(cached(file, removing()).await, 3);
    let given = [("A".to_owned(), Some("2".to_owned()))].into_iter().collect();
    let other = BuildRequest { arguments: given, ..removing() };
    assert_eq!(cached(file, other).await, 1, "an argument's value is part of the command");
    assert_eq!(cached(file, BuildRequest { no_cache: true, ..removing() }).await, 0);
    assert_eq!(cached("FROM box\nARG A=1\nRUN true\nCMD x\n", removing()).await, 1);
}

#[tokio::test]
async fn failing_command_is_told_with_its_code_and_keeps_its_container() {
    let bench = Bench::new().await;
    let file = "FROM box\nRUN exit 3\n";
    let failed = "The command '/bin/sh -c exit 3' returned a non-zero code: 3 Some(3)";
    assert_eq!(bench.build(file, removing()).await.last().unwrap(), failed);
    assert_eq!(bench.containers(), 1, "to look into, as dockerd leaves it");
    let forced = BuildRequest { force_remove: true, ..removing() };
    let lines = bench.build(file, forced).await;
    assert_eq!(lines[lines.len() - 2..], [" ---> Removed intermediate container ID", failed]);
    assert_eq!(bench.containers(), 1);
}

#[tokio::test]
async fn mistakes_of_the_file_are_the_answers_status() {
    let bench = Bench::new().await;
    for (file, kind) in
        [("FORM box\n", ErrorKind::InvalidParameter), ("FROM box\nENV a\n", ErrorKind::InvalidParameter)]
    {
        let refused = bench.begin(file, removing()).await.err().unwrap();
        assert_eq!(refused.kind(), kind, "{}", refused.message());
    }
    let request = BuildRequest { dockerfile: "other".to_owned(), ..removing() };
    let missing = bench.begin("FROM box\n", request).await.err().unwrap();
    assert_eq!(missing.message(), "Cannot locate specified Dockerfile: other");
    let bad = BuildRequest { tags: vec!["B:ad".to_owned()], ..removing() };
    assert_eq!(bench.begin("FROM box\n", bad).await.err().unwrap().kind(), ErrorKind::InvalidParameter);
}

#[tokio::test]
async fn stages_and_arguments_have_their_scopes() {
    let bench = Bench::new().await;
    let file = "ARG V=latest\nFROM box:$V AS one\nRUN echo [$V]\nFROM one\nARG V\nRUN echo [$V]\n";
    let given = [("NO".to_owned(), None), ("http_proxy".to_owned(), Some("p".to_owned()))].into_iter().collect();
    let lines = bench.build(file, BuildRequest { arguments: given, ..removing() }).await;
    let outputs: Vec<&String> = lines.iter().filter(|line| line.starts_with('[')).collect();
    assert_eq!(outputs.last().unwrap().as_str(), "[Warning] One or more build-args [NO] were not consumed");
    assert_eq!(lines.iter().filter(|line| *line == "aux").count(), 2);
    assert_eq!(bench.images().await, 2, "one stage is the image, the other a step");
    let stopped = BuildRequest { target: "ONE".to_owned(), ..removing() };
    assert_eq!(bench.build(file, stopped).await[0], "Step 1/3 : ARG V=latest");
}

#[tokio::test]
async fn history_of_named_images_is_the_cache_where_it_is_asked_for() {
    let bench = Bench::new().await;
    bench.build("FROM box\nENV A=1\nENV B=1\n", tagged("ab")).await;
    bench.build("FROM box\nENV C=1\n", tagged("c")).await;
    let all = PruneRequest { all: true, ..PruneRequest::default() };
    bench.engine.build_prune(&bench.scope, &all).await.unwrap();
    let cached = async |dockerfile: &str, names: &[&str]| {
        let cache_from = names.iter().map(|name| (*name).to_owned()).collect();
        let lines = bench.build(dockerfile, BuildRequest { cache_from, ..removing() }).await;
        lines.iter().filter(|line| *line == " ---> Using cache").count()
    };
    assert_eq!(cached("FROM box\nENV C=1\n", &["ab"]).await, 0);
    assert_eq!(cached("FROM box\nENV C=1\n", &["nosuch"]).await, 0);
    assert_eq!(cached("FROM box\nENV A=1\nENV C=1\n", &["c", "ab"]).await, 1);
    let stages = "FROM box AS one\nENV A=1\nENV B=1\nFROM box\nENV C=1\n";
    assert_eq!(cached(stages, &["ab", "c"]).await, 3, "a whole image leaves the others to the next stage");
    let last = bench.engine.image_inspect(&bench.scope, "ab", None, false).await.unwrap();
    let step = bench.engine.image_inspect(&bench.scope, last.parent.unwrap().as_str(), None, false).await.unwrap();
    assert!(step.document.config.env.contains(&"A=1".to_owned()) && step.parent.is_some());
}

#[tokio::test]
async fn triggers_of_the_base_are_carried_out() {
    let bench = Bench::new().await;
    bench.build("FROM box\nONBUILD RUN echo triggered\n", tagged("base")).await;
    let lines = bench.build("FROM base\nCMD x\n", tagged("child")).await;
    assert_eq!(lines[1], "# Executing 1 build trigger");
    assert!(lines.contains(&"triggered".to_owned()), "{lines:#?}");
    let child = bench.engine.image_for_container(&bench.scope, "child", None).await.unwrap();
    assert_eq!((child.config.on_build, child.config.cmd.unwrap()[2].as_str()), (None, "x"));
}

#[tokio::test]
async fn steps_go_with_their_image_or_when_pruned() {
    let bench = Bench::new().await;
    bench.build("FROM box\nENV A=1\nENV B=1\n", tagged("a")).await;
    bench.build("FROM box\nENV A=1\nENV C=1\n", tagged("b")).await;
    assert_eq!(bench.steps().await, 3);
    bench.engine.image_delete(&bench.scope, "a", DeleteOptions::default()).await.unwrap();
    assert_eq!(bench.steps().await, 2, "the first step is b's too");
    let some = bench.engine.build_prune(&bench.scope, &PruneRequest::default()).await.unwrap();
    assert_eq!((some.deleted.len(), bench.steps().await), (0, 2));
    let all = PruneRequest { all: true, ..PruneRequest::default() };
    assert_eq!(bench.engine.build_prune(&bench.scope, &all).await.unwrap().deleted.len(), 2);
    assert_eq!((bench.steps().await, bench.images().await), (0, 2), "images stay");
}

#[tokio::test]
async fn client_that_leaves_ends_the_build() {
    let bench = Bench::new().await;
    let mut stream = bench.begin("FROM box\nRUN echo begun; sleep 1000\n", removing()).await.unwrap();
    while let Some(Ok(message)) = stream.next().await {
        if matches!(message, BuildMessage::Progress(message) if message.stream.as_deref() == Some("begun\n")) {
            break;
        }
    }
    drop(stream);
    let gone = async {
        while bench.containers() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("its container goes");
}

#[tokio::test]
async fn quiet_build_tells_only_the_id() {
    let bench = Bench::new().await;
    let quiet = BuildRequest { quiet: true, ..removing() };
    assert_eq!(bench.build("FROM box\nENV A=1\n", quiet).await, ["sha256:ID"]);
}

#[tokio::test]
async fn a_build_on_an_image_of_large_documents_waits_for_a_place() {
    let bench = Bench::new().await;
    let labels = (0..5).map(|number| format!("LABEL large{number}={}\n", "x".repeat(60_000)));
    bench.build(&format!("FROM box\n{}", labels.collect::<String>()), tagged("large")).await;
    let places = Arc::new(Semaphore::new(1));
    let build = async |name: &str| {
        let dockerfile = format!("FROM {name}\nENV a=b\n");
        Carried::of(places.clone()).during(bench.build(&dockerfile, removing())).await.pop().unwrap()
    };
    assert_eq!(build("large").await, "Successfully built ID");
    let all = places.clone().acquire_owned().await.unwrap();
    assert_eq!(build("box").await, "Successfully built ID");
    let mut waiting = std::pin::pin!(build("large"));
    let soon = tokio::time::timeout(Duration::from_millis(500), &mut waiting).await;
    assert!(soon.is_err(), "{soon:?}");
    drop(all);
    assert_eq!(waiting.await, "Successfully built ID");
}
