//! One function per fuzz target: any bytes go in, and what must hold for all of them is asserted.
//!
//! They are compiled twice: into the fuzzing binaries of `tests/fuzz`, which look for bytes that break them, and into the
//! integration tests, which replay every file of `tests/fuzz/corpus`. A file that is named by its path looks for its modules beside
//! itself, so each is named by its path too.

#![allow(
    clippy::unwrap_used,
    reason = "a target says that it failed by panicking"
)]

#[path = "targets/answer.rs"]
mod answer;
#[path = "targets/http.rs"]
mod http;
#[path = "targets/life.rs"]
mod life;
#[path = "targets/record.rs"]
mod record;
#[path = "targets/reply.rs"]
mod reply;
#[path = "targets/report.rs"]
mod report;
#[path = "targets/room.rs"]
mod room;
#[path = "targets/settings.rs"]
mod settings;

pub use answer::answer;
pub use http::http;
pub use record::record;
pub use report::report;
pub use settings::settings;

/// The first place of `text` that repeats so many bytes of `secret`.
fn repeats(text: &str, secret: &str, length: usize) -> Option<usize> {
    let mut pieces = secret.as_bytes().windows(length);
    pieces.find_map(|piece| {
        let mut places = text.as_bytes().windows(length);
        places.position(|place| place == piece)
    })
}

/// Cuts at the first `mark`; without one the second half is empty.
fn cut<'a>(data: &'a [u8], mark: &[u8]) -> (&'a [u8], &'a [u8]) {
    let at = data.windows(mark.len()).position(|it| it == mark);
    at.map_or((data, &[][..]), |at| {
        (&data[..at], &data[at + mark.len()..])
    })
}
