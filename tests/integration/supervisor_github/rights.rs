//! What a job's own container has of the supervisor and may not write: binding it from there gives nobody more.

use std::fs;

use ringer::{
    backend::images::samples::{Packing, image, tar},
    model::image::{ImageConfig, Platform},
};
use serde_json::json;

use super::Lab;
use crate::support::{github::NewJob, launches};

/// Each place that is read-only here, and one that is not, as a client in here binds it by words that ask for writing, and as one takes
/// it over that such a container was made with.
const TRY: &str = r#"
for at in $(awk '$6 ~ /^ro/ && $5 !~ /^\/(proc|sys)/ {print $5}' /proc/self/mountinfo) "$PWD"; do
    write='echo ran; for x in /a /b /c; do if test -d $x; then touch $x/more; else echo more >> $x; fi && echo written; done; true'
    all="--user 0 --network none --mount type=bind,source=$at,target=/a --mount type=bind,source=$at,target=/b,readonly=false -v $at:/c:rw"
    docker create --name first $all IMAGE sh -c "$write" || true
    docker start -a first > by || true
    docker run --rm --user 0 --network none --volumes-from first:rw IMAGE sh -c "$write" >> by || true
    docker rm -f first || true
    echo "tried: $at: ran $(grep -c ran by), written $(grep -c written by)"
done
"#;

#[tokio::test]
async fn what_is_read_only_in_a_runner_stays_so_in_what_it_starts() {
    let authorities = tempfile::NamedTempFile::new().unwrap();
    fs::copy("/etc/ssl/certs/ca-certificates.crt", authorities.path()).expect("the machine has authorities");
    let Some(lab) = Lab::start(&format!("ca_file = '{}'", authorities.path().display())).await else { return };
    let files = (tar(&[("deps/tool", b"tool")]), Packing::Gzip);
    let deps = image(&Platform::host().to_string(), ImageConfig::default(), &[files]);
    let deps = lab.images.push(lab.github.place(), "acme/deps", &deps);
    let workflow = json!({"jobs": {"job": {"env": {"RINGER_IMAGE": deps}}}}).to_string();
    let script = TRY.replace("IMAGE", &lab.images.job());
    let jobs = lab.github.push("own", vec![NewJob::of("tries", &[&script]).in_workflow("job", &workflow)]);
    lab.github.until_jobs(&jobs, "completed").await;
    let log = lab.github.model().jobs[&jobs[0]].log.clone();
    let tried: Vec<(&str, &str)> =
        log.lines().filter_map(|line| line.trim().strip_prefix("tried: ")?.rsplit_once(": ran 2, written ")).collect();
    let written: Vec<_> = tried.iter().filter(|(_, times)| *times != "0").collect();
    assert!(
        written.len() == 1 && written[0].0.contains("/_work/") && written[0].1 == "6",
        "its own folder alone: {log}"
    );
    for place in ["/deps", "/opt/ringer-hook", "/dev/ringer-authorities.pem"] {
        assert!(tried.contains(&(place, "0")), "{place}: {log}");
    }
    launches::until_all_ended(&lab.daemon, 1).await;
    lab.is_clean();
}
