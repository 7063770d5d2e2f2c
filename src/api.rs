//! Our CRDs, one kind a file: schema and documentation, no behaviour.
//!
//! *Takes* nothing. *Gives* typed specs with a JSON schema. *Invariants*: a
//! default is always written out in the type. *To add one*: a file here, a row
//! in `cli/crds`, a [`crate::base::ObjectKind`], a fact.

mod dns_zone;
mod infra_setting;
mod vip_pool;

pub use dns_zone::{DnsZone, DnsZoneSpec};
pub use infra_setting::{
    AddressFamily, BackendTls, BackendsSpec, ClientAddressSpec, EscapedSlashesSpec, HeadersSpec, HostGrant,
    ImplementationSpecific, InfraSetting, InfraSettingSpec, LimitsSpec, ListenersSpec, PathsSpec,
    RedirectSpec, TimeoutsSpec, UnderscoresSpec, VipSharing, VipSpec,
};
pub use vip_pool::{Selector, VipPool, VipPoolSpec};

/// The group of our kinds.
pub const GROUP: &str = "tidegate.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";
