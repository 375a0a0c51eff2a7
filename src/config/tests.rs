mod tls;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::caller::rule::Rights;

const SECRET: &str = "5e0c2a7d-93b1-4f6e-8a2d-planted00001";
const MINUTE: Duration = Duration::from_secs(60);

/// A folder with two keys, and a file of settings beside them.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for name in ["id", "key", "id2", "key2"] {
            desk.write(name, &format!("{SECRET}-{name}"), 0o600);
        }
        desk
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// The settings that are enough, and these.
    fn text(&self, more: &str) -> String {
        let folder = self.folder.path().display();
        format!(
            "upstream.account = \"acct-1\"\n\
             upstream.keys = [{{ key_id_file = \"{folder}/id\", api_key_file = \"{folder}/key\" }}]\n{more}\n"
        )
    }

    fn sources(&self, toml: &str, environment: &[(&str, &str)], flags: Vec<Flag>) -> Sources {
        let file = self.write("bearerd.toml", toml, 0o600);
        let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        Sources::new(Some(file), environment.iter().map(pair), flags)
    }

    fn read(&self, toml: &str) -> Result<Reading, Problems> {
        self.read_with(toml, &[])
    }

    fn read_with(&self, toml: &str, environment: &[(&str, &str)]) -> Result<Reading, Problems> {
        read(&self.sources(toml, environment, Vec::new()))
    }

    fn problems(&self, toml: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let problems = self
            .read_with(toml, environment)
            .expect_err("something is wrong");
        let text = problems.to_string();
        assert!(
            !text.contains(SECRET) && !text.contains("planted"),
            "{text}"
        );
        let folder = self.folder.path().display().to_string();
        text.lines()
            .map(|line| line.replace(&folder, "DIR"))
            .collect()
    }
}

#[test]
fn the_least_that_must_be_written_is_an_account_and_a_key() {
    let desk = Desk::new();
    let config = desk.read(&desk.text("")).unwrap().config;
    assert_eq!(config.account, "acct-1");
    assert_eq!(
        config.issuer.mint_url.as_str(),
        "https://enterprise-portal-noneu.truecaller.com/clients/acct-1/token"
    );
    assert_eq!(
        (config.issuer.timeout, config.issuer.lifetime),
        (MINUTE / 6, 60 * MINUTE)
    );
    assert_eq!(config.rules.lead, 33 * MINUTE);
    assert_eq!(config.rules.skew, MINUTE / 2);
    assert_eq!(config.rules.budget.reserve, 3);
    assert_eq!(config.absent, Absent::New);
    let folder = PathBuf::from("/var/lib/bearerd");
    assert_eq!(config.register, Register::File { folder });
    assert_eq!(config.http.listen, ["localhost:7290".parse().unwrap()]);
    assert_eq!(config.admin.listen, ["localhost:7292".parse().unwrap()]);
    assert_eq!(config.keys.pairs.len(), 1);
    assert_eq!(config.log, telemetry::Settings::default());
    assert!(config.warnings.is_empty() && !config.short_lead);
    assert_eq!(config.sandbox.listen, "127.0.0.1:7299".parse().unwrap());
}

#[test]
fn a_problem_is_one_line_whatever_a_path_holds() {
    let desk = Desk::new();
    let text = desk.text("http.listen = [\"unix:x\\ny\"]");
    let problems = desk
        .read_with(
            &text,
            &[(
                "BEARERD_UPSTREAM__KEYS__0__KEY_ID_FILE",
                "/no\nsuch\u{1b}[2Jfile",
            )],
        )
        .unwrap_err();
    assert_eq!(problems.0.len(), 2, "{problems}");
    let told = problems.to_string();
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(
        !told.replace('\n', "").chars().any(char::is_control),
        "{told:?}"
    );
}

#[test]
fn everything_scales_with_lifetime_and_window() {
    let desk = Desk::new();
    let text =
        desk.text("upstream.token_lifetime = \"60s\"\nbudget.window = \"30s\"\nbudget.limit = 2");
    let reading = desk.read(&text).unwrap();
    let rules = &reading.config.rules;
    assert_eq!(rules.lead, Duration::from_secs(33));
    assert_eq!(rules.budget.in_flight, Duration::from_secs(1));
    assert_eq!(rules.skew, Duration::from_secs(1));
    assert!(rules.timeout * 2 <= rules.budget.in_flight);
    assert_eq!(rules.budget.reserve, 1);
    let shown = reading.effective.to_json();
    let expected = serde_json::json!({"value": "33s", "from": "derived"});
    assert_eq!(shown["settings"]["refresh.lead"], expected);
}

#[test]
fn later_sources_win() {
    let desk = Desk::new();
    let text = desk.text(
        "budget.limit = 3\nhttp.hosts = [\"file\"]\nlog.level = \"warn\"\nclock.skew = \"7s\"",
    );
    let environment = [
        ("BEARERD_BUDGET__LIMIT", "4"),
        ("BEARERD_HTTP__HOSTS", "one.example, [fd00::1]"),
        ("BEARERD_HTTP__LISTEN", "unix:/run/bearerd.sock,127.0.0.1:1"),
        ("BEARERD_LOG__LEVEL", "error"),
        ("BEARERD_UPSTREAM__REVOKES_PREVIOUS", "true"),
        ("PATH", "/bin"),
    ];
    let flags = vec![
        Flag::new("--log-level", "log.level", "debug"),
        Flag::new("--log-level", "log.level", "info,hyper=trace"),
    ];
    let reading = read(&desk.sources(&text, &environment, flags)).unwrap();
    let config = &reading.config;
    assert_eq!(config.rules.budget.limit.get(), 4);
    assert_eq!(config.http.hosts, ["one.example", "[fd00::1]"]);
    assert_eq!(config.http.listen.len(), 2);
    assert_eq!(config.log.filter.to_string(), "info,hyper=trace");
    assert!(config.rules.revokes_previous);
    let origin = |path: &str| {
        let shown = reading
            .effective
            .settings
            .iter()
            .find(|shown| shown.path == path);
        shown.unwrap().origin
    };
    let origins = [
        "budget.window",
        "clock.skew",
        "budget.limit",
        "log.level",
        "refresh.lead",
    ]
    .map(origin);
    assert_eq!(
        origins,
        [
            Origin::Default,
            Origin::File,
            Origin::Environment,
            Origin::Flag,
            Origin::Derived
        ]
    );
}

#[test]
fn the_environment_alone_is_enough() {
    let desk = Desk::new();
    let path = |name: &str| desk.folder.path().join(name).display().to_string();
    let [id, key, id2, key2] = ["id", "key", "id2", "key2"].map(path);
    let environment = [
        ("BEARERD_UPSTREAM__ACCOUNT", "acct-1"),
        ("BEARERD_UPSTREAM__KEYS__0__KEY_ID_FILE", &id),
        ("BEARERD_UPSTREAM__KEYS__0__API_KEY_FILE", &key),
        ("BEARERD_UPSTREAM__KEYS__1__KEY_ID_FILE", &id2),
        ("BEARERD_UPSTREAM__KEYS__1__API_KEY_FILE", &key2),
        // What Kubernetes adds where a service is named bearerd, or bearerd-gateway.
        ("BEARERD_SERVICE_HOST", "10.0.0.1"),
        ("BEARERD_SERVICE_PORT", "7290"),
        ("BEARERD_SERVICE_PORT_HTTP", "7290"),
        ("BEARERD_PORT", "tcp://10.0.0.1:7290"),
        ("BEARERD_PORT_7290_TCP_ADDR", "10.0.0.1"),
        ("BEARERD_GATEWAY_PORT_7290_TCP", "tcp://10.0.0.1:7290"),
    ];
    let config = desk.read_with("", &environment).unwrap().config;
    assert_eq!(
        config.keys.pairs,
        [(id.into(), key.into()), (id2.into(), key2.into())]
    );
}

#[test]
fn the_file_is_the_one_that_is_named() {
    let desk = Desk::new();
    let file = desk.write("other.toml", &desk.text("budget.limit = 5"), 0o600);
    let variable = (
        OsString::from(CONFIG_VARIABLE),
        file.clone().into_os_string(),
    );
    let by_variable = Sources::new(None, [variable.clone()], Vec::new());
    assert_eq!(
        read(&by_variable).unwrap().config.rules.budget.limit.get(),
        5
    );
    let missing = desk.folder.path().join("missing.toml");
    let by_flag = Sources::new(Some(missing.clone()), [variable], Vec::new());
    let problems = read(&by_flag).unwrap_err();
    assert_eq!(problems.0.len(), 1, "{problems}");
    assert_eq!(problems.0[0].place, missing.display().to_string());
}

#[test]
fn each_wrong_setting_gives_one_line() {
    let desk = Desk::new();
    let table: &[(&str, &str)] = &[
        (
            "upstream.account = \"<your clientAccountId>\"",
            "upstream.account: it is still the placeholder; set the clientAccountId",
        ),
        (
            "upstream.account = \"your-account-id\"",
            "upstream.account: it is still the placeholder",
        ),
        (
            "upstream.account = \"00000000-0000-0000-0000-000000000000\"",
            "upstream.account: it is still the placeholder",
        ),
        (
            "upstream.account = \"a/b\"",
            "upstream.account: character 2 is not allowed; expected letters",
        ),
        (
            "upstream.account = \"..\"",
            "upstream.account: it is made of dots",
        ),
        (
            "upstream.account = 7",
            "upstream.account: an integer; expected an account id",
        ),
        ("upstream.account = \"\"", "upstream.account: it is empty"),
        (
            "upstream.base_url = \"http://example.com\"",
            "upstream.base_url: http:// would show the keys",
        ),
        (
            "upstream.base_url = \"https://u:p@example.com\"",
            "upstream.base_url: it holds a user",
        ),
        (
            "upstream.base_url = \"https://example.com?a=planted\"",
            "upstream.base_url: it holds a query",
        ),
        (
            "upstream.base_url = \"planted\"",
            "upstream.base_url: not a URL",
        ),
        (
            "upstream.base_url = \"ftp://localhost\"",
            "upstream.base_url: its scheme is not https",
        ),
        (
            "upstream.mint_path = \"token\"",
            "upstream.mint_path: it does not begin with /",
        ),
        (
            "upstream.mint_path = \"/{account}/{account}\"",
            "upstream.mint_path: it names {account} more than once",
        ),
        (
            "upstream.mint_path = \"/a?b\"",
            "upstream.mint_path: it holds other characters",
        ),
        (
            "upstream.mint_path = \"/a/../b\"",
            "upstream.mint_path: it holds . or ..",
        ),
        (
            "upstream.token_lifetime = 60",
            "upstream.token_lifetime: 60 has no unit; expected a length of time",
        ),
        (
            "upstream.token_lifetime = \"60\"",
            "upstream.token_lifetime: \"60\" has no unit",
        ),
        (
            "upstream.token_lifetime = \"soon\"",
            "upstream.token_lifetime: \"soon\" is not a length of time",
        ),
        (
            "upstream.token_lifetime = \"31 days\"",
            "upstream.token_lifetime: \"31 days\" is too long",
        ),
        (
            "upstream.token_lifetime = \"18446744073709551615s1000ms\"",
            "upstream.token_lifetime: what is written (27 characters",
        ),
        (
            "clock.skew = \"0s\"",
            "clock.skew: \"0s\" is no time at all",
        ),
        ("clock.skew = \"1ns\"", "clock.skew: \"1ns\" is too short"),
        (
            "upstream.token_lifetime = \"30m\"",
            "upstream.token_lifetime: 30m is not longer than the lead of 33m (window 30m + in flight 1m + margin 2m = 33m)",
        ),
        (
            "refresh.lead = \"2h\"",
            "refresh.lead: 2h is not shorter than upstream.token_lifetime (1h)",
        ),
        (
            "refresh.lead = \"20m\"",
            "refresh.lead: 20m is shorter than 33m (window 30m + in flight 1m + margin 2m = 33m)",
        ),
        (
            "upstream.timeout = \"40s\"",
            "upstream.timeout: budget.in_flight (1m by default) is less than twice upstream.timeout (40s)",
        ),
        (
            "budget.limit = 0",
            "budget.limit: \"0\" is wrong; expected a whole number from 1 to 1000",
        ),
        (
            "budget.limit = \"ten\"",
            "budget.limit: a string; expected a whole number",
        ),
        (
            "budget.reserve = 10",
            "budget.reserve: 10 leaves scheduled refreshes no slot of budget.limit (10 by default); expected at most 9",
        ),
        (
            "record.register = \"redis\"",
            "record.register: \"redis\" is not in this version; expected one of file, memory",
        ),
        (
            "record.register = \"fiel\"",
            "record.register: \"fiel\" is wrong; expected one of file, memory; did you mean file?",
        ),
        (
            "record.register = \"memory\"\nrecord.absent = \"new\"",
            "record.absent: it means nothing with",
        ),
        (
            "http.listen = []\ngrpc.listen = []",
            "http.listen: it is empty",
        ),
        (
            "http.listen = [\"0.0.0.0:7290\"]",
            "http.listen: 0.0.0.0:7290 can be reached from other machines",
        ),
        (
            "http.listen = \"127.0.0.1:1\"",
            "http.listen: a single text; expected a list of addresses",
        ),
        ("http.listen = [1]", "http.listen: an item is not a text"),
        ("http.listen = [\"here\"]", "http.listen: item 1: "),
        (
            "http.listen = [\"127.0.0.1:7292\"]",
            "admin.listen: localhost:7292 is taken by http.listen",
        ),
        (
            "admin.listen = [\"[::]:1\", \"[::]:1\"]",
            "admin.listen: [::]:1 is there twice",
        ),
        (
            "admin.hosts = [\"http://x\"]",
            "admin.hosts: item 1 is no host name",
        ),
        (
            "log.format = \"xml\"",
            "log.format: \"xml\" is wrong; expected one of text, json",
        ),
        (
            "log.level = \"info,loud\"",
            "log.level: part 2 is neither a level",
        ),
        (
            "upstream.revokes_previous = \"yes\"",
            "upstream.revokes_previous: a string; expected true or false",
        ),
        (
            "sandbox.listen = \"localhost:1\"",
            "sandbox.listen: not an IP address and a port",
        ),
        (
            "sandbox.over_budget_status = 418",
            "sandbox.over_budget_status: expected 429, 400 or 500",
        ),
        (
            "sandbox.key_id_file = \"/a\"",
            "sandbox.api_key_file: it is missing",
        ),
        (
            "upstrem.account = 1",
            "upstrem: there is no such setting; did you mean upstream?",
        ),
        (
            "upstream.base_ulr = 1",
            "upstream.base_ulr: there is no such setting; did you mean upstream.base_url?",
        ),
        (
            "upstream.window = \"1m\"",
            "upstream.window: there is no such setting; did you mean budget.window?",
        ),
        (
            "record.folder = \"/x\"",
            "record.folder: there is no such setting; did you mean record.file.folder?",
        ),
        (
            "upstream.api_key_file = \"/x\"",
            "upstream.api_key_file: there is no such setting; did you mean api_key_file under [[upstream.keys]]?",
        ),
        (
            "keys = [{ key_id_file = \"/x\" }]",
            "keys: there is no such setting; did you mean [[upstream.keys]]?",
        ),
        (
            "callers = [{ uids = [1] }]",
            "callers: a list; each caller is a table with its name: write [callers.NAME]",
        ),
        (
            "callers.uids = [1]",
            "callers.uids: callers have names: write it under [callers.NAME]",
        ),
        (
            "wholly.other = 1",
            "wholly: there is no such setting; see the table of settings",
        ),
        (
            "budget = 3",
            "budget: a single value; expected a section: [budget]",
        ),
        (
            "\"with space\" = 1",
            "(a name that is not shown): there is no such setting",
        ),
        (
            "api_key = \"planted\"",
            "api_key: keys come from files only",
        ),
        (
            "upstream.api_key = \"planted\"",
            "upstream.api_key: keys come from files only",
        ),
        (
            "upstream.secret = \"planted\"",
            "upstream.secret: keys come from files only",
        ),
    ];
    for (setting, expected) in table {
        let own_account = setting.contains("upstream.account");
        let text = desk.text(setting);
        let text = if own_account {
            text.replacen("upstream.account = \"acct-1\"\n", "", 1)
        } else {
            text
        };
        let problems = desk.problems(&text, &[]);
        assert_eq!(problems.len(), 1, "{setting}: {problems:?}");
        assert!(
            problems[0].starts_with(expected),
            "{setting}: {}",
            problems[0]
        );
    }
}

#[test]
fn key_files_are_judged_one_by_one() {
    let desk = Desk::new();
    desk.write("empty", "", 0o600);
    desk.write("two", "planted\nlines\n", 0o600);
    let folder = desk.folder.path().display();
    let text = format!(
        "[upstream]\naccount = \"a\"\n\
         [[upstream.keys]]\nkey_id_file = \"{folder}/none\"\napi_key_file = \"{folder}/nothing\"\n\
         [[upstream.keys]]\nkey_id_file = \"{folder}/empty\"\napi_key_file = \"{folder}/two\"\n\
         [[upstream.keys]]\nkey_id_file = \"{SECRET}\"\n"
    );
    let expected = [
        "upstream.keys.0.key_id_file: DIR/none cannot be read",
        "upstream.keys.0.api_key_file: DIR/nothing cannot be read",
        "upstream.keys.1.key_id_file: DIR/empty is empty; write only the key into it",
        "upstream.keys.1.api_key_file: DIR/two holds more than one line; write only the key into it",
        "upstream.keys.2.key_id_file: not a path (it is not shown",
        "upstream.keys.2.api_key_file: it is missing",
    ];
    let problems = desk.problems(&text, &[]);
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}");
    }
    let six = "{ key_id_file = \"/a\", api_key_file = \"/b\" },".repeat(6);
    let problems = desk.problems(
        &format!("upstream = {{ account = \"a\", keys = [{six}] }}"),
        &[],
    );
    assert_eq!(
        problems,
        ["upstream.keys: Truecaller gives an account at most 5 keys; keep the pairs 0 to 4"]
    );
    let problems = desk.problems(
        "[upstream]\naccount = \"a\"\n[upstream.keys]\nkey_id_file = \"/a\"",
        &[],
    );
    assert!(
        problems.len() == 1 && problems[0].contains("[[upstream.keys]]"),
        "{problems:?}"
    );
}

#[test]
fn a_second_pair_without_a_first_is_told_once() {
    let desk = Desk::new();
    let folder = desk.folder.path().display();
    let [id, key] = ["id2", "key2"].map(|name| format!("{folder}/{name}"));
    let both = [
        ("BEARERD_UPSTREAM__KEYS__1__KEY_ID_FILE", id.as_str()),
        ("BEARERD_UPSTREAM__KEYS__1__API_KEY_FILE", key.as_str()),
    ];
    let problems = desk.problems("upstream.account = \"a\"", &both);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0]
            .starts_with("upstream.keys.0: nothing names this pair, and upstream.keys.1 is there"),
        "{problems:?}"
    );
    // With the first in the file, one of the two is what is missing.
    let problems = desk.problems(&desk.text(""), &both[..1]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("upstream.keys.1.api_key_file: it is missing"),
        "{problems:?}"
    );
}

#[test]
fn with_one_pair_there_the_others_may_come_later() {
    let desk = Desk::new();
    desk.write("empty", "", 0o600);
    let folder = desk.folder.path().display();
    let more = format!(
        "[[upstream.keys]]\nkey_id_file = \"{folder}/none\"\napi_key_file = \"{folder}/empty\"\n\
         [[upstream.keys]]\nkey_id_file = \"{folder}/id\"\napi_key_file = \"{folder}/key\"\n"
    );
    let reading = desk
        .read(&format!("[upstream]\naccount = \"a\"\n{more}"))
        .unwrap();
    assert_eq!(reading.config.keys.pairs.len(), 2);
    assert!(reading.effective.key_set.is_some());
    let [id, key] = &reading.config.warnings[..] else {
        panic!("{:?}", reading.config.warnings);
    };
    let (none, empty) = ("none cannot be read", "empty is empty");
    assert!(id.starts_with("upstream.keys.0.key_id_file: ") && id.contains(none));
    assert!(key.starts_with("upstream.keys.0.api_key_file: ") && key.contains(empty));
    assert!(key.ends_with("its pair is left out until both of its files hold a key"));
}

#[test]
fn who_may_connect_to_sockets_is_a_mode_a_group_and_for_operators_a_list() {
    let desk = Desk::new();
    let config = |more: &str| desk.read(&desk.text(more)).unwrap().config;
    let closed = config("http.listen = [\"unix:/run/b.sock\"]");
    assert_eq!(closed.http.socket, SocketAccess::default());
    assert_eq!((closed.http.socket.mode, closed.warnings.len()), (0o600, 0));
    let open = config(
        "http.socket_mode = \"0660\"\nhttp.socket_group = \"4242\"\ngrpc.socket_mode = \"0o770\"\n\
         admin.uids = [0, 1000]\nadmin.gids = [7]\nadmin.listen = [\"unix:/run/a.sock\"]",
    );
    let expected = SocketAccess {
        mode: 0o660,
        group: Some(4242),
    };
    assert_eq!(open.http.socket, expected);
    assert_eq!(open.grpc.socket.mode, 0o770);
    assert_eq!((open.admin.uids, open.admin.gids), (vec![0, 1000], vec![7]));
    assert_eq!(open.warnings, Vec::<String>::new());
    for (wrong, told) in [
        ("http.socket_mode = \"0690\"", "it is no mode"),
        ("http.socket_mode = \"66\"", "it is no mode"),
        ("http.socket_mode = \"2660\"", "it is above 0777"),
        ("http.socket_mode = \"0444\"", "with it nobody may connect"),
        ("http.socket_mode = 660", "expected an octal mode in quotes"),
        (
            "grpc.socket_group = \"no such group\"",
            "there is no such group in /etc/group",
        ),
        (
            "admin.socket_group = \"7\"",
            "with which no group may connect; add admin.socket_mode",
        ),
        (
            "admin.uids = [\"root\"]",
            "it is no number of a user or a group",
        ),
    ] {
        let problems = desk.problems(&desk.text(wrong), &[]);
        assert!(
            problems.len() == 1 && problems[0].contains(told),
            "{wrong}: {problems:?}"
        );
    }
}

#[test]
fn sockets_for_everybody_are_warned_of_unless_callers_are_named() {
    let desk = Desk::new();
    let warnings = |more: &str| desk.read(&desk.text(more)).unwrap().config.warnings;
    let all = |section: &str| {
        format!(
            "{section}.socket_mode = \"0666\"\n{section}.listen = [\"unix:/run/{section}.sock\"]\n"
        )
    };
    for section in ["http", "grpc", "admin"] {
        let told = warnings(&all(section));
        assert!(
            told.len() == 1 && told[0].contains("every user of this machine may connect"),
            "{told:?}"
        );
        let ports = format!("{section}.socket_mode = \"0666\"");
        assert_eq!(
            warnings(&ports),
            Vec::<String>::new(),
            "there is no such socket"
        );
    }
    let named = "callers.shop.uids = [1000]\ngrpc.listen = []\n".to_owned() + &all("http");
    assert_eq!(warnings(&named), Vec::<String>::new());
    let named = "admin.uids = [1000]\n".to_owned() + &all("admin");
    assert_eq!(warnings(&named), Vec::<String>::new());
    assert_eq!(warnings("admin.uids = [0]"), Vec::<String>::new());
    let beside = warnings("admin.gids = [7]");
    assert!(
        beside.len() == 1 && beside[0].contains("localhost:7292 is answered all the same"),
        "{beside:?}"
    );
    let folder = desk.folder.path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    let listen = format!("http.listen = [\"unix:{}/b.sock\"]", folder.display());
    let told = warnings(&listen);
    assert!(
        told.len() == 1 && told[0].contains("may write to"),
        "{told:?}"
    );
    for given in [0o1777, 0o2777] {
        fs::set_permissions(folder, fs::Permissions::from_mode(given)).unwrap();
        assert_eq!(warnings(&listen), Vec::<String>::new(), "{given:o}");
    }
}

#[test]
fn key_files_that_others_can_read_warn_or_fail() {
    let desk = Desk::new();
    desk.write("key", SECRET, 0o644);
    let warnings = desk.read(&desk.text("")).unwrap().config.warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("(mode 0644)"),
        "{warnings:?}"
    );
    let problems = desk.problems(&desk.text("upstream.strict_permissions = true"), &[]);
    assert!(
        problems.len() == 1 && problems[0].starts_with("upstream.keys.0.api_key_file: "),
        "{problems:?}"
    );
}

#[test]
fn key_files_that_the_own_group_can_read_are_what_kubernetes_makes() {
    let desk = Desk::new();
    desk.write("key", SECRET, 0o440);
    assert_eq!(desk.read(&desk.text("")).unwrap().config.warnings, [""; 0]);
}

#[test]
fn pairs_that_look_like_a_mistake_are_warned_of() {
    let desk = Desk::new();
    let folder = desk.folder.path().display();
    let text = format!(
        "upstream.account = \"acct-1\"\n\
         upstream.keys = [{{ key_id_file = \"{folder}/id\", api_key_file = \"{folder}/key\" }},\
         {{ key_id_file = \"{folder}/id2\", api_key_file = \"{folder}/key2\" }}]\n"
    );
    let warnings = || desk.read(&text).unwrap().config.warnings;
    assert_eq!(warnings(), [""; 0]);
    desk.write("id2", &format!("{SECRET}-id"), 0o600);
    desk.write("key2", &format!("{SECRET}-key"), 0o600);
    let told = warnings();
    assert!(
        told.len() == 1
            && told[0].starts_with("upstream.keys.1: it is the same pair as upstream.keys.0"),
        "{told:?}"
    );
    desk.write("id2", "API_KEY='planted'", 0o600);
    desk.write("key", &format!("{SECRET}-id"), 0o600);
    let told = warnings();
    assert_eq!(told.len(), 3, "{told:?}");
    for (line, begin) in told.iter().zip([
        "upstream.keys.0: both of its files hold the same",
        "upstream.keys.1: one of its files begins or ends with a quotation mark",
        "upstream.keys.1: one of its files holds a `=`",
    ]) {
        assert!(
            line.starts_with(begin) && !line.contains("planted"),
            "{line}"
        );
    }
}

#[test]
fn a_state_folder_that_others_may_write_to_warns_or_fails() {
    let desk = Desk::new();
    let state = desk.folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let with = |more: &str| {
        desk.text(&format!(
            "record.file.folder = \"{}\"\n{more}",
            state.display()
        ))
    };
    for (mode, is_told) in [
        (0o700, false),
        (0o755, false),
        (0o777, true),
        (0o2777, false),
        (0o1777, false),
        (0o2770, false),
        // Its group is ours.
        (0o770, false),
    ] {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        let warnings = desk.read(&with("")).unwrap().config.warnings;
        assert_eq!(
            warnings.len(),
            usize::from(is_told),
            "{mode:o}: {warnings:?}"
        );
        let strict = with("record.file.strict_permissions = true");
        assert_eq!(desk.read(&strict).is_ok(), !is_told, "{mode:o}");
        if let Some(told) = warnings.first() {
            let expected = format!(
                "record.file.folder: every user of this machine may write to {0} (mode 0777), and so remove the record and with it what \
                 was spent; chmod 0700 {0}",
                state.display()
            );
            assert_eq!(*told, expected);
            assert_eq!(
                desk.problems(&strict, &[]),
                [expected.replace(&desk.folder.path().display().to_string(), "DIR")]
            );
        }
    }
}

#[test]
fn the_environment_is_named_in_its_problems() {
    let desk = Desk::new();
    let table = [
        (
            "BEARERD_UPSTREAM__BASE_URL",
            "http://far.example",
            "BEARERD_UPSTREAM__BASE_URL: http:// would",
        ),
        (
            "BEARERD_UPSTREAM_BASE_URL",
            "x",
            "BEARERD_UPSTREAM_BASE_URL: there is no such setting; did you mean BEARERD_UPSTREAM__BASE_URL?",
        ),
        (
            "BEARERD_LOG",
            "debug",
            "BEARERD_LOG: there is no such setting; did you mean BEARERD_LOG__LEVEL?",
        ),
        (
            "BEARERD_BUDGET__LIMT",
            "1",
            "BEARERD_BUDGET__LIMT: there is no such setting; did you mean BEARERD_BUDGET__LIMIT?",
        ),
        (
            "BEARERD_UPSTREAM__WINDOW",
            "1m",
            "BEARERD_UPSTREAM__WINDOW: there is no such setting; did you mean BEARERD_BUDGET__WINDOW?",
        ),
        (
            "BEARERD_NONSENSE",
            "1",
            "BEARERD_NONSENSE: there is no such setting; the form is",
        ),
        (
            "BEARERD_UPSTREAM__API_KEY",
            SECRET,
            "BEARERD_UPSTREAM__API_KEY: keys come from files only",
        ),
        (
            "BEARERD_API_KEY",
            SECRET,
            "BEARERD_API_KEY: keys come from files only",
        ),
        (
            "BEARERD_5E0C2A7D93B14F6E8A2DPLANTED00001",
            "1",
            "BEARERD_(a name that is not shown): there is no such",
        ),
        (
            "BEARERD_UPSTREAM__KEYS__9__API_KEY_FILE",
            "/a",
            "upstream.keys: Truecaller gives",
        ),
        (
            "BEARERD_BUDGET__LIMIT",
            SECRET,
            "BEARERD_BUDGET__LIMIT: what is written (36 characters, not shown) is wrong",
        ),
        (
            "BEARERD_LOG__LEVEL",
            SECRET,
            "BEARERD_LOG__LEVEL: part 1 is neither",
        ),
        (
            "BEARERD_HTTP__LISTEN",
            SECRET,
            "BEARERD_HTTP__LISTEN: item 1 is no address",
        ),
    ];
    for (name, value, expected) in table {
        let problems = desk.problems(&desk.text(""), &[(name, value)]);
        assert_eq!(problems.len(), 1, "{name}: {problems:?}");
        assert!(problems[0].starts_with(expected), "{}", problems[0]);
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let desk = Desk::new();
    let text = "[upstream]\nbase_url = \"http://far.example\"\nnonsense = 1\n[budget]\nlimit = \"x\"\nwindow = \"1\"\n\
                [http]\nlisten = [\"0.0.0.0:1\"]\n[log]\nlevel = \"loud\"\n";
    let flags = vec![Flag::new("--log-format", "log.format", "xml")];
    let problems = read(&desk.sources(text, &[("BEARERD_CLOCK__SKEW", "x")], flags)).unwrap_err();
    let places: Vec<&str> = problems
        .0
        .iter()
        .map(|problem| problem.place.as_str())
        .collect();
    assert_eq!(
        places,
        [
            "budget.limit",
            "budget.window",
            "upstream.nonsense",
            "BEARERD_CLOCK__SKEW",
            "--log-format",
            "upstream.account",
            "upstream.keys",
            "upstream.base_url",
            "http.listen",
            "log.level"
        ]
    );
}

#[test]
fn broken_toml_is_placed_but_not_quoted() {
    let desk = Desk::new();
    let problems = desk.problems(
        &format!("[upstream]\naccount = \"ä\"\napi_key = {SECRET}\n"),
        &[("BEARERD_BUDGET__LIMIT", "x")],
    );
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("DIR/bearerd.toml:3:14: not TOML: "),
        "{}",
        problems[0]
    );
    assert!(problems[1].starts_with("BEARERD_BUDGET__LIMIT: "));
}

#[test]
fn a_short_lead_is_possible_and_told() {
    let desk = Desk::new();
    let config = desk
        .read(&desk.text("refresh.lead = \"20m\"\nrefresh.allow_short_lead = true"))
        .unwrap()
        .config;
    assert!(
        config.short_lead && config.warnings.len() == 1,
        "{:?}",
        config.warnings
    );
    assert_eq!(config.rules.lead, 20 * MINUTE);
    let config = desk
        .read(&desk.text("budget.limit = 11\nrecord.register = \"memory\""))
        .unwrap()
        .config;
    assert_eq!(
        (config.absent, config.register),
        (Absent::Forgetful, Register::Memory)
    );
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
}

#[test]
fn the_settings_in_force_can_be_written_into_a_file_again() {
    let desk = Desk::new();
    let more = "http.listen = [\"unix:/run/b.sock\", \"[::1]:7\"]\nbudget.window = \"25m\"\nlog.level = \"info,hyper=debug\"";
    let first = desk.read(&desk.text(more)).unwrap();
    let text = first.effective.to_text();
    assert!(!text.contains(SECRET), "{text}");
    let again = desk
        .read(&text)
        .unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    assert_eq!(format!("{:?}", first.config), format!("{:?}", again.config));
    assert!(text.contains("[[upstream.keys]]\nkey_id_file = "), "{text}");
    assert!(
        text.lines()
            .any(|line| line.starts_with("window = \"25m\"") && line.ends_with("# file")),
        "{text}"
    );
    assert!(text.contains("# account is unset"), "{text}");
    let keys = first.config.keys.read().unwrap();
    let fingerprint = keys.fingerprint_at(first.config.issuer.mint_url.as_str());
    assert!(
        text.contains(&format!("# key set: {fingerprint}")),
        "{text}"
    );
}

#[test]
fn the_sandbox_needs_no_account() {
    let flags = vec![
        Flag::new("--limit", "sandbox.limit", "3"),
        Flag::new("--account", "sandbox.account", "me"),
    ];
    let sandbox = read_sandbox(&Sources::flags_only(flags)).unwrap();
    assert_eq!(
        (sandbox.limit.get(), sandbox.account.as_deref()),
        (3, Some("me"))
    );
    assert_eq!(sandbox.over_budget_status, 429);
    let wrong = Sources::flags_only(vec![Flag::new("--limit", "sandbox.limit", "0")]);
    let problems = read_sandbox(&wrong).unwrap_err().to_string();
    assert!(
        problems.starts_with("--limit: \"0\" is wrong"),
        "{problems}"
    );
}

#[test]
fn the_admin_address_is_found_whatever_else_is_wrong() {
    let desk = Desk::new();
    let found = |toml: &str| admin_addresses(&desk.sources(toml, &[], Vec::new()));
    assert_eq!(
        found("nonsense = 1\nadmin.listen = [\"unix:/a\"]"),
        Some(vec!["unix:/a".parse().unwrap()])
    );
    assert_eq!(found(""), Some(vec!["localhost:7292".parse().unwrap()]));
    assert_eq!(found("admin.listen = 1"), None);
    assert_eq!(found("admin.listen = [\"x\"]"), None);
    assert_eq!(found("= nonsense"), None);
}

#[test]
fn the_table_is_sound() {
    let mut paths: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
    for key in KEYS {
        assert!(!key.help.is_empty() && !key.expected().is_empty());
        if let Fallback::Value(text) = key.fallback {
            value::Value::from_text(key, text).unwrap_or_else(|why| panic!("{}: {why}", key.path));
        }
        assert_eq!(
            keys::find(&key.path.replace(".0.", ".4.")).map(|found| found.path),
            Some(key.path)
        );
    }
    assert_eq!(
        keys::find("upstream.keys.0.key_id_file").unwrap().env(),
        "BEARERD_UPSTREAM__KEYS__0__KEY_ID_FILE"
    );
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), KEYS.len());
}

#[test]
fn a_peer_has_a_quarter_of_all_connections_and_no_more_than_a_thousand_or_so() {
    let desk = Desk::new();
    let peers = |toml: &str| {
        let bounds = desk.read(&desk.text(toml)).unwrap().config.bounds;
        (bounds.connections.get(), bounds.peer_connections.get())
    };
    assert_eq!(peers(""), (32_768, 1024));
    assert_eq!(peers("limits.connections = 100"), (100, 25));
    assert_eq!(peers("limits.connections = 1"), (1, 1));
    assert_eq!(peers("limits.peer_connections = 7"), (32_768, 7));
}

#[test]
fn callers_are_named_by_what_tells_who_they_are() {
    let desk = Desk::new();
    let text = "[callers.orders]\nuids = [1000, \"1001\"]\nmay = [\"vend\"]\nrate = 5\n\
        [callers.local]\nmay = []\nstreams = 2\n";
    let environment = [(
        "BEARERD_CALLERS__BILLING__SANS",
        "*.shop.svc, spiffe://prod/ns/shop/sa/billing",
    )];
    let callers = desk
        .read_with(&desk.text(text), &environment)
        .unwrap()
        .config
        .callers;
    let [billing, local, orders] = callers.as_slice() else {
        panic!("{callers:?}")
    };
    let names = [billing, local, orders].map(|it| it.name.as_str());
    assert_eq!(names, ["billing", "local", "orders"]);
    let shown: Vec<String> = billing.sans.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["*.shop.svc", "spiffe://prod/ns/shop/sa/billing"]);
    assert_eq!(
        (billing.may, billing.rate, billing.streams),
        (Rights::all(), None, None)
    );
    assert_eq!(
        (local.may, local.streams.unwrap().get()),
        (Rights::default(), 2)
    );
    assert_eq!(orders.uids, [1000, 1001]);
    assert_eq!(orders.may.words(), ["vend"]);
    assert_eq!(
        orders.rate.map(|it| (it.per_second.get(), it.burst.get())),
        Some((5, 5))
    );
}

#[test]
fn a_caller_that_is_not_right_is_told_how_to_mend_it() {
    let desk = Desk::new();
    let text = "[callers.nobody]\nmay = [\"vend\"]\n[callers.local]\ngids = [5]\n[callers.Big]\nuids = [1]\n\
        [callers.a]\nuids = [-1]\nsans = [\"*\"]\nmay = [\"mint\"]\nburst = 2\n";
    let problems = desk.problems(&desk.text(text), &[]);
    for begin in [
        "callers.nobody.uids: nothing says who it is; add one of these lines to [callers.nobody]: ",
        "callers.local.gids: local is whoever has no other name; ",
        "callers.Big: its name is not right; ",
        "callers.a.uids: item 1, \"-1\",: it is no number",
        "callers.a.sans: item 1, \"*\",: a * stands for one whole level",
        "callers.a.may: item 1, \"mint\",: it is none of vend, watch, report, verify",
        "callers.a.burst: it means nothing without callers.a.rate; ",
    ] {
        assert!(
            problems.iter().any(|line| line.starts_with(begin)),
            "{begin}\n{problems:?}"
        );
    }
    assert_eq!(problems.len(), 7, "{problems:?}");
}

#[test]
fn numbers_that_the_kernel_shows_of_every_unmapped_process_name_nobody() {
    let desk = Desk::new();
    let number = |kind| {
        let file = format!("/proc/sys/kernel/overflow{kind}");
        std::fs::read_to_string(file).map_or("65534".into(), |text| text.trim().to_owned())
    };
    let (uid, gid) = (number("uid"), number("gid"));
    for (text, begin) in [
        (
            format!("admin.uids = [0, {uid}]"),
            format!("admin.uids: item 2, \"{uid}\",: in a user namespace"),
        ),
        (
            format!("admin.gids = [{gid}]"),
            format!("admin.gids: item 1, \"{gid}\",: in a user namespace"),
        ),
        (
            format!("callers.a.uids = [{uid}]"),
            format!("callers.a.uids: item 1, \"{uid}\",: in a user namespace"),
        ),
        (
            format!("callers.a.gids = [7, {gid}]"),
            format!("callers.a.gids: item 2, \"{gid}\",: in a user namespace"),
        ),
        (
            "admin.uids = [4294967295]".into(),
            "admin.uids: item 1, \"4294967295\",: it means no user".into(),
        ),
        (
            "callers.a.gids = [4294967295]".into(),
            "callers.a.gids: item 1, \"4294967295\",: it means no group".into(),
        ),
    ] {
        let problems = desk.problems(&desk.text(&text), &[]);
        assert!(
            problems.len() == 1 && problems[0].starts_with(&begin),
            "{text}: {problems:?}"
        );
    }
    let variable = ("BEARERD_CALLERS__A__UIDS", uid.as_str());
    let problems = desk.problems(&desk.text(""), &[variable]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("run the process as a user of its own"),
        "{problems:?}"
    );
}

#[test]
fn nobody_is_two_callers() {
    let desk = Desk::new();
    let text = "[callers.a]\nuids = [1, 2, 2]\ngids = [1]\nsans = [\"*.shop.svc\", \"a.shop.svc\"]\n\
        [callers.b]\nuids = [3, 2]\ngids = [2]\nsans = [\"A.shop.svc\"]\n[callers.c]\nsans = [\"*.shop.svc\"]\n\
        [callers.operator]\nuids = [9]\n";
    let problems = desk.problems(&desk.text(text), &[]);
    for line in [
        "callers.b.uids: 2 is one of callers.a.uids already; name it once",
        "callers.b.sans: a.shop.svc is one of callers.a.sans already; name it once",
        "callers.c.sans: *.shop.svc is one of callers.a.sans already; name it once",
    ] {
        assert!(problems.iter().any(|it| it == line), "{line}\n{problems:?}");
    }
    let operator = "callers.operator: that is what the audit calls";
    assert!(problems.iter().any(|it| it.starts_with(operator)));
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn a_port_that_is_open_to_all_beside_callers_by_their_user_is_worth_a_warning() {
    let desk = Desk::new();
    let sockets =
        "[http]\nlisten = [\"unix:/run/h.sock\"]\n[grpc]\nlisten = [\"unix:/run/g.sock\"]\n";
    let some = "[http]\nlisten = [\"unix:/run/h.sock\"]\n";
    let named = "[callers.a]\nuids = [1]\n";
    let group = "[callers.a]\ngids = [1]\n";
    let certificate = "[callers.a]\nsans = [\"a\"]\n";
    for (text, paths) in [
        (named.to_owned(), &["http.listen", "grpc.listen"][..]),
        (group.to_owned(), &["http.listen", "grpc.listen"]),
        (format!("{some}{named}"), &["grpc.listen"]),
        (
            format!("{named}[callers.local]\nmay = [\"watch\"]\n"),
            &["http.listen", "grpc.listen"],
        ),
        (format!("{named}[callers.local]\nmay = [\"report\"]\n"), &[]),
        (format!("{named}[callers.local]\nmay = []\n"), &[]),
        (format!("{sockets}{named}"), &[]),
        (certificate.to_owned(), &[]),
        (String::new(), &[]),
    ] {
        let warnings = desk.read(&desk.text(&text)).unwrap().config.warnings;
        let about: Vec<&str> = warnings
            .iter()
            .map(|warning| warning.split_once(": ").unwrap().0)
            .collect();
        assert_eq!(about, paths, "{text}{warnings:?}");
        let mends = |warning: &String| {
            warning
                .contains("write may = [] under [callers.local], or listen on unix: sockets only")
        };
        assert!(warnings.iter().all(mends), "{warnings:?}");
    }
}

#[test]
fn the_audit_goes_where_the_settings_say() {
    let desk = Desk::new();
    let audit = |text: &str| desk.read(&desk.text(text)).unwrap().config.audit;
    assert_eq!(audit(""), audit::Settings::Log);
    assert_eq!(audit("[audit]\nenabled = false\n"), audit::Settings::Off);
    let folder = desk.folder.path().display();
    let file = audit(&format!("[audit]\nfile = \"{folder}/audit.jsonl\"\n"));
    let named = desk.folder.path().join("audit.jsonl");
    assert_eq!(file, audit::Settings::File(named.clone()));
    assert!(!named.exists(), "it is made at the start");
    for (text, problem) in [
        (
            "enabled = false\nfile = \"/x\"".to_owned(),
            "it means nothing with audit.enabled = false; leave one of them out",
        ),
        (
            "file = \"audit\"".to_owned(),
            "not a path; expected the path of a file, beginning with / or ./",
        ),
        (
            format!("file = \"{folder}/nowhere/audit.jsonl\""),
            "its folder is not there; make it, or name a file in another one",
        ),
        (
            format!("file = \"{folder}\""),
            "it is a folder; name a file in it",
        ),
    ] {
        let problems = desk.problems(&desk.text(&format!("[audit]\n{text}\n")), &[]);
        assert_eq!(problems, [format!("audit.file: {problem}")]);
    }
}

#[test]
fn other_machines_have_a_rate_where_one_is_written() {
    let desk = Desk::new();
    let peers = |text: &str| desk.read(&desk.text(text)).unwrap().config.peers;
    assert_eq!(peers(""), None);
    let rate = peers("[limits]\npeer_rate = 5\n").unwrap();
    assert_eq!((rate.per_second.get(), rate.burst.get()), (5, 5));
    let rate = peers("[limits]\npeer_rate = 5\npeer_burst = 50\n").unwrap();
    assert_eq!((rate.per_second.get(), rate.burst.get()), (5, 50));
    let problems = desk.problems(&desk.text("[limits]\npeer_burst = 50\n"), &[]);
    let problem =
        "limits.peer_burst: it means nothing without limits.peer_rate; add it, or leave this out";
    assert_eq!(problems, [problem]);
}

/// Lines of what people write, with a secret somewhere in it.
fn settings() -> impl Strategy<Value = String> {
    let known: Vec<&'static str> = KEYS.iter().map(|key| key.path).collect();
    let sections = [
        "[upstream]",
        "[[upstream.keys]]",
        "[budget]",
        "[upstream.keys]",
        "[log]",
    ];
    let name = prop_oneof![
        4 => proptest::sample::select(known).prop_map(str::to_owned),
        1 => Just("api_key".to_owned()),
        1 => Just(format!("\"{SECRET}\"")),
        1 => Just(format!("log.{SECRET}")),
        1 => "[a-z_]{1,10}",
    ];
    let value = prop_oneof![
        3 => Just(format!("\"{SECRET}\"")),
        1 => Just(format!("[\"{SECRET}\", 1]")),
        1 => Just(format!("{{ a = \"{SECRET}\" }}")),
        1 => Just(SECRET.to_owned()),
        1 => Just(format!("\"https://{SECRET}@x?{SECRET}\"")),
        1 => "[0-9a-z\"\\[\\]{}.=]{0,12}",
        1 => "-?[0-9]{1,20}",
        1 => "\"[0-9]{1,20}[a-z]{0,3}[0-9]{0,20}[a-z]{0,3}\"",
    ];
    let line = prop_oneof![
        5 => (name, value).prop_map(|(name, value)| format!("{name} = {value}")),
        1 => proptest::sample::select(sections.to_vec()).prop_map(str::to_owned),
        1 => Just(format!("# {SECRET}")),
        1 => "\\PC{0,30}",
    ];
    proptest::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

fn told(file: &Path, text: &str, environment: Vec<(OsString, OsString)>) -> String {
    fs::write(file, text).unwrap();
    match read(&Sources::new(
        Some(file.to_owned()),
        environment,
        Vec::new(),
    )) {
        Ok(reading) => reading.config.warnings.join("\n"),
        Err(problems) => {
            assert!(!problems.0.is_empty());
            assert!(
                problems
                    .0
                    .iter()
                    .all(|problem| !problem.to_string().contains('\n'))
            );
            problems.to_string()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_panics_or_echoes_a_secret(text in settings()) {
        let folder = tempfile::tempdir().unwrap();
        let told = told(&folder.path().join("b.toml"), &text, Vec::new());
        prop_assert!(!told.contains(SECRET), "{told}");
    }

    #[test]
    fn no_environment_panics_or_echoes_a_secret(
        key in 0..KEYS.len(),
        value in prop_oneof![Just(SECRET.to_owned()), Just(format!("/{SECRET}, x={SECRET}")), "\\PC{0,40}"],
        name in "BEARERD_[A-Z_0-9]{0,30}",
    ) {
        let folder = tempfile::tempdir().unwrap();
        let value = if KEYS[key].path.ends_with("_file") { value.trim_start_matches('/').to_owned() } else { value };
        let environment = [KEYS[key].env(), name].map(|name| (name.into(), value.clone().into()));
        let told = told(&folder.path().join("b.toml"), "", environment.into());
        prop_assert!(!told.contains(SECRET), "{told}");
    }
}
