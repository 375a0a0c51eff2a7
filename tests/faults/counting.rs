//! An upstream that shares nothing with the sandbox: it counts every request by its own monotonic
//! clock.
//!
//! A request counts once all of it has arrived, whatever the answer is. The end of a token is its
//! arrival plus its lifetime, on that same clock, so neither the wall clock nor the boot clock of a
//! daemon has a say in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::front::whole_request;
use crate::harness::{ACCOUNT, Captured, Daemon, PATIENCE, World};

/// What a request is answered with. Each of them counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mint {
    /// A new token.
    Token,
    /// The issuer's own 500, without a token.
    Error,
    /// Nothing: the connection is closed.
    Close,
}

/// A token that was given.
#[derive(Clone, Copy, Debug)]
pub struct Issued {
    /// When it ends, by the clock of this upstream.
    pub ends: Instant,
    /// The same moment on the wall clock of this process.
    pub ends_wall: Timestamp,
}

/// The upstream. Its tasks end with it.
pub struct CountingUpstream {
    pub url: String,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    lifetime: Duration,
    state: Mutex<State>,
}

struct State {
    mint: fn(usize) -> Mint,
    counted_late: Duration,
    arrivals: Vec<Instant>,
    tokens: HashMap<String, Issued>,
}

impl CountingUpstream {
    /// Starts it; its tokens live for this long.
    pub async fn start(lifetime: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            lifetime,
            state: Mutex::new(State {
                mint: |_| Mint::Token,
                counted_late: Duration::ZERO,
                arrivals: Vec::new(),
                tokens: HashMap::new(),
            }),
        });
        let mut accepting = JoinSet::new();
        let accepted = Arc::clone(&shared);
        accepting.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                open.spawn(Arc::clone(&accepted).serve(stream));
                while open.try_join_next().is_some() {}
            }
        });
        Self {
            url,
            shared,
            _accepting: accepting,
        }
    }

    /// The settings of a daemon in this world that mints here instead of at the sandbox.
    pub fn toml(&self, toml: &str, world: &World) -> String {
        let here = toml.replace(&world.sandbox.base_url(), &self.url);
        assert_ne!(here, toml, "the settings name the sandbox");
        here
    }

    /// Chooses the answer by the number of the arrival, counted from zero.
    pub fn mints(&self, mint: fn(usize) -> Mint) {
        self.shared.state.lock().unwrap().mint = mint;
    }

    /// Requests count this much later than they arrive, as behind a queue. Their answers are not
    /// delayed.
    pub fn count_late(&self, by: Duration) {
        self.shared.state.lock().unwrap().counted_late = by;
    }

    pub fn arrivals(&self) -> usize {
        self.shared.state.lock().unwrap().arrivals.len()
    }

    /// The most arrivals in any closed window of this width, from the arrival of this number on.
    pub fn worst_window(&self, width: Duration, from: usize) -> usize {
        let mut at = self.shared.state.lock().unwrap().arrivals[from..].to_vec();
        at.sort_unstable();
        let opened_by = |first: usize| {
            let within = |it: &&Instant| **it - at[first] <= width;
            at[first..].iter().take_while(within).count()
        };
        (0..at.len()).map(opened_by).max().unwrap_or(0)
    }

    /// What is known of a token, if it was given here.
    pub fn issued(&self, token: &str) -> Option<Issued> {
        self.shared.state.lock().unwrap().tokens.get(token).copied()
    }

    /// Waits for one more arrival than there are now.
    pub async fn one_more(&self) {
        let (before, deadline) = (self.arrivals(), Instant::now() + PATIENCE);
        while self.arrivals() <= before {
            assert!(Instant::now() < deadline, "no other mint arrives");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Nobody may have said a token, or a half of one.
    pub fn scan(&self, captured: &Captured) {
        for token in self.shared.state.lock().unwrap().tokens.keys() {
            let (head, tail) = token.split_at(token.len() / 2);
            assert!(!captured.says(head) && !captured.says(tail), "law 9");
        }
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let request = whole_request(&mut stream).await;
        let text = String::from_utf8_lossy(&request);
        let head = format!("POST /clients/{ACCOUNT}/token HTTP/1.1\r\n");
        if !text.starts_with(&head) || !text.ends_with('}') {
            // A daemon that was killed while it sent: what is not whole can mint nothing.
            return;
        }
        let Some(answer) = self.arrived() else {
            return;
        };
        // The daemon may be dead by now.
        let _hung_up = stream.write_all(answer.as_bytes()).await;
        let _hung_up = stream.shutdown().await;
    }

    /// Counts one request, and gives its answer.
    fn arrived(&self) -> Option<String> {
        let mut state = self.state.lock().unwrap();
        let now = Instant::now();
        let wall = bearerd::clock::wall();
        let number = state.arrivals.len();
        let counted = now + state.counted_late;
        state.arrivals.push(counted);
        let (status, body) = match (state.mint)(number) {
            Mint::Close => return None,
            Mint::Error => (
                "500 Internal Server Error",
                r#"{"slug":"internal-server-error","message":"try again"}"#.to_owned(),
            ),
            Mint::Token => {
                let token: String = std::iter::repeat_with(fastrand::alphanumeric)
                    .take(64)
                    .collect();
                let issued = Issued {
                    ends: now + self.lifetime,
                    ends_wall: wall + SignedDuration::try_from(self.lifetime).unwrap(),
                };
                state.tokens.insert(token.clone(), issued);
                let body = format!(r#"{{"token":"{token}","created_at":"{wall}"}}"#);
                ("200 OK", body)
            }
        };
        Some(format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        ))
    }
}

/// A caller that checks each answer against what the upstream knows of the token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    /// Answers with a token.
    pub vended: u64,
    /// Answers without one.
    pub unavailable: u64,
    /// Answers with a token that had ended before the question, which is law 4 broken.
    pub dead: u64,
    /// The longest that a token was vended after its end.
    pub dead_for: Duration,
    /// Answers that claimed a later end than the token has, which is law 4 broken as well.
    pub overclaimed: u64,
    /// The largest such claim.
    pub overclaimed_by: SignedDuration,
}

/// Times are told in milliseconds, and the wall clock may be slewed a little.
const TOLERANCE: SignedDuration = SignedDuration::from_millis(50);

impl Checked {
    /// Asks a daemon, whose wall clock is that of this process, for its token.
    pub async fn ask(&mut self, daemon: &Daemon, upstream: &CountingUpstream) {
        let (asked, asked_wall) = (Instant::now(), bearerd::clock::wall());
        let reply = daemon.token().await;
        if reply.status == 503 {
            self.unavailable += 1;
            return;
        }
        assert_eq!(reply.status, 200, "{}", reply.text);
        self.vended += 1;
        let issued = upstream.issued(&reply.access_token());
        let issued = issued.expect("the upstream gave this token");
        if asked >= issued.ends {
            self.dead += 1;
            self.dead_for = self.dead_for.max(asked - issued.ends);
        }
        let json = reply.json();
        let claimed: Timestamp = json["expires_at"].as_str().unwrap().parse().unwrap();
        let left = SignedDuration::from_secs(json["expires_in"].as_i64().unwrap());
        let latest = claimed.max(asked_wall + left);
        let beyond = latest.duration_since(issued.ends_wall);
        if beyond > TOLERANCE {
            self.overclaimed += 1;
            self.overclaimed_by = self.overclaimed_by.max(beyond);
        }
    }

    /// Law 4 held in every answer.
    pub fn assert(&self) {
        assert_eq!(self.dead, 0, "law 4: vended after their end: {self:?}");
        assert_eq!(self.overclaimed, 0, "law 4: claimed too late: {self:?}");
    }
}
