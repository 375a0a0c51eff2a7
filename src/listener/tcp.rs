//! Taking TCP ports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket, lookup_host};

use super::{Address, BACKLOG, BindError};

/// So often a port is asked for that is free on each loopback address.
const TRIES: u32 = 16;

/// Takes the port; on `localhost` at each loopback address that there is. A port 0 has become the
/// real one.
pub(super) async fn bind(
    address: &Address,
    host: &str,
    port: u16,
) -> Result<(Vec<TcpListener>, Address), BindError> {
    if address.is_localhost() {
        return each_loopback(address, host, port);
    }
    let unknown = |source| BindError::NotHere {
        address: address.clone(),
        source,
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in lookup_host((host, port)).await.map_err(unknown)? {
        match open(candidate).and_then(|it| it.local_addr().map(|bound| (it, bound))) {
            Ok((listener, bound)) => {
                let address = Address::Tcp {
                    host: bound.ip().to_string(),
                    port: bound.port(),
                };
                return Ok((vec![listener], address));
            }
            Err(error) => last = error,
        }
    }
    Err(BindError::new(address, last))
}

/// `localhost` is both loopback addresses (RFC 6761), whatever a resolver or an image without one
/// says.
fn each_loopback(
    address: &Address,
    host: &str,
    port: u16,
) -> Result<(Vec<TcpListener>, Address), BindError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match same_port(port) {
            Ok((listeners, port)) => {
                let host = host.to_owned();
                return Ok((listeners, Address::Tcp { host, port }));
            }
            // The port that the system chose at one address is taken at the other.
            Err((_, error))
                if port == 0 && error.kind() == io::ErrorKind::AddrInUse && tries < TRIES => {}
            Err((at, source)) => {
                let at = match source.kind() {
                    io::ErrorKind::AddrInUse => Address::Tcp {
                        host: at.ip().to_string(),
                        port: at.port(),
                    },
                    _ => address.clone(),
                };
                return Err(BindError::new(&at, source));
            }
        }
    }
}

/// One port at each loopback address that this machine has.
fn same_port(port: u16) -> Result<(Vec<TcpListener>, u16), (SocketAddr, io::Error)> {
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let (mut listeners, mut port) = (Vec::new(), port);
    let mut missing = None;
    for ip in loopback {
        let at = SocketAddr::new(ip, port);
        match open(at).and_then(|it| it.local_addr().map(|bound| (it, bound))) {
            Ok((listener, bound)) => {
                port = bound.port();
                listeners.push(listener);
            }
            Err(error) if is_not_here(&error) => {
                tracing::debug!(address = %ip, %error, "this machine has no such loopback address");
                missing = Some((at, error));
            }
            Err(error) => return Err((at, error)),
        }
    }
    match missing {
        Some(missing) if listeners.is_empty() => Err(missing),
        _ => Ok((listeners, port)),
    }
}

/// True if the address family, or the address, is switched off.
fn is_not_here(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let number = Errno::from_io_error(error);
    error.kind() == io::ErrorKind::AddrNotAvailable || number == Some(Errno::AFNOSUPPORT)
}

fn open(candidate: SocketAddr) -> io::Result<TcpListener> {
    let socket = if candidate.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(candidate)?;
    socket.listen(BACKLOG)
}
