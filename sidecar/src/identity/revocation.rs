use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::{CertificateRevocationListDer, TrustAnchor};
use webpki::{
    CertRevocationList, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer, ParsedExtension};

use super::Flaw;

/// Certificates that authorities have taken back (RFC 5280 section 5).
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    lists: Vec<Arc<List>>,
}

#[derive(Debug)]
struct List {
    list: CertRevocationList<'static>,
    /// Which of several authorities of one name signed it (RFC 5280 section 5.2.1).
    key_id: Option<Vec<u8>>,
    /// When it was made.
    made: Timestamp,
    /// When the next one should have been made.
    due: Timestamp,
}

impl Revocations {
    /// Takes revocation lists. Who signed them is looked at when a certificate is verified.
    pub fn new(lists: &[CertificateRevocationListDer<'_>]) -> Result<Self, Flaw> {
        let mut all = Self::default();
        for list in lists {
            all.add(Arc::new(List::parse(list)?));
        }
        Ok(all)
    }

    /// Adds those of `others`.
    pub(super) fn extend(&mut self, others: &Self) {
        for list in &others.lists {
            self.add(Arc::clone(list));
        }
    }

    /// Of two lists of one authority the later one counts (RFC 5280 section 5).
    fn add(&mut self, new: Arc<List>) {
        match self.lists.iter_mut().find(|old| old.is_in_place_of(&new)) {
            Some(old) if old.made < new.made => *old = new,
            Some(_) => {}
            None => self.lists.push(new),
        }
    }

    /// When the first of the lists is overdue, if there are any.
    pub fn due(&self) -> Option<Timestamp> {
        self.lists.iter().map(|list| list.due).min()
    }

    /// The lists to look at in chains that end in `anchor`, whose key is `key_id`.
    ///
    /// A list is found by its issuer's name, and two authorities may have the same one, as when a
    /// root is replaced. Then the list of one must not be held against the other, which it would
    /// be: its signature does not verify with the other's key.
    pub(super) fn under<'a>(
        &'a self,
        anchor: &TrustAnchor<'_>,
        key_id: Option<&[u8]>,
    ) -> Vec<&'a CertRevocationList<'a>> {
        let is_of_another = |list: &List| {
            list.list.issuer() == anchor.subject.as_ref()
                && matches!((&list.key_id, key_id), (Some(list), Some(anchor)) if list != anchor)
        };
        self.lists
            .iter()
            .filter(|list| !is_of_another(list))
            .map(|list| &list.list)
            .collect()
    }

    /// How `lists` are used: on the leaf and on intermediates. A certificate whose issuer gave no
    /// list is not revoked, and a list that is overdue still holds: what it revokes stays revoked,
    /// and an authority that falls silent does not stop the mesh.
    pub(super) fn options<'a>(
        lists: &'a [&'a CertRevocationList<'a>],
    ) -> Option<RevocationOptions<'a>> {
        // It refuses an empty list, and then there is nothing to look at.
        let options = RevocationOptionsBuilder::new(lists).ok()?;
        Some(
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build(),
        )
    }
}

impl List {
    fn parse(der: &CertificateRevocationListDer<'_>) -> Result<Self, Flaw> {
        let Ok(([], parsed)) = CertificateRevocationList::from_der(der) else {
            return Err(Flaw::Malformed);
        };
        let key_id =
            parsed
                .extensions()
                .iter()
                .find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::AuthorityKeyIdentifier(authority) => {
                        authority.key_identifier.as_ref().map(|id| id.0.to_vec())
                    }
                    _ => None,
                });
        let time = |time: ASN1Time| Timestamp::from_second(time.timestamp());
        Ok(Self {
            key_id,
            made: time(parsed.last_update()).unwrap_or(Timestamp::MIN),
            due: parsed
                .next_update()
                .and_then(|due| time(due).ok())
                .unwrap_or(Timestamp::MAX),
            list: OwnedCertRevocationList::from_der(der)?.into(),
        })
    }

    /// Whether only one of both can count: same authority, same part of its certificates.
    fn is_in_place_of(&self, other: &Self) -> bool {
        self.list.issuer() == other.list.issuer()
            && self.key_id == other.key_id
            && self.list.issuing_distribution_point() == other.list.issuing_distribution_point()
    }
}
