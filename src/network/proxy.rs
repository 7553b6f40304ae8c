//! The userland proxy: carries what the kernel's rules cannot redirect (loopback addresses, an IPv6 client of an
//! IPv4 container). Runs as tasks; dropping the handle ends listeners and connections.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};
use tracing::debug;

use super::{datagram, netns::Namespace, ports::Bound};
use crate::dns::Sockets;

const UDP_IDLE: Duration = Duration::from_secs(90);
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const COPY_BUFFER: usize = 64 * 1024;
const DATAGRAM: usize = 64 * 1024;

/// Serves a bound socket into `tasks`, from `host` towards the container's address and port; `most` connections, or clients
/// that are answered, at once.
pub fn serve(
    tasks: &mut JoinSet<()>,
    socket: Bound,
    host: Namespace,
    container: SocketAddr,
    most: usize,
) -> io::Result<()> {
    match socket {
        Bound::Tcp(listener) => {
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn(serve_tcp(listener, host, container, most));
        }
        Bound::Udp(socket) => {
            let socket = Arc::new(UdpSocket::from_std(socket)?);
            datagram::report_destination(&socket)?;
            tasks.spawn(serve_udp(socket, host, container, most));
        }
        Bound::Sctp(socket) => {
            tasks.spawn(async move {
                let _held = socket;
                std::future::pending().await
            });
        }
    }
    Ok(())
}

async fn serve_tcp(listener: TcpListener, host: Namespace, container: SocketAddr, most: usize) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= most {
            debug!("{most} connections to {container}: the next waits");
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((client, _)) => drop(connections.spawn(carry_tcp(client, host.clone(), container))),
            Err(error) => {
                debug!(%error, "accepting for {container}: {error}");
                // Out of descriptors, most likely: give connections time to end.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn carry_tcp(mut client: TcpStream, host: Namespace, container: SocketAddr) {
    let connected = timeout(CONNECT_LIMIT, host.connect_tcp(container)).await;
    let Ok(Ok(mut server)) = connected else {
        debug!("no connection to {container}");
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, COPY_BUFFER, COPY_BUFFER).await;
    if let Err(error) = copied {
        debug!(%error, "connection to {container} ended: {error}");
    }
}

/// One client and the address of ours that it speaks to.
type Flow = (SocketAddr, Option<IpAddr>);
/// The sockets that speak to the container for the clients.
type Flows = Arc<Mutex<HashMap<Flow, Arc<UdpSocket>>>>;

async fn serve_udp(socket: Arc<UdpSocket>, host: Namespace, container: SocketAddr, most: usize) {
    let flows = Flows::default();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0u8; DATAGRAM];
    loop {
        let Ok((length, client, ours)) = datagram::receive(&socket, &mut buffer).await else { continue };
        while tasks.try_join_next().is_some() {}
        let flow = (client, ours);
        let known = flows.lock().unwrap_or_else(PoisonError::into_inner).get(&flow).cloned();
        let server = match known {
            Some(server) => server,
            None if tasks.len() >= most => {
                debug!("{most} clients of {container}: one more is not answered");
                continue;
            }
            None => match host.connect_udp(container).await.map(Arc::new) {
                Ok(server) => {
                    flows.lock().unwrap_or_else(PoisonError::into_inner).insert(flow, server.clone());
                    tasks.spawn(answer_udp(socket.clone(), server.clone(), flow, flows.clone()));
                    server
                }
                Err(error) => {
                    debug!(%error, "no socket towards {container}: {error}");
                    continue;
                }
            },
        };
        let _ = server.send(&buffer[..length]).await;
    }
}

async fn answer_udp(socket: Arc<UdpSocket>, server: Arc<UdpSocket>, flow: Flow, flows: Flows) {
    let (client, ours) = flow;
    let mut buffer = vec![0u8; DATAGRAM];
    // An error is an ICMP answer to something we sent; the container may listen a moment later.
    while let Ok(received) = timeout(UDP_IDLE, server.recv(&mut buffer)).await {
        if let Ok(length) = received {
            let _ = datagram::send(&socket, &buffer[..length], client, ours).await;
        }
    }
    flows.lock().unwrap_or_else(PoisonError::into_inner).remove(&flow);
}
