//! The message that carries a token: encoded once a second, for all who ask.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};
use jiff::Timestamp;
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};
use zeroize::Zeroize as _;

use super::proto::Token;
use crate::clock::Stamp;
use crate::token::wiped;
use crate::vend::{Live, Times};

/// What stands before each message on the wire: that it is not compressed, and its length.
const PREFIX: usize = 5;

/// `GetTokenResponse` and `WatchTokenResponse`, which are encoded alike. It is never received.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Vended(Bytes);

impl Vended {
    /// The message within a frame of [`framed`].
    pub(super) fn from_frame(frame: &Bytes) -> Self {
        Self(frame.slice(PREFIX..))
    }
}

/// The message as it goes over the wire at `now`.
pub(super) fn framed(live: &Live, now: Stamp) -> Bytes {
    live.message(now, |live, times| {
        let mut wrapped = Wrapped {
            token: Some(token(live, times)),
        };
        let length = u32::try_from(wrapped.encoded_len()).expect("a token is short");
        let mut text = Vec::with_capacity(PREFIX + wrapped.encoded_len());
        text.push(0);
        text.extend_from_slice(&length.to_be_bytes());
        wrapped.encode_raw(&mut text);
        if let Some(token) = &mut wrapped.token {
            token.access_token.zeroize();
        }
        wiped(text)
    })
}

/// The field of both messages.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Wrapped {
    #[prost(message, optional, tag = "1")]
    token: Option<Token>,
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wrapped(…)")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl fmt::Debug for Vended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vended(…)")
    }
}

fn token(live: &Live, times: Times) -> Token {
    Token {
        access_token: live.token.secret.expose().to_owned(),
        expires_at: Some(timestamp(times.expires_at)),
        issued_at: Some(timestamp(times.issued_at)),
        generation: live.token.generation.0,
        suspect: live.suspect,
        expires_in: times.expires_in.try_into().unwrap_or(u32::MAX),
    }
}

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let milliseconds = at.as_millisecond();
    prost_types::Timestamp {
        seconds: milliseconds.div_euclid(1000),
        nanos: i32::try_from(milliseconds.rem_euclid(1000) * 1_000_000)
            .expect("less than a second"),
    }
}

impl Message for Vended {
    fn encode_raw(&self, into: &mut impl BufMut) {
        into.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        prost::encoding::skip_field(wire_type, tag, from, context)
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, SystemClock};
    use crate::token::{self, Generation, Secret};

    #[test]
    fn the_frame_belongs_to_an_owner_that_wipes_it() {
        let now = SystemClock::new().now();
        let token = token::Token {
            generation: Generation(7),
            secret: Secret::new("opaque".into()),
            issued_at: now,
            refresh_at: now,
            expires_at: now,
        };
        let live = Live::new(token, false);
        let frame = framed(&live, now);
        drop(live);
        assert!(frame.windows(6).any(|part| part == b"opaque"));
        // A plain buffer, now that nobody else holds it, would be given away to be written to.
        assert!(frame.try_into_mut().is_err());
    }
}
