//! A forge behind TLS, with a certificate that an authority of the test's own has signed: what a proxy before a forge does.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::super::place::{self, Place, Serving};

/// What it is called.
pub const NAME: &str = "gitea.test";

/// Its port, at [`place::ADDRESS`].
pub const PORT: u16 = 3443;

/// It ends with its guard.
pub struct Tls {
    folder: tempfile::TempDir,
    _serving: Serving,
}

impl Tls {
    /// Before the server at a port of the same place.
    pub fn before(place: &Place, server: SocketAddr) -> Self {
        let folder = tempfile::Builder::new().prefix("tls-").tempdir().expect("a folder");
        make_certificates(folder.path());
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(folder.path().join("cert.pem")).expect("a certificate of openssl")],
                PrivateKeyDer::from_pem_file(folder.path().join("key.pem")).expect("a key of openssl"),
            )
            .expect("they belong together");
        let (acceptor, namespace) = (TlsAcceptor::from(Arc::new(config)), place.path());
        let _serving = Serving::start(place, PORT, move |listener| serve(listener, acceptor, namespace, server));
        Self { folder, _serving }
    }

    /// `https://…`
    pub fn url(&self) -> String {
        format!("https://{NAME}:{PORT}")
    }

    /// The file of the authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, namespace: PathBuf, server: SocketAddr) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, namespace) = (acceptor.clone(), namespace.clone());
        tokio::spawn(async move {
            // Who does not trust us leaves here.
            let Ok(mut client) = acceptor.accept(stream).await else { return };
            let behind = place::connect(&namespace, server).expect("the server listens");
            behind.set_nonblocking(true).expect("a socket");
            let mut behind = TcpStream::from_std(behind).expect("a socket");
            let _broken_off = tokio::io::copy_bidirectional(&mut client, &mut behind).await;
        });
    }
}

fn make_certificates(folder: &Path) {
    fs::write(folder.join("names"), format!("subjectAltName=DNS:{NAME}\n")).expect("a file in our folder");
    let key = ["-newkey", "rsa:2048", "-nodes", "-keyout"];
    let authority = ["req", "-x509", "-subj", "/CN=an authority of a test", "-days", "2", "-out", "ca.pem"];
    openssl(folder, &[&authority[..], &key, &["ca.key"]].concat());
    openssl(folder, &[&["req", "-subj", "/CN=gitea", "-out", "request.pem"][..], &key, &["key.pem"]].concat());
    let sign = ["x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(folder, &[&sign[..], &["-days", "2", "-extfile", "names", "-out", "cert.pem"]].concat());
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").current_dir(folder).args(arguments).output().expect("openssl is there");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
