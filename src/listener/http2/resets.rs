//! Counts the streams that h2 resets by itself, for instance for a malformed head: it reports none.

/// A frame's head, and the code of a reset behind it.
const HEAD: usize = 9;
const RESET: usize = HEAD + 4;

const RST_STREAM: u8 = 3;
const PROTOCOL_ERROR: [u8; 4] = 1_u32.to_be_bytes();

/// Follows the frames that are written to one connection.
#[derive(Default)]
pub(super) struct Resets {
    /// The begun head of a frame, or of a reset with its code.
    begun: [u8; RESET],
    have: usize,
    /// So many bytes of the frame's payload are still to come.
    rest: usize,
}

impl Resets {
    /// How many resets for a breach of the protocol were written whole with these bytes.
    pub(super) fn count(&mut self, mut written: &[u8]) -> u64 {
        let mut resets = 0;
        loop {
            let skipped = self.rest.min(written.len());
            self.rest -= skipped;
            written = &written[skipped..];
            if written.is_empty() {
                return resets;
            }
            // The usual case: a whole head, of another frame.
            if self.have == 0
                && let [a, b, c, kind, _, _, _, _, _, behind @ ..] = written
                && *kind != RST_STREAM
            {
                self.rest = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                written = behind;
                continue;
            }
            let is_reset = self.have >= HEAD;
            let whole = if is_reset { RESET } else { HEAD };
            let taken = (whole - self.have).min(written.len());
            self.begun[self.have..self.have + taken].copy_from_slice(&written[..taken]);
            self.have += taken;
            written = &written[taken..];
            if self.have < whole {
                return resets;
            }
            if is_reset {
                resets += u64::from(self.begun[HEAD..] == PROTOCOL_ERROR);
                self.have = 0;
            } else if self.begun[3] != RST_STREAM {
                let [a, b, c, ..] = self.begun;
                self.rest = u32::from_be_bytes([0, a, b, c]) as usize;
                self.have = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    proptest! {
        #[test]
        fn resets_are_counted_however_the_frames_are_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..8),
            cuts in proptest::collection::vec(1_usize..40, 1..20),
        ) {
            let mut bytes = Vec::new();
            for payload in &payloads {
                bytes.extend(frame(0, payload));
                bytes.extend(frame(RST_STREAM, &PROTOCOL_ERROR));
                // Refused, or no longer wanted.
                bytes.extend(frame(RST_STREAM, &8_u32.to_be_bytes()));
            }
            let mut resets = Resets::default();
            let (mut counted, mut rest, mut cuts) = (0, &bytes[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                counted += resets.count(piece);
                rest = behind;
            }
            prop_assert_eq!(counted, payloads.len() as u64);
        }
    }
}
