//! What bearerd is measured beside. Each is one process with one thread, as bearerd's serving is.

mod bare;
mod stock;
mod watchers;

use std::net::SocketAddr;
use std::process::exit;

use tokio::net::{TcpListener, TcpSocket};

/// What bearerd's .proto file says, as generated for anybody.
#[allow(clippy::all, clippy::pedantic, reason = "generated")]
mod proto {
    tonic::include_proto!("bearerd.v1");
}

const USAGE: &str = "\
yardstick hyper ADDRESS FILE                     answers every GET with the file's bytes, by bare hyper
yardstick tonic ADDRESS TOKEN                    bearerd's service by stock tonic; SIGUSR1 rotates, and its time is printed
yardstick frame TOKEN                            prints the answer to GetToken as it goes over the wire, for a server of constants
yardstick watchers ADDRESS CONNECTIONS STREAMS   so many WatchToken streams on each connection; tells of each rotation as JSON";

type Fallible<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Err(error) = run(&words) {
        eprintln!("yardstick: {error}");
        exit(1);
    }
}

fn run(words: &[&str]) -> Fallible {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match *words {
        ["hyper", address, file] => {
            runtime.block_on(bare::serve(address.parse()?, std::fs::read(file)?))
        }
        ["tonic", address, token] => runtime.block_on(stock::serve(address.parse()?, token)),
        ["frame", token] => stock::print_frame(token),
        ["watchers", address, connections, streams] => runtime.block_on(watchers::watch(
            address.parse()?,
            connections.parse()?,
            streams.parse()?,
        )),
        _ => {
            eprintln!("{USAGE}");
            exit(2);
        }
    }
}

/// A listener with room for a crowd that comes at once.
fn listen(address: SocketAddr) -> Fallible<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(4096)?)
}

/// Microseconds of Unix time: what two processes on one machine can compare.
#[allow(
    clippy::disallowed_methods,
    reason = "the product's rule; there is no product here"
)]
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |it| it.as_micros().try_into().unwrap_or(u64::MAX))
}
