//! Builds for real: our daemon, containerd, runc and Debian's busybox.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::support::daemon::Daemon;

/// A context of files with their modes.
pub fn context(files: &[(&str, u32, &str)]) -> Bytes {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().into()
}

fn request(query: &str, context: Bytes) -> Request<Full<Bytes>> {
    let request = Request::post(format!("/build?networkmode=none&{query}")).header("content-type", "application/x-tar");
    request.body(Full::new(context)).unwrap()
}

/// What the client's terminal would show, and the error if it ended with one.
pub async fn build(daemon: &Daemon, query: &str, context: Bytes) -> Result<String, String> {
    let answer = daemon.client().whole(request(query, context)).await;
    if answer.status != 200 {
        return Err(answer.message());
    }
    let mut text = String::new();
    for line in answer.text().lines() {
        let message: Value = serde_json::from_str(line).unwrap();
        if let Some(error) = message["error"].as_str() {
            return Err(error.to_owned());
        }
        text.push_str(message["stream"].as_str().unwrap_or_default());
    }
    Ok(text)
}

pub async fn built(daemon: &Daemon, query: &str, files: &[(&str, u32, &str)]) -> String {
    build(daemon, query, context(files)).await.unwrap()
}

/// What a container of the image writes; it is removed again.
async fn run(daemon: &Daemon, image: &str, script: &str) -> String {
    let (code, output) = daemon.run("ran", script, json!({"Image": image})).await;
    assert_eq!(code, 0, "{output}");
    daemon.remove("ran").await;
    output
}

/// Nothing but images may be left: no container in containerd, no folder, no mount.
async fn assert_nothing_left(daemon: &Daemon) {
    let containers = daemon.client().get("/containers/json?all=1").await.json();
    assert_eq!(containers.as_array().unwrap().len(), 0, "{containers}");
    let folders = daemon.folder().join("data/tmp/build");
    assert!(folders.read_dir().map_or(true, |mut entries| entries.next().is_none()), "contexts are left");
}

/// So does the command line send it that puts a Dockerfile from beside the context into it (`docker build -f`).
#[tokio::test]
async fn a_context_may_end_with_its_last_content() {
    let daemon = Daemon::start().await;
    let files = [("file", 0o644, "word"), ("Dockerfile", 0o644, "FROM scratch\nCOPY file /\n")];
    let whole = context(&files);
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    build(&daemon, "t=ends", whole.slice(..end)).await.unwrap();
    let error = build(&daemon, "t=cut", whole.slice(..end - 1)).await.unwrap_err();
    assert!(error.contains("unexpected EOF"), "{error}");
}

#[tokio::test]
async fn steps_become_layers_and_are_found_again() {
    let daemon = Daemon::with_box().await;
    let file = "FROM box\nRUN echo made > /made; id > /who\nWORKDIR /w/sub\nCOPY d ./\nCOPY --chown=worker a /\nADD pack.tar /t\n\
                RUN cat /made /w/sub/b /a; ls -ln /a /w/sub/b; pwd\nRUN true\nUSER worker\nRUN id\n";
    let pack = context(&[("inner", 0o600, "packed\n")]);
    let pack = String::from_utf8(pack.to_vec()).unwrap();
    let files =
        [("Dockerfile", 0o644, file), ("a", 0o640, "one\n"), ("d/b", 0o751, "two\n"), ("pack.tar", 0o644, &pack)];
    let text = built(&daemon, "t=new", &files).await;
    assert!(text.contains("made\ntwo\none\n"), "{text}");
    assert!(text.contains("-rw-r-----    1 1000     1000"), "{text}");
    assert!(text.contains("-rwxr-x--x    1 0        0"), "{text}");
    assert!(text.contains("/w/sub\n") && text.contains("uid=1000(worker)"), "{text}");
    let again = built(&daemon, "t=new", &files).await;
    assert_eq!(again.matches("Using cache").count(), 9, "{again}");
    let inspect = daemon.client().get("/images/new/json").await.json();
    // box, /made, /w/sub, d, a, pack, and nothing for what only read.
    assert_eq!(inspect["RootFS"]["Layers"].as_array().unwrap().len(), 6, "{inspect}");
    let history = daemon.client().get("/images/new/history").await.json();
    let sizes: Vec<i64> = history.as_array().unwrap().iter().map(|line| line["Size"].as_i64().unwrap()).collect();
    assert_eq!((sizes[0], sizes[1], sizes[2]), (0, 0, 0), "steps that change nothing make no layer: {history}");
    // A file that differs is another layer; what comes before is found.
    let other = [files[0], ("a", 0o640, "1\n"), files[2], files[3]];
    assert_eq!(built(&daemon, "t=new", &other).await.matches("Using cache").count(), 3);
    assert_nothing_left(&daemon).await;
}

#[tokio::test]
async fn heredocs_are_scripts_of_the_shell_or_of_their_own_interpreter() {
    let daemon = Daemon::with_box().await;
    let file = "FROM box\nARG A=arg\nUSER worker\nRUN <<-EOF\n\techo shell $A\n\tEOF\n\
                RUN <<EOF cat\nread by $A\nEOF\nRUN cat <<X - <<'Y' 3<&0\nx\nX\ny $A\nY\n\
                RUN <<-'run'\n#!/bin/sh -e\n\techo $0 has $A\n\tfalse || ! echo no >>$0\nrun\n";
    let text = built(&daemon, "t=new", &[("Dockerfile", 0o644, file)]).await;
    for shown in [
        "shell arg\n",
        "read by arg\n",
        "y $A\n",
        "/dev/pipes/run has arg\n",
        "create /dev/pipes/run: Permission denied",
    ] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    let again = built(&daemon, "t=new", &[("Dockerfile", 0o644, file)]).await;
    assert_eq!(again.matches("Using cache").count(), 6, "{again}");
    let other = file.replace("has", "had");
    assert!(built(&daemon, "t=new", &[("Dockerfile", 0o644, &other)]).await.contains("/dev/pipes/run had arg\n"));
    let history = daemon.client().get("/images/new/history").await.json();
    let told = history[0]["CreatedBy"].as_str().unwrap();
    assert!(
        told.ends_with("/bin/sh -c <<-'run'\n#!/bin/sh -e\n\techo $0 had $A\n\tfalse || ! echo no >>$0\nrun"),
        "{told}"
    );
    assert_eq!(history[0]["Size"], 0, "the script is not in its layer");
    assert_nothing_left(&daemon).await;
}

#[tokio::test]
async fn stages_copy_from_each_other() {
    let daemon = Daemon::with_box().await;
    let file = "FROM box AS one\nRUN echo first > /f\nFROM scratch\nCOPY --from=one /f /g\nCOPY --from=0 /bin /bin\n\
                COPY --from=box:latest /data/seed /s\nRUN cat /g /s\n";
    let text = built(&daemon, "t=small", &[("Dockerfile", 0o644, file)]).await;
    assert!(text.contains("first\nfrom the image\n"), "{text}");
    let images = daemon.client().get("/images/json").await.json();
    assert_eq!(images.as_array().unwrap().len(), 2, "steps are not listed: {images}");
    assert_nothing_left(&daemon).await;
}

/// What an image has at some places.
async fn found(daemon: &Daemon, image: &str, places: &str) -> String {
    run(daemon, image, &format!("busybox find {places} | busybox sort")).await.replace('\n', " ")
}

/// `rm -rf dist && build`: the layer must not bring back what the one below has there.
#[tokio::test]
async fn folders_that_are_made_anew_are_empty_in_images_too() {
    let daemon = Daemon::with_box().await;
    let file = "FROM box AS old\nRUN busybox --install -s /bin\n\
                RUN mkdir -p /d/sub/deep /e && touch /d/old /d/sub/old /d/sub/deep/old /e/old\n\
                FROM old AS new\nRUN rm -rf /d && mkdir -p /d/sub && touch /d/new; rm -rf /e; touch /e\n\
                FROM box\nCOPY --from=new /d /copied\nCOPY --from=new /e /copied-e\n";
    built(&daemon, "t=new&target=new", &[("Dockerfile", 0o644, file)]).await;
    built(&daemon, "t=copied", &[("Dockerfile", 0o644, file)]).await;
    assert_eq!(found(&daemon, "new", "/d /e").await, "/d /d/new /d/sub /e ");
    assert_eq!(found(&daemon, "copied", "/copied /copied-e").await, "/copied /copied-e /copied/new /copied/sub ");

    let script = "rm -r /d && mkdir -p /d/sub/deep && rm -r /d && mkdir -p /d/sub/deep";
    let id = daemon.create("edited", script, json!({"Image": "new"})).await;
    daemon.launch(&id).await;
    assert_eq!(daemon.exit_code(&id).await, 0);
    assert_eq!(daemon.client().post("/commit?container=edited&repo=committed", Value::Null).await.status, 201);
    daemon.remove(&id).await;
    assert_eq!(found(&daemon, "committed", "/d").await, "/d /d/sub /d/sub/deep ");
}

#[tokio::test]
async fn built_images_stay_through_a_collection_and_go_with_their_steps() {
    let daemon = Daemon::with_box().await;
    let file = [("Dockerfile", 0o644, "FROM box\nRUN echo x > /x\nRUN echo y > /y\n")];
    built(&daemon, "t=kept", &file).await;
    // Deleting another image has containerd collect.
    built(&daemon, "t=other", &[("Dockerfile", 0o644, "FROM box\nRUN echo z > /z\n")]).await;
    assert_eq!(daemon.client().delete("/images/other").await.status, 200);
    assert_eq!(run(&daemon, "kept", "cat /x /y").await, "x\ny\n");
    let deleted = daemon.client().delete("/images/kept?force=1").await.json();
    assert_eq!(deleted.as_array().unwrap().iter().filter(|entry| entry["Deleted"].is_string()).count(), 2, "{deleted}");
    assert!(!built(&daemon, "t=kept", &file).await.contains("Using cache"));
    let usage = daemon.client().get("/v1.44/system/df?type=build-cache").await.json();
    let shared = usage["BuildCache"].as_array().unwrap().iter().filter(|step| step["Shared"] == true).count();
    assert_eq!(shared, 2, "the image is made of them: {usage}");
    let prune = async |free: u64| {
        let path = format!("/build/prune?all=1&min-free-space={free}");
        daemon.client().post(&path, Value::Null).await.json()["CachesDeleted"].clone()
    };
    assert_eq!(prune(1).await, Value::Null, "as much is free");
    let pruned = prune(i64::MAX.unsigned_abs()).await;
    assert_eq!(pruned.as_array().unwrap().len(), 2, "{pruned}");
    assert_eq!(run(&daemon, "kept", "cat /x /y").await, "x\ny\n", "the image is whole without its steps");
}

#[tokio::test]
async fn client_that_hangs_up_ends_the_step() {
    let daemon = Daemon::with_box().await;
    let file = [("Dockerfile", 0o644, "FROM box\nRUN echo begun; sleep 1000\n")];
    let mut answer = daemon.client().open(request("", context(&file))).await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"stream\":\"begun") {
        let frame = answer.body_mut().frame().await.expect("the build goes on").unwrap();
        seen.extend_from_slice(frame.data_ref().unwrap());
    }
    drop(answer);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !daemon.client().get("/containers/json?all=1").await.json().as_array().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "its container stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let folders = daemon.folder().join("data/tmp/build");
    while folders.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        assert!(Instant::now() < deadline, "its context stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn links_of_a_context_lead_nowhere_else() {
    let daemon = Daemon::with_box().await;
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, link: &str, content: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        } else {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, link).unwrap();
        }
    };
    add("Dockerfile", "", "FROM box\nCOPY out/hostname /x\n");
    add("out", "/etc", "");
    let refused = build(&daemon, "", tar.into_inner().unwrap().into()).await.unwrap_err();
    assert!(refused.contains("file not found in build context"), "{refused}");
    let up = build(&daemon, "", context(&[("Dockerfile", 0o644, "FROM box\nCOPY ../../etc/hostname /x\n")])).await;
    assert!(up.unwrap_err().contains("forbidden path outside the build context"));
    assert_nothing_left(&daemon).await;
}

/// As dockerd 28's classic builder answered each.
#[tokio::test]
async fn file_goes_through_links_also_to_what_is_not_there_yet() {
    let daemon = Daemon::with_box().await;
    let file = "FROM box\nRUN cd /tmp && for l in rel:missing abs:/tmp/absmissing c1:c2 c2:c3 c3:/tmp/deep/er/file \
                out:../../../../esc there:/tmp/old add:added from:copied doc:document slash:gone/ owned:mine \
                into:folder contents:merged a:b b:a; do busybox ln -s ${l#*:} ${l%%:*}; done; echo old > old; \
                busybox chmod 600 old\n\
                COPY f /tmp/rel\nCOPY f /tmp/abs\nCOPY f /tmp/c1\nCOPY f /tmp/out\nCOPY f /tmp/there\nADD f /tmp/add\n\
                COPY --from=box /data/seed /tmp/from\nCOPY <<EOF /tmp/doc\ntext\nEOF\nCOPY f /tmp/slash\n\
                COPY --chown=5:6 f /tmp/owned\nCOPY f d/g /tmp/into/\nCOPY d /tmp/contents\n\
                RUN cd /tmp; for l in rel abs c1 c2 c3 out there add from doc slash owned into contents; do \
                echo \"$l -> $(busybox readlink $l)\"; done; busybox stat -c '%n %a %u:%g %F' missing absmissing deep \
                deep/er/file /esc old added copied document gone mine folder/f folder/g merged/g; cat missing document\n";
    let files = [("Dockerfile", 0o644, file), ("f", 0o644, "content\n"), ("d/g", 0o640, "g")];
    let text = built(&daemon, "", &files).await;
    for shown in [
        "rel -> missing\nabs -> /tmp/absmissing\nc1 -> c2\nc2 -> c3\nc3 -> /tmp/deep/er/file\nout -> ../../../../esc\n",
        "there -> /tmp/old\nadd -> added\nfrom -> copied\ndoc -> document\nslash -> gone/\nowned -> mine\n",
        "into -> folder\ncontents -> merged\n",
        "missing 644 0:0 regular file\nabsmissing 644 0:0 regular file\ndeep 755 0:0 directory\n",
        "deep/er/file 644 0:0 regular file\n/esc 644 0:0 regular file\nold 644 0:0 regular file\n",
        "added 644 0:0 regular file\ncopied 640 0:0 regular file\ndocument 644 0:0 regular file\n",
        "gone 644 0:0 regular file\nmine 644 5:6 regular file\nfolder/f 644 0:0 regular file\n",
        "folder/g 640 0:0 regular file\nmerged/g 640 0:0 regular file\ncontent\ntext\n",
    ] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    let circle = file.replace("COPY f /tmp/rel\n", "COPY f /tmp/a\n");
    let refused = build(&daemon, "", context(&[("Dockerfile", 0o644, &circle), files[1], files[2]])).await;
    assert!(refused.as_ref().is_err_and(|text| text.contains("too many links in /tmp/a")), "{refused:?}");
    assert_nothing_left(&daemon).await;
}
