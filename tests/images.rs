//! Images for real: our store on containerd, our registry client against Debian's docker-registry, on loopback.

#[path = "support/images.rs"]
mod support;

use ringer::backend::images::contract;

use support::Store;

#[tokio::test]
async fn containerd_keeps_the_contract() {
    let store = Store::start().await;
    contract::image_backend(&store.containerd).await;
    store.stop().await;
}
