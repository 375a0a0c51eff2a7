//! Worlds by the thousand: run, summed up, and cut down where a law breaks.

use std::any::Any;
use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::clocks::{DAY, Nanos};
use crate::coverage::Coverage;
use crate::faults::{self, Fault};
use crate::setting::{self, Edge, Mix, Scale, Setting, Theme};
use crate::world::World;

/// How long one world lasts.
const LENGTH: Nanos = 30 * DAY;

/// What is simulated unless somebody asks for more.
pub const YEARS: f64 = 2000.0;

/// So many lines of a broken world's trace are shown.
const LINES_SHOWN: usize = 60;

/// So many of its faults are shown.
const FAULTS_SHOWN: usize = 20;

/// So many smaller plans are tried to find a small one that breaks the same way.
const TRIALS: u32 = 150;

/// One history, ready to be run as often as one likes.
#[derive(Clone)]
pub struct History {
    pub seed: u64,
    pub setting: Setting,
    pub plan: Vec<Fault>,
    pub length: Nanos,
}

impl History {
    pub fn of(seed: u64, mix: Mix, edge: Edge) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let themed = (mix, edge) == (Mix::Everything, Edge::Sound);
        let theme = Theme::of(seed).filter(|_| themed);
        // One in forty at the real account's pace: that is where most of the mints are.
        let scale = match dice.u8(0..40) {
            _ if theme.is_some_and(Theme::spends_everything) => Scale::Real,
            0 => Scale::Real,
            1 => Scale::Odd,
            _ => Scale::Slow,
        };
        let setting = setting::random(scale, mix, edge, theme, &mut dice);
        let length = match theme {
            Some(theme) => LENGTH.min(theme.windows() * setting.window()),
            None => LENGTH,
        };
        let plan = faults::plan(&setting, length, &mut dice);
        Self {
            seed,
            setting,
            plan,
            length,
        }
    }

    pub fn node_years(&self) -> f64 {
        self.setting.nodes as f64 * self.length as f64 / (365.25 * DAY as f64)
    }

    /// Lets it happen. What broke is told with the world as it was then.
    pub fn run(&self, traced: bool) -> (World, Option<String>) {
        let mut world = World::new(self.setting.clone(), self.plan.clone(), self.seed, traced);
        QUIET.set(true);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            world.run(self.length);
            world.heal();
        }));
        QUIET.set(false);
        (world, ran.err().map(|panic| said(&*panic)))
    }

    /// The same history with fewer faults, broken in the same way; not the smallest, but one that can be read.
    fn cut_down(&self, law: &str) -> Self {
        let mut least = self.clone();
        let (world, _) = least.run(false);
        least.length = least.length.min(world.now + 1);
        least.plan.retain(|fault| fault.at <= world.now);
        let mut trials = 0;
        let mut part = least.plan.len().div_ceil(2);
        while part > 0 && trials < TRIALS {
            let mut from = 0;
            while from < least.plan.len() && trials < TRIALS {
                trials += 1;
                let mut fewer = least.clone();
                fewer.plan.drain(from..(from + part).min(least.plan.len()));
                let broken = fewer.run(false).1;
                if broken.is_some_and(|it| law_of(&it) == law_of(law)) {
                    least = fewer;
                } else {
                    from += part;
                }
            }
            part = if part == 1 { 0 } else { part.div_ceil(2) };
        }
        least
    }

    /// Everything that helps to understand why a law broke.
    pub fn explain(&self, broken: &str) -> String {
        let least = self.cut_down(broken);
        let (world, again) = least.run(true);
        let lines: Vec<&String> = world.trace().collect();
        let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..]
            .iter()
            .map(|line| format!("  {line}\n"));
        let last = &least.plan[least.plan.len().saturating_sub(FAULTS_SHOWN)..];
        let faults = last.iter().map(|fault| format!("  {fault}\n"));
        format!(
            "seed {}: {broken}\nin {:?}\ncut down to {} of {} faults, it still breaks: {}\n{}and ends like this:\n{}\
             tests/run simulation --seed {} replays it\n",
            self.seed,
            self.setting,
            least.plan.len(),
            self.plan.len(),
            again.unwrap_or_default(),
            faults.collect::<String>(),
            shown.collect::<String>(),
            self.seed,
        )
    }
}

/// The words before the colon: which law it was.
pub fn law_of(broken: &str) -> &str {
    broken.split(':').next().unwrap_or(broken)
}

thread_local! {
    /// A panic on this thread is expected to be told by whoever caught it.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Says nothing of panics that are caught and told.
pub fn hush() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !QUIET.get() {
            usual(panic);
        }
    }));
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .to_owned()
}

/// What many worlds came to.
pub struct Sum {
    pub worlds: u64,
    pub years: f64,
    /// With a window of half an hour, as the real account has it.
    pub real_years: f64,
    pub days: f64,
    pub attempts: u64,
    pub steps: u64,
    pub reads: u64,
    pub worst: usize,
    pub coverage: Coverage,
}

impl Sum {
    fn new() -> Self {
        Self {
            worlds: 0,
            years: 0.0,
            real_years: 0.0,
            days: 0.0,
            attempts: 0,
            steps: 0,
            reads: 0,
            worst: 0,
            coverage: Coverage::new(),
        }
    }

    fn add(&mut self, history: &History, world: &World) {
        self.worlds += 1;
        self.years += history.node_years();
        if history.setting.rules.budget.window == Duration::from_secs(1800) {
            self.real_years += history.node_years();
        }
        self.days += history.length as f64 / DAY as f64;
        self.attempts += world.laws.attempts;
        self.steps += world.steps;
        self.reads += world.laws.reads;
        // Where ten are allowed, as for the real account.
        if world.setting.rules.budget.limit.get() == 10 {
            self.worst = self.worst.max(world.laws.worst);
        }
        self.coverage.add(&world.coverage);
    }

    pub fn faults_a_day(&self) -> f64 {
        self.coverage.faults.iter().sum::<u64>() as f64 / self.days
    }

    pub fn nodes(&self) -> f64 {
        self.years * 365.25 / self.days
    }
}

/// So many seeds from the first on, that their worlds last for this many years of nodes.
pub fn seeds(first: u64, years: f64, mix: Mix) -> Range<u64> {
    let mut left = years;
    let mut seed = first;
    while left > 0.0 {
        left -= History::of(seed, mix, Edge::Sound).node_years();
        seed += 1;
    }
    first..seed
}

/// Runs all of them, on all cores. The broken one with the lowest seed is told.
pub fn run_all(seeds: Range<u64>, mix: Mix, edge: Edge) -> (Sum, Option<(History, String)>) {
    run_until(seeds, mix, edge, |_| true)
}

/// Runs them up to one that is broken by such a law: a rule that is broken on purpose breaks more than the law that it is about.
pub fn run_until(
    seeds: Range<u64>,
    mix: Mix,
    edge: Edge,
    such: impl Fn(&str) -> bool + Sync,
) -> (Sum, Option<(History, String)>) {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::new());
    let broken: Mutex<Option<(History, String)>> = Mutex::new(None);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end
                || broken
                    .lock()
                    .unwrap()
                    .as_ref()
                    .is_some_and(|it| it.0.seed < seed)
            {
                return;
            }
            let history = History::of(seed, mix, edge);
            let (world, law) = history.run(false);
            sum.lock().unwrap().add(&history, &world);
            if let Some(law) = law.filter(|told| such(law_of(told))) {
                let mut broken = broken.lock().unwrap();
                if broken.as_ref().is_none_or(|it| it.0.seed > seed) {
                    *broken = Some((history, law));
                }
            }
        }
    };
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    (sum.into_inner().unwrap(), broken.into_inner().unwrap())
}
