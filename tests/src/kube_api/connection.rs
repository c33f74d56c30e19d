use std::{
    io::{self, BufReader, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Answer, Happening, Shared, Verb,
    request::{Asked, Request},
    store::metadata_only,
};

/// Answers what is asked on a connection until it ends.
pub(super) fn serve(shared: &Arc<Shared>, stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        let asked = request.asked();
        let answer = shared.state().asked(&request, asked.as_ref());
        if let Some(answer) = answer {
            match answer {
                Answer::Status(code) => status(stream, code)?,
                Answer::Body(body) => whole(stream, 200, "", &body)?,
                Answer::Silence => {
                    shared.wait_for_the_end();
                    return Ok(());
                }
                Answer::Disconnect => return Ok(()),
            }
            continue;
        }
        match asked {
            _ if request.path == "version" => {
                let version = json!({
                    "major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "",
                    "gitTreeState": "clean", "buildDate": "2025-04-23T00:00:00Z",
                    "goVersion": "go1.24", "compiler": "gc", "platform": "linux/amd64",
                });
                whole(stream, 200, "", &version.to_string())?;
            }
            _ if ["livez", "readyz", "healthz"].contains(&request.path.as_str()) => {
                whole(stream, 200, "", "ok")?;
            }
            Some(asked) if request.method == "GET" => match asked.verb {
                Verb::Watch => watch(shared, stream, &request, &asked)?,
                Verb::List => list(shared, stream, &request, &asked)?,
                Verb::Get => get(shared, stream, &request, &asked)?,
            },
            Some(_) => status(stream, 405)?,
            None => status(stream, 404)?,
        }
    }
    Ok(())
}

fn list(shared: &Shared, stream: &TcpStream, request: &Request, asked: &Asked) -> io::Result<()> {
    let limit = request.number("limit").unwrap_or(0);
    let limit = usize::try_from(limit).expect("pages fit into memory");
    let page = {
        let store = &mut shared.state().store;
        match request.parameter("continue") {
            "" => Ok(store.list(&asked.collection, &asked.selector, limit)),
            token => store.go_on(token, limit),
        }
    };
    let Ok(mut page) = page else {
        return status(stream, 410);
    };
    let mut kind = "List";
    let mut api_version = "v1";
    if request.wants_metadata_only() {
        page.items.iter_mut().for_each(metadata_only);
        (kind, api_version) = ("PartialObjectMetadataList", "meta.k8s.io/v1");
    }
    let list = json!({
        "kind": kind,
        "apiVersion": api_version,
        "metadata": {
            "resourceVersion": page.version.to_string(),
            "continue": page.more.unwrap_or_default(),
        },
        "items": page.items,
    });
    whole(stream, 200, "", &list.to_string())
}

fn get(shared: &Shared, stream: &TcpStream, request: &Request, asked: &Asked) -> io::Result<()> {
    let page = shared
        .state()
        .store
        .list(&asked.collection, &asked.selector, 0);
    let Some(mut object) = page.items.into_iter().next() else {
        return status(stream, 404);
    };
    if request.wants_metadata_only() {
        metadata_only(&mut object);
    }
    whole(stream, 200, "", &object.to_string())
}

fn watch(
    shared: &Arc<Shared>,
    mut stream: &TcpStream,
    request: &Request,
    asked: &Asked,
) -> io::Result<()> {
    let deadline = request.number("timeoutSeconds").map(Duration::from_secs);
    let deadline = deadline.map(|after| Instant::now() + after);
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    let mut watch = Watch {
        metadata_only: request.wants_metadata_only(),
        bookmarks: request.is("allowWatchBookmarks"),
        last: String::new(),
        stream,
    };
    let mut state = shared.state();
    let mut happened = state.happened.len();
    let mut version = match request.number("resourceVersion") {
        Some(version) if version > 0 && !request.is("sendInitialEvents") => version,
        _ => {
            let page = state.store.list(&asked.collection, &asked.selector, 0);
            drop(state);
            for object in page.items {
                watch.event(&json!({"type": "ADDED", "object": object}))?;
            }
            if request.is("sendInitialEvents") {
                watch.bookmark(&asked.collection, page.version, true)?;
            }
            state = shared.state();
            page.version
        }
    };
    state.watches.push(asked.collection.clone());
    let _open = OpenWatch(shared, asked.collection.clone());
    loop {
        if state.closed {
            // The count of open watches is kept in it.
            drop(state);
            return Err(gone());
        }
        if !state.silent {
            let Ok((now, events)) = state
                .store
                .since(version, &asked.collection, &asked.selector)
            else {
                drop(state);
                watch.error(410)?;
                return watch.end();
            };
            version = now;
            let fresh: Vec<_> = state.happened[happened..]
                .iter()
                .filter(|(collection, _)| *collection == asked.collection)
                .map(|(_, what)| what.clone())
                .collect();
            happened = state.happened.len();
            if !events.is_empty() || !fresh.is_empty() {
                drop(state);
                for event in &events {
                    watch.event(event)?;
                }
                for what in fresh {
                    match what {
                        Happening::Bookmark => {
                            if watch.bookmarks {
                                watch.bookmark(&asked.collection, version, false)?;
                            }
                        }
                        Happening::Error(code) => {
                            watch.error(code)?;
                            return watch.end();
                        }
                        Happening::Line(line) => watch.line(&line)?,
                        Happening::Again => {
                            let last = watch.last.clone();
                            watch.line(&last)?;
                        }
                        Happening::HalfLine => {
                            let half = watch.last[..watch.last.len() / 2].to_owned();
                            watch.chunk(&half)?;
                            return Err(gone());
                        }
                        Happening::End => return watch.end(),
                        Happening::Disconnect => return Err(gone()),
                    }
                }
                state = shared.state();
                continue;
            }
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            drop(state);
            return watch.end();
        }
        state = shared.wait(state, left);
    }
}

/// Ends a connection, not only an answer.
fn gone() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// Counts a watch as long as it lasts.
struct OpenWatch<'a>(&'a Shared, String);

impl Drop for OpenWatch<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        let position = state.watches.iter().position(|watch| *watch == self.1);
        if let Some(position) = position {
            state.watches.swap_remove(position);
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

/// The sending end of a watch.
struct Watch<'a> {
    stream: &'a TcpStream,
    metadata_only: bool,
    bookmarks: bool,
    last: String,
}

impl Watch<'_> {
    fn event(&mut self, event: &Value) -> io::Result<()> {
        let mut event = event.clone();
        if self.metadata_only {
            metadata_only(&mut event["object"]);
        }
        self.last = event.to_string();
        let line = self.last.clone();
        self.line(&line)
    }

    fn bookmark(&mut self, collection: &str, version: u64, initial: bool) -> io::Result<()> {
        let (api_version, plural) = collection.rsplit_once('/').expect("a path");
        let api_version = api_version.split_once('/').expect("a path").1;
        let kind = match plural {
            "pods" => "Pod",
            "services" => "Service",
            "endpointslices" => "EndpointSlice",
            "nodes" => "Node",
            "namespaces" => "Namespace",
            _ => "Object",
        };
        let mut metadata = json!({
            "resourceVersion": version.to_string(),
            "creationTimestamp": null,
        });
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let event = json!({
            "type": "BOOKMARK",
            "object": {"kind": kind, "apiVersion": api_version, "metadata": metadata},
        });
        self.line(&event.to_string())
    }

    fn error(&mut self, code: u16) -> io::Result<()> {
        let event = json!({"type": "ERROR", "object": status_object(code)});
        self.line(&event.to_string())
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        self.chunk(&format!("{line}\n"))
    }

    fn chunk(&mut self, bytes: &str) -> io::Result<()> {
        write!(self.stream, "{:x}\r\n{bytes}\r\n", bytes.len())
    }

    fn end(&mut self) -> io::Result<()> {
        write!(self.stream, "0\r\n\r\n")
    }
}

fn status(stream: &TcpStream, code: u16) -> io::Result<()> {
    let retry = if code == 429 {
        "Retry-After: 1\r\n"
    } else {
        ""
    };
    whole(stream, code, retry, &status_object(code).to_string())
}

fn status_object(code: u16) -> Value {
    let (reason, message) = match code {
        401 => ("Unauthorized", "Unauthorized"),
        403 => ("Forbidden", "that is forbidden to the user"),
        404 => (
            "NotFound",
            "the server could not find the requested resource",
        ),
        405 => ("MethodNotAllowed", "the server does not allow this method"),
        410 => ("Expired", "too old resource version"),
        429 => (
            "TooManyRequests",
            "too many requests, please try again later",
        ),
        503 => (
            "ServiceUnavailable",
            "the server is currently unable to handle the request",
        ),
        _ => (
            "InternalError",
            "an error on the server has prevented the request from succeeding",
        ),
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "message": message, "reason": reason, "code": code,
    })
}

fn whole(mut stream: &TcpStream, code: u16, headers: &str, body: &str) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {code} Status\r\nContent-Type: application/json\r\n{headers}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
