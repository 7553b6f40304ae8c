//! The entries of a tar that a stranger made. The `tar` crate reads the records that lie before an entry (GNU's long
//! names and links, PAX, maps of sparse files) into memory, whatever size they say; here they have an end.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

use tar::{Archive, Entry, EntryType};

use crate::model::limits;

const BLOCK: u64 = 512;

/// A tar whose entries can be gone through.
pub struct Tar<R: Read> {
    archive: Archive<Bounded<R>>,
    bounds: Rc<Bounds>,
}

/// Go's words, which dockerd answers.
const TOO_LONG: &str = "archive/tar: header field too long";

/// Whether an error is that of records without end.
pub fn is_too_long(error: &io::Error) -> bool {
    error.to_string().contains(TOO_LONG)
}

impl<R: Read> Tar<R> {
    /// Reads `body`, which is not compressed.
    pub fn new(body: R) -> Self {
        let bounds = Rc::new(Bounds::default());
        Self { archive: Archive::new(Bounded { body, bounds: bounds.clone() }), bounds }
    }

    /// The entries in their order. What is not read of one is skipped. The archive may end right after the content of its last one, as with Go:
    /// `docker build -f` of a Dockerfile beside the context sends it so.
    pub fn entries(&mut self) -> io::Result<Entries<'_, R>> {
        Ok(Entries { entries: self.archive.entries()?, bounds: self.bounds.clone(), end: 0 })
    }
}

/// Goes through a tar.
pub struct Entries<'a, R: Read + 'a> {
    entries: tar::Entries<'a, Bounded<R>>,
    bounds: Rc<Bounds>,
    /// Where the last entry's content ends.
    end: u64,
}

impl<'a, R: Read> Iterator for Entries<'a, R> {
    type Item = io::Result<Entry<'a, Bounded<R>>>;

    fn next(&mut self) -> Option<Self::Item> {
        // The rest of the last entry is passed over piece by piece; all after it is kept.
        let rest = self.end.saturating_sub(self.bounds.read.get());
        self.bounds.left.set(Some(rest.saturating_add(limits::TAR_RECORDS)));
        let next = self.entries.next();
        self.bounds.left.set(None);
        let mut entry = match next? {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        Some(self.content(&mut entry).map(|size| {
            let begin = self.bounds.read.get();
            self.end = begin.saturating_add(size.next_multiple_of(BLOCK));
            self.bounds.padding.set((begin.saturating_add(size), self.end));
            entry
        }))
    }
}

impl<R: Read> Entries<'_, R> {
    /// Bytes that the archive holds of an entry.
    fn content(&self, entry: &mut Entry<'_, Bounded<R>>) -> io::Result<u64> {
        let is_sparse = entry.header().entry_type() == EntryType::GNUSparse;
        let (whole, stored) = (entry.size(), entry.header().entry_size()?);
        if entry.header().entry_type() == EntryType::XGlobalHeader && whole > limits::TAR_RECORDS {
            return Err(io::Error::other(TOO_LONG));
        }
        // A size in PAX records stands above that of the header; GNU's sparse files have none.
        let is_size =
            |record: io::Result<tar::PaxExtension<'_>>| record.is_ok_and(|record| record.key_bytes() == b"size");
        if is_sparse && entry.pax_extensions()?.is_some_and(|mut records| records.any(is_size)) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(if is_sparse { stored } else { whole }.min(u64::MAX - BLOCK))
    }
}

/// What has been read, and what may still be read before the next entry is there; `None` within an entry.
#[derive(Default)]
struct Bounds {
    read: Cell<u64>,
    left: Cell<Option<u64>>,
    /// From where to where the last entry's content is filled up to a block.
    padding: Cell<(u64, u64)>,
}

impl Bounds {
    /// What is missing of that.
    fn missing(&self) -> u64 {
        let ((from, to), at) = (self.padding.get(), self.read.get());
        if at < from { 0 } else { to.saturating_sub(at) }
    }
}

/// The bytes of a tar, counted.
pub struct Bounded<R> {
    body: R,
    bounds: Rc<Bounds>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = match self.bounds.left.get() {
            Some(0) if !into.is_empty() => return Err(io::Error::other(TOO_LONG)),
            Some(left) => into.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
            None => into.len(),
        };
        let mut read = self.body.read(&mut into[..most])?;
        if read == 0 {
            read = usize::try_from(self.bounds.missing()).unwrap_or(usize::MAX).min(most);
            into[..read].fill(0);
        }
        let count = read as u64;
        self.bounds.read.set(self.bounds.read.get() + count);
        self.bounds.left.set(self.bounds.left.get().map(|left| left - count));
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_path("name").unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header
    }

    /// The header, and so many bytes of content that nobody has anywhere.
    fn endless(header: &tar::Header, size: u64) -> impl Read + use<> {
        io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'a').take(size.next_multiple_of(BLOCK)))
    }

    #[test]
    fn records_without_end_are_refused_as_soon_as_they_are_too_long() {
        let size = 2 << 30;
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
            let mut tar = Tar::new(endless(&header(kind, size), size));
            let said = tar.entries().unwrap().next().unwrap().err().expect("refused");
            assert_eq!(said.to_string(), TOO_LONG, "{kind:?}");
            assert!(tar.bounds.read.get() < 4 << 20, "{kind:?}");
        }
    }

    #[test]
    fn a_content_that_was_not_read_gives_no_room_for_records() {
        let (file, name) = (header(EntryType::Regular, 64 << 20), header(EntryType::GNULongName, 32 << 20));
        let content = io::repeat(b'x').take(64 << 20);
        let mut tar = Tar::new(file.as_bytes()[..].chain(content).chain(endless(&name, 32 << 20)));
        let mut entries = tar.entries().unwrap();
        assert_eq!(entries.next().unwrap().unwrap().size(), 64 << 20);
        assert!(is_too_long(&entries.next().unwrap().err().unwrap()));
    }

    fn sizes(bytes: &[u8]) -> io::Result<Vec<usize>> {
        let (mut tar, mut sizes) = (Tar::new(bytes), Vec::new());
        for entry in tar.entries()? {
            sizes.push(entry?.read_to_end(&mut Vec::new())?);
        }
        Ok(sizes)
    }

    #[test]
    fn what_fills_the_last_content_up_may_be_missing() {
        let file = |size: u64, content: &[u8]| [&header(EntryType::Regular, size).as_bytes()[..], content].concat();
        let whole = [file(600, &[7; 600]), vec![0; 424], file(3, b"end")].concat();
        assert_eq!(sizes(&whole).unwrap(), [600, 3]);
        assert_eq!(sizes(&[&whole[..], &[0; 100]].concat()).unwrap(), [600, 3]);
        assert!(Tar::new(&whole[..]).entries().unwrap().all(|entry| entry.is_ok()), "nor if nobody reads the content");
        let cut = &whole[..whole.len() - 1];
        assert!(Tar::new(cut).entries().unwrap().any(|entry| entry.is_err()), "its content may not");
    }

    #[test]
    fn long_names_and_their_contents_pass() {
        let name = "long/".repeat(2_000) + "name";
        let mut builder = tar::Builder::new(Vec::new());
        for content in [&[7_u8; 1_300][..], b"", b"end"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, &name, content).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let mut tar = Tar::new(bytes.as_slice());
        let mut sizes = Vec::new();
        for (n, entry) in tar.entries().unwrap().enumerate() {
            let mut entry = entry.unwrap();
            assert_eq!(entry.path_bytes(), name.as_bytes());
            let mut content = Vec::new();
            if n != 1 {
                entry.read_to_end(&mut content).unwrap();
            }
            sizes.push(content.len());
        }
        assert_eq!(sizes, [1_300, 0, 3]);
    }
}
