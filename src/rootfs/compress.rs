//! A layer that is packed on its way into the store: registries are sent what is stored.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::{
    model::{Result, error::Context, reference::Digest},
    work,
};

/// Packs a tar that comes in pieces with gzip, and tells the tar's own digest: the diff id. The least effort, since
/// somebody waits for it. Blocks; ends early when the receiver is gone.
pub fn gzip(mut pieces: mpsc::Receiver<Result<Bytes>>, packed: &mpsc::Sender<Bytes>) -> Result<Digest> {
    let packing = || "packing a layer";
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut hash = Sha256::new();
    while let Some(piece) = pieces.blocking_recv() {
        let piece = piece?;
        hash.update(&piece);
        encoder.write_all(&piece).context(packing())?;
        let made = std::mem::take(encoder.get_mut());
        if !made.is_empty() && work::send(packed, made.into()).is_err() {
            break;
        }
    }
    let _receiver_is_gone = work::send(packed, encoder.finish().context(packing())?.into());
    Ok(Digest::from_sha256(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::model::Error;

    fn packed(pieces: Vec<Result<Bytes>>) -> Result<(Vec<u8>, Digest)> {
        let (sender, receiver) = mpsc::channel(pieces.len());
        pieces.into_iter().for_each(|piece| sender.try_send(piece).unwrap());
        drop(sender);
        let (packed, mut made) = mpsc::channel(8);
        let diff_id = gzip(receiver, &packed)?;
        drop(packed);
        let mut bytes = Vec::new();
        while let Some(piece) = made.blocking_recv() {
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes, diff_id))
    }

    #[test]
    fn pieces_are_one_stream_whose_content_has_the_digest() {
        let (bytes, diff_id) = packed(vec![Ok("one ".into()), Ok("two".into())]).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), diff_id), ("one two", Digest::of(b"one two")));
    }

    #[test]
    fn failure_of_the_source_is_ours() {
        assert_eq!(packed(vec![Ok("a".into()), Err(Error::system("x"))]).unwrap_err().message(), "x");
    }
}
