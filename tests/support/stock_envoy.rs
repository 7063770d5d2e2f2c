//! A stock Envoy as a child of the test, and a client small enough to trust.

use serde_json::{Value, json};
use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tidegate::server::{Identity, authority::Issued};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// Generous: a loaded machine is slow, a broken program never gets there.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The pinned binary: `TIDEGATE_ENVOY`, or what envoy/install.sh installs.
#[expect(clippy::disallowed_methods, reason = "which Envoy to test against is the caller's choice")]
pub(crate) fn binary() -> PathBuf {
    if let Ok(path) = std::env::var("TIDEGATE_ENVOY") {
        return path.into();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy/install.sh");
    let output = Command::new("bash").arg(&script).stderr(Stdio::inherit()).output().expect("bash runs");
    assert!(output.status.success(), "{} failed; set TIDEGATE_ENVOY to an Envoy 1.40", script.display());
    let text = String::from_utf8(output.stdout).expect("a path");
    text.lines().last().expect("a path on the last line").into()
}

/// A port nobody has now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// What one Envoy has besides.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// On top of its bootstrap.
    pub(crate) bootstrap: Option<Value>,
    /// The folder of dynamic modules.
    pub(crate) modules: Option<PathBuf>,
}

/// A running Envoy; killed when dropped.
pub(crate) struct Envoy {
    child: Child,
    pub(crate) log: PathBuf,
}

impl Envoy {
    /// Starts one that takes everything from the ADS server at `ads`, by mTLS.
    pub(crate) fn start(
        dir: &Path,
        ads: SocketAddr,
        ca: &str,
        identity: &Identity,
        certificate: &Issued,
    ) -> Self {
        Self::start_with(dir, ads, ca, identity, certificate, &Extra::default())
    }

    pub(crate) fn start_with(
        dir: &Path,
        ads: SocketAddr,
        ca: &str,
        identity: &Identity,
        certificate: &Issued,
        extra: &Extra,
    ) -> Self {
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let ca = file("ca.crt", ca);
        let chain = file("tls.crt", &certificate.certificate_pem);
        let key = file("tls.key", certificate.key_pem.expose());
        let config = bootstrap(ads, identity, &ca, &chain, &key);
        let config = file("bootstrap.json", &config.to_string());
        let log = dir.join("envoy.log");
        let Extra { bootstrap, modules } = extra;
        let mut command = Command::new(binary());
        // Cargo's: a module that lies beside our own libraries would be found in it.
        command.env_remove("LD_LIBRARY_PATH");
        if let Some(over) = bootstrap {
            command.arg("--config-yaml").arg(over.to_string());
        }
        if let Some(modules) = modules {
            command.env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", modules);
        }
        let child = command
            .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "info"])
            .arg("-c")
            .arg(config)
            .arg("--log-path")
            .arg(&log)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Envoy starts");
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

fn bootstrap(ads: SocketAddr, identity: &Identity, ca: &Path, chain: &Path, key: &Path) -> Value {
    let source = json!({"ads": {}, "resource_api_version": "V3"});
    let file = |path: &Path| json!({"filename": path});
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "localhost",
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": file(chain), "private_key": file(key)}],
            "validation_context": {
                "trusted_ca": file(ca),
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "localhost"}}],
            },
        },
    });
    let http2 = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    });
    let address = json!({"socket_address": {"address": ads.ip(), "port_value": ads.port()}});
    json!({
        "node": {"id": &*identity.engine, "cluster": &*identity.fleet},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {
                    "cluster_name": "ads",
                    "retry_policy": {"retry_back_off": {"base_interval": "0.05s", "max_interval": "0.2s"}},
                }}],
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": {"clusters": [{
            "name": "ads",
            "type": "STATIC",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2,
            },
            "transport_socket": {"name": "tls", "typed_config": tls},
            "load_assignment": {"cluster_name": "ads", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address}}]},
            ]},
        }]},
    })
}

/// Waits until `look` finds something.
#[track_caller]
pub(crate) fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> impl Future<Output = T>
where
    F: Future<Output = Option<T>>,
{
    let place = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(Instant::now() < end, "{place}: not within {DEADLINE:?}: {what}");
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Status and body of `GET /path` with this Host; `None` where nobody answers.
pub(crate) async fn get(port: u16, host: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    get_over(&mut stream, host, path).await
}

/// The same over an open connection, which stays open.
pub(crate) async fn get_over(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    path: &str,
) -> Option<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let answer = timeout(DEADLINE, read_answer(stream)).await.ok()??;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Reads one answer by its length.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(Ok(0), str::parse).ok()? {
                return Some(text.into_owned());
            }
        }
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
}
