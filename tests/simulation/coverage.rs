//! What was hit: crashes at each boundary, while each kind of fault was at work.

use crate::clocks::Nanos;
use crate::faults::{Boundary, Kind};

pub const BOUNDARIES: usize = Boundary::ALL.len();
pub const KINDS: usize = Kind::ALL.len();

/// How often each pair of boundary and kind was hit.
#[derive(Clone)]
pub struct Coverage {
    pub pairs: [[u64; KINDS]; BOUNDARIES],
    /// Until when each kind is at work in this world, a window of its consequences included.
    at_work: [Nanos; KINDS],
    pub faults: [u64; KINDS],
    pub crashes: u64,
}

impl Coverage {
    pub fn new() -> Self {
        Self {
            pairs: [[0; KINDS]; BOUNDARIES],
            at_work: [0; KINDS],
            faults: [0; KINDS],
            crashes: 0,
        }
    }

    pub fn fault(&mut self, kind: Kind, until: Nanos) {
        self.faults[kind as usize] += 1;
        self.at_work[kind as usize] = self.at_work[kind as usize].max(until);
    }

    pub fn crash(&mut self, boundary: Boundary, now: Nanos) {
        self.crashes += 1;
        for (pair, until) in self.pairs[boundary as usize].iter_mut().zip(self.at_work) {
            *pair += u64::from(until > now);
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (row, others) in self.pairs.iter_mut().zip(&other.pairs) {
            for (pair, more) in row.iter_mut().zip(others) {
                *pair += more;
            }
        }
        for (count, more) in self.faults.iter_mut().zip(other.faults) {
            *count += more;
        }
        self.crashes += other.crashes;
    }

    /// The pair that was hit least.
    pub fn least(&self) -> (u64, Boundary, Kind) {
        let pairs = Boundary::ALL.into_iter().flat_map(|boundary| {
            Kind::ALL.map(|kind| (self.pairs[boundary as usize][kind as usize], boundary, kind))
        });
        pairs.min_by_key(|pair| pair.0).expect("there are pairs")
    }

    /// The table: a row for each kind, a column for each boundary.
    pub fn table(&self) -> String {
        let mut text = format!("{:<14}", "crash at ▸");
        for boundary in Boundary::ALL {
            text += &format!("{:>9}", boundary.short());
        }
        text += &format!("{:>11}\n", "faults");
        for kind in Kind::ALL {
            text += &format!("{:<14}", format!("{kind:?}"));
            for boundary in Boundary::ALL {
                text += &format!("{:>9}", self.pairs[boundary as usize][kind as usize]);
            }
            text += &format!("{:>11}\n", self.faults[kind as usize]);
        }
        text
    }
}
