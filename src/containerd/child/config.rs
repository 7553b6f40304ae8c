//! containerd's `config.toml`. Version 2 is read by 1.6, 1.7 and 2.x alike.

use super::ChildOptions;

/// Plugins that ringer has no use for; without them containerd starts sooner and takes less memory.
/// Names that a version does not know do no harm. The old runtime `io.containerd.runtime.v1.linux` must stay:
/// without it, 1.6 serves no tasks at all.
const DISABLED: [&str; 18] = [
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.grpc.v1.cri",
    "io.containerd.grpc.v1.sandbox-controllers",
    "io.containerd.image-verifier.v1.bindir",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.monitor.container.v1.restart",
    "io.containerd.monitor.task.v1.cgroups",
    "io.containerd.monitor.v1.cgroups",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
];

/// The whole file. JSON strings are TOML strings too, so paths with quotes survive.
pub(super) fn text(options: &ChildOptions) -> String {
    let disabled = DISABLED.map(|name| format!("  \"{name}\",\n")).concat();
    format!(
        "# Written by ringer at every start.\n\
         version = 2\n\
         root = {root:?}\n\
         state = {state:?}\n\
         disabled_plugins = [\n{disabled}]\n\n\
         [grpc]\n  address = {address:?}\n\n\
         [debug]\n  level = {level:?}\n",
        root = options.root(),
        state = options.run().join("state"),
        address = options.address(),
        level = options.log_level,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_is_toml_with_our_folders() {
        let text = text(&ChildOptions::new("/data \"x\"", "/run/ringer"));
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["root"].as_str(), Some("/data \"x\"/containerd"));
        assert_eq!(table["grpc"]["address"].as_str(), Some("/run/ringer/containerd/containerd.sock"));
        assert_eq!(table["version"].as_integer(), Some(2));
    }
}
