//! The one error type. Kinds are named as moby's errdefs; `edge::error` maps kinds to HTTP statuses.
//!
//! Clients search in Docker's texts, so every such text has exactly one constructor here.

use std::{error::Error as StdError, fmt};

use super::{limits, policy::Key};

/// Shorthand for results of engine and backend calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What class of failure it is; decides the HTTP status and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named object does not exist (404).
    NotFound,
    /// The request is malformed or contradicts itself (400).
    InvalidParameter,
    /// The request contradicts the present state (409).
    Conflict,
    /// The object is already in the wanted state (304).
    NotModified,
    /// Credentials are missing or wrong (401).
    Unauthorized,
    /// The request is understood and refused (403).
    Forbidden,
    /// A known call or field that we do not carry out (501).
    NotImplemented,
    /// Something we depend on is not there right now (503).
    Unavailable,
    /// Everything else (500).
    System,
}

/// A failure with the text for the client and, where there is one, its cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    is_news: bool,
    refused_by: Option<Key>,
}

impl Error {
    /// An error of `kind` with the text that the client is shown.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: bounded(message.into()), source: None, is_news: false, refused_by: None }
    }

    /// 404 with a text of one's own.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// 400 with a text of one's own.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }

    /// 409 with a text of one's own.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// 409: what a tenant has of `things` may not take more of the daemon's memory.
    pub fn no_room(things: &str, most: usize) -> Self {
        Self::conflict(format!("there is no room for more: {things} take {} together at most", limits::mib(most)))
    }

    /// 403 with a text of one's own.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// 501 with a text of one's own.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }

    /// 503 with a text of one's own.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// 500 with a text of one's own.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::System, message)
    }

    /// 304; the body stays empty, the text is for logs.
    pub fn not_modified(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotModified, message)
    }

    /// Attaches the cause; `Display` does not repeat it, [`Error::chain`] does.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says that somebody else failed, a registry or its network: news for the client, and nothing that whoever keeps this
    /// daemon should look at.
    #[must_use]
    pub fn as_news(mut self) -> Self {
        self.is_news = true;
        self
    }

    /// Whether it is only the client's news.
    pub fn is_news(&self) -> bool {
        self.is_news
    }

    /// Puts `context` in front of the text and keeps kind and cause: `context: text`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = bounded(format!("{context}: {}", self.message));
        self
    }

    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether there was no room on a disk: ours or containerd's, of which there is only the text.
    pub fn is_of_a_full_disk(&self) -> bool {
        self.chain().to_lowercase().contains("no space left on device")
    }

    /// The text for the client.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The text with all its causes, for logs and for `errorDetail` of streams: `text: cause: cause`.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let part = error.to_string();
            if !text.ends_with(&part) {
                text = format!("{text}: {part}");
            }
            cause = error.source();
        }
        bounded(text)
    }
}

/// What a stranger wrote into a name must not fill answers and logs.
fn bounded(text: String) -> String {
    match text.len() > limits::MESSAGE {
        true => limits::shown(&text, limits::MESSAGE).into_owned(),
        false => text,
    }
}

/// Docker's own texts.
impl Error {
    /// A write to a disk that has no room for it, or none that a request may take.
    pub fn no_space_left(place: &std::path::Path) -> Self {
        Self::system(format!("write {}: no space left on device", place.display()))
    }

    /// `GET /containers/{id}/json` and all others that name a container.
    pub fn no_such_container(name: &str) -> Self {
        Self::not_found(format!("No such container: {name}"))
    }

    /// `DELETE …?link=1` of a container's own name.
    pub fn default_link_name() -> Self {
        Self::system("Conflict, cannot remove the default link name of the container")
    }

    /// `GET /images/{name}/json`, `POST /containers/create` and others that name an image.
    pub fn no_such_image(reference: &str) -> Self {
        Self::not_found(format!("No such image: {reference}"))
    }

    /// `POST /containers/create` when neither the request nor the image says what to run.
    pub fn no_command_specified() -> Self {
        Self::invalid("no command specified")
    }

    /// Two mounts of a request at one place.
    pub fn duplicate_mount_point(destination: &str) -> Self {
        Self::invalid(format!("Duplicate mount point: {destination}"))
    }

    /// A bind that holds the daemon's own folders, or lies in them, with a propagation that would keep its mounts.
    pub fn propagation_in_daemon_root(root: &str, source: &str, propagation: &str) -> Self {
        Self::invalid(format!(
            "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within \
             the daemon root, daemon root: \"{root}\", bind mount source: \"{source}\", propagation: \"{propagation}\""
        ))
    }

    /// A bind of `Mounts` whose source is not there; those of `Binds` are made.
    pub fn bind_source_missing(source: &str) -> Self {
        Self::invalid(format!("invalid mount config for type \"bind\": bind source path does not exist: {source}"))
    }

    /// A bind of a path that a client named as its container sees it, when that does not run any more.
    pub fn bind_source_gone(source: &str, container: &super::id::ContainerId) -> Self {
        Self::invalid(format!(
            "invalid mount config for type \"bind\": {source} is a path in container {}, which is not running",
            container.short()
        ))
    }

    /// A path of a client that was in a container and of whose process nothing is left.
    pub fn caller_has_ended() -> Self {
        Self::invalid("the process that asks has ended: it cannot be told whose files its paths name")
    }

    /// A path of a client that is in a container and sees other files than the container's.
    pub fn caller_sees_others() -> Self {
        Self::invalid(
            "the process that asks is in a container, but sees other files than that: its paths cannot be resolved there",
        )
    }

    /// `GET /exec/{id}/json` and the other exec calls.
    pub fn no_such_exec(id: &str) -> Self {
        Self::not_found(format!("No such exec instance: {id}"))
    }

    /// A listener whose tenant is gone.
    pub fn no_such_tenant(id: &super::id::TenantId) -> Self {
        Self::not_found(format!("no such tenant: {id}"))
    }

    /// `GET /networks/{id}`.
    pub fn no_such_network(name: &str) -> Self {
        Self::not_found(format!("network {name} not found"))
    }

    /// A network's name that is taken.
    pub fn network_exists(name: &str) -> Self {
        Self::conflict(format!("network with name {name} already exists"))
    }

    /// A bridge that another network has.
    pub fn same_bridge_name(link: &str, network: &str, other: &str) -> Self {
        Self::forbidden(format!(
            "cannot create network {network} ({link}): conflicts with network {other} ({link}): networks have same bridge \
             name"
        ))
    }

    /// `DELETE /networks/{id}` while containers are attached; each is `name:"…" id:"…"`.
    pub fn network_in_use(name: &str, endpoints: &[String]) -> Self {
        Self::forbidden(format!(
            "error while removing network: network {name} has active endpoints ({})",
            endpoints.join(", ")
        ))
    }

    /// `DELETE` of bridge, host or none.
    pub fn network_is_predefined(name: &str) -> Self {
        Self::forbidden(format!("{name} is a pre-defined network and cannot be removed"))
    }

    /// `GET /volumes/{name}`.
    pub fn no_such_volume(name: &str) -> Self {
        Self::not_found(format!("get {name}: no such volume"))
    }

    /// A name of a container that is taken.
    pub fn name_in_use(name: &str, id: &str) -> Self {
        Self::conflict(format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". \
             You have to remove (or rename) that container to be able to reuse that name."
        ))
    }

    /// `HostConfig.Runtime` that is not there.
    pub fn unknown_runtime(name: &str) -> Self {
        Self::invalid(format!("unknown or invalid runtime name: {name}"))
    }

    /// Calls that need a running container: exec, pause, top, resize.
    pub fn not_running(id: &str) -> Self {
        Self::conflict(format!("container {id} is not running"))
    }

    /// Exec and others on a paused container.
    pub fn is_paused(name: &str) -> Self {
        Self::conflict(format!("Container {name} is paused, unpause the container before exec"))
    }

    /// An index that leads to more manifests than anybody builds for.
    pub fn index_too_wide() -> Self {
        Self::invalid(format!("an index leads to more than {} manifests", limits::INDEX_TOTAL))
    }

    /// An image whose manifests and configurations take more than anybody's.
    pub fn documents_too_large() -> Self {
        Self::invalid(format!("the documents of an image are larger than {}", limits::mib(limits::DOCUMENTS)))
    }

    /// A second `DELETE` while the first is under way.
    pub fn removal_in_progress(named: &str) -> Self {
        Self::conflict(format!("removal of container {named} is already in progress"))
    }

    /// A start that meets a removal.
    pub fn marked_for_removal() -> Self {
        Self::conflict("container is marked for removal and cannot be started")
    }

    /// `DELETE /containers/{id}` without force on one that runs or is paused.
    pub fn remove_running(name: &str, paused: bool) -> Self {
        let state = if paused {
            "paused and must be unpaused first"
        } else {
            "running: stop the container before removing or force remove"
        };
        Self::conflict(format!("cannot remove container \"{name}\": container is {state}"))
    }

    /// `DELETE /volumes/{name}` while containers refer to it.
    pub fn volume_in_use(name: &str, containers: &[String]) -> Self {
        Self::conflict(format!("remove {name}: volume is in use - [{}]", containers.join(", ")))
    }

    /// A blob whose bytes are not what its digest says.
    pub fn blob_verification_failed(digest: &str) -> Self {
        Self::system(format!("filesystem layer verification failed for digest {digest}"))
    }

    /// A pull or push that the registry refuses; it does not tell missing from forbidden.
    pub fn pull_access_denied(name: &str, detail: &str) -> Self {
        Self::not_found(format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': {detail}"
        ))
    }

    /// A tag or digest that the registry does not have.
    pub fn manifest_not_found(reference: &str, detail: &str) -> Self {
        Self::not_found(format!("manifest for {reference} not found: {detail}"))
    }

    /// An image, or a step of a build, would have more layers than can lie upon each other.
    pub fn max_depth_exceeded() -> Self {
        Self::system("max depth exceeded")
    }

    /// A push of a repository of which there is no image.
    pub fn no_local_tag(repository: &str) -> Self {
        Self::not_found(format!("An image does not exist locally with the tag: {repository}"))
    }

    /// A push of a tag that the repository does not have.
    pub fn tag_does_not_exist(reference: &str) -> Self {
        Self::not_found(format!("tag does not exist: {reference}"))
    }

    /// An image that is there, but for other platforms.
    pub fn platform_not_provided(reference: &str, platform: &str) -> Self {
        Self::not_found(format!(
            "image with reference {reference} was found but does not provide the specified platform ({platform})"
        ))
    }

    /// An image whose programs this machine cannot run, whatever its platform.
    pub fn foreign_system(system: &str) -> Self {
        Self::invalid(format!(
            "image operating system {system:?} cannot be used on this platform: operating system is not supported"
        ))
    }

    /// An id prefix that fits several images.
    pub fn ambiguous_image(prefix: &str) -> Self {
        Self::not_found(format!("ambiguous reference: image ID prefix {prefix} fits several images"))
    }

    /// `DELETE /images/{name}` of the last name while a container uses the image.
    pub fn image_reference_in_use(reference: &str, container: &str, image: &str) -> Self {
        Self::conflict(format!(
            "conflict: unable to remove repository reference \"{reference}\" (must force) - container {container} \
             is using its referenced image {image}"
        ))
    }

    /// `DELETE /images/{id}` that force would carry out.
    pub fn image_delete_needs_force(id: &str, reason: &str) -> Self {
        Self::conflict(format!("conflict: unable to delete {id} (must be forced) - {reason}"))
    }

    /// `DELETE /images/{id}` that not even force carries out.
    pub fn image_delete_impossible(id: &str, reason: &str) -> Self {
        Self::conflict(format!("conflict: unable to delete {id} (cannot be forced) - {reason}"))
    }

    /// `/containers/{id}/archive` of a path that is not there.
    pub fn no_such_path(path: &str, container: &str) -> Self {
        Self::not_found(format!("Could not find the file {path} in container {container}"))
    }

    /// `PUT /containers/{id}/archive` onto something that is no folder.
    pub fn not_a_directory() -> Self {
        Self::invalid("extraction point is not a directory")
    }

    /// `PUT /containers/{id}/archive` with a read-only root. Docker's description says 403; dockerd answers 400.
    pub fn rootfs_read_only() -> Self {
        Self::invalid("container rootfs is marked read-only")
    }

    /// `PUT /containers/{id}/archive` into a read-only volume or bind.
    pub fn volume_read_only() -> Self {
        Self::invalid("mounted volume is marked read-only")
    }

    /// A start with a part of a volume (`VolumeOptions.Subpath`) that is a link to elsewhere.
    pub fn escapes_volume(volume: &str, subpath: &str) -> Self {
        Self::invalid(format!("path concatenation escapes the base directory, base: {volume}, subpath: {subpath}"))
    }

    /// 500: a configuration names another tar than its manifest's layer holds.
    pub fn layer_holds_another_tar(layer: &str, diff_id: &str) -> Self {
        Self::system(format!(
            "layers from manifest don't match image configuration: layer {layer} does not hold {diff_id}"
        ))
    }

    /// 500: sockets for so many published ports would leave no descriptors for anything else.
    pub fn too_many_published_ports(ports: usize, sockets: u64, held: u64, room: u64) -> Self {
        Self::system(format!(
            "cannot publish {ports} ports: they take {sockets} sockets, and published ports may hold {room}, of which \
             {held} are taken (half of the daemon's limit of open files)"
        ))
    }

    /// 503, in Go's words: containerd is there and says nothing.
    pub fn containerd_is_silent() -> Self {
        Self::unavailable("containerd does not answer: context deadline exceeded")
    }

    /// 503 of all that needs a swarm.
    pub fn not_a_swarm_manager() -> Self {
        Self::unavailable(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node \
             to swarm and try again.",
        )
    }

    /// 404 for a plugin.
    pub fn no_such_plugin(name: &str) -> Self {
        Self::not_found(format!("plugin \"{name}\" not found"))
    }

    /// Why an update failed, with the failure's own kind.
    pub fn cannot_update(id: &str, error: Self) -> Self {
        error.context(format!("Cannot update container {id}"))
    }

    /// 403: a policy's rule does not allow what is asked. `allowed_by` is what would have to stand in the policy.
    pub fn refused_by_policy(policy: &str, rule: Key, value: &str, allowed_by: &str) -> Self {
        let text = format!("refused by the policy {policy}, rule {rule}: {value}; {allowed_by} would allow it");
        Self { refused_by: Some(rule), ..Self::forbidden(text) }
    }

    /// The same of a builder that buildx makes itself (driver `docker-container`), which is what docker/setup-buildx-action asks for if it
    /// is not told otherwise.
    #[must_use]
    pub fn or_the_default_builder(mut self) -> Self {
        self.message.push_str("; the default builder (driver: docker) needs no privileges");
        self
    }

    /// 403: such a builder asks for what the BuildKit of ours does not carry out that it would get instead of its privileges.
    pub fn beyond_our_builder(policy: &str, what: &str) -> Self {
        let text = format!(
            "refused by the policy {policy}, rule {}: without privileges a builder of buildx (driver: docker-container) is the daemon's own \
             BuildKit, which does not carry out {what}; leave it out, or use the default builder (driver: docker)",
            Key::Privileged
        );
        Self { refused_by: Some(Key::Privileged), ..Self::forbidden(text) }
    }

    /// The same of any other container of a job, which is most often a Docker daemon of its own.
    #[must_use]
    pub fn or_the_jobs_docker(mut self) -> Self {
        self.message
            .push_str("; Docker needs none in a job: leave out docker:dind, /var/run/docker.sock is the job's own");
        self
    }

    /// The rule of a policy that did not allow what was asked.
    pub fn refused_by(&self) -> Option<Key> {
        self.refused_by
    }

    /// 400: a bind of a client that may bind some paths only is of a path, not of where links lead from there.
    pub fn bind_source_has_link(path: &str) -> Self {
        Self::invalid(format!(
            "bind source path has a link on its way, which this job's policy does not let it follow: {path}"
        ))
    }

    /// 409 of a second prune of the same kind.
    pub fn prune_is_running() -> Self {
        Self::conflict("a prune operation is already running")
    }

    /// Whatever is asked of BuildKit. Plain ASCII without a percent sign: it is also said in a gRPC header.
    pub fn no_buildkit() -> Self {
        Self::not_implemented(
            "this machine has no BuildKit: install buildkitd, or name it to ringer with --buildkitd, or set \
             DOCKER_BUILDKIT=0, with which `docker build` uses the classic builder",
        )
    }

    /// The same of a tenant whose policy does not allow a rule whole that is about what BuildKit does by itself.
    pub fn buildkit_fetches_itself(policy: &str, rule: Key) -> Self {
        let text = format!(
            "refused by the policy {policy}, rule {rule}: BuildKit fetches images itself, and {rule} = true would allow it; \
             DOCKER_BUILDKIT=0 docker build uses the classic builder, which asks"
        );
        Self { refused_by: Some(rule), ..Self::forbidden(text) }
    }

    /// An option of a Dockerfile's instruction that the classic builder has not.
    pub fn requires_buildkit(option: &str) -> Self {
        Self::invalid(format!(
            "the --{option} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to \
             build images with BuildKit enabled"
        ))
    }

    /// A path of a Dockerfile that leads above its context. dockerd's parentheses are empty, too.
    pub fn outside_build_context(path: &str) -> Self {
        Self::system(format!("forbidden path outside the build context: {path} ()"))
    }

    /// A `RUN` that failed; its code stands beside the text.
    pub fn build_command_failed(command: &str, code: i64) -> Self {
        Self::system(format!("The command '{command}' returned a non-zero code: {code}"))
    }

    /// A field of create that the client's version of the API cannot mean.
    pub fn needs_api_version(what: &str, version: impl fmt::Display) -> Self {
        Self::invalid(format!("{what} needs API v{version} or newer"))
    }

    /// A container's hardware address beside another one of its main network's endpoint.
    pub fn mac_addresses_differ() -> Self {
        Self::invalid(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, \
             or be left empty",
        )
    }

    /// A container's hardware address, and no endpoint in its main network.
    pub fn mac_address_without_endpoint() -> Self {
        Self::invalid(
            "unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must match \
             the identity of a network in NetworkSettings.Networks",
        )
    }

    /// Several networks at create, before version 1.44 of the API.
    pub fn multiple_endpoints<'n>(networks: impl Iterator<Item = &'n String>) -> Self {
        let networks: Vec<_> = networks.map(String::as_str).collect();
        Self::invalid(format!("Container cannot be created with multiple network endpoints: {}", networks.join(", ")))
    }

    /// A known call that is not built yet.
    pub fn call_not_implemented(method: &str, path: &str) -> Self {
        Self::not_implemented(format!("{method} {path} is not implemented by ringer"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}

/// Adds what was being done to a failure of another library.
pub trait Context<T> {
    /// A `System` error whose text is `context: cause`, with the cause attached.
    fn context(self, context: impl fmt::Display) -> Result<T>;
}

impl<T, E: StdError + Send + Sync + 'static> Context<T> for std::result::Result<T, E> {
    fn context(self, context: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Error::system(format!("{context}: {cause}")).with_source(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_every_cause_once() {
        let cause = std::io::Error::other("disk on fire");
        let error = Err::<(), _>(cause).context("writing record").unwrap_err();
        assert_eq!(error.message(), "writing record: disk on fire");
        assert_eq!(error.chain(), "writing record: disk on fire");
    }
}
