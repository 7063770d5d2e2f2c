//! A corner of a product that tests share: a namespace, a class and so a VIP that
//! nobody else has.

use super::{Answer, HTTP, HTTPS, Ingress, Live, Request, Service, client, manifest::class};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

pub struct Tenant {
    pub live: Arc<Live>,
    /// Of its namespace, its class, its setting and its hosts' domain.
    pub name: String,
}

impl Tenant {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with(name, &json!({}))
    }

    /// With these fields of its InfraSetting.
    #[must_use]
    pub fn with(name: &str, setting: &Value) -> Self {
        let tenant = Self { live: Live::shared(), name: name.to_owned() };
        tenant.apply("class", &class(name, setting));
        tenant
    }

    pub fn apply(&self, file: &str, objects: &[Value]) {
        self.live.apply(&format!("{}-{file}", self.name), objects);
    }

    pub fn delete(&self, file: &str) {
        self.live.delete(&format!("{}-{file}", self.name));
    }

    /// A Service with one ready backend, applied.
    #[must_use]
    pub fn service(&self, name: &str) -> Service {
        let service = Service::new(&self.name, name);
        self.apply_service(&service);
        service
    }

    pub fn apply_service(&self, service: &Service) {
        self.apply(&format!("service-{}-{}", service.namespace, service.name), &service.manifests());
    }

    /// An Ingress of its namespace and class, yet without rules.
    #[must_use]
    pub fn ingress(&self, name: &str) -> Ingress {
        Ingress::new(&self.name, name, &self.name)
    }

    #[must_use]
    pub fn key(&self, ingress: &str) -> String {
        format!("Ingress/{}/{ingress}", self.name)
    }

    /// Applies an Ingress and waits until engines serve it; gives its VIP.
    #[track_caller]
    pub fn serve(&self, name: &str, ingress: Ingress) -> IpAddr {
        self.apply(name, &[ingress.into()]);
        self.live.programmed(&self.key(name))
    }

    /// A host below its own domain.
    #[must_use]
    pub fn host(&self, label: &str) -> String {
        format!("{label}.{}.test", self.name)
    }
}

/// The ports of a VIP.
#[must_use]
pub fn http(vip: IpAddr) -> SocketAddr {
    SocketAddr::new(vip, HTTP)
}

#[must_use]
pub fn https(vip: IpAddr) -> SocketAddr {
    SocketAddr::new(vip, HTTPS)
}

/// One plain request that must be answered.
#[must_use]
#[track_caller]
pub fn get(vip: IpAddr, host: &str, path: &str) -> Answer {
    client::must(http(vip), &Request::get(host, path))
}
