//! `GET /version`.

use std::{fs, sync::OnceLock};

use indexmap::IndexMap;

use crate::{
    engine::{Engine, host::Host, tenants::Scope},
    model::{
        Result, image,
        system::{Component, GO_VERSION, PLATFORM_NAME, Platform, SERVER_VERSION, SystemVersion},
        time::Timestamp,
    },
};

/// The API's range, which the engine itself does not know.
#[derive(Clone, Debug)]
pub struct ApiRange {
    /// Newest.
    pub newest: String,
    /// Oldest.
    pub oldest: String,
}

impl Engine {
    /// Who we are and what we consist of.
    pub async fn system_version(&self, _: &Scope, api: ApiRange) -> Result<SystemVersion> {
        let host = Host::get();
        let commit = option_env!("RINGER_GIT_COMMIT").unwrap_or_default().to_owned();
        Ok(SystemVersion {
            platform: Platform { name: PLATFORM_NAME.to_owned() },
            components: self.components(host, &api, &commit),
            version: SERVER_VERSION.to_owned(),
            api_version: api.newest,
            min_api_version: api.oldest,
            git_commit: commit,
            go_version: GO_VERSION.to_owned(),
            os: "linux".to_owned(),
            arch: image::Platform::host().architecture,
            kernel_version: host.kernel.clone(),
            build_time: build_time().to_owned(),
        })
    }

    /// In dockerd's order and under its names: clients look components up by them.
    fn components(&self, host: &Host, api: &ApiRange, commit: &str) -> Vec<Component> {
        let (info, built_for) = (self.backends.runtime.info(), image::Platform::host());
        let mut components = vec![
            Component {
                name: "Engine".to_owned(),
                version: SERVER_VERSION.to_owned(),
                details: details(&[
                    ("ApiVersion", &api.newest),
                    ("Arch", &built_for.architecture),
                    ("BuildTime", build_time()),
                    ("Experimental", "false"),
                    ("GitCommit", commit),
                    ("GoVersion", GO_VERSION),
                    ("KernelVersion", &host.kernel),
                    ("MinAPIVersion", &api.oldest),
                    ("Os", "linux"),
                ]),
            },
            component("containerd", &info.containerd_version, &info.containerd_commit),
        ];
        let default = info.runtimes.iter().filter(|runtime| runtime.name == info.default_runtime);
        components.extend(default.map(|runtime| component(&runtime.name, &runtime.version, &runtime.commit)));
        components.extend(info.init.iter().map(|init| component("docker-init", &init.version, &init.commit)));
        components
    }
}

fn component(name: &str, version: &str, commit: &str) -> Component {
    Component { name: name.to_owned(), version: version.to_owned(), details: details(&[("GitCommit", commit)]) }
}

fn details(pairs: &[(&str, &str)]) -> IndexMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// When our program was written to disk, in dockerd's form of the time.
fn build_time() -> &'static str {
    static TIME: OnceLock<String> = OnceLock::new();
    TIME.get_or_init(|| {
        let modified = fs::metadata("/proc/self/exe").and_then(|program| program.modified());
        let seconds = modified.map(Timestamp::from).unwrap_or_default().unix();
        let time = Timestamp::from_unix(seconds, 0).fixed_nanos();
        format!("{}+00:00", time.trim_end_matches('Z'))
    })
}
