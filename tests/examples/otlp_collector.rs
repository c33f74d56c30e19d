//! A collector of traces to run in a pod: it takes spans by OTLP over gRPC, and prints each as a line
//! of JSON.
//!
//! Its only argument is the address and port to listen on.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    io::{self, Write as _},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{self as otlp, span::SpanKind, status::StatusCode},
};
use sidecar_tests::collector::Span;
use tonic::{Request, Response, Status, transport::Server};

/// Prints what it is sent.
struct Printer;

#[tonic::async_trait]
impl TraceService for Printer {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            for of_scope in of_resource.scope_spans {
                for span in of_scope.spans {
                    print(&shown(span, &resource))
                        .map_err(|error| Status::from_error(error.into()))?;
                }
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn print(span: &Span) -> io::Result<()> {
    let mut line = serde_json::to_vec(span)?;
    line.push(b'\n');
    io::stdout().lock().write_all(&line)
}

fn shown(span: otlp::Span, resource: &Resource) -> Span {
    let kind = span.kind();
    let code = span.status.as_ref().map(otlp::Status::code);
    Span {
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_span_id: hex(&span.parent_span_id),
        trace_state: span.trace_state,
        kind: match kind {
            SpanKind::Client => "client",
            SpanKind::Server => "server",
            _ => "other",
        }
        .to_owned(),
        name: span.name,
        is_error: code == Some(StatusCode::Error),
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        attributes: text(span.attributes),
        resource: text(resource.attributes.clone()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string has room");
        hex
    })
}

/// Attributes, with each value as text.
fn text(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .into_iter()
        .filter_map(|attribute| Some((attribute.key, text(attribute.value?.value?))))
        .collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = env::args().nth(1).expect("an address and port");
    let address = address.parse().expect("an address and port");
    Server::builder()
        .add_service(TraceServiceServer::new(Printer))
        .serve(address)
        .await
        .expect("the address is free");
}
