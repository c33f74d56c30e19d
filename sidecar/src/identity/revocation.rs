use std::{iter, sync::Arc};

use jiff::Timestamp;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm,
};
use webpki::{
    CertRevocationList, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer, ParsedExtension};

use super::authority::Authority;

/// Certificates that authorities have taken back (RFC 5280 section 5).
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    lists: Vec<Arc<List>>,
}

#[derive(Debug)]
struct List {
    parsed: CertRevocationList<'static>,
    /// What its issuer signed.
    message: Vec<u8>,
    /// By which its issuer signed that.
    signature: Vec<u8>,
    /// Which of several authorities of one name signed it (RFC 5280 section 5.2.1).
    key_id: Option<Vec<u8>>,
    /// When it was made.
    made: Timestamp,
    /// When the next one should have been made.
    due: Timestamp,
}

impl Revocations {
    /// Takes revocation lists. Who signed them is looked at when a certificate is verified.
    pub fn new(lists: &[CertificateRevocationListDer<'_>]) -> Result<Self, webpki::Error> {
        let mut all = Self::default();
        for list in lists {
            all.add(Arc::new(List::parse(list)?));
        }
        Ok(all)
    }

    /// Adds those of `others`.
    pub(crate) fn extend(&mut self, others: &Self) {
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

    /// Which of `intermediates` may have signed lists, if there are lists at all.
    pub(super) fn issuers(&self, intermediates: &[CertificateDer<'_>]) -> Vec<Authority> {
        if self.lists.is_empty() {
            return Vec::new();
        }
        let owned = intermediates
            .iter()
            .cloned()
            .map(CertificateDer::into_owned);
        // What cannot be parsed takes part in no chain.
        owned
            .filter_map(|der| Authority::parse(&der).ok())
            .collect()
    }

    /// The lists to look at in chains that lead by way of `intermediates` to `authority`.
    ///
    /// A list is found by its issuer's name, and two authorities may have the same one, as when a
    /// root or an intermediate is replaced. Then the list of one must not be held against the
    /// other, which it would be: its signature does not verify with the other's key. A list that any
    /// authority in the chain may have signed is looked at, so that nobody escapes one by showing
    /// more certificates.
    pub(super) fn under<'a>(
        &'a self,
        authority: &Authority,
        intermediates: &[Authority],
    ) -> Vec<&'a CertRevocationList<'a>> {
        let is_of_another = |list: &&Arc<List>| {
            let issuers = iter::once(authority).chain(intermediates);
            let mut named = issuers.filter(|issuer| list.names(issuer)).peekable();
            named.peek().is_some() && !named.any(|issuer| list.may_be_of_key(issuer))
        };
        let lists = self.lists.iter().filter(|list| !is_of_another(list));
        lists.map(|list| &list.parsed).collect()
    }

    /// What is wrong with a list that claims to be of `authority`.
    ///
    /// Used nevertheless, it would have everything refused that the authority has issued.
    pub(super) fn fault_under(
        &self,
        authority: &Authority,
        algorithms: &[&'static dyn SignatureVerificationAlgorithm],
    ) -> Option<webpki::Error> {
        let mut lists = self.lists.iter();
        lists.find_map(|list| {
            if !list.names(authority) || !list.may_be_of_key(authority) {
                None
            } else if !authority.signs_revocations() {
                Some(webpki::Error::IssuerNotCrlSigner)
            } else if !authority.signed(&list.message, &list.signature, algorithms) {
                Some(webpki::Error::InvalidCrlSignatureForPublicKey)
            } else {
                None
            }
        })
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

/// Two are the same if they hold the same lists, in whatever order.
impl PartialEq for Revocations {
    fn eq(&self, other: &Self) -> bool {
        let is_in_other = |list: &Arc<List>| {
            let mut others = other.lists.iter();
            others
                .any(|other| (&list.message, &list.signature) == (&other.message, &other.signature))
        };
        self.lists.len() == other.lists.len() && self.lists.iter().all(is_in_other)
    }
}

impl List {
    fn parse(der: &CertificateRevocationListDer<'_>) -> Result<Self, webpki::Error> {
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Err(webpki::Error::BadDer);
        };
        let mut extensions = list.extensions().iter();
        let key_id = extensions.find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(authority) => {
                authority.key_identifier.as_ref().map(|id| id.0.to_vec())
            }
            _ => None,
        });
        let time = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        Ok(Self {
            parsed: OwnedCertRevocationList::from_der(der)?.into(),
            message: list.tbs_cert_list.as_ref().to_vec(),
            signature: list.signature_value.data.to_vec(),
            key_id,
            made: time(list.last_update()).unwrap_or(Timestamp::MIN),
            due: list.next_update().and_then(time).unwrap_or(Timestamp::MAX),
        })
    }

    /// Whether it is of an authority of this name.
    fn names(&self, authority: &Authority) -> bool {
        self.parsed.issuer() == authority.name()
    }

    /// Whether nothing says that it was signed by another key.
    fn may_be_of_key(&self, authority: &Authority) -> bool {
        match (&self.key_id, authority.key_id()) {
            (Some(signer), Some(key)) => signer == key,
            _ => true,
        }
    }

    /// Whether only one of both can count: same authority, same part of its certificates.
    fn is_in_place_of(&self, other: &Self) -> bool {
        self.parsed.issuer() == other.parsed.issuer()
            && self.key_id == other.key_id
            && self.parsed.issuing_distribution_point() == other.parsed.issuing_distribution_point()
    }
}
