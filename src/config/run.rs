//! The file of `ringer run`: `[daemon]` holds what `serve` takes, the rest is of runners, registries and forges.

mod fixed;
mod forges;
mod many;
mod secrets;

use std::{collections::BTreeMap, fs, path::Path};

use ringer::{
    model::{Error, Result, error::Context, registry_auth::RegistryAuth},
    registry::registry_of,
    supervisor::{
        images::Images,
        secret::Secret,
        settings::{Discovery, Kind, Settings},
    },
};
use serde::Deserialize;

pub use self::fixed::Fixed;
use self::{
    forges::{ActSection, GithubSection, GitlabSection, WoodpeckerSection, check_url},
    many::Many,
    secrets::Told,
};
use super::{Config, Http, ServeOptions};
use crate::cli::values::Bytes;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case", default, deny_unknown_fields)]
struct RunFile {
    daemon: ServeOptions,
    http: HttpSection,
    runner: RunnerSection,
    registry: Many<RegistrySection>,
    forgejo: Many<ActSection>,
    gitea: Many<ActSection>,
    github: Many<GithubSection>,
    gitlab: Many<GitlabSection>,
    woodpecker: Many<WoodpeckerSection>,
}

/// `[http]`: the listener that only tells, and takes webhooks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HttpSection {
    listen: Option<String>,
    public_url: Option<String>,
}

/// `[runner]`: of all forges.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RunnerSection {
    default_image: Option<String>,
    repo_images: BTreeMap<String, String>,
    images: BTreeMap<String, OsImages>,
    max_jobs: Option<usize>,
    max_memory: Option<Bytes>,
}

/// `[runner.images.<repository>]`. The other systems' are kept for their hosts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OsImages {
    linux: Option<String>,
    #[allow(dead_code, reason = "accepted: for hosts of that system")]
    windows: Option<String>,
    #[serde(alias = "darwin")]
    #[allow(dead_code, reason = "accepted: for hosts of that system")]
    macos: Option<String>,
}

/// `[[registry]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RegistrySection {
    host: String,
    username: String,
    password: Option<Secret>,
    password_file: Option<std::path::PathBuf>,
    password_env: Option<String>,
    ca_file: Option<std::path::PathBuf>,
}

/// What the file says beside `[daemon]`, at the start and when it is read again.
pub struct RunSettings {
    /// Runners, registries and forges.
    pub settings: Settings,
    /// The listener that only tells.
    pub http: Option<Http>,
    /// What is taken up at the start alone.
    pub fixed: Fixed,
}

/// Reads the file; flags of `serve` win over its `[daemon]`.
pub fn resolve(path: &Path, flags: ServeOptions) -> Result<(Config, RunSettings)> {
    let (file, run) = read(path)?;
    let mut warnings = flags.accepted.check()?;
    warnings.extend(file.images_of_no_use());
    let authorities = file.registry.authorities()?;
    let options = flags.over(file.daemon);
    if options.http_host.is_some() {
        return Err(Error::invalid("--http-host is `ringer serve`'s: here it is [http] listen"));
    }
    let mut config = Config { http: run.http.clone(), ..options.filled(warnings)? };
    config.engine.registry_authorities = authorities;
    Ok((config, run))
}

/// Reads the file again for what is taken up while the daemon runs.
pub fn reread(path: &Path) -> Result<RunSettings> {
    read(path).map(|(_, run)| run)
}

fn read(path: &Path) -> Result<(RunFile, RunSettings)> {
    let text = read_text(path)?;
    let all = || {
        let file = parse(&text)?;
        let mut settings = file.settings()?;
        let http = file.http.read(&settings)?;
        make_webhooks(&mut settings, http.as_ref())?;
        // The start says what is wrong with them; a HUP does not take them up.
        let fixed = Fixed::of(&text, file.registry.authorities().unwrap_or_default())?;
        Ok((file, RunSettings { settings, http, fixed }))
    };
    all().map_err(|error: Error| error.context(path.display()))
}

fn parse(text: &str) -> Result<RunFile> {
    toml::from_str(text).map_err(|error| Error::invalid(mistake(text, &error)))
}

/// What is wrong and where. toml's own words quote the whole line, and a secret may stand there: this goes to the log.
fn mistake(text: &str, error: &toml::de::Error) -> String {
    let Some(span) = error.span() else { return error.message().to_owned() };
    let before = text.as_bytes().iter().take(span.start);
    let line = before.filter(|&&byte| byte == b'\n').count() + 1;
    format!("line {line}: {}", error.message())
}

impl RunFile {
    fn settings(&self) -> Result<Settings> {
        let images = self.runner.images();
        let mut settings = Settings {
            max_jobs: self.runner.max_jobs,
            max_memory: self.runner.max_memory.map(|Bytes(bytes)| bytes),
            ..Settings::default()
        };
        for registry in &self.registry.0 {
            let name = registry.name()?;
            settings.registries.extend(registry.login()?.map(|login| (name.clone(), login)));
            if !settings.named_registries.insert(name.clone()) {
                return Err(Error::invalid(format!("[[registry]]: there are two of {name}")));
            }
        }
        for (kind, sections) in [(Kind::Forgejo, &self.forgejo), (Kind::Gitea, &self.gitea)] {
            for (number, section) in sections.0.iter().enumerate() {
                settings.forges.push(section.settings(kind.clone(), number, &images)?);
            }
        }
        for (number, section) in self.github.0.iter().enumerate() {
            settings.forges.push(section.settings(number, &images)?);
        }
        if settings.forges.is_empty()
            && let Some(told) = self.images_of_no_use()
        {
            return Err(Error::invalid(told));
        }
        let of_all = Images { of_repositories: BTreeMap::new(), ..images };
        for (number, section) in self.gitlab.0.iter().enumerate() {
            settings.forges.push(section.settings(number, &of_all)?);
        }
        for (number, section) in self.woodpecker.0.iter().enumerate() {
            settings.forges.push(section.settings(number, &of_all)?);
        }
        if settings.forges.is_empty() {
            return Err(Error::invalid("no forge is configured: a section such as [gitea] is needed"));
        }
        let mut names: Vec<&str> = settings.forges.iter().map(|forge| forge.name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::invalid(format!("two forges are called {}: give them different names", pair[0]))),
            None => Ok(settings),
        }
    }

    /// What is said of images of repositories for forges that have none.
    fn images_of_no_use(&self) -> Option<String> {
        let forges = [("gitlab", self.gitlab.0.is_empty()), ("woodpecker", self.woodpecker.0.is_empty())];
        let forges: Vec<_> =
            forges.iter().filter(|(_, is_absent)| !is_absent).map(|(name, _)| format!("[{name}]")).collect();
        if forges.is_empty() || self.runner.images().of_repositories.is_empty() {
            return None;
        }
        Some(format!(
            "[runner] repo_images and images are not for {}, where no runner can be bound to a repository and nobody knows whose job \
             one gets before it has it: a job's own image: says it",
            forges.join(" and ")
        ))
    }
}

impl HttpSection {
    fn read(&self, settings: &Settings) -> Result<Option<Http>> {
        let of_hooks = settings.forges.iter().find(|forge| forge.webhook_secret.is_some());
        let Some(listen) = &self.listen else {
            return match of_hooks {
                Some(forge) => Err(Error::invalid(format!("[{}]: webhook_secret needs [http] listen", forge.name))),
                None if self.public_url.is_some() => Err(Error::invalid("[http]: public_url needs listen")),
                None => Ok(None),
            };
        };
        let http = Http::at(listen).map_err(|error| error.context("[http]: listen"))?;
        let public_url = self.public_url.as_deref().map(|url| check_url("public_url", url)).transpose();
        let public_url = public_url.map_err(|error| error.context("[http]"))?;
        Ok(Some(Http { public_url, ..http }))
    }
}

/// Which forges ringer makes a webhook at: those that tell of jobs and where nobody has made one, whose secret would be configured.
fn make_webhooks(settings: &mut Settings, http: Option<&Http>) -> Result<()> {
    let public_url = http.and_then(|http| http.public_url.as_ref());
    for forge in settings.forges.iter_mut().filter(|forge| forge.webhook_secret.is_none()) {
        let is_awaited = matches!(&forge.kind, Kind::Github(github) if github.discovery == Discovery::Webhook);
        if is_awaited && public_url.is_none() {
            return Err(Error::invalid(format!(
                "[{}]: discovery = \"webhook\" needs [http] public_url, for which ringer makes a webhook, or the webhook_secret of one that \
                 you have made",
                forge.name
            )));
        }
        if is_awaited || (forge.kind == Kind::Gitea && forge.may_make_webhook) {
            forge.public_url = public_url.cloned();
        }
    }
    Ok(())
}

/// The text of a file that the configuration names.
fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(format!("reading {}", path.display()))
}

impl RunnerSection {
    fn images(&self) -> Images {
        let mut of_repositories = self.repo_images.clone();
        let of_linux = self.images.iter().filter_map(|(repository, images)| Some((repository, images.linux.as_ref()?)));
        of_repositories.extend(of_linux.map(|(repository, image)| (repository.clone(), image.clone())));
        Images { runner: None, job: None, of_repositories, default: self.default_image.clone() }
    }
}

impl Many<RegistrySection> {
    /// Authorities of single registries, by their host.
    fn authorities(&self) -> Result<BTreeMap<String, String>> {
        let read = |section: &RegistrySection| {
            let Some(path) = &section.ca_file else { return Ok(None) };
            let pem = read_text(path).map_err(|error| error.context(format!("registry {}", section.host)))?;
            Ok(Some((section.name()?, pem)))
        };
        self.0.iter().filter_map(|section| read(section).transpose()).collect()
    }
}

impl RegistrySection {
    /// As references name it, whichever of Docker Hub's hosts is written.
    fn name(&self) -> Result<String> {
        if self.host.is_empty() {
            return Err(Error::invalid("[[registry]]: host is missing"));
        }
        Ok(registry_of(&self.host))
    }

    /// The credentials; none where there is a `ca_file` alone.
    fn login(&self) -> Result<Option<RegistryAuth>> {
        let told = Told { value: &self.password, file: &self.password_file, env: &self.password_env };
        if self.username.is_empty() && self.ca_file.is_some() && !told.is_set(&self.host, "password") {
            return Ok(None);
        }
        let password =
            told.read(&self.host, "password").map_err(|error| error.context(format!("registry {}", self.host)))?;
        Ok(Some(RegistryAuth {
            username: self.username.clone(),
            password: password.reveal().to_owned(),
            ..RegistryAuth::default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSION: &str = r#"
        [runner]
        default_image = "gitea/runner:3"
        [runner.repo_images]
        "my-go-project" = "ghcr.io/org/go:1"
        [runner.images."org/tool"]
        linux = "ghcr.io/org/tool:1"
        windows = "mcr.microsoft.com/windows/servercore:ltsc2022"
        [gitea]
        instance_url = "http://192.0.2.2:3000/"
        token = "abc"
        owner = "org"
        job_image = "gitea/runner-images:ubuntu-24.04"
    "#;

    fn settings(text: &str) -> Result<Settings> {
        parse(text)?.settings()
    }

    #[test]
    fn the_words_of_the_mission_are_read() {
        let settings = settings(MISSION).unwrap();
        let forge = &settings.forges[0];
        assert_eq!((forge.name.as_str(), forge.url.as_str()), ("gitea", "http://192.0.2.2:3000"));
        assert_eq!(forge.images.of_repository("org/tool"), Some("ghcr.io/org/tool:1"));
        assert_eq!(forge.images.of_repository("any/my-go-project"), Some("ghcr.io/org/go:1"));
        assert_eq!(forge.images.job.as_deref(), Some("gitea/runner-images:ubuntu-24.04"));
        assert!(!format!("{settings:?}").contains("abc"), "no secret is printed");
    }

    #[test]
    fn every_kind_of_forge_has_a_section() {
        for kind in ["forgejo", "gitea", "github"] {
            let text = MISSION.replace("[gitea]", &format!("[{kind}]"));
            let text = if kind == "github" { text.replace("owner =", "org =") } else { text };
            let settings = settings(&text).unwrap();
            assert_eq!(settings.forges[0].kind.word(), kind);
        }
    }

    #[test]
    fn images_of_repositories_are_not_dropped_in_silence() {
        let gitlab = "[gitlab]\nurl = 'https://git.example.org'\ntoken = 't'\napi_token = 't'\n";
        let both = format!("{MISSION}\n{gitlab}");
        let told = parse(&both).unwrap().images_of_no_use().unwrap();
        assert!(told.contains("repo_images") && told.contains("not for [gitlab], where"), "{told}");
        assert_eq!(settings(&both).unwrap().forges.len(), 2);
        assert_eq!(parse(MISSION).unwrap().images_of_no_use(), None);
        let alone = format!("[runner]\nrepo_images = {{ a = 'b' }}\n{gitlab}");
        assert_eq!(settings(&alone).unwrap_err().message(), told);
    }

    #[test]
    fn docker_hub_is_one_registry_by_each_of_its_hosts() {
        let of = |hosts: &[&str]| {
            let section = |host: &&str| format!("[[registry]]\nhost = '{host}'\nusername = 'u'\npassword = 'p'\n");
            settings(&format!("{}{MISSION}", hosts.iter().map(section).collect::<String>()))
        };
        for host in ["docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"] {
            let settings = of(&[host, "reg.test:5000"]).unwrap();
            assert!(settings.registries.keys().eq(["docker.io", "reg.test:5000"]), "{host}");
            assert!(settings.named_registries.contains("docker.io"), "{host}");
        }
        assert!(of(&["docker.io", "index.docker.io"]).unwrap_err().chain().contains("two of docker.io"));
        assert!(of(&[""]).unwrap_err().chain().contains("host is missing"));
    }

    #[test]
    fn several_of_a_kind_have_names() {
        let two = "[[gitea]]\nname = 'a'\ninstance_url = 'http://192.0.2.2'\ntoken = 't'\n\
                   [[gitea]]\nname = 'b'\ninstance_url = 'http://192.0.2.3'\ntoken = 't'\n";
        assert_eq!(settings(two).unwrap().forges.len(), 2);
        let same = two.replace("'b'", "'a'");
        assert!(settings(&same).unwrap_err().message().contains("two forges are called a"));
    }

    #[test]
    fn mistakes_name_their_place() {
        let error = |text: &str| settings(text).unwrap_err().chain();
        let unknown = error("[gitea]\ninstance_url = 'http://192.0.2.2'\ntoken = 't'\njob_imag = 'x'\n");
        assert!(unknown.contains("line 4") && unknown.contains("job_imag"), "{unknown}");
        assert!(error("[gitlb]\n").contains("line 1"));
        assert!(error("").contains("no forge is configured"));
        let local = error("[gitea]\ninstance_url = 'http://localhost:3000'\ntoken = 't'\n");
        assert!(local.contains("localhost") && local.contains("address of this machine"), "{local}");
        assert!(error("[gitea]\ninstance_url = 'ftp://a'\ntoken = 't'\n").contains("instance_url"));
        assert!(error("[gitea]\ninstance_url = 'http://a'\n").contains("token"));
        let both = "[gitea]\ninstance_url = 'http://a'\ntoken = 't'\ntoken_env = 'T'\n";
        assert!(error(both).contains("token"), "one of them is enough");
    }

    #[test]
    fn runners_wait_only_where_any_may_have_any_job() {
        let of = |more: &str| {
            settings(&format!("[gitea]\ninstance_url = 'http://192.0.2.2'\ntoken = 't'\nwarm = 2\n{more}"))
        };
        assert_eq!(of("").unwrap().forges[0].warm, 2);
        let error = |more: &str| of(more).unwrap_err().chain();
        assert!(error("repositories = ['a/b']").contains("any repository's job"));
        assert!(error("concurrency = 1").contains("more of them than concurrency"));
        let forgejo = "[forgejo]\ninstance_url = 'http://192.0.2.2'\ntoken = 't'\nwarm = 1\n";
        assert!(settings(forgejo).unwrap_err().chain().contains("not for Forgejo"));
        for more in ["", "repos = ['x']\n"] {
            let github = settings(&format!("[github]\ntoken = 't'\norg = 'a'\nwarm = 2\n{more}"));
            assert_eq!(github.is_ok(), more.is_empty(), "{more}");
        }
    }

    #[test]
    fn jobs_are_left_out_where_the_forge_lets_that_be_kept() {
        let of = |kind: &str, more: &str| {
            let text = match kind {
                "gitlab" => "url = 'http://192.0.2.2'\ntoken = 't'\napi_token = 't'",
                "woodpecker" => "server = '192.0.2.2:9000'\nurl = 'http://192.0.2.2'\ntoken = 't'",
                "github" => "token = 't'\norg = 'a'",
                _ => "instance_url = 'http://192.0.2.2'\ntoken = 't'",
            };
            settings(&format!("[{kind}]\n{text}\n{more}\n")).map(|settings| settings.forges[0].clone())
        };
        let forge = of("forgejo", "forks = false").unwrap();
        assert!(forge.left_out.forks && !forge.depends_on_repository());
        for kind in ["forgejo", "github", "gitea"] {
            assert!(of(kind, "public_repositories = false").unwrap().depends_on_repository(), "{kind}");
            assert!(!of(kind, "public_repositories = true\nforks = true").unwrap().left_out.is_any());
        }
        let error = |kind: &str, more: &str| of(kind, more).unwrap_err().chain();
        assert!(error("gitea", "forks = false").contains("forks: Gitea hands a job to any runner"));
        assert!(error("github", "forks = false").contains("forks: GitHub gives a runner any job"));
        for kind in ["gitlab", "woodpecker"] {
            for key in ["forks", "public_repositories"] {
                assert!(error(kind, &format!("{key} = false")).contains("forks, public_repositories: "), "{kind}");
            }
        }
    }

    #[test]
    fn branches_have_caches_where_a_runner_is_for_one_job() {
        let of = |kind: &str, more: &str| {
            let text = if kind == "github" { "org = 'a'" } else { "instance_url = 'http://192.0.2.2'" };
            settings(&format!("[{kind}]\ntoken = 't'\n{text}\nbranch_caches = true\n{more}\n"))
        };
        assert!(of("forgejo", "cache_volumes = ['cargo']").unwrap().forges[0].branch_caches);
        assert!(of("gitea", "build_cache = true").unwrap_err().chain().contains("branch_caches: a runner of Gitea's"));
        assert!(of("github", "build_cache = true").unwrap_err().chain().contains("branch_caches"));
        assert!(of("forgejo", "").unwrap_err().chain().contains("there are none"));
    }

    #[test]
    fn mistakes_quote_no_secret() {
        let error = |text: &str| settings(text).unwrap_err().chain();
        let mistyped = error("[gitea]\ninstance_url = 'http://192.0.2.2'\ntokn = 'ghp_s3cr3t'\n");
        assert!(mistyped.contains("line 3: ") && mistyped.contains("tokn"), "{mistyped}");
        let unquoted = error("[gitea]\ntoken = ghp_s3cr3t\n");
        assert!(unquoted.contains("line 2: "), "{unquoted}");
        let unclosed = error("[gitea]\ntoken = 'ghp_s3cr3t\n");
        assert!(unclosed.contains("line 2: "), "{unclosed}");
        let number = error("[gitea]\n\ntoken = 73570\n");
        assert!(number.contains("line 3: ") && number.contains("in quotes"), "{number}");
        let section = error("[[registry]]\nhost = 'a'\npassword = ['s3cr3t']\n");
        assert!(section.contains("in quotes"), "{section}");
        for told in [mistyped, unquoted, unclosed, number, section] {
            assert!(!told.contains("s3cr3t") && !told.contains("73570"), "{told}");
        }
    }

    #[test]
    fn webhooks_need_a_listener() {
        let hooked = MISSION.replace("owner =", "webhook_secret = 's'\nowner =");
        let http = |text: &str| {
            let file = parse(text)?;
            file.http.read(&file.settings()?)
        };
        let error = http(&hooked).unwrap_err().chain();
        assert!(error.contains("[gitea]: webhook_secret needs [http] listen"), "{error}");
        assert_eq!(http(MISSION).unwrap(), None);
        let listening = format!("{hooked}\n[http]\nlisten = '192.0.2.2:8080'\npublic_url = 'https://ci.example.org/'");
        let listening = http(&listening).unwrap().unwrap();
        assert_eq!(listening.address.to_string(), "tcp://192.0.2.2:8080");
        assert_eq!(listening.public_url.as_deref(), Some("https://ci.example.org"));
        assert!(http(&format!("{MISSION}\n[http]\nlisten = '192.0.2.2'")).unwrap_err().chain().contains("no port"));
    }

    #[test]
    fn webhooks_are_made_where_jobs_are_told_and_nobody_has_made_one() {
        let made_at = |text: &str| {
            let (mut settings, http) = parse(text).and_then(|file| Ok((file.settings()?, file.http)))?;
            let http = http.read(&settings)?;
            make_webhooks(&mut settings, http.as_ref())?;
            Ok::<_, Error>(settings.forges[0].public_url.clone())
        };
        let http = "[http]\nlisten = '192.0.2.2:8080'\n";
        let public = format!("{http}public_url = 'https://ci.example.org'\n");
        let address = Some("https://ci.example.org".to_owned());
        assert_eq!(made_at(&format!("{MISSION}\n{http}")).unwrap(), None);
        assert_eq!(made_at(&format!("{MISSION}\n{public}")).unwrap(), address);
        let secret = MISSION.replace("owner =", "webhook_secret = 's'\nowner =");
        assert_eq!(made_at(&format!("{secret}\n{public}")).unwrap(), None, "somebody has made one");
        let off = MISSION.replace("owner =", "make_webhook = false\nowner =");
        assert_eq!(made_at(&format!("{off}\n{public}")).unwrap(), None, "it is switched off");
        assert!(made_at(&off.replace("[gitea]", "[forgejo]")).unwrap_err().chain().contains("make_webhook: "));
        let forgejo = MISSION.replace("[gitea]", "[forgejo]");
        assert_eq!(made_at(&format!("{forgejo}\n{public}")).unwrap(), None, "it has none of jobs");
        let github = "[github]\ntoken = 't'\norg = 'a'\n";
        assert_eq!(made_at(&format!("{github}{public}")).unwrap(), None, "it is asked");
        let hooked = format!("{github}discovery = 'webhook'\n");
        assert_eq!(made_at(&format!("{hooked}{public}")).unwrap(), address);
        let error = made_at(&hooked).unwrap_err().chain();
        assert!(error.contains("needs [http] public_url") && error.contains("webhook_secret"), "{error}");
    }
}
