//! How much one request, one document or one line may be. Whoever reads what strangers wrote asks here: each number has
//! its unit, and why it is far above what anybody needs and far below what hurts. Limits that are dockerd's own
//! (64 KiB for a line of a Dockerfile, 127 layers) stand where their words stand.
//!
//! The sum is what counts: a daemon within 128 MiB of its own lives on, whatever comes over its sockets (`tests/integration/bombs`).

use super::{Error, Result};

/// Bytes of a Dockerfile; those of real projects have a few KiB, generated ones some 100 KiB.
pub const DOCKERFILE: usize = 4 << 20;

/// Instructions of a Dockerfile or of `changes`; each is an image of its own.
pub const INSTRUCTIONS: usize = 10_000;

/// Bytes of one instruction, its continued lines joined.
pub const INSTRUCTION: usize = 1 << 20;

/// Documents (`<<EOF`) of one instruction.
pub const HEREDOCS: usize = 256;

/// `${a:-${b:-…}}` within each other; people write two or three.
pub const SUBSTITUTIONS: usize = 100;

/// Bytes that all words of one instruction may become. The kernel takes 128 KiB for a variable, and 2 MiB for all.
pub const EXPANDED: usize = 1 << 20;

/// Bytes of values that may be moved, looked through or thrown away while one instruction's variables are replaced.
pub const EXPANDING: usize = 16 << 20;

/// Bytes of a pattern in `${name#pattern}`.
pub const PATTERN: usize = 1 << 10;

/// Bytes of a configuration's texts (`ENV`, `LABEL` and their like), and of a stage's arguments.
pub const CONFIGURATION: usize = 4 << 20;

/// Ports that one `EXPOSE` may name: all there are, in three protocols.
pub const EXPOSED: usize = 3 << 16;

/// Bytes of an image's manifest, index or configuration; dockerd's number for manifests is 4 MiB.
pub const DOCUMENT: usize = 8 << 20;

/// Bytes of the manifests, indexes and configurations of one image, for all its platforms.
pub const DOCUMENTS: usize = 16 << 20;

/// Bytes of memory of documents that are kept for the next look-up.
pub const DOCUMENTS_KEPT: usize = 16 << 20;

/// Values of a document in JSON; objects and lists count, and what stands between commas.
pub const DOCUMENT_VALUES: usize = 200_000;

/// Layers of an image: dockerd's number; overlayfs can mount few more.
pub const LAYERS: usize = 125;

/// Indexes of a layout that lie within each other.
pub const INDEX_DEPTH: usize = 4;

/// Manifests and indexes that one index may lead to in all.
pub const INDEX_TOTAL: usize = 4_000;

/// Images that one archive may hold.
pub const ARCHIVE_IMAGES: usize = 1_000;

/// Files of an archive of images.
pub const ARCHIVE_FILES: usize = 100_000;

/// Bytes of a path; the kernel's number.
pub const PATH: usize = 4_096;

/// Bytes of the records before an entry of a tar: long names, PAX, maps of sparse files. Go's number for each of them.
pub const TAR_RECORDS: u64 = 1 << 20;

/// Tags of a repository, and the pages that they come on.
pub const TAGS: usize = 100_000;

/// Pages of a list of tags; a registry may name the same page again and again.
pub const TAG_PAGES: usize = 1_000;

/// Bytes of a request's JSON; 65,535 published ports take 4 MiB.
pub const BODY: usize = 8 << 20;

/// Values of a request's JSON; 65,535 published ports have 400,000.
pub const BODY_VALUES: usize = 500_000;

/// Bytes of memory that the values of a request's JSON may become; 65,535 published ports take 15 MiB.
pub const MADE: usize = 32 << 20;

/// The same for each byte of it: a mount of 40 bytes becomes 500.
pub const MADE_OF_A_BYTE: usize = 16;

/// The same for a short one.
pub const MADE_OF_LITTLE: usize = 1 << 20;

/// Fields of a request that are not known, and are named to the client one by one; what follows is not.
pub const UNKNOWN_FIELDS: usize = 100;

/// Bytes of a message on a WebSocket, which is put together in memory.
pub const WEBSOCKET_MESSAGE: usize = 4 << 20;

/// Bytes that `ps` may say for `docker top`.
pub const PROCESS_TABLE: u64 = 4 << 20;

/// Objects and lists of JSON within each other; those of the API go six deep.
pub const JSON_DEPTH: usize = 64;

/// Values of the JSON in a query or a header: filters, arguments of a build, credentials.
pub const QUERY_VALUES: usize = 10_000;

/// Bytes of a body that is read beside others without waiting for them; each of [`JOB_CONNECTIONS`] may have sent so much of one.
pub const SMALL_BODY: usize = 32 << 10;

/// Requests at once through one listener that have a larger body, or hold more than [`SMALL_HOLDING`]; others wait.
pub const LARGE_REQUESTS: usize = 2;

/// Bytes of documents of images, tables of processes and users' files that a request holds beside others without waiting for them; each
/// of [`JOB_CONNECTIONS`] may. Of images that people make it is a third.
pub const SMALL_HOLDING: usize = 256 << 10;

/// Bytes of memory that a value of a document takes beside its text, about.
pub const VALUE: usize = 64;

/// Bytes of a container's or an image's small files: `/etc/passwd`, `/etc/group`, `/etc/hosts`. 15,000 users take 1 MiB; threads that read
/// more leave more in the allocator than a daemon has.
pub const SMALL_FILE: u64 = 1 << 20;

/// Bytes of an error's text; what is longer loses its middle. `RUN` repeats its script there.
pub const MESSAGE: usize = 16 << 10;

/// Bytes of a stranger's name or word that is shown in an error's text.
pub const SHOWN: usize = 1 << 10;

/// Bytes of a file of the audit log before another one is begun.
pub const AUDIT_FILE: u64 = 16 << 20;

/// Files of it that are kept.
pub const AUDIT_FILES: u64 = 5;

/// Bytes of a request's line and headers, which are held until they are whole. dockerd takes 1 MiB; a path with its query has 64 KiB at most here.
pub const HEAD: usize = 128 << 10;

/// Connections of a job at once. Those of a run take up to three for each container.
pub const JOB_CONNECTIONS: usize = 256;

/// Bytes of an event's attributes; with those of its container an event is kept for each who listens.
pub const EVENT: usize = 16 << 10;

/// Bytes of the commands and variables of a tenant's execs; those that have ended are forgotten first.
pub const EXECS: usize = 16 << 20;

/// Bytes that the records of a job's containers, networks and volumes take together: about a thousand plain containers.
pub const JOB_RECORDS: usize = 16 << 20;

/// Names of a job's images, and images of it without one; the steps of its builds aside.
pub const JOB_IMAGES: usize = 1_000;

/// Bytes of answers of a job's socket that its clients have not read; see [`SMALL_ANSWER`].
pub const JOB_ANSWERS: usize = 16 << 20;

/// Bytes of an answer that is not counted: each of [`JOB_CONNECTIONS`] may have one.
pub const SMALL_ANSWER: usize = 16 << 10;

/// Bytes of a key of caches.
pub const CACHE_KEY: usize = 512;

/// Of keys `KEY#PART` of one KEY, those whose caches are kept that no job uses: branches of a repository are many, and few are come back to.
pub const CACHE_PARTS: usize = 16;

/// Cache volumes of one job.
pub const CACHE_VOLUMES: usize = 64;

/// Adds up what a configuration or a stage's arguments hold.
pub fn configuration(sizes: impl IntoIterator<Item = usize>) -> Result<()> {
    match sizes.into_iter().sum::<usize>() > CONFIGURATION {
        true => Err(Error::invalid(format!("the configuration is larger than {}", mib(CONFIGURATION)))),
        false => Ok(()),
    }
}

/// A text as it is shown: a long one loses its middle, so that its beginning and its end can be read.
pub fn shown(text: &str, longest: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= longest {
        return text.into();
    }
    let head = text.floor_char_boundary(longest / 4 * 3);
    let tail = text.ceil_char_boundary(text.len() - longest / 4);
    format!("{}… ({} bytes) …{}", &text[..head], tail - head, &text[tail..]).into()
}

/// `4 MiB`, for sentences.
pub fn mib(bytes: usize) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        whole => format!("{whole} MiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_lose_their_middle() {
        assert_eq!(shown("short", 16), "short");
        let long = format!("begin{}end", "ä".repeat(1 << 20));
        let cut = shown(&long, 64);
        assert!(cut.starts_with("begin") && cut.ends_with("end") && cut.len() < 128, "{cut}");
        let error = Error::invalid(long.clone()).context(long);
        assert!(error.message().len() < 2 * MESSAGE, "{}", error.message().len());
    }

    #[test]
    fn sizes_are_told_in_whole_numbers() {
        assert_eq!((mib(1 << 20).as_str(), mib(1 << 14).as_str()), ("1 MiB", "16 KiB"));
    }
}
