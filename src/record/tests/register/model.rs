//! Random histories of several handles on one register, against a cell with compare-and-swap.
//!
//! A register takes part through [`Shelf`]. The model holds every content that the cell may have: a swap whose call was dropped may
//! have happened, or may still happen, until something tells.

use super::*;
use crate::record::tests::machine::{Seen, histories, is_a_whole_run, run};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::task::{Context, Waker};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Where a register keeps one cell, and what can be done to it from outside.
pub(in crate::record) trait Shelf: 'static {
    /// One in so many of proptest's number of histories: some registers are slow.
    const ONE_IN: u32;
    /// `changed` ends after another handle has written, and not while nobody writes.
    const WAKES: bool;
    /// Swaps that were seen: the run fails if one kind of outcome never was.
    fn seen() -> &'static Seen<&'static str>;
    /// An empty cell.
    fn empty() -> Self;
    /// One more handle on the cell.
    fn open(&self) -> Arc<dyn Register>;
    /// Takes the record away, or cuts it after so many thousandths; false where nobody can.
    fn damage(&self, _kept: Option<u64>) -> bool {
        false
    }
}

/// What the cell holds: nothing, a record with its number, or something that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    Nothing,
    Number(u64),
    Torn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seeing {
    /// What the handle was shown last.
    Shown,
    /// A version from so many writes ago.
    Old(u64),
    Nothing,
    Forged,
}

#[derive(Clone, Debug)]
enum Step {
    Load(usize),
    Swap(usize, Seeing),
    /// The call is looked at so many times, and then dropped.
    DropLoad(usize, u32),
    DropSwap(usize, Seeing, u32),
    Reopen(usize),
    Delete,
    Cut(u64),
    /// Waits for a change.
    Watch(usize),
}

const HANDLES: usize = 3;

/// The steps alone; what the register answers decides what the model holds, so it is kept beside the register.
struct Histories<S>(PhantomData<S>);

impl<S: Shelf> ReferenceStateMachine for Histories<S> {
    type State = ();
    type Transition = Step;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Step> {
        let handle = 0..HANDLES;
        let seeing = prop_oneof![
            8 => Just(Seeing::Shown),
            2 => (0u64..5).prop_map(Seeing::Old),
            1 => Just(Seeing::Nothing),
            1 => Just(Seeing::Forged),
        ];
        let polls = 0u32..3;
        prop_oneof![
            8 => handle.clone().prop_map(Step::Load),
            10 => (handle.clone(), seeing.clone()).prop_map(|(at, seeing)| Step::Swap(at, seeing)),
            1 => (handle.clone(), polls.clone()).prop_map(|(at, polls)| Step::DropLoad(at, polls)),
            2 => (handle.clone(), seeing, polls)
                .prop_map(|(at, seeing, polls)| Step::DropSwap(at, seeing, polls)),
            1 => handle.clone().prop_map(Step::Reopen),
            1 => Just(Step::Delete),
            1 => (0u64..1000).prop_map(Step::Cut),
            3 => handle.prop_map(Step::Watch),
        ]
        .boxed()
    }

    fn apply((): (), _: &Step) {}
}

struct Handle {
    register: Arc<dyn Register>,
    /// What its last load or swap showed, if the caller was told.
    shown: Option<Content>,
}

struct Real<S> {
    shelf: S,
    runtime: Runtime,
    handles: Vec<Handle>,
    versions: BTreeMap<u64, Version>,
    written: u64,
    /// All that the cell may hold.
    possible: BTreeSet<Content>,
    /// Dropped swaps that may still happen: what they must find, and what they write.
    late: Vec<(Content, u64)>,
    /// A load was dropped, which may still move aside what is torn.
    late_load: bool,
    /// Whether another than each handle may have written since it was shown something.
    moved: Vec<bool>,
}

impl<S: Shelf> Real<S> {
    fn number(&mut self) -> u64 {
        self.written += 1;
        self.written
    }

    /// What a swap says that it saw.
    fn version(&self, at: usize, seeing: Seeing) -> (Option<Version>, Content) {
        let number = match (seeing, self.handles[at].shown) {
            (Seeing::Shown, Some(Content::Number(number))) => number,
            (Seeing::Old(ago), _) => self.written.saturating_sub(ago),
            (Seeing::Forged, _) => {
                return (Some(Version(b"never seen".to_vec())), Content::Number(0));
            }
            (Seeing::Nothing | Seeing::Shown, _) => return (None, Content::Nothing),
        };
        match self.versions.get(&number) {
            Some(version) => (Some(version.clone()), Content::Number(number)),
            None => (None, Content::Nothing),
        }
    }

    /// The cell may hold these, and whatever late writers make of them.
    fn may_hold(&mut self, contents: impl IntoIterator<Item = Content>) {
        self.possible = contents.into_iter().collect();
        if self.late_load && self.possible.contains(&Content::Torn) {
            self.possible.insert(Content::Nothing);
        }
        loop {
            let reached = |(finds, writes): &(Content, u64)| {
                let writes = Content::Number(*writes);
                (self.possible.contains(finds) && !self.possible.contains(&writes))
                    .then_some(writes)
            };
            let Some(more) = self.late.iter().find_map(reached) else {
                break;
            };
            self.possible.insert(more);
        }
        // No record comes twice, so whoever must find one that is gone comes too late for ever.
        let possible = &self.possible;
        let may_come = |finds: &Content| *finds == Content::Nothing || possible.contains(finds);
        self.late.retain(|(finds, _)| may_come(finds));
    }

    /// The cell was seen to hold this.
    fn told(&mut self, content: Content) {
        let possible = self.possible.clone();
        assert!(
            possible.contains(&content),
            "{content:?}, not one of {possible:?}"
        );
        if let Content::Number(number) = content {
            // It has happened, and cannot happen again.
            self.late.retain(|(_, writes)| *writes != number);
        }
        self.may_hold([content]);
    }

    fn wrote(&mut self, by: Option<usize>) {
        for (at, moved) in self.moved.iter_mut().enumerate() {
            *moved = *moved || Some(at) != by;
        }
    }

    fn load(&mut self, at: usize) {
        let loaded = self.runtime.block_on(self.handles[at].register.load());
        let loaded = loaded.expect("it can be read");
        let content = match (&loaded.found, &loaded.moved_aside) {
            (Some((record, version)), None) => {
                assert_eq!(*record, numbered(record.revision), "it is whole");
                let known = self.versions.entry(record.revision);
                assert_eq!(known.or_insert_with(|| version.clone()), version);
                Content::Number(record.revision)
            }
            (None, None) => Content::Nothing,
            (None, Some(_)) => Content::Torn,
            (Some(_), Some(told)) => panic!("{told}, and yet it is there"),
        };
        self.told(content);
        S::seen().count(match content {
            Content::Nothing => "nothing",
            Content::Number(_) => "found",
            Content::Torn => "torn",
        });
        let shown = match content {
            Content::Torn => {
                // It is out of the way now.
                self.may_hold([Content::Nothing]);
                self.wrote(Some(at));
                Content::Nothing
            }
            content => content,
        };
        self.handles[at].shown = Some(shown);
        self.moved[at] = false;
    }

    fn swap(&mut self, at: usize, seeing: Seeing) {
        let (version, sees) = self.version(at, seeing);
        let number = self.number();
        let register = &self.handles[at].register;
        let swapped = self
            .runtime
            .block_on(register.swap(version, numbered(number)));
        match swapped {
            Swapped::Done(version) => {
                assert!(self.possible.contains(&sees), "{sees:?} was not there");
                let twins = self.versions.values().filter(|it| **it == version);
                assert_eq!(twins.count(), 0, "a version names one state");
                self.versions.insert(number, version);
                self.may_hold([Content::Number(number)]);
                self.handles[at].shown = Some(Content::Number(number));
                self.wrote(Some(at));
                self.moved[at] = false;
                S::seen().count("done");
            }
            Swapped::Conflict => {
                let others = self.possible.clone();
                let others: Vec<Content> = others.into_iter().filter(|it| *it != sees).collect();
                assert!(!others.is_empty(), "it held {sees:?} and nothing else");
                self.may_hold(others);
                // What it is shown is that something else is there, and not what.
                self.handles[at].shown = None;
                self.moved[at] = false;
                S::seen().count("conflict");
            }
            // Nothing happened; only a late writer may be in the way.
            Swapped::Unavailable(error) => {
                assert!(!self.late.is_empty(), "{error}");
                self.handles[at].shown = None;
            }
            Swapped::Unknown(error) => panic!("{error}"),
        }
    }

    fn drop_swap(&mut self, at: usize, seeing: Seeing, polls: u32) {
        let (version, sees) = self.version(at, seeing);
        let number = self.number();
        let register = Arc::clone(&self.handles[at].register);
        self.runtime.block_on(async {
            let mut pending = register.swap(version, numbered(number));
            for _ in 0..polls {
                let looked = pending
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()));
                if looked.is_ready() {
                    break;
                }
            }
        });
        self.late.push((sees, number));
        self.may_hold(self.possible.clone());
        self.handles[at].shown = None;
        self.wrote(None);
        S::seen().count("dropped");
    }

    /// A change ends the wait of whoever was shown something else, and nothing else does.
    fn watch(&mut self, at: usize) {
        let certain = self.possible.len() == 1 && self.late.is_empty();
        if !S::WAKES || !certain {
            return;
        }
        let Some(shown) = self.handles[at].shown else {
            return;
        };
        let register = &self.handles[at].register;
        // On paused time, which goes on only when nothing else does.
        let wait = async { timeout(Duration::from_secs(60), register.changed()).await };
        let ended = self.runtime.block_on(wait).is_ok();
        let differs = !self.possible.contains(&shown);
        if differs {
            assert!(ended, "{shown:?} became {:?}", self.possible);
            S::seen().count("woken");
        } else if !self.moved[at] {
            assert!(!ended, "nobody wrote since {shown:?}");
            S::seen().count("left alone");
        }
    }

    fn damage(&mut self, kept: Option<u64>) {
        // Not under the hands of a late writer: the model could not tell who came first.
        let settled = self.late.is_empty() && self.possible.len() == 1;
        let there = matches!(self.possible.first(), Some(Content::Number(_)));
        if settled && there && self.shelf.damage(kept) {
            let content = kept.map_or(Content::Nothing, |_| Content::Torn);
            self.may_hold([content]);
            self.wrote(None);
        }
    }
}

struct Conforms<S>(PhantomData<S>);

impl<S: Shelf> StateMachineTest for Conforms<S> {
    type SystemUnderTest = Real<S>;
    type Reference = Histories<S>;

    fn init_test((): &()) -> Real<S> {
        let shelf = S::empty();
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let handle = |_| Handle {
            register: shelf.open(),
            shown: None,
        };
        Real {
            handles: (0..HANDLES).map(handle).collect(),
            runtime: runtime.unwrap(),
            versions: BTreeMap::new(),
            written: 0,
            possible: [Content::Nothing].into(),
            late: Vec::new(),
            late_load: false,
            moved: vec![false; HANDLES],
            shelf,
        }
    }

    fn apply(mut real: Real<S>, (): &(), step: Step) -> Real<S> {
        match step {
            Step::Load(at) => real.load(at),
            Step::Swap(at, seeing) => real.swap(at, seeing),
            Step::DropLoad(at, polls) => {
                let register = Arc::clone(&real.handles[at].register);
                real.runtime.block_on(async {
                    let mut pending = register.load();
                    let mut waker = Context::from_waker(Waker::noop());
                    for _ in 0..polls {
                        if pending.as_mut().poll(&mut waker).is_ready() {
                            break;
                        }
                    }
                });
                // It may have shown something to nobody.
                real.handles[at].shown = None;
                real.late_load = true;
                real.may_hold(real.possible.clone());
            }
            Step::DropSwap(at, seeing, polls) => real.drop_swap(at, seeing, polls),
            Step::Reopen(at) => {
                real.handles[at].register = real.shelf.open();
                real.handles[at].shown = None;
            }
            Step::Delete => real.damage(None),
            Step::Cut(kept) => real.damage(Some(kept)),
            Step::Watch(at) => real.watch(at),
        }
        real
    }
}

/// Runs random histories over cells of this kind.
pub(in crate::record) fn conforms_in_random_histories<S: Shelf>() {
    run::<Conforms<S>>(&histories(S::ONE_IN), 1..80);
    if !is_a_whole_run() {
        return;
    }
    let damaged: &[&str] = if S::empty().damage(None) {
        &["torn"]
    } else {
        &[]
    };
    let watched: &[&str] = if S::WAKES {
        &["woken", "left alone"]
    } else {
        &[]
    };
    let always = ["nothing", "found", "done", "conflict", "dropped"];
    for what in always.iter().chain(damaged).chain(watched) {
        assert!(S::seen().times(what) > 0, "never seen: {what}");
    }
}

/// A memory register lives and dies with its one process: there is no other who could write, nor anything to reopen.
struct Memory(Arc<MemoryRegister>);

impl Shelf for Memory {
    const ONE_IN: u32 = 1;
    const WAKES: bool = false;

    fn seen() -> &'static Seen<&'static str> {
        static SEEN: Seen<&str> = Seen::new();
        &SEEN
    }

    fn empty() -> Self {
        Self(Arc::new(MemoryRegister::new()))
    }

    fn open(&self) -> Arc<dyn Register> {
        Arc::clone(&self.0) as Arc<dyn Register>
    }
}

#[test]
fn the_memory_register_is_a_cell_in_random_histories() {
    conforms_in_random_histories::<Memory>();
}
