//! New certificates for engines whose own is half over.

use super::{
    authority::Authority,
    node::Identity,
    relay::{RenewRequest, RenewResponse},
};
use std::{
    future::{Ready, ready},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tonic::{Request, Response, Status, server::UnaryService};

/// Who signs, and for how long.
#[derive(Debug, Clone)]
pub struct Renewal {
    pub authority: Arc<Authority>,
    pub lifetime: Duration,
    pub now: fn() -> SystemTime,
}

/// One call, of the engine that its connection's certificate names.
#[derive(Debug)]
pub(super) struct Renew {
    pub(super) renewal: Renewal,
    pub(super) engine: Identity,
}

impl UnaryService<RenewRequest> for Renew {
    type Response = RenewResponse;
    type Future = Ready<Result<Response<RenewResponse>, Status>>;

    fn call(&mut self, request: Request<RenewRequest>) -> Self::Future {
        let Renewal { authority, lifetime, now } = &self.renewal;
        let RenewRequest { request } = request.into_inner();
        let signed = authority.sign_engine(&self.engine, &request, *lifetime, now());
        ready(match signed {
            Ok(certificate) => {
                tracing::info!(engine = %self.engine.engine, "A certificate was renewed");
                let authorities = authority.certificate_pem().to_owned();
                Ok(Response::new(RenewResponse { certificate, authorities }))
            }
            Err(error) => {
                tracing::warn!(engine = %self.engine.engine, %error, "A certificate could not be renewed");
                Err(Status::invalid_argument("the request cannot be signed"))
            }
        })
    }
}
