//! Bare hyper with a prebuilt body: the least that an HTTP/1.1 server in Rust does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http_body_util::Full;
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::{Fallible, listen};

pub async fn serve(address: SocketAddr, body: Vec<u8>) -> Fallible {
    let listener = listen(address)?;
    // Behind a pointer that could be swapped, as every vendor of a token needs it.
    let held = Arc::new(ArcSwap::from_pointee(Bytes::from(body)));
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let held = Arc::clone(&held);
        let service = service_fn(move |_| {
            let mut response = Response::new(Full::new(Bytes::clone(&held.load())));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            async { Ok::<_, Infallible>(response) }
        });
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        while connections.try_join_next().is_some() {}
    }
}
