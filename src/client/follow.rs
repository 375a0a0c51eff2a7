//! The task that keeps the snapshot up to date.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::door::{Asked, Door, LONGEST_WAIT};
use super::{Failure, Shared, Snapshot, Token};

/// How patiently the daemon is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long the daemon is asked to wait for a newer token: up to a minute.
    pub wait: Duration,
    /// The least distance between two questions, and the first wait after a failure.
    pub least: Duration,
    /// The longest wait after failures in a row.
    pub most: Duration,
}

impl Default for Pace {
    /// Half a minute, and 100 ms doubling up to 5 s.
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(30),
            least: Duration::from_millis(100),
            most: Duration::from_secs(5),
        }
    }
}

impl Pace {
    /// When to ask again, counted from the last question: `vain` questions in a row came to nothing, and `share` of 0 to 1 spreads
    /// those who wait for the same daemon.
    fn distance(&self, vain: u32, share: f64) -> Duration {
        let Some(doublings) = vain.checked_sub(1) else {
            return self.least;
        };
        let longest = (self.least * (1 << doublings.min(16))).min(self.most);
        let spread = longest.mul_f64(0.5 + share / 2.0);
        spread.max(self.least)
    }
}

/// What one question came to, for whoever asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// A newer token.
    News,
    /// Nothing, after the wait that was asked for.
    Waited,
    /// Nothing, at once: a failure, or a server that does not wait.
    Vain,
}

/// Asks for ever. It ends when it is aborted.
pub(super) async fn follow(
    door: Door,
    shared: Arc<Shared>,
    changed: watch::Sender<()>,
    pace: Pace,
) {
    let wait = pace.wait.clamp(Duration::from_secs(1), LONGEST_WAIT);
    let mut vain = 0_u32;
    loop {
        let asked_at = Instant::now();
        let held = shared.snapshot.load().token.clone();
        let answer = door.ask(held.as_deref(), wait, shared.clock.as_ref()).await;
        let came = match take(&shared, held, answer) {
            Came::Vain if asked_at.elapsed() >= wait => Came::Waited,
            came => came,
        };
        if came == Came::News {
            changed.send_replace(());
        }
        vain = match came {
            Came::News | Came::Waited => 0,
            Came::Vain => vain.saturating_add(1),
        };
        sleep_until(asked_at + pace.distance(vain, fastrand::f64())).await;
    }
}

/// Puts an answer into the snapshot: only a newer token replaces a token, and an error replaces nothing.
fn take(shared: &Shared, held: Option<Arc<Token>>, answer: Result<Asked, Failure>) -> Came {
    let now = shared.clock.now();
    let (token, trouble, came) = match answer {
        Ok(Asked::New(token, _)) if is_news(held.as_deref(), &token, shared) => {
            (Some(Arc::new(token)), None, Came::News)
        }
        Ok(Asked::New(..)) => {
            let why = "the daemon gives no newer token";
            (held, Some(why.to_owned()), Came::Vain)
        }
        Ok(Asked::Same) => {
            let ended = held.as_ref().is_some_and(|token| token.expired(now));
            let why =
                ended.then(|| "the daemon says that the ended token is the newest".to_owned());
            (held, why, Came::Vain)
        }
        Err(failure) => (held, Some(failure.to_string()), Came::Vain),
    };
    shared.snapshot.store(Arc::new(Snapshot {
        token,
        trouble: trouble.map(Into::into),
    }));
    came
}

/// A later generation is; so is any live token once the one at hand has ended, as that of another daemon may be.
fn is_news(held: Option<&Token>, token: &Token, shared: &Shared) -> bool {
    let now = shared.clock.now();
    match held {
        None => !token.expired(now),
        Some(held) if held.expired(now) => !token.expired(now) && token.etag != held.etag,
        Some(held) => token.generation > held.generation && !token.expired(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_doubles_to_its_most_and_is_never_under_the_least() {
        let pace = Pace::default();
        let at = |vain, share| pace.distance(vain, share).as_millis();
        assert_eq!(at(0, 0.0), 100);
        let longest: Vec<u128> = (1..9).map(|vain| at(vain, 1.0)).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(
            (at(1, 0.0), at(3, 0.0), at(u32::MAX, 0.0)),
            (100, 200, 2500)
        );
    }
}
