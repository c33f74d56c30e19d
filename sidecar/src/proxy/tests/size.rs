//! What each connection takes as long as it lasts, in bytes. Whoever needs more changes the number here,
//! and knows what he does to 10,000 of them.

use std::mem::{size_of, size_of_val};

use super::*;

#[tokio::test]
async fn a_connection_takes_no_more_room_than_it_did() {
    let (own, _) = two_that_keep_wires();
    let (proxy, _) = proxy(FakeKernel::default(), Mode::Permissive, own);
    let permit = |direction| proxy.establishing.admit(direction).expect("room");
    let (_app, accepted_) = accepted().await;
    let outbound = outbound::serve(&proxy, accepted_, permit(Direction::Outbound));
    assert!(size_of_val(&outbound) <= 1696, "{}", size_of_val(&outbound));
    let (_app, accepted_) = accepted().await;
    let drain = Drain::default();
    let inbound = inbound::serve(&proxy, accepted_, permit(Direction::Inbound), &drain);
    assert!(size_of_val(&inbound) <= 1728, "{}", size_of_val(&inbound));
    // Beside them, in a box, where there is TLS; more of that is rustls' own.
    assert!(
        size_of::<wire::Wire>() <= 1536,
        "{}",
        size_of::<wire::Wire>()
    );
}
