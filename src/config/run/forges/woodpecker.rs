//! `[woodpecker]`: its API with an administrator's token, and where its agents connect to.

use std::time::Duration;

use ringer::supervisor::settings::Woodpecker;

use super::{
    Access, BTreeMap, Bytes, CacheVolume, Common, Cpus, Deserialize, Error, ForgeSettings, Images, IpAddr, JobLimits,
    Kind, LeftOut, Own, OwnedTold, PathBuf, Proxies, Result, Seconds, Secret, Told, Word, check_url,
};

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

section! {
    /// `[woodpecker]`.
    WoodpeckerSection {
        server: String,
        secure: bool,
        url: String,
        token: Option<Secret>,
        token_file: Option<PathBuf>,
        token_env: Option<String>,
        repositories: Option<Vec<String>>,
        forks: Option<bool>,
        public_repositories: Option<bool>,
        cache_volumes: Vec<CacheVolume>,
    }
}

impl WoodpeckerSection {
    /// What the supervisor is told. `number` is which of its kind it is.
    pub fn settings(&self, number: usize, images: &Images) -> Result<ForgeSettings> {
        self.common().settings("woodpecker", number, images, |name| self.own(name))
    }

    fn own(&self, name: &str) -> Result<Own> {
        if self.repositories.is_some() {
            return Err(Error::invalid(
                "repositories: Woodpecker hands a workflow to whichever agent its labels fit, and none is bound to a repository here",
            ));
        }
        if self.forks == Some(false) || self.public_repositories == Some(false) {
            return Err(Error::invalid(
                "forks, public_repositories: Woodpecker hands a workflow to whichever agent its labels fit, and none can be kept from a repository: say there which pull requests need approval",
            ));
        }
        if !self.cache_volumes.is_empty() {
            return Err(Error::invalid(
                "cache_volumes: they are a repository's, and nobody knows whose workflow an agent gets before it has one",
            ));
        }
        if self.job_image.is_some() {
            return Err(Error::invalid("job_image: each step of Woodpecker names its image"));
        }
        let labels = self.labels.clone().unwrap_or_default();
        if let Some(label) = labels.iter().find(|label| !label.contains('=') || label.starts_with('=')) {
            return Err(Error::invalid(format!("labels: {label:?} is no label of Woodpecker: expected NAME=VALUE")));
        }
        self.common().needs_no_more_than_a_socket("the agent", name)?;
        let told = Told { value: &self.token, file: &self.token_file, env: &self.token_env };
        Ok(Own {
            kind: Kind::Woodpecker(Woodpecker { address: check_address(&self.server)?, secure: self.secure }),
            url: check_url("url", &self.url)?,
            access: Access::Token(told.read(name, "token")?),
            owner: None,
            labels,
            repositories: None,
            left_out: LeftOut::default(),
            cache_volumes: Vec::new(),
            build_cache: false,
            poll_interval: POLL_INTERVAL,
        })
    }
}

/// `HOST:PORT`, as the agent takes it, which is in a job.
fn check_address(text: &str) -> Result<String> {
    let has_port = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !has_port || text.contains('/') {
        return Err(Error::invalid(format!(
            "invalid server {text:?}: expected HOST:PORT, the server's WOODPECKER_GRPC_ADDR (9000), as jobs reach it"
        )));
    }
    check_url("server", &format!("http://{text}")).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE_LINES: &str = "server = 'ci.example.org:9000'\nurl = 'https://ci.example.org'\ntoken = 's3cr3t'\n";

    fn settings(text: &str) -> Result<ForgeSettings> {
        let section: WoodpeckerSection = toml::from_str(text).map_err(|error| Error::invalid(error.to_string()))?;
        section.settings(0, &Images::default())
    }

    #[test]
    fn three_lines_are_enough() {
        let settings = settings(THREE_LINES).unwrap();
        assert!(
            matches!(&settings.kind, Kind::Woodpecker(server) if server.address == "ci.example.org:9000" && !server.secure)
        );
        assert!(!format!("{settings:?}").contains("s3cr3t"), "no secret is printed");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        let error = |more: &str| settings(&format!("{THREE_LINES}{more}")).unwrap_err().chain();
        assert!(error("repositories = ['a/b']").contains("whichever agent"));
        assert!(error("labels = ['gpu']").contains("NAME=VALUE"));
        assert!(error("job_image = 'a'").contains("names its image"));
        assert!(error("mode = 'single'").contains("mode"));
        for server in ["ci.example.org", "http://ci.example.org:9000", "localhost:9000"] {
            let text = THREE_LINES.replace("ci.example.org:9000", server);
            assert!(settings(&text).unwrap_err().chain().contains("server"), "{server}");
        }
    }
}
