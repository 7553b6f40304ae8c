//! Archives of images whose documents lead to too much.

use std::{io::Write as _, time::Duration};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::bombs::fort::Fort;

/// A load that has an end has it within this.
const END: Duration = Duration::from_secs(60);

struct Layout(tar::Builder<Vec<u8>>);

impl Layout {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn add(&mut self, path: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        self.0.append_data(&mut header, path, content).unwrap();
    }

    /// A blob with its descriptor.
    fn blob(&mut self, kind: &str, content: &[u8]) -> Value {
        let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        self.add(&format!("blobs/sha256/{hex}"), content);
        json!({"mediaType": kind, "digest": format!("sha256:{hex}"), "size": content.len()})
    }

    fn index(&mut self, manifests: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.blob(INDEX, index.to_string().as_bytes())
    }

    /// The archive of an image.
    fn finish(mut self, image: &Value) -> Vec<u8> {
        self.add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        self.add("index.json", json!({"schemaVersion": 2, "manifests": [image]}).to_string().as_bytes());
        self.0.into_inner().unwrap()
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Indexes of a thousand times the next one, so that a thousand million ways lead to the last.
fn fan_out() -> Vec<u8> {
    let mut layout = Layout::new();
    let mut inner = layout.blob(MANIFEST, b"{}");
    for _ in 0..9 {
        inner = layout.index(&vec![inner; 1_000]);
    }
    layout.finish(&inner)
}

/// An index of more manifests than anybody builds for.
fn wide() -> Vec<u8> {
    let mut layout = Layout::new();
    let absent = |n: u32| json!({"mediaType": MANIFEST, "digest": format!("sha256:{n:064x}"), "size": 7});
    let index = layout.index(&(0..5_000).map(absent).collect::<Vec<_>>());
    layout.finish(&index)
}

/// An index of manifests that are each as large as one may be.
fn heavy() -> Vec<u8> {
    let mut layout = Layout::new();
    let config = layout.blob(CONFIG, b"{}");
    let mut manifest = |n: u8| {
        let notes = json!({ "note": char::from(b'a' + n).to_string().repeat(4 << 20) });
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [], "annotations": notes});
        layout.blob(MANIFEST, manifest.to_string().as_bytes())
    };
    let manifests: Vec<Value> = (0..24).map(&mut manifest).collect();
    let index = layout.index(&manifests);
    layout.finish(&index)
}

/// An image whose configuration has two million lines of history.
fn history() -> Vec<u8> {
    let mut layout = Layout::new();
    let history = vec!["{}"; 2_000_000].join(",");
    let config = layout.blob(CONFIG, format!(r#"{{"os":"linux","history":[{history}]}}"#).as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}).to_string();
    let manifest = layout.blob(MANIFEST, manifest.as_bytes());
    layout.finish(&manifest)
}

/// A docker-archive that names so many layers.
fn layers(count: usize) -> Vec<u8> {
    let mut archive = Layout::new();
    archive.add("c.json", b"{}");
    archive.add("l.tar", &[0; 1024]);
    let manifest = json!([{"Config": "c.json", "RepoTags": ["deep:latest"], "Layers": vec!["l.tar"; count]}]);
    archive.add("manifest.json", manifest.to_string().as_bytes());
    archive.0.into_inner().unwrap()
}

/// More images than anybody saves.
fn images() -> Vec<u8> {
    let mut archive = Layout::new();
    archive.add("c.json", b"{}");
    archive.add("manifest.json", json!(vec![json!({"Config": "c.json"}); 5_000]).to_string().as_bytes());
    archive.0.into_inner().unwrap()
}

/// So many links that their names alone fill memory.
fn links() -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let folder = "f/".repeat(25);
    let mut block = Vec::new();
    for n in 0..150_000 {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_path(format!("{folder}{n}")).unwrap();
        header.set_link_name("x").unwrap();
        header.set_size(0);
        header.set_cksum();
        block.extend_from_slice(header.as_bytes());
        if block.len() > 1 << 20 {
            gzip.write_all(&block).unwrap();
            block.clear();
        }
    }
    gzip.write_all(&block).unwrap();
    gzip.finish().unwrap()
}

#[tokio::test]
async fn loads_end_in_a_sentence() {
    let fort = Fort::build().await;
    for (name, archive, sentence) in [
        ("a thousand million entries", fan_out(), "an index leads to more than 4000 manifests"),
        ("5,000 manifests", wide(), "an index leads to more than 4000 manifests"),
        ("24 manifests of 4 MiB", heavy(), "the documents of an image are larger than 16 MiB"),
        ("history", history(), "there are more than 200000 values"),
        ("2,000 layers", layers(2_000), "max depth exceeded"),
        ("5,000 images", images(), "there are more than 1000 images"),
        ("150,000 links", links(), "there are more than 100000 files"),
    ] {
        let log = fort.log_length();
        let answer = tokio::time::timeout(END, fort.send_tar("/images/load", archive)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{name}: no end"));
        assert!(answer.text().contains(sentence), "{name}: {}", answer.text());
        fort.stands(name, log).await;
    }
    fort.runs_a_container().await;
}
