//! What is seen of conversations, for tests.

use std::time::{Duration, Instant};

use super::{
    Exchange, GrpcStatus, Method, Observation, Outcome, Protocol, Text,
    conversation::{Step, watch},
};

/// A call of gRPC that found nothing.
pub(crate) fn call() -> Exchange {
    Exchange {
        protocol: Protocol::Grpc,
        method: Method::Post,
        authority: Some(Text::new(b"shop")),
        path: Some(Text::of_path(b"/shop.Stock/Take")),
        status: Some(200),
        grpc_status: Some(GrpcStatus::parse(b"5")),
        started: Instant::now(),
        first_byte: Some(Duration::from_micros(500)),
        duration: Duration::from_millis(2),
        request_bytes: 7,
        response_bytes: 9,
        outcome: Outcome::Complete,
        trace: None,
    }
}

/// What is seen of a conversation and then of its end, however its bytes are cut: whole, one by one,
/// and once at each position.
pub(super) fn observations(conversation: &[Step<'_>]) -> Vec<Observation> {
    let now = Instant::now();
    let whole = watch(now, conversation.iter().copied());
    let bytewise = conversation.iter().flat_map(|step| step.bytewise());
    assert_eq!(watch(now, bytewise), whole, "byte by byte");
    for (index, step) in conversation.iter().enumerate() {
        for at in 1..step.bytes().len() {
            let (first, second) = step.bytes().split_at(at);
            let steps = conversation[..index]
                .iter()
                .copied()
                .chain([step.with(first), step.with(second)])
                .chain(conversation[index + 1..].iter().copied());
            assert_eq!(watch(now, steps), whole, "step {index} cut at {at}");
        }
    }
    whole
}

/// The same, each in a line.
pub(super) fn lines(conversation: &[Step<'_>]) -> Vec<String> {
    observations(conversation).iter().map(line).collect()
}

/// One observation, in a line.
pub(super) fn line(observation: &Observation) -> String {
    match observation {
        Observation::Began(_) => "began".to_owned(),
        Observation::Ended(exchange) => exchange_line(exchange),
        Observation::Lost(lost) => format!("lost {lost}"),
    }
}

/// Method, authority, path, status, content sent and received, outcome.
fn exchange_line(exchange: &Exchange) -> String {
    let text = |text: &Option<Text>| text.as_ref().map_or("-".to_owned(), ToString::to_string);
    format!(
        "{} {} {} {} {}/{} {}",
        exchange.method.as_str(),
        text(&exchange.authority),
        text(&exchange.path),
        exchange
            .status
            .map_or("-".to_owned(), |status| status.to_string()),
        exchange.request_bytes,
        exchange.response_bytes,
        exchange.outcome.as_str()
    )
}
