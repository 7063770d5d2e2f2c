//! What the server counts of itself.

use super::answer::Transport;
use hickory_proto::op::ResponseCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start; each only grows.
#[derive(Debug, Default)]
pub struct Counters {
    udp_queries: AtomicU64,
    tcp_queries: AtomicU64,
    no_error: AtomicU64,
    format_error: AtomicU64,
    no_such_name: AtomicU64,
    not_implemented: AtomicU64,
    refused: AtomicU64,
    bad_version: AtomicU64,
    truncated: AtomicU64,
    ignored: AtomicU64,
    rate_limited: AtomicU64,
    rate_slipped: AtomicU64,
    unsent: AtomicU64,
    connections: AtomicU64,
    connections_refused: AtomicU64,
}

/// One line for `/metrics`: a counter, its label, its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub name: &'static str,
    /// Name and value; none for a counter that has no parts.
    pub label: Option<(&'static str, &'static str)>,
    pub value: u64,
}

fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn query(&self, transport: Transport) {
        one(match transport {
            Transport::Udp => &self.udp_queries,
            Transport::Tcp => &self.tcp_queries,
        });
    }

    pub(super) fn answered(&self, rcode: ResponseCode, truncated: bool) {
        one(match rcode {
            ResponseCode::FormErr => &self.format_error,
            ResponseCode::NXDomain => &self.no_such_name,
            ResponseCode::NotImp => &self.not_implemented,
            ResponseCode::Refused => &self.refused,
            ResponseCode::BADVERS => &self.bad_version,
            _ => &self.no_error,
        });
        if truncated {
            one(&self.truncated);
        }
    }

    /// A message that deserved no reply.
    pub(super) fn ignored(&self) {
        one(&self.ignored);
    }

    pub(super) fn rate_limited(&self) {
        one(&self.rate_limited);
    }

    pub(super) fn rate_slipped(&self) {
        one(&self.rate_slipped);
    }

    /// A reply the socket did not take.
    pub(super) fn unsent(&self) {
        one(&self.unsent);
    }

    pub(super) fn connection(&self) {
        one(&self.connections);
    }

    pub(super) fn connection_refused(&self) {
        one(&self.connections_refused);
    }

    /// All of them, as they are now.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        const QUERIES: &str = "tidegate_dns_queries_total";
        const REPLIES: &str = "tidegate_dns_replies_total";
        const UNANSWERED: &str = "tidegate_dns_unanswered_total";
        const CONNECTIONS: &str = "tidegate_dns_connections_total";
        let rows = [
            (QUERIES, Some(("transport", "udp")), &self.udp_queries),
            (QUERIES, Some(("transport", "tcp")), &self.tcp_queries),
            (REPLIES, Some(("rcode", "NOERROR")), &self.no_error),
            (REPLIES, Some(("rcode", "FORMERR")), &self.format_error),
            (REPLIES, Some(("rcode", "NXDOMAIN")), &self.no_such_name),
            (REPLIES, Some(("rcode", "NOTIMP")), &self.not_implemented),
            (REPLIES, Some(("rcode", "REFUSED")), &self.refused),
            (REPLIES, Some(("rcode", "BADVERS")), &self.bad_version),
            ("tidegate_dns_truncated_total", None, &self.truncated),
            ("tidegate_dns_rate_slipped_total", None, &self.rate_slipped),
            (UNANSWERED, Some(("reason", "not_a_query")), &self.ignored),
            (UNANSWERED, Some(("reason", "rate_limit")), &self.rate_limited),
            (UNANSWERED, Some(("reason", "socket")), &self.unsent),
            (CONNECTIONS, Some(("outcome", "served")), &self.connections),
            (CONNECTIONS, Some(("outcome", "refused")), &self.connections_refused),
        ];
        let sample = |(name, label, counter): (_, _, &AtomicU64)| Sample {
            name,
            label,
            value: counter.load(Ordering::Relaxed),
        };
        rows.into_iter().map(sample).collect()
    }
}
