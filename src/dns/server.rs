//! The server's tasks on a UDP and a TCP socket.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::{
    Names, Upstream,
    message::{self, Answer, QTYPE, Question, TYPE},
    relay::{Transport, read_framed, relay, write_framed},
};

const MOST_RELAYED: usize = 512;
const STREAM_IDLE: Duration = Duration::from_secs(10);
const LONGEST_MESSAGE: usize = 65535;

/// What a server does with questions that its names do not answer.
#[derive(Clone, Default)]
pub struct Settings {
    /// Who is asked instead, in order.
    pub upstreams: Vec<Upstream>,
    /// A name without a dot stays here: the client asked to have its search domains tried first (`ndots`).
    pub keep_single_labels: bool,
}

/// A running server; ends when dropped.
pub struct Server {
    tasks: JoinSet<()>,
}

struct Responder {
    names: Arc<dyn Names>,
    settings: Settings,
    relays: Semaphore,
}

impl Server {
    /// Serves on two sockets in non-blocking mode.
    pub fn start(
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
        names: Arc<dyn Names>,
        settings: Settings,
    ) -> io::Result<Self> {
        let udp = Arc::new(UdpSocket::from_std(udp)?);
        let tcp = TcpListener::from_std(tcp)?;
        let responder = Arc::new(Responder { names, settings, relays: Semaphore::new(MOST_RELAYED) });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, responder.clone()));
        tasks.spawn(serve_tcp(tcp, responder));
        Ok(Self { tasks })
    }

    /// Ends the server and waits until its sockets are closed: they keep the network namespace alive.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, responder: Arc<Responder>) {
    let mut relays = JoinSet::new();
    let mut buffer = vec![0u8; LONGEST_MESSAGE];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let packet = &buffer[..length];
        let question = Question::parse(packet);
        if let Some(answer) = question.as_ref().and_then(|question| responder.own_answer(question, question.limit)) {
            let _ = socket.send_to(&answer, client).await;
            continue;
        }
        let (socket, responder, packet) = (socket.clone(), responder.clone(), packet.to_vec());
        relays.spawn(async move {
            if let Some(answer) = responder.relayed(&packet, Transport::Udp).await {
                let _ = socket.send_to(&answer, client).await;
            }
        });
        while relays.try_join_next().is_some() {}
    }
}

async fn serve_tcp(listener: TcpListener, responder: Arc<Responder>) {
    let mut streams = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(streams.spawn(serve_stream(stream, responder.clone()))),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while streams.try_join_next().is_some() {}
    }
}

async fn serve_stream(mut stream: TcpStream, responder: Arc<Responder>) {
    while let Ok(Ok(Some(packet))) = timeout(STREAM_IDLE, read_framed(&mut stream)).await {
        let question = Question::parse(&packet);
        let own = question.as_ref().and_then(|question| responder.own_answer(question, LONGEST_MESSAGE));
        let answer = match own {
            Some(answer) => Some(answer),
            None => responder.relayed(&packet, Transport::Tcp).await,
        };
        let Some(answer) = answer else { return };
        if write_framed(&mut stream, &answer).await.is_err() {
            return;
        }
    }
}

impl Responder {
    /// The answer of our own names, if the question is about one.
    fn own_answer(&self, question: &Question, limit: usize) -> Option<Vec<u8>> {
        let answers = match question.kind {
            QTYPE::TYPE(TYPE::A) => self.addresses(question, IpAddr::is_ipv4)?,
            QTYPE::TYPE(TYPE::AAAA) => self.addresses(question, IpAddr::is_ipv6)?,
            // A name of ours has no mail server; the client then takes its address.
            QTYPE::TYPE(TYPE::MX) => self.names.addresses(&question.name).map(|_| Vec::new())?,
            QTYPE::TYPE(TYPE::PTR) => vec![Answer::Name(self.names.name_of(question.reverse_address()?)?)],
            _ => return None,
        };
        Some(question.answer(&answers, limit))
    }

    /// A name of ours without an address of the family has zero answers, never NXDOMAIN: resolvers would
    /// take the whole name for missing.
    fn addresses(&self, question: &Question, family: fn(&IpAddr) -> bool) -> Option<Vec<Answer>> {
        match self.names.addresses(&question.name) {
            Some(addresses) => {
                let mut addresses: Vec<IpAddr> = addresses.into_iter().filter(family).collect();
                shuffle(&mut addresses);
                Some(addresses.into_iter().map(Answer::Address).collect())
            }
            None => (self.settings.keep_single_labels && !question.name.contains('.')).then(Vec::new),
        }
    }

    async fn relayed(&self, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let _permit = self.relays.acquire().await.ok()?;
        match relay(packet, &self.settings.upstreams, transport).await {
            Some(answer) => Some(answer),
            None => message::server_failure(packet),
        }
    }
}

/// Several containers behind one alias take turns.
fn shuffle(addresses: &mut [IpAddr]) {
    for last in (1..addresses.len()).rev() {
        let random = getrandom::u32().unwrap_or_default() as usize;
        addresses.swap(last, random % (last + 1));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use async_trait::async_trait;

    use super::*;
    use crate::dns::{
        Sockets,
        message::tests::{question, question_of_unknown_type},
    };

    /// The namespace of the test.
    struct Here;

    #[async_trait]
    impl Sockets for Here {
        async fn connect_tcp(&self, peer: SocketAddr) -> io::Result<TcpStream> {
            TcpStream::connect(peer).await
        }

        async fn connect_udp(&self, peer: SocketAddr) -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            socket.connect(peer).await?;
            Ok(socket)
        }
    }

    struct OneName;

    impl Names for OneName {
        fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
            (name == "web").then(|| vec!["10.0.0.2".parse().unwrap()])
        }

        fn name_of(&self, _: IpAddr) -> Option<String> {
            None
        }
    }

    /// A server on loopback, a socket connected to it, and its TCP address.
    async fn start(upstreams: Vec<SocketAddr>) -> (Server, UdpSocket, SocketAddr) {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (udp_at, tcp_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let upstreams = upstreams.into_iter().map(|address| Upstream { address, sockets: Arc::new(Here) });
        let settings = Settings { upstreams: upstreams.collect(), keep_single_labels: false };
        let server = Server::start(udp, tcp, Arc::new(OneName), settings).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(udp_at).await.unwrap();
        (server, client, tcp_at)
    }

    async fn ask(client: &UdpSocket, name: &str, kind: TYPE) -> Vec<u8> {
        exchange(client, &question(name, kind)).await
    }

    async fn exchange(client: &UdpSocket, packet: &[u8]) -> Vec<u8> {
        client.send(packet).await.unwrap();
        let mut buffer = vec![0; 2048];
        let length = timeout(Duration::from_secs(5), client.recv(&mut buffer)).await.unwrap().unwrap();
        buffer.truncate(length);
        buffer
    }

    /// An upstream that answers every datagram with the question turned into an answer with this code.
    async fn upstream(code: u8) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                buffer[2] |= 0x80;
                buffer[3] = code;
                let _ = socket.send_to(&buffer[..length], client).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_missing_family_is_no_error() {
        let (_server, client, _) = start(Vec::new()).await;
        let answer = ask(&client, "web", TYPE::AAAA).await;
        assert_eq!((answer[3] & 0x0f, answer[7]), (0, 0));
        let answer = ask(&client, "WEB", TYPE::A).await;
        assert_eq!((answer[3] & 0x0f, answer[7]), (0, 1));
    }

    #[tokio::test]
    async fn without_upstreams_the_rest_fails() {
        let (_server, client, _) = start(Vec::new()).await;
        assert_eq!(ask(&client, "example.org", TYPE::A).await[3] & 0x0f, 2);
    }

    #[tokio::test]
    async fn so_does_a_question_of_an_unknown_type() {
        let (_server, client, tcp) = start(Vec::new()).await;
        let packet = question_of_unknown_type("example.org");
        let expected = message::server_failure(&packet).unwrap();
        assert_eq!(exchange(&client, &packet).await, expected);
        let mut stream = TcpStream::connect(tcp).await.unwrap();
        write_framed(&mut stream, &packet).await.unwrap();
        assert_eq!(read_framed(&mut stream).await.unwrap().unwrap(), expected);
    }

    #[tokio::test]
    async fn the_next_upstream_is_asked_after_a_failure() {
        let (_server, client, _) = start(vec![upstream(2).await, upstream(3).await]).await;
        assert_eq!(ask(&client, "example.org", TYPE::A).await[3] & 0x0f, 3);
    }

    #[tokio::test]
    async fn streams_are_answered() {
        let (_server, _, tcp) = start(Vec::new()).await;
        let mut stream = TcpStream::connect(tcp).await.unwrap();
        for _ in 0..2 {
            write_framed(&mut stream, &question("web", TYPE::A)).await.unwrap();
            assert_eq!(read_framed(&mut stream).await.unwrap().unwrap()[7], 1);
        }
    }

    #[tokio::test]
    async fn a_stopped_server_has_closed_its_sockets() {
        let (server, client, tcp) = start(Vec::new()).await;
        let udp = client.peer_addr().unwrap();
        server.stop().await;
        assert!(std::net::UdpSocket::bind(udp).is_ok());
        assert!(std::net::TcpListener::bind(tcp).is_ok());
    }
}
