//! One question to the embedded DNS, over UDP.

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: ResponseCode,
    /// Sorted.
    pub addresses: Vec<IpAddr>,
}

/// Panics when nobody answers: loopback loses nothing.
#[must_use]
#[track_caller]
pub fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Reply {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    socket.send_to(&message.to_vec().expect("a question"), server).expect("a server");
    let mut bytes = [0; 4096];
    let (length, _) = socket.recv_from(&mut bytes).expect("the DNS answers");
    let reply = Message::from_vec(&bytes[..length]).expect("a DNS message");
    let mut addresses: Vec<_> = reply.answers.iter().filter_map(|record| address(&record.data)).collect();
    addresses.sort_unstable();
    Reply { code: reply.metadata.response_code, addresses }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}
