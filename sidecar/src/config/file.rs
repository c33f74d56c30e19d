//! The settings file.

use std::{fs::File, io::Read, path::Path};

use serde_saphyr::{DefaultMessageFormatter, Error as YamlError, MessageFormatter};

use super::{Error, Settings};

/// The largest file that is read, in bytes: a wrong name should cost a sentence, not all memory.
const LARGEST: u64 = 1 << 20;

/// How alike two names must be, from 0 to 1, for one to be taken for a misspelling of the other.
const ALIKE: f64 = 0.7;

impl Settings {
    /// Reads a YAML file. An unknown key or a wrong value is refused with its line.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
            .map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })?;
        if text.len() as u64 > LARGEST {
            return Err(Error::TooLarge(path.to_owned()));
        }
        parse(&text).map_err(|error| Error::Parse {
            path: path.to_owned(),
            line: error.location().map_or(1, |location| location.line()),
            problem: problem(error.without_snippet()),
        })
    }
}

/// Reads YAML; a text of comments alone sets nothing.
fn parse(text: &str) -> Result<Settings, YamlError> {
    serde_saphyr::from_str::<Option<Settings>>(text).map(Option::unwrap_or_default)
}

/// What is wrong, and what to write instead.
fn problem(error: &YamlError) -> String {
    match error {
        YamlError::SerdeUnknownField {
            field, expected, ..
        } => format!("unknown key `{field}`; {}", advice(field, expected)),
        YamlError::SerdeUnknownVariant {
            variant, expected, ..
        } => format!("unknown value `{variant}`; {}", advice(variant, expected)),
        YamlError::SerdeMissingField { field, .. } => format!("`{field}` is missing; add it"),
        YamlError::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("a key");
            format!("`{key}` is set twice; keep one of the two")
        }
        YamlError::MultipleDocuments { .. } => {
            "a second document starts here; keep all settings in one".to_owned()
        }
        YamlError::Message { msg, .. } => msg.clone(),
        YamlError::Unexpected { expected, .. } => match *expected {
            "sequence start" => "a list belongs here; write `key: [first, second]`".to_owned(),
            "mapping start" => "settings belong here; write `key: value`".to_owned(),
            "string scalar" => "one value belongs here, and no list; write `key: value`".to_owned(),
            expected => format!("{expected} belongs here; correct the YAML"),
        },
        other => format!(
            "{}; correct the YAML",
            DefaultMessageFormatter.format_message(other)
        ),
    }
}

/// The known name that was probably meant, or all of them.
fn advice(given: &str, known: &[&str]) -> String {
    match nearest(given, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known are {}", known.join(", ")),
    }
}

/// The name most like `given`, if one is alike enough to be meant.
fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::jaro(given, name), *name))
        .filter(|(alike, _)| *alike > ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentence that refuses `text`, after the line.
    fn refusal(text: &str) -> (u64, String) {
        let error = parse(text).expect_err(text);
        let line = error.location().map_or(1, |location| location.line());
        (line, problem(error.without_snippet()))
    }

    #[test]
    fn comments_alone_set_nothing() {
        for text in ["", "# nothing\n", "---\n", "log:\n"] {
            assert_eq!(parse(text).expect(text), Settings::default(), "{text:?}");
        }
    }

    #[test]
    fn off_is_a_mode_and_no_boolean() {
        let settings = parse("inbound: off\naccess-log: off\n").expect("valid");
        assert_eq!(settings.inbound, Some(crate::policy::Mode::Off));
        assert_eq!(settings.access_log, Some(super::super::AccessLog::Off));
    }

    #[test]
    fn each_mistake_is_named_with_its_line_and_a_way_out() {
        for (text, line, sentence) in [
            (
                "inbond: off",
                1,
                "unknown key `inbond`; did you mean `inbound`?",
            ),
            (
                "log: info\nadmin: 4195",
                2,
                "`4195` is not an address and port; \
                 write one such as 127.0.0.1:4195 or [::1]:4195",
            ),
            (
                "inbound: strickt",
                1,
                "unknown value `strickt`; did you mean `strict`?",
            ),
            (
                "inbound: 3",
                1,
                "unknown value `3`; known are off, permissive, strict",
            ),
            (
                "exclude-inbound-ports: [22, x]",
                1,
                "`x` is not a port; write a number from 1 to 65535",
            ),
            (
                "exclude-inbound-ports: 22",
                1,
                "a list belongs here; write `key: [first, second]`",
            ),
            (
                "admin: [127.0.0.1:4195]",
                1,
                "one value belongs here, and no list; write `key: value`",
            ),
            ("hello", 1, "settings belong here; write `key: value`"),
            (
                "overrides:\n  - direction: inbound\n    prt: 22",
                3,
                "unknown key `prt`; did you mean `port`?",
            ),
            (
                "overrides:\n  - direction: inbound\n    port: 22\n",
                3,
                "`mode` is missing; add it",
            ),
            (
                "log: info\nlog: warn",
                2,
                "`log` is set twice; keep one of the two",
            ),
            (
                "log: info\n---\nlog: warn",
                3,
                "a second document starts here; keep all settings in one",
            ),
        ] {
            assert_eq!(refusal(text), (line, sentence.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn mistakes_in_rules_are_named_as_exactly() {
        for (text, line, sentence) in [
            (
                "authorization:\n  rules:\n    - name: a\n      action: block\n      ports: [80]",
                4,
                "unknown value `block`; known are deny, allow, audit",
            ),
            (
                "authorization:\n  rules:\n    - name: a\n      action: deny\n      port: [80]",
                5,
                "unknown key `port`; did you mean `ports`?",
            ),
            (
                "authorization:\n  rules:\n    - name: a\n      action: deny\n      ports: 80",
                5,
                "a list belongs here; write `key: [first, second]`",
            ),
            (
                "authorization:\n  rules:\n    - name: a\n      action: deny\n      \
                 identities:\n        - spiffe://a/b\n        - spiffe://a",
                7,
                "`spiffe://a` is a trust domain and no workload; \
                 write `spiffe://a/*` for all of its workloads",
            ),
            (
                "authorization:\n  rules:\n    - name: a\n      action: deny\n      \
                 ports: [80]\n    - name: b\n      action: allow\n",
                6,
                "the rule `b` has no condition and would fit every connection; \
                 add one, or set `default` instead",
            ),
            (
                "authorization:\n  rules:\n    - {name: a, action: deny, ports: [80]}\n    \
                 - {name: a, action: deny, ports: [81]}\n",
                2,
                "two rules are called `a`; give each a name of its own",
            ),
            (
                "expect:\n  - port: 80\n    identities: [web]\n",
                3,
                "`web` names no identities; \
                 write one such as spiffe://example.org/ns/shop/sa/web, \
                 or spiffe://example.org/ns/shop/* for all below",
            ),
        ] {
            assert_eq!(refusal(text), (line, sentence.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_bomb_is_refused_at_once() {
        let nested = format!("overrides: {}", "[".repeat(100_000));
        let mut indented = String::new();
        for depth in 0..1_000 {
            indented.extend([&" ".repeat(depth), "a:\n"]);
        }
        // Each line holds ten times the one before.
        let mut laughs = "a0: &a0 ha\n".to_owned();
        for line in 1..12 {
            let before = format!("*a{},", line - 1).repeat(10);
            let next = format!("a{line}: &a{line} [{before}]\n");
            laughs.push_str(&next);
        }
        let aliases = format!("exclude-uids: [&a 1{}]", ", *a".repeat(200_000));
        for text in [nested, indented, laughs, aliases] {
            let started = std::time::Instant::now();
            let (_, sentence) = refusal(&text);
            assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
            assert!(
                sentence.len() < 1_000 && !sentence.contains('\n'),
                "{sentence}"
            );
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let error = Settings::from_file(Path::new("/dev/zero")).expect_err("no settings");
        assert_eq!(
            error.to_string(),
            "/dev/zero is larger than 1 MiB, which no settings file is; give another to --config"
        );
    }

    #[test]
    fn a_key_like_none_is_answered_with_all() {
        let (_, sentence) = refusal("zzz: 1");
        assert!(
            sentence.starts_with("unknown key `zzz`; known are cgroup, netns, "),
            "{sentence}"
        );
    }
}
