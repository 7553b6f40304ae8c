//! TLS of tcp hosts: a certificate of ours, and certificates of clients that a CA of ours has signed.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::hangup::Watched;
use crate::model::{Error, Result, error::Context};

/// A client must have shaken hands within this.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a client that speaks plain HTTP may take to read that it should not.
const FAREWELL: Duration = Duration::from_secs(2);

/// Byte for byte what Go's server answers, which dockerd's clients know.
const PLAIN_HTTP: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// The files that `--tlscert`, `--tlskey` and `--tlscacert` name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, and those between it and its root.
    pub certificate: PathBuf,
    /// The key of our certificate.
    pub key: PathBuf,
    /// Clients must show a certificate that one of these signed; without it everybody may come.
    pub client_ca: Option<PathBuf>,
}

/// Shakes hands with clients.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Reads the files; an error names the one that does not fit.
    pub fn load(files: &TlsFiles) -> Result<Self> {
        let certificates = certificates(&files.certificate, "TLS certificate")?;
        let key = private_key(&files.key)?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .context("choosing TLS versions")?;
        let builder = match &files.client_ca {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in self::certificates(path, "TLS CA")? {
                    roots.add(certificate).context(format!("TLS CA {}", path.display()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().context(format!("TLS CA {}", path.display()))?)
            }
            None => builder.with_no_client_auth(),
        };
        let pair = format!("TLS certificate {} with key {}", files.certificate.display(), files.key.display());
        let mut config = builder.with_single_cert(certificates, key).context(pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// The stream after the handshake.
    pub(super) async fn accept(&self, stream: Watched) -> io::Result<TlsConnection> {
        let handshake = async {
            if let Some(tcp) = stream.tcp()
                && speaks_http(tcp).await?
            {
                return farewell(stream).await;
            }
            self.acceptor.accept(stream).await.map(TlsConnection)
        };
        tokio::time::timeout(LIMIT, handshake).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }
}

/// Whether the first bytes are a request's. Those of a handshake are not letters.
async fn speaks_http(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; 1];
    let length = stream.peek(&mut start).await?;
    Ok(length > 0 && start[0].is_ascii_uppercase())
}

/// Answers, and reads on until the client has read the answer: closing at once would take it away again.
async fn farewell(mut stream: Watched) -> io::Result<TlsConnection> {
    stream.write_all(PLAIN_HTTP).await?;
    stream.shutdown().await?;
    let mut rest = [0; 4096];
    let read_on = async { while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {} };
    let _patience_ended = tokio::time::timeout(FAREWELL, read_on).await;
    Err(io::Error::new(ErrorKind::InvalidData, "client sent an HTTP request to an HTTPS server"))
}

fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let text = fs::read(path).context(format!("{what} {}", path.display()))?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|error| bad_pem(what, path, &error))?;
    if certificates.is_empty() {
        return Err(Error::invalid(format!("{what} {}: the file has no PEM certificate", path.display())));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let text = fs::read(path).context(format!("TLS key {}", path.display()))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => Error::invalid(format!(
            "TLS key {}: the file has no PEM private key; an encrypted one cannot be used",
            path.display()
        )),
        error => bad_pem("TLS key", path, &error),
    })
}

fn bad_pem(what: &str, path: &Path, error: &pem::Error) -> Error {
    Error::invalid(format!("{what} {}: {error}", path.display()))
}

/// A connection under TLS. Python's and curl's way of ending their side, without TLS's own notice, is an end
/// and no error: bodies have lengths or chunks of their own, and only the input of a hijacked stream ends like this.
pub(super) struct TlsConnection(TlsStream<Watched>);

impl AsyncRead for TlsConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(cx, buffer) {
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            polled => polled,
        }
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("empty"), "nothing of use\n").unwrap();
        let load = |certificate: &str| {
            let files = TlsFiles { certificate: path(certificate), key: path("empty"), client_ca: None };
            Tls::load(&files).err().expect("an error").message().to_owned()
        };
        assert!(load("missing").contains("missing: No such file"), "{}", load("missing"));
        assert!(load("empty").contains("empty: the file has no PEM certificate"), "{}", load("empty"));
        assert!(private_key(&path("empty")).unwrap_err().message().contains("empty: the file has no PEM private key"));
    }
}
