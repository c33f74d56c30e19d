//! What sessions that are taken up again rest upon.

use rustls::HandshakeKind::{self, Full, Resumed};

use super::*;

/// How these two shake hands, who believe each other, as both of them have it.
async fn kind(client: &Tls, server: &Tls) -> HandshakeKind {
    let (connected, accepted) = shake_hands(client, server).await;
    let (mut connected, met) = connected.expect("connected");
    assert_eq!(met.id(), server.own());
    let (mut accepted, met) = accepted.expect("accepted");
    assert_eq!(met.id(), client.own());
    // The ticket comes before the first bytes.
    accepted.write_all(b"!").await.expect("write");
    connected.read_u8().await.expect("read");
    let kind = connected.get_ref().1.handshake_kind().expect("shaken");
    assert_eq!(accepted.get_ref().1.handshake_kind(), Some(kind));
    kind
}

#[tokio::test]
async fn a_session_is_taken_up_again_and_both_sides_know_who_the_other_is() {
    let (_dir, ca) = ca("example.org");
    let (web, db) = (workload(&ca, "web"), workload(&ca, "db"));
    assert_eq!(kind(&web, &db).await, Full);
    for _ in 0..3 {
        assert_eq!(kind(&web, &db).await, Resumed);
    }
}

#[tokio::test]
async fn what_is_recorded_of_a_session_stays_secret_from_quantum_computers() {
    let (_dir, ca) = ca("example.org");
    let (web, db) = (workload(&ca, "web"), workload(&ca, "db"));
    assert_eq!(kind(&web, &db).await, Full);
    let (connected, _) = shake_hands(&web, &db).await;
    let (connected, _) = connected.expect("connected");
    let session = connected.get_ref().1;
    assert_eq!(session.handshake_kind(), Some(Resumed));
    let group = session.negotiated_key_exchange_group().expect("group");
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn sessions_end_with_the_identity_of_either_side() {
    let (_dir, ca) = ca("example.org");
    let (web, db) = (workload(&ca, "web"), workload(&ca, "db"));
    assert_eq!(kind(&web, &db).await, Full);
    let renewed = workload(&ca, "db");
    assert_eq!(kind(&web, &renewed).await, Full);
    assert_eq!(kind(&web, &renewed).await, Resumed);
    let renewed = workload(&ca, "web");
    assert_eq!(kind(&renewed, &db).await, Full);
}

#[tokio::test]
async fn nobody_else_takes_a_session_up() {
    let (_dir, ca) = ca("example.org");
    let [web, db, other] = ["web", "db", "other"].map(|path| workload(&ca, path));
    assert_eq!(kind(&web, &db).await, Full);
    // Another server at the same address, and another client.
    assert_eq!(kind(&web, &other).await, Full);
    assert_eq!(kind(&other, &db).await, Full);
}

#[tokio::test]
async fn sessions_end_with_the_certificate_of_either_side() {
    let (_dir, ca) = ca("example.org");
    let short = |path| {
        let (certificate, key) = ca.issue_adjusted(&id(path), |params| {
            params.not_after = (SystemTime::now() + Duration::from_secs(3)).into();
        });
        Tls::new(&Svid::new(vec![certificate], key, ca.trust()).expect("identity"))
    };
    let (web, db) = (workload(&ca, "web"), workload(&ca, "db"));
    let [short_web, short_db] = ["web", "db"].map(short);
    for (client, server) in [(&short_web, &db), (&web, &short_db)] {
        assert_eq!(kind(client, server).await, Full);
        assert_eq!(kind(client, server).await, Resumed);
    }
    let end = short_db.not_after().duration_since(SystemTime::now());
    tokio::time::sleep(end.unwrap_or_default() + Duration::from_secs(1)).await;

    let over = |error: HandshakeError| error.to_string().contains(" expired at ");
    let (_, accepted) = shake_hands(&short_web, &db).await;
    assert!(over(accepted.expect_err("the client's is over")));
    let (connected, _) = shake_hands(&web, &short_db).await;
    assert!(over(connected.expect_err("the server's is over")));
}

#[tokio::test]
async fn a_client_that_takes_up_a_session_past_its_certificate_is_refused() {
    let (_dir, ca) = ca("example.org");
    let (certificate, key) = ca.issue_adjusted(&id("web"), |params| {
        params.not_after = (SystemTime::now() + Duration::from_secs(2)).into();
    });
    let mut web = Tls::new(&Svid::new(vec![certificate], key, ca.trust()).expect("identity"));
    let db = workload(&ca, "db");
    // One that does not care about its own.
    let mut config = (**web.connector.config()).clone();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    web.connector = Arc::new(config).into();
    assert_eq!(kind(&web, &db).await, Full);
    assert_eq!(kind(&web, &db).await, Resumed);
    let end = web.not_after().duration_since(SystemTime::now());
    tokio::time::sleep(end.unwrap_or_default() + Duration::from_secs(1)).await;
    let (connected, accepted) = shake_hands(&web, &db).await;
    let (connected, _) = connected.expect("it does not know yet");
    assert_eq!(connected.get_ref().1.handshake_kind(), Some(Resumed));
    let refused = accepted.expect_err("it is over").to_string();
    assert!(refused.contains(" expired at "), "{refused}");
}
