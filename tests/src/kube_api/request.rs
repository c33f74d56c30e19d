use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead},
};

use super::{Verb, selector::Selector};

/// What somebody asks.
#[derive(Debug)]
pub(super) struct Request {
    pub method: String,
    target: String,
    /// Without query, and without the leading slash.
    pub path: String,
    pub query: BTreeMap<String, String>,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// A request for objects.
#[derive(Debug)]
pub(super) struct Asked {
    pub verb: Verb,
    pub collection: String,
    pub selector: Selector,
}

impl Request {
    /// The next on a connection, if there is one; bodies are skipped.
    pub fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = query.split('&').filter(|pair| !pair.is_empty());
        let query = query
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(key), decoded(value))
            })
            .collect();
        let mut request = Self {
            method,
            target: target.to_owned(),
            path: path.trim_start_matches('/').to_owned(),
            query,
            headers: BTreeMap::new(),
        };
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            let value = value.trim().to_owned();
            request.headers.insert(name.to_lowercase(), value);
        }
        let length = request.headers.get("content-length");
        let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        io::copy(&mut io::Read::take(&mut *stream, length), &mut io::sink())?;
        Ok(Some(request))
    }

    pub fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.parameter(name).parse().ok()
    }

    pub fn is(&self, name: &str) -> bool {
        ["true", "1"].contains(&self.parameter(name))
    }

    /// Does it want metadata alone?
    pub fn wants_metadata_only(&self) -> bool {
        let accept = self.headers.get("accept");
        accept.is_some_and(|accept| accept.contains("as=PartialObjectMetadata"))
    }

    /// What objects it is about, if it is about any.
    pub fn asked(&self) -> Option<Asked> {
        let mut parts: Vec<_> = self.path.split('/').collect();
        let root = match *parts.first()? {
            "api" => 2,
            "apis" => 3,
            _ => return None,
        };
        if parts.len() <= root {
            return None;
        }
        let mut rest = parts.split_off(root);
        let mut namespace = None;
        if rest[0] == "namespaces" && rest.len() > 2 {
            namespace = Some(rest[1]);
            rest.drain(..2);
        }
        let name = rest.get(1).copied();
        let verb = match (self.is("watch"), name) {
            (true, _) => Verb::Watch,
            (false, None) => Verb::List,
            (false, Some(_)) => Verb::Get,
        };
        Some(Asked {
            verb,
            collection: format!("{}/{}", parts.join("/"), rest[0]),
            selector: Selector::new(
                namespace,
                name,
                self.parameter("fieldSelector"),
                self.parameter("labelSelector"),
            ),
        })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<_> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits);
                u8::from_str_radix(&digits, 16).expect("two hexadecimal digits after a %")
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).expect("queries are UTF-8")
}
