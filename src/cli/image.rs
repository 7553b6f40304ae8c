//! `ringer image`: what is done with images where no daemon runs, on the hosts of virtual machines.

mod spool;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use ringer::{
    model::{
        Error, Result,
        error::Context,
        image::{
            Descriptor, Platform,
            documents::{ImageDocument, Index, Manifest, media_type},
        },
        limits,
        registry_auth::RegistryAuth,
    },
    registry::{Registry, RegistryConfig, Resolved, Session},
    rootfs::RootView,
};

use self::spool::Spool;
use super::{
    in_runtime,
    values::{Bytes, Image},
};

/// `ringer image`.
#[derive(Args, Debug)]
pub struct ImageCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetch an image and unpack its files into a folder, which a virtual machine is then given
    Unpack(Unpack),
}

impl ImageCommand {
    /// Does it; 1 is a failure, after which the folder is empty again.
    pub fn run(self) -> ExitCode {
        let Verb::Unpack(unpack) = self.verb;
        in_runtime(async move {
            println!("{}", unpack.run().await?);
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// `ringer image unpack`.
#[derive(Args, Debug)]
struct Unpack {
    /// Name of the image at its registry
    #[arg(value_name = "IMAGE")]
    image: Image,
    /// Where its files go: a folder that is empty, or not there yet
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Platform of the files, where the image has several; this machine's unless said. darwin/ARCH takes linux/ARCH where there is
    /// nothing else
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Most bytes that the files may take together
    #[arg(long, value_name = "BYTES", default_value = "16g")]
    max_size: Bytes,
    /// Who asks the registry
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// File with that user's password
    #[arg(long, value_name = "PATH", requires = "username")]
    password_file: Option<PathBuf>,
    /// Registry, host[:port] or CIDR, whose certificate is not checked and that may speak plain HTTP
    #[arg(long, value_name = "REGISTRY")]
    insecure_registry: Vec<String>,
    /// URL that is asked before Docker Hub
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
}

impl Unpack {
    async fn run(&self) -> Result<String> {
        let config = RegistryConfig {
            insecure: self.insecure_registry.clone(),
            mirrors: self.registry_mirror.clone(),
            ..RegistryConfig::default()
        };
        let (registry, auth) = (Registry::new(config)?, self.auth()?);
        let resolved = registry.resolve(&self.image.0, &auth, &|_| None).await?;
        let source = Source::read(resolved, self.platform.clone().unwrap_or_else(Platform::host)).await?;
        fs::create_dir_all(&self.folder).context(format!("making {}", self.folder.display()))?;
        let view = RootView::of_empty_folder(&self.folder)?;
        if let Err(error) = source.unpack(&view, &self.folder, self.max_size.0).await {
            if let Err(left) = view.clear() {
                eprintln!("ringer: emptying {}: {left}", self.folder.display());
            }
            return Err(error);
        }
        Ok(format!("{} {}", source.manifest.digest, source.document.platform))
    }

    fn auth(&self) -> Result<RegistryAuth> {
        let (Some(username), Some(file)) = (&self.username, &self.password_file) else {
            return Ok(RegistryAuth::default());
        };
        let password = fs::read_to_string(file).context(format!("reading {}", file.display()))?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        Ok(RegistryAuth { username: username.clone(), password, ..RegistryAuth::default() })
    }
}

/// An image for one platform at its registry.
struct Source {
    session: Session,
    manifest: Descriptor,
    layers: Vec<Descriptor>,
    document: ImageDocument,
}

impl Source {
    async fn read(resolved: Resolved, wanted: Platform) -> Result<Self> {
        let Resolved { session, target, fetched } = resolved;
        let mut fetched = fetched.expect("nothing was said to be here already");
        if media_type::is_index(&target.media_type) {
            let index = Index::parse(&fetched.bytes)?;
            fetched = session.manifest(choose(&wanted, &index.manifests)?).await?;
        }
        let Manifest { config, layers, .. } = Manifest::parse(&fetched.bytes)?;
        let document = ImageDocument::parse(&session.small_blob(&config, limits::DOCUMENT).await?)?;
        if layers.len() != document.rootfs.diff_ids.len() {
            return Err(Error::system("the image's manifest and configuration tell of different layers"));
        }
        Ok(Self { session, manifest: fetched.descriptor, layers, document })
    }

    async fn unpack(&self, view: &RootView, folder: &Path, mut left: u64) -> Result<()> {
        for (layer, diff_id) in self.layers.iter().zip(&self.document.rootfs.diff_ids) {
            if layer.size > left {
                return Err(Error::invalid(format!("layer {} is larger than is allowed (--max-size)", layer.digest)));
            }
            let mut spool = Spool::new(folder)?;
            self.session.download(layer, &mut spool, &mut |_| {}).await?;
            let unpacked = spool.verified(layer).and_then(|file| view.unpack_layer(&file, diff_id, left));
            left = unpacked.map_err(|error| error.context(format!("unpacking layer {}", layer.digest)))?;
        }
        Ok(())
    }
}

/// Files for macOS are mostly put into an image by a build for Linux, which names that.
fn choose<'a>(wanted: &Platform, manifests: &'a [Descriptor]) -> Result<&'a Descriptor> {
    let as_linux = || match wanted.normalized().os.as_str() {
        "darwin" => Platform::choose(&Platform { os: "linux".to_owned(), ..wanted.clone() }, manifests),
        _ => None,
    };
    Platform::choose(wanted, manifests).or_else(as_linux).ok_or_else(|| {
        let there: Vec<_> = manifests.iter().filter_map(|entry| Some(entry.platform.as_ref()?.to_string())).collect();
        Error::not_found(format!("no matching manifest for {wanted}; the image is for {}", there.join(", ")))
    })
}
