//! Which files make TLS, which listeners have it, and which must have it.

use std::path::PathBuf;
use std::sync::Arc;

use super::super::problems::one_line;
use super::super::raw::Written;
use super::super::{Admin, Grpc, Http, Secured};
use super::permissions::wide_mode;
use crate::caller::rule::Named;
use crate::clock::{Clock, SystemClock};
use crate::listener::Address;
use crate::tls::Files;

const CERTIFICATE: &str = "tls.certificate_file";
const KEY: &str = "tls.key_file";
const CLIENT_CA: &str = "tls.client_ca_file";

/// The lines of TOML that make TLS, and a rule for callers.
const CERTIFICATE_LINES: &str =
    r#"`certificate_file = "/etc/bearerd/tls/tls.crt"`, `key_file = "/etc/bearerd/tls/tls.key"`"#;
const CLIENT_CA_LINE: &str = r#"`client_ca_file = "/etc/bearerd/tls/ca.crt"`"#;
const CALLER_LINES: &str = r#"`[callers.orders]`, `sans = ["orders.shop.svc"]`"#;

/// The files, if they are named and can be used now; `None` too where a problem was told.
pub(super) fn files(written: &mut Written, warnings: &mut Vec<String>) -> Option<Files> {
    let [certificate, key, client_ca] =
        [CERTIFICATE, KEY, CLIENT_CA].map(|path| file_path(written, path));
    together(written);
    let files = Files {
        certificate: certificate?,
        key: key?,
        client_ca,
    };
    if written.has_failed(CLIENT_CA) {
        return None;
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    if let Err(problem) = files.check(&clock) {
        written.problem(problem.file.setting(), problem.to_string());
        return None;
    }
    if let Some(mode) = wide_mode(&files.key) {
        warnings.push(one_line(&format!(
            "{KEY}: {} can be read by others than its owner (mode {mode:04o}); chmod 600, or mount the Secret with defaultMode 0400",
            files.key.display()
        )));
    }
    Some(files)
}

/// A certificate and its key come together, and authorities only beside them.
fn together(written: &mut Written) {
    let named =
        |written: &Written, path: &str| written.is_written(path) || written.has_failed(path);
    for (path, other) in [(CERTIFICATE, KEY), (KEY, CERTIFICATE)] {
        if named(written, path) && !named(written, other) {
            let text = format!(
                "it is missing, and {path} is there; a certificate and its key come together"
            );
            written.problem(other, text);
        }
    }
    if named(written, CLIENT_CA) && !named(written, CERTIFICATE) && !named(written, KEY) {
        let text = format!(
            "it means nothing without a certificate; add under `[tls]` {CERTIFICATE_LINES}"
        );
        written.problem(CLIENT_CA, text);
    }
}

/// Only what can be nothing but a path is ever repeated.
fn file_path(written: &mut Written, path: &str) -> Option<PathBuf> {
    let text = written.text(path)?;
    if ["/", "./", "../"]
        .iter()
        .any(|start| text.starts_with(start))
    {
        return Some(PathBuf::from(text));
    }
    if !written.has_failed(path) {
        let text = "not a path (it is not shown, in case it is what the file should hold); expected the path of a file, beginning with / \
                    or ./";
        written.problem(path, text);
    }
    None
}

/// Everything that listens.
pub(super) struct Doors<'a> {
    pub(super) http: &'a Http,
    pub(super) grpc: Option<&'a Grpc>,
    pub(super) admin: Option<&'a Admin>,
}

/// What one section says about its addresses.
struct Section<'a> {
    name: &'static str,
    port: u16,
    listen: &'a [Address],
    tls: Secured,
    /// The names in `Host`, where callers need one.
    hosts: Option<&'a [String]>,
}

impl Doors<'_> {
    /// Whoever gets the token from another machine has a certificate that a rule knows.
    pub(super) fn check(
        &self,
        written: &mut Written,
        callers: &[Named],
        warnings: &mut Vec<String>,
    ) {
        let sections = self.sections();
        for section in &sections {
            match section.hosts {
                Some(hosts) => section.protected(written, callers, hosts, warnings),
                None => section.certified(written),
            }
        }
        let used = sections
            .iter()
            .any(|it| it.listen.iter().any(|address| it.tls.covers(address)));
        if written.is_written(CERTIFICATE) && !used {
            warnings.push(
                "tls: no listener uses the certificate; set `tls = \"always\"` under `[http]`, `[grpc]` or `[admin]`, or leave `[tls]` out"
                    .to_owned(),
            );
        }
    }

    fn sections(&self) -> Vec<Section<'_>> {
        let http = Section {
            name: "http",
            port: 7290,
            listen: &self.http.listen,
            tls: self.http.tls,
            hosts: Some(&self.http.hosts),
        };
        let grpc = self.grpc.map(|it| Section {
            name: "grpc",
            port: 7291,
            listen: &it.listen,
            tls: it.tls,
            hosts: Some(&it.hosts),
        });
        let admin = self.admin.map(|it| Section {
            name: "admin",
            port: 7292,
            listen: &it.listen,
            tls: it.tls,
            hosts: None,
        });
        [Some(http), grpc, admin].into_iter().flatten().collect()
    }
}

impl Section<'_> {
    /// An address of this section that other machines can reach has TLS, with a certificate from each caller and a rule for it.
    fn protected(
        &self,
        written: &mut Written,
        callers: &[Named],
        hosts: &[String],
        warnings: &mut Vec<String>,
    ) {
        let outward = self.listen.iter().filter(|address| !address.is_local());
        let outward: Vec<&Address> = outward.collect();
        if outward.is_empty() {
            return self.certified_if_always(written);
        }
        let missing = self.missing(written, callers);
        for address in &outward {
            if missing.is_empty() {
                continue;
            }
            let (name, port) = (self.name, self.port);
            let text = format!(
                "{address} can be reached from other machines, so it needs TLS and a rule for callers; add {}; or listen on \
                 127.0.0.1:{port}, [::1]:{port} or unix:/run/bearerd/{name}.sock",
                missing.join(" and ")
            );
            written.problem(&format!("{name}.listen"), text);
        }
        if missing.is_empty() && hosts.is_empty() {
            let name = self.name;
            warnings.push(format!(
                "{name}.hosts: it is empty, so callers from other machines are refused for their {}; add under `[{name}]` the name that \
                 they use, such as `hosts = [\"bearerd.shop.svc\"]`",
                if name == "grpc" { ":authority" } else { "Host" }
            ));
        }
    }

    /// What has to be added, section by section, as it would be written.
    fn missing(&self, written: &Written, callers: &[Named]) -> Vec<String> {
        let named = |path| written.is_written(path) || written.has_failed(path);
        let mut missing = Vec::new();
        if self.tls == Secured::Never {
            missing.push(format!("under `[{}]` `tls = \"outward\"`", self.name));
        }
        match (named(CERTIFICATE) || named(KEY), named(CLIENT_CA)) {
            (false, false) => {
                missing.push(format!(
                    "under `[tls]` {CERTIFICATE_LINES}, {CLIENT_CA_LINE}"
                ));
            }
            (true, false) => missing.push(format!("under `[tls]` {CLIENT_CA_LINE}")),
            (false, true) => missing.push(format!("under `[tls]` {CERTIFICATE_LINES}")),
            (true, true) => {}
        }
        let ruled = callers.iter().any(|caller| !caller.sans.is_empty());
        // A rule that could not be read has its own problem.
        let failed = |name: &String| written.has_failed(&format!("callers.{name}.sans"));
        if !ruled && !written.caller_names().iter().any(failed) {
            missing.push(CALLER_LINES.to_owned());
        }
        missing
    }

    /// Operators need no certificate, and their addresses need no TLS: where they have it, there is one to show.
    fn certified(&self, written: &mut Written) {
        self.certified_if_always(written);
        let outward = self.listen.iter().any(|address| !address.is_local());
        if self.tls == Secured::Outward && outward {
            self.certified_by(written, "outward");
        }
    }

    fn certified_if_always(&self, written: &mut Written) {
        if self.tls == Secured::Always {
            self.certified_by(written, "always");
        }
    }

    fn certified_by(&self, written: &mut Written, word: &str) {
        let named = |path| written.is_written(path) || written.has_failed(path);
        if named(CERTIFICATE) || named(KEY) {
            return;
        }
        let text = format!("{word:?} needs a certificate; add under `[tls]` {CERTIFICATE_LINES}");
        written.problem(&format!("{}.tls", self.name), text);
    }
}
