//! Answers that no registry gives: none makes the client panic.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::model::{fuzz, reference::Reference, registry_auth::RegistryAuth};

/// An answer that sends the client elsewhere may lead to nobody.
const LIMIT: Duration = Duration::from_secs(2);

/// Says the same to every request, and hangs up.
async fn repeat(listener: TcpListener, answer: Arc<Mutex<Vec<u8>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let answer = answer.lock().unwrap().clone();
        let _whatever_is_asked = stream.read(&mut [0; 8192]).await;
        let _it_may_have_heard_enough = stream.write_all(&answer).await;
        let _it_may_have_heard_enough = stream.shutdown().await;
    }
}

fn whole(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn no_answer_makes_it_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(Mutex::new(Vec::new()));
    runtime.spawn(repeat(listener, answer.clone()));
    let digest = format!("sha256:{}", "a".repeat(64));
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let good = [
        whole(
            &format!("200 OK\r\nContent-Type: {manifest}\r\nDocker-Content-Digest: {digest}"),
            &format!(
                r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":2}},"layers":[{{"digest":"{digest}","size":2}}]}}"#
            ),
        ),
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
        *answer.lock().unwrap() = input.to_vec();
        round += 1;
        let exchange = async {
            match round % 3 {
                0 => drop(registry.resolve(&reference, &auth, &|_| None).await),
                1 => drop(registry.tags(&reference, &auth).await),
                _ => drop(registry.login(&login).await),
            }
        };
        let _it_may_wait = runtime.block_on(async { tokio::time::timeout(LIMIT, exchange).await });
    });
}
