//! The thin shell: sockets and HTTP around the rules.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Delivery, Hangup, Refusal, Reply};
use super::body::ScriptedBody;
use super::control;
use super::fault::Fault;
use super::route::Route;
use super::upstream::{Met, MintCall, Upstream};
use super::{Attended, Error, Sandbox};

/// The longest request body that is read.
const LONGEST_BODY: usize = 64 * 1024;

/// How long a lost answer is silent for a client that never gives up.
const LONGEST_SILENCE: Duration = Duration::from_secs(5 * 60);

/// How long to wait for descriptors to be freed.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// Serves until `stop`, then resets what is still open.
pub(super) async fn serve(
    listener: TcpListener,
    sandbox: Sandbox,
    stop: CancellationToken,
) -> Result<(), Error> {
    // Whichever way this function ends, its connections end too.
    let stop_all = stop.child_token();
    let _guard = stop_all.clone().drop_guard();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop_all.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, sandbox.clone(), stop_all.clone()));
            }
            Err(e) if is_the_peers_fault(&e) => {}
            Err(e) if is_out_of_descriptors(&e) => sleep(OUT_OF_DESCRIPTORS).await,
            Err(source) => return Err(Error::Accept { source }),
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

fn is_the_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

async fn connection(stream: TcpStream, sandbox: Sandbox, stop: CancellationToken) {
    // Small answers leave at once; a socket that cannot be told so still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| respond(sandbox.clone(), request));
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let reset = tokio::select! {
        ended = &mut http => ended.err().is_some_and(|e| is_reset(&e)),
        () = stop.cancelled() => true,
    };
    if reset {
        let stream = http.into_parts().io.into_inner();
        // It is closed either way, and a peer that has left sees no difference.
        let _ = stream.set_zero_linger();
    }
}

fn is_reset(error: &hyper::Error) -> bool {
    let hangup = error.source().and_then(|e| e.downcast_ref::<Hangup>());
    hangup == Some(&Hangup::Reset)
}

async fn respond(
    sandbox: Sandbox,
    request: Request<Incoming>,
) -> Result<Response<ScriptedBody>, Hangup> {
    let (head, body) = request.into_parts();
    let route = Route::of(&head.method, head.uri.path());
    if !matches!(route, Route::Control(_)) && sandbox.switches().down {
        return Err(match route {
            Route::Mint { .. } => {
                let _attended = sandbox.attend();
                sandbox.arrive(Upstream::arrive_while_down)
            }
            _ => Hangup::Close,
        });
    }
    let answer = match route {
        Route::Mint { account } => {
            let body = read(body).await?;
            let call = MintCall {
                account: account.into(),
                public_access: says(&head.headers, "x-public-access", "allow"),
                is_json: is_json(&head.headers),
                body,
            };
            return mint(&sandbox, call).await;
        }
        Route::Spend { account } if !sandbox.knows(account) => {
            Refusal::of_status(404).into_answer()
        }
        Route::Spend { .. } => {
            read(body).await?;
            sandbox.spend_header(bearer(&head.headers)).into_answer()
        }
        Route::Control(path) => match (drives_itself(&head.headers), read(body).await?) {
            (false, _) => control::not_allowed(),
            (true, None) => control::too_large(),
            (true, Some(body)) => control::answer(&sandbox, &head.method, path, &body),
        },
        Route::WrongMethod => {
            let mut answer =
                Refusal::new(405, "method-not-allowed", "method not allowed").into_answer();
            answer.headers.push(("allow", "POST".into()));
            answer
        }
        Route::Unknown => Refusal::of_status(404).into_answer(),
    };
    Ok(response(answer, None))
}

async fn mint(sandbox: &Sandbox, call: MintCall) -> Result<Response<ScriptedBody>, Hangup> {
    let (delivery, attended) = match sandbox.arrive(|it, now| it.meet(now, &call)) {
        Met::Arrived(delivery) => (delivery, sandbox.attend()),
        Met::Delay(fault) => arrive_late(sandbox, call, fault).await?,
    };
    for gate in &delivery.gates {
        gate.pass().await;
    }
    sleep(delivery.latency).await;
    match delivery.reply {
        Reply::Answer(answer) => Ok(response(answer, Some(attended))),
        Reply::Hangup(how) => Err(how),
        Reply::Silence => {
            // hyper drops this future when the client goes away.
            sleep(LONGEST_SILENCE).await;
            Err(Hangup::Close)
        }
    }
}

/// Waits for a call that is underway. It arrives even if this future is dropped because the client went away.
async fn arrive_late(
    sandbox: &Sandbox,
    call: MintCall,
    fault: Fault,
) -> Result<(Delivery, Attended), Hangup> {
    let (arrived, waits) = oneshot::channel();
    let at_arrival = sandbox.clone();
    sandbox.spawn_underway(async move {
        match &fault {
            Fault::HeldUnderway(gate) => gate.pass().await,
            Fault::LateArrival { duration } => sleep(*duration).await,
            _ => {}
        }
        let delivery = at_arrival.arrive(|it, now| it.arrive(now, &call, Some(&fault)));
        // Where nobody waits any more, the answer is dropped, and the arrival stands.
        let _ = arrived.send((delivery, at_arrival.attend()));
    });
    waits.await.map_err(|_| Hangup::Close)
}

/// The whole body; none if it is too long.
async fn read(body: Incoming) -> Result<Option<Bytes>, Hangup> {
    match Limited::new(body, LONGEST_BODY).collect().await {
        Ok(collected) => Ok(Some(collected.to_bytes())),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => Ok(None),
        // The client went away in the middle of its request, so there is nobody to answer.
        Err(_) => Err(Hangup::Close),
    }
}

fn response(answer: Answer, attended: Option<Attended>) -> Response<ScriptedBody> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers = HeaderMap::new();
    for (name, value) in &answer.headers {
        // Scripts may hold text that no header can carry; it is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let mut response = Response::new(ScriptedBody::new(answer, attended));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn says(headers: &HeaderMap, name: &str, value: &str) -> bool {
    headers
        .get(name)
        .is_some_and(|given| given.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    given
        .and_then(|given| given.split(';').next())
        .is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a control request comes from a program: a browser cannot send this header unasked, and says who it is.
fn drives_itself(headers: &HeaderMap) -> bool {
    says(headers, "x-bearerd-request", "true")
        && !headers.contains_key(ORIGIN)
        && !headers.contains_key("sec-fetch-site")
}
