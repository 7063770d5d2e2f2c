//! Messages of the delta stream: requests are decoded, responses written as they are.

use super::frame::Response;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// A buffer's first size; it grows to what a response is.
const BUFFER_BYTES: usize = 8 << 10;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DeltaCodec;

impl Codec for DeltaCodec {
    type Encode = Response;
    type Decode = DeltaDiscoveryRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for DeltaCodec {
    type Item = Response;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        // Each response by itself: what a client does not take stays where that is seen.
        BufferSettings::new(BUFFER_BYTES, 1)
    }

    fn encode(&mut self, response: Response, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(response.encoded_len());
        response.encode(to);
        Ok(())
    }
}

impl Decoder for DeltaCodec {
    type Item = DeltaDiscoveryRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DeltaDiscoveryRequest>, Status> {
        let request = DeltaDiscoveryRequest::decode(from);
        request.map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
