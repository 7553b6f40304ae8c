//! Jobs on fakes.

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::*;
use crate::{
    backend::{
        images::{ImageBackend, samples::tar},
        projects::Room,
        runtime::{RootfsMount, Runtime},
    },
    engine::{
        config::EngineConfig,
        containers::list::ListOptions,
        images::{Body, ImportRequest},
        tenants::Scope,
        testing::Fakes,
    },
    model::{
        ErrorKind,
        container::{Config, ContainerCreateRequest, HostConfig},
        filters::Filters,
        id::TenantId,
        job::JobLimits,
        network::{NetworkCreateRequest, Opening, Protocol},
        volume::VolumeRequest,
    },
    oci::HostFacts,
};

/// Nothing here takes longer, on the slowest machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Sockets that are plain files.
#[derive(Clone, Default)]
struct FakeDoors {
    open: Arc<AtomicUsize>,
    refusal: Arc<Mutex<Option<&'static str>>>,
}

impl Doors for FakeDoors {
    fn open(&self, _: &JobRecord, socket: &Path) -> Result<Box<dyn Door>> {
        if let Some(why) = *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(Error::system(why));
        }
        std::fs::write(socket, "").context("making a fake socket")?;
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeDoor { open: self.open.clone(), socket: socket.to_owned() }))
    }
}

struct FakeDoor {
    open: Arc<AtomicUsize>,
    socket: PathBuf,
}

#[async_trait]
impl Door for FakeDoor {
    async fn close(self: Box<Self>) {
        std::fs::remove_file(&self.socket).unwrap();
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Bench {
    fakes: Fakes,
    doors: FakeDoors,
}

impl Bench {
    async fn new() -> Self {
        Self::with(EngineConfig::default()).await
    }

    async fn with(config: EngineConfig) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (fakes, doors) = (Fakes::open_with(HostFacts::detect(), folder, config).await, FakeDoors::default());
        fakes.engine.serve_jobs(Arc::new(doors.clone())).await;
        Self { fakes, doors }
    }

    fn engine(&self) -> &Engine {
        &self.fakes.engine
    }

    async fn job(&self, name: &str) -> JobView {
        let request = JobRequest { name: Some(name.to_owned()), ..JobRequest::default() };
        self.engine().job_create(request).await.unwrap()
    }

    fn scope(&self, job: &JobView) -> Scope {
        self.engine().scope_of(&job.record.id).unwrap()
    }

    /// An image, a running container on it, a network and a volume.
    async fn fill(&self, job: &JobView) {
        let (engine, scope) = (self.engine(), self.scope(job));
        self.import(&scope).await;
        engine
            .volume_create(&scope, VolumeRequest { name: "cache".to_owned(), ..VolumeRequest::default() })
            .await
            .unwrap();
        let request = NetworkCreateRequest { name: "ci".to_owned(), ..NetworkCreateRequest::default() };
        engine.network_create(&scope, request).await.unwrap();
        let binds = Some(vec!["cache:/cache".to_owned()]);
        self.start(&scope, "web", HostConfig { binds, ..HostConfig::default() }).await;
    }

    async fn import(&self, scope: &Scope) {
        let request = ImportRequest { repository: "box".to_owned(), ..ImportRequest::default() };
        let body: Body = Box::pin(std::io::Cursor::new(tar(&[])));
        self.engine().image_import(scope, &request, body).await.unwrap();
    }

    /// A container on that image.
    async fn start(&self, scope: &Scope, name: &str, host_config: HostConfig) {
        let request = ContainerCreateRequest {
            name: Some(name.to_owned()),
            config: Config {
                image: "box".to_owned(),
                cmd: Some(["sh", "-c", "sleep 1000"].map(str::to_owned).to_vec()),
                ..Config::default()
            },
            host_config,
            ..ContainerCreateRequest::default()
        };
        self.engine().container_create(scope, request).await.unwrap();
        self.engine().container_start(scope, name).await.unwrap();
    }

    /// Waits until no job of that name is there.
    async fn until_gone(&self, name: &str) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while self.engine().job_inspect(name).is_ok() {
            assert!(tokio::time::Instant::now() < deadline, "job {name} is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn jobs_have_the_same_names_and_what_one_had_goes_with_it() {
    let bench = Bench::new().await;
    let (first, second) = (bench.job("first").await, bench.job("second").await);
    bench.fill(&first).await;
    bench.fill(&second).await;
    assert_eq!(bench.doors.open.load(Ordering::SeqCst), 2);

    let report = bench.engine().job_delete("first").await.unwrap();
    assert_eq!((report.containers, report.networks, report.volumes, report.images), (1, 1, 1, 1));
    assert_eq!(bench.doors.open.load(Ordering::SeqCst), 1);
    assert!(!first.socket.parent().unwrap().exists());
    let engine = bench.engine();
    assert!(bench.engine().scope_of(&first.record.id).is_err());
    assert!(engine.containers.list_all().iter().all(|container| container.record().tenant == second.record.id));
    assert!(engine.networks.list(&first.record.id).is_empty());
    assert_eq!(engine.volumes.tenants_with_some(), [second.record.id.clone()].into());
    assert!(bench.fakes.hosts.of_job(&first.record.id).is_none());
    assert!(engine.images.backend.list_images(&first.record.id).await.unwrap().is_empty());
    let data = bench.fakes.folder.path().join("data");
    for left in [format!("jobs/{}.json", first.record.id), format!("tenants/{}", first.record.id)] {
        assert!(!data.join(&left).exists(), "{left}");
    }

    let scope = bench.scope(&second);
    assert!(engine.container_inspect(&scope, "web", false).await.is_ok(), "the other job's goes on");
    assert_eq!(engine.network_list(&scope, &Filters::default()).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_job_ends_with_its_owner_and_with_its_time() {
    let bench = Bench::new().await;
    let mut owner = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(owner.id()).unwrap();
    let request = JobRequest { name: Some("owned".to_owned()), owner_pid: Some(pid), ..JobRequest::default() };
    bench.engine().job_create(request).await.unwrap();
    let request = JobRequest { name: Some("short".to_owned()), ttl: Some(1), ..JobRequest::default() };
    let short = bench.engine().job_create(request).await.unwrap();
    bench.fill(&short).await;
    bench.until_gone("short").await;
    assert!(bench.engine().job_inspect("owned").is_ok());
    owner.kill().unwrap();
    bench.until_gone("owned").await;
    owner.wait().unwrap();
}

#[tokio::test]
async fn a_job_that_is_extended_stays() {
    let bench = Bench::new().await;
    let request = JobRequest { name: Some("short".to_owned()), ttl: Some(1), ..JobRequest::default() };
    let job = bench.engine().job_create(request).await.unwrap();
    let extended = bench.engine().job_extend("short", 3600, false).unwrap();
    assert!(extended.record.expires > job.record.expires);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(bench.engine().job_inspect("short").unwrap().record.ending.is_none());
    assert_eq!(bench.engine().job_extend("nobody", 1, false).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(bench.engine().job_extend("short", 0, false).is_err());
}

#[tokio::test]
async fn what_cannot_be_made_leaves_nothing() {
    let bench = Bench::new().await;
    *bench.doors.refusal.lock().unwrap() = Some("no room for a socket");
    let error = bench.engine().job_create(JobRequest::default()).await.unwrap_err();
    assert_eq!(error.message(), "making a job: no room for a socket");
    assert!(bench.engine().job_list().is_empty());
    assert_eq!(bench.engine().tenants.list().len(), 1, "the default tenant");
    for (request, message) in [
        (JobRequest { name: Some("a b".to_owned()), ..JobRequest::default() }, "invalid name of a job"),
        (JobRequest { owner_pid: Some(-1), ..JobRequest::default() }, "no process -1"),
        (JobRequest { ttl: Some(0), ..JobRequest::default() }, "invalid ttl"),
    ] {
        let error = bench.engine().job_create(request).await.unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidParameter && error.message().starts_with(message), "{error}");
    }
    *bench.doors.refusal.lock().unwrap() = None;
    bench.job("one").await;
    let again = JobRequest { name: Some("one".to_owned()), ..JobRequest::default() };
    assert_eq!(bench.engine().job_create(again).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn the_host_of_a_job_stays_until_those_that_were_let_in_are_gone() {
    let bench = Bench::new().await;
    let engine = bench.engine();
    let from = |other: &str, uid| {
        engine.job_create(JobRequest { network_from: Some(other.to_owned()), uid, ..JobRequest::default() })
    };
    let own = bench.job("own").await.record.id.clone();
    let guest = from("own", 0).await.unwrap().record.id.clone();
    assert_eq!(
        from("own", 7).await.unwrap_err().message(),
        "job own is of another user: its network is not given away"
    );
    assert_eq!(from("none", 0).await.unwrap_err().kind(), ErrorKind::NotFound);
    let hosts = &bench.fakes.hosts;
    assert!(hosts.of_job(&own).is_some() && hosts.of_job(&guest).is_none());
    engine.job_delete("own").await.unwrap();
    let third = from(guest.as_str(), 0).await.unwrap();
    assert_eq!(third.record.host.as_ref(), Some(&own), "whose host it is stays said");
    engine.job_delete(guest.as_str()).await.unwrap();
    assert!(hosts.of_job(&own).is_some());
    engine.job_delete(third.record.id.as_str()).await.unwrap();
    assert!(hosts.of_job(&own).is_none());
}

#[tokio::test]
async fn a_removal_that_fails_is_tried_again() {
    let bench = Bench::new().await;
    let job = bench.job("stubborn").await;
    bench.fill(&job).await;
    bench.fakes.network.fail("remove_host");
    let engine = bench.engine().clone();
    let removal = tokio::spawn(async move { engine.job_delete("stubborn").await });
    let deadline = tokio::time::Instant::now() + LIMIT;
    while bench.engine().job_inspect("stubborn").unwrap().trouble.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "its trouble is not told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let other = bench.job("other").await;
    bench.fill(&other).await;
    bench.fakes.network.recover();
    let report = removal.await.unwrap().unwrap();
    assert_eq!((report.containers, report.networks), (1, 1), "what was removed at the first try counts");
}

#[tokio::test]
async fn a_container_that_is_being_made_goes_with_its_job() {
    let bench = Bench::new().await;
    let job = bench.job("busy").await;
    bench.fill(&job).await;
    // As a request has it that is under way.
    let scope = bench.scope(&job);
    let engine = bench.engine().clone();
    let removal = tokio::spawn(async move { engine.job_delete("busy").await });
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !bench.engine().containers.list_all().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the first container stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(bench.engine().job_inspect("busy").is_ok(), "it waits for what is under way");
    let config = Config { image: "box".to_owned(), cmd: Some(vec!["sh".to_owned()]), ..Config::default() };
    let late = ContainerCreateRequest { config, ..ContainerCreateRequest::default() };
    bench.engine().container_create(&scope, late).await.unwrap();
    assert_eq!(
        bench.engine().scope_of(&job.record.id).unwrap_err().kind(),
        ErrorKind::NotFound,
        "nobody else is let in"
    );
    drop(scope);
    assert_eq!(removal.await.unwrap().unwrap().containers, 2);
    assert!(bench.engine().containers.list_all().is_empty());
}

#[tokio::test]
async fn a_runner_is_in_its_jobs_host_and_goes_with_it_unseen() {
    let bench = Bench::new().await;
    let openings = [Opening { protocol: Protocol::Tcp, address: "192.0.2.2:3000".parse().unwrap() }].into();
    let hosts = vec![("forge".to_owned(), "192.0.2.2".parse().unwrap())];
    let surroundings = job::Surroundings { hosts, ..job::Surroundings::default() };
    let request = JobRequest { name: Some("first".to_owned()), openings, surroundings, ..JobRequest::default() };
    let job = bench.engine().job_create(request.clone()).await.unwrap();
    bench.fill(&job).await;
    let engine = bench.engine();
    let (scope, runner) = (bench.scope(&job), engine.scope_of(&job.record.id.of_runner()).unwrap());
    assert!(Arc::ptr_eq(scope.network(), runner.network()), "one host");
    assert_eq!(runner.socket(), Some(&*job.socket), "the socket that it gives its runner");
    assert_eq!(bench.fakes.hosts.of_job(&job.record.id).unwrap().state().openings, request.openings);

    bench.import(&runner).await;
    let in_host = HostConfig { network_mode: "host".into(), ..HostConfig::default() };
    bench.start(&runner, "runner", in_host).await;
    assert!(engine.container_inspect(&scope, "runner", false).await.is_err(), "the job does not know it");
    assert_eq!(engine.container_list(&scope, &ListOptions::default()).unwrap().len(), 1);
    for (scope, name) in [(&runner, "runner"), (&scope, "web")] {
        let container = engine.containers.get(scope.tenant(), name).unwrap();
        let hosts = std::fs::read_to_string(engine.container_dir(container.id()).join("hosts")).unwrap();
        assert!(hosts.contains("192.0.2.2\tforge\n"), "{hosts}");
    }

    drop((scope, runner));
    let report = engine.job_delete("first").await.unwrap();
    assert_eq!((report.containers, report.networks, report.volumes, report.images), (1, 1, 1, 1), "only the job's");
    assert!(engine.containers.list_all().is_empty());
    assert!(engine.scope_of(&job.record.id.of_runner()).is_err());
    assert!(engine.networks.tenants_with_some().iter().all(|tenant| *tenant == TenantId::default_tenant()));
}

#[tokio::test]
async fn jobs_have_what_is_preloaded_and_take_nothing_of_it_along() {
    let image = crate::model::reference::Reference::parse("box:latest").unwrap();
    let bench = Bench::with(EngineConfig { preload: vec![image.clone()], ..EngineConfig::default() }).await;
    let default = bench.engine().default_scope();
    let before = bench.job("before").await;
    bench.import(&default).await;
    let job = bench.job("after").await;
    let names = async |tenant: &TenantId| bench.fakes.images.list_images(tenant).await.unwrap().len();
    let (id, runner) = (&job.record.id, bench.engine().scope_of(&job.record.id.of_runner()).unwrap());
    assert_eq!((names(&before.record.id).await, names(id).await, names(runner.tenant()).await), (0, 1, 0));
    let other = crate::model::reference::Reference::parse("other:latest").unwrap();
    assert!(!bench.engine().take_preloaded(&runner, &other).await.unwrap());
    assert!(bench.engine().take_preloaded(&runner, &image).await.unwrap());
    assert_eq!(names(runner.tenant()).await, 1);
    drop(runner);
    bench.start(&bench.scope(&job), "web", HostConfig::default()).await;
    let report = bench.engine().job_delete("after").await.unwrap();
    assert_eq!((report.containers, report.images), (1, 0));
    assert_eq!(names(&job.record.id.of_runner()).await, 0);
    bench.start(&default, "web", HostConfig::default()).await;
}

/// A job with a cache volume, and the folder that is bound there.
async fn with_cache(bench: &Bench, key: &str) -> (JobView, PathBuf) {
    let volume = "cargo".parse().unwrap();
    let request = JobRequest { cache_key: Some(key.to_owned()), cache_volumes: vec![volume], ..JobRequest::default() };
    let job = bench.engine().job_create(request).await.unwrap();
    let info = bench.engine().volume_inspect(&bench.scope(&job), "cargo").await.unwrap();
    (job, info.volume.options.as_ref().unwrap()["device"].clone().into())
}

/// Ends a job and waits until the last of its caches is measured.
async fn end(bench: &Bench, job: &JobView) -> JobReport {
    let report = bench.engine().job_delete(job.record.id.as_str()).await.unwrap();
    let deadline = tokio::time::Instant::now() + LIMIT;
    while bench.engine().is_measuring_caches() {
        assert!(tokio::time::Instant::now() < deadline, "caches are measured for ever");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    report
}

#[tokio::test]
async fn cache_volumes_go_when_they_are_unused_and_too_much() {
    let bench = Bench::with(EngineConfig { cache_max_bytes: Some(100 << 10), ..EngineConfig::default() }).await;
    let (used, of_used) = with_cache(&bench, "used").await;
    let (first, of_first) = with_cache(&bench, "first").await;
    std::fs::write(of_used.join("file"), [1; 200 << 10]).unwrap();
    std::fs::write(of_first.join("file"), [1; 80 << 10]).unwrap();
    // Holes take no room, neither their own nor that of others.
    std::fs::File::create(of_first.join("holes")).unwrap().set_len(1 << 40).unwrap();
    end(&bench, &first).await;
    assert!(of_used.exists(), "a job uses it");
    assert!(of_first.exists(), "it has room");

    let (second, of_second) = with_cache(&bench, "second").await;
    std::fs::write(of_second.join("file"), [1; 80 << 10]).unwrap();
    assert_eq!(end(&bench, &second).await.volumes, 0, "it is not removed with the job");
    assert!(of_second.exists() && !of_first.exists(), "the longest unused goes");
    assert!(of_used.exists());
    end(&bench, &used).await;
    assert!(!of_used.exists() && of_second.exists(), "it never had room");
}

#[tokio::test]
async fn cache_volumes_go_when_nobody_has_used_them_for_long() {
    let bench = Bench::with(EngineConfig { cache_max_age: Some(Duration::ZERO), ..EngineConfig::default() }).await;
    let (job, folder) = with_cache(&bench, "old").await;
    bench.engine().trim_cache_volumes().await;
    assert!(folder.exists(), "a job uses it");
    end(&bench, &job).await;
    assert!(!folder.exists());
}

/// A record of a later version, say, is left alone, and so is what it is of.
#[tokio::test]
async fn a_cache_volume_whose_record_cannot_be_read_is_kept() {
    let bench = Bench::new().await;
    let (job, folder) = with_cache(&bench, "kept").await;
    std::fs::write(folder.join("file"), "x").unwrap();
    end(&bench, &job).await;
    let (contents, records) = (folder.parent().unwrap(), folder.ancestors().nth(2).unwrap().join("caches"));
    let id = folder.file_name().unwrap().to_str().unwrap();
    std::fs::write(records.join(format!("{id}.json")), "torn").unwrap();
    std::fs::create_dir(contents.join(".removed-x")).unwrap();
    std::fs::create_dir(contents.join("without-a-record")).unwrap();
    let store = CacheStore::open(contents.parent().unwrap()).unwrap();
    store.remove_leftovers().unwrap();
    let left: Vec<_> = std::fs::read_dir(contents).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [id]);
    assert!(folder.join("file").exists());
}

#[tokio::test]
async fn a_jobs_disk_is_limited_by_the_file_system_where_that_can() {
    let bench = Bench::new().await;
    let limits = JobLimits { disk: Some(1 << 30), ..JobLimits::default() };
    let limited = async |name: &str, limits| {
        let request = JobRequest { name: Some(name.to_owned()), limits, ..JobRequest::default() };
        bench.engine().job_create(request).await.unwrap()
    };
    let watched = limited("watched", limits).await;
    assert_eq!((watched.disk_quota.as_slice(), watched.record.project), ([].as_slice(), None));

    let projects = &bench.fakes.projects;
    projects.limit_from_now_on();
    let boundless = limited("boundless", JobLimits::default()).await;
    assert_eq!(boundless.record.project, None);
    let kept = limited("kept", limits).await;
    assert_eq!(kept.disk_quota, [DiskPlace::Layers, DiskPlace::Volumes]);
    let project = kept.record.project.unwrap();
    assert_eq!(projects.rooms(), [(project, Room { taken: 0, most: Some(1 << 30) })]);

    for (job, project) in [(&watched, None), (&kept, Some(project))] {
        bench.fill(job).await;
        let container = bench.engine().containers.list(&job.record.id)[0].id().clone();
        let rootfs = bench.fakes.runtime.rootfs(&container).await.unwrap();
        let volume = bench.engine().volumes.mountpoint(&job.record.id, "cache");
        for folder in [RootfsMount::own_folders(&rootfs).unwrap().0, volume] {
            assert_eq!(projects.of(&folder), project, "{}", folder.display());
        }
    }
    bench.engine().job_delete("kept").await.unwrap();
    assert!(projects.rooms().is_empty(), "the number is nobody's again");
}
