//! How much of the time callers had a live token while something was wrong, beside what can be reached at all.
//!
//! For each fault mix: the share of the time in which a node's process ran and vended a token that was truly live at the issuer,
//! counted only from a fault's start to one window after its end. A process that is dead, frozen or suspended is not counted; a
//! revoked token is dead. Lengths are the real account's.
//!
//! `BEARERD_CASE=<name>` shows one mix, with its trace and the longest stretches in which only we had no token.

mod document;
mod mixes;
mod script;

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bearerd::record::{Absent, Rules, Wanted};

use crate::clairvoyant::{Truth, common, united};
use crate::clocks::{HOUR, MILLI, Nanos, SECOND, nanos};
use crate::faults::{Fault, Kind};
use crate::setting::{Edge, Mix, Setting, Store};
use crate::world::World;
use crate::world::watch::{Stretch, Watch};
use mixes::{CASES, Case};
use script::Script;

/// So often each mix befalls its world.
const EPISODES: u32 = 200;

/// So much time lies between the end of one and the next, and up to half as much again.
const CALM: Nanos = 3 * HOUR;

const HEAD: &str = "| fault mix | hours of nodes | bearerd | near-sighted | clairvoyant | bearerd ÷ clairvoyant | what is missing |";

/// A mix that stays further behind the clairvoyant says why.
const NEARLY_ALWAYS: f64 = 99.9;

fn rules(lead: Option<Duration>) -> Rules {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let ten = NonZeroU32::new(10).expect("ten is not zero");
    let mut wanted = Wanted::new(minutes(60), minutes(30), ten);
    wanted.lead = lead;
    Rules::new(&wanted)
}

/// True if this kind befalls one node only.
fn befalls_one(kind: Kind) -> bool {
    matches!(kind, Kind::Partition | Kind::Freeze | Kind::CrashLoop)
}

/// When no request is answered with a good token: one weather takes another's place.
fn mute(plan: &[Fault]) -> Vec<Stretch> {
    let weather: Vec<&Fault> = plan.iter().filter(|it| it.kind.is_weather()).collect();
    let replaced = weather.iter().skip(1).map(|next| next.at);
    let answers = |kind: Kind| {
        matches!(
            kind,
            Kind::KeyRefused | Kind::Slow | Kind::Duplicated | Kind::Repeated | Kind::Aged
        )
    };
    weather
        .iter()
        .zip(replaced.chain([Nanos::MAX]))
        .filter(|(it, _)| !answers(it.kind))
        .map(|(it, replaced)| (it.at, replaced.min(it.at + it.length)))
        .collect()
}

/// What a case came to.
#[derive(Debug, Default)]
struct Figures {
    counted: Nanos,
    ours: Nanos,
    near_sighted: Nanos,
    clairvoyant: Nanos,
    /// The stretches in which the clairvoyant has a token and we have none, the longest first.
    behind: Vec<Stretch>,
}

impl Case {
    fn script(&self) -> Script {
        let mut script = Script::new(2 * HOUR, self.name.len() as u64);
        for _ in 0..EPISODES {
            (self.episode)(&mut script);
            script.at += script.dice.u64(CALM..CALM * 3 / 2);
        }
        script
    }

    fn setting(&self) -> Setting {
        let mut setting = Setting {
            store: Store::File,
            nodes: 1,
            rules: rules(None),
            absent: Absent::New,
            mix: Mix::Everything,
            edge: Edge::Sound,
            theme: None,
            latency: 400 * MILLI,
        };
        (self.world)(&mut setting);
        setting
    }

    /// Lets it happen.
    fn run(&self, traced: bool) -> (Figures, World) {
        let (setting, script) = (self.setting(), self.script());
        let window = nanos(setting.rules.budget.window);
        let counts = |node: usize| {
            let others = script
                .plan
                .iter()
                .filter(|it| befalls_one(it.kind) && it.node % setting.nodes != node);
            let others: Vec<Stretch> = others.map(|it| (it.at, it.at + it.length)).collect();
            let mine = script.counts.iter().filter(|it| !others.contains(it));
            united(mine.map(|it| (it.0, it.1 + window)).collect())
        };
        let counts = (0..setting.nodes).map(counts).collect();
        let mut world = World::new(setting.clone(), script.plan.clone(), 1, traced);
        world.watch = Some(Watch::new(counts));
        world.upstream.retry_after = script.retry_after;
        world.befallen_by(&script.strangers);
        if let Err(broken) = catch_unwind(AssertUnwindSafe(|| world.run(script.at))) {
            world.trace().for_each(|line| println!("{line}"));
            println!("{}: a law is broken", self.name);
            resume_unwind(broken);
        }
        let watch = world.watch.take().expect("it was given");
        let truth = Truth {
            lifetime: nanos(setting.rules.lifetime),
            window,
            limit: setting.rules.budget.limit.get() as usize,
            lead: nanos(setting.rules.lead),
            until: script.at,
            mute: mute(&script.plan),
            revoked: watch.revoked.clone(),
            strangers: script.strangers,
        };
        (compared(&watch, &truth), world)
    }
}

fn compared(watch: &Watch, truth: &Truth) -> Figures {
    let sum = |all: &[Stretch]| all.iter().map(|it| it.1 - it.0).sum::<Nanos>();
    let (clairvoyant, near_sighted) = (truth.clairvoyant(), truth.near_sighted());
    let mut figures = Figures::default();
    for (ran, dark) in watch.ran.iter().zip(&watch.dark) {
        figures.counted += sum(ran);
        figures.ours += sum(ran) - sum(dark);
        figures.near_sighted += common(ran, &near_sighted);
        figures.clairvoyant += common(ran, &clairvoyant);
        let behind = dark.iter().filter(|it| common(&[**it], &clairvoyant) > 0);
        figures.behind.extend(behind);
    }
    let length = |it: &Stretch| common(&[*it], &clairvoyant);
    figures
        .behind
        .sort_by_key(|it| std::cmp::Reverse(length(it)));
    figures
}

fn share(part: Nanos, whole: Nanos) -> f64 {
    100.0 * part as f64 / whole as f64
}

impl Figures {
    /// In hundredths of the clairvoyant's.
    fn reached(&self) -> f64 {
        share(self.ours, self.clairvoyant)
    }

    fn row(&self, case: &Case) -> String {
        let why = if self.reached() < NEARLY_ALWAYS {
            case.why
        } else {
            ""
        };
        format!(
            "| {} | {:.0} | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {why} |",
            case.name,
            self.counted as f64 / HOUR as f64,
            share(self.ours, self.counted),
            share(self.near_sighted, self.counted),
            share(self.clairvoyant, self.counted),
            self.reached(),
        )
    }
}

#[test]
fn callers_have_a_token_nearly_whenever_one_can_be_had() {
    if let Ok(name) = std::env::var("BEARERD_CASE") {
        return show(&name);
    }
    let all = run_all();
    let mut table = format!("{HEAD}\n|---|--:|--:|--:|--:|--:|---|\n");
    for (case, figures) in CASES.iter().zip(&all) {
        table += &figures.row(case);
        table.push('\n');
    }
    println!("{table}");
    for (case, figures) in CASES.iter().zip(&all) {
        let (name, reached) = (case.name, figures.reached());
        assert!(
            figures.ours <= figures.clairvoyant,
            "{name}: {reached:.3} %, and nobody can be better than the clairvoyant"
        );
        assert!(
            reached >= case.floor,
            "{name}: callers had a token for {reached:.3} % of the time in which one can be had, and {} % is the least",
            case.floor
        );
        assert!(
            reached >= NEARLY_ALWAYS || !case.why.is_empty(),
            "{name}: {reached:.3} % is not explained"
        );
    }
    document::shows(&table);
}

/// Runs every case, on all cores.
fn run_all() -> Vec<Figures> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::new());
    let work = || {
        while let Some((index, case)) = CASES
            .iter()
            .enumerate()
            .nth(next.fetch_add(1, Ordering::Relaxed))
        {
            let figures = case.run(false).0;
            all.lock().unwrap().push((index, figures));
        }
    };
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut all = all.into_inner().unwrap();
    all.sort_by_key(|it| it.0);
    all.into_iter().map(|it| it.1).collect()
}

/// One case, with its trace and the longest stretches without a token that could have been had.
fn show(name: &str) {
    let case = CASES.iter().find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("no fault mix is called {name:?}"));
    let (figures, world) = case.run(true);
    world.trace().for_each(|line| println!("{line}"));
    println!("{}", figures.row(case));
    for (from, until) in figures.behind.iter().take(20) {
        let seconds = from / SECOND;
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
        println!(
            "behind from day {days} {hours:02}:{minutes:02}:{:02} on for {} s",
            seconds % 60,
            (until - from) / SECOND
        );
    }
}
