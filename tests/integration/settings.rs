//! Wrong settings: one clear line each, the right exit code, nothing on stdout, and never a secret.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::harness::cannot_run_here;
use crate::terminal::{Said, run};

/// In every key file, and pasted where keys must not be.
const SECRET: &str = "planted-secret-0f1e2d3c4b5a";

const GOOD: &str = r#"[upstream]
account = "acct-1"
[[upstream.keys]]
key_id_file = "DIR/id"
api_key_file = "DIR/key"
[record.file]
folder = "DIR/state"
[http]
listen = ["127.0.0.1:0"]
[grpc]
listen = ["127.0.0.1:0"]
[admin]
listen = ["127.0.0.1:0"]
"#;

/// A folder with key files and settings.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.write("id", &format!("id-of-{SECRET}"));
        desk.write("key", SECRET);
        desk
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, self.here(text)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn here(&self, text: &str) -> String {
        text.replace("DIR", self.0.path().to_str().unwrap())
    }

    /// Runs a command on the settings; nothing that it says may hold the secret.
    fn run(&self, command: &str, more: &[&str], environment: &[(&str, &str)]) -> Said {
        let file = self.here("DIR/bearerd.toml");
        let arguments = [&[command, "--config", &file], more].concat();
        let said = run(&arguments, environment);
        for text in [&said.out, &said.err] {
            assert!(!text.contains(SECRET), "a secret is shown");
        }
        said
    }

    /// The command says these lines and nothing else; what ends with … is only how a line begins.
    fn refused(&self, said: &Said, code: i32, expected: &[&str]) {
        assert_eq!((said.code, said.out.as_str()), (Some(code), ""), "{said:?}");
        let lines: Vec<&str> = said.err.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{}", said.err);
        for (line, expected) in lines.iter().zip(expected) {
            let expected = self.here(expected);
            match expected.strip_suffix('…') {
                Some(begin) => assert!(line.starts_with(begin), "{line}\nis not\n{expected}"),
                None => assert_eq!(*line, expected),
            }
        }
    }
}

/// What is wrong: a change of the good settings, and the line that tells of it.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "",
        "[budget]\nlimmit = 3",
        "budget.limmit: there is no such setting; did you mean budget.limit?",
    ),
    (
        "DIR/key",
        "DIR/nowhere",
        "upstream.keys.0.api_key_file: DIR/nowhere cannot be read (No such file or directory (os error 2)); mount it there, or name \
         another file",
    ),
    (
        "account =",
        "base_url = \"truecaller\"\naccount =",
        "upstream.base_url: not a URL; expected such as https://enterprise-portal-noneu.truecaller.com",
    ),
    (
        "account =",
        "base_url = \"http://truecaller.example\"\naccount =",
        "upstream.base_url: http:// would show the keys to the network; use https://, or a loopback address",
    ),
    (
        "",
        "[refresh]\nlead = \"60m\"",
        "refresh.lead: 1h is not shorter than upstream.token_lifetime (1h), so a token would be due at its birth; expected less than \
         that, and at least 33m (window 30m + in flight 1m + margin 2m = 33m)",
    ),
    ("", "[refresh\nlead", "DIR/bearerd.toml:14:9: not TOML: …"),
    (
        "",
        "[budget]\nlimit = \"ten\"",
        "budget.limit: a string; expected a whole number from 1 to 1000",
    ),
    (
        "",
        "[shutdown]\ndeadline = 10",
        "shutdown.deadline: 10 has no unit; expected a length of time …",
    ),
    (
        "account = \"acct-1\"\n",
        "",
        "upstream.account: it is missing; set the clientAccountId that Truecaller gave you",
    ),
    (
        "[\"127.0.0.1:0\"]\n[grpc]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = [\"127.0.0.1:0\"]",
        "[\"127.0.0.1:7290\"]\n[admin]\nlisten = [\"127.0.0.1:7290\"]",
        "admin.listen: 127.0.0.1:7290 is taken by http.listen; give each listener its own address",
    ),
    (
        "[http]\nlisten = [\"127.0.0.1:0\"]",
        "[http]\nlisten = [\"0.0.0.0:0\"]",
        "http.listen: 0.0.0.0:0 can be reached from other machines, so it needs TLS and a rule for callers; …",
    ),
    (
        "api_key_file =",
        "api_key = \"planted-secret-0f1e2d3c4b5a\"\napi_key_file =",
        "upstream.keys.0.api_key: keys come from files only, and what is written here is not used; …",
    ),
    (
        "DIR/key",
        "planted-secret-0f1e2d3c4b5a",
        "upstream.keys.0.api_key_file: not a path (it is not shown, in case it is the key itself); …",
    ),
    (
        "DIR/state",
        "DIR/id/state",
        "record.file.folder: the state folder DIR/id/state cannot be made (Not a directory (os error 20)); make it, owned by the user \
         that runs bearerd, or name another",
    ),
    (
        "DIR/state",
        "/proc/bearerd",
        "record.file.folder: the state folder /proc/bearerd cannot be made (No such file or directory (os error 2)); …",
    ),
];

#[test]
fn each_wrong_setting_is_one_line_and_78() {
    for (from, to, line) in WRONG {
        let desk = Desk::new();
        let text = match *from {
            "" => format!("{GOOD}{to}\n"),
            from => GOOD.replace(from, to),
        };
        desk.write("bearerd.toml", &text);
        for command in ["serve", "check", "init"] {
            let mut said = desk.run(command, &[], &[]);
            // `check` has shown the settings by the time it tries the folder.
            if command == "check" && line.contains("the state folder") {
                assert!(said.out.contains("[record.file]"), "{said:?}");
                said.out.clear();
            }
            desk.refused(&said, 78, &[line]);
        }
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let desk = Desk::new();
    let text = GOOD
        .replace("acct-1", "a/b")
        .replace("DIR/key", "DIR/nowhere");
    desk.write(
        "bearerd.toml",
        &format!("{text}[budget]\nlimmit = 3\n[log]\nformat = \"xml\"\n"),
    );
    let expected = [
        "budget.limmit: …",
        "log.format: \"xml\" is wrong; …",
        "BEARERD_BUDGET__WINDOW: \"30\" has no unit; …",
        "upstream.account: character 2 is not allowed; …",
        "upstream.keys.0.api_key_file: …",
    ];
    for command in ["serve", "check"] {
        let said = desk.run(command, &[], &[("BEARERD_BUDGET__WINDOW", "30")]);
        desk.refused(&said, 78, &expected);
    }
}

#[test]
fn a_key_in_the_environment_or_a_flag_is_not_repeated() {
    let desk = Desk::new();
    desk.write("bearerd.toml", GOOD);
    let said = desk.run("serve", &[], &[("BEARERD_UPSTREAM__API_KEY", SECRET)]);
    desk.refused(
        &said,
        78,
        &["BEARERD_UPSTREAM__API_KEY: keys come from files only, …"],
    );
    let said = desk.run("serve", &["--log-level", SECRET], &[]);
    desk.refused(&said, 78, &["--log-level: part 1 is neither a level …"]);
}

#[test]
fn a_port_in_use_is_one_line_and_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let desk = Desk::new();
    desk.write("bearerd.toml", GOOD);
    for flag in ["--http-listen", "--grpc-listen", "--admin-listen"] {
        let said = desk.run("serve", &[flag, &address], &[]);
        let setting = flag[2..].replace('-', ".");
        let line = format!(
            "{setting} ({flag}): {address} is in use by another process: stop that process, or listen on another port"
        );
        desk.refused(&said, 1, &[&line]);
    }
    assert_eq!(
        desk.run("check", &["--http-listen", &address], &[]).code,
        Some(0),
        "a daemon that runs holds its port"
    );
}

#[test]
fn a_json_log_tells_why_nothing_starts_as_its_other_lines_are() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let desk = Desk::new();
    desk.write("bearerd.toml", GOOD);
    // Even where nothing else is said.
    for level in ["off", "trace"] {
        let flags = ["--log-format", "json", "--log-level", level];
        let said = desk.run(
            "serve",
            &[&flags[..], &["--http-listen", &address]].concat(),
            &[],
        );
        assert_eq!(said.code, Some(1), "{said:?}");
        let lines = said.err.lines();
        let lines: Vec<serde_json::Value> = lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect();
        let of_errors = |line: &&serde_json::Value| line["level"] == "ERROR";
        let why = lines.iter().find(of_errors).unwrap();
        let message = why["message"].as_str().unwrap();
        let begins = format!("http.listen (--http-listen): {address} is in use");
        assert!(message.starts_with(&begins), "{message}");
        assert!(why["timestamp"].is_string() && why["target"] == "bearerd::cli::serve");
    }
}

/// What a refused start says as JSON: of each line its level and message.
fn objects(said: &Said) -> Vec<(String, String)> {
    assert_eq!((said.code, said.out.as_str()), (Some(78), ""), "{said:?}");
    let parsed = said.err.lines().map(|line| {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["target"] == "bearerd::cli::serve");
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        assert!(text("message").starts_with(&text("place")), "{line}");
        (text("level"), text("message"))
    });
    parsed.collect()
}

#[test]
fn a_json_log_has_one_object_for_each_problem_wherever_its_format_is_written() {
    let desk = Desk::new();
    // Two problems of settings and one of a key file.
    let bad = GOOD.replace("DIR/key", "DIR/nowhere") + "[budget]\nlimmit = 3\nlimit = \"ten\"\n";
    let json_file = format!("{bad}[log]\nformat = \"json\"\n");
    let (flag, variable) = (["--log-format", "json"], [("BEARERD_LOG__FORMAT", "json")]);
    for (name, file, flags, environment) in [
        ("file", json_file.as_str(), &[][..], &[][..]),
        ("flag", bad.as_str(), &flag[..], &[][..]),
        ("environment", bad.as_str(), &[][..], &variable[..]),
    ] {
        desk.write("bearerd.toml", file);
        let lines = objects(&desk.run("serve", flags, environment));
        let mut places: Vec<&str> = lines
            .iter()
            .map(|(level, message)| {
                assert_eq!(level, "ERROR");
                message.split(':').next().unwrap()
            })
            .collect();
        places.sort_unstable();
        let expected = [
            "budget.limit",
            "budget.limmit",
            "upstream.keys.0.api_key_file",
        ];
        assert_eq!(places, expected, "{name}");
    }
}

#[test]
fn a_json_log_tells_of_a_file_that_cannot_be_read_too() {
    let desk = Desk::new();
    let json = "[log]\nformat = \"json\"\n";
    // Not TOML, before and behind the format.
    for file in [
        format!("[upstream\naccount = 1\n{json}"),
        format!("{json}[upstream]\naccount = \"acct-1\nbase_url = 3\n"),
        format!("log.format = \"json\"\n{GOOD}[refresh\nlead"),
    ] {
        desk.write("bearerd.toml", &file);
        let lines = objects(&desk.run("serve", &[], &[]));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].1.contains("not TOML"), "{lines:?}");
        // What is written later wins.
        let said = desk.run("serve", &["--log-format", "text"], &[]);
        desk.refused(&said, 78, &["DIR/bearerd.toml:…"]);
    }
    let missing = ["--config", "/nowhere/bearerd.toml", "--log-format", "json"];
    let said = run(&[&["serve"], &missing[..]].concat(), &[]);
    let lines = objects(&said);
    assert!(
        lines[0].1.contains("the settings cannot be read"),
        "{lines:?}"
    );
}

#[test]
fn a_wrong_format_of_the_log_is_told_in_text() {
    let desk = Desk::new();
    desk.write("bearerd.toml", &format!("{GOOD}[log]\nformat = \"jsn\"\n"));
    let said = desk.run("serve", &[], &[]);
    desk.refused(&said, 78, &["log.format: …"]);
    desk.write("bearerd.toml", &format!("{GOOD}[log]\nformat = \"json\"\n"));
    let said = desk.run("serve", &["--log-format", "jsn"], &[]);
    desk.refused(&said, 78, &["--log-format: …"]);
}

#[test]
fn a_machine_without_certificate_roots_is_told_what_it_lacks() {
    let desk = Desk::new();
    desk.write("bearerd.toml", GOOD);
    let none = [("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")];
    let line = "the HTTP client for the upstream cannot be made (are there certificate roots on this machine? the package is \
                ca-certificates): …";
    desk.refused(&desk.run("serve", &[], &none), 1, &[line]);
    let check = desk.run("check", &[], &none);
    let warning = format!(
        "warning: as this machine is now, serve would not start: {}",
        &line[..line.len() - 3]
    );
    assert_eq!(check.code, Some(0));
    assert!(check.err.contains(&warning), "{}", check.err);
}

#[test]
fn check_says_what_serve_would_find_and_leaves_nothing_behind() {
    let desk = Desk::new();
    desk.write("file", "precious");
    let rows = [
        (
            "http.listen=unix:DIR/no/http.sock",
            0,
            "http.listen: the folder of unix:DIR/no/http.sock does not exist",
        ),
        (
            "admin.listen=unix:DIR/file",
            0,
            "admin.listen: unix:DIR/file names a file that is not a socket",
        ),
        ("audit.file=DIR/audit", 0, "the settings are good"),
        ("http.listen=unix:DIR/http.sock", 0, "the settings are good"),
    ];
    for (more, code, expected) in rows {
        desk.write("bearerd.toml", GOOD);
        let (setting, value) = more.split_once('=').unwrap();
        let variable = format!("BEARERD_{}", setting.replace('.', "__").to_uppercase());
        let said = desk.run("check", &[], &[(&variable, &desk.here(value))]);
        assert_eq!(said.code, Some(code), "{}", said.err);
        assert!(said.err.contains(&desk.here(expected)), "{}", said.err);
    }
    for none in ["no", "audit", "http.sock"] {
        assert!(
            !fs::exists(desk.here(&format!("DIR/{none}"))).unwrap(),
            "{none}"
        );
    }
    assert_eq!(
        fs::read_to_string(desk.here("DIR/file")).unwrap(),
        "precious"
    );
}

#[test]
fn a_record_that_is_not_ours_is_never_touched() {
    let desk = Desk::new();
    desk.write("bearerd.toml", GOOD);
    assert_eq!(desk.run("init", &["--account", "other"], &[]).code, Some(0));
    let untouched = fs::read_to_string(desk.here("DIR/state/record.json")).unwrap();
    let check = desk.run("check", &[], &[]);
    assert_eq!(check.code, Some(0));
    assert!(
        check
            .err
            .contains("never held a token; serve will take it over"),
        "{}",
        check.err
    );
    let golden = include_str!("../golden/records/1.0.json");
    let mut document: serde_json::Value = serde_json::from_str(&untouched).unwrap();
    let held: serde_json::Value = serde_json::from_str(golden).unwrap();
    document["token"] = held["token"].clone();
    desk.write("state/record.json", &document.to_string());
    let theirs = fs::read(desk.here("DIR/state/record.json")).unwrap();
    desk.refused(
        &desk.run("serve", &[], &[]),
        78,
        &["record: the record at DIR/state/record.json belongs to account \"other\" and has held its token, and upstream.account is \
           \"acct-1\"; mend upstream.account, or name another record.file.folder; to begin anew here, stop every bearerd on this folder \
           and run: mv 'DIR/state/record.json' 'DIR/state/record.json.aside'"],
    );
    let check = desk.run("check", &[], &[]);
    assert_eq!(check.code, Some(78));
    assert!(
        check.err.contains("belongs to account \"other\""),
        "{}",
        check.err
    );
    assert_eq!(
        fs::read(desk.here("DIR/state/record.json")).unwrap(),
        theirs
    );

    desk.write("state/record.json", "{\"format\": \"9.0\"}");
    desk.refused(
        &desk.run("serve", &[], &[]),
        78,
        &["record: the record at DIR/state/record.json has format 9.0, and this version reads up to 1.x; start a newer bearerd"],
    );
    let check = desk.run("check", &[], &[]);
    assert_eq!((check.code, check.err.lines().count()), (Some(78), 1));
    assert_eq!(
        fs::read_to_string(desk.here("DIR/state/record.json")).unwrap(),
        "{\"format\": \"9.0\"}"
    );
}

#[test]
fn check_leaves_nothing_behind() {
    let desk = Desk::new();
    desk.write("bearerd.toml", GOOD);
    let names = |folder: &str| {
        let all = fs::read_dir(desk.here(folder)).unwrap();
        let mut names: Vec<_> = all.map(|it| it.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names("DIR");
    let said = desk.run("check", &[], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.err
            .ends_with(&desk.here("serve will make the state folder DIR/state\n")),
        "{}",
        said.err
    );
    assert_eq!(names("DIR"), before, "no folder");

    fs::create_dir(desk.here("DIR/state")).unwrap();
    let said = desk.run("check", &[], &[]);
    assert!(said.err.contains("there is no record at"), "{}", said.err);
    assert_eq!(names("DIR/state").len(), 0, "no lock and nothing else");
    // What works on a record makes none of its surroundings either.
    for command in [&["show"][..], &["spend", "1"], &["reset", "--yes"]] {
        let said = desk.run("ledger", command, &[]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert_eq!(names("DIR/state").len(), 0, "{command:?}");
    }

    if let Err(why) = std::os::unix::fs::chown(desk.here("DIR/state"), Some(4242), None) {
        cannot_run_here(
            "check_leaves_nothing_behind",
            &format!("no folder of another user can be made here ({why})"),
        );
        return;
    }
    let said = desk.run("check", &[], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!said.err.contains("the settings are good;"), "{}", said.err);
    let warned = desk.here("warning: DIR/state belongs to user 4242, and this is user ");
    assert!(said.err.contains(&warned), "{}", said.err);
}

#[test]
fn a_state_folder_that_others_may_write_to_is_told_by_serve_too() {
    let desk = Desk::new();
    fs::create_dir(desk.here("DIR/state")).unwrap();
    fs::set_permissions(desk.here("DIR/state"), fs::Permissions::from_mode(0o777)).unwrap();
    let strict = GOOD.replace("[record.file]", "[record.file]\nstrict_permissions = true");
    desk.write("bearerd.toml", &strict);
    let line =
        "record.file.folder: every user of this machine may write to DIR/state (mode 0777), …";
    for command in ["serve", "check", "init"] {
        desk.refused(&desk.run(command, &[], &[]), 78, &[line]);
    }
    desk.write("bearerd.toml", GOOD);
    let said = desk.run("check", &[], &[]);
    assert_eq!(said.code, Some(0));
    assert!(
        said.err.contains("warning: record.file.folder: every user"),
        "{}",
        said.err
    );
}

#[test]
fn wrong_usage_is_2() {
    for arguments in [
        &["serve", "--frob"][..],
        &["frob"],
        &["check", "--format", "xml"],
        &["status", "--admin", "nowhere"],
        &["demo", "--config", "/dev/null"],
        &[],
    ] {
        let said = run(arguments, &[]);
        assert_eq!(
            (said.code, said.out.as_str()),
            (Some(2), ""),
            "{arguments:?}"
        );
        assert!(!said.err.is_empty());
    }
}

#[test]
fn without_any_settings_it_is_said_where_to_begin() {
    // A machine that has the usual file is not one without settings.
    if std::path::Path::new(bearerd::config::DEFAULT_FILE).exists() {
        cannot_run_here(
            "without_any_settings_it_is_said_where_to_begin",
            "this machine has the usual settings file",
        );
        return;
    }
    for command in ["serve", "check"] {
        let said = run(&[command], &[]);
        assert_eq!(said.code, Some(78));
        let last = said.err.lines().last().unwrap();
        assert!(
            last.contains("--config") && last.contains("bearerd demo"),
            "{last}"
        );
    }
}
