use std::{
    fs,
    io::{self, Write},
    sync::Mutex,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::timeout;
use tracing::subscriber::{DefaultGuard, set_default};

use super::*;
use crate::{
    identity::{
        Ca, Files, Svid,
        testing::{ca, id},
    },
    telemetry::AccessLog,
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
        let dir = tempfile::tempdir().expect("temporary directory");
        let files = Files::in_dir(dir.path());
        let telemetry = Telemetry::new(AccessLog::off()).expect("metrics of unique names");
        Self {
            identity: keep(Origin::Files(files.clone()), telemetry.clone()),
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

    async fn metric(&self, line: &str) {
        let found = async {
            while !self.telemetry.render().expect("metrics").contains(line) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(DEADLINE, found)
            .await
            .unwrap_or_else(|_| panic!("no {line}: {}", self.telemetry.render().expect("metrics")));
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
    kept.metric("sidecar_identity_rotations_total 1").await;
    let expiry = second.not_after().duration_since(SystemTime::UNIX_EPOCH);
    let expiry = expiry.expect("after the epoch").as_secs();
    kept.metric(&format!(
        "sidecar_certificate_expiry_timestamp_seconds {expiry}"
    ))
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
    kept.metric(r#"sidecar_identity_failures_total{source="files"} 2"#)
        .await;
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
    kept.metric(r#"sidecar_identity_failures_total{source="files"} 3"#)
        .await;
    fs::write(kept.dir.path().join("svid.pem"), "garbage").expect("write");
    kept.metric(r#"sidecar_identity_failures_total{source="files"} 5"#)
        .await;
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
    let mut notices = notices(not_after);
    let mut told = Vec::new();
    while let Some(notice) = come(notices.pop()).await {
        told.push((notice, started.elapsed().as_secs() / 60));
    }
    assert_eq!(told, [(Notice::Near, 13), (Notice::Past, 16)]);
}
