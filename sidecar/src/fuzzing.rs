//! What the fuzzer feeds: a function for everything that parses bytes from a peer, a file, a
//! command line or the kernel.
//!
//! Each takes any bytes, and panics when a promise about them is broken. `fuzz/targets` has a
//! program for each; `fuzz/corpus` has inputs, which the tests below replay.

use std::{
    ffi::OsString,
    fmt::Display,
    fs::File,
    io::Write as _,
    net::SocketAddr,
    os::{fd::AsRawFd as _, unix::ffi::OsStringExt as _},
    path::PathBuf,
    str::FromStr,
    time::Instant,
};

use clap::{Args as _, Command, FromArgMatches as _};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use sidecar_common::Endpoint;

use crate::{
    bpf,
    config::{Config, Settings},
    identity::{End, Files, Leaf, Revocations, TrustBundle, shown_id},
    inject::{self, Change, Fate, Options, Unasked},
    observe::{
        Observation, TraceHeaders,
        conversation::{PREFACE, Step, frame, watch},
    },
    policy::{Cidr, IdentityPattern, Mode, ModeOverride, Port, PortRange},
    tls::{Verdict, judge},
    webhook::{self, Review},
};

/// What an API server asks of the webhook, or somebody else in its place.
pub fn admission_review(bytes: &[u8]) {
    let review = match Review::parse(bytes) {
        Ok(review) => review,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let answer = review.answer(&Options::default(), Unasked::Inject);
    assert_eq!(
        answer.verdict == webhook::Verdict::Injected,
        !answer.patch.is_empty(),
        "{answer:?}"
    );
    assert!(answer.value(&review)["response"]["allowed"].is_boolean());
}

/// A peer's certificate, and the same as an authority that vouches for itself.
pub fn certificate(bytes: &[u8]) {
    let der = CertificateDer::from(bytes);
    if let Err(flaw) = Leaf::parse(&der) {
        assert_loggable(&flaw);
    } else {
        assert!(shown_id(&der).is_some(), "a leaf shows its identity");
    }
    if let Some(id) = shown_id(&der) {
        assert_loggable(&id);
    }
    if let Ok(bundle) = TrustBundle::new(vec![der.clone().into_owned()]) {
        let chain = std::slice::from_ref(&der);
        for end in [End::Client, End::Server] {
            let none = Revocations::default();
            if let Err(flaw) = bundle.verify(end, &der, chain, &none, UnixTime::now()) {
                assert_loggable(&flaw);
            }
        }
    }
}

/// The first bytes of a connection. As more of them come, the verdict is given once.
pub fn client_hello(bytes: &[u8]) {
    let whole = judge(bytes);
    let half = judge(&bytes[..bytes.len() / 2]);
    assert!(
        half == Verdict::Incomplete || half == whole,
        "{half:?} became {whole:?}"
    );
}

/// A command line, one argument a line.
pub fn command_line(bytes: &[u8]) {
    let arguments = bytes
        .split(|byte| *byte == b'\n')
        .map(|argument| OsString::from_vec(argument.to_vec()));
    let command = Settings::augment_args(Command::new("sidecar").no_binary_name(true));
    let settings = command
        .try_get_matches_from(arguments)
        .and_then(|matches| Settings::from_arg_matches(&matches));
    match settings {
        Ok(settings) => configure(settings),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// An address and port as they stand in the kernel's maps: four words, and a port of 16 bits.
pub fn endpoint(bytes: &[u8]) {
    let Some((words, [high, low, ..])) = bytes.split_first_chunk::<16>() else {
        return;
    };
    let mut addr = [0; 4];
    for (word, chunk) in addr.iter_mut().zip(words.chunks_exact(4)) {
        *word = u32::from_ne_bytes(chunk.try_into().expect("a chunk of four"));
    }
    let port = u16::from_be_bytes([*high, *low]).into();
    let endpoint = Endpoint { addr, port };
    let socket = SocketAddr::from(endpoint);
    assert_eq!(Endpoint::from(socket), endpoint);
    assert_eq!(socket.is_ipv4(), endpoint.is_v4());
    assert_eq!(socket.ip().is_loopback(), endpoint.is_loopback());
    assert_eq!(socket.ip().is_unspecified(), endpoint.is_unspecified());
}

/// A PEM file of chain, key and trust bundle, all in one.
pub fn identity_files(bytes: &[u8]) {
    let (_file, path) = file(bytes);
    let files = Files {
        certificate: path.clone(),
        key: path.clone(),
        trust_bundle: path,
    };
    if let Err(error) = files.load() {
        assert_loggable(&error);
    }
}

/// A text of manifests. One that was edited has nothing that editing it once more would change.
pub fn manifests(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let change = Change::Inject {
        options: &Options::default(),
        unasked: Unasked::Inject,
    };
    let injected = match inject::manifests(text, change) {
        Ok((injected, _)) => injected,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let again = inject::manifests(&injected, change);
    let (again, outcomes) = again.unwrap_or_else(|error| panic!("{error}:\n{injected}"));
    assert_eq!(again, injected);
    let is_settled = |fate| matches!(fate, Fate::Unchanged | Fate::Skipped(_));
    assert!(
        outcomes.iter().all(|one| is_settled(one.result)),
        "{outcomes:?}"
    );
}

/// A conversation of a client and a server, in steps: who does something ([`step`]), the length of
/// what is said in two bytes, the more significant one first, and what is said.
pub fn observe(mut bytes: &[u8]) {
    let mut steps = Vec::new();
    while let [who, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (said, rest) = rest.split_at(length);
        steps.push(step(*who, said));
        bytes = rest;
    }
    assert_observed(&steps);
}

/// A conversation of HTTP/2, once both sides have begun it, in frames: who sends one and its kind, its
/// flags, its stream, the length of its payload in two bytes, the more significant one first, and its
/// payload.
pub fn observe_http2(mut bytes: &[u8]) {
    const SETTINGS: u8 = 0x4;
    const IS_SERVER: u8 = 0x80;
    let settings = frame(SETTINGS, 0, 0, &[]);
    let mut frames = vec![(0, [PREFACE, &settings].concat()), (IS_SERVER, settings)];
    while let [who, flags, stream, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        let kind = who & !IS_SERVER;
        frames.push((*who, frame(kind, *flags, (*stream).into(), payload)));
        bytes = rest;
    }
    let steps = frames.iter().map(|(who, frame)| match who & IS_SERVER {
        0 => Step::Client(frame),
        _ => Step::Server(frame),
    });
    assert_observed(&steps.collect::<Vec<_>>());
}

/// What is seen of a conversation does not depend on how its bytes are cut, and may stand in a log.
fn assert_observed(steps: &[Step<'_>]) {
    let now = Instant::now();
    let seen = watch(now, steps.iter().copied());
    let cut = steps.iter().flat_map(|step| step.bytewise());
    assert_eq!(watch(now, cut), seen, "byte by byte");
    for observation in &seen {
        if let Observation::Ended(exchange) = observation {
            for text in [&exchange.authority, &exchange.path].into_iter().flatten() {
                assert_loggable(text);
            }
        }
    }
}

/// What one side does, by a number.
fn step(who: u8, said: &[u8]) -> Step<'_> {
    match who % 4 {
        0 => Step::Client(said),
        1 => Step::Server(said),
        2 => Step::ClientEnds,
        _ => Step::ServerEnds,
    }
}

/// A list of certificates that their authority has taken back.
pub fn revocation_list(bytes: &[u8]) {
    match Revocations::new(&[CertificateRevocationListDer::from(bytes)]) {
        Ok(revocations) => assert!(revocations.due().is_some(), "one list has one date"),
        Err(flaw) => assert_loggable(&flaw),
    }
}

/// A settings file.
pub fn settings_file(bytes: &[u8]) {
    let (_file, path) = file(bytes);
    match Settings::from_file(&path) {
        Ok(settings) => configure(settings),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What the kernel answers when it is asked for the sockets that listen.
pub fn sock_diag(bytes: &[u8]) {
    let _ = bpf::listed(bytes);
}

/// The head of a request, a field a line. The place in a trace that it gives is one that others take.
pub fn trace_headers(bytes: &[u8]) {
    let mut headers = TraceHeaders::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            headers.field(&line[..colon], &line[colon + 1..]);
        }
    }
    let Some(parent) = headers.parent() else {
        return;
    };
    assert!(parent.trace_id != 0 && parent.span_id != 0, "{parent:?}");
    if let Some(state) = &parent.state {
        assert!(state.len() <= 512, "{parent:?}");
        assert!(
            !state.contains(|c| !matches!(c, '\t' | ' '..='~')),
            "{parent:?}"
        );
    }
    let mut again = TraceHeaders::default();
    let written = format!(
        "00-{:032x}-{:016x}-{:02x}",
        parent.trace_id,
        parent.span_id,
        u8::from(parent.is_sampled)
    );
    again.field(b"traceparent", written.as_bytes());
    if let Some(state) = &parent.state {
        again.field(b"tracestate", state.as_bytes());
    }
    assert_eq!(again.parent(), Some(parent));
}

/// Values that a user writes. What is accepted means the same when it is written out and read back.
pub fn values(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        assert_stable::<Cidr>(text);
        assert_stable::<IdentityPattern>(text);
        assert_stable::<Mode>(text);
        assert_stable::<ModeOverride>(text);
        assert_stable::<Port>(text);
        assert_stable::<PortRange>(text);
        if let Ok(cidr) = text.parse::<Cidr>() {
            let nets = cidr.nets();
            assert!(!nets.is_empty());
            assert!(nets.iter().all(|net| cidr.net().contains(net)));
        }
    }
}

/// Makes settings into what the daemon does.
fn configure(settings: Settings) {
    if let Err(error) = Config::try_from(settings) {
        assert!(!error.to_string().is_empty());
    }
}

/// A file in memory, for as long as it is held.
fn file(bytes: &[u8]) -> (File, PathBuf) {
    let mut file = File::from(memfd_create(c"input", MFdFlags::empty()).expect("memory"));
    file.write_all(bytes).expect("memory");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    (file, path)
}

/// What is said of a stranger's bytes is one line, whatever they are: nobody writes our log but us.
fn assert_loggable(sentence: &impl Display) {
    let sentence = sentence.to_string();
    assert!(!sentence.contains(char::is_control), "{sentence:?}");
}

fn assert_stable<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        let back = written.parse::<T>().ok();
        assert!(back == Some(value), "{text:?} became {written:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use super::*;

    /// A parser by the name of its program.
    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 14] = [
        ("admission_review", admission_review),
        ("certificate", certificate),
        ("client_hello", client_hello),
        ("command_line", command_line),
        ("endpoint", endpoint),
        ("identity_files", identity_files),
        ("manifests", manifests),
        ("observe", observe),
        ("observe_http2", observe_http2),
        ("revocation_list", revocation_list),
        ("settings_file", settings_file),
        ("sock_diag", sock_diag),
        ("trace_headers", trace_headers),
        ("values", values),
    ];

    fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
    }

    fn files(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
        fs::read_dir(directory)
            .expect("the directory is there")
            .map(|entry| entry.expect("it can be read").path())
    }

    /// What is in a directory, without extensions.
    fn names(directory: &Path) -> BTreeSet<String> {
        files(directory)
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into())
            .collect()
    }

    #[test]
    fn every_input_the_fuzzer_starts_from_passes() {
        for (target, feed) in TARGETS {
            let mut inputs = files(&directory().join("corpus").join(target)).peekable();
            assert!(inputs.peek().is_some(), "{target} has no input");
            for input in inputs {
                println!("{}", input.display());
                feed(&fs::read(input).expect("it can be read"));
            }
        }
    }

    #[test]
    fn every_parser_has_a_program_and_inputs() {
        let known: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names(&directory().join("targets")), known);
        assert_eq!(names(&directory().join("corpus")), known);
        let manifest =
            fs::read_to_string(directory().join("Cargo.toml")).expect("the manifest is there");
        for name in known {
            assert!(
                manifest.contains(&format!("\nname = \"{name}\"\n")),
                "{name}"
            );
        }
    }
}
