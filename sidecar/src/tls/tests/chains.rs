//! Peers that show more certificates than anybody needs.

use std::time::Instant;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::identity::{TrustBundle, testing::uri};

/// What judging a chain may take at most: it is one of many, and nobody knows yet who asks.
const LIMIT: Duration = Duration::from_secs(5);

/// An authority that may have others below it.
struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn root() -> Self {
        Self::new("root", None)
    }

    /// An authority of this name, certified by `above` or by itself.
    fn new(name: &str, above: Option<&Self>) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        };
        Self {
            certificate: certificate.expect("a certificate").into(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A workload that shows `between` behind its own certificate, and trusts `root`.
    fn workload(&self, between: Vec<CertificateDer<'static>>, root: &Self) -> Tls {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("spiffe://example.org/web")];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        let mut chain = vec![leaf.into()];
        chain.extend(between);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let bundle = TrustBundle::new(vec![root.certificate.clone()]).expect("an authority");
        Tls::new(&Svid::unchecked(&id("web"), chain, key, bundle))
    }
}

/// A workload whose authority is `length` steps below the root.
fn below(root: &Authority, length: usize) -> Tls {
    let mut between: Vec<Authority> = Vec::new();
    for step in 0..length {
        let above = between.last().unwrap_or(root);
        between.push(Authority::new(&format!("step {step}"), Some(above)));
    }
    let issuer = between.last().unwrap_or(root);
    let chain = between.iter().rev();
    issuer.workload(chain.map(|step| step.certificate.clone()).collect(), root)
}

/// Has `peer` shake hands with a workload that the root certified itself, as client and as
/// server. Tells whether it was let in.
async fn is_let_in(peer: &Tls, root: &Authority) -> bool {
    let honest = root.workload(Vec::new(), root);
    let started = Instant::now();
    let (_, as_client) = shake_hands(peer, &honest).await;
    let (as_server, _) = shake_hands(&honest, peer).await;
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    assert_eq!(as_client.is_ok(), as_server.is_ok());
    as_client.is_ok()
}

#[tokio::test]
async fn a_chain_of_twenty_certificates_is_refused() {
    let root = Authority::root();
    assert!(is_let_in(&below(&root, 3), &root).await);
    assert!(!is_let_in(&below(&root, 20), &root).await);
}

#[tokio::test]
async fn a_chain_larger_than_a_handshake_message_may_be_is_refused() {
    let root = Authority::root();
    let filling = Authority::new(&"x".repeat(1000), Some(&root)).certificate;
    // It would hold: what does not lead to the root is left out.
    let with = |count| root.workload(vec![filling.clone(); count], &root);
    assert!(is_let_in(&with(40), &root).await);
    assert!(!is_let_in(&with(100), &root).await);
    assert!(!is_let_in(&with(10_000), &root).await);
}

#[tokio::test]
async fn a_maze_of_authorities_is_left_in_bounded_time() {
    let (root, other) = (Authority::root(), Authority::root());
    // All have one name, so that any may have signed any other, and none leads to our root.
    let maze: Vec<_> = (0..100)
        .map(|_| Authority::new("root", Some(&other)))
        .collect();
    let chain = maze.iter().map(|step| step.certificate.clone()).collect();
    assert!(!is_let_in(&maze[0].workload(chain, &root), &root).await);
}
