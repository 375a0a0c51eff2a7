//! A keeper that lives through a story with a register and an issuer, and what must hold at each of its steps.

use std::time::Duration;

use bearerd::clock::{BootId, Stamp};
use bearerd::issuer::{Answer, Minted};
use bearerd::keeper::{Input, Keeper, Output, Settings};
use bearerd::record::{Absent, Loaded, Outcome, Record, RegisterError, Rules, Swapped, Version};
use bearerd::token::{Generation, Secret};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// The boot on which the keeper lives; a record that names another one comes from there.
pub(super) const BOOT: &str = "boot-1";

/// A keeper and its register.
pub(super) struct Life {
    rules: Rules,
    now: Stamp,
    keeper: Keeper,
    cell: Option<(Record, u64)>,
    /// What was in the register at the beginning.
    first: Record,
    to_load: bool,
    to_swap: Option<(Option<Version>, Box<Record>)>,
    to_mint: Option<Duration>,
    published: Option<Generation>,
    minted: u32,
}

impl Life {
    pub(super) fn begin(found: Record, now: Stamp, rules: Rules) -> Self {
        let keeper = keeper(&found, &rules, 1);
        let mut life = Self {
            rules,
            now,
            keeper,
            cell: Some((found.clone(), 1)),
            first: found,
            to_load: false,
            to_swap: None,
            to_mint: None,
            published: None,
            minted: 0,
        };
        life.keys(1);
        life
    }

    fn keys(&mut self, set: u8) {
        self.step(Input::Keys {
            fingerprint: format!("keys-{}", set & 1),
            count: 1 + u32::from(set >> 1),
        });
    }

    /// One byte of the story: what happens, and how.
    pub(super) fn go_on(&mut self, what: u8, how: u8) {
        match what {
            0 => self.time_goes_by(how),
            1 => self.register_answers(how),
            2 => self.issuer_answers(how),
            3 => {
                let current = self.published.unwrap_or(self.first.generation);
                self.step(Input::Report(Generation(
                    current.0.saturating_sub(u64::from(how)),
                )));
            }
            4 => self.step(Input::Refresh),
            5 => self.keys(how),
            6 => self.step(Input::Changed),
            7 => self.cell = Some((self.first.clone(), u64::from(how) + 1000)),
            8 => self.cell = None,
            9 => {
                // It dies and another comes.
                self.keeper = keeper(&self.first, &self.rules, u64::from(how));
                (self.to_load, self.to_swap, self.to_mint, self.published) =
                    (false, None, None, None);
                self.keys(1);
            }
            10 => self.keeper.retire(),
            _ => {
                // All goes well.
                self.time_goes_by(12);
                self.register_answers(0);
                self.issuer_answers(0);
            }
        }
    }

    fn time_goes_by(&mut self, how: u8) {
        let lengths = [
            0, 1, 250, 1000, 5000, 30_000, 60_000, 600_000, 1_800_000, 3_600_000, 86_400_000,
        ];
        match how {
            0..=10 => {
                self.now = self
                    .now
                    .plus(Duration::from_millis(lengths[usize::from(how)]));
            }
            11 => self.now.wall = self.now.minus(3600 * SECOND).wall,
            12 => {
                let wake = self.keeper.next_wake(self.now).unwrap_or(self.now.boot);
                self.now = self
                    .now
                    .plus(wake.saturating_sub(self.now.boot).min(86_400 * SECOND));
            }
            13 => self.now.wall = self.now.plus(3600 * SECOND).wall,
            _ => self.now = self.now.plus(self.rules.timeout * u32::from(how)),
        }
        self.step(Input::Tick);
    }

    fn register_answers(&mut self, how: u8) {
        let down = || RegisterError::Io {
            doing: "swap".into(),
            why: "down".into(),
        };
        if std::mem::take(&mut self.to_load) {
            let found = self
                .cell
                .as_ref()
                .map(|(record, count)| (record.clone(), version(*count)));
            let found = found.and_then(|(record, version)| {
                // As it comes from a file: by way of its text.
                Record::parse(&record.to_text())
                    .ok()
                    .map(|record| (record, version))
            });
            let loaded = if how == 1 {
                Err(down())
            } else {
                Ok(Loaded {
                    found,
                    moved_aside: None,
                })
            };
            return self.step(Input::Loaded(loaded));
        }
        let Some((seen, next)) = self.to_swap.take() else {
            return;
        };
        let held = self.cell.as_ref().map(|(_, count)| *count);
        if how == 1 || seen != held.map(version) {
            return self.step(Input::Swapped(Swapped::Conflict));
        }
        if how != 2 && how != 3 {
            self.cell = Some((*next, held.unwrap_or_default() + 1));
        }
        let outcome = match how {
            2 => Swapped::Unavailable(down()),
            3 | 4 => Swapped::Unknown(down()),
            _ => Swapped::Done(version(held.unwrap_or_default() + 1)),
        };
        self.step(Input::Swapped(outcome));
    }

    fn issuer_answers(&mut self, how: u8) {
        let Some(send_by) = self.to_mint.take() else {
            return;
        };
        self.minted += 1;
        let minted = |number: u32, aged: Duration, sent_at: Stamp| {
            Answer::Minted(Minted {
                secret: Secret::new(format!("secret-{number}")),
                sent_at,
                aged,
                note: None,
            })
        };
        let detail = String::new();
        let answer = match how {
            _ if self.now.boot > send_by => Answer::NotSent { detail },
            1 => minted(self.minted, self.rules.lifetime, self.now),
            2 => minted(self.minted, self.rules.lifetime / 3, self.now),
            3 => minted(self.minted - 1, Duration::ZERO, self.now),
            4 => Answer::NotSent { detail },
            5 => Answer::Lost {
                answered: true,
                detail,
            },
            6 => Answer::Lost {
                answered: false,
                detail,
            },
            7 => Answer::Throttled {
                retry_after: None,
                detail,
            },
            8 => Answer::Throttled {
                retry_after: Some(Duration::MAX),
                detail,
            },
            9 => Answer::Refused {
                key_at_fault: true,
                detail,
            },
            10 => Answer::Refused {
                key_at_fault: false,
                detail,
            },
            11 => Answer::Intermediary { detail },
            _ => minted(self.minted, Duration::ZERO, self.now),
        };
        self.step(Input::Minted(answer));
    }

    fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.keeper.step(self.now, input, &mut outputs);
        for output in outputs {
            match output {
                Output::Load => self.to_load = true,
                Output::Swap { seen, next } => {
                    assert_eq!(
                        Record::parse(&next.to_text()).as_ref(),
                        Ok(&*next),
                        "what is written can be read"
                    );
                    self.to_swap = Some((seen, next));
                }
                Output::Mint { send_by, .. } => {
                    self.is_reserved();
                    self.to_mint = Some(send_by);
                }
                Output::Publish { token, .. } => {
                    let text = token.secret.expose();
                    assert!(
                        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()),
                        "a token is visible"
                    );
                    assert!(!token.expired(self.now), "an ended token is vended");
                    assert!(token.expires_at.left(self.now) <= self.rules.lifetime);
                    assert!(
                        self.published
                            .is_none_or(|before| before <= token.generation),
                        "an older token"
                    );
                    self.published = Some(token.generation);
                }
                _ => {}
            }
        }
    }

    /// Before a request leaves, its slot is in the register, and there are not too many.
    fn is_reserved(&self) {
        let Some((record, _)) = &self.cell else {
            panic!("nothing is reserved")
        };
        let claim = record.claim.as_ref().expect("a claim");
        assert!(
            record
                .ledger
                .iter()
                .any(|slot| slot.attempt == claim.attempt && slot.outcome == Outcome::Begun)
        );
        let spent = record
            .ledger
            .iter()
            .filter(|slot| slot.frees_at.boot > self.now.boot)
            .count();
        assert!(
            spent <= self.rules.budget.limit.get() as usize,
            "{spent} slots are taken"
        );
    }

    /// Whatever there was: a daemon that starts now and has luck comes to a live token.
    pub(super) fn ends(mut self) {
        self.status_is_whole();
        self.go_on(9, 7);
        for _ in 0..100 {
            self.go_on(15, 0);
            if self.published.is_some() && self.to_swap.is_none() && self.keeper.at_rest() {
                return self.status_is_whole();
            }
        }
        panic!("no token ever: {:?}", self.keeper);
    }

    fn status_is_whole(&self) {
        let status = self.keeper.status(self.now, "file");
        serde_json::to_string(&status).expect("a status is JSON");
    }
}

fn keeper(found: &Record, rules: &Rules, seed: u64) -> Keeper {
    let settings = Settings {
        account: found.account.clone(),
        rules: rules.clone(),
        absent: Absent::New,
        holder: format!("holder-{seed}"),
        boot_id: BootId::new(BOOT),
        short_lead: false,
    };
    Keeper::new(settings, seed)
}

fn version(count: u64) -> Version {
    Version(count.to_be_bytes().to_vec())
}
