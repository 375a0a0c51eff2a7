//! What schedulers without a keeper reach: one that knows everything beforehand, and one that only learns everything at once.
//!
//! Neither has a register, a process that dies, a way to the issuer that takes time, or a clock that is wrong. Both know at each
//! moment whether a request would be answered with a good token, send only then, and keep the issuer's budget. Where strangers spend
//! from it, their requests must leave room for one more; earlier ones of the scheduler's own are not counted beside them, which can
//! only flatter it. So:
//!
//! - The *clairvoyant* also knows every outage and every revocation before it comes. It mints as late as it can before the token that
//!   it has ends, be it by an outage's first moment or by the token's last; where that is impossible, at the first moment at which the
//!   issuer answers again. Nobody can do better: whenever any token could be live, one of its is.
//! - The *near-sighted* one knows nothing of the future. It mints at the first moment at which the issuer answers, once its token is
//!   due, has ended or was revoked. What lies between the two is foresight; what lies between it and a keeper is what a keeper
//!   has to find out, and the laws.

use crate::clocks::Nanos;
use crate::world::watch::Stretch;

/// What is true of an issuer, from the beginning to the end.
pub struct Truth {
    pub lifetime: Nanos,
    pub window: Nanos,
    pub limit: usize,
    /// How long before a token's end a near-sighted scheduler wants the next one.
    pub lead: Nanos,
    pub until: Nanos,
    /// When no request is answered with a good token.
    pub mute: Vec<Stretch>,
    /// When all tokens are revoked.
    pub revoked: Vec<Nanos>,
    /// When strangers make requests that count like ours, in their order.
    pub strangers: Vec<Nanos>,
}

impl Truth {
    /// When the clairvoyant has a live token.
    pub fn clairvoyant(&self) -> Vec<Stretch> {
        let mute = self.shut();
        let mut mints = Vec::new();
        let mut at = opens(&mute, 0);
        while at < self.until {
            mints.push(at);
            let end = self.end(at);
            let last = open_until(&mute, end);
            at = if self.end(last) > end {
                last
            } else {
                opens(&mute, end)
            };
        }
        self.live(&mints)
    }

    /// When the near-sighted one has a live token.
    pub fn near_sighted(&self) -> Vec<Stretch> {
        let mute = self.shut();
        let mut mints = Vec::new();
        let mut at = opens(&mute, 0);
        while at < self.until {
            mints.push(at);
            let due = at + self.lifetime - self.lead;
            at = opens(&mute, due.min(self.end(at)));
        }
        self.live(&mints)
    }

    /// When no request is answered with a good token, because of the weather or because strangers have filled the window.
    fn shut(&self) -> Vec<Stretch> {
        let full = self.strangers.windows(self.limit).filter_map(|some| {
            let (first, last) = (some[0], some[self.limit - 1]);
            (last <= first + self.window).then_some((last, first + self.window + 1))
        });
        united(self.mute.iter().copied().chain(full).collect())
    }

    /// The end of a token that is minted then.
    fn end(&self, minted: Nanos) -> Nanos {
        let revoked = self.revoked.iter().copied().find(|at| *at > minted);
        revoked
            .unwrap_or(Nanos::MAX)
            .min(minted.saturating_add(self.lifetime))
    }

    fn live(&self, mints: &[Nanos]) -> Vec<Stretch> {
        for at in mints {
            let newest = at.saturating_sub(self.window)..=*at;
            let all = mints.iter().filter(|it| newest.contains(it)).count();
            assert!(all <= self.limit, "the reference mints {all} in a window");
        }
        united(mints.iter().map(|at| (*at, self.end(*at))).collect())
    }
}

/// The first moment from then on at which the issuer answers.
fn opens(mute: &[Stretch], at: Nanos) -> Nanos {
    mute.iter()
        .find(|it| it.0 <= at && at < it.1)
        .map_or(at, |it| it.1)
}

/// The last moment until then at which it does.
fn open_until(mute: &[Stretch], at: Nanos) -> Nanos {
    mute.iter()
        .find(|it| it.0 <= at && at < it.1)
        .map_or(at, |it| it.0.saturating_sub(1))
}

/// The same stretches, sorted, and each two apart.
pub fn united(mut stretches: Vec<Stretch>) -> Vec<Stretch> {
    stretches.sort_unstable();
    let mut all: Vec<Stretch> = Vec::new();
    for (from, until) in stretches {
        match all.last_mut() {
            _ if until <= from => {}
            Some(last) if from <= last.1 => last.1 = last.1.max(until),
            _ => all.push((from, until)),
        }
    }
    all
}

/// How long two lists of stretches, each sorted and apart, have in common.
pub fn common(some: &[Stretch], others: &[Stretch]) -> Nanos {
    let mut sum = 0;
    let mut next = 0;
    for &(from, until) in some {
        while others.get(next).is_some_and(|it| it.1 <= from) {
            next += 1;
        }
        let others = others[next..].iter().take_while(|it| it.0 < until);
        sum += others
            .map(|it| it.1.min(until) - it.0.max(from))
            .sum::<Nanos>();
    }
    sum
}

#[test]
fn the_clairvoyant_mints_just_before_an_outage_and_at_its_end() {
    let truth = Truth {
        lifetime: 60,
        window: 30,
        limit: 2,
        lead: 33,
        until: 1000,
        mute: vec![(100, 250)],
        revoked: vec![400],
        strangers: vec![500, 505],
    };
    // At 0, 60, 99 | 250, 310, 370, 400, 460, 504, 564, …, 984.
    assert_eq!(truth.clairvoyant(), [(0, 159), (250, 1044)]);
    // At 0, 27, 54, 81 | 250, …, 385, 400, 427, 454, 481, 531, …, 990.
    assert_eq!(truth.near_sighted(), [(0, 141), (250, 1050)]);
}
