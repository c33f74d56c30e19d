//! What crossed the wire, taken apart into TCP streams.

use std::net::{IpAddr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice};
use memchr::memmem;

use crate::Stream;

/// The packets of a capture.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    /// The TCP connections, in the order of their first SYN.
    pub streams: Vec<Stream>,
    /// The payloads of UDP datagrams.
    pub datagrams: Vec<Vec<u8>>,
    /// The payloads of TCP segments that belong to no connection whose start was captured.
    pub strays: Vec<Vec<u8>>,
}

impl Wire {
    /// Parses a capture in the classic pcap format of this machine's byte order.
    ///
    /// # Panics
    ///
    /// When it is not that.
    pub fn parse(pcap: &[u8]) -> Self {
        let mut wire = Self::default();
        for packet in packets(pcap) {
            wire.add(packet);
        }
        wire
    }

    /// The connections to `server`.
    pub fn streams_to(&self, server: impl Into<SocketAddr>) -> Vec<&Stream> {
        let server = server.into();
        self.streams
            .iter()
            .filter(|stream| stream.server == server)
            .collect()
    }

    /// The only connection to this port, whatever the address.
    ///
    /// # Panics
    ///
    /// When there was none, or more than one.
    #[track_caller]
    pub fn only_stream_to(&self, port: u16) -> &Stream {
        let fits = |stream: &&Stream| stream.server.port() == port;
        let streams: Vec<_> = self.streams.iter().filter(fits).collect();
        let [stream] = *streams else {
            panic!("one connection to port {port} was expected on the wire: {streams:#?}");
        };
        stream
    }

    /// The only connection there was.
    ///
    /// # Panics
    ///
    /// When there was none, or more than one.
    #[track_caller]
    pub fn only_stream(&self) -> &Stream {
        let [stream] = self.streams.as_slice() else {
            panic!(
                "one connection was expected on the wire: {:#?}",
                self.streams
            );
        };
        stream
    }

    /// Whether `bytes` crossed the wire in one piece: in a TCP stream, in a stray segment or in a
    /// UDP datagram.
    pub fn contains(&self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        let mut apart = self.datagrams.iter().chain(&self.strays);
        apart.any(|payload| memmem::find(payload, bytes).is_some())
            || self.streams.iter().any(|stream| stream.contains(bytes))
    }

    /// Checks that all TCP was mutual TLS that both sides had agreed on in the handshake, that
    /// there was some, and that none of the `secrets` can be read.
    #[track_caller]
    pub fn assert_encrypted(&self, secrets: &[&str]) {
        assert!(!self.streams.is_empty(), "nothing crossed the wire");
        for stream in &self.streams {
            assert!(stream.is_meshed(), "the mesh was not agreed on: {stream:?}");
            assert!(stream.is_tls(), "this is not TLS: {stream:?}");
        }
        self.assert_secret(secrets);
    }

    /// Like [`Self::assert_encrypted`], for a capture of the first bytes of every packet.
    #[track_caller]
    pub fn assert_starts_encrypted(&self, secrets: &[&str]) {
        assert!(!self.streams.is_empty(), "nothing crossed the wire");
        for stream in &self.streams {
            assert!(stream.is_meshed(), "the mesh was not agreed on: {stream:?}");
            assert!(stream.starts_as_tls(), "this is not TLS: {stream:?}");
        }
        self.assert_secret(secrets);
    }

    /// Checks that no TCP was TLS, and that all of `words` can be read.
    #[track_caller]
    pub fn assert_plaintext(&self, words: &[&str]) {
        for stream in &self.streams {
            assert!(!stream.is_tls(), "this is TLS: {stream:?}");
        }
        for word in words {
            assert!(
                self.contains(word),
                "{word:?} did not cross the wire: {:?}",
                self.streams
            );
        }
    }

    #[track_caller]
    fn assert_secret(&self, secrets: &[&str]) {
        for secret in secrets {
            assert!(
                !self.contains(secret),
                "{secret:?} crossed the wire in plaintext"
            );
        }
    }

    /// Adds a packet, if it is TCP or UDP.
    fn add(&mut self, packet: &[u8]) {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(packet) else {
            return;
        };
        let Some((source, destination, hops)) = packet.net.as_ref().and_then(header) else {
            return;
        };
        match packet.transport {
            Some(TransportSlice::Udp(udp)) => self.datagrams.push(udp.payload().to_vec()),
            Some(TransportSlice::Tcp(tcp)) => {
                let source = SocketAddr::new(source, tcp.source_port());
                let destination = SocketAddr::new(destination, tcp.destination_port());
                self.add_segment(source, destination, hops, &tcp);
            }
            _ => {}
        }
    }

    fn add_segment(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        hops: u8,
        tcp: &TcpSlice<'_>,
    ) {
        let latest = |client, server| {
            let mut streams = self.streams.iter().rev();
            let found =
                streams.position(|stream| (stream.client, stream.server) == (client, server));
            found.map(|back| self.streams.len() - 1 - back)
        };
        let opens = tcp.syn() && !tcp.ack();
        let start = tcp.sequence_number().wrapping_add(1);
        let from_client = latest(source, destination)
            // Another SYN with another start is another connection between the same ports.
            .filter(|&index| !opens || self.streams[index].sent.starts_at(start));
        let from_server = latest(destination, source);
        match (from_client, from_server) {
            (Some(index), _) => self.streams[index].add_from_client(tcp),
            (None, Some(index)) if !opens => self.streams[index].add_from_server(tcp),
            (None, _) if opens => {
                let mut stream = Stream::new(source, destination, hops);
                stream.add_from_client(tcp);
                self.streams.push(stream);
            }
            // The rest of a connection older than the capture.
            (None, _) => self.strays.push(tcp.payload().to_vec()),
        }
    }
}

/// The packets of a pcap file.
fn packets(pcap: &[u8]) -> impl Iterator<Item = &[u8]> {
    const FILE_HEADER: usize = 24;
    const RECORD_HEADER: usize = 16;
    const MAGIC: [u8; 4] = 0xa1b2_c3d4_u32.to_ne_bytes();
    assert!(
        pcap.starts_with(&MAGIC),
        "this is not a capture: {:?}",
        pcap.get(..4)
    );
    let mut rest = &pcap[FILE_HEADER..];
    std::iter::from_fn(move || {
        let header = rest.get(..RECORD_HEADER)?;
        let length = u32::from_ne_bytes(header[8..12].try_into().expect("four bytes"));
        let end = RECORD_HEADER + length as usize;
        let packet = rest.get(RECORD_HEADER..end)?;
        rest = &rest[end..];
        Some(packet)
    })
}

/// Source and destination of an IP packet, and how many hops it may go.
fn header(net: &LaxNetSlice<'_>) -> Option<(IpAddr, IpAddr, u8)> {
    match net {
        LaxNetSlice::Ipv4(packet) => {
            let header = packet.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
                header.ttl(),
            ))
        }
        LaxNetSlice::Ipv6(packet) => {
            let header = packet.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
                header.hop_limit(),
            ))
        }
        LaxNetSlice::Arp(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const CLIENT: ([u8; 4], u16) = ([198, 18, 0, 1], 40_000);
    const SERVER: ([u8; 4], u16) = ([198, 18, 0, 2], 80);

    enum Flag {
        Syn,
        SynAck,
        Ack,
    }

    /// A packet as it would be captured.
    fn packet(
        source: ([u8; 4], u16),
        destination: ([u8; 4], u16),
        flag: &Flag,
        sequence: u32,
        options: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4(source.0, destination.0, 64)
            .tcp(source.1, destination.1, sequence, 65_535)
            .options_raw(options)
            .expect("the options fit");
        let builder = match flag {
            Flag::Syn => builder.syn(),
            Flag::SynAck => builder.syn().ack(1),
            Flag::Ack => builder.ack(1),
        };
        let mut packet = Vec::new();
        builder
            .write(&mut packet, payload)
            .expect("writing to memory");
        packet
    }

    fn wire(packets: &[Vec<u8>]) -> Wire {
        let mut wire = Wire::default();
        for packet in packets {
            wire.add(packet);
        }
        wire
    }

    #[test]
    fn a_stream_is_put_together_whatever_the_order_of_its_segments() {
        let wire = wire(&[
            packet(CLIENT, SERVER, &Flag::Syn, u32::MAX, &[], b""),
            packet(SERVER, CLIENT, &Flag::SynAck, 900, &[], b""),
            packet(CLIENT, SERVER, &Flag::Ack, 8, &[], b"third"),
            packet(CLIENT, SERVER, &Flag::Ack, 0, &[], b"one "),
            packet(CLIENT, SERVER, &Flag::Ack, 0, &[], b"one "),
            packet(CLIENT, SERVER, &Flag::Ack, 2, &[], b"e two th"),
            packet(SERVER, CLIENT, &Flag::Ack, 901, &[], b"answer"),
        ]);
        let stream = wire.only_stream();
        assert_eq!(stream.sent.bytes(), b"one two third");
        assert_eq!(stream.received.bytes(), b"answer");
        assert!(wire.contains("two third"));
        assert!(!wire.contains("third answer"));
    }

    #[test]
    fn bytes_behind_a_gap_are_found_but_not_read_as_a_stream() {
        let wire = wire(&[
            packet(CLIENT, SERVER, &Flag::Syn, 99, &[], b""),
            packet(CLIENT, SERVER, &Flag::Ack, 100, &[], b"start"),
            packet(CLIENT, SERVER, &Flag::Ack, 200, &[], b"behind"),
        ]);
        assert_eq!(wire.only_stream().sent.bytes(), b"start");
        assert!(wire.contains("behind"));
    }

    #[test]
    fn a_reused_port_is_another_stream() {
        let wire = wire(&[
            packet(CLIENT, SERVER, &Flag::Syn, 1, &[], b""),
            packet(CLIENT, SERVER, &Flag::Syn, 1, &[], b""),
            packet(CLIENT, SERVER, &Flag::Syn, 7_000, &[], b""),
            packet(CLIENT, SERVER, &Flag::Ack, 7_001, &[], b"second"),
        ]);
        assert_eq!(wire.streams.len(), 2);
        assert_eq!(wire.streams[0].offers.len(), 2);
        assert_eq!(wire.streams[1].sent.bytes(), b"second");
    }

    #[test]
    fn the_mesh_option_is_found_behind_others() {
        let timestamps = [8, 10, 0, 0, 0, 1, 0, 0, 0, 0];
        let ours = [253, 6, 0x5c, 0xa1, 1, 0];
        let options = [&[1, 1][..], &timestamps, &ours, &[0, 0]].concat();
        let others = [&[253, 4, 0x12, 0x34][..], &timestamps].concat();
        let wire = wire(&[
            packet(CLIENT, SERVER, &Flag::Syn, 1, &options, b""),
            packet(SERVER, CLIENT, &Flag::SynAck, 1, &others, b""),
        ]);
        let stream = wire.only_stream();
        assert_eq!(
            (stream.offers.as_slice(), stream.answers.as_slice()),
            (&[true][..], &[false][..])
        );
        assert!(!stream.is_meshed());
    }

    #[test]
    fn a_pcap_file_is_read_packet_by_packet() {
        let syn = packet(CLIENT, SERVER, &Flag::Syn, 1, &[], b"");
        let length = u32::try_from(syn.len()).expect("short").to_ne_bytes();
        let file = [
            &0xa1b2_c3d4_u32.to_ne_bytes()[..],
            &[0; 20],
            &[0; 8],
            &length,
            &length,
            &syn,
            &[0; 7], // the next record, still being written
        ];
        assert_eq!(Wire::parse(&file.concat()).streams.len(), 1);
    }
}
