//! A crowd of watchers: when did the first and the last of them hear of a rotation, and did any not?

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::proto::WatchTokenResponse;
use super::{Fallible, now};

/// So many connections are made at a time.
const AT_A_TIME: usize = 64;

/// A message that comes later than this after the one before it is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// No compression, and a message of no bytes.
const NOTHING_ASKED: Bytes = Bytes::from_static(&[0; 5]);

/// A message as it came: which watcher, when, and what.
struct Heard {
    watcher: usize,
    at: u64,
    message: Bytes,
}

/// Prints `ready` once every watcher has its first message, and a line for each rotation after that.
pub async fn watch(address: SocketAddr, connections: usize, streams: usize) -> Fallible {
    let (hear, mut heard) = mpsc::unbounded_channel();
    let mut crowd = JoinSet::new();
    let mut coming = JoinSet::new();
    for connection in 0..connections {
        if coming.len() == AT_A_TIME
            && let Some(come) = coming.join_next().await
        {
            attend(&mut crowd, come??, &hear);
        }
        coming.spawn(connect(address, connection * streams, streams));
    }
    while let Some(come) = coming.join_next().await {
        attend(&mut crowd, come??, &hear);
    }
    let all = connections * streams;
    let mut round = Vec::with_capacity(all);
    gather(&mut heard, all, &mut round).await;
    if round.len() < all {
        return Err(format!("only {} of {all} watchers heard of a token", round.len()).into());
    }
    println!("ready");
    loop {
        round.clear();
        let Some(first) = heard.recv().await else {
            return Ok(());
        };
        round.push(first);
        gather(&mut heard, all, &mut round).await;
        println!("{}", told(&round, all)?);
    }
}

/// Takes messages until there are `all`, or none comes any more.
async fn gather(heard: &mut mpsc::UnboundedReceiver<Heard>, all: usize, round: &mut Vec<Heard>) {
    while round.len() < all {
        match timeout(PATIENCE, heard.recv()).await {
            Ok(Some(one)) => round.push(one),
            Ok(None) | Err(_) => return,
        }
    }
}

/// One line of JSON. A watcher that heard twice stands for one that did not hear.
fn told(round: &[Heard], all: usize) -> Fallible<String> {
    let mut generations = BTreeSet::new();
    for one in round {
        let token = WatchTokenResponse::decode(one.message.clone())?.token;
        generations.insert(token.ok_or("a message without a token")?.generation);
    }
    let watchers: BTreeSet<usize> = round.iter().map(|one| one.watcher).collect();
    let times = || round.iter().map(|one| one.at);
    Ok(format!(
        "{{\"first\": {}, \"last\": {}, \"lost\": {}, \"generations\": {}}}",
        times().min().unwrap_or_default(),
        times().max().unwrap_or_default(),
        all - watchers.len(),
        generations.len(),
    ))
}

/// A connection with its streams, each with its watcher's number.
struct Come {
    connection: h2::client::Connection<TcpStream>,
    calls: Vec<(usize, h2::client::ResponseFuture)>,
    _open: SendRequest<Bytes>,
}

async fn connect(address: SocketAddr, first: usize, streams: usize) -> Fallible<Come> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (mut sender, mut connection) = Builder::new()
        .enable_push(false)
        .initial_max_send_streams(streams)
        .handshake(socket)
        .await?;
    let mut calls = Vec::with_capacity(streams);
    for watcher in first..first + streams {
        let request = http::Request::post(format!(
            "http://{address}/bearerd.v1.TokenService/WatchToken"
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
        // The connection is driven here as well, for it says when there is room for one more.
        sender = tokio::select! {
            ready = sender.ready() => ready?,
            ended = &mut connection => return Err(format!("the connection ended: {ended:?}").into()),
        };
        let (call, mut asking) = sender.send_request(request, false)?;
        asking.send_data(NOTHING_ASKED, true)?;
        calls.push((watcher, call));
    }
    Ok(Come {
        connection,
        calls,
        _open: sender,
    })
}

fn attend(crowd: &mut JoinSet<()>, come: Come, hear: &UnboundedSender<Heard>) {
    let Come {
        connection,
        calls,
        _open,
    } = come;
    for (watcher, call) in calls {
        let hear = hear.clone();
        crowd.spawn(async move {
            let ended = match call.await {
                Ok(response) => listen(response.into_body(), watcher, &hear).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = ended {
                eprintln!("watcher {watcher}: {error}");
            }
        });
    }
    crowd.spawn(async move {
        let _open = _open;
        if let Err(error) = connection.await {
            eprintln!("a connection ended: {error}");
        }
    });
}

async fn listen(mut body: RecvStream, watcher: usize, hear: &UnboundedSender<Heard>) -> Fallible {
    let mut held = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let at = now();
        body.flow_control().release_capacity(data.len())?;
        held.extend_from_slice(&data);
        while let Some(message) = next_message(&mut held) {
            hear.send(Heard {
                watcher,
                at,
                message,
            })?;
        }
    }
    Err("the stream has ended".into())
}

/// Takes one whole message out, if there is one.
fn next_message(held: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(held.get(1..5)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    if held.len() < 5 + length {
        return None;
    }
    held.advance(5);
    Some(held.split_to(length).freeze())
}
