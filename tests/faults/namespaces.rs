//! One boot id does not mean one boot clock: daemons in containers whose time namespaces shift
//! `CLOCK_BOOTTIME`.
//!
//! OCI's `timeOffsets` makes such containers, and a restored checkpoint behaves like one. They
//! share a state folder in turn, each killed once it has spent what it may, and at once. An
//! upstream that knows nothing of their clocks counts.

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::containers::{BOOT_ID, Contained, Container, NO_OFFSETS, OFFSETS, available};
use crate::counting::{Checked, CountingUpstream, Mint};
use crate::harness::{PATIENCE, Scale, World};
use crate::laws::every;
use crate::records::{committed, record};
use crate::scales::without_reserve;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Offsets that step forward, forward and back by an hour, and both ways by more. A machine that
/// has run for less than an hour can have no container an hour behind it, so those that go back
/// begin two hours ahead.
const FORWARD: &[i64] = &[0, DAY, 2 * DAY];
const BOTH_WAYS: &[i64] = &[2 * HOUR, HOUR, 3 * HOUR, DAY, 2 * HOUR, 2 * DAY];

/// A token ends as soon as it is there, so that every slot is wanted at once. A request may arrive
/// a second after its slot was taken: what a busy machine delivers late must not look like a mint
/// too many. And a few starts fit into the window even there.
fn burning() -> Scale {
    Scale {
        lifetime: Duration::from_millis(60),
        window: Duration::from_secs(5),
        in_flight: Duration::from_secs(1),
        timeout: Duration::from_millis(400),
        limit: 10,
    }
}

/// Between two questions, so that those who ask leave the machine to those who answer.
const PAUSE: Duration = Duration::from_millis(10);

/// What daemons in these containers did.
struct Figures {
    what: String,
    lives: usize,
    arrivals: usize,
    /// Of the record.
    writes: u64,
    worst: usize,
    checked: Checked,
}

/// A world whose daemons mint at an upstream of its own.
struct Place {
    world: World,
    upstream: CountingUpstream,
    lines: &'static str,
}

impl Place {
    async fn new(scale: Scale, lines: &'static str) -> Self {
        let world = World::quiet(scale).await;
        let upstream = CountingUpstream::start(scale.lifetime).await;
        Self {
            world,
            upstream,
            lines,
        }
    }

    async fn burning() -> Self {
        let lines =
            "[refresh]\nlead = \"30ms\"\nallow_short_lead = true\n[clock]\nskew = \"100ms\"\n";
        Self::new(burning(), lines).await
    }

    async fn start(&self, container: Container, name: &str) -> Contained {
        let toml = self
            .upstream
            .toml(&without_reserve(&self.world, name), &self.world);
        let toml = format!("{toml}{}", self.lines);
        container.start(&self.world, name, &toml).await
    }

    fn figures(self, what: String, lives: usize, checked: Checked) -> Figures {
        let figures = Figures {
            what,
            lives,
            arrivals: self.upstream.arrivals(),
            writes: record(&self.world.record()).unwrap()["revision"]
                .as_u64()
                .unwrap(),
            worst: self.upstream.worst_window(self.world.scale.window, 0),
            checked,
        };
        println!("{figures}");
        self.upstream.scan(&self.world.captured);
        self.world.finish();
        figures
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            lives,
            arrivals,
            writes,
            worst,
            checked,
        } = self;
        write!(
            f,
            "{what}: {lives} lives, {arrivals} arrivals, {writes} writes, worst window {worst}; \
             {checked:?}"
        )
    }
}

impl Figures {
    /// Laws 1 and 4.
    fn assert(&self) {
        let limit = burning().limit as usize;
        assert!(self.worst <= limit, "law 1: {self}");
        // All slots were taken within one period, which two windows cover.
        assert!(self.worst >= limit / 2, "never strained: {self}");
        self.checked.assert();
        // Two for each mint, and a few for each life: nobody writes in turns with another.
        let most = 3 * self.arrivals as u64 + 4 * self.lives as u64;
        assert!(self.writes <= most, "they take turns: {self}");
    }
}

fn waits_for_the_budget(status: &Value) -> bool {
    status["next"]["waiting_for"] == "budget"
}

/// One container after the other on one folder, each killed as soon as it has spent what it may.
async fn in_turn(what: &str, containers: &[Container]) -> Figures {
    let place = Place::burning().await;
    let mut checked = Checked::default();
    let first = place.start(containers[0], "state").await;
    // A new record's first period is spent carefully; then all slots go.
    first
        .until("the budget is spent", waits_for_the_budget)
        .await;
    first.kill().await;
    let end = Instant::now() + burning().window * 2;
    let mut lives = 1;
    for container in containers.iter().cycle().skip(1) {
        if Instant::now() > end {
            break;
        }
        // Some lives meet errors, which count as well.
        place.upstream.mints(match lives % 3 {
            1 => |_| Mint::Token,
            2 => |number| [Mint::Token, Mint::Error][number % 2],
            _ => |number| [Mint::Token, Mint::Token, Mint::Close][number % 3],
        });
        let daemon = place.start(*container, "state").await;
        lives += 1;
        let spent_by = Instant::now() + burning().window;
        loop {
            checked.ask(&daemon, &place.upstream).await;
            let status = daemon.status().await;
            if waits_for_the_budget(&status) || Instant::now() > spent_by {
                break;
            }
            sleep(PAUSE).await;
        }
        daemon.kill().await;
    }
    // And none of them waits longer than it must.
    place.upstream.mints(|_| Mint::Token);
    let last = place.start(containers[0], "state").await;
    place.upstream.one_more().await;
    assert!(last.stop().await.success());
    place.figures(format!("in turn, {what}"), lives + 1, checked)
}

/// Containers at the same time on one folder.
async fn at_once(what: &str, containers: &[Container]) -> Figures {
    let place = Place::burning().await;
    let mut checked = Checked::default();
    let mut daemons = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let daemon = place.start(*container, &format!("number-{index}")).await;
        if index == 0 {
            daemon
                .until("the budget is spent", waits_for_the_budget)
                .await;
        }
        daemons.push(daemon);
    }
    let end = Instant::now() + burning().window * 2;
    while Instant::now() < end {
        for daemon in &daemons {
            checked.ask(daemon, &place.upstream).await;
        }
        sleep(PAUSE).await;
    }
    place.upstream.one_more().await;
    let lives = daemons.len();
    for daemon in daemons {
        assert!(daemon.stop().await.success());
    }
    place.figures(format!("at once, {what}"), lives, checked)
}

fn at(offsets: &[i64]) -> Vec<Container> {
    offsets.iter().copied().map(Container::at).collect()
}

async fn all(running: JoinSet<Figures>) {
    for figures in every(running).await {
        figures.assert();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_with_other_boot_clocks_share_one_budget_in_turn() {
    if !available() {
        return;
    }
    let mut running = JoinSet::new();
    running.spawn(async { in_turn("forward", &at(FORWARD)).await });
    running.spawn(async { in_turn("both ways", &at(BOTH_WAYS)).await });
    all(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_with_other_boot_clocks_share_one_budget_at_once() {
    if !available() {
        return;
    }
    let mut running = JoinSet::new();
    running.spawn(async { at_once("two", &at(&[0, DAY])).await });
    running.spawn(async { at_once("three", &at(&[2 * HOUR, HOUR, 2 * DAY])).await });
    all(running).await;
}

/// Boot ids that name no boot.
const NO_BOOT_IDS: [(&str, &[u8]); 3] = [
    ("an empty boot id", b""),
    ("a boot id that is no UUID", b"none\n"),
    ("a boot id that is no text", b"\xff\xfe\n"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boots_without_a_boot_id_share_one_budget_in_turn() {
    if !available() {
        return;
    }
    let mut running = JoinSet::new();
    for (what, id) in NO_BOOT_IDS {
        running.spawn(async move {
            let nameless = |offset: &i64| Container::at(*offset).with(BOOT_ID, id);
            let containers: Vec<_> = FORWARD.iter().map(nameless).collect();
            in_turn(what, &containers).await
        });
    }
    all(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boots_without_a_boot_id_share_one_budget_at_once() {
    if !available() {
        return;
    }
    let (what, id) = NO_BOOT_IDS[0];
    let nameless = [0, DAY].map(|offset| Container::at(offset).with(BOOT_ID, id));
    at_once(what, &nameless).await.assert();
}

/// No file tells these boot clocks apart, as with some sandboxes of whole kernels: only the clocks
/// themselves do.
fn indistinct(offsets: &[i64]) -> Vec<Container> {
    let hidden = |it: &i64| Container::at(*it).with(OFFSETS, NO_OFFSETS.as_bytes());
    offsets.iter().map(hidden).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boot_clocks_that_no_file_tells_apart_share_one_budget_in_turn() {
    if !available() {
        return;
    }
    let mut running = JoinSet::new();
    running.spawn(async { in_turn("indistinct, forward", &indistinct(FORWARD)).await });
    running.spawn(async { in_turn("indistinct, both ways", &indistinct(BOTH_WAYS)).await });
    all(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boot_clocks_that_no_file_tells_apart_share_one_budget_at_once() {
    if !available() {
        return;
    }
    at_once("indistinct", &indistinct(&[0, DAY])).await.assert();
}

/// A token is minted in one container, and has ended when the other starts.
async fn outlived([before, after]: [Container; 2]) {
    let scale = Scale {
        lifetime: Duration::from_secs(3),
        ..Scale::brisk()
    };
    let place = Place::new(scale, "").await;
    let daemon = place.start(before, "state").await;
    let token = daemon.first_token().await;
    daemon.kill().await;
    place.upstream.mints(|_| Mint::Error);
    let ends = place.upstream.issued(&token.access_token()).unwrap().ends;
    sleep_until(ends + Duration::from_millis(200)).await;
    let daemon = place.start(after, "state").await;
    let mut checked = Checked::default();
    while checked.vended + checked.unavailable < 60 {
        checked.ask(&daemon, &place.upstream).await;
        sleep(PAUSE).await;
    }
    println!("{before:?}, then {after:?}: {checked:?}");
    checked.assert();
    place.upstream.mints(|_| Mint::Token);
    let fresh = daemon.first_token().await;
    assert!(fresh.generation() > token.generation());
    assert!(daemon.stop().await.success());
    place.upstream.scan(&place.world.captured);
    place.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_gets_a_second_life_in_a_container_with_another_boot_clock() {
    if !available() {
        return;
    }
    let mut running = JoinSet::new();
    for offsets in [[0, DAY], [DAY, 0], [HOUR, 2 * HOUR], [2 * HOUR, HOUR]] {
        let [before, after] = [at(&offsets), indistinct(&offsets)].map(|both| [both[0], both[1]]);
        running.spawn(outlived(before));
        running.spawn(outlived(after));
    }
    every(running).await;
}

/// Starts in turns between two boot clocks while a token lives. What the wall clocks may differ by
/// is taken off once.
async fn alternate(containers: [Container; 2]) {
    const STARTS: usize = 12;
    // Off the token's 60 minutes at every start, that would leave none of them.
    let skew = Duration::from_secs(300);
    let place = Place::new(Scale::still(), "[clock]\nskew = \"5m\"\n").await;
    let daemon = place.start(containers[0], "state").await;
    let token = committed(&daemon).await.access_token();
    let issued = place.upstream.issued(&token).unwrap();
    let began = Instant::now();
    let slot = daemon.status().await["budget"]["slots"][0].clone();
    daemon.kill().await;
    let mut checked = Checked::default();
    let time = |it: &Value| it.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    for start in 1..=STARTS {
        let daemon = place.start(containers[start % 2], "state").await;
        assert_eq!(daemon.first_token().await.access_token(), token);
        checked.ask(&daemon, &place.upstream).await;
        let status = daemon.status().await;
        daemon.kill().await;
        let short = issued
            .ends_wall
            .duration_since(time(&status["token"]["expires_at"]));
        let slots = status["budget"]["slots"].as_array().unwrap();
        let late = slots
            .iter()
            .map(|it| time(&it["frees_at"]).duration_since(time(&slot["frees_at"])))
            .max()
            .unwrap();
        // A busy machine takes its time between the request and the counting.
        let most = jiff::SignedDuration::try_from(skew + Duration::from_secs(20)).unwrap();
        assert!(slots.len() == 1 && short <= most, "{short:#}, {slots:?}");
        assert!(late <= most, "the slot frees {late:#} later");
        if start == STARTS {
            println!("{STARTS} starts: {short:#} off the token's end, the slot {late:#} later");
        }
    }
    checked.assert();
    assert!(began.elapsed() < PATIENCE * 3, "too slow to show anything");
    assert_eq!(place.upstream.arrivals(), 1, "the token lived");
    place.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_token_is_kept_however_often_the_boot_clock_changes() {
    if !available() {
        return;
    }
    alternate([0, DAY].map(Container::at)).await;
}
