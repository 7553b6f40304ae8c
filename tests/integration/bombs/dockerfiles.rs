//! Dockerfiles and `changes` that nest, double, multiply.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::{
    bombs::{fort::Fort, naive},
    support::daemon::http::Answer,
};

/// Of what stands in each other: more than a thread has room for.
const DEEP: usize = 8_000;

/// A build that leaves with its client ends within this.
const END: Duration = Duration::from_secs(20);

fn context(dockerfile: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

fn nested(depth: usize) -> String {
    format!("{}x{}", "${A:-".repeat(depth), "}".repeat(depth))
}

/// So many of something in one instruction, on lines as long as one may be.
fn lines(something: &str, count: usize) -> String {
    vec![something.repeat(10_000); count / 10_000].join("\\\n")
}

/// `%7B` and so on, for queries.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

async fn build(fort: &Fort, dockerfile: &str) -> Answer {
    fort.send_tar("/build?rm=1&forcerm=1", context(dockerfile)).await
}

#[tokio::test]
async fn dockerfiles_end_in_a_sentence() {
    let fort = Fort::build().await;
    let base = "FROM box:latest\n";
    let large = format!("{base}ENV A={}\n", "a".repeat(30_000));
    let deep = "substitutions are nested more than 100 deep";
    let doubled = "variables become more than 1 MiB";
    let bombs = [
        ("nested in LABEL", format!("{base}LABEL a={}\n", nested(DEEP)), deep),
        ("nested in FROM", format!("FROM {}\n", nested(DEEP)), deep),
        ("nested in ARG", format!("ARG V={}\n{base}", nested(DEEP)), deep),
        ("nested in COPY", format!("{base}COPY {} /x\n", nested(DEEP)), deep),
        ("nested in a heredoc", format!("{base}COPY <<E /x\n{}\nE\n", nested(DEEP)), deep),
        ("nested in quotes", format!("{base}ENV B={}x{}\n", "\"${A:-".repeat(DEEP), "}\"".repeat(DEEP)), deep),
        ("nested patterns", format!("{base}ENV B={}\n", "${A#".repeat(DEEP)), deep),
        ("ONBUILD of ONBUILD", format!("{base}{}RUN x\n", "ONBUILD ".repeat(DEEP)), "Chaining ONBUILD via"),
        ("40 doublings", format!("{base}ENV A=aaaa\n{}", "ENV A=$A$A\n".repeat(40)), doubled),
        ("40 doubled arguments", format!("ARG A=aaaa\n{}{base}", "ARG A=$A$A\n".repeat(40)), doubled),
        ("a line of variables", format!("{large}ENV B={}\n", "$A".repeat(30_000)), doubled),
        ("words of variables", format!("{large}LABEL {}\n", "a=$A ".repeat(12_000)), doubled),
        (
            "words that are thrown away",
            format!("{base}ENV A={}\nLABEL a={}\n", lines("a", 1_000_000), lines("${A:+}", 100_000)),
            "variables take more than 16 MiB",
        ),
        ("stars in a pattern", format!("{large}ENV B=${{A#{}b}}\n", "*a".repeat(10)), "Successfully built"),
        ("replaced letters", format!("{large}ENV B=${{A//a/$A}}\n"), doubled),
        ("ports", format!("{base}EXPOSE {}\n", "1-65535/tcp ".repeat(5_000)), "EXPOSE names more than"),
    ];
    // Of these nobody dies; they are longer than people write.
    let long = [
        ("a long instruction", format!("{base}RUN {}\n", "x \\\n".repeat(1 << 19)), "is longer than 1 MiB"),
        (
            "many instructions",
            format!("{base}{}", "USER a\n".repeat(100_000)),
            "there are more than 10000 instructions",
        ),
        ("a long word", format!("{base}{}\n", "X".repeat(60_000)), "unknown instruction: XXX"),
        ("16 MiB", format!("{base}{}", format!("#{}\n", "x".repeat(60_000)).repeat(300)), "larger than 4 MiB"),
    ];
    for (name, dockerfile, _) in &bombs {
        assert!(naive::dies_of("dockerfile", dockerfile.as_bytes()), "{name} is no bomb");
    }
    for (name, dockerfile, sentence) in bombs.into_iter().chain(long) {
        let log = fort.log_length();
        let answer = build(&fort, &dockerfile).await;
        let text = answer.text();
        let end = text.lines().last().unwrap_or_default();
        assert!(end.contains(sentence), "{name}: {}", &end[..end.len().min(2_000)]);
        // The error alone: steps are shown as they were written.
        assert!(end.len() < 64 << 10, "{name}: {} bytes", end.len());
        fort.stands(name, log).await;
    }
    fort.runs_a_container().await;
}

#[tokio::test]
async fn changes_end_in_a_sentence() {
    let fort = Fort::build().await;
    let id = fort.daemon().create("changed", "true", serde_json::Value::Null).await;
    let doubled = format!("ENV A=aaaa\n{}", "ENV A=$A$A\n".repeat(40));
    let labels: String = (0..200).map(|n| format!("LABEL a{n}=$A$A$A$A$A$A$A$A\n")).collect();
    for (name, changes, sentence) in [
        ("nested", format!("LABEL a={}", nested(3_000)), "substitutions are nested more than 100 deep"),
        ("doubled", doubled, "variables become more than 1 MiB"),
        ("labels", format!("ENV A={}\n{labels}", "a".repeat(30_000)), "the configuration is larger than 4 MiB"),
    ] {
        let changes = escaped(&changes);
        for path in [
            format!("/images/create?fromSrc=-&repo=changed&changes={changes}"),
            format!("/commit?container={id}&repo=changed&changes={changes}"),
        ] {
            let log = fort.log_length();
            let answer = fort.send_tar(&path, Vec::new()).await;
            assert!(answer.text().contains(sentence), "{name}: {}", answer.text());
            assert_eq!(answer.status, 400, "{name}");
            fort.stands(name, log).await;
        }
    }
    fort.daemon().remove("changed").await;
    fort.runs_a_container().await;
}

#[tokio::test]
async fn a_long_build_ends_with_its_client() {
    let fort = Fort::build().await;
    // 9,000 steps of configuration, each of which replaces variables up to the limit.
    let steps = "ENV B=${A#b*b}\n".repeat(9_000);
    let tar = context(&format!("FROM box:latest\nENV A={}\n{steps}", "a".repeat(60_000)));
    let mut stream = tokio::net::UnixStream::connect(fort.daemon().folder().join("docker.sock")).await.unwrap();
    let head = format!(
        "POST /build HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        tar.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&tar).await.unwrap();
    let images =
        || async { fort.daemon().client().get("/images/json?all=1").await.json().as_array().map_or(0, Vec::len) };
    let deadline = Instant::now() + END;
    while images().await < 3 {
        assert!(Instant::now() < deadline, "the build begins");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(stream);
    let (deadline, mut before) = (Instant::now() + END, 0);
    loop {
        let now = images().await;
        if now == before {
            break;
        }
        before = now;
        assert!(Instant::now() < deadline, "the build goes on without its client");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    fort.runs_a_container().await;
}

#[tokio::test]
async fn what_people_write_meets_no_limit() {
    let fort = Fort::build().await;
    let script: String = (0..2_000).map(|n| format!("echo line {n} of a long script && \\\n")).collect();
    let answer = build(
        &fort,
        &format!(
            "ARG V=box\nFROM ${{V:-none}}:${{T:-latest}}\nENV P={} Q=${{R:-${{S:-${{T:-deep}}}}}}\n\
             LABEL l=\"${{P%%x*}}\" m=${{P//a/b}}\nEXPOSE 1-65535\nRUN {script}true\n",
            "a".repeat(20_000)
        ),
    )
    .await;
    assert!(answer.text().contains("Successfully built"), "{}", answer.text().lines().last().unwrap_or_default());
    fort.stands("a real Dockerfile", 0).await;
}
