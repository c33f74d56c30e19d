use std::env;

use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
};
use opentelemetry_semantic_conventions::attribute;

/// Who we are, to the collector: what the environment says as OpenTelemetry has it
/// (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`), and where it does not name the service, what
/// the own identity does.
pub(super) fn of(own: &str) -> Resource {
    let environment = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build();
    let named = env::var("OTEL_SERVICE_NAME").ok();
    named_by(&environment, named.filter(|name| !name.is_empty()), own)
}

fn named_by(environment: &Resource, named: Option<String>, own: &str) -> Resource {
    let has = |name| environment.get(&Key::from_static_str(name)).is_some();
    let (namespace, service) = service(own);
    let mut more = Vec::new();
    match named {
        Some(name) => more.push(KeyValue::new(attribute::SERVICE_NAME, name)),
        None if has(attribute::SERVICE_NAME) => {}
        None => {
            more.push(KeyValue::new(attribute::SERVICE_NAME, service.to_owned()));
            if let Some(namespace) = namespace.filter(|_| !has(attribute::SERVICE_NAMESPACE)) {
                more.push(KeyValue::new(
                    attribute::SERVICE_NAMESPACE,
                    namespace.to_owned(),
                ));
            }
        }
    }
    let attributes = environment
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()))
        .chain(more)
        .collect::<Vec<_>>();
    Resource::builder_empty()
        .with_attributes(attributes)
        .build()
}

/// Namespace and name in an identity: `/ns/NAMESPACE/sa/NAME`, as Kubernetes' workloads have it, or
/// the whole path.
fn service(own: &str) -> (Option<&str>, &str) {
    let path = own
        .strip_prefix("spiffe://")
        .and_then(|id| id.split_once('/'))
        .map_or("unknown_service", |(_, path)| path);
    match path.split('/').collect::<Vec<_>>()[..] {
        ["ns", namespace, "sa", name] => (Some(namespace), name),
        _ => (None, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "spiffe://sidecar.local/ns/shop/sa/cart";

    fn named(environment: &[(&'static str, &'static str)], named: Option<&str>) -> [String; 2] {
        let environment = environment
            .iter()
            .map(|(key, value)| KeyValue::new(*key, *value));
        let environment = Resource::builder_empty()
            .with_attributes(environment)
            .build();
        let resource = named_by(&environment, named.map(str::to_owned), OWN);
        [attribute::SERVICE_NAME, attribute::SERVICE_NAMESPACE].map(|key| {
            let value = resource.get(&Key::from_static_str(key));
            value.map(|value| value.to_string()).unwrap_or_default()
        })
    }

    #[test]
    fn the_service_is_named_by_the_environment_and_else_by_the_identity() {
        assert_eq!(named(&[], None), ["cart", "shop"]);
        assert_eq!(named(&[], Some("till")), ["till", ""]);
        let attributes = [("service.name", "basket"), ("service.namespace", "test")];
        assert_eq!(named(&attributes, None), ["basket", "test"]);
        assert_eq!(named(&attributes, Some("till")), ["till", "test"]);
        assert_eq!(named(&attributes[1..], None), ["cart", "test"]);
    }

    #[test]
    fn an_identity_of_another_form_names_the_service_by_its_path() {
        assert_eq!(service("spiffe://a/b/c"), (None, "b/c"));
        assert_eq!(service(""), (None, "unknown_service"));
    }
}
