//! Datagrams with the address they were sent to. A proxy that listens at all addresses must answer from the
//! address that the client used, and only ancillary data (`IP_PKTINFO`, RFC 3542) tells it and sets it.

use std::{
    io,
    mem::{self, MaybeUninit},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    ptr,
};

use tokio::{io::Interest, net::UdpSocket};

/// Room for one control message of either family, aligned as the kernel wants it.
type Control = [u64; 8];

/// Asks the kernel to tell the address that each datagram was sent to.
pub fn report_destination(socket: &UdpSocket) -> io::Result<()> {
    let (level, option) = match socket.local_addr()? {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int, and its length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives a datagram: its length, who sent it, and the address it was sent to.
pub async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    socket.async_io(Interest::READABLE, || receive_now(socket, buffer)).await
}

/// Sends a datagram from one of the host's addresses.
pub async fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr, from: Option<IpAddr>) -> io::Result<usize> {
    match from {
        Some(from) => socket.async_io(Interest::WRITABLE, || send_now(socket, bytes, to, from)).await,
        None => socket.send_to(bytes, to).await,
    }
}

fn receive_now(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    let mut control = Control::default();
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = header(&mut part, &mut control, mem::size_of::<Control>());
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: all pointers in the header lead to live buffers of the lengths given beside them.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: zeroed storage is a valid value, and the kernel wrote the sender into it.
    let sender = socket_address(&unsafe { name.assume_init() })?;
    Ok((length, sender, destination(&header)))
}

fn send_now(socket: &UdpSocket, bytes: &[u8], to: SocketAddr, from: IpAddr) -> io::Result<usize> {
    let mut control = Control::default();
    let (mut name, name_length) = storage(to);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut header = header(&mut part, &mut control, mem::size_of::<Control>());
    header.msg_name = ptr::from_mut(&mut name).cast();
    header.msg_namelen = name_length;
    header.msg_controllen = put_source(&header, from) as _;
    // SAFETY: all pointers in the header lead to live buffers; the kernel only reads through them.
    let length = unsafe { libc::sendmsg(socket.as_raw_fd(), &header, 0) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

fn header(part: &mut libc::iovec, control: &mut Control, control_length: usize) -> libc::msghdr {
    // SAFETY: zero is a valid value for every field of the plain C struct.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = control_length as _;
    header
}

/// The address in the control message that the kernel wrote.
fn destination(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the header's control buffer was filled by the kernel, and the macros stay inside its length.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        let kind = message.as_ref().map(|message| (message.cmsg_level, message.cmsg_type))?;
        let data = libc::CMSG_DATA(message);
        match kind {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into())
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                Some(IpAddr::from(info.ipi6_addr.s6_addr))
            }
            _ => None,
        }
    }
}

/// Writes the wanted source into the header's control buffer; the answer is how much of it is used.
fn put_source(header: &libc::msghdr, from: IpAddr) -> usize {
    match from {
        IpAddr::V4(from) => {
            let address = libc::in_addr { s_addr: u32::from(from).to_be() };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: address };
            put(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(from) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: from.octets() }, ipi6_ifindex: 0 };
            put(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

fn put<T>(header: &libc::msghdr, level: libc::c_int, kind: libc::c_int, info: T) -> usize {
    let size = mem::size_of::<T>() as libc::c_uint;
    // SAFETY: the control buffer is 64 bytes and aligned, more than CMSG_SPACE of either structure.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(size) as _;
        ptr::write_unaligned(libc::CMSG_DATA(message).cast(), info);
        libc::CMSG_SPACE(size) as usize
    }
}

fn socket_address(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure the storage holds, and the storage is large enough for all.
            let name = unsafe { *ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Ok(SocketAddr::from((address, u16::from_be(name.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { *ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let port = u16::from_be(name.sin6_port);
            let address = name.sin6_addr.s6_addr.into();
            Ok(std::net::SocketAddrV6::new(address, port, name.sin6_flowinfo, name.sin6_scope_id).into())
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn storage(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: zero is a valid value for every field of the plain C struct.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let length = match address {
        SocketAddr::V4(address) => {
            // SAFETY: the storage is large enough and aligned for every kind of address.
            let name = unsafe { &mut *ptr::from_mut(&mut storage).cast::<libc::sockaddr_in>() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = address.port().to_be();
            name.sin_addr.s_addr = u32::from(*address.ip()).to_be();
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            // SAFETY: as above.
            let name = unsafe { &mut *ptr::from_mut(&mut storage).cast::<libc::sockaddr_in6>() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = address.port().to_be();
            name.sin6_addr.s6_addr = address.ip().octets();
            name.sin6_scope_id = address.scope_id();
            mem::size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_from_the_address_that_was_asked() {
        for (any, asked) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "::1")] {
            let server = UdpSocket::bind(any).await.unwrap();
            report_destination(&server).unwrap();
            let target = SocketAddr::new(asked.parse().unwrap(), server.local_addr().unwrap().port());
            let client = UdpSocket::bind((target.ip(), 0)).await.unwrap();
            client.connect(target).await.unwrap();
            client.send(b"ping").await.unwrap();
            let mut buffer = [0; 16];
            let (length, sender, destination) = receive(&server, &mut buffer).await.unwrap();
            assert_eq!((length, sender), (4, client.local_addr().unwrap()));
            assert_eq!(destination, Some(target.ip()));
            send(&server, b"pong", sender, destination).await.unwrap();
            assert_eq!(client.recv(&mut buffer).await.unwrap(), 4);
        }
    }
}
