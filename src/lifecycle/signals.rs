//! What each signal does to a long-lived process: it drains it, or nothing.
//!
//! Every signal that would end a process by default, and that can be caught, is in one of two lists. Left alone are those with which
//! the system or a debugger says that the process is broken (ABRT, BUS, FPE, ILL, SEGV, SYS, TRAP): they end it at once, and no core
//! is written. KILL cannot be caught, and neither can 32 to 34, as far as the C library keeps them for itself. PIPE is ignored from
//! the start, by Rust.

use std::io;
use std::task::Poll;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// They drain: someone wants the process to end, or the machine or a limit of CPU time is about to end it.
const DRAINING: [Number; 5] = [
    Number::TERM,
    Number::INT,
    Number::QUIT,
    Number::POWER,
    Number::XCPU,
];

/// They are ignored: they mean something to programs that asked for them. After XFSZ the write that was too long fails by itself.
const IGNORED: [Number; 8] = [
    Number::USR1,
    Number::USR2,
    Number::ALARM,
    Number::VTALARM,
    Number::PROF,
    Number::IO,
    Number::STKFLT,
    Number::XFSZ,
];

/// The signals that nobody has given a meaning, as far as the kernel has them. The C library keeps the first two or three.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The signals that drain, in the hands of this process.
pub struct Signals(Vec<Signal>);

impl Signals {
    /// Takes the signals over; from here on none of them ends the process by itself.
    ///
    /// # Errors
    /// If the system does not let a process do so.
    pub fn take() -> io::Result<Self> {
        for number in IGNORED {
            // Nobody needs to hear it: once taken over, a signal stays so for as long as the process lives.
            drop(taken(number.as_raw())?);
        }
        for number in REAL_TIME {
            let _kept_by_the_library = taken(number);
        }
        let hangup = (!hangup_is_ignored()).then_some(Number::HUP);
        let draining = DRAINING.into_iter().chain(hangup);
        draining
            .map(|number| taken(number.as_raw()))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Cancels `stop` at the first signal, and returns at the second.
    pub async fn watch(mut self, stop: &CancellationToken) {
        self.next().await;
        stop.cancel();
        self.next().await;
    }

    async fn next(&mut self) {
        std::future::poll_fn(|context| {
            let mut signals = self.0.iter_mut();
            match signals.any(|signal| signal.poll_recv(context).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

fn taken(number: i32) -> io::Result<Signal> {
    signal(SignalKind::from_raw(number))
}

/// True if whoever started this process asked the system to ignore a closed terminal, as `nohup` does.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeSet;

    /// What `man 7 signal` says about the default: the process ends.
    const ENDING: [i32; 24] = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31, 64,
    ];

    /// A broken process; what cannot be caught; and what Rust ignores.
    const LEFT_ALONE: [Number; 9] = [
        Number::ABORT,
        Number::BUS,
        Number::FPE,
        Number::ILL,
        Number::SEGV,
        Number::SYS,
        Number::TRAP,
        Number::KILL,
        Number::PIPE,
    ];

    #[test]
    fn each_signal_that_ends_a_process_by_default_has_been_decided_on() {
        let named = DRAINING.into_iter().chain(IGNORED).chain(LEFT_ALONE);
        let decided: Vec<i32> = named
            .map(Number::as_raw)
            .chain([Number::HUP.as_raw(), *REAL_TIME.end()])
            .collect();
        let set: BTreeSet<i32> = decided.iter().copied().collect();
        assert_eq!(set.len(), decided.len(), "one is decided on twice");
        assert_eq!(set, BTreeSet::from(ENDING));
    }
}
