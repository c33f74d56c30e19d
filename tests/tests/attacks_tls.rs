//! Peers that attack by way of TLS: none of them gets a byte to the app or out of it, each is named
//! in log and metric, and others are served on.

use std::{fs, io::Write as _, net::Shutdown, path::Path};

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use sidecar_tests::{
    Behaviour, SECRET,
    app::FAREWELL,
    forge::{Holder, Shown, hours_from_now, uri},
    tls_peer::{ALPN, TlsPeer},
    tls_site::{Authorities, PORT, PROPER, Site},
};

/// Where those are that this process plays itself.
const OWN_PORT: u16 = 8081;

/// Says who it is not: what it shows is wrong in one way. What it is called, what it shows, the
/// reason in log and metric, and the words by which the log says what is wrong.
type Impostor = (
    &'static str,
    fn(&Authorities) -> Shown,
    &'static str,
    &'static str,
);

/// Speaks TLS in a wrong way, as OpenSSL with these flags. What it is called, the flags, the
/// reason in log and metric, and words of the log.
type Stranger = (
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
);

#[rustfmt::skip]
const IMPOSTORS: [Impostor; 33] = [
    ("nothing but a name",          |by| by.foreign.issue(|_| ()).show(&[]), "peer_untrusted", "not issued by any authority in the trust bundle"),
    ("a self-signed certificate",   |_| Holder::self_signed().show(&[]), "peer_untrusted", "not issued by any authority in the trust bundle"),
    ("a foreign root of our name",  |by| by.foreign.issue(|_| ()).show(&[&by.foreign]), "peer_untrusted", "not issued by any authority in the trust bundle"),
    ("our root, which did not sign",|by| by.foreign.issue(|_| ()).show(&[&by.ours]), "peer_untrusted", "not issued by any authority in the trust bundle"),
    ("a stolen intermediate",       |by| by.foreign.issue(|_| ()).show(&[&by.ours.issue_authority("stolen", |_| ())]), "peer_untrusted", "not issued by any authority in the trust bundle"),
    ("issued by another workload",  by_a_workload, "peer_untrusted", "not issued by any authority in the trust bundle"),
    ("issued by too long a path",   by_too_long_a_path, "peer_certificate_invalid", "does not verify"),
    ("issued by one that expired",  |by| show_with(&by.ours.issue_authority("over", |params| params.not_after = hours_from_now(-1).into())), "peer_certificate_expired", "expired at"),
    ("issued by one not allowed to",|by| show_with(&by.ours.issue_authority("mute", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign])), "peer_untrusted", "not issued by any authority in the trust bundle"),
    ("the issuer in its own place", |by| by.ours.issue_authority("first", |_| ()).show(&[]), "peer_certificate_invalid", "names the trust domain sidecar.local and no workload in it"),
    ("expired",                     |by| by.wrong(|params| params.not_after = hours_from_now(-1).into()), "peer_certificate_expired", "expired at"),
    ("not yet valid",               |by| by.wrong(|params| params.not_before = hours_from_now(1).into()), "peer_certificate_not_yet_valid", "is not valid before"),
    ("another trust domain",        |by| by.named(&["spiffe://evil.example/web"]), "peer_foreign", "claims to be spiffe://evil.example/web, which is not in trust domain sidecar.local"),
    ("the same by its own root",    |by| by.foreign.issue(|params| params.subject_alt_names = vec![uri("spiffe://evil.example/web")]).show(&[]), "peer_foreign", "claims to be spiffe://evil.example/web"),
    ("ours as a part of another",   |by| by.named(&["spiffe://sidecar.local.evil.example/web"]), "peer_foreign", "claims to be spiffe://sidecar.local.evil.example/web"),
    ("ours as a user of another",   |by| by.named(&["spiffe://sidecar.local@evil.example/web"]), "peer_certificate_invalid", "is no SPIFFE ID"),
    ("no workload",                 |by| by.named(&["spiffe://sidecar.local"]), "peer_certificate_invalid", "names the trust domain sidecar.local and no workload in it"),
    ("two names",                   |by| by.named(&["spiffe://sidecar.local/web", "spiffe://sidecar.local/admin"]), "peer_certificate_invalid", "carries 2 URI names"),
    ("one name twice",              |by| by.named(&["spiffe://sidecar.local/web", "spiffe://sidecar.local/web"]), "peer_certificate_invalid", "carries 2 URI names"),
    ("a name and a web page",       |by| by.named(&["spiffe://sidecar.local/web", "https://sidecar.local/web"]), "peer_certificate_invalid", "carries 2 URI names"),
    ("a web page alone",            |by| by.named(&["https://sidecar.local/web"]), "peer_certificate_invalid", "is no SPIFFE ID"),
    ("a name with a query",         |by| by.named(&["spiffe://sidecar.local/web?as=admin"]), "peer_certificate_invalid", "is no SPIFFE ID"),
    ("a name with a way up",        |by| by.named(&["spiffe://sidecar.local/web/../admin"]), "peer_certificate_invalid", "is no SPIFFE ID"),
    ("a name that ends a line",     |by| by.named(&["spiffe://sidecar.local/web\nlevel=ERROR"]), "peer_certificate_invalid", r"web\nlevel=ERROR"),
    ("a DNS name alone",            |by| by.wrong(|params| params.subject_alt_names = vec![SanType::DnsName("web.sidecar.local".try_into().expect("ASCII"))]), "peer_certificate_invalid", "carries no URI name"),
    ("no name",                     |by| by.wrong(|params| params.subject_alt_names.clear()), "peer_certificate_invalid", "carries no URI name"),
    ("an authority's certificate",  |by| by.wrong(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "peer_certificate_invalid", "may sign other certificates"),
    ("a right to sign others",      |by| by.wrong(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)), "peer_certificate_invalid", "may sign other certificates"),
    ("no right to sign at all",     |by| by.wrong(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]), "peer_certificate_invalid", "may not make digital signatures"),
    ("no word on its use",          |by| by.wrong(|params| params.key_usages.clear()), "peer_certificate_invalid", "may not make digital signatures"),
    ("meant for mail",              |by| by.wrong(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection]), "peer_certificate_invalid", "is not meant for both ends of TLS"),
    ("a key of 1024 bits",          |by| by.ours.issue_by_openssl(&by.directory, &["-newkey", "rsa:1024"], "-sha256"), "peer_certificate_invalid", "has an RSA key of 1024 bits, where 2048 are the least"),
    ("a signature with SHA-1",      |by| by.ours.issue_by_openssl(&by.directory, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "-sha1"), "peer_certificate_invalid", "does not verify"),
];

#[rustfmt::skip]
const STRANGE_CLIENTS: [Stranger; 5] = [
    ("TLS 1.2",                 &["-tls1_2", "-alpn", ALPN], "handshake_incompatible", "but not as a sidecar does"),
    ("another protocol",        &["-tls1_3", "-alpn", "h2"], "plaintext_refused", "does not speak mutual TLS"),
    ("a later protocol",        &["-tls1_3", "-alpn", "sidecar/10"], "plaintext_refused", "does not speak mutual TLS"),
    ("no protocol",             &["-tls1_3"], "plaintext_refused", "does not speak mutual TLS"),
    ("an unknown key exchange", &["-tls1_3", "-alpn", ALPN, "-groups", "X448"], "handshake_incompatible", "but not as a sidecar does"),
];

#[rustfmt::skip]
const STRANGE_SERVERS: [Stranger; 4] = [
    ("TLS 1.2",                 &["-tls1_2", "-alpn", ALPN], "plaintext_refused", "ProtocolVersion"),
    ("another protocol",        &["-tls1_3", "-alpn", "h2"], "plaintext_refused", "NoApplicationProtocol"),
    ("no protocol",             &["-tls1_3"], "plaintext_refused", "but not as a sidecar does"),
    ("an unknown key exchange", &["-tls1_3", "-alpn", ALPN, "-groups", "X448"], "plaintext_refused", "HandshakeFailure"),
];

#[test]
fn no_impostor_gets_to_the_app() {
    let site = Site::server_meshed(&["--inbound", "strict"]);
    for (count, (what, shows, close, says)) in (1..).zip(IMPOSTORS) {
        let shown = shows(&site.authorities);
        site.assert_client_is_refused(count, what, Some(&shown), &PROPER, close, says);
    }
    site.assert_unharmed();
}

#[test]
fn no_stranger_gets_to_the_app() {
    let site = Site::server_meshed(&["--inbound", "strict"]);
    let honest = site.authorities.ours.issue(|_| ()).show(&[]);
    for (count, (what, flags, close, says)) in (1..).zip(STRANGE_CLIENTS) {
        site.assert_client_is_refused(count, what, Some(&honest), flags, close, says);
    }
    site.assert_client_is_refused(
        STRANGE_CLIENTS.len() + 1,
        "no certificate",
        None,
        &PROPER,
        "peer_no_certificate",
        "the peer showed no certificate",
    );
    site.assert_unharmed();
}

#[test]
fn no_app_tells_an_impostor_anything() {
    let site = Site::client_meshed();
    for (count, (what, shows, close, says)) in (1..).zip(IMPOSTORS) {
        let shown = shows(&site.authorities);
        site.assert_server_is_refused(count, what, &shown, &PROPER, close, says);
    }
    site.assert_unharmed();
}

#[test]
fn no_app_tells_a_stranger_anything() {
    let site = Site::client_meshed();
    let honest = site.authorities.ours.issue(|_| ()).show(&[]);
    for (count, (what, flags, close, says)) in (1..).zip(STRANGE_SERVERS) {
        site.assert_server_is_refused(count, what, &honest, flags, close, says);
    }
    site.assert_unharmed();
}

#[test]
fn a_chain_beyond_all_measure_is_refused_by_both_ends() {
    let says = "but not as a sidecar does";
    let site = Site::server_meshed(&["--inbound", "strict"]);
    let shown = endless(&site.authorities.ours);
    site.assert_client_is_refused(
        1,
        "endless",
        Some(&shown),
        &PROPER,
        "handshake_incompatible",
        says,
    );
    site.assert_unharmed();

    let site = Site::client_meshed();
    let shown = endless(&site.authorities.ours);
    site.assert_server_is_refused(1, "endless", &shown, &PROPER, "plaintext_refused", says);
    site.assert_unharmed();
}

#[test]
fn intermediates_may_come_in_any_order() {
    let site = Site::server_meshed(&["--inbound", "strict"]);
    let ours = &site.authorities.ours;
    let upper = ours.issue_authority("upper", |_| ());
    let lower = upper.issue_authority("lower", |_| ());
    let web = lower.issue(|_| ());
    let orders = [web.show(&[&lower, &upper]), web.show(&[&upper, &lower])];
    for shown in orders {
        let output = site.client(Some(&shown), &PROPER).run();
        assert!(output.stdout.contains(FAREWELL), "{output}");
    }
    site.app().sessions_when(2);
}

#[test]
fn under_permissive_an_impostor_gets_to_the_app_without_a_byte() {
    // The client does not show the option, so the app is dialled before TLS begins.
    let site = Site::server_meshed_with(Behaviour::Echo, &[]);
    let cases = IMPOSTORS.iter().filter(|(what, ..)| {
        [
            "expired",
            "two names",
            "another trust domain",
            "a self-signed certificate",
        ]
        .contains(what)
    });
    for (count, (what, shows, close, says)) in (1..).zip(cases) {
        let shown = shows(&site.authorities);
        site.client(Some(&shown), &PROPER).run();
        site.assert_failed("inbound", count, what, close, says);
        let sessions = site.app().sessions_when(count);
        assert_eq!(sessions[count - 1].received, 0, "{what}");
    }
    assert!(!site.capture.finish().contains(SECRET));
}

#[test]
fn a_copied_certificate_is_worth_nothing_without_its_key() {
    let says = "did not prove that it holds the key";
    let site = Site::server_meshed(&["--inbound", "strict"]);
    let thief = stolen(&site.authorities.ours);
    let to = (site.pods.server.v4(), PORT);
    // The client's handshake is over before the server has judged it.
    let mut peer = TlsPeer::dial(&site.pods.client, to, &thief).expect("a handshake");
    let heard = peer.say(SECRET).and_then(|()| peer.hear());
    heard.expect_err("nothing is said to a thief");
    site.assert_failed("inbound", 1, "a thief", "peer_key_unproved", says);
    assert_eq!(site.app().sessions(), []);
    site.assert_unharmed();

    let site = Site::client_meshed();
    let thief = stolen(&site.authorities.ours);
    let listener = TlsPeer::listen(&site.pods.server, OWN_PORT);
    let app = site.talk(OWN_PORT);
    TlsPeer::accept(&listener, &thief).expect_err("a thief is not believed");
    assert_eq!(app.wait().success().stdout, "reset\n");
    site.assert_failed("outbound", 1, "a thief", "peer_key_unproved", says);
    site.assert_unharmed();
}

#[test]
fn a_session_is_taken_up_once_by_its_own_ticket_alone_and_early_data_reaches_nobody() {
    const EARLY: &str = "early rhinoceros";
    const AGAIN: &str = "Reused, TLSv1.3";
    let site = Site::server_meshed(&["--inbound", "strict"]);
    let honest = site.authorities.ours.issue(|_| ()).show(&[]);
    let directory = site.pods.client.sandbox().directory();
    let [given, forged, early] = ["given", "forged", "early"].map(|name| directory.join(name));
    fs::write(&early, EARLY).expect("writing a file");
    let with_ticket = |shown, ticket: &Path| {
        let client = site.client(shown, &PROPER).arg("-sess_in").arg(ticket);
        client.arg("-early_data").arg(&early).run()
    };

    let output = site
        .client(Some(&honest), &PROPER)
        .arg("-sess_out")
        .arg(&given)
        .run();
    assert!(output.stdout.contains(FAREWELL), "{output}");
    site.app().only_session();
    assert!(given.exists(), "a sidecar gives a ticket");

    // It proves who has it, once, and gives no leave to speak before that.
    let output = with_ticket(None, &given);
    assert!(output.stdout.contains(FAREWELL), "{output}");
    assert!(output.stdout.contains(AGAIN), "{output}");
    assert!(
        output.stdout.contains("Early data was not sent"),
        "{output}"
    );
    site.app().sessions_when(2);
    let output = with_ticket(None, &given);
    assert!(!output.stdout.contains(AGAIN), "{output}");
    assert!(!output.stdout.contains(FAREWELL), "{output}");
    let says = "the peer showed no certificate";
    site.assert_failed("inbound", 1, "a ticket again", "peer_no_certificate", says);

    // One of the client's own making is not taken, and neither is what came with it.
    site.forge_ticket(&forged);
    let output = with_ticket(None, &forged);
    assert!(!output.stdout.contains(FAREWELL), "{output}");
    site.assert_failed("inbound", 2, "a ticket", "peer_no_certificate", says);
    site.app().sessions_when(2);

    let output = with_ticket(Some(&honest), &forged);
    assert!(output.stdout.contains(FAREWELL), "{output}");
    assert!(
        output.stdout.contains("Early data was rejected"),
        "{output}"
    );
    let sessions = site.app().sessions_when(3);
    // What is said in time is SECRET, or nothing where the app's farewell comes first.
    assert!([0, SECRET.len() as u64].contains(&sessions[2].received));
}

/// What can follow a good handshake.
type Turn = (&'static str, fn(&mut TlsPeer) -> Vec<u8>);

#[rustfmt::skip]
const TURNS: [Turn; 9] = [
    ("plaintext",                   |_| b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ("a record of plaintext",       |_| b"\x17\x03\x03\x00\x10purple rhinocero".to_vec()),
    ("a request to renegotiate",    |_| b"\x16\x03\x03\x00\x04\x00\x00\x00\x00".to_vec()),
    ("another hello",               |_| b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03".to_vec()),
    ("the end in plaintext",        |_| b"\x15\x03\x03\x00\x02\x01\x00".to_vec()),
    ("a record that is too long",   |_| b"\x17\x03\x03\xff\xff\x00".to_vec()),
    ("a record twice",              |peer| peer.record(SECRET).repeat(2)),
    ("a record that was changed",   |peer| { let mut record = peer.record(SECRET); record[9] ^= 1; record }),
    ("half a record",               |peer| { let record = peer.record(SECRET); record[..record.len() / 2].to_vec() }),
];

#[test]
fn what_follows_a_good_handshake_is_tls_or_the_end_for_a_server() {
    let site = Site::server_meshed_with(Behaviour::Echo, &["--inbound", "strict"]);
    let honest = site.authorities.ours.issue(|_| ()).show(&[]);
    for (count, (what, turn)) in (1..).zip(TURNS) {
        let to = (site.pods.server.v4(), PORT);
        let mut peer = TlsPeer::dial(&site.pods.client, to, &honest).expect("a handshake");
        peer.say(SECRET).expect("an open connection");
        assert_eq!(peer.hear().expect("an open connection"), SECRET, "{what}");
        take(turn, &mut peer);
        let session = site.app().sessions_when(count).remove(count - 1);
        assert_eq!(session.end, "reset", "{what}");
        let more = session.received - SECRET.len() as u64;
        site.assert_broken("inbound", count, what, more);
    }
    site.assert_harmless();
}

#[test]
fn what_follows_a_good_handshake_is_tls_or_the_end_for_a_client() {
    let site = Site::client_meshed();
    let honest = site.authorities.ours.issue(|_| ()).show(&[]);
    let listener = TlsPeer::listen(&site.pods.server, OWN_PORT);
    for (count, (what, turn)) in (1..).zip(TURNS) {
        let app = site.snippet(
            OWN_PORT,
            "sock = dial(*sys.argv[1:])
sock.sendall(read(sock, 17))
count, _, end = drain(sock)
print(count, end)",
        );
        let mut peer = TlsPeer::accept(&listener, &honest).expect("a handshake");
        peer.say(SECRET).expect("an open connection");
        assert_eq!(peer.hear().expect("an open connection"), SECRET, "{what}");
        take(turn, &mut peer);
        let heard = app.wait().success().stdout;
        let (more, end) = heard.split_once(' ').expect("two words");
        assert_eq!(end, "reset\n", "{what}");
        site.assert_broken("outbound", count, what, more.parse().expect("a count"));
    }
    site.assert_unharmed();
}

/// Has a peer take a turn. The other side may be gone before it is through.
fn take(turn: fn(&mut TlsPeer) -> Vec<u8>, peer: &mut TlsPeer) {
    let bytes = turn(peer);
    let _ = peer.socket.write_all(&bytes);
    let _ = peer.socket.shutdown(Shutdown::Write);
    peer.end();
}

/// Of a certificate that this authority has issued.
fn show_with(issuer: &Holder) -> Shown {
    issuer.issue(|_| ()).show(&[issuer])
}

/// A workload of ours that issues a certificate to itself under another name.
fn by_a_workload(by: &Authorities) -> Shown {
    let workload = by.ours.issue(|_| ());
    let admin = workload.issue(|params| {
        params.subject_alt_names = vec![uri("spiffe://sidecar.local/admin")];
    });
    admin.show(&[&workload])
}

/// An authority that may not make others, and has.
fn by_too_long_a_path(by: &Authorities) -> Shown {
    let last = by.ours.issue_authority("last", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let beyond = last.issue_authority("beyond", |_| ());
    beyond.issue(|_| ()).show(&[&beyond, &last])
}

/// The certificate of one workload, with the key of another.
fn stolen(ours: &Holder) -> Shown {
    let own = ours.issue(|_| ()).show(&[]);
    ours.issue(|_| ()).show(&[]).with_key_of(own)
}

/// More certificates than fit into a message of the handshake.
fn endless(ours: &Holder) -> Shown {
    let issuer = ours.issue_authority("endless", |_| ());
    issuer.issue(|_| ()).show(&[&issuer; 200])
}
