//! A body that is sent step by step, and may end its connection half way.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::Attended;
use super::answer::{Answer, Hangup, Step};

const SPACES: &[u8] = &[b' '; 16 * 1024];

/// A body of [`Step`]s. While it lives, the mint that it answers is not over.
pub(super) struct ScriptedBody {
    steps: VecDeque<Step>,
    length: u64,
    pause: Option<Pin<Box<Sleep>>>,
    _attended: Option<Attended>,
}

impl ScriptedBody {
    pub(super) fn new(answer: Answer, attended: Option<Attended>) -> Self {
        Self {
            steps: answer.body.into(),
            length: answer.length,
            pause: None,
            _attended: attended,
        }
    }

    /// Takes `count` spaces, or as many as go in one chunk, and leaves the rest for later.
    fn fill(&mut self, count: u64) -> Bytes {
        let chunk = usize::try_from(count).map_or(SPACES.len(), |count| count.min(SPACES.len()));
        let rest = count - chunk as u64;
        if rest > 0 {
            self.steps.push_front(Step::Fill(rest));
        }
        Bytes::from_static(&SPACES[..chunk])
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = Hangup;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Hangup>>> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            let data = match this.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Data(bytes)) => bytes,
                Some(Step::Fill(count)) => this.fill(count),
                Some(Step::Pause(pause)) => {
                    this.pause = Some(Box::pin(sleep(pause)));
                    continue;
                }
                // hyper flushes whenever the body has nothing to give.
                Some(Step::Flush) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Hangup(how)) => return Poll::Ready(Some(Err(how))),
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.pause.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
