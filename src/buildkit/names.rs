//! The tenant's images as containerd's image service tells them.

use containerd_client::{services::v1::Image, types::Descriptor as Target};

use crate::{
    backend::{
        builds::{BuildImages, DANGLING},
        images::ImageRecord,
    },
    model::{
        Error, Result,
        image::Descriptor,
        reference::{Digest, Reference},
    },
};

/// One of them.
pub(super) async fn get(images: &dyn BuildImages, name: &str) -> Result<Image> {
    let found = images.get(name).await?;
    found.map(to_image).ok_or_else(|| Error::not_found(format!("image {name:?}: not found")))
}

/// Makes one or points it elsewhere. `is_first` if its build has not named it before.
pub(super) async fn put(images: &dyn BuildImages, image: Image, is_first: bool) -> Result<Image> {
    let target = image.target.ok_or_else(|| Error::invalid("the image has no target"))?;
    let target = Descriptor {
        media_type: target.media_type,
        digest: target.digest.parse()?,
        size: u64::try_from(target.size).map_err(|_| Error::invalid("the image has less than nothing"))?,
        ..Descriptor::of("", b"")
    };
    check(&image.name)?;
    let record = images.put(&image.name, &target, is_first).await?;
    Ok(Image { name: image.name, ..to_image(record) })
}

/// Names are what a client would be shown, or stand for none.
fn check(name: &str) -> Result<()> {
    let fits = match name.strip_prefix(DANGLING) {
        Some(digest) => digest.parse::<Digest>().is_ok(),
        None => Reference::parse(name).is_ok_and(|parsed| parsed.tag().is_some() && parsed.to_string() == name),
    };
    if fits { Ok(()) } else { Err(Error::invalid(format!("invalid name of an image that was built: {name}"))) }
}

fn to_image(record: ImageRecord) -> Image {
    let target = Target {
        media_type: record.target.media_type,
        digest: record.target.digest.to_string(),
        size: record.target.size.cast_signed(),
        annotations: record.target.annotations.into_iter().collect(),
    };
    // Labels are ours.
    Image { name: record.name, labels: Default::default(), target: Some(target), created_at: None, updated_at: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_clients_are_shown() {
        let dangling = format!("{DANGLING}{}", Digest::of(b"x"));
        for name in ["docker.io/library/x:latest", "reg.test:5000/a/b:1", &dangling] {
            check(name).unwrap();
        }
        for name in ["x", "default/docker.io/library/x:latest", "docker.io/library/x", "moby-dangling@x", ""] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
