//! What a stream of the control plane ends at: an Envoy itself, or something
//! that stands between and speaks for it.

use crate::envoy::Envoy;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use std::time::Instant;
use tidegate::{server::frame::Response, xds::Name};

/// A client of the control plane, with an Envoy somewhere behind it.
pub(crate) trait Hop {
    fn connected(&mut self, now: Instant);
    fn disconnected(&mut self);
    /// A response arrives.
    fn take(&mut self, response: Response, now: Instant);
    /// Time passes; names of clusters whose endpoints did not come in time.
    fn on_time(&mut self, now: Instant) -> Vec<Name>;
    /// What it says upward.
    fn requests(&mut self) -> Vec<DeltaDiscoveryRequest>;
    fn envoy(&self) -> &Envoy;
    fn envoy_mut(&mut self) -> &mut Envoy;
    /// Its Envoy becomes another process.
    fn restart(&mut self, now: Instant);
    /// What stands between becomes another process.
    fn crash(&mut self, now: Instant);
    /// It ends its stream by itself.
    fn hangs_up(&mut self) -> bool {
        false
    }
    /// What is open below it, for who reads why it does not come to rest.
    fn below(&self) -> String {
        String::new()
    }
    /// Whether what its Envoy said has reached it.
    fn settled(&self) -> bool {
        true
    }
}

/// A stock Envoy that connects straight to the control plane.
pub(crate) struct Direct(pub(crate) Envoy);

impl Hop for Direct {
    fn connected(&mut self, _: Instant) {
        self.0.connected();
    }

    fn disconnected(&mut self) {
        self.0.disconnected();
    }

    fn take(&mut self, response: Response, now: Instant) {
        self.0.take(response, now);
    }

    fn on_time(&mut self, now: Instant) -> Vec<Name> {
        self.0.on_time(now)
    }

    fn requests(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.0.requests().collect()
    }

    fn envoy(&self) -> &Envoy {
        &self.0
    }

    fn envoy_mut(&mut self) -> &mut Envoy {
        &mut self.0
    }

    fn restart(&mut self, _: Instant) {
        self.0.restart();
    }

    fn crash(&mut self, now: Instant) {
        self.restart(now);
    }
}
