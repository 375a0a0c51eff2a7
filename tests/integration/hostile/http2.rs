//! What breaks or bends HTTP/2, and how a connection takes it.

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Code;

use super::frames::*;
use super::siege::Siege;
use super::wire::exchange;
use crate::grpc::calls::{Call, Caller};

/// So often a frame that costs the sender nothing is sent.
const MANY: usize = 100_000;

type Row = (&'static str, Vec<u8>, usize, Ended);

fn once(name: &'static str, bytes: Vec<u8>, ended: Ended) -> Row {
    (name, bytes, 1, ended)
}

/// Frames on streams of their own, one after the other.
fn streams(count: u32, each: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(|index| each(2 * index + 1)).collect()
}

async fn hold(siege: &mut Siege, rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for (name, bytes, times, expected) in rows {
        let raw = Raw::connect(&siege.daemon.grpc).await;
        let ended = raw.flood(&bytes, times).await;
        // What is cut while bytes are on their way is reset, and the goodbye may be lost with it.
        let as_expected = ended == expected || (ended == Ended::Cut && expected != Ended::Never);
        if !as_expected {
            wrong.push(format!("{name}: {ended:?} and not {expected:?}"));
        }
        siege.within(name, 0).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_flood_of_small_frames_ends_or_costs_nothing() {
    let mut siege = Siege::begin("").await;
    let reset = |stream| frame(RESET, 0, stream, &8_u32.to_be_bytes());
    let opened = frame(HEADERS, END_HEADERS, 1, &call(GET));
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let then = |rest: &[u8], times: usize| [opened.clone(), rest.repeat(times)].concat();
    let rows: Vec<Row> = vec![
        (
            "settings",
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]),
            MANY,
            Ended::Never,
        ),
        (
            "settings of no kind",
            frame(SETTINGS, 0, 0, &[0xff; 6]),
            MANY,
            Ended::Never,
        ),
        (
            "acknowledgements of nothing",
            frame(SETTINGS, ACK, 0, &[]),
            MANY,
            Ended::With(PROTOCOL_ERROR),
        ),
        ("pings", frame(PING, 0, 0, &[7; 8]), MANY, Ended::Never),
        (
            "answers to no ping",
            frame(PING, ACK, 0, &[7; 8]),
            MANY,
            Ended::Never,
        ),
        (
            "frames of no kind",
            frame(0xee, 0xff, 1, &[7; 8]),
            MANY,
            Ended::Never,
        ),
        (
            "priorities",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]),
            MANY,
            Ended::Never,
        ),
        (
            "windows by one",
            frame(WINDOW, 0, 0, &[0, 0, 0, 1]),
            MANY,
            Ended::Never,
        ),
        (
            "streams reset at once",
            streams(10_000, |it| [whole_call(it, WATCH), reset(it)].concat()),
            1,
            Ended::With(ENHANCE_YOUR_CALM),
        ),
        (
            "empty data",
            then(&frame(DATA, 0, 1, &[]), MANY),
            1,
            Ended::With(ENHANCE_YOUR_CALM),
        ),
        (
            "data of a byte",
            then(&frame(DATA, 0, 1, &[0]), MANY),
            1,
            Ended::With(ENHANCE_YOUR_CALM),
        ),
        (
            "padding",
            then(
                &frame(DATA, 8, 1, &[[255].as_slice(), &[0; 255]].concat()),
                MANY,
            ),
            1,
            Ended::With(ENHANCE_YOUR_CALM),
        ),
        (
            "streams made to be reset",
            streams(10_000, |it| {
                [
                    frame(HEADERS, END_HEADERS, it, &call(WATCH)),
                    frame(WINDOW, 0, it, &most),
                ]
                .concat()
            }),
            1,
            Ended::With(ENHANCE_YOUR_CALM),
        ),
        (
            "more streams than there may be",
            streams(10_000, |it| frame(HEADERS, END_HEADERS, it, &call(WATCH))),
            1,
            Ended::With(ENHANCE_YOUR_CALM),
        ),
    ];
    hold(&mut siege, rows).await;
    siege.lift().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_or_is_too_long_is_refused() {
    let mut siege = Siege::begin("").await;
    let begun = frame(HEADERS, 0, 1, &call(GET));
    let piece = |payload: &[u8]| frame(CONTINUATION, 0, 1, payload);
    let endless = [begun.clone(), piece(&[]).repeat(MANY)].concat();
    let long = header("x-long", &"x".repeat(15_000));
    // An entry of almost the whole table, and then that entry, by one byte each, over and over.
    let mut bomb = call(GET);
    bomb.push(0x40);
    bomb.extend_from_slice(&header("x-bomb", &"x".repeat(4_000))[1..]);
    bomb.extend_from_slice(&[0xbe; 10_000]);
    let rows = vec![
        once(
            "empty pieces of a head without end",
            endless,
            Ended::With(ENHANCE_YOUR_CALM),
        ),
        once(
            "long pieces of a head without end",
            [begun.clone(), piece(&long).repeat(1000)].concat(),
            Ended::With(ENHANCE_YOUR_CALM),
        ),
        once(
            "a head of 30,000 bytes",
            [
                frame(HEADERS, 0, 1, &[call(GET), long.clone()].concat()),
                frame(CONTINUATION, END_HEADERS, 1, &long),
            ]
            .concat(),
            Ended::Never,
        ),
        once(
            "a head that grows when it is unpacked",
            frame(HEADERS, END_HEADERS, 1, &bomb),
            Ended::With(ENHANCE_YOUR_CALM),
        ),
        once(
            "another frame within a head",
            [begun, frame(PING, 0, 0, &[0; 8])].concat(),
            Ended::With(PROTOCOL_ERROR),
        ),
        once(
            "a piece of no head",
            piece(&[]),
            Ended::With(PROTOCOL_ERROR),
        ),
        once(
            "an index beyond the table",
            frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0x7f]),
            Ended::With(PROTOCOL_ERROR),
        ),
    ];
    hold(&mut siege, rows).await;
    siege.lift().await;
}

#[tokio::test]
async fn frames_that_may_not_be_end_the_connection() {
    let mut siege = Siege::begin("").await;
    let open = frame(HEADERS, END_HEADERS, 1, &call(WATCH));
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let rows = vec![
        once(
            "data on no stream",
            frame(DATA, 0, 0, &[0]),
            Ended::With(PROTOCOL_ERROR),
        ),
        once(
            "data on a stream that is not open",
            frame(DATA, 0, 5, &[0]),
            Ended::With(PROTOCOL_ERROR),
        ),
        once(
            "a stream of the server's",
            frame(HEADERS, END_HEADERS, 2, &call(GET)),
            Ended::With(PROTOCOL_ERROR),
        ),
        once(
            "a promise",
            frame(
                PUSH,
                END_HEADERS,
                1,
                &[&[0, 0, 0, 2], call(GET).as_slice()].concat(),
            ),
            Ended::With(PROTOCOL_ERROR),
        ),
        once(
            "a frame that is too long",
            frame(DATA, 0, 1, &[0; 16_385]),
            Ended::With(FRAME_SIZE_ERROR),
        ),
        once(
            "a ping that is too short",
            frame(PING, 0, 0, &[0; 7]),
            Ended::With(PROTOCOL_ERROR),
        ),
        once(
            "settings on a stream",
            frame(SETTINGS, 0, 1, &[]),
            Ended::With(PROTOCOL_ERROR),
        ),
        once(
            "a frame's size that may not be",
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
            Ended::With(PROTOCOL_ERROR),
        ),
        once(
            "a window's size that may not be",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
            Ended::With(PROTOCOL_ERROR),
        ),
        once(
            "a window that overflows",
            frame(WINDOW, 0, 0, &most).repeat(2),
            Ended::With(FLOW_CONTROL_ERROR),
        ),
        once(
            "a window by nothing",
            frame(WINDOW, 0, 0, &[0; 4]),
            Ended::With(PROTOCOL_ERROR),
        ),
        once(
            "more data than the window",
            [open.clone(), frame(DATA, 0, 1, &[0; 16_000]).repeat(9)].concat(),
            Ended::With(FLOW_CONTROL_ERROR),
        ),
        once(
            "padding that is longer than its frame",
            [open, frame(DATA, 8, 1, &[9])].concat(),
            Ended::With(PROTOCOL_ERROR),
        ),
        once("a goodbye", frame(GOAWAY, 0, 0, &[0; 8]), Ended::Never),
    ];
    hold(&mut siege, rows).await;
    siege.lift().await;
}

#[tokio::test]
async fn what_is_no_http2_is_answered_in_kind_or_not_at_all_and_closed() {
    let mut siege = Siege::begin("").await;
    let (bad_request, alert) = (&b"HTTP/1.1 400 "[..], &[21, 3, 3, 0, 2, 2, 70][..]);
    let rows: [(&str, &[u8], &[u8]); 5] = [
        ("HTTP/1.1", b"GET /v1/token HTTP/1.1\r\nHost: localhost\r\n\r\n", bad_request),
        ("an upgrade to h2c", b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", bad_request),
        ("the beginning of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", alert),
        ("bytes that mean nothing", &[0xff; 64], b""),
        ("a preface that is spoilt at its end", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", b""),
    ];
    for (name, bytes, begins) in rows {
        let answer = exchange(&siege.daemon.grpc, bytes).await;
        assert!(answer.starts_with(begins), "{name}: {answer:?}");
        assert_eq!(answer.is_empty(), begins.is_empty(), "{name}");
        siege.within(name, 0).await;
    }
    siege.lift().await;
}

#[tokio::test]
async fn a_message_that_does_not_come_or_is_too_long_ends_its_call_alone() {
    let mut siege = Siege::begin("").await;
    let stream = TcpStream::connect(&siege.daemon.grpc).await.unwrap();
    let caller = Caller::over(stream).await;
    let mut open = Vec::new();
    // With many more than these h2 gives the connection up: so many tiny pieces that nobody has read.
    for _ in 0..40 {
        for path in [GET, WATCH] {
            let mut call = caller.open(path, &[]).await.unwrap();
            // Half of what stands before a message.
            call.body.send_data(vec![0, 0].into(), false).unwrap();
            open.push(call);
        }
    }
    let mut long = caller.open(GET, &[]).await.unwrap();
    let promise = vec![0, 0xff, 0xff, 0xff, 0xff];
    long.body.send_data(promise.into(), false).unwrap();
    let (_, status) = long.answered().await.unwrap().all().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    for call in open {
        let Call { answer, body } = call;
        let (_, status) = Call::read(answer).await.unwrap().all().await;
        assert_eq!(status.code(), Code::DeadlineExceeded);
        drop(body);
    }
    let (messages, status) = caller.ask(GET, &[], b"").await;
    assert_eq!((messages.len(), status.code()), (1, Code::Ok));
    siege.within("messages that do not come", 0).await;
    siege.lift().await;
}

/// Many clients say that a call has ended in a frame of its own. To h2 the frames before it are tiny pieces that nobody has read yet, of
/// which a connection may have only so many.
#[tokio::test]
async fn as_many_calls_as_there_may_be_can_come_at_once() {
    let mut siege = Siege::begin("").await;
    let mut raw = Raw::connect(&siege.daemon.grpc).await;
    let at_once = streams(256, |it| {
        let mut call = frame(HEADERS, END_HEADERS, it, &call(GET));
        call.extend(frame(DATA, 0, it, &[0; 5]));
        call.extend(frame(DATA, END_STREAM, it, &[]));
        call
    });
    // The windows are wide enough for all answers.
    raw.send(&frame(WINDOW, 0, 0, &[0, 0x10, 0, 0]))
        .await
        .unwrap();
    raw.send(&at_once).await.unwrap();
    let mut ended = 0;
    while ended < 256 {
        let end =
            |it: &Frame| it.kind == GOAWAY || (it.kind == HEADERS && it.flags & END_STREAM != 0);
        let frame = raw.reader.until(end).await.expect("an answer");
        assert_ne!(frame.kind, GOAWAY, "{frame:?} after {ended} answers");
        ended += 1;
    }
    siege.within("256 calls at once", 0).await;
    siege.lift().await;
}

#[tokio::test]
async fn ten_thousand_watches_that_are_opened_and_reset_leave_nothing() {
    let mut siege = Siege::begin("").await;
    let mut callers = JoinSet::new();
    for _ in 0..10 {
        let address = siege.daemon.grpc.clone();
        callers.spawn(async move {
            let mut raw = Raw::connect(&address).await;
            for index in 0..1000 {
                let stream = 2 * index + 1;
                raw.send(&whole_call(stream, WATCH)).await.unwrap();
                let begun = |it: &Frame| it.kind == DATA && it.stream == stream;
                raw.reader.until(begun).await.expect("the first token");
                let reset = frame(RESET, 0, stream, &8_u32.to_be_bytes());
                raw.send(&reset).await.unwrap();
                // What is read has room again.
                raw.send(&frame(WINDOW, 0, 0, &[0, 0, 0x40, 0]))
                    .await
                    .unwrap();
            }
            raw
        });
    }
    let kept = callers.join_all().await;
    siege
        .daemon
        .until_metric("bearerd_watchers{transport=\"grpc\"}", 0.0)
        .await;
    siege.within("10,000 resets", 0).await;
    drop(kept);
    siege.lift().await;
}

/// A watcher that opens no window costs a stream and no token: nothing is taken for it, and what it misses is skipped.
#[tokio::test]
async fn watchers_that_read_nothing_cost_their_streams_alone() {
    let mut siege = Siege::begin("[callers.local]\nstreams = 10000").await;
    const CONNECTIONS: usize = 20;
    const STREAMS: u32 = 256;
    let mut kept = Vec::new();
    for window in [0, 1] {
        for _ in 0..CONNECTIONS / 2 {
            let mut raw = Raw::with(&siege.daemon.grpc, &[(4, window)]).await;
            raw.send(&streams(STREAMS, |it| whole_call(it, WATCH)))
                .await
                .unwrap();
            kept.push(raw);
        }
    }
    let watchers = f64::from(STREAMS) * CONNECTIONS as f64;
    siege
        .daemon
        .until_metric("bearerd_watchers{transport=\"grpc\"}", watchers)
        .await;
    // A stream of hyper's, with its task, takes about 2.4 KiB; one frame may be kept for it besides.
    let each = 8 << 10;
    siege
        .within(
            "5,120 watchers that read nothing",
            u64::from(STREAMS) * CONNECTIONS as u64 * each,
        )
        .await;
    drop(kept);
    siege
        .daemon
        .until_metric("bearerd_watchers{transport=\"grpc\"}", 0.0)
        .await;
    siege.lift().await;
}
