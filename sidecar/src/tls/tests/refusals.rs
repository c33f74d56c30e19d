//! Peers whose identity does not hold.

use rcgen::CertificateParams;
use spiffe::TrustDomain;

use super::*;
use crate::identity::Flaw;
use crate::identity::testing::uri;

/// A workload that trusts `ours` and shows a certificate from `issuer` that is wrong as `adjust`
/// has it.
fn impostor(ours: &Ca, issuer: &Ca, adjust: impl FnOnce(&mut CertificateParams)) -> Tls {
    let (certificate, key) = issuer.issue_adjusted(&id("impostor"), adjust);
    Tls::new(&Svid::unchecked(
        &id("impostor"),
        vec![certificate],
        key,
        ours.trust(),
    ))
}

/// How a client learns that the server refused it: in place of the first bytes.
async fn first_read(connected: Connected) -> HandshakeError {
    let (mut stream, _) = connected.expect("the client is done before the server is");
    let read = timeout(DEADLINE, stream.read_u8())
        .await
        .expect("no read hangs");
    read.expect_err("nothing to read").into()
}

fn refused<S>(result: Result<S, HandshakeError>) -> Refused {
    match result {
        Err(HandshakeError::PeerIdentity(refused)) => refused,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("not refused"),
    }
}

fn flaw<S>(result: Result<S, HandshakeError>) -> Flaw {
    match refused(result) {
        Refused::Certificate { flaw, .. } => flaw,
        refused => panic!("{refused:?}"),
    }
}

#[tokio::test]
async fn a_server_of_another_trust_domain_is_refused() {
    let (_dir, ours) = ca("example.org");
    let (_dir, theirs) = ca("example.com");
    let foreign = SpiffeId::new("spiffe://example.com/db").expect("id");
    let server = Tls::new(
        &theirs
            .issue(&foreign, Duration::from_hours(1))
            .expect("identity"),
    );
    let (connected, accepted) = shake_hands(&workload(&ours, "web"), &server).await;

    let refused = refused(connected);
    assert_eq!(refused.shown(), Some(&foreign));
    assert_eq!(
        refused.to_string(),
        "the peer claims to be spiffe://example.com/db, which is not in trust domain example.org",
    );
    assert!(matches!(
        accepted,
        Err(HandshakeError::RefusedByPeer(
            AlertDescription::CertificateUnknown
        ))
    ));
}

#[tokio::test]
async fn a_client_of_another_trust_domain_is_refused() {
    let (_dir, ours) = ca("example.org");
    let client = impostor(&ours, &ours, |params| {
        params.subject_alt_names = vec![uri("spiffe://example.com/web")];
    });
    let (connected, accepted) = shake_hands(&client, &workload(&ours, "db")).await;
    assert!(matches!(
        refused(accepted),
        Refused::ForeignTrustDomain { trusted, .. } if trusted == [TrustDomain::new("example.org").expect("name")]
    ));
    assert!(matches!(
        first_read(connected).await,
        HandshakeError::RefusedByPeer(AlertDescription::CertificateUnknown)
    ));
}

#[tokio::test]
async fn a_refused_client_is_told_even_when_it_wrote_before() {
    let (_dir, ours) = ca("example.org");
    let client = impostor(&ours, &ours, |params| params.subject_alt_names = vec![]);
    let server = workload(&ours, "db");
    let (connecting, accepting) = connected().await;

    let mut accepting = Box::pin(server.accept(accepting));
    let connected = tokio::select! {
        biased;
        connected = client.connect(HERE, connecting) => connected,
        _ = &mut accepting => panic!("refused before the client was done"),
    };
    let (mut stream, id) = connected.expect("the client is done before the server is");
    // More than the server takes in before it gives up. What is left unread makes its kernel send
    // a reset behind the alert.
    stream.write_all(&vec![0; 1 << 16]).await.expect("write");
    stream.flush().await.expect("flush");
    let accepted = timeout(DEADLINE, accepting)
        .await
        .expect("no handshake hangs");
    assert!(matches!(flaw(accepted), Flaw::NoUri));

    let told = first_read(Ok((stream, id))).await;
    assert!(matches!(told, HandshakeError::RefusedByPeer(_)), "{told}");
}

/// Shows a certificate that is wrong as `adjust` has it, as client and as server. The other side
/// has to refuse it for the same flaw.
async fn refused_both_ways(issuer: Option<&Ca>, adjust: fn(&mut CertificateParams)) -> Flaw {
    let (_dir, ours) = ca("example.org");
    let impostor = impostor(&ours, issuer.unwrap_or(&ours), adjust);
    let honest = workload(&ours, "db");

    let (connected, accepted) = shake_hands(&impostor, &honest).await;
    let as_client = flaw(accepted);
    let told = first_read(connected).await;
    assert!(matches!(told, HandshakeError::RefusedByPeer(_)), "{told}");

    let (connected, accepted) = shake_hands(&honest, &impostor).await;
    let as_server = flaw(connected);
    let told = accepted.expect_err("told");
    assert!(matches!(told, HandshakeError::RefusedByPeer(_)), "{told}");

    assert_eq!(as_client.to_string(), as_server.to_string());
    as_server
}

#[tokio::test]
async fn two_names_are_refused() {
    let flaw = refused_both_ways(None, |params| {
        params
            .subject_alt_names
            .push(uri("spiffe://example.org/admin"));
    });
    assert!(matches!(flaw.await, Flaw::ManyUris(2)));
}

#[tokio::test]
async fn a_ca_certificate_is_refused() {
    let flaw = refused_both_ways(None, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    assert!(matches!(flaw.await, Flaw::Signing));
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let flaw = refused_both_ways(None, |params| {
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_hours(2)).into();
        params.not_after = (now - Duration::from_hours(1)).into();
    });
    assert!(matches!(flaw.await, Flaw::Expired(_)));
}

#[tokio::test]
async fn a_certificate_of_the_future_is_refused() {
    let flaw = refused_both_ways(None, |params| {
        params.not_before = (SystemTime::now() + Duration::from_mins(30)).into();
    });
    assert!(matches!(flaw.await, Flaw::NotYetValid(_)));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (_dir, theirs) = ca("example.org");
    let flaw = refused_both_ways(Some(&theirs), |_| {});
    assert!(matches!(flaw.await, Flaw::Untrusted));
}

#[tokio::test]
async fn the_identity_shown_is_named_with_the_flaw() {
    let (_dir, ours) = ca("example.org");
    let (_dir, theirs) = ca("example.org");
    let impostor = impostor(&ours, &theirs, |_| {});
    let (connected, _) = shake_hands(&workload(&ours, "web"), &impostor).await;
    assert_eq!(
        refused(connected).to_string(),
        "the peer's certificate, which names spiffe://example.org/impostor, \
         is not issued by any authority in the trust bundle",
    );
}

#[tokio::test]
async fn a_copied_certificate_without_its_key_is_refused() {
    let (_dir, ca) = ca("example.org");
    let (certificate, _) = ca.issue_adjusted(&id("web"), |_| {});
    let (_, key) = ca.issue_adjusted(&id("web"), |_| {});
    let thief = Tls::new(&Svid::unchecked(
        &id("web"),
        vec![certificate],
        key,
        ca.trust(),
    ));
    let honest = workload(&ca, "db");
    let (_, accepted) = shake_hands(&thief, &honest).await;
    assert!(matches!(refused(accepted), Refused::NoProof(_)));
    let (connected, _) = shake_hands(&honest, &thief).await;
    assert!(matches!(refused(connected), Refused::NoProof(_)));
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let (_dir, ca) = ca("example.org");
    let mut client = workload(&ca, "web");
    let provider = Arc::new(provider());
    let svid = ca
        .issue(&id("web"), Duration::from_hours(1))
        .expect("identity");
    let mut anonymous = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(
            Trust::of(&svid).into(),
            &provider,
        )))
        .with_no_client_auth();
    anonymous.alpn_protocols = Protocol::names();
    client.connector = Arc::new(anonymous).into();
    let (_, accepted) = shake_hands(&client, &workload(&ca, "db")).await;
    assert!(matches!(refused(accepted), Refused::NoCertificate));
}
