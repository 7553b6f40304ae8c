//! Archives that clients send compressed: told by their first bytes, as dockerd does.

use std::io::{self, Chain, Cursor, Read};

const LONGEST_MAGIC: usize = 6;

type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// Reads `body`, decompressed if it is gzip, bzip2, xz or zstd.
pub fn decompress<'a>(mut body: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::new();
    body.by_ref().take(LONGEST_MAGIC as u64).read_to_end(&mut start)?;
    let kind = Kind::of(&start);
    let whole: Peeked<_> = Cursor::new(start).chain(body);
    Ok(match kind {
        Kind::Plain => Box::new(whole),
        Kind::Gzip => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Kind::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(whole)),
        Kind::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(whole)),
        Kind::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Kind {
    fn of(start: &[u8]) -> Self {
        let magics: [(&[u8], Self); 4] = [
            (&[0x1f, 0x8b, 0x08], Self::Gzip),
            (b"BZh", Self::Bzip2),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Self::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
        ];
        magics.iter().find(|(magic, _)| start.starts_with(magic)).map_or(Self::Plain, |(_, kind)| *kind)
    }
}
