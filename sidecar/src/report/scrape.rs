use std::collections::BTreeMap;

use thiserror::Error;

/// The labels of a series, by name.
pub type Labels = BTreeMap<String, String>;

/// What one scrape of an admin endpoint says, in Prometheus' text format (version 0.0.4).
///
/// The crates that parse it leave out what they do not understand, or are not licensed as this is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    /// Every sample, by the name of its metric and its labels.
    samples: BTreeMap<String, BTreeMap<Labels, f64>>,
}

/// Why a text is no scrape.
#[derive(Debug, Error, PartialEq)]
#[error("line {line} is no sample of Prometheus' text format: {text:?}")]
pub struct NotAScrape {
    /// The number of the line, from 1 on.
    line: usize,
    /// The beginning of the line.
    text: String,
}

impl Scrape {
    /// Reads a scrape; a text with one line that is wrong is refused whole.
    pub fn parse(text: &str) -> Result<Self, NotAScrape> {
        /// What an error shows of a line, in characters.
        const SHOWN: usize = 80;
        let mut scrape = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, labels, value) = sample(line).ok_or_else(|| NotAScrape {
                line: number + 1,
                text: line.chars().take(SHOWN).collect(),
            })?;
            let series = scrape.samples.entry(name.to_owned()).or_default();
            series.insert(labels, value);
        }
        Ok(scrape)
    }

    /// The samples of a metric, by their labels.
    pub fn samples(&self, name: &str) -> impl Iterator<Item = (&Labels, f64)> {
        let samples = self.samples.get(name).into_iter().flatten();
        samples.map(|(labels, value)| (labels, *value))
    }

    /// The sample of a metric with exactly these labels.
    pub fn value(&self, name: &str, labels: &Labels) -> Option<f64> {
        self.samples.get(name)?.get(labels).copied()
    }
}

/// Name, labels and value of a line; a time that follows is left out.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
    let (name, rest) = line.split_at(end);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    let is_time = |word: &str| word.parse::<i64>().is_ok();
    (words.next().is_none_or(is_time) && words.next().is_none()).then_some((name, labels, value))
}

/// The labels, and what follows the closing brace.
fn labels(text: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start())?;
        labels.insert(name.trim().to_owned(), value);
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if after.starts_with('}') => after,
            None => return None,
        };
    }
}

/// A value in quotes without its escapes, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            character => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn samples_are_read_with_their_labels_and_without_their_time() {
        let text = "# HELP opened Connections.\n# TYPE opened counter\n\
                    opened{peer=\"spiffe://a/b,c\",tls=\"mutual\"} 2\n\
                    opened { peer = \"\" , } 3 1395066363000\n\n\
                    bucket{le=\"+Inf\"} +Inf\nseconds_sum 0.25\n";
        let scrape = Scrape::parse(text).expect("a scrape");
        let both = labels([("peer", "spiffe://a/b,c"), ("tls", "mutual")]);
        assert_eq!(scrape.value("opened", &both), Some(2.0));
        assert_eq!(scrape.value("opened", &labels([("peer", "")])), Some(3.0));
        assert_eq!(scrape.samples("opened").count(), 2);
        let infinite = labels([("le", "+Inf")]);
        assert_eq!(scrape.value("bucket", &infinite), Some(f64::INFINITY));
        assert_eq!(scrape.value("seconds_sum", &Labels::new()), Some(0.25));
        assert_eq!(scrape.samples("missing").count(), 0);
    }

    #[test]
    fn escapes_are_undone() {
        let scrape = Scrape::parse(r#"a{b="\\x\"\n}"} 1"#).expect("a scrape");
        assert_eq!(
            scrape.value("a", &labels([("b", "\\x\"\n}")])),
            Some(1.0),
            "{scrape:?}"
        );
    }

    #[test]
    fn one_wrong_line_is_named_and_nothing_is_taken() {
        for wrong in [
            "<html>",
            "a",
            "a{b=\"c\"",
            "a{b=\"c\" 1",
            "a{b=c} 1",
            "a{b=\"\\x\"} 1",
            "a one",
            "a 1 soon",
            "a 1 2 3",
            "{} 1",
        ] {
            let error = Scrape::parse(&format!("good 1\n{wrong}\n")).expect_err(wrong);
            assert_eq!((error.line, &*error.text), (2, wrong));
        }
    }
}
