//! The control plane under test, and a stock Envoy beside it.

use crate::stock_envoy::{self, Envoy, Extra, eventually, get, get_over};
use arc_swap::ArcSwap;
use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tidegate::{
    server::{Authority, Door, EngineEvent, FleetEvent, Handle, Identity, Server},
    xds::ResourceKey,
};
use tokio::{net::TcpListener, net::TcpStream, sync::mpsc, task::JoinHandle};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct ControlPlane {
    pub(crate) handle: Handle,
    pub(crate) events: mpsc::Receiver<FleetEvent>,
    task: JoinHandle<()>,
}

impl ControlPlane {
    pub(crate) async fn start(authority: &Authority, address: SocketAddr) -> (Self, SocketAddr) {
        let (server, handle, events) = Server::new("edge".into());
        // The one before may still be closing.
        let listener =
            eventually("the port is free", || async { TcpListener::bind(address).await.ok() }).await;
        let address = listener.local_addr().expect("an address");
        let issued =
            authority.issue_server(&["localhost"], &[address.ip()], DAY, now()).expect("a certificate");
        let config = authority.server_config(&issued).expect("a configuration");
        let door = Door::Mutual(Arc::new(ArcSwap::new(config)));
        #[expect(clippy::disallowed_methods, reason = "the test is the app here")]
        let task = tokio::spawn(server.serve(listener, door));
        (Self { handle, events, task }, address)
    }

    pub(crate) async fn synced(&self) {
        eventually("an engine is synced", || async {
            let engines = self.handle.engines();
            engines.iter().any(|engine| engine.synced && engine.sent > 0).then_some(())
        })
        .await;
    }

    pub(crate) async fn refusal(&mut self) -> tidegate::server::session::Refused {
        loop {
            let event = tokio::time::timeout(stock_envoy::DEADLINE, self.events.recv()).await;
            match event.expect("an engine refuses").expect("the server lives").what {
                EngineEvent::Refused(refused) => return refused,
                EngineEvent::Connected | EngineEvent::Synced | EngineEvent::Disconnected => {}
            }
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates must be valid for the Envoy beside us")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

pub(crate) fn engine() -> Identity {
    Identity::new("edge", "e1").expect("a name")
}

pub(crate) fn start_envoy(dir: &Path, ads: SocketAddr, authority: &Authority) -> Envoy {
    start_envoy_with(dir, ads, authority, &engine(), &Extra::default())
}

pub(crate) fn start_envoy_with(
    dir: &Path,
    ads: SocketAddr,
    authority: &Authority,
    engine: &Identity,
    extra: &Extra,
) -> Envoy {
    let issued = authority.issue_engine(engine, DAY, now()).expect("a certificate");
    Envoy::start_with(dir, ads, authority.certificate_pem(), engine, &issued, extra)
}

/// A control plane, the folder of its authority, and nothing else yet.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) authority: Authority,
    pub(crate) control: ControlPlane,
    pub(crate) address: SocketAddr,
}

impl Site {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
        let (control, address) = ControlPlane::start(&authority, anywhere()).await;
        Self { dir, authority, control, address }
    }

    pub(crate) fn envoy(&self) -> Envoy {
        start_envoy(self.dir.path(), self.address, &self.authority)
    }

    /// The control plane goes, and another takes its place: it knows nothing.
    pub(crate) async fn restart(self) -> Self {
        let Self { dir, authority, control, address } = self;
        drop(control);
        let (control, address) = ControlPlane::start(&authority, address).await;
        Self { dir, authority, control, address }
    }

    /// Waits until the engines hold what is published under these keys.
    pub(crate) async fn held(&self, keys: &[ResourceKey]) {
        for key in keys {
            eventually(&format!("{key} is held"), || async {
                let held = self.control.handle.held(key);
                (held.of > 0 && held.by == held.of).then_some(())
            })
            .await;
        }
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.control.handle.engines().iter().map(|engine| engine.refusals).sum()
    }
}

pub(crate) fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub(crate) async fn serves(port: u16, host: &str, text: &str) {
    eventually(&format!("{host} answers {text}"), || async {
        (get(port, host, "/").await? == (200, text.to_owned())).then_some(())
    })
    .await;
}

/// A handshake for `sni`, and the answer over it.
pub(crate) async fn get_tls(port: u16, sni: &str, roots: &rustls::RootCertStore) -> Option<(u16, String)> {
    get_over(&mut connect_tls(port, sni, roots).await?, "a.test", "/").await
}

pub(crate) async fn connect_tls(
    port: u16,
    sni: &str,
    roots: &rustls::RootCertStore,
) -> Option<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(sni.to_owned()).expect("a name");
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
}
