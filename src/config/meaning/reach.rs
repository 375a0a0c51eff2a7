//! Where callers and operators reach the daemon.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use super::super::problems::is_showable;
use super::super::raw::Written;
use super::super::{Admin, Grpc, Http, Secured};
use super::callers::{groups, users};
use super::sockets;
use crate::listener::Address;

/// What callers reach over HTTP.
pub(super) fn http(written: &mut Written) -> Http {
    Http {
        listen: addresses(written, "http.listen"),
        hosts: hosts(written, "http.hosts"),
        socket: sockets::access(written, "http"),
        tls: secured(written, "http.tls"),
    }
}

/// What callers reach over gRPC.
pub(super) fn grpc(written: &mut Written) -> Option<Grpc> {
    let listen = addresses(written, "grpc.listen");
    let hosts = hosts(written, "grpc.hosts");
    let socket = sockets::access(written, "grpc");
    let tls = secured(written, "grpc.tls");
    let keepalive = written.length("grpc.keepalive")?;
    if keepalive < Duration::from_secs(1) {
        written.problem("grpc.keepalive", "it is shorter than 1s, and every silent caller would be pinged all the time; expected 10s or more");
    }
    Some(Grpc {
        listen,
        hosts,
        socket,
        tls,
        streams: NonZeroU32::new(written.count("grpc.streams")?)?,
        keepalive,
    })
}

/// Somebody must be able to get the token.
pub(super) fn somewhere(written: &mut Written, http: &Http, grpc: Option<&Grpc>) {
    let nowhere = http.listen.is_empty() && grpc.is_some_and(|it| it.listen.is_empty());
    if nowhere && !written.has_failed("http.listen") && !written.has_failed("grpc.listen") {
        written.problem(
            "http.listen",
            "it is empty, and so is grpc.listen: nobody could get the token; expected at least one address in one of them",
        );
    }
}

/// Which addresses of a section have TLS.
pub(in super::super) fn secured(written: &Written, path: &str) -> Secured {
    match written.text(path).as_deref() {
        Some("never") => Secured::Never,
        Some("always") => Secured::Always,
        _ => Secured::Outward,
    }
}

/// What operators reach; it never shows a token, so it may listen anywhere.
pub(super) fn admin(written: &mut Written) -> Option<Admin> {
    Some(Admin {
        listen: addresses(written, "admin.listen"),
        hosts: hosts(written, "admin.hosts"),
        socket: sockets::access(written, "admin"),
        uids: users(written, "admin.uids"),
        gids: groups(written, "admin.gids"),
        tls: secured(written, "admin.tls"),
        startup_grace: written.length("admin.startup_grace")?,
    })
}

/// Each listener has its own address.
pub(super) fn apart(written: &mut Written, listeners: [(&str, &[Address]); 3]) {
    let named: Vec<(&str, &Address)> = listeners
        .into_iter()
        .flat_map(|(path, listen)| listen.iter().map(move |address| (path, address)))
        .collect();
    for (index, (path, address)) in named.iter().enumerate() {
        let text = address.to_string();
        // Port 0 is another one each time.
        if text.ends_with(":0") && !text.starts_with("unix:") {
            continue;
        }
        if let Some((other, _)) = named[..index]
            .iter()
            .find(|(_, earlier)| earlier.overlaps(address))
        {
            let problem = match other == path {
                true => format!("{address} is there twice; name it once"),
                false => {
                    format!("{address} is taken by {other}; give each listener its own address")
                }
            };
            written.problem(path, problem);
        }
    }
}

fn addresses(written: &mut Written, path: &str) -> Vec<Address> {
    let mut addresses = Vec::new();
    for (index, text) in written.list(path).iter().enumerate() {
        match text.parse::<Address>() {
            Ok(address) => addresses.push(address),
            Err(error) if is_showable(text) || text.starts_with("unix:") => {
                written.problem(path, format!("item {}: {error}", index + 1));
            }
            Err(_) => {
                written.problem(
                    path,
                    format!(
                        "item {} is no address; expected host:port or unix:/path",
                        index + 1
                    ),
                );
            }
        }
    }
    addresses
}

fn hosts(written: &mut Written, path: &str) -> Vec<String> {
    let hosts = written.list(path);
    let allowed = |host: &str| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let named = !host.is_empty() && host.len() <= 253 && host.bytes().all(plain);
        named || bare.parse::<IpAddr>().is_ok()
    };
    for (index, _) in hosts.iter().enumerate().filter(|(_, host)| !allowed(host)) {
        let text = format!(
            "item {} is no host name; expected a name or an IP address, without scheme or port, such as bearerd.internal",
            index + 1
        );
        written.problem(path, text);
    }
    hosts
}
