use super::*;
use crate::sandbox::keys::ApiKey;

const WINDOW: Duration = Duration::from_secs(1800);
const TICK: Duration = Duration::from_nanos(1);

struct Account {
    upstream: Upstream,
    body: String,
}

impl Account {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let key = ApiKey {
            key_id: "id".into(),
            api_key: "secret".into(),
        };
        let mut settings = Settings::new("acct");
        settings.keys = vec![key];
        change(&mut settings);
        let keys = KeyRing::new(settings.keys.clone()).unwrap();
        Self {
            upstream: Upstream::new(&settings, keys),
            body: r#"{"key_id":"id","api_key":"secret"}"#.into(),
        }
    }

    fn call(&mut self, at: Duration, change: impl FnOnce(&mut MintCall)) -> Delivery {
        let body = self.body.clone();
        let mut call = MintCall {
            account: "acct".into(),
            public_access: true,
            is_json: true,
            body: Some(body.into()),
        };
        change(&mut call);
        match self.upstream.meet(now(at), &call) {
            Met::Arrived(delivery) => delivery,
            Met::Delay(_) => panic!("an arrival was expected"),
        }
    }

    /// The status of a mint's answer.
    fn mint(&mut self, at: Duration) -> u16 {
        match self.call(at, |_| {}).reply {
            Reply::Answer(answer) => answer.status,
            _ => 0,
        }
    }

    fn refused(&mut self, change: impl FnOnce(&mut MintCall)) -> (u16, String) {
        let Reply::Answer(answer) = self.call(Duration::ZERO, change).reply else {
            panic!("an answer was expected");
        };
        (answer.status, text(&answer))
    }

    fn tokens(&self) -> Vec<String> {
        self.upstream.tokens.all()
    }

    fn spend(&mut self, at: Duration, token: &str) -> Spend {
        self.upstream.spend(now(at), Some(token))
    }
}

fn now(mono: Duration) -> Now {
    Now {
        mono,
        wall: Timestamp::UNIX_EPOCH,
    }
}

fn text(answer: &Answer) -> String {
    match answer.body.first() {
        Some(answer::Step::Data(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        _ => String::new(),
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn the_eleventh_mint_of_a_window_is_over_budget_and_takes_no_slot() {
    let mut account = Account::new(|_| {});
    for second in 0..10 {
        assert_eq!(account.mint(seconds(second)), 200);
    }
    assert_eq!(account.mint(seconds(10)), 429);
    // The first lies in the closed window until exactly its end.
    assert_eq!(account.mint(WINDOW), 429);
    assert_eq!(account.mint(WINDOW + TICK), 200);
    let log = account.upstream.journal.snapshot();
    assert_eq!(log.entries[10].outcome, Outcome::OverBudget);
    assert_eq!(log.counted().count(), 11);
    assert_eq!(account.upstream.budget.worst(), 10);
    // All but the last call lay in one closed window.
    assert_eq!(account.upstream.traffic.worst(), 12);
}

#[test]
fn an_account_may_count_refused_calls_too() {
    let mut account = Account::new(|s| s.failures_count = true);
    for _ in 0..10 {
        account.call(Duration::ZERO, |call| call.public_access = false);
    }
    assert_eq!(account.mint(WINDOW), 429);
    assert_eq!(account.upstream.budget.worst(), 11);
}

#[test]
fn over_budget_is_answered_as_set() {
    for (over_budget, status) in [
        (OverBudget::TooManyRequests, 429),
        (OverBudget::BadRequest, 400),
        (OverBudget::InternalServerError, 500),
    ] {
        let mut account = Account::new(|s| {
            s.over_budget = over_budget;
            s.over_budget_retry_after = true;
            s.limit = 1;
        });
        assert_eq!(account.mint(Duration::ZERO), 200);
        let Reply::Answer(answer) = account.call(seconds(1700), |_| {}).reply else {
            panic!("an answer was expected");
        };
        assert_eq!(answer.status, status);
        let retry_after = ("retry-after", "101".to_string());
        assert!(answer.headers.contains(&retry_after));
    }
}

#[test]
fn a_call_that_is_not_in_order_is_told_why() {
    type Change = fn(&mut MintCall);
    let mut account = Account::new(|_| {});
    let cases: [(Change, u16, &str); 9] = [
        (|c| c.account = "other".into(), 404, "not-found"),
        (|c| c.public_access = false, 400, "X-Public-Access"),
        (|c| c.is_json = false, 400, "Content-Type"),
        (|c| c.body = None, 400, "too large"),
        (|c| c.body = Some("{".into()), 400, "JSON"),
        (|c| c.body = Some("{}".into()), 400, "key_id is required"),
        (
            |c| c.body = Some(r#"{"key_id":"id","api_key":""}"#.into()),
            400,
            "api_key is required",
        ),
        (
            |c| c.body = Some(r#"{"keyId":"id","secretApiKey":"secret"}"#.into()),
            400,
            "key_id is required",
        ),
        (
            |c| c.body = Some(r#"{"key_id":"id","api_key":"wrong"}"#.into()),
            401,
            "authorization-error",
        ),
    ];
    for (change, status, part) in cases {
        let (told, body) = account.refused(change);
        assert_eq!(told, status, "{body}");
        assert!(body.contains(part), "{body}");
    }
    assert_eq!(account.upstream.journal.mints(), 0);
    assert_eq!(account.upstream.budget.worst(), 0);
}

#[test]
fn a_token_is_worth_what_the_contract_says() {
    let mut account = Account::new(|_| {});
    account.mint(Duration::ZERO);
    let token = account.tokens().remove(0);
    assert_eq!(account.spend(seconds(3599), &token), Spend::Accepted);
    assert_eq!(account.spend(seconds(3600), &token), Spend::LoginAgain);
    account.upstream.switches.expired_fails_to_parse = true;
    assert_eq!(account.spend(seconds(3600), &token), Spend::FailedToParse);
    account.upstream.switches.suspended = true;
    assert_eq!(account.spend(seconds(10), &token), Spend::NotAuthorized);
    assert_eq!(account.spend(seconds(10), "short"), Spend::FailedToParse);
    let foreign = "x".repeat(64);
    assert_eq!(account.spend(seconds(10), &foreign), Spend::LoginAgain);
    let none = account.upstream.spend(now(seconds(10)), None);
    assert_eq!(none, Spend::LoginAgain);
    let counts = account.upstream.spends;
    assert_eq!((counts.login_again, counts.failed_to_parse), (3, 2));
}

#[test]
fn a_new_token_may_revoke_the_old() {
    for revokes_previous in [false, true] {
        let mut account = Account::new(|s| s.revokes_previous = revokes_previous);
        account.mint(Duration::ZERO);
        account.mint(Duration::ZERO);
        let first = account.tokens().remove(0);
        let expected = if revokes_previous {
            Spend::LoginAgain
        } else {
            Spend::Accepted
        };
        assert_eq!(account.spend(Duration::ZERO, &first), expected);
    }
}

#[test]
fn an_aged_token_dies_as_much_earlier() {
    let mut account = Account::new(|_| {});
    let age = seconds(1200);
    account
        .upstream
        .faults
        .append(Fault::AgedToken { age }.into());
    account.mint(seconds(10));
    let token = account.tokens().remove(0);
    assert_eq!(account.spend(seconds(2409), &token), Spend::Accepted);
    assert_eq!(account.spend(seconds(2410), &token), Spend::LoginAgain);
}

#[test]
fn the_previous_token_counts_and_lives_no_longer() {
    let mut account = Account::new(|_| {});
    account.mint(Duration::ZERO);
    account.upstream.faults.append(Fault::PreviousToken.into());
    account.mint(seconds(60));
    let log = account.upstream.journal.snapshot();
    assert!(matches!(
        log.entries[1].outcome,
        Outcome::Repeated { generation: 1, .. }
    ));
    assert!(log.entries[1].counted);
    assert_eq!(account.tokens().len(), 1);
    let token = account.tokens().remove(0);
    assert_eq!(account.spend(seconds(3600), &token), Spend::LoginAgain);
}

#[test]
fn a_fault_in_place_of_a_mint_is_counted_as_told() {
    let mut account = Account::new(|_| {});
    for counted in [false, true] {
        let fault = Fault::DropAfterAccept { counted };
        account.upstream.faults.append(fault.into());
        let delivery = account.call(Duration::ZERO, |_| {});
        assert!(matches!(delivery.reply, Reply::Hangup(Hangup::Close)));
    }
    let log = account.upstream.journal.snapshot();
    let counted: Vec<_> = log.entries.iter().map(|entry| entry.counted).collect();
    assert_eq!(counted, [false, true]);
    assert_eq!(log.entries[0].fault, Some("drop_after_accept"));
    assert_eq!(log.entries[0].outcome, Outcome::Faulted);
    assert!(account.tokens().is_empty());
}

#[test]
fn a_lost_answer_is_minted_and_counted() {
    let mut account = Account::new(|_| {});
    account.upstream.faults.append(Fault::LostAnswer.into());
    let delivery = account.call(Duration::ZERO, |_| {});
    assert!(matches!(delivery.reply, Reply::Silence));
    assert_eq!(account.tokens().len(), 1);
    assert_eq!(account.upstream.budget.worst(), 1);
}

#[test]
fn a_fault_about_the_token_leaves_a_refusal_as_it_is() {
    let mut account = Account::new(|_| {});
    account.upstream.faults.append(Fault::EmptyToken.into());
    let (status, body) = account.refused(|call| call.public_access = false);
    assert_eq!(status, 400);
    assert!(body.contains("X-Public-Access"));
}

#[test]
fn a_regenerated_key_may_revoke_what_it_minted() {
    for regenerate_revokes in [false, true] {
        let mut account = Account::new(|s| s.regenerate_revokes = regenerate_revokes);
        account.mint(Duration::ZERO);
        account.upstream.key_is_gone(0);
        assert_eq!(
            account.upstream.tokens.live(Duration::ZERO) == 0,
            regenerate_revokes
        );
    }
}
