//! What a resource says, as it goes on the wire.

use super::certificate;
use crate::ir::Certificate;
use bytes::Bytes;
use prost::Message;
use std::{fmt, sync::Arc};

/// An encoded message: kept, or made when it is sent.
#[derive(Clone)]
pub struct Body(Kind);

#[derive(Clone)]
enum Kind {
    Encoded(Bytes),
    /// Kept as it is in the model: a private key is in memory once.
    Certificate(Arc<Certificate>),
}

impl Body {
    pub(super) fn certificate(certificate: Arc<Certificate>) -> Self {
        Self(Kind::Certificate(certificate))
    }

    #[must_use]
    pub fn bytes(&self) -> Bytes {
        match &self.0 {
            Kind::Encoded(bytes) => bytes.clone(),
            Kind::Certificate(certificate) => certificate::message(certificate).encode_to_vec().into(),
        }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Encoded(bytes) => bytes.len(),
            Kind::Certificate(certificate) => certificate::message(certificate).encoded_len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self(Kind::Encoded(bytes.into()))
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Body {}

/// It may hold a key: it does not print.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}
