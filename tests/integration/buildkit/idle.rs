//! A buildkitd that nobody uses.

use super::{Builder, deaths::buildkitd, until};

/// The step takes longer than nobody may use it, and makes something else each time that it runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_buildkitd_that_nobody_uses_is_stopped_and_the_next_build_finds_its_cache() {
    let Some(builder) = Builder::start_with(&["--buildkitd-idle=1s"]).await else { return };
    let dockerfile = "FROM box\nRUN sleep 3; cat /proc/sys/kernel/random/uuid > /made\nCMD cat /made\n";
    let made = || {
        let build = builder.build(&["-t", "x"], dockerfile, &[]);
        assert!(build.succeeded, "{}\n{}", build.text, builder.daemon.log());
        builder.must(&["run", "--rm", "--network=none", "x"])
    };
    let first = made();
    let starts = || builder.daemon.log().matches("BuildKit serves default").count();
    assert_eq!(starts(), 1, "it was used");
    until("it is stopped", async || builder.daemon.log().contains("BuildKit of default was idle and is stopped")).await;
    assert!(buildkitd(&builder).is_empty());
    assert_eq!((made(), starts()), (first, 2));
}
