use std::{fmt, net::IpAddr};

use serde::Deserialize;
use spiffe::SpiffeId;
use thiserror::Error;

use super::{Cidr, IdentityPattern, Port};

/// Who must answer when the app dials: for some destinations, some identities.
///
/// The most specific entry counts, as among overrides of the mode: one that names the port beats
/// one that does not; among those that remain, the longest prefix wins.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Vec<Expectation>")]
pub struct Expectations(Vec<Expectation>);

/// Who must answer at some destinations.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Document")]
pub struct Expectation {
    /// Where the server is; `None`: anywhere.
    cidr: Option<Cidr>,
    /// The destination port; `None`: any.
    port: Option<Port>,
    /// The server has to be one of these.
    identities: Vec<IdentityPattern>,
}

impl Expectations {
    /// The entry for a destination, if there is one.
    pub fn of(&self, port: u16, remote: IpAddr) -> Option<&Expectation> {
        let remote = remote.to_canonical();
        self.iter()
            .filter(|entry| entry.port.is_none_or(|named| named.number() == port))
            .filter(|entry| entry.cidr.is_none_or(|cidr| cidr.net().contains(&remote)))
            .max_by_key(|entry| entry.specificity())
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = &Expectation> {
        self.0.iter()
    }
}

impl TryFrom<Vec<Expectation>> for Expectations {
    type Error = DuplicateExpectation;

    fn try_from(entries: Vec<Expectation>) -> Result<Self, DuplicateExpectation> {
        for (index, entry) in entries.iter().enumerate() {
            let mut earlier = entries[..index].iter();
            if earlier.any(|other| (other.cidr, other.port) == (entry.cidr, entry.port)) {
                return Err(DuplicateExpectation(entry.place()));
            }
        }
        Ok(Self(entries))
    }
}

impl Expectation {
    /// Is this one who may answer? The identity must have been verified.
    pub fn fits(&self, identity: &SpiffeId) -> bool {
        self.identities.iter().any(|pattern| pattern.fits(identity))
    }

    /// Where the server is; `None`: anywhere.
    pub const fn cidr(&self) -> Option<Cidr> {
        self.cidr
    }

    /// The destination port; `None`: any.
    pub const fn port(&self) -> Option<Port> {
        self.port
    }

    /// The destinations in words.
    pub(super) fn place(&self) -> String {
        match (self.cidr, self.port) {
            (Some(cidr), Some(port)) => format!("port {port} of {cidr}"),
            (Some(cidr), None) => cidr.to_string(),
            (None, Some(port)) => format!("port {port}"),
            (None, None) => "every destination".to_owned(),
        }
    }

    fn specificity(&self) -> (bool, bool, u8) {
        (
            self.port.is_some(),
            self.cidr.is_some(),
            self.cidr.map_or(0, |cidr| cidr.net().prefix_len()),
        )
    }
}

/// Who may answer, in words.
impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pattern) in self.identities.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { " or " })?;
            pattern.fmt(f)?;
        }
        Ok(())
    }
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    cidr: Option<Cidr>,
    port: Option<Port>,
    identities: Vec<IdentityPattern>,
}

impl TryFrom<Document> for Expectation {
    type Error = NobodyExpected;

    fn try_from(document: Document) -> Result<Self, NobodyExpected> {
        let Document {
            cidr,
            port,
            identities,
        } = document;
        let entry = Self {
            cidr,
            port,
            identities,
        };
        if entry.identities.is_empty() {
            return Err(NobodyExpected(entry.place()));
        }
        Ok(entry)
    }
}

/// An entry without identities.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("nobody is expected at {0}; name at least one identity")]
pub struct NobodyExpected(String);

/// Two entries are about the same destinations.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0} is named twice; name all who may answer there in one entry")]
pub struct DuplicateExpectation(String);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Direction, Mode, ModeTable, OverrideError};

    fn expectations(yaml: &str) -> Expectations {
        serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refusal(yaml: &str) -> String {
        let error = serde_saphyr::from_str::<Expectations>(yaml).expect_err(yaml);
        match error.without_snippet() {
            serde_saphyr::Error::Message { msg, .. } => msg.clone(),
            other => panic!("{other}"),
        }
    }

    /// Who is expected at a destination.
    fn expected(expectations: &Expectations, port: u16, remote: &str) -> Option<String> {
        let entry = expectations.of(port, remote.parse().expect(remote))?;
        Some(entry.to_string())
    }

    #[test]
    fn the_most_specific_entry_counts() {
        let all = expectations(
            "[{identities: ['spiffe://a/*']}, \
              {cidr: 10.0.0.0/8, identities: ['spiffe://a/eight']}, \
              {cidr: 10.1.0.0/16, identities: ['spiffe://a/sixteen']}, \
              {port: 5432, identities: ['spiffe://a/port']}, \
              {cidr: 10.0.0.0/8, port: 5432, identities: ['spiffe://a/both', 'spiffe://a/b/*']}]",
        );
        for (port, remote, identity) in [
            (80, "192.0.2.1", "spiffe://a/*"),
            (80, "fd00::1", "spiffe://a/*"),
            (80, "10.2.0.1", "spiffe://a/eight"),
            (80, "::ffff:10.2.0.1", "spiffe://a/eight"),
            (80, "10.1.0.1", "spiffe://a/sixteen"),
            (5432, "192.0.2.1", "spiffe://a/port"),
            (5432, "10.1.0.1", "spiffe://a/both or spiffe://a/b/*"),
        ] {
            assert_eq!(
                expected(&all, port, remote).as_deref(),
                Some(identity),
                "{port} {remote}"
            );
        }
        assert_eq!(expected(&Expectations::default(), 80, "10.1.0.1"), None);
    }

    #[test]
    fn one_who_is_expected_is_expected_by_tls() {
        let table = |mode| ModeTable::new(Direction::Outbound, mode, &[]).expect("no overrides");
        let some = expectations("[{cidr: 10.0.0.0/8, identities: ['spiffe://a/b']}]");
        for mode in [Mode::Off, Mode::Permissive] {
            let table = table(mode).expecting(&some).expect("no contradiction");
            assert_eq!(
                table.mode(80, "10.0.0.1".parse().expect("an address")),
                Mode::Strict
            );
            assert_eq!(
                table.mode(80, "11.0.0.1".parse().expect("an address")),
                mode
            );
        }
        let all = expectations("[{identities: ['spiffe://a/b']}]");
        assert_eq!(
            table(Mode::Off).expecting(&all),
            Err(OverrideError::NobodyLooks("every destination".to_owned()))
        );
    }

    #[test]
    fn what_nobody_can_mean_is_refused() {
        assert_eq!(
            refusal("[{port: 80, identities: []}]"),
            "nobody is expected at port 80; name at least one identity"
        );
        let twice = "{cidr: 10.0.0.0/8, port: 80, identities: ['spiffe://a/b']}";
        assert_eq!(
            refusal(&format!("[{twice}, {twice}]")),
            "port 80 of 10.0.0.0/8 is named twice; name all who may answer there in one entry"
        );
    }
}
