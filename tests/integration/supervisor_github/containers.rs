//! Jobs in containers of their own: services beside them, and the runner's node in them.

use ringer::{
    backend::images::samples::{self, Packing, image, tar},
    model::image::{ImageConfig, Platform},
};
use serde_json::json;

use super::{Lab, config, images::Cli};
use crate::support::{
    daemon::Daemon,
    forge::Images,
    github::{GitHub, NewJob, TOKEN},
    launches,
};

#[tokio::test]
async fn a_service_is_found_by_its_name_and_gone_with_its_job() {
    let Some(lab) = Lab::start("").await else { return };
    let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
    let serves = ImageConfig {
        cmd: words(&["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]),
        ..ImageConfig::default()
    };
    let layers = [samples::busybox_tar().expect("busybox"), tar(&[("www/word", b"served")])];
    let layers = layers.map(|layer| (layer, Packing::Gzip));
    let web = image(&Platform::host().to_string(), serves, &layers);
    let web = lab.images.push(lab.github.place(), "acme/web", &web);
    // What the service has to do first is nobody's concern but the step's.
    let asks = ["n=0; until wget -qO- http://web:8080/word; do n=$((n + 1)); test $n -lt 20; sleep 0.5; done"];
    let job = |name: &str| NewJob::of(name, &asks).container(&lab.images.job()).service("web", &web);
    let jobs = lab.github.push("own", vec![job("one"), job("other")]);
    lab.github.until_jobs(&jobs, "completed").await;
    for id in &jobs {
        let log = lab.github.model().jobs[id].log.clone();
        assert!(lab.github.job(*id)["conclusion"] == "success" && log.contains("served"), "{log}");
    }
    launches::until_all_ended(&lab.daemon, 2).await;
    lab.is_clean();
}

/// node itself, with the libraries that it wants, is this machine's.
#[tokio::test]
async fn a_node_action_runs_by_the_runners_node_in_a_jobs_container_and_beside_it() {
    let (Some(cli), github) = (Cli::new(), GitHub::start()) else { return };
    let Some(images) = Images::with_actions_runner(github.place()).await else { return };
    let (base, address) = (images.actions_runner(), images.address().to_owned());
    let (runner, glibc) = (format!("{address}/acme/with-node"), format!("{address}/acme/glibc"));
    let text = config(&github, &images, &format!("token = '{TOKEN}'"));
    let daemon = Daemon::launching(github.place(), &text.replace(&base, &runner)).await;
    let lab = Lab { daemon, images, github };
    cli.sh("set -e; mkdir libraries; node=$(readlink -f \"$(command -v node)\"); cp \"$node\" node; chmod 755 node\n\
            ldd node | grep -o '/lib[^ ]*' | while read -r library; do cp -L --parents \"$library\" libraries; done");
    cli.build(&lab.daemon, &glibc, &format!("FROM {}\nCOPY libraries/ /\n", lab.images.job()));
    let externals = "COPY libraries/ /\nCOPY node /home/runner/externals/node20/bin/node\n";
    cli.build(&lab.daemon, &runner, &format!("FROM {base}\n{externals}"));

    let action = json!({"name": "hello", "runs": {"using": "node20", "main": "index.js"}});
    let code = "console.log(`${process.env.INPUT_WHO} is greeted by ${process.execPath}`)";
    let files = format!("mkdir hello; cd hello; echo '{action}' > action.yml; echo '{code}' > index.js");
    let job = |name: &str| NewJob::of(name, &[&files]).uses("./hello", json!({"who": "everybody"}));
    let jobs = lab.github.push("own", vec![job("inside").container(&glibc), job("beside")]);
    lab.github.until_jobs(&jobs, "completed").await;
    for (id, node) in jobs.iter().zip(["/__e/node20/bin/node", "/home/runner/externals/node20/bin/node"]) {
        let log = lab.github.model().jobs[id].log.clone();
        assert!(log.contains(&format!("everybody is greeted by {node}\n")), "{log}");
    }
    launches::until_all_ended(&lab.daemon, 2).await;
    lab.is_clean();
}
