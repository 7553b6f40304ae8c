//! BuildKit: what its clients are told where there is none, and with the real buildkitd what they get. A client that is not let in
//! makes itself a builder.

mod behind;
mod cache;
mod container_driver;
mod crowds;
mod deaths;
mod idle;
mod jobs;
mod kept;
mod news;
mod phases;
mod platforms;
mod pushes;
mod steps;
mod uploads;
mod walls;
mod wire;

use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;

use crate::support::{
    builder::{Builder, Buildx, said},
    daemon::{Daemon, http::Client},
};

/// Nothing here takes this long.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not so after {} s: {what}", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until nothing is left of something.
async fn until_none(of: &str, left: impl Fn() -> Vec<String>) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left of {of} after {} s: {left:#?}", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Who builds, as a ping says it to CLI up to 22, and whether `/info` warns that there is no BuildKit.
async fn said_of_builders(client: &Client) -> ([String; 2], bool) {
    let ping = async |method| client.send(method, "/_ping", None).await.headers["builder-version"].clone();
    let pings = [ping(Method::GET).await, ping(Method::HEAD).await];
    let info = client.get("/info").await.json();
    (pings.map(|version| version.to_str().unwrap().to_owned()), info["Warnings"].to_string().contains("no BuildKit"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cli_is_told_what_to_install_and_makes_itself_no_builder() {
    let Some(cli) = Buildx::new() else { return };
    let daemon = Daemon::with_box().await;
    assert_eq!(said_of_builders(daemon.client()).await, (["1", "1"].map(str::to_owned), true));
    let context = cli.context("context", &[("Dockerfile", "FROM box\nRUN echo built > /built\n")]);
    let context = context.to_str().unwrap();
    let build = said(&mut cli.docker(&daemon.host(), &["build", "-t", "x", context]));
    assert!(!build.succeeded && build.text.contains("install buildkitd"), "{}", build.text);
    let info = said(&mut cli.docker(&daemon.host(), &["info"]));
    assert!(info.text.contains("WARNING: this machine has no BuildKit: install buildkitd"), "{}", info.text);
    assert_eq!(daemon.get("/containers/json?all=1").await.json(), serde_json::json!([]));
    let classic = said(cli.docker(&daemon.host(), &["build", "-t", "x", context]).env("DOCKER_BUILDKIT", "0"));
    assert!(classic.succeeded, "{}", classic.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_built_is_an_image_as_any_other() {
    let Some(builder) = Builder::start().await else { return };
    let dockerfile = "FROM box\nENV GREETING=hello\nCOPY file /file\nRUN echo $GREETING > /made\nCMD cat /file /made\n";
    let build = builder.build(&["-t", "x", "-t", "reg.test/y:1"], dockerfile, &[("file", "of the context\n")]);
    assert!(build.succeeded, "{}", build.text);
    assert_eq!(builder.must(&["run", "--rm", "--network=none", "x"]), "of the context\nhello\n");
    assert_eq!(builder.must(&["run", "--rm", "--network=none", "reg.test/y:1"]), "of the context\nhello\n");
    let id = builder.must(&["image", "inspect", "--format={{.Id}} {{json .RepoTags}}", "x"]);
    assert!(id.contains("\"reg.test/y:1\"") && id.contains("\"x:latest\""), "{id}");
    builder.must(&["tag", "x", "z"]);
    // Saved, removed and loaded again, it is the same.
    let archive = builder.cli.context("saved", &[]).with_extension("tar");
    let archive = archive.to_str().unwrap();
    builder.must(&["save", "-o", archive, "z"]);
    builder.must(&["rmi", "x", "reg.test/y:1", "z"]);
    builder.must(&["load", "-i", archive]);
    assert_eq!(builder.must(&["run", "--rm", "--network=none", "z"]), "of the context\nhello\n");
    let registry = walls::registry_beside(&builder);
    let name = format!("{}/z", registry.host());
    builder.must(&["tag", "z", &name]);
    let told: Value = builder.daemon.get("/images/z/json?manifests=1").await.json();
    assert_eq!(told["Manifests"][1]["AttestationData"]["For"], told["Manifests"][0]["ID"], "{told}");
    let id = builder.must(&["image", "inspect", "--format={{.Id}}", "z"]);
    assert!(builder.must(&["push", &name]).contains(id.trim()), "what it was built of is still with it");
    // Built upon by the classic builder, and that by BuildKit again.
    let on = builder.context("FROM z\nRUN echo classic >> /made\n", &[]);
    let classic = said(builder.command(&["build", "-t", "on", on.to_str().unwrap()]).env("DOCKER_BUILDKIT", "0"));
    assert!(classic.succeeded, "{}", classic.text);
    let again = builder.build(
        &["-q", "-t", "top"],
        "FROM on AS base\nFROM box\nCOPY --from=base /made /\nCMD cat /made\n",
        &[],
    );
    assert!(again.succeeded, "{}", again.text);
    assert_eq!(builder.must(&["run", "--rm", "--network=none", "top"]), "hello\nclassic\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_kept_mounts_are_shared_and_secrets_are_not_in_the_result() {
    let Some(builder) = Builder::start().await else { return };
    let dockerfile = "FROM box\n\
                      ARG ROUND\n\
                      RUN --mount=type=cache,target=/cache echo round $ROUND >> /cache/log && cat /cache/log > /log\n\
                      ARG TOKEN\n\
                      RUN --mount=type=secret,id=s [ \"$(cat /run/secrets/s)\" = \"$TOKEN\" ]\n\
                      RUN --mount=type=bind,source=file,target=/bound cat /bound > /copied\n";
    const SECRET: &str = "hunter2-planted";
    let secret = builder.cli.context("secret", &[("s", SECRET)]).join("s");
    let (secret, token) = (format!("id=s,src={}", secret.display()), format!("TOKEN={SECRET}"));
    let build = |flags: &[&str]| {
        let own = ["--secret", &secret, "--build-arg", &token, "-t", "x"];
        let build = builder.build(&[&own, flags].concat(), dockerfile, &[("file", "bound")]);
        assert!(build.succeeded, "{}", build.text);
        build.text
    };
    build(&[]);
    assert!(build(&[]).contains("CACHED"));
    build(&["--build-arg=ROUND=2"]);
    let run = |command: &str| builder.must(&["run", "--rm", "--network=none", "x", "sh", "-c", command]);
    assert_eq!(run("cat /log /copied; ls /run"), "round\nround 2\nbound");
    let audit = std::fs::read_to_string(builder.daemon.folder().join("data/audit.log")).unwrap();
    for written in [audit, builder.daemon.log()] {
        assert!(!written.contains(SECRET), "{written}");
    }
    let used = builder.must(&["buildx", "du"]);
    assert!(used.contains("Total:"), "{used}");
    builder.must(&["builder", "prune", "-a", "-f"]);
    assert!(!build(&[]).contains("CACHED [2"), "it was pruned");
    let entitled = builder.build(&["--allow", "security.insecure"], "FROM box\n", &[]);
    assert!(!entitled.succeeded && entitled.text.contains("security.insecure"), "{}", entitled.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_go_where_they_are_wanted() {
    let Some(builder) = Builder::start().await else { return };
    let folder = builder.cli.context("out", &[]);
    let out = |name: &str| folder.with_file_name(name).to_str().unwrap().to_owned();
    let dockerfile = "FROM scratch\nCOPY --parents file a/b /\n";
    let files = [("file", "content"), ("a/b", "deep")];
    for output in [format!("type=local,dest={}", out("local")), format!("type=tar,dest={}", out("tar"))] {
        let build = builder.build(&["-o", &output], dockerfile, &files);
        assert!(build.succeeded, "{}", build.text);
    }
    assert_eq!(std::fs::read_to_string(format!("{}/file", out("local"))).unwrap(), "content");
    assert_eq!(std::fs::read_to_string(format!("{}/a/b", out("local"))).unwrap(), "deep");
    for kind in ["oci", "docker"] {
        let build = builder.build(&["-o", &format!("type={kind},dest={}", out(kind))], dockerfile, &files);
        assert!(build.succeeded, "{}", build.text);
    }
    // Without a name it is there all the same, and told by its id.
    let (id, told) = (out("id"), out("told"));
    let build = builder.build(&["--iidfile", &id, "--metadata-file", &told], dockerfile, &files);
    assert!(build.succeeded, "{}", build.text);
    let id = std::fs::read_to_string(id).unwrap();
    assert_eq!(builder.must(&["image", "inspect", "--format={{.Id}}", &id]).trim(), id);
    let told: Value = serde_json::from_str(&std::fs::read_to_string(told).unwrap()).unwrap();
    assert_eq!(told["containerimage.digest"], id.as_str());
    assert!(told["buildx.build.provenance"].is_object(), "{told}");
}

/// CLI up to 22 are told of BuildKit by a ping, and build with it by HTTP alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_cli_builds_with_buildkit_too() {
    let Some(builder) = Builder::start().await else { return };
    assert_eq!(said_of_builders(builder.daemon.client()).await, (["2", "2"].map(str::to_owned), false));
    let context = |dockerfile| builder.context(dockerfile, &[("file", "of the context\n")]).display().to_string();
    let good = context("FROM box\nARG A\nCOPY file /\nRUN echo $A >> /file; grep gate /etc/hosts\nCMD cat /file\n");
    let gate = "--add-host=gate:host-gateway";
    let Some(build) = builder.old_docker(&["build", "-t", "x", "--build-arg=A=b", gate, &good]) else { return };
    assert!(build.succeeded && build.text.contains("naming to docker.io/library/x:latest"), "{}", build.text);
    assert!(build.text.contains("172.17.0.1\tgate"), "{}", build.text);
    assert_eq!(builder.must(&["run", "--rm", "--network=none", "x"]), "of the context\nb\n");
    let quiet = builder.old_docker(&["build", "-q", "--build-arg=A=b", gate, &good]).unwrap();
    assert!(quiet.succeeded && quiet.text.trim().len() == 71, "{}", quiet.text);
    assert_eq!(builder.must(&["run", "--rm", "--network=none", quiet.text.trim()]), "of the context\nb\n");
    let bad = builder.old_docker(&["build", &context("FROM box\nRUN echo told before >&2; exit 7\n")]).unwrap();
    assert!(!bad.succeeded && bad.text.contains("told before") && bad.text.contains("exit code: 7"), "{}", bad.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_of_garbage_leaves_what_was_built() {
    let Some(builder) = Builder::start().await else { return };
    let build = builder.build(&["-t", "x"], "FROM box\nRUN echo built > /built\nCMD cat /built\n", &[]);
    assert!(build.succeeded, "{}", build.text);
    builder.must(&["builder", "prune", "-a", "-f"]);
    builder.must(&["rmi", "box"]);
    // The end of a lease waits for the collector.
    builder.must(&["image", "prune", "-f"]);
    assert_eq!(builder.must(&["run", "--rm", "--network=none", "x"]), "built\n");
}
