//! The webhook: who finds it, who trusts it, and what it is asked about.

use std::{fs, process::Command};

use serde_json::{Value, json};
use sidecar::kubernetes;
use sidecar_tests::manifests::{self, objects, overlays, render};

use super::{array, containers, of_kind, pod, selects, text};

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

    let volume = &template["spec"]["volumes"][0];
    assert_eq!(volume["name"], container["volumeMounts"][0]["name"]);
    let certificates = of_kind(&objects, "Certificate");
    let of_secret = |secret: &Value| {
        let mut found = certificates.iter();
        let found = found.find(|one| one["spec"]["secretName"] == *secret);
        *found.expect("nobody makes the Secret")
    };
    let certificate = of_secret(&volume["secret"]["secretName"]);
    let host = format!(
        "{}.{}.svc",
        text(&service["name"]),
        text(&service["namespace"])
    );
    assert_eq!(certificate["spec"]["dnsNames"], json!([host]));

    let issuers = of_kind(&objects, "Issuer");
    let issuer_of = |certificate: &Value| {
        let mut found = issuers.iter();
        let name = &certificate["spec"]["issuerRef"]["name"];
        let found = found.find(|one| one["metadata"]["name"] == *name);
        *found.expect("nobody issues it")
    };
    // Whom the API server trusts stays when the certificate is renewed, and when the CA is.
    let authority = of_secret(&issuer_of(certificate)["spec"]["ca"]["secretName"]);
    assert_eq!(authority["spec"]["isCA"], json!(true));
    let rotation = &authority["spec"]["privateKey"]["rotationPolicy"];
    assert_eq!(*rotation, json!("Never"));
    assert_eq!(issuer_of(authority)["spec"], json!({ "selfSigned": {} }));
    let namespace = text(&service["namespace"]);
    assert_eq!(
        configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"],
        json!(format!(
            "{namespace}/{}",
            text(&authority["metadata"]["name"])
        ))
    );
    for object in certificates.iter().chain(&issuers) {
        assert_eq!(object["metadata"]["namespace"], *namespace);
    }
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
    // It leaves alone what it has changed before.
    assert_eq!(webhook["reinvocationPolicy"], json!("Never"));
}

/// Where the one image is named, below `deploy`.
const IMAGE: &str = "kustomize/components/image/kustomization.yaml";

#[test]
fn pods_get_the_image_that_the_webhook_has_whatever_it_is_called() {
    let directory = tempfile::tempdir().expect("a directory");
    let copied = Command::new("cp")
        .args(["--recursive", "deploy"])
        .arg(directory.path())
        .current_dir(manifests::root())
        .status();
    assert!(copied.expect("cp starts").success());
    let deploy = directory.path().join("deploy");
    let named = fs::read_to_string(deploy.join(IMAGE)).expect("there is an image");
    let other = named
        .replace(
            "newName: sidecar",
            "newName: registry.example:5000/a/sidecar",
        )
        .replace("newTag: 0.1.0", "newTag: 9.8.7");
    assert_ne!(other, named);
    fs::write(deploy.join(IMAGE), other).expect("it is ours");

    let mut webhooks = 0;
    for overlay in overlays() {
        let text = render(&directory.path().join(&overlay).display().to_string());
        assert!(!text.contains("sidecar:0.1.0"), "{overlay}: {text}");
        for object in objects(&text) {
            let pod = pod(&object).into_iter().flat_map(containers);
            for webhook in pod.filter(|container| container["name"] == "webhook") {
                webhooks += 1;
                let image = "registry.example:5000/a/sidecar:9.8.7";
                assert_eq!(webhook["image"], image, "{overlay}");
                let args = json!(["webhook", format!("--image={image}")]);
                assert_eq!(webhook["args"], args, "{overlay}");
            }
        }
    }
    assert!(webhooks > 1, "an overlay has lost its webhook");
}
