//! Taking the address.

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, UdpSocket},
};

/// Asked of the kernel for each UDP socket, in bytes: some thousand queries that
/// arrive while a task waits for its core. It may give less.
const UDP_RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// How often a port that is free for TCP alone is given back for another.
const FREE_PORT_TRIES: usize = 16;

/// Why the address could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "DNS cannot listen on {address} ({protocol}): something else does already. \
         See what with `ss -lunpt`, or give another --dns ADDR"
    )]
    InUse { address: SocketAddr, protocol: &'static str, source: io::Error },
    #[error(
        "DNS may not listen on {address} ({protocol}): ports below 1024 need root, \
         CAP_NET_BIND_SERVICE, or a lower net.ipv4.ip_unprivileged_port_start"
    )]
    Denied { address: SocketAddr, protocol: &'static str, source: io::Error },
    #[error(
        "DNS cannot listen on {address} ({protocol}): no interface of this machine has that address. \
         See `ip address`"
    )]
    NotHere { address: SocketAddr, protocol: &'static str, source: io::Error },
    #[error("DNS cannot listen on {address} ({protocol}): {source}")]
    Other { address: SocketAddr, protocol: &'static str, source: io::Error },
}

impl BindError {
    fn new(address: SocketAddr, protocol: &'static str, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::AddrInUse => Self::InUse { address, protocol, source },
            ErrorKind::PermissionDenied => Self::Denied { address, protocol, source },
            ErrorKind::AddrNotAvailable => Self::NotHere { address, protocol, source },
            _ => Self::Other { address, protocol, source },
        }
    }
}

/// TCP first: UDP sockets with SO_REUSEPORT would join those of another process
/// of the same user, and each would get a share of the queries. The TCP listener
/// has the address for itself, so it is also the lock.
pub(super) fn bind(
    address: SocketAddr,
    udp_sockets: usize,
) -> Result<(TcpListener, Vec<UdpSocket>), BindError> {
    let mut tries = if address.port() == 0 { FREE_PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let tcp = tcp_listener(address).map_err(|source| BindError::new(address, "TCP", source))?;
        let bound = tcp.local_addr().map_err(|source| BindError::new(address, "TCP", source))?;
        match udp_sockets_on(bound, udp_sockets) {
            Ok(udp) => return Ok((tcp, udp)),
            Err(source) if tries > 0 && source.kind() == ErrorKind::AddrInUse => {}
            Err(source) => return Err(BindError::new(bound, "UDP", source)),
        }
    }
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn udp_sockets_on(address: SocketAddr, sockets: usize) -> io::Result<Vec<UdpSocket>> {
    // A socket that does not share sees whoever is there, sharing or not.
    drop(UdpSocket::bind(address)?);
    (0..sockets).map(|_| udp_socket(address)).collect()
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    sockopt::set_socket_recv_buffer_size(&socket, UDP_RECEIVE_BUFFER_BYTES)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket.into())
}
