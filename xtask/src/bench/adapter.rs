//! The description of a peer: a proxy that others make, which carries what the sidecar carries.
//!
//! Peers do the same work as far as they can be told to: certificates of ECDSA P-256 that both sides
//! verify, TLS 1.3 with AES-256-GCM, one worker, every handshake in full. The sidecar is measured as
//! it is shipped, and differs: the suite is what rustls prefers, which is the same one; keys are
//! agreed on with X25519MLKEM768, which costs more than X25519 alone; and sessions are taken up again
//! on new connections, which costs less.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::workspace;

/// Where the project's own adapters are.
const DIRECTORY: &str = "xtask/peers";

/// What a peer's process can be told, in braces, in arguments and configuration.
pub const PLACEHOLDERS: [&str; 13] = [
    "listen",
    "listen_host",
    "listen_port",
    "upstream",
    "upstream_host",
    "upstream_port",
    "certificate",
    "key",
    "bundle",
    "ca",
    "name",
    "directory",
    "configuration",
];

/// How to run a peer as two processes: one takes plaintext from the client and speaks mutual TLS,
/// the other ends that and passes plaintext to the server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// What the report calls it.
    pub name: String,
    /// The program's path; where a package from `PyPI` brings it, below where that is installed.
    pub program: PathBuf,
    /// The arguments with which it tells its version.
    pub version: Vec<String>,
    /// What it negotiates and whether it takes up sessions again, for those who read the report.
    pub tls: String,
    /// What its configuration file is called; some look at the ending.
    pub file: String,
    /// Debian's packages, by a path that each brings.
    #[serde(default)]
    pub debian: BTreeMap<String, String>,
    /// A package from `PyPI` with its version, as pip wants it.
    pub pypi: Option<String>,
    pub client: Side,
    pub server: Side,
}

/// How to run one of the two processes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// The program's arguments.
    pub run: Vec<String>,
    /// What is in its configuration file.
    pub configuration: String,
}

impl Adapter {
    /// The project's own, in the order of their files' names.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        let directory = workspace::root().join(DIRECTORY);
        let files = fs::read_dir(&directory).with_context(|| format!("cannot read {DIRECTORY}"))?;
        let mut files = files
            .map(|file| Ok(file?.path()))
            .collect::<std::io::Result<Vec<_>>>()
            .with_context(|| format!("cannot read {DIRECTORY}"))?;
        files.retain(|file| file.extension().is_some_and(|ending| ending == "toml"));
        files.sort();
        files.iter().map(|file| Self::read(file)).collect()
    }

    /// The one that `file` describes.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("cannot read the adapter {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("cannot use the adapter {}", file.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let adapter: Self = toml::from_str(text).map_err(|error| one_line(&error, text))?;
        for (side, Side { run, configuration }) in
            [("client", &adapter.client), ("server", &adapter.server)]
        {
            let texts =
                { run.iter().map(|text| ("run", text)) }.chain([("configuration", configuration)]);
            for (key, text) in texts {
                if let Some(unknown) = unknown_placeholder(text) {
                    bail!("`{side}.{key}` has the unknown placeholder {{{unknown}}}");
                }
            }
        }
        Ok(adapter)
    }
}

/// The parser's sentence with the line it is about, without the picture that it paints.
fn one_line(error: &toml::de::Error, text: &str) -> anyhow::Error {
    let message = error.message().trim().replace('\n', "; ");
    let start = error.span().and_then(|span| text.get(..span.start));
    match start.map(|start| start.matches('\n').count() + 1) {
        Some(line) => anyhow::anyhow!("line {line}: {message}"),
        None => anyhow::anyhow!("{message}"),
    }
}

/// Fills in what the braces stand for.
pub fn fill(text: &str, values: &BTreeMap<&str, String>) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{name}}}"), value)
    })
}

/// The first word in braces, without any space, that stands for nothing. Braces around anything
/// else are a matter of the configuration's own language.
fn unknown_placeholder(text: &str) -> Option<&str> {
    text.split('{').skip(1).find_map(|rest| {
        let (word, _) = rest.split_once('}')?;
        let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        (is_word && !PLACEHOLDERS.contains(&word)).then_some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
name = "name"
program = "/bin/program"
version = []
tls = "none"
file = "file"
[client]
run = ["{configuration}"]
configuration = "{listen} {upstream}"
[server]
run = []
configuration = "events {} { a: b }"
"#;

    fn refused(text: &str) -> String {
        format!("{:#}", Adapter::parse(text).expect_err("it is wrong"))
    }

    #[test]
    fn all_of_the_projects_own_are_right() {
        let adapters = Adapter::all().expect("each of them parses");
        let names: Vec<_> = adapters.iter().map(|adapter| &*adapter.name).collect();

        assert_eq!(names, ["Envoy", "HAProxy", "nginx", "stunnel"]);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let refusal = refused(&MINIMAL.replace("[server]", "worker = 1\n[server]"));

        assert!(
            refusal.starts_with("line 10: unknown field `worker`"),
            "{refusal}"
        );
        assert!(!refusal.contains('\n'), "{refusal}");
    }

    #[test]
    fn a_missing_key_is_refused_by_name() {
        let refusal = refused(&MINIMAL.replace("program = \"/bin/program\"\n", ""));

        assert!(refusal.contains("missing field `program`"), "{refusal}");
    }

    #[test]
    fn an_unknown_placeholder_is_refused_with_its_key() {
        assert_eq!(
            refused(&MINIMAL.replace("{upstream}", "{upstraem}")),
            "`client.configuration` has the unknown placeholder {upstraem}"
        );
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = Adapter::read(Path::new("/nonexistent/peer.toml")).expect_err("it is missing");

        assert!(
            error.to_string().contains("/nonexistent/peer.toml"),
            "{error}"
        );
    }

    #[test]
    fn placeholders_are_filled_in_and_other_braces_stay() {
        let values = BTreeMap::from([("listen", "127.0.0.1:1".to_owned())]);

        assert_eq!(
            fill("events {} {listen} { a: b }", &values),
            "events {} 127.0.0.1:1 { a: b }"
        );
    }
}
