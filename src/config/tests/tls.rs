use super::*;

use crate::tls::testing::{Authority, Pair, server};

impl Desk {
    /// Files that can be used: `crt`, `key` (as `tlskey`) and `ca`.
    fn with_tls() -> (Self, Pair) {
        let desk = Self::new();
        let authority = Authority::new("tests");
        let pair = authority.issue(&server());
        desk.write("crt", &pair.certificate, 0o644);
        desk.write("tlskey", &pair.key, 0o600);
        desk.write("ca", &authority.certificate, 0o644);
        (desk, pair)
    }

    /// Lines with DIR for the folder.
    fn lines(&self, lines: &str) -> String {
        self.text(&lines.replace("DIR", &self.folder.path().display().to_string()))
    }

    fn told(&self, lines: &str) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        let told = self.problems(&self.lines(lines), &[]);
        told.iter().map(|it| it.replace(&folder, "DIR")).collect()
    }

    fn warned(&self, lines: &str) -> Vec<String> {
        self.read(&self.lines(lines)).unwrap().config.warnings
    }
}

const PAIR: &str = "tls.certificate_file = \"DIR/crt\"\ntls.key_file = \"DIR/tlskey\"\n";
const CA: &str = "tls.client_ca_file = \"DIR/ca\"\n";
const RULE: &str = "callers.orders.sans = [\"orders.shop.svc\"]\n";
const OUTWARD: &str = "http.listen = [\"0.0.0.0:7290\"]\n";

#[test]
fn an_address_that_others_reach_says_which_lines_protect_it() {
    let (desk, _) = Desk::with_tls();
    assert_eq!(
        desk.told(&format!(
            "{OUTWARD}grpc.listen = [\"[::]:7291\"]\n{PAIR}grpc.tls = \"never\""
        )),
        [
            "http.listen: 0.0.0.0:7290 can be reached from other machines, so it needs TLS and a rule for callers; add under `[tls]` \
             `client_ca_file = \"/etc/bearerd/tls/ca.crt\"` and `[callers.orders]`, `sans = [\"orders.shop.svc\"]`; or listen on 127.0.0.1:7290, \
             [::1]:7290 or unix:/run/bearerd/http.sock",
            "grpc.listen: [::]:7291 can be reached from other machines, so it needs TLS and a rule for callers; add under `[grpc]` \
             `tls = \"outward\"` and under `[tls]` `client_ca_file = \"/etc/bearerd/tls/ca.crt\"` and `[callers.orders]`, `sans = \
             [\"orders.shop.svc\"]`; or listen on 127.0.0.1:7291, [::1]:7291 or unix:/run/bearerd/grpc.sock",
        ]
    );
    let good = desk
        .read(&desk.lines(&format!("{OUTWARD}{PAIR}{CA}{RULE}")))
        .unwrap();
    assert!(good.config.tls.is_some_and(|it| it.client_ca.is_some()));
}

#[test]
fn files_that_belong_together_come_together() {
    let (desk, _) = Desk::with_tls();
    let (certificate, key) = PAIR.split_once('\n').unwrap();
    assert_eq!(
        desk.told(certificate),
        [
            "tls.key_file: it is missing, and tls.certificate_file is there; a certificate and its key come together"
        ]
    );
    assert_eq!(
        desk.told(key),
        [
            "tls.certificate_file: it is missing, and tls.key_file is there; a certificate and its key come together"
        ]
    );
    assert_eq!(
        desk.told(CA),
        [
            "tls.client_ca_file: it means nothing without a certificate; add under `[tls]` `certificate_file = \
          \"/etc/bearerd/tls/tls.crt\"`, `key_file = \"/etc/bearerd/tls/tls.key\"`"
        ]
    );
}

#[test]
fn what_is_wrong_with_a_file_is_told_and_what_it_holds_is_not() {
    let (desk, pair) = Desk::with_tls();
    // What is named, though it cannot be used, is not said to be missing.
    let swapped = "tls.certificate_file = \"DIR/tlskey\"\ntls.key_file = \"DIR/crt\"\n";
    let told = desk.told(&format!("{OUTWARD}{swapped}{CA}{RULE}"));
    assert_eq!(
        told,
        [
            "tls.certificate_file: DIR/tlskey: no certificate is in it; expected PEM, beginning with -----BEGIN CERTIFICATE-----"
        ]
    );
    let key = pair.key.lines().nth(1).unwrap();
    let told = desk.told(&format!(
        "tls.key_file = {key:?}\ntls.certificate_file = \"DIR/crt\""
    ));
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("tls.key_file: not a path (it is not shown"),
        "{told:?}"
    );
}

#[test]
fn what_may_be_as_it_is_but_should_not_is_a_warning() {
    let (desk, _) = Desk::with_tls();
    assert_eq!(
        desk.warned(PAIR),
        [
            "tls: no listener uses the certificate; set `tls = \"always\"` under `[http]`, `[grpc]` or `[admin]`, or leave `[tls]` out"
        ]
    );
    assert_eq!(
        desk.warned(&format!("{OUTWARD}{PAIR}{CA}{RULE}")),
        [
            "http.hosts: it is empty, so callers from other machines are refused for their Host; add under `[http]` the name that they \
          use, such as `hosts = [\"bearerd.shop.svc\"]`"
        ]
    );
    desk.write(
        "tlskey",
        &fs::read_to_string(desk.folder.path().join("tlskey")).unwrap(),
        0o644,
    );
    let warned = desk.warned(&format!("{PAIR}http.tls = \"always\""));
    assert!(
        warned.len() == 1 && warned[0].contains("can be read by others than its owner (mode 0644)"),
        "{warned:?}"
    );
}

#[test]
fn a_key_with_a_password_is_told_as_such() {
    let (desk, _) = Desk::with_tls();
    for text in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIB\n-----END EC PRIVATE KEY-----\n",
    ] {
        desk.write("tlskey", text, 0o600);
        let told = desk.told(PAIR);
        assert_eq!(
            told,
            [
                "tls.key_file: DIR/tlskey: its private key has a password, which bearerd cannot ask for; write it without: `openssl pkey -in OLD -out NEW`, mode 0600"
            ]
        );
    }
}
