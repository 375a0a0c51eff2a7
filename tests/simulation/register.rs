//! The register: one cell with compare-and-swap, which can lose, forget, lag and be cut off.

use std::collections::VecDeque;

use bearerd::record::{Loaded, Record, RegisterError, Swapped, Version};

use crate::clocks::Nanos;

/// So many replaced records are kept, for the day on which an older one comes back.
const COPIES: usize = 6;

/// So many writes a disk keeps to itself unless it is told to sync.
const UNSYNCED: usize = 4;

/// What a write comes to when nothing is known of it.
#[derive(Clone, Copy, Debug)]
pub enum Unknown {
    Done,
    NotDone,
    /// Done when everybody has gone on.
    Late,
}

/// What is in the cell.
pub enum Content {
    Nothing,
    Torn,
    Kept(Box<Record>),
}

pub struct Register {
    pub content: Content,
    version: u64,
    /// What was replaced, the wall error of whoever wrote it, and whether by a hidden clock.
    copies: VecDeque<(Box<Record>, i64, bool)>,
    pub down_until: Nanos,
    pub lag_until: Nanos,
    pub full_until: Nanos,
    /// The next write comes to this.
    pub unknown: Option<Unknown>,
    /// The true wall error of whoever wrote last.
    pub wall_ahead: i64,
    /// Whoever wrote last did so by a boot clock that its kernel's files do not tell from another.
    pub hidden: bool,
}

impl Register {
    pub fn new() -> Self {
        Self {
            content: Content::Nothing,
            version: 0,
            copies: VecDeque::new(),
            down_until: 0,
            lag_until: 0,
            full_until: 0,
            unknown: None,
            wall_ahead: 0,
            hidden: false,
        }
    }

    pub fn version(&self) -> Option<Version> {
        match self.content {
            Content::Nothing => None,
            Content::Torn | Content::Kept(_) => Some(Version(self.version.to_be_bytes().to_vec())),
        }
    }

    pub fn record(&self) -> Option<&Record> {
        match &self.content {
            Content::Kept(record) => Some(record),
            Content::Nothing | Content::Torn => None,
        }
    }

    /// What is there; what is torn is moved aside. `through_text`: as a real one reads it, which takes longer.
    pub fn load(&mut self, through_text: bool) -> Loaded {
        let version = self.version();
        match &self.content {
            Content::Nothing => Loaded {
                found: None,
                moved_aside: None,
            },
            Content::Torn => {
                self.content = Content::Nothing;
                Loaded {
                    found: None,
                    moved_aside: Some("it was torn".into()),
                }
            }
            Content::Kept(record) => {
                let record = if through_text {
                    Record::parse(&record.to_text()).expect("what was written can be read")
                } else {
                    Record::clone(record)
                };
                Loaded {
                    found: version.map(|version| (record, version)),
                    moved_aside: None,
                }
            }
        }
    }

    /// Puts a record in, whatever was there.
    pub fn put(&mut self, next: Box<Record>, wall_ahead: i64, hidden: bool) {
        self.version += 1;
        if let Content::Kept(before) = std::mem::replace(&mut self.content, Content::Kept(next)) {
            if self.copies.len() == COPIES {
                self.copies.pop_front();
            }
            self.copies
                .push_back((before, self.wall_ahead, self.hidden));
        }
        (self.wall_ahead, self.hidden) = (wall_ahead, hidden);
    }

    pub fn lose(&mut self, torn: bool) {
        self.version += 1;
        self.content = if torn {
            Content::Torn
        } else {
            Content::Nothing
        };
    }

    /// An older copy takes the record's place, if there is one that may: its writer's boot and wall error are told.
    pub fn bring_back(&mut self, nth: usize, may: impl Fn(&Record, i64) -> bool) -> bool {
        if self.copies.is_empty() || self.record().is_none() {
            return false;
        }
        let (copy, wall_ahead, hidden) = &self.copies[nth % self.copies.len()];
        if *hidden || !may(copy, *wall_ahead) {
            return false;
        }
        self.version += 1;
        (self.wall_ahead, self.hidden) = (*wall_ahead, false);
        self.content = Content::Kept(copy.clone());
        true
    }

    /// What was written last is lost, as if it had never been synced.
    pub fn lose_the_unsynced(&mut self) {
        self.version += 1;
        for _ in 0..UNSYNCED {
            self.content = match self.copies.pop_back() {
                None => Content::Nothing,
                Some((copy, wall_ahead, hidden)) => {
                    (self.wall_ahead, self.hidden) = (wall_ahead, hidden);
                    Content::Kept(copy)
                }
            };
        }
    }

    pub fn done(&self) -> Swapped {
        Swapped::Done(Version(self.version.to_be_bytes().to_vec()))
    }
}

pub fn down() -> RegisterError {
    RegisterError::Io {
        doing: "reach the register".into(),
        why: "it is down".into(),
    }
}
