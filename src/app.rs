//! The composition root: the only room that knows them all.
//!
//! [`App::bind`] makes everything and takes the addresses; [`App::run`] lives until it is told to stop.

mod apart;
mod doors;
mod pulse;
mod services;

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::issuer::KeyError;
use crate::issuer::truecaller::Truecaller;
use crate::keeper;
use crate::keeper::driver::{Driver, Parts};
use crate::lifecycle::notify::Manager;
use crate::lifecycle::{self, Ended, Stage};
use crate::listener::{self, Address, Bounds, Dates, Listener, Lost, Peers};
use crate::metrics;
use crate::record::edit::Editor;
use crate::record::file::{FileRegister, OpenError};
use crate::record::memory::MemoryRegister;
use crate::record::{self, Loaded, Register, RegisterError};
use crate::telemetry::FilterHandle;
use crate::tls;
use crate::vend::{Status, Vend};
use apart::apart;
use doors::Doors;
use pulse::Pulses;
use services::Services;

/// Files that callers' connections leave free: for the record, the issuer, the listeners and the log.
const OWN_FILES: usize = 48;

/// Connections that one admin listener may hold: more than operators need, so that a probe has time to ask before a flood of others
/// takes its place.
const OPERATORS: usize = 128;

/// A daemon that has its addresses and has not begun to serve.
pub struct App {
    driver: Driver,
    vend: Arc<Vend>,
    clock: Arc<dyn Clock>,
    manager: Option<Manager>,
    services: Services,
    doors: Doors,
    stages: [Stage; 3],
    deadline: std::time::Duration,
    bounds: config::Bounds,
    connections: listener::Metrics,
    lost: Lost,
    /// How many connections each of the callers' listeners may have.
    places: usize,
}

/// Why a daemon could not begin.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The state folder cannot be used.
    #[error("record.file.folder")]
    Folder(#[from] OpenError),
    /// The register does not serve, or holds what this version cannot read.
    #[error("record")]
    Register(#[from] RegisterError),
    /// The register belongs to somebody else.
    #[error("record: {0}")]
    OtherAccount(String),
    /// The keys cannot be read.
    #[error("upstream.keys")]
    Keys(#[from] KeyError),
    /// The client for the issuer cannot be made.
    #[error(
        "the HTTP client for the upstream cannot be made (are there certificate roots on this machine? the package is ca-certificates)"
    )]
    Client(#[from] rustls::Error),
    /// The audit's own file cannot be opened.
    #[error("audit.file: it cannot be opened for appending; name a file that can, or leave it out")]
    Audit(#[source] io::Error),
    /// The TLS files cannot be used.
    #[error("{}", source.file.setting())]
    Tls {
        /// What is wrong with which.
        #[from]
        source: tls::Problem,
    },
    /// An address cannot be taken.
    #[error("{path} ({flag})")]
    Listener {
        /// Which setting names it.
        path: &'static str,
        /// The flag that stands for the setting.
        flag: &'static str,
        /// Why.
        source: listener::BindError,
    },
    /// A name that should mean this machine leads to an address that others can reach.
    #[error(
        "{path}: {written} leads to {address}, which other machines can reach; write 127.0.0.1 or [::1]"
    )]
    Reachable {
        /// Which setting says so.
        path: &'static str,
        /// What the settings say.
        written: Address,
        /// Where it led.
        address: Address,
    },
}

impl BindError {
    /// True if the settings must change before another start can succeed.
    pub fn is_about_settings(&self) -> bool {
        matches!(
            self,
            Self::Folder(_)
                | Self::OtherAccount(_)
                | Self::Keys(_)
                | Self::Audit(_)
                | Self::Tls { .. }
                | Self::Reachable { .. }
                | Self::Listener {
                    source: listener::BindError::NotAMember { .. },
                    ..
                }
        ) || matches!(self, Self::Register(RegisterError::NewerFormat { .. }))
    }
}

impl App {
    /// Makes everything, checks the record, and takes the addresses. Nothing is minted and nothing is answered yet.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        Self::bind_with(config, Arc::new(SystemClock::new())).await
    }

    /// The same, going by another clock than the system's. The runtime's own timers are not its matter.
    pub async fn bind_with(config: Config, clock: Arc<dyn Clock>) -> Result<Self, BindError> {
        let register = open_register(&config.register)?;
        let loaded = load(register.as_ref(), &config.account).await?;
        let (vend, commands) = Vend::new(Status {
            account: config.account.clone(),
            ..Status::default()
        });
        let settings = keeper_settings(&config, clock.as_ref());
        let parts = Parts {
            settings,
            register,
            issuer: Arc::new(Truecaller::new(config.issuer.clone(), Arc::clone(&clock))?),
            loaded: Some(loaded),
            keys: config.keys.read()?,
            key_files: config.keys.clone(),
            mint_url: config.issuer.mint_url.to_string(),
            clock: Arc::clone(&clock),
            vend: Arc::clone(&vend),
            commands,
        };
        let registry = metrics::registry(Arc::clone(&clock));
        let stages = [Stage::new(), Stage::new(), Stage::new()];
        let driver = Driver::new(parts, &registry);
        let connections = listener::Metrics::register(&registry);
        let lost = Lost::register(&registry);
        let doors = Doors::open(&config, &clock, &registry).await?;
        let draining = stages[0].drain();
        let places = places(&config);
        let mut services = Services::new(
            &config,
            places,
            &vend,
            &clock,
            registry,
            (draining, lost.clone()),
        )?;
        if let Some(editor) = editor(&config)? {
            services.admin = services.admin.with_editor(editor);
        }
        Ok(Self {
            driver,
            vend,
            clock,
            manager: None,
            services,
            doors,
            stages,
            deadline: config.shutdown_deadline,
            bounds: config.bounds,
            connections,
            lost,
            places,
        })
    }

    /// Lets operators see these settings, which hold no secret, and change what this log shows.
    #[must_use]
    pub fn for_operators(mut self, settings: serde_json::Value, log: FilterHandle) -> Self {
        let admin = self.services.admin;
        self.services.admin = admin.with_settings(settings).with_log(log);
        self
    }

    /// Keeps a service manager told of how this process stands.
    #[must_use]
    pub fn under(mut self, manager: Option<Manager>) -> Self {
        self.manager = manager;
        self
    }

    /// Where tokens are vended over HTTP, with the ports that the system chose.
    pub fn http_addresses(&self) -> Vec<Address> {
        addresses(&self.doors.http)
    }

    /// Where tokens are vended over gRPC.
    pub fn grpc_addresses(&self) -> Vec<Address> {
        addresses(&self.doors.grpc)
    }

    /// Where operators are answered.
    pub fn admin_addresses(&self) -> Vec<Address> {
        addresses(&self.doors.admin)
    }

    /// What transports read; for who runs a daemon inside another program.
    pub fn vend(&self) -> Arc<Vend> {
        Arc::clone(&self.vend)
    }

    /// Serves until `stop`: then callers are answered to the end, an attempt under way is settled, and operators are answered last.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Ended> {
        let [mut callers, mut keeper, mut operators] = self.stages;
        let within = |transport, connections, peers| Bounds {
            patience: self.bounds.patience,
            connections,
            peers,
            counts: self.connections.on(transport),
            lost: self.lost.clone(),
        };
        let peers = Peers::at_most(self.bounds.peer_connections.get() as usize);
        let (doors, services) = (self.doors, self.services);
        let over_grpc = Spoken("gRPC", "grpc.listen", addresses(&doors.grpc));
        let over_http = Spoken("HTTP/1.1", "http.listen", addresses(&doors.http));
        let dates = Dates::new(Arc::clone(&self.clock));
        for listener in doors.http {
            let bounds = within("http", self.places, Some(peers.clone()));
            let listener = listener.within(bounds).dated(dates.clone());
            let listener = over_grpc.named_by(listener);
            info!(tls = listener.has_tls(), address = %listener.local_address(), "vending over HTTP");
            callers.spawn(
                "HTTP listener",
                services.api.clone().serve(listener, callers.drain()),
            );
        }
        for listener in doors.grpc {
            let bounds = within("grpc", self.places, Some(peers.clone()));
            let listener = listener.within(bounds).dated(dates.clone());
            let listener = over_http.named_by(listener);
            info!(tls = listener.has_tls(), address = %listener.local_address(), "vending over gRPC");
            callers.spawn(
                "gRPC listener",
                services.grpc.clone().serve(listener, callers.drain()),
            );
        }
        // Whatever the issuer, a resolver or a disk does to the keeper, callers are served meanwhile.
        let cut_off = CancellationToken::new();
        let _cut_off_when_dropped = cut_off.clone().drop_guard();
        // It begins no attempt once callers are drained, and ends once none is under way.
        let driver = self.driver.run(callers.drain(), keeper.drain());
        keeper.spawn("keeper", apart(driver, cut_off));
        if let Some(manager) = self.manager {
            let mut pulses = Pulses::new(Arc::clone(&self.vend), Arc::clone(&self.clock));
            operators.spawn(
                "service manager's news",
                manager.keep_told(callers.drain(), operators.drain(), move || pulses.take()),
            );
        }
        if let Some(credentials) = doors.credentials {
            operators.spawn("TLS files", credentials.keep(operators.drain()));
        }
        operators.spawn(
            "log filter",
            services.admin.clone().keep_log(operators.drain()),
        );
        for listener in doors.admin {
            let bounds = within("admin", OPERATORS, None);
            let listener = listener.within(bounds).dated(dates.clone());
            info!(tls = listener.has_tls(), address = %listener.local_address(), "answering operators");
            operators.spawn(
                "admin listener",
                services.admin.clone().serve(listener, operators.drain()),
            );
        }
        lifecycle::run([callers, keeper, operators], stop, self.deadline).await
    }
}

/// How many connections each of the callers' listeners may have. Each has a share of its own, so that whoever fills one leaves the
/// others as they are.
fn places(config: &Config) -> usize {
    let open_files = lifecycle::raise_open_files();
    let allowed = open_files.saturating_sub(OWN_FILES + config.admin.listen.len() * OPERATORS);
    let wanted = config.bounds.connections.get() as usize;
    let listeners = config.http.listen.len() + config.grpc.listen.len();
    (allowed.min(wanted) / listeners.max(1)).max(1)
}

fn keeper_settings(config: &Config, clock: &dyn Clock) -> keeper::Settings {
    keeper::Settings {
        account: config.account.clone(),
        rules: config.rules.clone(),
        absent: config.absent,
        holder: format!("{}-{:016x}", std::process::id(), fastrand::u64(..)),
        boot_id: clock.boot_id(),
        short_lead: config.short_lead,
    }
}

/// What changes the record for operators, on a register of its own: the keeper notices what is written there as it notices any
/// other process. One in memory cannot be shared.
fn editor(config: &Config) -> Result<Option<Editor>, OpenError> {
    if config.register == config::Register::Memory {
        return Ok(None);
    }
    let register = open_register(&config.register)?;
    let (account, rules) = (config.account.clone(), config.rules.clone());
    Ok(Some(Editor::new(register, account, rules)))
}

/// Opens the register that the settings name.
pub fn open_register(settings: &config::Register) -> Result<Arc<dyn Register>, OpenError> {
    Ok(match settings {
        config::Register::File { folder } => Arc::new(FileRegister::open(folder)?),
        config::Register::Memory => Arc::new(MemoryRegister::new()),
    })
}

/// A record of another account is never touched, unless it never held a token: then the keeper takes it over.
async fn load(register: &dyn Register, account: &str) -> Result<Loaded, BindError> {
    let loaded = register.load().await?;
    let found = loaded.found.as_ref().map(|(record, _)| record);
    match found.filter(|record| record.account != account) {
        Some(record) if record.adopted_by(account).is_none() => {
            let place = register.file().unwrap_or(Path::new(register.name()));
            let theirs = &record.account;
            Err(BindError::OtherAccount(record::of_another_account(
                place, theirs, account,
            )))
        }
        _ => Ok(loaded),
    }
}

/// A protocol, the setting that says where it is spoken, and those addresses.
struct Spoken(&'static str, &'static str, Vec<Address>);

impl Spoken {
    /// Lets a listener name them to callers that speak this protocol to it: ports on a port, and
    /// sockets on a socket, so that no web page reads paths.
    fn named_by(&self, listener: Listener) -> Listener {
        let Self(protocol, setting, addresses) = self;
        let is_unix = |it: &Address| matches!(it, Address::Unix(_));
        let here = is_unix(listener.local_address());
        let shown = addresses.iter().filter(|it| is_unix(it) == here);
        let shown: Vec<_> = shown.map(ToString::to_string).collect();
        let sentence = match &shown[..] {
            [] => format!("{setting} says where {protocol} is spoken"),
            shown => format!("{protocol} is spoken on {} ({setting})", shown.join(", ")),
        };
        listener.naming(&sentence)
    }
}

fn addresses(listeners: &[Listener]) -> Vec<Address> {
    let addresses = listeners.iter().map(Listener::local_address);
    addresses.cloned().collect()
}
