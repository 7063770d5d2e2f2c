//! Who may use a host, and who wins a path.

use crate::support::live::{
    Ingress, Request, Service, Tenant,
    tenant::{self, http},
};
use serde_json::json;

/// The namespace of the tenant, and two others with the class.
struct Namespaces {
    tenant: Tenant,
    _services: Vec<Service>,
}

impl Namespaces {
    fn new(tenant: Tenant) -> Self {
        let services = ["elder", "younger"].map(|label| {
            let namespace = format!("{}-{label}", tenant.name);
            let service = Service::new(&namespace, label);
            tenant.apply_service(&service);
            service
        });
        Self { tenant, _services: services.into() }
    }

    /// An Ingress `web` of one of them.
    fn ingress(&self, label: &str, year: u16) -> Ingress {
        Ingress::new(&format!("{}-{label}", self.tenant.name), "web", &self.tenant.name).since(year)
    }

    fn key(&self, label: &str) -> String {
        format!("Ingress/{}-{label}/web", self.tenant.name)
    }
}

#[test]
fn a_host_belongs_to_its_oldest_namespace() {
    let all = Namespaces::new(Tenant::new("owner"));
    let tenant = &all.tenant;
    let host = tenant.host("shop");
    let elder = all.ingress("elder", 2020).prefix(&host, "/", "elder");
    let younger =
        all.ingress("younger", 2021).prefix(&host, "/", "younger").prefix(&host, "/more", "younger");
    let own = tenant.host("own");
    let younger = younger.prefix(&own, "/", "younger");
    // The younger is seen first: age counts, not arrival.
    tenant.apply("younger", &[younger.into()]);
    let vip = tenant.live.programmed(&all.key("younger"));
    tenant::get(vip, &host, "/more").served_by("younger");
    tenant.apply("elder", &[elder.into()]);
    tenant.live.answered(http(vip), &Request::get(&host, "/more"), |answer| {
        answer.service().as_deref() == Some("elder")
    });
    let finding = tenant.live.finding(&all.key("younger"), "HostOwnedByOther");
    let message = finding["message"].as_str().unwrap_or_default();
    assert!(message.contains("owner-elder"), "{finding}");
    // What is not contested stays.
    tenant::get(vip, &own, "/").served_by("younger");
    tenant.delete("elder");
    tenant.live.answered(http(vip), &Request::get(&host, "/more"), |answer| {
        answer.service().as_deref() == Some("younger")
    });
    tenant.live.eventually("the new owner is told nothing any more", || {
        let object = tenant.live.object(&all.key("younger")).unwrap_or_default();
        if object["findings"].to_string().contains("HostOwnedByOther") {
            Err(object.to_string())
        } else {
            Ok(())
        }
    });
}

/// Nobody takes a name out of another's wildcard.
#[test]
fn a_wildcard_owns_the_names_below_it() {
    let all = Namespaces::new(Tenant::new("below"));
    let tenant = &all.tenant;
    let elder = all.ingress("elder", 2020).prefix(&tenant.host("*"), "/", "elder");
    let younger = all.ingress("younger", 2021).prefix(&tenant.host("one"), "/", "younger");
    tenant.apply("both", &[elder.into(), younger.into()]);
    let vip = tenant.live.programmed(&all.key("elder"));
    tenant.live.finding(&all.key("younger"), "HostOwnedByOther");
    tenant::get(vip, &tenant.host("one"), "/").served_by("elder");
}

#[test]
fn a_grant_shares_a_host() {
    let grants = json!([{"host": "shop.grant.test", "namespaces": ["grant-younger"]}]);
    let all = Namespaces::new(Tenant::with("grant", &json!({"hostGrants": grants})));
    let tenant = &all.tenant;
    let (shop, other) = (tenant.host("shop"), tenant.host("other"));
    let elder = all.ingress("elder", 2020).prefix(&shop, "/", "elder").prefix(&other, "/", "elder");
    let younger =
        all.ingress("younger", 2021).prefix(&shop, "/more", "younger").prefix(&other, "/more", "younger");
    tenant.apply("both", &[elder.into(), younger.into()]);
    let vip = tenant.live.programmed(&all.key("elder"));
    tenant.live.programmed(&all.key("younger"));
    tenant::get(vip, &shop, "/").served_by("elder");
    tenant::get(vip, &shop, "/more").served_by("younger");
    tenant::get(vip, &other, "/more").served_by("elder");
    let finding = tenant.live.finding(&all.key("younger"), "HostOwnedByOther");
    assert!(finding["message"].as_str().is_some_and(|text| text.contains(&other)), "{finding}");
}

#[test]
fn the_oldest_wins_a_path() {
    let tenant = Tenant::new("paths");
    let _services = ["elder", "younger"].map(|name| tenant.service(name));
    let host = tenant.host("one");
    let elder = tenant.ingress("elder").since(2020).prefix(&host, "/a", "elder");
    let younger = tenant.ingress("younger").since(2021);
    let younger = younger.prefix(&host, "/a", "younger").prefix(&host, "/b", "younger");
    tenant.apply("elder", &[elder.into()]);
    let vip = tenant.serve("younger", younger);
    tenant.live.programmed(&tenant.key("elder"));
    tenant::get(vip, &host, "/a").served_by("elder");
    tenant::get(vip, &host, "/b").served_by("younger");
    let finding = tenant.live.finding(&tenant.key("younger"), "PathConflict");
    assert_eq!(finding["field"], "spec.rules[0].http.paths[0]", "{finding}");
    tenant.delete("elder");
    tenant.live.answered(http(vip), &Request::get(&host, "/a"), |answer| {
        answer.service().as_deref() == Some("younger")
    });
}
