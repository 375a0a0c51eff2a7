//! bearerd's service as anybody would write it: generated code on tonic's own transport.

use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use prost::Message;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::proto::token_service_server::{TokenService, TokenServiceServer};
use super::proto::{
    GetTokenRequest, GetTokenResponse, ReportRejectedRequest, ReportRejectedResponse, Token,
    WatchTokenRequest, WatchTokenResponse,
};
use super::{Fallible, listen, now};

/// As many calls on a connection as bearerd allows at the most.
const STREAMS: u32 = 10_000;

struct Stock {
    current: Arc<ArcSwap<Token>>,
    changes: watch::Receiver<Arc<Token>>,
}

#[tonic::async_trait]
impl TokenService for Stock {
    type WatchTokenStream = Pin<Box<dyn Stream<Item = Result<WatchTokenResponse, Status>> + Send>>;

    async fn get_token(
        &self,
        _: Request<GetTokenRequest>,
    ) -> Result<Response<GetTokenResponse>, Status> {
        let token = Some(Token::clone(&self.current.load()));
        Ok(Response::new(GetTokenResponse { token }))
    }

    async fn watch_token(
        &self,
        _: Request<WatchTokenRequest>,
    ) -> Result<Response<Self::WatchTokenStream>, Status> {
        let stream = WatchStream::new(self.changes.clone()).map(|token| {
            let token = Some(Token::clone(&token));
            Ok(WatchTokenResponse { token })
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn report_rejected(
        &self,
        _: Request<ReportRejectedRequest>,
    ) -> Result<Response<ReportRejectedResponse>, Status> {
        Err(Status::unimplemented("nobody asks a yardstick"))
    }
}

fn token(secret: &str, generation: u64) -> Token {
    let issued_at = UNIX_EPOCH + Duration::from_micros(now());
    Token {
        access_token: secret.to_owned(),
        expires_at: Some((issued_at + Duration::from_secs(3600)).into()),
        issued_at: Some(issued_at.into()),
        generation,
        suspect: false,
    }
}

/// A generation as bearerd's are: it begins at the seconds of Unix time.
fn first_generation() -> u64 {
    now() / 1_000_000
}

pub async fn serve(address: SocketAddr, secret: &str) -> Fallible {
    let mut generation = first_generation();
    let (publish, changes) = watch::channel(Arc::new(token(secret, generation)));
    let current = Arc::new(ArcSwap::new(changes.borrow().clone()));
    let stock = Stock {
        current: Arc::clone(&current),
        changes,
    };
    let mut wishes = signal(SignalKind::user_defined1())?;
    let incoming = TcpIncoming::from(listen(address)?).with_nodelay(Some(true));
    let serving = Server::builder()
        .max_concurrent_streams(STREAMS)
        .add_service(TokenServiceServer::new(stock))
        .serve_with_incoming(incoming);
    let rotating = async {
        while wishes.recv().await.is_some() {
            generation += 1;
            println!("{}", now());
            let next = Arc::new(token(secret, generation));
            current.store(Arc::clone(&next));
            publish.send_replace(next);
        }
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = rotating => Ok(()),
    }
}

pub fn print_frame(secret: &str) -> Fallible {
    let token = Some(token(secret, first_generation()));
    let message = GetTokenResponse { token }.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len())?.to_be_bytes());
    frame.extend(message);
    Ok(std::io::stdout().write_all(&frame)?)
}
