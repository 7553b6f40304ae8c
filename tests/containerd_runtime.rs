//! The runtime adapter on real containerds: the contract suite on each version, and what a fake cannot show.

#[path = "support/runtime.rs"]
mod support;

mod installed {
    use super::support::{Instance, Version};

    ringer::runtime_contract!(async { Instance::start(Version::Installed).await.map(Instance::into_bench) });
}

mod v17 {
    use super::support::{Instance, Version};

    ringer::runtime_contract!(async { Instance::start(Version::V17).await.map(Instance::into_bench) });
}

mod v21 {
    use super::support::{Instance, Version};

    ringer::runtime_contract!(async { Instance::start(Version::V21).await.map(Instance::into_bench) });
}
