use std::{
    fs,
    io::{self, Write},
    net::Ipv4Addr,
    path::Path,
    sync::Mutex,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::timeout;
use tracing::subscriber::{DefaultGuard, set_default};

use super::*;
use crate::{
    identity::{
        Ca, Files, Revocations, Svid, TrustBundle, TrustContent,
        testing::{Namesake, ca, id},
    },
    telemetry::Options,
};

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_mins(1);

/// What the daemon logs, for as long as it is held.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic while writing").clone()).expect("text")
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while writing").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A workload whose identity is in files, and what keeps it.
struct Kept {
    dir: TempDir,
    files: Files,
    telemetry: Telemetry,
    identity: watch::Receiver<Option<Arc<Tls>>>,
}

impl Kept {
    /// A workload that has no files yet.
    fn new() -> Self {
        Self::with(|_| TrustFiles::default())
    }

    /// The same, with other files of trust in its directory.
    fn with(files_in: impl FnOnce(&Path) -> TrustFiles) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let trust_files = files_in(dir.path());
        let files = Files::in_dir(dir.path());
        let telemetry = Telemetry::new(Options::default()).expect("metrics of unique names");
        Self {
            identity: keep(Origin::Files(files.clone()), trust_files, telemetry.clone()),
            dir,
            files,
            telemetry,
        }
    }

    fn issue(&self, ca: &Ca, path: &str, lifetime: Duration) {
        let svid = ca.issue(&id(path), lifetime).expect("identity");
        self.files.save(&svid).expect("save");
    }

    /// The next identity that is published.
    async fn next(&mut self) -> Arc<Tls> {
        timeout(DEADLINE, self.identity.changed())
            .await
            .expect("a new identity in time")
            .expect("a keeper");
        let identity = self.identity.borrow_and_update().clone();
        identity.expect("an identity")
    }

    /// Waits until a metric is at least this much.
    async fn metric(&self, name: &str, least: u64) {
        let value = || {
            let text = self.telemetry.render().expect("metrics");
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        let reached = async {
            while value() < Some(least) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let reached = timeout(DEADLINE, reached).await;
        assert!(reached.is_ok(), "{name} is {:?}", value());
    }

    /// Waits until this source has failed so often.
    async fn failures(&self, source: &str, least: u64) {
        let name = format!(r#"sidecar_identity_failures_total{{source="{source}"}}"#);
        self.metric(&name, least).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewed_certificate_is_published_and_counted() {
    let (_dir, ca) = ca("example.org");
    let mut kept = Kept::new();
    kept.issue(&ca, "web", Duration::from_mins(30));
    let first = kept.next().await;
    kept.issue(&ca, "web", Duration::from_hours(1));
    let second = kept.next().await;
    assert!(second.not_after() > first.not_after());
    kept.metric("sidecar_identity_rotations_total", 1).await;
    let expiry = second.not_after().duration_since(SystemTime::UNIX_EPOCH);
    let expiry = expiry.expect("after the epoch").as_secs();
    kept.metric("sidecar_certificate_expiry_timestamp_seconds", expiry)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_valid_identity_and_says_until_when() {
    let (log, _guard) = Log::begin();
    let (_dir, ca) = ca("example.org");
    let mut kept = Kept::new();
    kept.issue(&ca, "web", Duration::from_mins(30));
    let valid = kept.next().await;

    // Something on its way that is over before it is read.
    let (certificate, key) = ca.issue_adjusted(&id("web"), |params| {
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_hours(2)).into();
        params.not_after = (now - Duration::from_hours(1)).into();
    });
    let expired = Svid::unchecked(&id("web"), vec![certificate], key, ca.trust());
    kept.files.save(&expired).expect("save");
    kept.failures("files", 2).await;
    assert!(!kept.identity.has_changed().expect("a keeper"));

    let until = Timestamp::try_from(valid.not_after()).expect("a time");
    let text = log.text();
    let said: Vec<_> = text
        .lines()
        .filter(|line| line.contains("expired at"))
        .collect();
    assert_eq!(said.len(), 1, "{text}");
    assert!(
        said[0].contains(&format!(
            "renew it; until then the identity before it is used, which is valid until {until}"
        )),
        "{text}"
    );

    kept.issue(&ca, "web", Duration::from_hours(1));
    kept.next().await;
}

#[tokio::test(start_paused = true)]
async fn each_failure_is_said_once() {
    let (log, _guard) = Log::begin();
    let kept = Kept::new();
    kept.failures("files", 3).await;
    fs::write(kept.dir.path().join("svid.pem"), "garbage").expect("write");
    kept.failures("files", 5).await;
    let text = log.text();
    let said = |words: &str| text.lines().filter(|line| line.contains(words)).count();
    assert_eq!(said("No such file or directory"), 1, "{text}");
    assert_eq!(said("holds data that is not PEM"), 1, "{text}");
    assert_eq!(said("the workload has no identity"), 2, "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_changes_its_name_is_taken_and_said() {
    let (log, _guard) = Log::begin();
    let (_dir, ca) = ca("example.org");
    let mut kept = Kept::new();
    kept.issue(&ca, "web", Duration::from_mins(30));
    kept.next().await;
    kept.issue(&ca, "shop", Duration::from_hours(1));
    assert_eq!(*kept.next().await.own(), id("shop"));
    let text = log.text();
    assert!(
        text.contains("the identity has changed: the workload is spiffe://example.org/shop")
            && text.contains("and was spiffe://example.org/web"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_that_peers_refuse_to_take_a_proof_from_is_not_published() {
    // The certificate holds, so that only a handshake shows it.
    let (_dir, ca) = ca("example.org");
    let svid = ca
        .issue(&id("web"), Duration::from_hours(1))
        .expect("identity");
    let (_, other) = ca.issue_adjusted(&id("web"), |_| {});
    let thief = Svid::unchecked(&id("web"), svid.chain().to_vec(), other, ca.trust());
    let refused = Tls::new(&thief).would_be_accepted().await;
    assert!(matches!(
        refused,
        Err(crate::tls::HandshakeError::PeerIdentity(_))
    ));
    Tls::new(&svid).would_be_accepted().await.expect("accepted");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_identity_is_told_before_and_when_it_comes() {
    let started = Instant::now();
    let not_after = SystemTime::now() + Duration::from_secs(1000);
    let mut notices = notices(not_after, None);
    let mut told = Vec::new();
    while let Some(notice) = come(notices.pop()).await {
        told.push((notice, started.elapsed().as_secs() / 60));
    }
    assert_eq!(told, [(Notice::Near, 13), (Notice::Past, 16)]);
}

/// A workload that is to refuse what `crl.pem` in its directory revokes.
fn with_crl() -> Kept {
    Kept::with(|dir| TrustFiles {
        crls: vec![dir.join("crl.pem")],
        ..TrustFiles::default()
    })
}

impl Kept {
    /// Writes `crl.pem` in one step.
    fn write_crl(&self, text: &str) {
        let new = self.dir.path().join("new");
        fs::write(&new, text).expect("write");
        fs::rename(new, self.dir.path().join("crl.pem")).expect("rename");
    }
}

/// Who a peer with this certificate is to `tls`, when it connects.
async fn judge(tls: &Tls, peer: &Svid) -> Result<crate::tls::Peer, crate::tls::HandshakeError> {
    let peer = Tls::new(peer);
    let (client, server) = tokio::io::duplex(1 << 16);
    let (_, accepted) = tokio::join!(
        peer.connect(Ipv4Addr::LOCALHOST.into(), client),
        tls.accept(server)
    );
    accepted.map(|(_, peer)| peer)
}

#[tokio::test(start_paused = true)]
async fn a_new_revocation_list_is_used_at_once() {
    let (_dir, ca) = ca("example.org");
    let peer = ca
        .issue(&id("db"), Duration::from_hours(1))
        .expect("identity");
    let mut kept = with_crl();
    kept.write_crl(&ca.revoked_pem(&[]));
    kept.issue(&ca, "web", Duration::from_hours(1));
    let before = kept.next().await;
    let mut known = judge(&before, &peer).await.expect("trusted");
    before.still_trusts(&mut known).expect("trusted");

    kept.write_crl(&ca.revoked_pem(&[&peer.chain()[0]]));
    let after = kept.next().await;
    assert!(judge(&after, &peer).await.is_err());
    let refused = after.still_trusts(&mut known).expect_err("revoked");
    assert_eq!(
        refused.to_string(),
        "the peer's certificate, which names spiffe://example.org/db, is revoked by its authority"
    );
}

#[tokio::test(start_paused = true)]
async fn a_damaged_revocation_list_keeps_the_one_before() {
    let (log, _guard) = Log::begin();
    let (_dir, ca) = ca("example.org");
    let peer = ca
        .issue(&id("db"), Duration::from_hours(1))
        .expect("identity");
    let mut kept = with_crl();
    let intact = ca.revoked_pem(&[&peer.chain()[0]]);
    kept.write_crl(&intact);
    kept.issue(&ca, "web", Duration::from_hours(1));
    kept.next().await;

    // Half of it, then one that another authority has signed in its place.
    kept.write_crl(&intact[..intact.len() / 2]);
    kept.failures("crl", 1).await;
    let mut forged = ::pem::parse(ca.revoked_pem(&[]))
        .expect("PEM")
        .into_contents();
    *forged.last_mut().expect("a signature") ^= 1;
    kept.write_crl(&::pem::encode(&::pem::Pem::new("X509 CRL", forged)));
    let said = async {
        while !log.text().contains("InvalidCrlSignature") {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(DEADLINE, said).await.expect("it is said");
    let text = log.text();
    assert!(
        text.contains("until then what it said before holds"),
        "{text}"
    );
    let tls = kept.identity.borrow().clone().expect("an identity");
    assert!(judge(&tls, &peer).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_trusted_before_it_is_known_who_is_revoked() {
    let (log, _guard) = Log::begin();
    let (_dir, ca) = ca("example.org");
    let mut kept = with_crl();
    kept.issue(&ca, "web", Duration::from_hours(1));
    kept.failures("crl", 2).await;
    assert!(kept.identity.borrow().is_none());
    let text = log.text();
    assert!(text.contains("nobody knows who is revoked"), "{text}");
    kept.write_crl(&ca.revoked_pem(&[]));
    kept.next().await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_peers_know_to_be_revoked_is_not_taken() {
    let (_dir, ca) = ca("example.org");
    let revoked = ca
        .issue(&id("web"), Duration::from_mins(30))
        .expect("identity");
    let mut kept = with_crl();
    kept.write_crl(&ca.revoked_pem(&[&revoked.chain()[0]]));
    kept.files.save(&revoked).expect("save");
    kept.failures("files", 1).await;
    assert!(kept.identity.borrow().is_none());
    kept.issue(&ca, "web", Duration::from_hours(1));
    kept.next().await;
}

#[tokio::test(start_paused = true)]
async fn a_federated_bundle_that_comes_late_is_taken() {
    let (_dir, ours) = ca("example.org");
    let (_dir, theirs) = ca("example.com");
    let foreign = spiffe::SpiffeId::new("spiffe://example.com/db").expect("SPIFFE ID");
    let peer = theirs
        .issue(&foreign, Duration::from_hours(1))
        .expect("identity");
    let mut kept = Kept::with(|dir| TrustFiles {
        federated: BTreeMap::from([(theirs.trust_domain().clone(), dir.join("theirs.pem"))]),
        ..TrustFiles::default()
    });
    kept.issue(&ours, "web", Duration::from_hours(1));
    let before = kept.next().await;
    assert!(judge(&before, &peer).await.is_err());

    let elsewhere = tempfile::tempdir().expect("temporary directory");
    let files = Files::in_dir(elsewhere.path());
    files.save(&peer).expect("save");
    fs::copy(files.trust_bundle, kept.dir.path().join("theirs.pem")).expect("copy");
    let after = kept.next().await;
    // The peer trusts its own domain alone, and refuses us in turn; it is what we say that counts.
    let known = judge(&after, &peer).await;
    assert!(
        !matches!(known, Err(crate::tls::HandshakeError::PeerIdentity(_))),
        "{known:?}"
    );
}

/// A keeper that hears from nobody: the test says what comes when, and in which order.
fn keeper(files: &TrustFiles) -> (Keeper, watch::Receiver<Option<Arc<Tls>>>) {
    let (publish, receiver) = watch::channel(None);
    let keeper = Keeper {
        label: "files",
        identities: mpsc::channel(1).1,
        others: OtherTrust::new(files),
        heard: files.files().is_empty(),
        news: mpsc::channel(1).1,
        publish,
        telemetry: Telemetry::new(Options::default()).expect("metrics of unique names"),
        identity: None,
        trust: None,
        offered: None,
        failures: BTreeMap::new(),
        notices: Vec::new(),
    };
    (keeper, receiver)
}

impl Keeper {
    /// Takes an identity as if it came now.
    async fn offer(&mut self, identity: impl Into<Identity>) {
        self.offered = Some(identity.into());
        self.update(false).await;
    }

    /// Takes what the only file of revocation lists says as if it came now.
    async fn hear_lists(&mut self, lists: Revocations) {
        let content = Ok(TrustContent::Revocations(lists));
        self.hear(vec![(TrustFile::Crl(only_crl()), content)]).await;
    }
}

fn only_crl() -> PathBuf {
    PathBuf::from("crl.pem")
}

fn keeper_with_crl() -> (Keeper, watch::Receiver<Option<Arc<Tls>>>) {
    keeper(&TrustFiles {
        crls: vec![only_crl()],
        ..TrustFiles::default()
    })
}

/// What was published last.
fn published(identity: &watch::Receiver<Option<Arc<Tls>>>) -> Arc<Tls> {
    identity.borrow().clone().expect("an identity")
}

#[tokio::test]
async fn a_revocation_list_that_comes_before_its_authority_is_used_when_that_comes() {
    let [old, new] = [(); 2].map(|()| Namesake::root("root", b"same"));
    let revoked = new.issue("revoked");
    let lists = new.revoked(&[&revoked.chain()[0]]);

    // At the start, when nothing held before.
    let (mut keeper, identity) = keeper_with_crl();
    keeper.hear_lists(lists.clone()).await;
    keeper.offer(old.issue("web")).await;
    assert!(identity.borrow().is_none(), "nobody knows who is revoked");
    keeper.offer(new.issue("web")).await;
    assert!(judge(&published(&identity), &revoked).await.is_err());
    judge(&published(&identity), &new.issue("db"))
        .await
        .expect("trusted");

    // Later, when another list did.
    let (mut keeper, identity) = keeper_with_crl();
    keeper.hear_lists(old.revoked(&[])).await;
    keeper.offer(old.issue("web")).await;
    keeper.hear_lists(lists).await;
    judge(&published(&identity), &old.issue("db"))
        .await
        .expect("trusted");
    keeper.offer(new.issue("web")).await;
    assert!(judge(&published(&identity), &revoked).await.is_err());
    judge(&published(&identity), &new.issue("db"))
        .await
        .expect("trusted");
}

#[tokio::test]
async fn an_identity_that_comes_before_the_list_that_lets_it_in_is_used_when_that_comes() {
    let [old, new] = [(); 2].map(|()| Namesake::root("root", b"same"));
    let (mut keeper, identity) = keeper_with_crl();
    keeper.hear_lists(old.revoked(&[])).await;
    keeper.offer(old.issue("web")).await;
    keeper.offer(new.issue("web")).await;
    // The list of the old root is not one that the new root has signed, so nobody passes under it.
    judge(&published(&identity), &old.issue("db"))
        .await
        .expect("trusted");
    keeper.hear_lists(new.revoked(&[])).await;
    judge(&published(&identity), &new.issue("db"))
        .await
        .expect("trusted");
}

#[tokio::test]
async fn a_list_that_an_authority_which_joins_later_has_not_signed_is_said_and_still_holds() {
    let (log, _guard) = Log::begin();
    let [old, new] = [(); 2].map(|()| Namesake::root("root", b"same"));
    let revoked = old.issue("revoked");
    let (mut keeper, identity) = keeper_with_crl();
    keeper.hear_lists(old.revoked(&[&revoked.chain()[0]])).await;
    let web = old.issue("web");
    keeper.offer(web.clone()).await;
    let both = vec![old.certificate(), new.certificate()];
    let both = TrustBundle::new(both).expect("bundle");
    let web = Svid::unchecked(
        &id("web"),
        web.chain().to_vec(),
        web.key().clone_key(),
        both,
    );
    keeper.offer(web).await;
    assert!(log.text().contains("InvalidCrlSignature"), "{}", log.text());
    let tls = published(&identity);
    assert!(judge(&tls, &revoked).await.is_err());
    judge(&tls, &old.issue("db")).await.expect("trusted");
    assert!(judge(&tls, &new.issue("db")).await.is_err());
}

#[tokio::test]
async fn the_first_identity_is_used_once_every_file_was_looked_at() {
    let (_dir, ours) = ca("example.org");
    let (_dir, theirs) = ca("example.com");
    let file = TrustFile::Federated(theirs.trust_domain().clone(), "theirs.pem".into());
    let foreign = spiffe::SpiffeId::new("spiffe://example.com/db").expect("SPIFFE ID");
    let peer = theirs
        .issue(&foreign, Duration::from_hours(1))
        .expect("identity");
    let web = ours
        .issue(&id("web"), Duration::from_hours(1))
        .expect("identity");
    let files = TrustFiles {
        federated: BTreeMap::from([(theirs.trust_domain().clone(), "theirs.pem".into())]),
        ..TrustFiles::default()
    };

    let (mut kept, identity) = keeper(&files);
    kept.offer(web.clone()).await;
    assert!(identity.borrow().is_none(), "a bundle was not looked at");
    let bundle = Ok(TrustContent::Bundle(theirs.trust()));
    kept.hear(vec![(file.clone(), bundle)]).await;
    // The peer trusts its own domain alone, and refuses us in turn; it is what we say that counts.
    let known = judge(&published(&identity), &peer).await;
    assert!(
        !matches!(known, Err(crate::tls::HandshakeError::PeerIdentity(_))),
        "{known:?}"
    );

    // One that cannot be read holds nobody else up.
    let (mut kept, identity) = keeper(&files);
    kept.offer(web).await;
    let missing = file.load();
    assert!(missing.is_err());
    kept.hear(vec![(file, missing)]).await;
    published(&identity);
}
