//! The daemon under attack: each attack has a name, an end that is asserted, callers that are served meanwhile, and a ceiling of memory.
//!
//! A [`siege::Siege`] is a daemon with callers who go on asking. An attack must not make one of them fail, nor the process grow beyond
//! what the attack may cost.

mod floods;
mod frames;
mod http1;
mod http2;
mod siege;
mod slow;
mod wire;
