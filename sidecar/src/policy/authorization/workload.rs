use spiffe::SpiffeId;

/// A workload by its Kubernetes names, which the path of its SPIFFE ID commonly holds:
/// `/ns/NAMESPACE/sa/SERVICE_ACCOUNT`, and nothing else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Workload<'a> {
    pub(super) namespace: &'a str,
    pub(super) service_account: &'a str,
}

impl<'a> Workload<'a> {
    /// The names, if the path has exactly this form.
    pub(super) fn of(identity: &'a SpiffeId) -> Option<Self> {
        let mut segments = identity.path().split('/');
        let mut next = || segments.next();
        match (next(), next(), next(), next(), next(), next()) {
            (Some(""), Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) => {
                Some(Self {
                    namespace,
                    service_account,
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_path_of_the_common_form_has_names() {
        let web: SpiffeId = "spiffe://example.org/ns/shop/sa/web"
            .parse()
            .expect("an ID");
        assert_eq!(
            Workload::of(&web),
            Some(Workload {
                namespace: "shop",
                service_account: "web"
            })
        );
        for text in [
            "spiffe://example.org/ns/shop",
            "spiffe://example.org/ns/shop/sa",
            "spiffe://example.org/ns/shop/sa/web/ns/pay",
            "spiffe://example.org/x/ns/shop/sa/web",
            "spiffe://example.org/sa/web/ns/shop",
            "spiffe://example.org/NS/shop/sa/web",
        ] {
            let id: SpiffeId = text.parse().expect(text);
            assert_eq!(Workload::of(&id), None, "{text}");
        }
    }
}
