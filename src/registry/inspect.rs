//! What a registry says of a reference, without pulling it.

use crate::{
    model::{
        Error, Result,
        image::{
            Descriptor, Platform,
            documents::{ImageDocument, Index, Manifest, media_type},
        },
        reference::Reference,
        registry_auth::RegistryAuth,
    },
    registry::{
        Registry,
        endpoint::endpoints,
        failure::Failure,
        resolve::more_telling,
        session::{FetchedManifest, Session},
    },
};

/// Configurations larger than this are not read for their platform.
const CONFIG_LIMIT: usize = 8 << 20;

/// What a reference points at.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspected {
    /// Manifest or index.
    pub target: Descriptor,
    /// For which platforms.
    pub platforms: Vec<Platform>,
}

impl Registry {
    /// Asks the endpoints in order.
    pub async fn inspect(&self, reference: &Reference, auth: &RegistryAuth) -> Result<Inspected> {
        let mut last = Failure::Other(format!("no endpoint for {}", reference.familiar_name()));
        for endpoint in endpoints(reference.registry(), &self.config).await {
            let found = match Session::open(self, endpoint, reference, auth).await {
                Ok(session) => inspect_at(&session, reference).await,
                Err(failure) => Err(failure),
            };
            match found {
                Ok(inspected) => return inspected,
                Err(failure) => last = more_telling(last, failure),
            }
        }
        Err(last.of_inspect())
    }
}

async fn inspect_at(session: &Session, reference: &Reference) -> Result<Result<Inspected>, Failure> {
    let wanted = match reference.digest() {
        Some(digest) => digest.as_str(),
        None => reference.tag().unwrap_or("latest"),
    };
    // As dockerd does: a registry that wants to know who asks is told about with this request.
    session.head_manifest(wanted).await?;
    let fetched = session.get_manifest(wanted).await?;
    Ok(read(session, fetched).await)
}

async fn read(session: &Session, fetched: FetchedManifest) -> Result<Inspected> {
    let FetchedManifest { descriptor: target, bytes } = fetched;
    let platforms = if media_type::is_index(&target.media_type) {
        Index::parse(&bytes)?.manifests.into_iter().filter_map(|entry| entry.platform).collect()
    } else if media_type::is_manifest(&target.media_type) {
        let config = session.small_blob(&Manifest::parse(&bytes)?.config, CONFIG_LIMIT).await?;
        let platform = ImageDocument::parse(&config)?.platform;
        if platform.os.is_empty() && platform.architecture.is_empty() { Vec::new() } else { vec![platform] }
    } else {
        return Err(Error::invalid(format!("unsupported manifest media type {:?}", target.media_type)));
    };
    Ok(Inspected { target, platforms })
}
