//! Reading a tar of images: documents into memory, everything else into blobs.

use std::{
    collections::{HashMap, HashSet},
    io::{BufReader, Read},
    path::{Component, Path},
    sync::Arc,
};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio_util::io::ReaderStream;

use super::Body;
use crate::{
    backend::images::{ImageBackend, Lease},
    engine::images::{ImageStore, tree::DOCUMENT_LIMIT},
    model::{Error, Result, error::Context, image::Descriptor, limits, reference::Digest},
    rootfs::{Bounded, Tar, decompress, is_too_long},
    work::{self, Disk, Stop, Worker},
};

/// Files that tell what the others are.
const DOCUMENTS: [&str; 4] = ["manifest.json", "repositories", "index.json", "oci-layout"];

/// Bytes that travel at once from the request to the store.
const CHUNK: usize = 1 << 20;

/// A file of the archive, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Its first bytes, which tell how a layer is packed.
    pub head: Vec<u8>,
}

/// All of an archive.
#[derive(Debug, Default)]
pub struct Archive {
    /// Contents of the documents, by path.
    pub documents: HashMap<&'static str, Vec<u8>>,
    files: HashMap<String, File>,
    /// Older docker writes a layer once and links to it from the other images that have it.
    links: HashMap<String, String>,
}

impl Archive {
    /// Whether it is an OCI layout.
    pub fn is_layout(&self) -> bool {
        self.documents.contains_key("index.json") && self.documents.contains_key("oci-layout")
    }

    /// A file by its path, through links.
    pub fn file(&self, path: &str) -> Result<&File> {
        let mut path = path;
        for _ in 0..16 {
            if let Some(file) = self.files.get(path) {
                return Ok(file);
            }
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        Err(Error::invalid(format!("invalid archive: file {path} is missing")))
    }

    /// What a layout may refer to: its own files. The store has content of others, too.
    pub fn digests(&self) -> HashSet<Digest> {
        self.files.values().map(|file| file.digest.clone()).collect()
    }

    /// A blob of a layout, as a descriptor of it says.
    pub fn blob(&self, descriptor: &Descriptor) -> Option<&File> {
        let path = descriptor.digest.as_str().replace(':', "/");
        self.files.get(&format!("blobs/{path}")).filter(|file| file.digest == descriptor.digest)
    }
}

/// Reads all of a request's body, packed or not.
pub async fn read(images: &ImageStore, disk: Disk, lease: Lease, body: Body, stop: Stop) -> Result<Archive> {
    let (worker, body) = Worker::receive(stop, ReaderStream::with_capacity(body, CHUNK)).await?;
    let backend = images.backend.clone();
    let mut reader = Reader { backend, disk, lease, handle: Handle::current(), archive: Archive::default() };
    worker
        .run("load", move || {
            reader.read_all(decompressed(body)?)?;
            Ok(reader.archive)
        })
        .await
}

/// The bytes of a body that may be packed with gzip, zstd, xz or bzip2.
pub fn decompressed(body: impl Read + 'static) -> Result<Box<dyn Read>> {
    decompress(BufReader::with_capacity(CHUNK, body))
        .map_err(|error| Error::invalid(format!("reading the body: {error}")).with_source(error))
}

struct Reader {
    backend: Arc<dyn ImageBackend>,
    disk: Disk,
    lease: Lease,
    handle: Handle,
    archive: Archive,
}

impl Reader {
    fn read_all(&mut self, body: Box<dyn Read>) -> Result<()> {
        let mut archive = Tar::new(body);
        for entry in archive.entries().map_err(|error| bad_tar(&error))? {
            work::check().context("reading the archive")?;
            self.read_entry(&mut entry.map_err(|error| bad_tar(&error))?)?;
            if self.archive.files.len() + self.archive.links.len() > limits::ARCHIVE_FILES {
                let most = limits::ARCHIVE_FILES;
                return Err(Error::invalid(format!("invalid archive: there are more than {most} files")));
            }
        }
        Ok(())
    }

    fn read_entry(&mut self, entry: &mut tar::Entry<'_, Bounded<Box<dyn Read>>>) -> Result<()> {
        let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = inside("", &raw).ok_or_else(|| outside(&raw))?;
        if path.len() > limits::PATH {
            return Err(Error::invalid(format!("invalid archive: a path is longer than {} bytes", limits::PATH)));
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                match DOCUMENTS.iter().find(|name| **name == path) {
                    Some(name) => {
                        let content = self.read_document(entry, name)?;
                        self.archive.documents.insert(name, content);
                    }
                    None => {
                        let file = self.store(entry)?;
                        self.archive.files.insert(path, file);
                    }
                }
            }
            tar::EntryType::Symlink => {
                let (folder, _) = path.rsplit_once('/').unwrap_or(("", &path));
                let target = self.link_target(entry, folder)?;
                self.archive.links.insert(path, target);
            }
            tar::EntryType::Link => {
                let target = self.link_target(entry, "")?;
                self.archive.links.insert(path, target);
            }
            // Folders, and what has no content.
            _ => {}
        }
        Ok(())
    }

    fn link_target(&self, entry: &tar::Entry<'_, Bounded<Box<dyn Read>>>, folder: &str) -> Result<String> {
        let target = String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned();
        inside(folder, &target).filter(|path| path.len() <= limits::PATH).ok_or_else(|| outside(&target))
    }

    fn read_document(&self, entry: &mut impl Read, name: &str) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        entry.take(DOCUMENT_LIMIT + 1).read_to_end(&mut content).map_err(|error| bad_tar(&error))?;
        if content.len() as u64 > DOCUMENT_LIMIT {
            return Err(Error::invalid(format!("invalid archive: {name} is larger than {DOCUMENT_LIMIT} bytes")));
        }
        Ok(content)
    }

    fn store(&mut self, entry: &mut impl Read) -> Result<File> {
        let mut writer = self.handle.block_on(self.backend.write_new_blob(&self.lease))?;
        let (mut head, mut size) = (Vec::new(), 0);
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = entry.take(CHUNK as u64).read_to_end(&mut chunk).map_err(|error| bad_tar(&error))?;
            if read == 0 {
                break;
            }
            if head.is_empty() {
                head.extend_from_slice(&chunk[..chunk.len().min(6)]);
            }
            size += read as u64;
            self.disk.step(read)?;
            self.handle.block_on(writer.write(Bytes::from(chunk)))?;
        }
        let digest = self.handle.block_on(writer.commit(HashMap::new()))?;
        Ok(File { digest, size, head })
    }
}

/// The clean path of `name` seen from `folder`; `None` if it leads out of the archive.
fn inside(folder: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

fn outside(name: &str) -> Error {
    Error::invalid(format!("invalid archive: {:?} leads out of it", limits::shown(name, limits::SHOWN)))
}

/// Go's words for a tar that is none, or that broke off.
fn bad_tar(error: &std::io::Error) -> Error {
    let text = error.to_string();
    let broken_off = error.kind() == std::io::ErrorKind::UnexpectedEof || text.contains("unexpected EOF");
    let is_header = text.contains("numeric field") || text.contains("cksum") || text.contains("checksum");
    match () {
        () if is_too_long(error) => Error::system(text),
        () if is_header => Error::invalid("archive/tar: invalid tar header"),
        () if broken_off || text.contains("failed to read entire block") => Error::invalid("unexpected EOF"),
        () => Error::invalid(format!("reading the archive: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(inside("a", "../b/./c").as_deref(), Some("b/c"));
        assert_eq!(inside("", "./manifest.json").as_deref(), Some("manifest.json"));
        assert_eq!(inside("", "../x"), None);
        assert_eq!(inside("a", "../../x"), None);
        assert_eq!(inside("", "/etc/passwd"), None);
    }

    #[test]
    fn all_packings_are_told_by_their_first_bytes() {
        use std::io::Write as _;
        let plain = b"hello, hello, hello".as_slice();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(plain).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(plain).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(plain).unwrap();
        let zstd = zstd::encode_all(plain, 1).unwrap();
        for packed in [plain.to_vec(), gzip.finish().unwrap(), xz.finish().unwrap(), bzip2.finish().unwrap(), zstd] {
            let mut read = Vec::new();
            decompressed(std::io::Cursor::new(packed)).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, plain);
        }
        let mut empty = Vec::new();
        decompressed(std::io::empty()).unwrap().read_to_end(&mut empty).unwrap();
        assert!(empty.is_empty());
    }
}
