//! Against a Workload API that does what the test wants.

use tokio::time::Instant;
use tonic::Status;

use super::*;
use crate::identity::Ca;
use crate::identity::source::fake_workload_api::{Agent, X509SvidResponse, answer};
use crate::identity::testing::{ca, id};

fn issue(ca: &Ca) -> Svid {
    ca.issue(&id("web"), Duration::from_hours(1))
        .expect("identity")
}

fn source(socket: &Path) -> WorkloadApi {
    WorkloadApi::new(socket.to_owned())
}

async fn refusal(source: &mut WorkloadApi) -> String {
    source.next().await.expect_err("no identity").to_string()
}

#[tokio::test]
async fn each_identity_of_the_stream_is_taken() {
    let (_dir, ca) = ca("example.org");
    let mut agent = Agent::new();
    agent.start();
    let [first, second] = [issue(&ca), issue(&ca)];
    let call = agent.call(vec![answer(&first)]);
    let mut source = source(&agent.socket());
    let taken = source.next().await.expect("identity").svid;
    assert!(taken.is(&first));
    assert_eq!(taken.key(), first.key());
    call.send(answer(&second)).await.expect("a call");
    assert!(source.next().await.expect("identity").svid.is(&second));
}

#[tokio::test]
async fn federated_bundles_come_with_the_identity() {
    let (_dir, ours) = ca("example.org");
    let (_dir, theirs) = ca("example.com");
    let mut agent = Agent::new();
    agent.start();
    let mut with_others = answer(&issue(&ours));
    with_others.federated_bundles.insert(
        "spiffe://example.com".to_owned(),
        theirs.trust().authorities()[0].to_vec(),
    );
    let _call = agent.call(vec![with_others]);
    let federated = source(&agent.socket())
        .next()
        .await
        .expect("identity")
        .federated;
    assert_eq!(
        federated,
        BTreeMap::from([(theirs.trust_domain().clone(), theirs.trust())])
    );
}

#[tokio::test]
async fn a_federated_bundle_that_cannot_be_used_takes_nobody_elses_trust_away() {
    let (_dir, ours) = ca("example.org");
    let (_dir, theirs) = ca("example.com");
    let mut agent = Agent::new();
    agent.start();
    let svid = issue(&ours);
    let mut with_others = answer(&svid);
    let root = theirs.trust().authorities()[0].to_vec();
    for (domain, bundle) in [("example.com", root), ("example.net", vec![])] {
        let domain = format!("spiffe://{domain}");
        with_others.federated_bundles.insert(domain, bundle);
    }
    let _call = agent.call(vec![with_others]);
    let taken = source(&agent.socket()).next().await.expect("identity");
    assert!(taken.svid.is(&svid));
    assert_eq!(
        taken.federated,
        BTreeMap::from([(theirs.trust_domain().clone(), theirs.trust())])
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_goes_and_comes_back_is_found_again() {
    let (_dir, ca) = ca("example.org");
    let mut agent = Agent::new();
    let mut source = source(&agent.socket());
    let path = agent.socket();
    assert_eq!(
        refusal(&mut source).await,
        format!(
            "the Workload API at {} does not answer (No such file or directory (os error 2)); \
             check that the agent runs and that its socket is mounted",
            path.display()
        )
    );

    agent.start();
    let call = agent.call(vec![answer(&issue(&ca))]);
    source.next().await.expect("identity");
    drop(call);
    assert!(refusal(&mut source).await.contains("it has ended the call"));

    agent.server.take().expect("a server").abort();
    std::fs::remove_file(&path).expect("a socket");
    let mut waits = Vec::new();
    for _ in 0..8 {
        let started = Instant::now();
        assert!(refusal(&mut source).await.contains("does not answer"));
        waits.push(started.elapsed());
    }
    assert!(waits[0] <= Duration::from_secs(1), "{waits:?}");
    assert!(waits[7] > Duration::from_secs(40), "{waits:?}");
    assert!(waits[7] <= Duration::from_secs(61), "{waits:?}");

    agent.start();
    let renewed = issue(&ca);
    let _call = agent.call(vec![answer(&renewed)]);
    assert!(source.next().await.expect("identity").svid.is(&renewed));
}

#[tokio::test(start_paused = true)]
async fn what_the_agent_refuses_is_said() {
    let mut agent = Agent::new();
    agent.start();
    agent.refuse(Status::permission_denied("no identity issued"));
    agent.refuse(Status::permission_denied("not you"));
    agent.refuse(Status::invalid_argument("security header missing"));
    let mut source = source(&agent.socket());
    assert!(
        refusal(&mut source)
            .await
            .contains("issues no identity to this workload; register it with the agent's server")
    );
    assert!(
        refusal(&mut source)
            .await
            .contains("refuses this workload (not you);")
    );
    assert!(
        refusal(&mut source)
            .await
            .contains("security header missing")
    );
}

#[tokio::test(start_paused = true)]
async fn an_oversized_answer_is_refused_and_the_next_call_is_served() {
    let (_dir, ca) = ca("example.org");
    let mut agent = Agent::new();
    agent.start();
    let svid = issue(&ca);
    let mut oversized = answer(&svid);
    oversized.crl.push(vec![0; 5 << 20]);
    let _first = agent.call(vec![oversized]);
    let _second = agent.call(vec![answer(&svid)]);
    let mut source = source(&agent.socket());
    let refused = refusal(&mut source).await;
    assert!(refused.contains("too large"), "{refused}");
    assert!(source.next().await.expect("identity").svid.is(&svid));
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_peers_would_refuse_is_not_taken() {
    let (_dir, ca) = ca("example.org");
    let (_dir, other) = crate::identity::testing::ca("example.org");
    let mut agent = Agent::new();
    agent.start();
    let svid = issue(&ca);
    let mut unknown_root = answer(&svid);
    unknown_root.svids[0].bundle = other.trust().authorities()[0].to_vec();
    let _first = agent.call(vec![unknown_root]);
    let _second = agent.call(vec![X509SvidResponse::default()]);
    let mut source = source(&agent.socket());
    let refused = refusal(&mut source).await;
    assert!(
        refused.contains("is not issued by any authority"),
        "{refused}"
    );
    let refused = refusal(&mut source).await;
    assert!(refused.contains("X509SVIDResponse.svids"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_answers_is_called_again() {
    let mut agent = Agent::new();
    agent.start();
    let _silent = agent.call(vec![]);
    let mut source = source(&agent.socket());
    let refused = refusal(&mut source).await;
    assert!(refused.contains("nothing came in 10s"), "{refused}");
}
