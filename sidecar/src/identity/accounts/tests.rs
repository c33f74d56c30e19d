use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;

use super::*;
use crate::identity::source::fake_workload_api::{Agent, X509SvidResponse, answer_of};
use crate::identity::testing::{ca, id};
use crate::identity::{Ca, Files, Identity, Svid};

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

type Identities = mpsc::Receiver<Result<Identity, Error>>;

fn account(name: &str) -> ServiceAccount {
    let (namespace, name) = name.split_once('/').expect("a namespace");
    ServiceAccount {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn accounts(origin: &Origin) -> Accounts {
    let trust_domain = TrustDomain::new("example.org").expect("a trust domain");
    Accounts::new(origin, trust_domain).expect("a place of many identities")
}

fn follow(accounts: &Accounts, name: &str) -> Identities {
    accounts.origin(&account(name)).expect("a name").follow()
}

async fn next(identities: &mut Identities) -> Result<Svid, String> {
    let next = timeout(DEADLINE, identities.recv()).await;
    let next = next.expect("an answer").expect("a source");
    next.map(|identity| identity.svid)
        .map_err(|error| error.to_string())
}

fn issue(ca: &Ca, name: &str) -> Svid {
    let ServiceAccount { namespace, name } = account(name);
    let id = id(&format!("ns/{namespace}/sa/{name}"));
    ca.issue(&id, Duration::from_hours(1)).expect("identity")
}

/// Writes the identity of one account to where that of another belongs.
fn write(dir: &Path, name: &str, svid: &Svid) {
    let dir = dir.join(name);
    std::fs::create_dir_all(&dir).expect("a writable directory");
    Files::as_mounted(&dir).save(svid).expect("files");
}

fn directory() -> (TempDir, Accounts) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let accounts = accounts(&Origin::Accounts(dir.path().to_owned()));
    (dir, accounts)
}

#[tokio::test]
async fn each_account_has_the_identity_in_its_own_files() {
    let (_ca_dir, ca) = ca("example.org");
    let (dir, accounts) = directory();
    for name in ["shop/web", "shop/cart"] {
        write(dir.path(), name, &issue(&ca, name));
    }
    for name in ["shop/web", "shop/cart"] {
        let svid = next(&mut follow(&accounts, name)).await.expect("identity");
        let name = name.replace('/', "/sa/");
        assert_eq!(
            svid.id().to_string(),
            format!("spiffe://example.org/ns/{name}")
        );
    }
}

#[tokio::test]
async fn no_account_is_served_by_the_identity_of_another() {
    let (_ca_dir, ca) = ca("example.org");
    let (dir, accounts) = directory();
    write(dir.path(), "shop/web", &issue(&ca, "shop/cart"));
    let mut web = follow(&accounts, "shop/web");
    assert_eq!(
        next(&mut web).await.expect_err("another's"),
        "what should identify spiffe://example.org/ns/shop/sa/web identifies \
         spiffe://example.org/ns/shop/sa/cart; put the files of \
         spiffe://example.org/ns/shop/sa/web there, or set trust-domain to theirs"
    );
    let peeked = accounts
        .origin(&account("shop/web"))
        .expect("a name")
        .peek();
    assert!(matches!(peeked, Err(Error::OfAnother { .. })));
    let own = issue(&ca, "shop/web");
    write(dir.path(), "shop/web", &own);
    // It may be read between two of its files.
    let taken = loop {
        match next(&mut web).await {
            Ok(svid) => break svid,
            Err(error) => assert!(error.contains("does not belong"), "{error}"),
        }
    };
    assert!(taken.is(&own));
}

#[tokio::test]
async fn the_files_of_an_account_may_come_later_and_are_renewed() {
    let (_ca_dir, ca) = ca("example.org");
    let (dir, accounts) = directory();
    let mut web = follow(&accounts, "shop/web");
    let error = next(&mut web).await.expect_err("nothing there");
    assert!(error.contains("shop/web/tls.crt"), "{error}");
    for _ in 0..2 {
        let svid = issue(&ca, "shop/web");
        write(dir.path(), "shop/web", &svid);
        let taken = loop {
            if let Ok(taken) = next(&mut web).await {
                break taken;
            }
        };
        assert!(taken.is(&svid));
    }
}

#[tokio::test]
async fn names_that_would_leave_the_directory_are_refused() {
    let (_dir, accounts) = directory();
    for name in [
        "../web",
        "shop/..",
        "./web",
        "shop/a/b",
        "/web",
        "shop/",
        "shop/we\0b",
    ] {
        let refused = accounts.origin(&account(name));
        assert!(matches!(refused, Err(Error::AccountName { .. })), "{name}");
        let tree = Arc::new(Tree::new(Path::new("/nonexistent")));
        let files = Issuer::directory(Path::new("/identities"), &account(name), tree);
        assert!(files.is_none() || name.contains('\0'), "{name}");
    }
}

#[tokio::test]
async fn the_development_ca_issues_to_each_account_its_own_identity() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let origin = Origin::DevCa {
        dir: dir.path().join("ca"),
        id: id("ignored"),
    };
    let accounts = accounts(&origin);
    for (name, expected) in [("shop/web", "ns/shop/sa/web"), ("db/main", "ns/db/sa/main")] {
        let svid = next(&mut follow(&accounts, name)).await.expect("identity");
        assert_eq!(*svid.id(), id(expected));
    }
    let other = TrustDomain::new("example.com").expect("a trust domain");
    let refused = Accounts::new(&origin, other).expect_err("another's domain");
    assert!(
        refused
            .to_string()
            .contains("set trust-domain to example.org")
    );
}

#[tokio::test]
async fn the_identity_of_one_workload_is_not_that_of_many_nor_the_other_way_round() {
    let trust_domain = TrustDomain::new("example.org").expect("a trust domain");
    let one = Origin::Files(Files::in_dir(Path::new("/nonexistent")));
    let refused = Accounts::new(&one, trust_domain).expect_err("one certificate");
    assert!(
        refused
            .to_string()
            .contains("set identities to a directory")
    );
    let many = Origin::Accounts("/run/identities".into());
    let refused = many.check().expect_err("many identities");
    assert!(
        refused
            .to_string()
            .contains("`sidecar node` gives each pod its own")
    );
}

/// An agent that answers one call, which is held as long as the sender.
fn agent(answers: Vec<X509SvidResponse>) -> (Agent, mpsc::Sender<X509SvidResponse>, Accounts) {
    let mut agent = Agent::new();
    agent.start();
    let call = agent.call(answers);
    let accounts = accounts(&Origin::WorkloadApi(agent.socket()));
    (agent, call, accounts)
}

// A second call would be answered by an error.
#[tokio::test]
async fn one_call_of_the_workload_api_gives_each_account_its_own_identity() {
    let (_dir, ca) = ca("example.org");
    let [web, cart] = ["shop/web", "shop/cart"].map(|name| issue(&ca, name));
    let (_agent, _call, accounts) = agent(vec![answer_of(&[&web, &cart])]);
    for _ in 0..20 {
        for (name, svid) in [("shop/cart", &cart), ("shop/web", &web)] {
            let taken = next(&mut follow(&accounts, name)).await.expect("identity");
            assert!(taken.is(svid), "{name}: {}", taken.id());
        }
    }
}

#[tokio::test]
async fn an_account_that_is_not_registered_is_named_and_waits_for_its_identity() {
    let (_dir, ca) = ca("example.org");
    let [web, cart] = ["shop/web", "shop/cart"].map(|name| issue(&ca, name));
    let (agent, call, accounts) = agent(vec![answer_of(&[&web])]);
    let mut late = follow(&accounts, "shop/cart");
    assert_eq!(
        next(&mut late).await.expect_err("not registered"),
        format!(
            "the Workload API at {} does not issue spiffe://example.org/ns/shop/sa/cart to the \
             agent of this node; register it with the agent's server, with selectors of the \
             agent's own process, or set trust-domain to the one that is issued for",
            agent.socket().display()
        )
    );
    call.send(answer_of(&[&web, &cart])).await.expect("a call");
    assert!(next(&mut late).await.expect("identity").is(&cart));
}

#[tokio::test]
async fn an_identity_that_is_withdrawn_is_told_to_its_account_alone() {
    let (_dir, ca) = ca("example.org");
    let [web, cart] = ["shop/web", "shop/cart"].map(|name| issue(&ca, name));
    let (_agent, call, accounts) = agent(vec![answer_of(&[&web, &cart])]);
    let mut of_web = follow(&accounts, "shop/web");
    let mut of_cart = follow(&accounts, "shop/cart");
    next(&mut of_web).await.expect("identity");
    next(&mut of_cart).await.expect("identity");
    call.send(answer_of(&[&cart])).await.expect("a call");
    let error = next(&mut of_web).await.expect_err("withdrawn");
    assert!(error.contains("does not issue"), "{error}");
    assert!(next(&mut of_cart).await.expect("identity").is(&cart));
}

#[tokio::test]
async fn a_renewal_reaches_the_account_that_it_is_for() {
    let (_dir, ca) = ca("example.org");
    let [web, cart] = ["shop/web", "shop/cart"].map(|name| issue(&ca, name));
    let (_agent, call, accounts) = agent(vec![answer_of(&[&web, &cart])]);
    let mut of_cart = follow(&accounts, "shop/cart");
    next(&mut of_cart).await.expect("identity");
    let renewed = issue(&ca, "shop/cart");
    call.send(answer_of(&[&web, &renewed]))
        .await
        .expect("a call");
    assert!(next(&mut of_cart).await.expect("identity").is(&renewed));
}

#[tokio::test]
async fn a_pod_that_comes_while_the_agent_is_away_has_what_was_issued_before() {
    let (_dir, ca) = ca("example.org");
    let web = issue(&ca, "shop/web");
    let (agent, call, accounts) = agent(vec![answer_of(&[&web])]);
    let mut first = follow(&accounts, "shop/web");
    next(&mut first).await.expect("identity");
    drop((call, agent));
    let error = next(&mut first).await.expect_err("no agent");
    assert!(error.contains("does not answer"), "{error}");
    let mut second = follow(&accounts, "shop/web");
    assert!(next(&mut second).await.expect("identity").is(&web));
}

#[tokio::test]
async fn an_agent_that_issues_nothing_any_more_has_taken_everything_back() {
    let (_dir, ca) = ca("example.org");
    let web = issue(&ca, "shop/web");
    let (agent, call, accounts) = agent(vec![answer_of(&[&web])]);
    let mut first = follow(&accounts, "shop/web");
    next(&mut first).await.expect("identity");
    agent.refuse(Status::permission_denied("no identity issued"));
    drop(call);
    while !next(&mut first)
        .await
        .expect_err("no identity")
        .contains("does not issue")
    {}
    let mut second = follow(&accounts, "shop/web");
    let error = next(&mut second).await.expect_err("no identity");
    assert!(error.contains("does not issue"), "{error}");
}
