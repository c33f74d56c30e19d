use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::StreamExt;

use super::{Shown, caller::Local};
use crate::telemetry::{Filter, Format, ParseFilterError, Telemetry};

/// Lines as things happen, until the caller hangs up.
pub(super) async fn tap(
    caller: Local,
    State(shown): State<Shown>,
    RawQuery(query): RawQuery,
) -> Response {
    lines(&caller, &shown.telemetry, query.as_deref(), None)
}

/// Lines about what fits a query, until the caller hangs up; as long as it does not, it holds `room`.
pub(super) fn lines(
    caller: &Local,
    telemetry: &Telemetry,
    query: Option<&str>,
    room: Option<OwnedSemaphorePermit>,
) -> Response {
    let (format, filter) = match parse(query.unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    let Some(tap) = telemetry.tap(format, filter) else {
        return no_room();
    };
    caller.lasts();
    let content_type = match format {
        Format::Json => "application/x-ndjson",
        Format::Text => "text/plain; charset=utf-8",
    };
    let lines = tap.map(move |line| {
        let _held = &room;
        Ok::<_, std::convert::Infallible>(line)
    });
    let lines = Body::from_stream(lines);
    ([(header::CONTENT_TYPE, content_type)], lines).into_response()
}

/// As many taps as may be are open.
pub(super) fn no_room() -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "as many taps as may be are open: end one of them\n",
    )
        .into_response()
}

fn parse(query: &str) -> Result<(Format, Filter), ParseFilterError> {
    let mut format = Format::Text;
    let mut filter = Filter::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*name, &*value) {
            ("format", "json") => format = Format::Json,
            ("format", "text") => format = Format::Text,
            ("format", _) => {
                return Err(ParseFilterError::Value(format!(
                    "`{value}` is no format; write json or text"
                )));
            }
            _ => filter.add(&name, &value)?,
        }
    }
    Ok((format, filter))
}
