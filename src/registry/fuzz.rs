//! Answers that no registry gives: none makes the client panic.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{tests::Memory, *};
use crate::model::{fuzz, image::Descriptor, reference::Reference, registry_auth::RegistryAuth};

/// An answer that sends the client elsewhere may lead to nobody.
const LIMIT: Duration = Duration::from_secs(2);

/// What is answered in a way that no registry answers; the rest is as it should be.
#[derive(Clone, Copy)]
enum Wrong {
    Everything,
    Tokens,
    /// Layers on their way here, and places for those on their way there.
    Blobs,
}

/// Says what there is to say, and hangs up.
async fn repeat(listener: TcpListener, said: Arc<Mutex<(Wrong, Vec<u8>)>>) {
    let host = listener.local_addr().unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        let (wrong, answer) = said.lock().unwrap().clone();
        let mut request = [0; 8192];
        let read = stream.read(&mut request).await.unwrap_or_default();
        let request = String::from_utf8_lossy(&request[..read]).into_owned();
        let is = |start: &str| request.split(' ').nth(1).is_some_and(|path| path.starts_with(start));
        let token = format!("401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"s\"");
        let answer = match wrong {
            Wrong::Everything => answer,
            Wrong::Tokens if is("/token") => answer,
            Wrong::Tokens if !request.contains("uthorization: Bearer") => whole(&token, ""),
            Wrong::Blobs if is("/v2/x/blobs/") && !request.starts_with("HEAD") => answer,
            Wrong::Blobs if is("/v2/x/blobs/") => whole("404 Not Found", ""),
            Wrong::Tokens | Wrong::Blobs => manifest(),
        };
        let _it_may_have_heard_enough = stream.write_all(&answer).await;
        let _it_may_have_heard_enough = stream.shutdown().await;
    }
}

fn whole(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn digest() -> String {
    format!("sha256:{}", "a".repeat(64))
}

fn manifest() -> Vec<u8> {
    let (digest, kind) = (digest(), "application/vnd.oci.image.manifest.v1+json");
    whole(
        &format!("200 OK\r\nContent-Type: {kind}\r\nDocker-Content-Digest: {digest}"),
        &format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":2}},"layers":[{{"digest":"{digest}","size":2}}]}}"#
        ),
    )
}

/// A layer of which a byte is here.
async fn move_blobs(registry: &Registry, reference: &Reference, auth: &RegistryAuth, there: bool) -> Result<()> {
    let json =
        format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":200}}"#, digest());
    let blob: Descriptor = serde_json::from_str(&json).unwrap();
    let session = registry.open_for_push(reference, auth, &["other".to_owned()]).await?;
    if there {
        let open = || -> futures_util::stream::BoxStream<'static, std::io::Result<bytes::Bytes>> {
            Box::pin(futures_util::stream::iter([Ok(vec![b'a'; 200].into())]))
        };
        return session.push_blob(&blob, &["other".to_owned()], &open, &|_| ()).await.map(drop);
    }
    let mut memory = Memory(vec![b'a'].as_slice().into());
    session.download(&blob, &mut memory, &mut |_| ()).await
}

#[test]
fn no_answer_makes_it_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let said = Arc::new(Mutex::new((Wrong::Everything, Vec::new())));
    runtime.spawn(repeat(listener, said.clone()));
    let good = [
        manifest(),
        whole("206 Partial Content\r\nContent-Range: bytes 1-199/200", &"a".repeat(199)),
        whole("202 Accepted\r\nLocation: /v2/x/blobs/uploads/1?_state=a", ""),
        whole("201 Created\r\nLocation: http://127.0.0.1:9/v2/x/blobs/1", ""),
        whole("200 OK\r\nLink: </v2/x/tags/list?last=a>; rel=\"next\"", r#"{"name":"x","tags":["a","b"]}"#),
        whole("401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:9/t\",service=\"s\"", ""),
        whole("200 OK", r#"{"token":"t","access_token":"a","expires_in":60,"refresh_token":"r"}"#),
        whole("404 Not Found", r#"{"errors":[{"code":"NAME_UNKNOWN","message":"m","detail":{}}]}"#),
        whole("401 Unauthorized\r\nWWW-Authenticate: Basic realm=x", r#"{"details":"incorrect"}"#),
        whole("307 Temporary Redirect\r\nLocation: /v2/elsewhere?a=b#c", ""),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec(),
        whole("429 Too Many Requests\r\nRetry-After: 1", "slower"),
    ];
    let config = RegistryConfig { retry_delay: Duration::from_millis(1), ..RegistryConfig::default() };
    let registry = Registry::new(config).unwrap();
    let reference = Reference::parse(&format!("{host}/x:latest")).unwrap();
    let auth = RegistryAuth { username: "u".into(), password: "p".into(), ..RegistryAuth::default() };
    let login = RegistryAuth { serveraddress: host.clone(), ..auth.clone() };
    let mut round = 0;
    let good: Vec<&[u8]> = good.iter().map(Vec::as_slice).collect();
    fuzz::each(&good, |input| {
        round += 1;
        let wrong = match round % 6 {
            0..=2 => Wrong::Everything,
            3 => Wrong::Tokens,
            _ => Wrong::Blobs,
        };
        *said.lock().unwrap() = (wrong, input.to_vec());
        let exchange = async {
            match round % 6 {
                0 | 3 => drop(registry.resolve(&reference, &auth, &|_| None).await),
                1 => drop(registry.tags(&reference, &auth).await),
                2 => drop(registry.login(&login).await),
                which => drop(move_blobs(&registry, &reference, &auth, which == 4).await),
            }
        };
        let _it_may_wait = runtime.block_on(async { tokio::time::timeout(LIMIT, exchange).await });
    });
}
