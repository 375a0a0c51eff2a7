//! The connections of one listener: who is overdue, and who goes first when there is no room.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, Id};

use super::metrics::Reason;
use super::patience::{Doing, Patience, Pulse};

/// So long a connection that has asked for something is left alone when there is no room, and one that is being asked to end.
const GRACE: Duration = Duration::from_secs(1);

/// All that are open.
pub(super) struct Crowd {
    patience: Patience,
    tick: Duration,
    /// The sweep under way, or the last one.
    sweep: u32,
    all: HashMap<Id, Seen>,
    /// Who had not asked for anything when last looked at, the first that came first. They make room first: callers ask at once, and
    /// whoever only wants to take places does not. How fast those come is how soon they go again, so that nobody waits long behind them.
    mute: VecDeque<Id>,
    /// Who else may be ended to make room, the longest idle first: as the last sweep saw them.
    idlers: VecDeque<(Id, u32)>,
}

/// What the last sweeps saw of a connection.
struct Seen {
    pulse: Arc<Pulse>,
    handle: AbortHandle,
    beat: u32,
    doing: Doing,
    /// The first sweep that saw it so.
    since: u32,
    /// It was asked to end.
    told: bool,
}

impl Crowd {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            tick: patience.tick(),
            sweep: 0,
            all: HashMap::new(),
            mute: VecDeque::new(),
            idlers: VecDeque::new(),
        }
    }

    /// The time between two sweeps.
    pub(super) fn tick(&self) -> Duration {
        self.tick
    }

    pub(super) fn enter(&mut self, pulse: Arc<Pulse>, handle: AbortHandle) {
        let (beat, doing) = pulse.look();
        let seen = Seen {
            pulse,
            beat,
            doing,
            // It is whole sweeps that count.
            since: self.sweep.wrapping_add(1),
            told: false,
            handle,
        };
        self.mute.push_back(seen.handle.id());
        self.all.insert(seen.handle.id(), seen);
    }

    pub(super) fn leave(&mut self, id: Id) {
        self.all.remove(&id);
        // While nobody is here, nobody sweeps.
        if self.all.is_empty() {
            self.mute.clear();
        }
    }

    /// Ends who is overdue, and says for what each.
    pub(super) fn sweep(&mut self, mut ended: impl FnMut(Reason)) {
        self.sweep = self.sweep.wrapping_add(1);
        let (now, tick) = (self.sweep, self.tick);
        self.mute
            .retain(|id| self.all.get(id).is_some_and(Seen::is_mute));
        for seen in self.all.values_mut() {
            let (beat, doing) = seen.pulse.look();
            if (beat, doing) != (seen.beat, seen.doing) {
                (seen.beat, seen.doing, seen.since) = (beat, doing, now);
                continue;
            }
            // Who was told to end may take as long for it as for a head.
            let longest = match (seen.told, doing) {
                (true, Doing::Idle) => self.patience.header,
                _ => self.patience.with(doing),
            };
            let Some(reason) = overdue(doing).filter(|_| age(now, seen.since, tick) >= longest)
            else {
                continue;
            };
            if !seen.told {
                ended(reason);
            }
            // Who asks for nothing is told so first; who does not play by the rules is cut off.
            if seen.told || reason != Reason::IdleTimeout {
                seen.handle.abort();
            } else {
                seen.pulse.tell();
                seen.since = now;
            }
            seen.told = true;
        }
    }

    /// Nobody is waited for any more but those who are being answered: all have been told to end, and have a moment to do so.
    pub(super) fn close(&mut self) {
        self.patience.header = self.patience.header.min(GRACE);
        for seen in self.all.values_mut() {
            (seen.told, seen.since) = (true, self.sweep.wrapping_add(1));
        }
    }

    /// Looks for those who may be ended to make room: who is idle, the longest first.
    pub(super) fn look_for_idlers(&mut self) {
        let (now, tick) = (self.sweep, self.tick);
        let mut found: Vec<(u32, Id, u32)> = self
            .all
            .iter()
            .filter(|(_, it)| matches!(it.doing, Doing::Head | Doing::Idle))
            .filter(|(_, it)| !it.told && age(now, it.since, tick) >= GRACE.max(tick))
            .map(|(id, it)| (it.since, *id, it.beat))
            .collect();
        found.sort_unstable_by_key(|&(since, ..)| since);
        self.idlers = found.into_iter().map(|(_, id, beat)| (id, beat)).collect();
    }

    /// True if somebody can be ended to make room.
    pub(super) fn has_idlers(&mut self) -> bool {
        self.first_idler().is_some()
    }

    /// Ends one of them; true if there was one.
    pub(super) fn make_room(&mut self) -> bool {
        let Some(id) = self.first_idler() else {
            return false;
        };
        if let Some(seen) = self.all.get_mut(&id) {
            seen.told = true;
            seen.handle.abort();
        }
        true
    }

    /// Forgets those in front who are busy by now, or have gone.
    fn first_idler(&mut self) -> Option<Id> {
        while let Some(id) = self.mute.front() {
            if self.all.get(id).is_some_and(Seen::is_mute) {
                return Some(*id);
            }
            self.mute.pop_front();
        }
        while let Some((id, beat)) = self.idlers.front() {
            let seen = self.all.get(id).filter(|it| !it.told);
            if seen.is_some_and(|it| it.pulse.look() == (*beat, it.doing)) {
                return Some(*id);
            }
            self.idlers.pop_front();
        }
        None
    }
}

impl Seen {
    fn is_mute(&self) -> bool {
        !self.told && self.pulse.look().1 == Doing::First
    }
}

fn age(now: u32, since: u32, tick: Duration) -> Duration {
    // A connection that came after the last sweep is of the next one.
    let sweeps = now.wrapping_sub(since);
    match sweeps {
        u32::MAX => Duration::ZERO,
        sweeps => tick * sweeps,
    }
}

/// Why a connection that does this for too long is ended.
fn overdue(doing: Doing) -> Option<Reason> {
    match doing {
        Doing::First | Doing::Head => Some(Reason::HeaderTimeout),
        Doing::Idle => Some(Reason::IdleTimeout),
        Doing::Writing => Some(Reason::WriteTimeout),
        Doing::Answering => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::pending;

    use tokio::task::JoinSet;

    const PATIENCE: Patience = Patience {
        header: Duration::from_secs(4),
        idle: Duration::from_secs(12),
        write: Duration::from_secs(8),
    };

    /// Connections that last until they are ended.
    struct Room {
        crowd: Crowd,
        tasks: JoinSet<()>,
        ended: Vec<Reason>,
    }

    impl Room {
        fn new() -> Self {
            Self {
                crowd: Crowd::new(PATIENCE),
                tasks: JoinSet::new(),
                ended: Vec::new(),
            }
        }

        fn enter(&mut self, begin: impl Fn(&Pulse)) -> (Arc<Pulse>, Id) {
            let pulse = Arc::new(Pulse::default());
            begin(&pulse);
            let handle = self.tasks.spawn(pending());
            let id = handle.id();
            self.crowd.enter(Arc::clone(&pulse), handle);
            (pulse, id)
        }

        fn seconds(&mut self, seconds: u32) {
            assert_eq!(self.crowd.tick(), Duration::from_secs(1));
            for _ in 0..seconds {
                self.crowd.sweep(|reason| self.ended.push(reason));
            }
        }

        /// The next that was cut off.
        async fn cut(&mut self) -> Id {
            let ended = self.tasks.join_next_with_id().await.unwrap();
            let id = ended.unwrap_err().id();
            self.crowd.leave(id);
            id
        }
    }

    #[tokio::test]
    async fn each_phase_has_its_own_time_and_nobody_is_ended_before_it() {
        type Begin = fn(&Pulse);
        let table: [(Begin, u32, Option<Reason>); 4] = [
            (|_| {}, 4, Some(Reason::HeaderTimeout)),
            (Pulse::head, 4, Some(Reason::HeaderTimeout)),
            (Pulse::idle, 12, Some(Reason::IdleTimeout)),
            (Pulse::answering, 1000, None),
        ];
        for (begin, seconds, reason) in table {
            let mut room = Room::new();
            room.enter(begin);
            // The first sweep is where its time begins.
            room.seconds(seconds);
            assert_eq!(room.ended, [], "{reason:?}");
            room.seconds(1);
            assert_eq!(room.ended, Vec::from_iter(reason));
        }
    }

    #[tokio::test]
    async fn what_begins_anew_has_all_its_time_again() {
        let mut room = Room::new();
        let (pulse, _) = room.enter(Pulse::idle);
        for _ in 0..100 {
            room.seconds(12);
            pulse.answering();
            pulse.idle();
        }
        assert_eq!(room.ended, []);
    }

    #[tokio::test]
    async fn who_is_idle_is_told_and_cut_off_only_if_it_stays() {
        let mut room = Room::new();
        let (_, id) = room.enter(Pulse::idle);
        room.seconds(13);
        assert_eq!(room.ended, [Reason::IdleTimeout]);
        tokio::task::yield_now().await;
        assert!(room.tasks.try_join_next().is_none(), "it was only told");
        room.seconds(4);
        assert_eq!(room.cut().await, id);
        assert_eq!(room.ended.len(), 1, "it is counted once");
    }

    #[tokio::test]
    async fn an_open_call_keeps_its_connection() {
        let mut room = Room::new();
        let (pulse, _) = room.enter(Pulse::idle);
        let open = pulse.open();
        room.seconds(1000);
        assert_eq!(room.ended, []);
        drop(open);
        room.seconds(12);
        assert_eq!(room.ended, []);
        room.seconds(1);
        assert_eq!(room.ended, [Reason::IdleTimeout]);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_who_has_gone() {
        let mut room = Room::new();
        for _ in 0..100 {
            let (_, id) = room.enter(|_| {});
            room.crowd.leave(id);
        }
        // Nobody sweeps while nobody is there.
        assert!(room.crowd.all.is_empty() && room.crowd.mute.is_empty());
        room.enter(|_| {});
        for _ in 0..100 {
            let (_, id) = room.enter(|_| {});
            room.crowd.leave(id);
        }
        room.seconds(1);
        assert_eq!((room.crowd.all.len(), room.crowd.mute.len()), (1, 1));
    }

    #[tokio::test]
    async fn room_is_made_by_who_never_asked_and_then_by_the_longest_idle() {
        let mut room = Room::new();
        let (_, long) = room.enter(Pulse::idle);
        room.seconds(1);
        let (_, later) = room.enter(Pulse::idle);
        let (woken, _) = room.enter(Pulse::idle);
        room.enter(Pulse::answering);
        let (_, mute) = room.enter(|_| {});
        room.seconds(2);
        let (_, newest) = room.enter(|_| {});
        room.enter(Pulse::idle);
        room.crowd.look_for_idlers();
        woken.answering();
        for expected in [mute, newest, long, later] {
            assert!(room.crowd.make_room());
            assert_eq!(room.cut().await, expected);
        }
        assert!(
            !room.crowd.make_room(),
            "the others are busy, or have just come"
        );
    }
}
