//! What tests of several forges need.

use std::collections::BTreeSet;

use super::*;
use crate::{
    model::job::JobLimits,
    supervisor::{
        images::Images,
        origin::LeftOut,
        settings::{Access, Mode, Proxies},
    },
};

/// A forge of a kind with all that is optional left out.
pub fn settings(kind: Kind, url: String) -> ForgeSettings {
    ForgeSettings {
        name: "lab".to_owned(),
        kind,
        url,
        access: Access::Token(Secret::new("token-x")),
        poll_interval: Duration::from_secs(3),
        webhook_secret: None,
        may_make_webhook: true,
        public_url: None,
        owner: None,
        mode: Mode::Socket,
        labels: BTreeSet::new(),
        concurrency: 1,
        warm: 0,
        limits: JobLimits::default(),
        job_timeout: Duration::from_secs(60),
        policy: None,
        hosts: Vec::new(),
        authorities: None,
        proxies: Proxies::default(),
        repositories: None,
        left_out: LeftOut::default(),
        cache_volumes: Vec::new(),
        build_cache: false,
        branch_caches: false,
        reuse_registrations: false,
        images: Images::default(),
    }
}
