//! Bootstraps with the listener, scopes and routes as the control plane shapes them, but static.

use std::process::Command;

use crate::envoy::{Envoy, folder};
use crate::upstream::Upstream;

/// One scope with its RouteConfiguration.
pub struct Scope {
    vip: String,
    host: String,
    routes: Vec<String>,
    keep_keys: bool,
}

impl Scope {
    /// Lets the keys reach the upstream, for a test to look at.
    pub fn keep_keys(mut self) -> Scope {
        self.keep_keys = true;
        self
    }

    fn yaml(&self) -> String {
        let Scope { vip, host, routes, keep_keys } = self;
        let removed = if *keep_keys { "" } else { "x-scope, x-vip, x-sni" };
        let routes: String = routes.iter().map(|route| format!("\n          - {route}")).collect();
        format!(
            r#"
    - name: "s/{vip}/{host}"
      key: {{fragments: [{{string_key: "{host}"}}, {{string_key: "{vip}"}}]}}
      route_configuration:
        name: "r/{vip}/{host}"
        request_headers_to_remove: [{removed}]
        virtual_hosts:
        - name: v
          domains: ["*"]
          routes:{routes}"#
        )
    }
}

pub fn scope(vip: &str, host: &str, routes: &[&str]) -> Scope {
    Scope {
        vip: vip.into(),
        host: host.into(),
        routes: routes.iter().map(|&route| route.into()).collect(),
        keep_keys: false,
    }
}

/// A route that Envoy answers itself.
pub fn answer(name: &str, prefix: &str, status: u16, body: &str) -> String {
    format!(
        r#"{{name: "{name}", match: {{prefix: {prefix}}}, direct_response: {{status: {status}, body: {{inline_string: "{body}"}}}}}}"#
    )
}

#[derive(Default)]
pub struct Bootstrap {
    listeners: Vec<(String, bool)>,
    scopes: Vec<Scope>,
    upstream: Option<u16>,
    // Further fields of the HCM, as YAML on one line each.
    connection: Vec<&'static str>,
    walk: &'static str,
}

impl Bootstrap {
    pub fn new() -> Bootstrap {
        Bootstrap::default()
    }

    /// A plain listener with the name of its VIP.
    pub fn listener(mut self, vip: &str) -> Bootstrap {
        self.listeners.push((vip.into(), false));
        self
    }

    pub fn tls_listener(mut self, vip: &str) -> Bootstrap {
        self.listeners.push((vip.into(), true));
        self
    }

    pub fn scope(mut self, scope: Scope) -> Bootstrap {
        self.scopes.push(scope);
        self
    }

    /// Scopes whose one route says its VIP and key.
    pub fn answers(mut self, vip: &str, hosts: &[&str]) -> Bootstrap {
        for host in hosts {
            let route = answer("r", "/", 200, &format!("{vip} {host}"));
            self.scopes.push(scope(vip, host, &[&route]));
        }
        self
    }

    pub fn upstream(mut self, upstream: &Upstream) -> Bootstrap {
        self.upstream = Some(upstream.port);
        self
    }

    /// One more field of each listener's connection manager.
    pub fn connection(mut self, field: &'static str) -> Bootstrap {
        self.connection.push(field);
        self
    }

    /// The config of the walker.
    pub fn walk(mut self, config: &'static str) -> Bootstrap {
        self.walk = config;
        self
    }

    pub fn start(&self) -> Envoy {
        Envoy::start(&self.yaml())
    }

    pub fn yaml(&self) -> String {
        let scopes: String = self.scopes.iter().map(Scope::yaml).collect();
        let scopes = match scopes.as_str() {
            "" => scope("none", "none", &[&answer("r", "/", 200, "")]).yaml(),
            _ => scopes,
        };
        let mut yaml = String::from(
            "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\nstatic_resources:\n  listeners:",
        );
        for (vip, tls) in &self.listeners {
            yaml += &self.listener_yaml(vip, *tls, &scopes);
        }
        if let Some(port) = self.upstream {
            yaml += &cluster(port);
        }
        yaml
    }

    /// Each listener carries all the scopes, as with SRDS.
    fn listener_yaml(&self, vip: &str, tls: bool, scopes: &str) -> String {
        let walk = self.walk;
        let connection: String = self.connection.iter().map(|field| format!("\n          {field}")).collect();
        let scopes = scopes.replace('\n', "\n            ");
        let transport_socket = if tls { transport_socket() } else { String::new() };
        format!(
            r#"
  - name: {vip}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    listener_filters:
    - {{name: tls, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}
    filter_chains:
    - {transport_socket}
      filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {vip}{connection}
          early_header_mutation_extensions:
          - name: scope
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.dynamic_modules.v3.DynamicModuleEarlyHeaderMutation
              dynamic_module_config: {{name: tidegate_module}}
              early_header_mutation_name: scope
              early_header_mutation_config:
                "@type": type.googleapis.com/google.protobuf.StringValue
                value: "x-vip={vip} x-sni=@sni"
          scoped_routes:
            name: scopes
            scope_key_builder:
              fragments:
              - header_value_extractor: {{name: x-scope, index: 0}}
              - header_value_extractor: {{name: x-vip, index: 0}}
            scoped_route_configurations_list:
              scoped_route_configurations:{scopes}
          http_filters:
          - name: walk
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter
              dynamic_module_config: {{name: tidegate_module}}
              filter_name: walk
              filter_config: {{"@type": type.googleapis.com/google.protobuf.StringValue, value: "{walk}"}}
          - name: rbac
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}
          - name: rbac_off
            disabled: true
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}
          - name: rbac_deny
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules: {{action: DENY, policies: {{p: {{permissions: [{{url_path: {{path: {{exact: /deny}}}}}}], principals: [{{any: true}}]}}}}}}
          - name: slot
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher
              extension_config: {{name: composite, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.composite.v3.Composite}}}}
              xds_matcher: {{on_no_match: {{action: {{name: skip, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter}}}}}}}}
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"#
        )
    }
}

fn cluster(port: u16) -> String {
    format!(
        r#"
  clusters:
  - name: upstream
    type: STATIC
    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}
"#
    )
}

/// A self-signed certificate made now: no key lies in the repository.
fn transport_socket() -> String {
    let folder = folder();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=shop.test", "-days", "1", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(&folder)
        .output()
        .expect("the test needs the openssl command");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap().replace('\n', "\\n");
    let (cert, key) = (read("cert.pem"), read("key.pem"));
    std::fs::remove_dir_all(&folder).unwrap();
    format!(
        r#"transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates:
            - {{certificate_chain: {{inline_string: "{cert}"}}, private_key: {{inline_string: "{key}"}}}}
"#
    )
}
