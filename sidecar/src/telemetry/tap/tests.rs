use std::time::Duration;

use spiffe::SpiffeId;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::{
    super::record::{End, Named, What},
    *,
};
use crate::{
    cli::golden,
    observe::{Exchange, Lost, Text, testing::call},
    policy::{Direction, authorization::RuleName},
    proxy::{ClientAddr, Close, OrigDst},
    telemetry::TlsUse,
};

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(10);

fn record(tls: &TlsUse, port: u16) -> Record<'_> {
    Record {
        time: SystemTime::UNIX_EPOCH,
        is_sampled: true,
        direction: Direction::Inbound,
        client: ClientAddr("198.18.0.1:40000".parse().expect("an address")),
        destination: OrigDst(([198, 18, 0, 2], port).into()),
        tls,
        own: "spiffe://sidecar.local/own",
        rule: None,
        named: Named::default(),
        what: What::Opened,
    }
}

fn mutual(peer: &str) -> TlsUse {
    TlsUse::Mutual(SpiffeId::new(peer).expect("a SPIFFE ID"))
}

fn filter(conditions: &[(&str, &str)]) -> Filter {
    let mut filter = Filter::default();
    for (name, value) in conditions {
        filter.add(name, value).expect(value);
    }
    filter
}

async fn next(tap: &mut Tap) -> String {
    let line = timeout(DEADLINE, tap.next()).await;
    line.expect("a line in time").expect("an open tap")
}

#[tokio::test]
async fn a_tap_tells_what_fits_and_leaves_out_what_does_not() {
    let taps = Arc::new(Taps::default());
    let conditions = [
        ("port", "80"),
        ("peer", "spiffe://sidecar.local/ns/shop/*"),
        ("direction", "inbound"),
        ("kind", "opened"),
    ];
    let mut tap = taps
        .open(Format::Text, filter(&conditions))
        .expect("the first");
    let (shop, other) = (
        mutual("spiffe://sidecar.local/ns/shop/sa/web"),
        mutual("spiffe://sidecar.local/ns/bank/sa/web"),
    );
    taps.tell(&record(&shop, 81));
    taps.tell(&record(&other, 80));
    taps.tell(&record(&TlsUse::NoPeerOption, 80));
    let outbound = Record {
        direction: Direction::Outbound,
        ..record(&shop, 80)
    };
    taps.tell(&outbound);
    taps.tell(&record(&shop, 80));
    assert_eq!(
        next(&mut tap).await,
        "1970-01-01T00:00:00.000000Z opened inbound client=198.18.0.1:40000 \
         destination=198.18.0.2:80 tls=mutual own=spiffe://sidecar.local/own \
         peer=spiffe://sidecar.local/ns/shop/sa/web\n"
    );
}

#[tokio::test]
async fn only_requests_have_a_status() {
    let taps = Arc::new(Taps::default());
    let conditions = [("status", "2xx"), ("status", "none")];
    let mut tap = taps
        .open(Format::Text, filter(&conditions))
        .expect("the first");
    taps.tell(&record(&TlsUse::NoPeerOption, 80));
    assert!(timeout(Duration::ZERO, tap.next()).await.is_err());
}

#[tokio::test]
async fn lines_that_do_not_fit_are_dropped_and_told_in_their_place() {
    let taps = Arc::new(Taps::default());
    let mut tap = taps
        .open(Format::Json, Filter::default())
        .expect("the first");
    for _ in 0..LINES + 7 {
        taps.tell(&record(&TlsUse::NoPeerOption, 80));
    }
    for _ in 0..LINES {
        assert!(next(&mut tap).await.contains("\"event\":\"opened\""));
    }
    let gap: serde_json::Value = serde_json::from_str(&next(&mut tap).await).expect("JSON");
    assert_eq!(
        (&gap["event"], &gap["lines"]),
        (&json!("dropped"), &json!(7))
    );
    // And told once.
    taps.tell(&record(&TlsUse::NoPeerOption, 80));
    assert!(next(&mut tap).await.contains("\"event\":\"opened\""));
    assert!(timeout(Duration::ZERO, tap.next()).await.is_err());
}

#[test]
fn lines_are_as_they_have_always_been() {
    let exchange = Exchange {
        authority: Some(Text::new(b"shop:80")),
        ..call()
    };
    let rule: RuleName = "only-web".parse().expect("a name");
    let tls = mutual("spiffe://sidecar.local/ns/shop/sa/web");
    let end = |was_open, lost: Option<&'static Lost>, close| {
        What::Ended(End {
            was_open,
            sent: 120,
            received: 4096,
            duration: Duration::from_micros(1234),
            protocol: lost.is_none().then_some("http1"),
            lost,
            close,
            reason: None,
        })
    };
    let record = |tls, what| Record {
        rule: Some(&rule),
        what,
        ..record(tls, 80)
    };
    let lost = &Lost::ServerFirst;
    let records = [
        record(&tls, What::Opened),
        record(&tls, What::Request(&exchange)),
        record(&tls, end(true, None, Close::Eof)),
        record(&TlsUse::NoPeerOption, end(true, Some(lost), Close::Eof)),
        record(&tls, end(false, None, Close::Denied)),
        record(&TlsUse::Failed, end(false, None, Close::HandshakeBroken)),
    ];
    for (format, file) in [(Format::Text, "tap.txt"), (Format::Json, "tap.json")] {
        let taps = Arc::new(Taps::default());
        let tap = taps.open(format, Filter::default()).expect("the first");
        let mut lines: String = records
            .iter()
            .map(|record| tap.watcher.line(record))
            .collect();
        tap.watcher.dropped.store(12, Ordering::Relaxed);
        lines.extend(tap.watcher.gap(SystemTime::UNIX_EPOCH));
        golden::assert(file, &lines);
    }
}

#[test]
fn taps_are_few_and_make_room_when_they_go() {
    let taps = Arc::new(Taps::default());
    let open = || taps.open(Format::Text, Filter::default());
    let mut all: Vec<_> = (0..MOST).map(|_| open().expect("there is room")).collect();
    assert!(open().is_none());
    all.pop();
    let again = open();
    assert!(again.is_some());
    drop((all, again));
    assert_eq!(taps.count.load(Ordering::Relaxed), 0);
}
