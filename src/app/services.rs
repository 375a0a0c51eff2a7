//! What answers callers and operators, each by its own part of the settings.

use std::num::NonZeroU32;
use std::sync::Arc;

use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::api;
use crate::api::grpc::{self, Grpc};
use crate::api::http::{self, Api};
use crate::caller::{self, Callers};
use crate::clock::Clock;
use crate::config::Config;
use crate::listener::Lost;
use crate::vend::Vend;

use super::BindError;

/// What stands behind the doors.
pub(super) struct Services {
    pub(super) api: Api,
    pub(super) grpc: Grpc,
    pub(super) admin: Admin,
}

impl Services {
    /// Makes them all, and opens the audit's file. Each of the callers' listeners has so many places; `draining` is the process's drain, and
    /// `lost` the sockets that nobody finds.
    pub(super) fn new(
        config: &Config,
        places: usize,
        vend: &Arc<Vend>,
        clock: &Arc<dyn Clock>,
        registry: Registry,
        (draining, lost): (CancellationToken, Lost),
    ) -> Result<Self, BindError> {
        let callers = callers(config, places, clock, &registry)?;
        let metrics = api::Metrics::register(&registry);
        let http = http::Settings {
            hosts: config.http.hosts.clone(),
        };
        let grpc = grpc::Settings {
            hosts: config.grpc.hosts.clone(),
            streams: config.grpc.streams.get(),
            keepalive: config.grpc.keepalive,
        };
        let admin = admin::Settings {
            hosts: config.admin.hosts.clone(),
            uids: config.admin.uids.clone(),
            gids: config.admin.gids.clone(),
            startup_grace: config.admin.startup_grace,
        };
        let shared = || (Arc::clone(vend), Arc::clone(clock));
        let api = {
            let (vend, clock) = shared();
            Api::new(&http, vend, clock, &metrics, &callers)
        };
        let grpc = {
            let (vend, clock) = shared();
            Grpc::new(&grpc, vend, clock, &metrics, &callers)
        };
        let (vend, clock) = shared();
        let admin = Admin::new(&admin, vend, clock, registry, callers, draining).watching(lost);
        Ok(Self { api, grpc, admin })
    }
}

/// Who cannot be told apart shares out what is left of a listener's places when three quarters of them wait: somebody who waits on all
/// of them would keep the others from asking, and nobody who waits is ended to make room.
fn callers(
    config: &Config,
    places: usize,
    clock: &Arc<dyn Clock>,
    registry: &Registry,
) -> Result<Arc<Callers>, BindError> {
    let settings = caller::Settings {
        named: config.callers.clone(),
        unnamed_streams: NonZeroU32::new(u32::try_from(places / 4 * 3).unwrap_or(u32::MAX)),
        peers: config.peers,
        audit: config.audit.clone(),
    };
    Callers::new(&settings, Arc::clone(clock), registry).map_err(BindError::Audit)
}
