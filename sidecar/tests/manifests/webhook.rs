//! The webhook: who finds it, who trusts it, and what it is asked about.

use serde_json::json;
use sidecar::kubernetes;
use sidecar_tests::manifests::{self, objects, render};

use super::{array, of_kind, selects, text};

#[test]
fn the_api_server_finds_the_webhook_and_trusts_it() {
    let objects = objects(&render("deploy/kustomize/overlays/webhook-cert-manager"));
    let [configuration] = of_kind(&objects, "MutatingWebhookConfiguration")[..] else {
        panic!("one is enough");
    };
    let webhook = &configuration["webhooks"][0];
    let service = &webhook["clientConfig"]["service"];
    let [deployment] = of_kind(&objects, "Deployment")[..] else {
        panic!("one is enough");
    };
    let [found] = of_kind(&objects, "Service")[..] else {
        panic!("one is enough");
    };
    for key in ["name", "namespace"] {
        assert_eq!(found["metadata"][key], service[key]);
    }
    let template = &deployment["spec"]["template"];
    assert!(selects(
        &found["spec"]["selector"],
        &template["metadata"]["labels"]
    ));
    let port = &found["spec"]["ports"][0];
    assert_eq!(port["port"], service["port"]);
    let [container] = &array(&template["spec"]["containers"]) else {
        panic!("one is enough");
    };
    assert_eq!(port["targetPort"], container["ports"][0]["name"]);

    let [certificate] = of_kind(&objects, "Certificate")[..] else {
        panic!("one is enough");
    };
    let host = format!(
        "{}.{}.svc",
        text(&service["name"]),
        text(&service["namespace"])
    );
    assert_eq!(certificate["spec"]["dnsNames"], json!([host]));
    let volume = &template["spec"]["volumes"][0];
    assert_eq!(
        volume["secret"]["secretName"],
        certificate["spec"]["secretName"]
    );
    assert_eq!(volume["name"], container["volumeMounts"][0]["name"]);
    let (namespace, name) = (
        &certificate["metadata"]["namespace"],
        &certificate["metadata"]["name"],
    );
    assert_eq!(
        configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"],
        json!(format!("{}/{}", text(namespace), text(name)))
    );
    let issuer = of_kind(&objects, "Issuer")[0];
    assert_eq!(
        certificate["spec"]["issuerRef"]["name"],
        issuer["metadata"]["name"]
    );
    assert_eq!(issuer["metadata"]["namespace"], *namespace);
}

#[test]
fn the_webhook_is_asked_about_pods_that_ask_for_a_sidecar_and_never_about_its_own() {
    let mut objects = objects(&render("deploy/kustomize/overlays/webhook"));
    objects.extend(manifests::objects(&render(
        "deploy/kustomize/overlays/node-agent",
    )));
    let webhook = &of_kind(&objects, "MutatingWebhookConfiguration")[0]["webhooks"][0];
    assert_eq!(
        webhook["objectSelector"],
        json!({ "matchLabels": { kubernetes::LABEL: "enabled" } })
    );
    let [spared] = array(&webhook["namespaceSelector"]["matchExpressions"]) else {
        panic!("more than one condition");
    };
    assert_eq!(spared["operator"], json!("NotIn"));
    assert_eq!(spared["key"], json!("kubernetes.io/metadata.name"));
    let own = of_kind(&objects, "Namespace").into_iter();
    let own = own.map(|namespace| text(&namespace["metadata"]["name"]));
    for namespace in own.chain(["kube-system"]) {
        assert!(
            array(&spared["values"]).contains(&json!(namespace)),
            "{namespace}"
        );
    }
    // What it adds has to be in the pod that it is asked about.
    assert_eq!(webhook["rules"][0]["operations"], json!(["CREATE"]));
    assert_eq!(webhook["rules"][0]["resources"], json!(["pods"]));
}
