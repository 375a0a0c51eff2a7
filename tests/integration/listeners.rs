//! The table of listeners in `deploy/access.md` is true: every cell of it is tried with the real daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Scale, World};
use crate::readme::document;
use crate::terminal::{Process, bearerd, run};
use crate::tls::caller::{connect, side};
use crate::tls::certificates::{Authority, Pair, caller, server};

/// A section, what protects it, and what happens at each kind of address.
struct Row {
    sections: Vec<String>,
    protection: Vec<String>,
    cells: [Cell; 3],
}

#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Starts(Speaks),
    /// The settings that the refusal names.
    Refused(BTreeSet<String>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Speaks {
    Plain,
    Tls,
    TlsWithCertificates,
}

/// As the table's columns: loopback, an address that other machines can reach, and a Unix socket.
const ADDRESSES: [&str; 3] = ["127.0.0.1:0", "0.0.0.0:0", "unix:FOLDER/tried.sock"];

fn table() -> Vec<Row> {
    let text = document("deploy/access.md");
    let table = text.split("<!-- listeners -->\n").nth(1).unwrap();
    let table = table.split("<!-- /listeners -->").next().unwrap();
    table.lines().skip(2).map(row).collect()
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    let [sections, protection, loopback, outward, unix] = cells[..] else {
        panic!("not five cells: {line}")
    };
    let list = |text: &str| {
        text.split(", ")
            .map(|it| it.trim_matches('`').to_owned())
            .collect()
    };
    Row {
        sections: list(sections),
        protection: list(protection),
        cells: [loopback, outward, unix].map(cell),
    }
}

fn cell(text: &str) -> Cell {
    match text {
        "plain" => Cell::Starts(Speaks::Plain),
        "TLS" => Cell::Starts(Speaks::Tls),
        "TLS+" => Cell::Starts(Speaks::TlsWithCertificates),
        _ => {
            let names = text
                .strip_prefix("refused: ")
                .unwrap_or_else(|| panic!("{text}"));
            let names = names.split(", ").map(|it| it.trim_matches('`').to_owned());
            Cell::Refused(names.collect())
        }
    }
}

/// Settings by section, so that lines can be added to them.
#[derive(Clone)]
struct Written(BTreeMap<String, BTreeMap<String, String>>);

impl Written {
    /// A daemon's settings in which `section` listens at `address`.
    fn new(world: &World, section: &str, address: &str) -> Self {
        let mut written = Self(BTreeMap::new());
        let quiet = ["http", "grpc", "admin"].map(|it| (it, format!("unix:FOLDER/{it}.sock")));
        for (other, socket) in quiet {
            let listen = if other == section { address } else { &socket };
            written.set(other, "listen", &format!("[{listen:?}]"));
        }
        let file = |name: &str| format!("{:?}", world.path(name));
        written.set("upstream", "account", "\"tables\"");
        written.set(
            "upstream",
            "base_url",
            &format!("{:?}", world.sandbox.base_url()),
        );
        written.set("upstream.keys.0", "key_id_file", &file("key_id_0"));
        written.set("upstream.keys.0", "api_key_file", &file("api_key_0"));
        written.set("record", "register", "\"memory\"");
        written
    }

    fn set(&mut self, section: &str, key: &str, value: &str) {
        let section = self.0.entry(section.to_owned()).or_default();
        section.insert(key.to_owned(), value.to_owned());
    }

    fn protect(&mut self, section: &str, word: &str) {
        match word {
            "nothing" => {}
            "certificate" => {
                self.set("tls", "certificate_file", "\"FOLDER/tls.crt\"");
                self.set("tls", "key_file", "\"FOLDER/tls.key\"");
            }
            "client CA" => self.set("tls", "client_ca_file", "\"FOLDER/ca.crt\""),
            "rule" => self.set("callers.billing", "sans", "[\"billing.shop.svc\"]"),
            _ => {
                let (key, value) = word.split_once(" = ").unwrap_or_else(|| panic!("{word}"));
                self.set(section, key, value);
            }
        }
    }

    /// Adds the lines that a message shows, and gives the settings that they are.
    fn mend(&mut self, message: &str) -> BTreeSet<String> {
        let mut section = String::new();
        let mut named = BTreeSet::new();
        for line in message.split('`').skip(1).step_by(2) {
            if let Some((key, value)) = line.split_once(" = ") {
                let value = value.replace("/etc/bearerd/tls/", "FOLDER/");
                self.set(&section, key, &value);
                named.insert(format!("{section}.{key}"));
            } else {
                section = line.trim_matches(['[', ']']).to_owned();
            }
        }
        named
    }

    fn write(&self, world: &World) -> String {
        let folder = world.path("");
        let folder = folder.to_str().unwrap().trim_end_matches('/');
        let mut text = String::new();
        for (section, lines) in &self.0 {
            let head = match section.as_str() {
                "upstream.keys.0" => "[[upstream.keys]]".to_owned(),
                section => format!("[{section}]"),
            };
            text.push_str(&format!("{head}\n"));
            for (key, value) in lines {
                text.push_str(&format!("{key} = {}\n", value.replace("FOLDER", folder)));
            }
        }
        let file = world.write("tables.toml", &text);
        file.to_str().unwrap().to_owned()
    }
}

/// A place with files, and the two sides of a certificate.
struct Desk {
    world: World,
    authority: Authority,
    pair: Pair,
}

impl Desk {
    async fn new() -> Self {
        let world = World::new(Scale::still()).await;
        let authority = Authority::new("tables");
        let own = authority.issue(&server());
        world.write("tls.crt", &own.certificate);
        world.write("tls.key", &own.key);
        world.write("ca.crt", &authority.certificate);
        let pair = authority.issue(&caller(&["billing.shop.svc"], &[]));
        Self {
            world,
            authority,
            pair,
        }
    }

    /// How the section's listener speaks, or every line of the refusal.
    async fn tried(&self, section: &str, written: &Written) -> Result<Speaks, String> {
        let file = written.write(&self.world);
        let check = run(&["check", "--config", &file], &[]);
        if check.code != Some(0) {
            let serve = run(&["serve", "--config", &file], &[]);
            assert_eq!((check.code, serve.code), (Some(78), Some(78)));
            assert_eq!(check.err, serve.err);
            return Err(check.err);
        }
        let mut process = Process::start(bearerd(&["serve", "--config", &file], &[]));
        let message = match section {
            "http" => "vending over HTTP",
            "grpc" => "vending over gRPC",
            _ => "answering operators",
        };
        process.until("operators are answered", |it| {
            it.err().contains("answering operators").then_some(())
        });
        let said = process.err();
        let line = said.lines().find(|line| line.contains(message)).unwrap();
        let (_, address) = line.split_once("address=").unwrap();
        let speaks = match address.strip_prefix("0.0.0.0").unwrap_or(address) {
            unix if unix.starts_with("unix:") => Speaks::Plain,
            port if port.starts_with(':') => {
                self.spoken(&format!("127.0.0.1{port}"), section).await
            }
            address => self.spoken(address, section).await,
        };
        assert_eq!(line.contains("tls=true"), speaks != Speaks::Plain, "{line}");
        process.signal(Signal::TERM);
        let said = process.end();
        self.world.captured.add("serve", &said.err);
        assert_eq!(said.code, Some(0), "{}", said.err);
        Ok(speaks)
    }

    async fn spoken(&self, address: &str, section: &str) -> Speaks {
        let address: SocketAddr = address.parse().unwrap();
        let protocol = if section == "grpc" { "h2" } else { "http/1.1" };
        let authorities = [self.authority.certificate.as_str()];
        let mut answers = [false, false];
        for (answers, pair) in answers.iter_mut().zip([None, Some(&self.pair)]) {
            let side = side(&authorities, pair, protocol);
            if let Ok(stream) = connect(address, &side).await {
                *answers = begins(stream, section).await;
            }
        }
        let plain = begins(TcpStream::connect(address).await.unwrap(), section).await;
        match (plain, answers) {
            (true, [false, false]) => Speaks::Plain,
            (false, [true, true]) => Speaks::Tls,
            (false, [false, true]) => Speaks::TlsWithCertificates,
            other => panic!("{section} answers to {other:?}"),
        }
    }
}

/// True if the section's protocol is spoken on a connection.
async fn begins<S>(mut stream: S, section: &str) -> bool
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let asked: &[u8] = match section {
        "grpc" => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        _ => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    };
    if stream.write_all(asked).await.is_err() {
        return false;
    }
    let mut read = [0; 12];
    if stream.read_exact(&mut read).await.is_err() {
        return false;
    }
    match section {
        // Both sides of HTTP/2 begin with settings; those before a GOAWAY are empty.
        "grpc" => read[3] == 4 && read[..3] != [0, 0, 0],
        _ => read.starts_with(b"HTTP/1.1 ") && !read.ends_with(b"400"),
    }
}

// The sandbox goes on while a command is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_listener_starts_or_is_refused_as_the_table_says() {
    let desk = Desk::new().await;
    let mut tried = 0;
    for row in table() {
        for section in &row.sections {
            for (address, cell) in ADDRESSES.iter().zip(&row.cells) {
                let what = format!("{section} at {address} with {:?}", row.protection);
                let mut written = Written::new(&desk.world, section, address);
                for word in &row.protection {
                    written.protect(section, word);
                }
                let found = desk.tried(section, &written).await;
                match (cell, found) {
                    (Cell::Starts(expected), found) => {
                        assert_eq!(found.as_ref(), Ok(expected), "{what}");
                    }
                    (Cell::Refused(_), Ok(speaks)) => {
                        panic!("{what}: it starts, and speaks {speaks:?}")
                    }
                    (Cell::Refused(expected), Err(message)) => {
                        let expected = expected.iter().map(|it| it.replace('*', section)).collect();
                        assert_eq!(written.mend(&message), expected, "{what}: {message}");
                        let mended = desk.tried(section, &written).await;
                        assert!(mended.is_ok(), "{what}, mended: {mended:?}");
                    }
                }
                tried += 1;
            }
        }
    }
    assert!(tried >= 90, "the table has lost its rows: {tried}");
    desk.world.finish();
}
