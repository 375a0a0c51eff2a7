use super::*;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{Registry, TextEncoder};
use rcgen::ExtendedKeyUsagePurpose;
use tempfile::TempDir;

use crate::clock::{BootId, Stamp};
use crate::tls::testing::{Authority, Pair, Wanted, server};

/// The beginning of the tests' time, as a Unix time.
const START: u64 = 1_800_000_000;

struct HandClock(Mutex<u64>);

impl Clock for HandClock {
    fn now(&self) -> Stamp {
        let second = *self.0.lock().unwrap();
        Stamp {
            wall: at(second),
            boot: Duration::from_secs(second - START + 1_000),
        }
    }

    fn boot_id(&self) -> BootId {
        BootId::new("test")
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(second.try_into().unwrap()).unwrap()
}

/// A folder of files, and the credentials that follow them.
struct Desk {
    folder: TempDir,
    authority: Authority,
    clock: Arc<HandClock>,
    registry: Registry,
}

impl Desk {
    fn new() -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
            authority: Authority::new("tests"),
            clock: Arc::new(HandClock(Mutex::new(START))),
            registry: Registry::new(),
        };
        desk.write("ca.crt", &desk.authority.certificate);
        desk.put(&desk.authority.issue(&server()));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn files(&self) -> Files {
        Files {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
            client_ca: Some(self.path("ca.crt")),
        }
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.path(name), text);
    }

    fn put(&self, pair: &Pair) {
        self.write("tls.crt", &pair.certificate);
        self.write("tls.key", &pair.key);
    }

    fn load(&self) -> Result<Credentials, Problem> {
        let clock: Arc<dyn Clock> = self.clock.clone();
        Credentials::load(self.files(), clock, Metrics::register(&self.registry))
    }

    /// The credentials, after a look at which nothing had changed.
    fn loaded(&self) -> Credentials {
        let mut credentials = self.load().unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(credentials.look(), LOOK);
        assert_eq!(credentials.on_disk.state, State::Settled);
        credentials
    }

    fn metric(&self, line: &str) -> f64 {
        let text = TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let mut lines = text.lines();
        let value = lines.find_map(|it| it.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {line}"))
    }

    fn counted(&self) -> [f64; 3] {
        [
            "bearerd_tls_reloads_total{outcome=\"loaded\"}",
            "bearerd_tls_reloads_total{outcome=\"refused\"}",
            "bearerd_tls_reload_failing",
        ]
        .map(|line| self.metric(line))
    }
}

/// Rewrites in place. Each write has a later time than those before it, however fast the test is.
fn write(path: &Path, text: &str) {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    fs::write(path, text).unwrap();
    let later = Duration::from_secs(START + WRITES.fetch_add(1, Ordering::Relaxed));
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + later).unwrap();
}

impl Credentials {
    fn looks(&mut self, count: u32) {
        for _ in 0..count {
            self.look();
        }
    }
}

#[test]
fn what_is_in_force_is_told() {
    let desk = Desk::new();
    let wanted = Wanted {
        life: Some((START - 10, START + 1_000)),
        dns: vec!["bearerd.shop.svc", "*.shop.svc"],
        ..server()
    };
    desk.put(&desk.authority.issue(&wanted));
    let credentials = desk.loaded();
    let facts = &credentials.facts;
    assert_eq!(facts.names, ["bearerd.shop.svc", "*.shop.svc"]);
    assert_eq!(
        (facts.from, facts.until),
        (at(START - 10), at(START + 1_000))
    );
    assert_eq!(facts.fingerprint.len(), 64);
    assert_eq!(
        facts.to_string(),
        format!(
            "for bearerd.shop.svc, *.shop.svc, valid until {}, SHA-256 {}; one authority signs callers' certificates",
            facts.until, facts.fingerprint
        )
    );
    let expiry = desk.metric("bearerd_tls_certificate_expiry_timestamp_seconds");
    assert_eq!(expiry, (START + 1_000) as f64);
    assert_eq!(desk.counted(), [0.0, 0.0, 0.0]);
}

/// Every way in which one file can be bad: its name, what is in it, and what is said.
fn bad(desk: &Desk) -> Vec<(&'static str, String, &'static str)> {
    let good = fs::read_to_string(desk.path("tls.crt")).unwrap();
    let key = fs::read_to_string(desk.path("tls.key")).unwrap();
    let issue = |wanted: Wanted| desk.authority.issue(&wanted);
    let expired = issue(Wanted {
        life: Some((START - 100, START - 1)),
        ..server()
    });
    let early = issue(Wanted {
        life: Some((START + 5, START + 100)),
        ..server()
    });
    let other = issue(server());
    let for_clients = issue(Wanted {
        usage: vec![ExtendedKeyUsagePurpose::ClientAuth],
        ..server()
    });
    let nonsense = "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n";
    let cut = |text: &str| text[..text.len() / 2].to_owned();
    vec![
        ("tls.crt", String::new(), "it is empty"),
        ("tls.crt", cut(&good), "its PEM is cut off or damaged"),
        ("tls.crt", key.clone(), "no certificate is in it"),
        ("tls.crt", nonsense.into(), "certificate 1 in it is none"),
        (
            "tls.crt",
            format!("{good}{nonsense}"),
            "certificate 2 in it is none",
        ),
        (
            "tls.crt",
            "x".repeat(1 << 21),
            "it is longer than 1048576 bytes",
        ),
        (
            "tls.crt",
            expired.certificate,
            "its certificate expired at 2027-01-15T07:59:59Z; renew it",
        ),
        (
            "tls.crt",
            early.certificate,
            "its certificate is valid from 2027-01-15T08:00:05Z only",
        ),
        (
            "tls.crt",
            for_clients.certificate,
            "its certificate is not for servers",
        ),
        ("tls.key", String::new(), "it is empty"),
        ("tls.key", cut(&key), "its PEM is cut off or damaged"),
        ("tls.key", good, "no private key is in it"),
        (
            "tls.key",
            nonsense.replace("CERTIFICATE", "PRIVATE KEY"),
            "its key cannot be used",
        ),
        (
            "tls.key",
            other.key,
            "its key is not that of the certificate in",
        ),
        ("ca.crt", String::new(), "it is empty"),
        (
            "ca.crt",
            "nonsense".into(),
            "no authority that can be used is in it",
        ),
        (
            "ca.crt",
            cut(&desk.authority.certificate),
            "its PEM is cut off or damaged",
        ),
        ("ca.crt", nonsense.into(), "certificate 1 in it is none"),
    ]
}

/// A pair that the TLS library cannot use, valid to 2100: both a server's and an authority's.
const P521: [&str; 2] = [
    "\
-----BEGIN CERTIFICATE-----
MIICKjCCAYygAwIBAgIBATAKBggqhkjOPQQDBDAaMRgwFgYDVQQDDA9QLTUyMSBh
dXRob3JpdHkwIBcNMjYxMTI4MjEwMDMwWhgPMjEwMDEwMzEyMTAwMzBaMBoxGDAW
BgNVBAMMD1AtNTIxIGF1dGhvcml0eTCBmzAQBgcqhkjOPQIBBgUrgQQAIwOBhgAE
AP/jNj+Ae6j/c18gN7ptcEk8BZewx0hO+aJ+mA/dag6/mvzWE863ugwjPUBVQunJ
nm9UFMkC83YZEBgBMErxUZKcAAdcZ1THdN2zy9CHbWUvrjm4+oy0cHzDSen29bhr
70dFjGhjcVAwK6CfTakyHcHlT2cxnywHwpCWO4UcEaMc4k5so34wfDAdBgNVHQ4E
FgQUZ2QO/SwUQKS/z0PrAoudkh9O4yAwHwYDVR0jBBgwFoAUZ2QO/SwUQKS/z0Pr
Aoudkh9O4yAwDwYDVR0TAQH/BAUwAwEB/zATBgNVHSUEDDAKBggrBgEFBQcDATAU
BgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwQDgYsAMIGHAkIA967mULhv
i1oTpyPncfo+9V5tZ926Lobx4ReQPfIB/Le/YlLySDj5CLrS/A1yoTmXU0625+hc
t7XAMfU43uoHpmACQUMORNYOyu8DVhnMLYFz8dj9jvDzk8riI0VxgO1h9NRTk39x
aTTwB/wFvjYpYXQifoIPgOHpby5RJwRjD5uGTi86
-----END CERTIFICATE-----
",
    "\
-----BEGIN PRIVATE KEY-----
MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBhhrjxSWCg+oBjvqF
BOViPRsy07aZ74DT/yxo0dLitYk3To2aJhkFx1YKw+HOLPPMfDbKN6mLbaTEe/mr
4SDcCqShgYkDgYYABAD/4zY/gHuo/3NfIDe6bXBJPAWXsMdITvmifpgP3WoOv5r8
1hPOt7oMIz1AVULpyZ5vVBTJAvN2GRAYATBK8VGSnAAHXGdUx3Tds8vQh21lL645
uPqMtHB8w0np9vW4a+9HRYxoY3FQMCugn02pMh3B5U9nMZ8sB8KQljuFHBGjHOJO
bA==
-----END PRIVATE KEY-----
",
];

#[test]
fn keys_that_the_library_cannot_verify_are_refused_by_name() {
    let desk = Desk::new();
    let clock: Arc<dyn Clock> = desk.clock.clone();
    let told = || desk.files().check(&clock).unwrap_err().to_string();
    let before = desk.authority.certificate.clone();
    desk.write("ca.crt", &format!("{before}{}", P521[0]));
    let path = desk.path("ca.crt").display().to_string();
    let why =
        "certificate 2 in it has a key whose signatures cannot be verified (it is P-521); name";
    assert!(told().starts_with(&format!("{path}: {why}")), "{}", told());
    desk.write("ca.crt", &before);
    desk.write("tls.crt", P521[0]);
    desk.write("tls.key", P521[1]);
    let path = desk.path("tls.key").display().to_string();
    let why = "its key cannot be used (it is P-521); expected ECDSA on P-256 or P-384";
    assert!(told().starts_with(&format!("{path}: {why}")), "{}", told());
}

#[test]
fn a_bad_file_at_the_start_is_an_error_that_names_it() {
    let desk = Desk::new();
    for (name, text, why) in bad(&desk) {
        let before = fs::read_to_string(desk.path(name)).unwrap();
        desk.write(name, &text);
        let clock: Arc<dyn Clock> = desk.clock.clone();
        let told = desk.files().check(&clock).unwrap_err().to_string();
        let path = desk.path(name).display().to_string();
        assert!(told.starts_with(&format!("{path}: {why}")), "{told}");
        desk.write(name, &before);
    }
    let clock: Arc<dyn Clock> = desk.clock.clone();
    let told = || desk.files().check(&clock).unwrap_err().to_string();
    fs::remove_file(desk.path("tls.key")).unwrap();
    assert!(told().contains("tls.key: it cannot be read (No such file"));
    fs::create_dir(desk.path("tls.key")).unwrap();
    assert!(told().contains("tls.key: it cannot be read (it is not a regular file)"));
}

#[test]
fn a_bad_change_keeps_the_old_and_is_told_once_until_it_is_mended() {
    let desk = Desk::new();
    let mut credentials = desk.loaded();
    let in_force = credentials.http.load_full();
    for (round, (name, text, why)) in (1u8..).zip(bad(&desk)) {
        let before = fs::read_to_string(desk.path(name)).unwrap();
        desk.write(name, &text);
        credentials.looks(2);
        assert_eq!(desk.counted()[2], 0.0, "{why}: told before a second look");
        credentials.looks(5);
        let counted = desk.counted();
        assert_eq!(counted, [0.0, f64::from(round), 1.0], "{name}: {why}");
        assert!(Arc::ptr_eq(&in_force, &credentials.http.load_full()));
        desk.write(name, &before);
        credentials.looks(2);
        assert_eq!(desk.counted(), [0.0, f64::from(round), 0.0]);
        assert_eq!(credentials.on_disk.state, State::Settled);
    }
    fs::remove_file(desk.path("tls.crt")).unwrap();
    credentials.looks(5);
    assert_eq!(desk.counted()[2], 1.0);
    desk.put(&desk.authority.issue(&server()));
    credentials.looks(2);
    assert_eq!((desk.counted()[0], desk.counted()[2]), (1.0, 0.0));
    assert!(!Arc::ptr_eq(&in_force, &credentials.http.load_full()));
}

#[test]
fn one_file_after_the_other_is_no_alarm() {
    let desk = Desk::new();
    let mut credentials = desk.loaded();
    let next = desk.authority.issue(&server());
    desk.write("tls.crt", &next.certificate);
    credentials.looks(2);
    assert_eq!(credentials.on_disk.state, State::Bad);
    desk.write("tls.key", &next.key);
    credentials.looks(2);
    assert_eq!(credentials.on_disk.state, State::Settled);
    assert_eq!(desk.counted(), [1.0, 0.0, 0.0]);
}

#[test]
fn a_certificate_is_taken_when_its_time_has_come() {
    let desk = Desk::new();
    let mut credentials = desk.loaded();
    let early = Wanted {
        life: Some((START + 5, START + 100)),
        ..server()
    };
    desk.put(&desk.authority.issue(&early));
    credentials.looks(4);
    assert_eq!(desk.counted(), [0.0, 1.0, 1.0]);
    *desk.clock.0.lock().unwrap() = START + 5;
    credentials.looks(1);
    assert_eq!(desk.counted(), [1.0, 1.0, 0.0]);
    assert_eq!(credentials.facts.from, at(START + 5));
}

#[test]
fn a_change_is_seen_however_it_is_made() {
    let desk = Desk::new();
    // As Kubernetes mounts a Secret: the files are links into a folder behind a link, which is swapped.
    let revision = |name: &str| {
        let folder = desk.path(name);
        fs::create_dir(&folder).unwrap();
        let pair = desk.authority.issue(&server());
        write(&folder.join("tls.crt"), &pair.certificate);
        write(&folder.join("tls.key"), &pair.key);
        write(&folder.join("ca.crt"), &desk.authority.certificate);
        symlink(name, desk.path("fresh")).unwrap();
        fs::rename(desk.path("fresh"), desk.path("..data")).unwrap();
    };
    revision("..1");
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        fs::remove_file(desk.path(name)).unwrap();
        symlink(format!("..data/{name}"), desk.path(name)).unwrap();
    }
    let mut credentials = desk.loaded();
    revision("..2");
    credentials.looks(2);
    assert_eq!(desk.counted(), [1.0, 0.0, 0.0], "a link that is swapped");
    desk.put(&desk.authority.issue(&server()));
    credentials.looks(2);
    assert_eq!(desk.counted(), [2.0, 0.0, 0.0], "files rewritten in place");
    let pair = desk.authority.issue(&server());
    desk.write("a", &pair.certificate);
    desk.write("b", &pair.key);
    fs::rename(desk.path("a"), desk.path("tls.crt")).unwrap();
    fs::rename(desk.path("b"), desk.path("tls.key")).unwrap();
    credentials.looks(2);
    assert_eq!(desk.counted(), [3.0, 0.0, 0.0], "files renamed");
    desk.write("ca.crt", &Authority::new("another").certificate);
    credentials.looks(2);
    assert_eq!(desk.counted(), [4.0, 0.0, 0.0], "the authorities alone");
}

#[test]
fn the_same_contents_written_again_are_no_change() {
    let desk = Desk::new();
    let mut credentials = desk.loaded();
    let in_force = credentials.http.load_full();
    let text = fs::read_to_string(desk.path("tls.crt")).unwrap();
    desk.write("tls.crt", &text);
    assert_eq!(credentials.look(), REST);
    assert_eq!(credentials.look(), LOOK);
    assert_eq!(desk.counted(), [0.0, 0.0, 0.0]);
    assert!(Arc::ptr_eq(&in_force, &credentials.http.load_full()));
}

#[test]
fn files_that_never_rest_are_read_all_the_same() {
    let desk = Desk::new();
    let mut credentials = desk.loaded();
    desk.put(&desk.authority.issue(&server()));
    let text = fs::read_to_string(desk.path("tls.crt")).unwrap();
    for _ in 0..=RESTLESS {
        assert_eq!(desk.counted()[0], 0.0);
        desk.write("tls.crt", &text);
        credentials.look();
    }
    assert_eq!(desk.counted(), [1.0, 0.0, 0.0]);
}

#[test]
fn a_certificate_near_its_end_is_told_once_and_again_when_it_is_over() {
    let facts = |life: u64| Facts {
        names: Vec::new(),
        fingerprint: String::new(),
        from: at(START),
        until: at(START + life),
        authorities: None,
    };
    let day = 24 * 60 * 60;
    let cases = [
        (100, 90, Age::Young),
        (100, 91, Age::Soon),
        (100, 100, Age::Soon),
        (100, 101, Age::Over),
        (90 * day, 80 * day, Age::Young),
        (90 * day, 82 * day, Age::Soon),
        // A year's last tenth is longer than 30 days.
        (365 * day, 334 * day, Age::Young),
        (365 * day, 336 * day, Age::Soon),
    ];
    for (life, passed, expected) in cases {
        assert_eq!(
            age(&facts(life), at(START + passed)),
            expected,
            "{passed} of {life}"
        );
    }
}
