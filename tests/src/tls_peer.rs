//! A peer that speaks TLS as a sidecar does, until it is told to do something else.

use std::{
    io::{self, Read, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, ServerConfig,
    ServerConnection, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use crate::{Pod, forge::Shown, wait};

/// The protocol of sidecars, as ALPN names it.
pub const ALPN: &str = "sidecar/1";

/// A TLS connection, and the TCP connection below it.
///
/// Its socket is no app's: where the pod has a sidecar, it is not steered to it.
#[derive(Debug)]
pub struct TlsPeer {
    /// The state of TLS.
    connection: Connection,
    /// What carries it, for a peer that has something to say outside of TLS.
    pub socket: TcpStream,
}

impl TlsPeer {
    /// Dials from the pod, as a client that shows these certificates and believes the server's.
    pub fn dial(pod: &Pod, server: (Ipv4Addr, u16), shown: &Shown) -> io::Result<Self> {
        let socket = pod
            .sandbox()
            .namespace()
            .enter(|| TcpStream::connect(server))?;
        let mut config = ClientConfig::builder_with_provider(default_provider().into())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible))
            .with_client_cert_resolver(resolver(shown));
        config.alpn_protocols = vec![ALPN.into()];
        let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let connection = ClientConnection::new(config.into(), name).expect("a configuration");
        Self::shake_hands(connection.into(), socket)
    }

    /// Accepts a connection, as a server that shows these certificates and asks for none, gives
    /// tickets and takes early data.
    pub fn accept(listener: &TcpListener, shown: &Shown) -> io::Result<Self> {
        let (socket, _) = listener.accept()?;
        let mut config = ServerConfig::builder_with_provider(default_provider().into())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(resolver(shown));
        config.alpn_protocols = vec![ALPN.into()];
        config.max_early_data_size = 16 * 1024;
        let connection = ServerConnection::new(config.into()).expect("a configuration");
        Self::shake_hands(connection.into(), socket)
    }

    /// A port of the pod to [`accept`](Self::accept) on.
    pub fn listen(pod: &Pod, port: u16) -> TcpListener {
        pod.sandbox()
            .namespace()
            .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
            .expect("a free port")
    }

    fn shake_hands(mut connection: Connection, mut socket: TcpStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(wait::DEADLINE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Self { connection, socket })
    }

    /// Says something within TLS.
    pub fn say(&mut self, words: &str) -> io::Result<()> {
        self.connection.writer().write_all(words.as_bytes())?;
        self.flush()
    }

    /// What the other side says next within TLS; nothing when it has ended.
    pub fn hear(&mut self) -> io::Result<String> {
        loop {
            let mut heard = vec![0; 4096];
            match self.connection.reader().read(&mut heard) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    heard.truncate(read?);
                    return Ok(String::from_utf8_lossy(&heard).into_owned());
                }
            }
            self.connection.complete_io(&mut self.socket)?;
        }
    }

    /// The record in which TLS would say something, which is not sent.
    pub fn record(&mut self, words: &str) -> Vec<u8> {
        let mut record = Vec::new();
        self.connection
            .writer()
            .write_all(words.as_bytes())
            .expect("it is kept in memory");
        self.connection
            .write_tls(&mut record)
            .expect("memory takes all");
        record
    }

    /// How the other side ends the TCP connection, whatever it says before: `eof` or `reset`.
    pub fn end(&mut self) -> &'static str {
        match io::copy(&mut self.socket, &mut io::sink()) {
            Ok(_) => "eof",
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => "reset",
            Err(error) => panic!("waiting for the end: {error}"),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

/// Shows certificates whatever they are, and signs with the key whosever it is.
fn resolver(shown: &Shown) -> Arc<SingleCertAndKey> {
    let key = any_supported_type(&shown.key).expect("a key of a supported kind");
    Arc::new(CertifiedKey::new(shown.chain.clone(), key).into())
}

/// Believes every server.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
