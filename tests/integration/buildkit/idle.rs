//! A buildkitd that nobody uses.

use super::{
    Builder,
    deaths::{buildkitd, kill},
    until,
};

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

/// What a build has made is more than a cache may have, and is looked through when buildkitd starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_too_large_shrinks_and_what_was_built_of_it_stays() {
    let Some(builder) = Builder::start_with(&["--cache-max-bytes=20m"]).await else { return };
    let step = |name: &str| format!("RUN head -c 12000000 /dev/urandom > /{name}\n");
    let dockerfile = ["FROM box\n", &step("a"), &step("b"), &step("c"), "CMD cat /a /b /c | wc -c\n"].concat();
    let build = builder.build(&["-t", "x"], &dockerfile, &[]);
    assert!(build.succeeded, "{}", build.text);
    kill(buildkitd(&builder)[0]);
    let sizes = async || -> Vec<u64> {
        let usage = builder.daemon.get("/v1.47/system/df?type=build-cache").await.json();
        usage["BuildCache"].as_array().unwrap().iter().filter_map(|record| record["Size"].as_u64()).collect()
    };
    until("there is no more than there may be", async || {
        let sizes = sizes().await;
        !sizes.is_empty() && sizes.iter().sum::<u64>() <= 20_000_000
    })
    .await;
    assert_eq!(builder.must(&["run", "--rm", "--network=none", "x"]).trim(), "36000000");
}
