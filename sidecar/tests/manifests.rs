//! What is in `deploy/kustomize` fits the daemon: its commands, settings, labels and privileges.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Write as _,
    process::{Command, Stdio},
    sync::LazyLock,
    thread,
};

use clap::{CommandFactory as _, Parser as _};
use serde_json::{Value, json};
use sidecar::{
    cli::Cli,
    inject,
    kubernetes::{self, Enrolment, annotations},
};
use sidecar_tests::manifests::{self, name, objects, overlays, render};

/// What ours are called in a pod, each with the capabilities that it adds to none.
const CONTAINERS: [(&str, &[&str]); 5] = [
    ("agent", &["BPF", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]),
    ("sidecar", &[]),
    ("sidecar-init", &["BPF", "NET_ADMIN"]),
    ("sidecar-validate", &[]),
    ("webhook", &[]),
];

/// Where ours answer about themselves.
const ADMIN_PORT: u64 = 4195;

/// The user that ours run as, unless they attach programs.
const USER: u64 = 4195;

/// Every object of every overlay, with what the webhook adds to pods; each with the overlay's path.
static ALL: LazyLock<Vec<(String, Value)>> = LazyLock::new(|| {
    let all = overlays().into_iter().flat_map(|overlay| {
        let objects = objects(&injected(&render(&overlay)));
        objects
            .into_iter()
            .map(move |object| (overlay.clone(), object))
    });
    all.collect()
});

/// What `sidecar inject` makes of manifests, of pods that ask for it.
#[track_caller]
fn injected(manifests: &str) -> String {
    let mut inject = Command::new(env!("CARGO_BIN_EXE_sidecar"))
        .args(["inject", "--only-enabled", "--validate", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sidecar starts");
    let mut input = inject.stdin.take().expect("it is a pipe");
    let text = manifests.to_owned();
    let writer = thread::spawn(move || input.write_all(text.as_bytes()));
    let output = inject.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    writer.join().expect("no panic").expect("it reads all");
    String::from_utf8(output.stdout).expect("manifests are text")
}

/// The pod that an object is or makes.
fn pod(object: &Value) -> Option<&Value> {
    let spec = match object["kind"].as_str()? {
        "Pod" => object.pointer("/spec"),
        "CronJob" => object.pointer("/spec/jobTemplate/spec/template/spec"),
        _ => object.pointer("/spec/template/spec"),
    };
    spec.filter(|spec| spec["containers"].is_array())
}

/// The containers of a pod, those that come first among them.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers"].map(|list| pod[list].as_array());
    lists.into_iter().flatten().flatten()
}

fn is_ours(container: &Value) -> bool {
    text(&container["image"]).starts_with("sidecar")
}

/// Ours in every overlay, each with a name for messages, its pod's object and itself.
fn ours() -> Vec<(String, Value, Value)> {
    let mut ours = Vec::new();
    for (overlay, object) in &*ALL {
        for container in pod(object).into_iter().flat_map(containers) {
            if is_ours(container) {
                let what = format!("{overlay}: {} {}", name(object), text(&container["name"]));
                ours.push((what, object.clone(), container.clone()));
            }
        }
    }
    assert!(ours.len() > 1, "no manifest has a container of ours");
    ours
}

#[track_caller]
fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a text: {value}"))
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn every_container_of_ours_has_what_it_needs_and_no_more() {
    let known = BTreeMap::from(CONTAINERS);
    for (what, object, container) in ours() {
        let added = known.get(text(&container["name"]));
        let added = added.unwrap_or_else(|| panic!("{what}: what may it do?"));
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], json!(false), "{what}");
        assert_eq!(context["readOnlyRootFilesystem"], json!(true), "{what}");
        assert_ne!(context["privileged"], json!(true), "{what}");
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{what}");
        let adds: Vec<_> = array(&context["capabilities"]["add"])
            .iter()
            .map(text)
            .collect();
        assert_eq!(adds, *added, "{what}");
        let (user, profile) = if added.is_empty() {
            assert_eq!(context["runAsNonRoot"], json!(true), "{what}");
            // Those that use maps: runtimes' own profiles refuse bpf(2) to whoever lacks CAP_SYS_ADMIN.
            let uses_maps = container["name"] == json!("sidecar");
            let profile = if uses_maps {
                "Unconfined"
            } else {
                "RuntimeDefault"
            };
            (USER, profile)
        } else {
            (0, "Unconfined")
        };
        assert_eq!(context["runAsUser"], json!(user), "{what}");
        assert_eq!(context["seccompProfile"]["type"], json!(profile), "{what}");
        let resources = &container["resources"];
        assert!(resources["requests"]["cpu"].is_string(), "{what}");
        assert!(resources["limits"]["memory"].is_string(), "{what}");
        let is_agent = container["name"] == json!("agent");
        let pod = pod(&object).expect("it has a container");
        for of_the_node in ["hostNetwork", "hostPID", "hostIPC"] {
            let is_shared = pod[of_the_node] == json!(true);
            let needs = is_agent && of_the_node != "hostIPC";
            assert_eq!(is_shared, needs, "{what}: {of_the_node}");
        }
    }
}

#[test]
fn all_of_ours_are_the_same_image_of_this_version() {
    let image = concat!("sidecar:", env!("CARGO_PKG_VERSION"));
    for (what, _, container) in ours() {
        assert_eq!(container["image"], json!(image), "{what}");
    }
}

/// What the kubelet would put for a field of a pod.
fn field(path: &str) -> &'static str {
    match path {
        "metadata.name" => "web-6d5f8-x2x7k",
        "metadata.namespace" => "shop",
        "spec.nodeName" => "node-1",
        "spec.serviceAccountName" => "web",
        "status.hostIP" => "192.0.2.1",
        "status.hostIPs" => "192.0.2.1,2001:db8::1",
        _ => panic!("what is {path}?"),
    }
}

/// The variables of a container as the kubelet gives them: each may refer to those before it.
fn variables(container: &Value) -> Vec<(&str, String)> {
    let mut variables: Vec<(&str, String)> = Vec::new();
    for variable in array(&container["env"]) {
        let path = variable.pointer("/valueFrom/fieldRef/fieldPath");
        let mut value = path.map_or_else(
            || text(&variable["value"]).to_owned(),
            |path| field(text(path)).to_owned(),
        );
        for (name, known) in &variables {
            value = value.replace(&format!("$({name})"), known);
        }
        assert!(
            !value.contains("$("),
            "nothing before it is called so: {variable}"
        );
        variables.push((text(&variable["name"]), value));
    }
    variables
}

#[test]
fn arguments_and_variables_are_ones_that_the_command_understands() {
    let cli = Cli::command();
    for (what, _, container) in ours() {
        let args: Vec<_> = array(&container["args"]).iter().map(text).collect();
        let command = args.first().and_then(|name| cli.find_subcommand(name));
        let command = command.unwrap_or_else(|| panic!("{what}: no command: {args:?}"));
        let mut line: Vec<_> = ["sidecar"]
            .iter()
            .chain(&args)
            .map(ToString::to_string)
            .collect();
        for (name, value) in variables(&container) {
            let known = command
                .get_arguments()
                .find(|known| known.get_env().and_then(|name| name.to_str()) == Some(name));
            if let Some(flag) = known.and_then(|known| known.get_long()) {
                line.push(format!("--{flag}={value}"));
            } else {
                let is_for_others = container["env"].to_string().contains(&format!("$({name})"));
                assert!(is_for_others, "{what}: who reads {name}?");
            }
        }
        if let Err(error) = Cli::try_parse_from(&line) {
            panic!("{what}: {line:?}: {error}");
        }
    }
}

#[test]
fn roles_allow_to_read_what_they_name_and_nothing_else() {
    let mut rules = 0;
    for (overlay, object) in &*ALL {
        let kind = text(&object["kind"]);
        if !matches!(kind, "Role" | "ClusterRole") {
            continue;
        }
        for rule in array(&object["rules"]) {
            rules += 1;
            let words = |key: &str| array(&rule[key]).iter().map(text).collect::<BTreeSet<_>>();
            let what = format!("{overlay}: {}: {rule}", name(object));
            assert_eq!(words("verbs"), ["get", "list", "watch"].into(), "{what}");
            let allowed = match words("apiGroups").into_iter().collect::<Vec<_>>()[..] {
                [""] => ["pods", "services"].as_slice(),
                ["discovery.k8s.io"] => &["endpointslices"],
                _ => panic!("{what}"),
            };
            assert_eq!(
                words("resources"),
                allowed.iter().copied().collect(),
                "{what}"
            );
            assert_eq!(
                rule.as_object().map(serde_json::Map::len),
                Some(3),
                "{what}"
            );
        }
    }
    assert!(rules > 0, "nobody may read anything");
}

#[test]
fn whoever_is_not_asked_by_name_has_no_token() {
    for (what, object, container) in ours() {
        let pod = pod(&object).expect("it has a container");
        let asks = container["name"] == json!("agent");
        // What is added to an app's pod leaves that to the app.
        let is_alone = containers(pod).all(is_ours);
        if is_alone {
            let token = pod["automountServiceAccountToken"].as_bool();
            assert_eq!(token, Some(asks), "{what}");
        }
    }
}

/// Every text in an object that is ours by its prefix: keys of labels and annotations, wherever they
/// are selected, and names of fields; each with the value it has, if it has one.
fn marks<'a>(value: &'a Value, marks: &mut Vec<(&'a str, Option<&'a str>)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key.starts_with(annotations::PREFIX) {
                    marks.push((key, value.as_str()));
                }
                self::marks(value, marks);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| self::marks(value, marks)),
        Value::String(text) if text.starts_with(annotations::PREFIX) => marks.push((text, None)),
        _ => {}
    }
}

#[test]
fn labels_and_annotations_are_ones_that_we_know() {
    let mut found = Vec::new();
    for (_, object) in &*ALL {
        marks(object, &mut found);
    }
    assert!(found.iter().any(|(key, _)| *key == kubernetes::LABEL));
    for (key, value) in found {
        if key == kubernetes::LABEL {
            let is_known = value.is_none_or(|value| Enrolment::of(Some(value)) != Enrolment::None);
            assert!(is_known, "{key}: {value:?}");
            continue;
        }
        let value = value.unwrap_or_else(|| panic!("{key} has no value"));
        let annotation = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        if let Err(error) = annotations::settings(&annotation, inject::ANNOTATIONS) {
            panic!("{error}");
        }
    }
}

/// The objects of an overlay of this kind.
#[track_caller]
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let found: Vec<_> = objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect();
    assert!(!found.is_empty(), "there is no {kind}");
    found
}

/// Whether a selector's labels are all among these.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().filter(|selector| !selector.is_empty());
    selector.is_some_and(|all| all.iter().all(|(key, value)| labels[key] == *value))
}

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

#[test]
fn namespaces_say_how_much_their_pods_may() {
    for (overlay, object) in &*ALL {
        if object["kind"] != json!("Namespace") {
            continue;
        }
        let level = &object["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        let namespace = &object["metadata"]["name"];
        let pods = objects(&render(overlay));
        let needs = pods.iter().any(|owner| {
            let is_added = owner.pointer("/spec/template/metadata/labels/sidecar.mesh~1inject")
                == Some(&json!("enabled"));
            let adds =
                |one: &Value| !array(&one["securityContext"]["capabilities"]["add"]).is_empty();
            let is_privileged = pod(owner).is_some_and(|pod| containers(pod).any(adds));
            owner["metadata"]["namespace"] == *namespace && (is_added || is_privileged)
        });
        let is_privileged = *level == json!("privileged");
        assert!(level.is_string(), "{overlay}: {namespace}");
        assert_eq!(is_privileged, needs, "{overlay}: {namespace}");
    }
}

#[test]
fn names_lead_to_objects_of_the_same_overlay() {
    for overlay in overlays() {
        let objects = objects(&render(&overlay));
        let has = |kind: &str, namespace: Option<&Value>, name: &Value| {
            objects.iter().any(|object| {
                let metadata = &object["metadata"];
                object["kind"] == kind
                    && metadata["name"] == *name
                    && namespace.is_none_or(|namespace| metadata["namespace"] == *namespace)
            })
        };
        for object in &objects {
            let what = format!("{overlay}: {}", name(object));
            let namespace = &object["metadata"]["namespace"];
            if let Some(pod) = pod(object) {
                assert!(has("Namespace", None, namespace), "{what}: {namespace}");
                let account = &pod["serviceAccountName"];
                assert!(
                    has("ServiceAccount", Some(namespace), account),
                    "{what}: {account}"
                );
                let labels = &object["spec"]["template"]["metadata"]["labels"];
                assert!(
                    selects(&object["spec"]["selector"]["matchLabels"], labels),
                    "{what}"
                );
                let volumes = array(&pod["volumes"]).iter().map(|volume| &volume["name"]);
                let volumes: Vec<_> = volumes.collect();
                for mount in containers(pod).flat_map(|one| array(&one["volumeMounts"])) {
                    assert!(volumes.contains(&&mount["name"]), "{what}: {mount}");
                }
            }
            if object["roleRef"].is_object() {
                let kind = text(&object["roleRef"]["kind"]);
                assert!(has(kind, None, &object["roleRef"]["name"]), "{what}");
                for subject in array(&object["subjects"]) {
                    let namespace = Some(&subject["namespace"]);
                    assert!(has("ServiceAccount", namespace, &subject["name"]), "{what}");
                }
            }
        }
    }
}

#[test]
fn policies_of_the_network_name_ports_of_the_apps_and_none_of_ours_but_for_metrics() {
    let objects = objects(&render("deploy/kustomize/overlays/sidecar-example"));
    let policies = of_kind(&objects, "NetworkPolicy");
    let mut judged = 0;
    for policy in policies {
        let what = name(policy);
        let selector = &policy["spec"]["podSelector"]["matchLabels"];
        let named = array(&policy["spec"]["ingress"]).iter();
        let named: Vec<_> = named.flat_map(|rule| array(&rule["ports"])).collect();
        let mut selected = objects.iter().filter(|object| {
            let labels = object.pointer("/spec/template/metadata/labels");
            labels.is_some_and(|labels| selects(selector, labels))
        });
        for port in named {
            judged += 1;
            let is_metrics = port["port"] == ADMIN_PORT && selector[kubernetes::LABEL] == "enabled";
            let has = |object: &Value| {
                let mut containers = pod(object).into_iter().flat_map(containers);
                containers.any(|container| {
                    let ports = array(&container["ports"]);
                    ports.iter().any(|own| own["containerPort"] == port["port"])
                })
            };
            let fits = is_metrics || selected.clone().all(has);
            assert!(selected.next().is_some() && fits, "{what}: {port}");
        }
    }
    assert!(judged > 1, "no policy names a port");
}

#[test]
fn an_update_of_the_agent_starts_the_new_one_first() {
    let objects = objects(&render("deploy/kustomize/overlays/node-agent"));
    let agent = of_kind(&objects, "DaemonSet")[0];
    assert_eq!(
        agent["spec"]["updateStrategy"],
        json!({
            "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 },
        })
    );
    // A port of the node would keep the second one out.
    for container in pod(agent).into_iter().flat_map(containers) {
        assert_eq!(container["ports"], Value::Null);
    }
}

/// Set it, to anything, to write the copy anew; as for other files that tests compare with.
const WRITE: &str = "SIDECAR_WRITE_GOLDEN";

/// The rules as the Prometheus operator takes them.
const COPY: &str = "deploy/kustomize/overlays/observability/prometheus-rule.yaml";

#[test]
fn the_operators_rules_are_the_ones_of_the_directory() {
    let read = |path: &str| {
        let path = manifests::root().join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let rules = read("deploy/observability/rules.yaml");
    let (_, groups) = rules.split_once("groups:\n").expect("there are groups");
    let copy = read(COPY);
    let (head, _) = copy.split_once("  groups:\n").expect("there are groups");
    let indented = groups.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("  {line}\n"),
    });
    let expected = format!("{head}  groups:\n{}", indented.collect::<String>());
    if env::var_os(WRITE).is_some() {
        fs::write(manifests::root().join(COPY), expected).expect("writing the copy");
        return;
    }
    assert!(
        copy == expected,
        "{COPY} is another; {WRITE}=1 has this test write it"
    );
    let [copy] = &objects(&copy)[..] else {
        panic!("one object");
    };
    assert_eq!(copy["spec"], objects(&rules)[0]);
}

#[test]
fn prometheus_asks_containers_that_there_are_where_they_answer() {
    let objects = objects(&render("deploy/kustomize/overlays/observability"));
    let ours = ours();
    let mut monitors = of_kind(&objects, "PodMonitor");
    monitors.sort_by_key(|monitor| name(monitor));
    let [sidecars, agents] = monitors[..] else {
        panic!("one for sidecars, and one for agents");
    };
    let asked = |monitor: &Value, container: &str| {
        let selector = &monitor["spec"]["selector"]["matchLabels"];
        let asked = ours.iter().filter(|(_, object, one)| {
            one["name"] == container
                && selects(selector, &object["spec"]["template"]["metadata"]["labels"])
        });
        let asked: Vec<_> = asked
            .map(|(_, object, one)| (object.clone(), one.clone()))
            .collect();
        assert!(!asked.is_empty(), "{} asks nobody", name(monitor));
        asked
    };

    let port = &sidecars["spec"]["podMetricsEndpoints"][0]["port"];
    for (_, container) in asked(sidecars, "sidecar") {
        let declared = json!([{ "name": port, "containerPort": ADMIN_PORT }]);
        assert_eq!(container["ports"], declared);
    }

    let endpoint = &agents["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["port"], Value::Null, "the agent has none");
    let relabelings = array(&endpoint["relabelings"]);
    let kept = relabelings.iter().find(|one| one["action"] == "keep");
    let kept = text(&kept.expect("of all containers one is kept")["regex"]);
    let namespaces = &agents["spec"]["namespaceSelector"]["matchNames"];
    for (object, _) in asked(agents, kept) {
        assert_eq!(*namespaces, json!([object["metadata"]["namespace"]]));
    }
    let addresses = relabelings
        .iter()
        .filter(|one| one["targetLabel"] == "__address__");
    let addresses: Vec<_> = addresses
        .map(|one| text(&one["replacement"]).to_owned())
        .collect();
    assert_eq!(
        addresses,
        [format!("$1:{ADMIN_PORT}"), format!("[$1]:{ADMIN_PORT}")]
    );
}
