//! Pods, and what they say about what is added to them.

use super::*;

fn labelled(value: &str) -> String {
    POD.replace(
        "  name: web\n",
        &format!("  name: web\n  labels: {{sidecar.mesh/inject: {value}}}\n"),
    )
}

#[test]
fn pods_are_left_alone_that_say_so_or_cannot_have_one() {
    for (text, reason) in [
        (labelled("disabled"), Reason::Disabled),
        (
            POD.replace(
                "web\n",
                "web\n  annotations: {sidecar.mesh/inject: disabled}\n",
            ),
            Reason::Disabled,
        ),
        (labelled("node"), Reason::Node),
        (format!("{POD}  hostNetwork: true\n"), Reason::HostNetwork),
        (format!("{POD}  hostNetwork: yes\n"), Reason::HostNetwork),
        (format!("{POD}  hostUsers: false\n"), Reason::UserNamespace),
        (format!("{POD}  os: {{name: windows}}\n"), Reason::Windows),
    ] {
        let (result, outcomes) = inject(&text).expect("understood");
        assert_eq!(result, text);
        assert_eq!(outcomes[0].result, Fate::Skipped(reason));
    }
    let asked = Change::Inject {
        options: &Options::default(),
        unasked: Unasked::Skip,
    };
    let (_, outcomes) = manifests(POD, asked).expect("understood");
    assert_eq!(outcomes[0].result, Fate::Skipped(Reason::NotAsked));
    let (_, outcomes) = manifests(&labelled("enabled"), asked).expect("understood");
    assert_eq!(outcomes[0].result, Fate::Injected);
    assert_eq!(
        refused(&labelled("\"true\"")),
        "pod/web: sidecar.mesh/inject: \"true\" cannot be used; write enabled, node or disabled"
    );
}

fn annotated(annotations: &[(&str, &str)]) -> String {
    let line = |(key, value): &(&str, &str)| {
        let value = Value::from(*value);
        format!("    sidecar.mesh/{key}: {value}\n")
    };
    let lines = annotations.iter().map(line).collect::<Vec<_>>().concat();
    POD.replace(
        "  name: web\n",
        &format!("  name: web\n  annotations:\n{lines}"),
    )
}

/// The environment of one of a pod's init containers.
fn environment(pod: &Value, container: usize) -> Vec<(String, String)> {
    let environment = pod["spec"]["initContainers"][container]["env"].as_array();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    environment
        .expect("a list")
        .iter()
        .map(|variable| (text(&variable["name"]), text(&variable["value"])))
        .collect()
}

#[test]
fn annotations_are_settings_of_all_containers() {
    let pod = yaml(&injected(&annotated(&[
        ("inbound", "strict"),
        ("exclude-inbound-ports", "9090,9100"),
        ("overrides", "outbound,port=25,mode=off"),
        ("access-log-file", "/dev/$(SHELL)"),
        ("validate", "true"),
    ])));
    for container in [0, 1, 2] {
        let environment = environment(&pod, container);
        for (name, value) in [
            ("SIDECAR_INBOUND", "strict"),
            ("SIDECAR_EXCLUDE_INBOUND_PORTS", "9090,9100"),
            ("SIDECAR_OVERRIDES", "outbound,port=25,mode=off"),
            ("SIDECAR_ACCESS_LOG_FILE", "/dev/$$(SHELL)"),
        ] {
            assert!(
                environment.contains(&(name.to_owned(), value.to_owned())),
                "{environment:?}"
            );
        }
    }
}

#[test]
fn annotations_say_what_is_added() {
    let pod = yaml(&injected(&annotated(&[
        ("image", "registry.example/sidecar@sha256:00"),
        ("memory-limit", "1Gi"),
        ("cpu-request", "none"),
        ("validate", "true"),
        ("config-map", "rules"),
        ("identity-source", "workload-api=/run/spire/agent.sock"),
    ])));
    let spec = &pod["spec"];
    let sidecar = &spec["initContainers"][1];
    assert_eq!(sidecar["image"], "registry.example/sidecar@sha256:00");
    assert_eq!(
        sidecar["resources"],
        json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "32Mi"}})
    );
    let validate = &spec["initContainers"][2];
    assert_eq!(validate["args"][0], "validate");
    assert_eq!(validate["volumeMounts"][0]["mountPath"], "/etc/sidecar");
    let environment = environment(&pod, 1);
    for (name, value) in [
        (
            "SIDECAR_WORKLOAD_API",
            "unix:/run/sidecar/workload-api/agent.sock",
        ),
        ("SIDECAR_CONFIG", "/etc/sidecar/sidecar.yaml"),
    ] {
        assert!(
            environment.contains(&(name.to_owned(), value.to_owned())),
            "{environment:?}"
        );
    }
    let volumes = spec["volumes"].as_array().expect("a list");
    for volume in [
        json!({"name": "sidecar-config", "configMap": {"name": "rules"}}),
        json!({"name": "sidecar-identity", "hostPath": {"path": "/run/spire", "type": "Directory"}}),
    ] {
        assert!(volumes.contains(&volume), "{volumes:?}");
    }
}

#[test]
fn annotations_that_cannot_be_used_are_refused_with_the_object() {
    for (key, value, named) in [
        ("imbound", "strict", "there is no such setting"),
        ("inbound", "tight", "\"tight\" cannot be used"),
        ("cgroup", "/sys/fs/cgroup", "it is the pod's"),
        ("admin", "127.0.0.1:1", "`admin-port` decides"),
        ("admin-port", "80", "write a port from 1024 on"),
        ("admin-port", "65536", "write a port from 1024 on"),
        ("key", "/key", "`identity-source` decides"),
        ("memory-limit", "lots", "write a quantity"),
        ("validate", "yes", "write `true` or `false`"),
        ("identity-source", "vault", "write secret=NAME"),
        ("identity-source", "csi=csi.cert-manager.io", "issuer-name"),
        ("config-map", "A B", "no name of a ConfigMap"),
    ] {
        let sentence = refused(&annotated(&[(key, value)]));
        assert!(sentence.starts_with("pod/web: "), "{sentence}");
        assert!(
            sentence.contains(key) && sentence.contains(named),
            "{sentence}"
        );
    }
    let sentence = refused(&annotated(&[
        ("inbound", "strict"),
        ("inbound-failure", "open"),
    ]));
    assert!(sentence.contains("cannot be used together"), "{sentence}");
    let sentence = refused(&annotated(&[
        ("memory-request", "1Gi"),
        ("memory-limit", "512Mi"),
    ]));
    assert!(
        sentence.contains("more than the limit, 512Mi"),
        "{sentence}"
    );
}

#[test]
fn what_the_pod_calls_like_ours_is_not_taken_for_ours() {
    for (more, named) in [
        ("  - name: sidecar\n", "container of its own called sidecar"),
        (
            "  initContainers:\n  - name: sidecar\n    args: [x]\n",
            "container of its own called sidecar",
        ),
        (
            "  volumes:\n  - name: sidecar-bpf\n",
            "volume of its own called sidecar-bpf",
        ),
    ] {
        let sentence = refused(&format!("{POD}{more}"));
        assert!(sentence.contains(named), "{sentence}");
    }
}

#[test]
fn ports_that_the_node_asks_on_are_told() {
    let probes = "    ports: [{name: http, containerPort: 8080}]
    livenessProbe: {httpGet: {port: http}}
    readinessProbe: {tcpSocket: {port: 9000}}
    startupProbe: {grpc: {port: 9001}}
    lifecycle: {preStop: {httpGet: {port: \"9002\"}}, postStart: {exec: {command: [x]}}}
  - name: other
    livenessProbe: {httpGet: {port: 9003, host: example.org}}
    readinessProbe: {httpGet: {port: nowhere}}
";
    let pod = yaml(&injected(&format!("{POD}{probes}")));
    let ports = (
        "SIDECAR_PROBE_PORTS".to_owned(),
        "8080,9000,9001,9002".to_owned(),
    );
    assert!(environment(&pod, 0).contains(&ports), "{pod}");
    assert!(environment(&pod, 1).contains(&ports), "{pod}");
    let plain = injected(POD);
    assert!(!plain.contains("SIDECAR_PROBE_PORTS"), "{plain}");
}

#[test]
fn identities_come_from_where_they_are_said_to() {
    let of = |source: &str| {
        let options = Options {
            identity: source.parse().expect("a source"),
            ..Options::default()
        };
        let change = Change::Inject {
            options: &options,
            unasked: Unasked::Inject,
        };
        let text = format!("{POD}  serviceAccountName: shop\n");
        let pod = yaml(&manifests(&text, change).expect("it can be edited").0);
        let volumes = pod["spec"]["volumes"].as_array().expect("a list");
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == "sidecar-identity");
        (volume.expect("one").clone(), environment(&pod, 1))
    };
    let (volume, _) = of("secret=id-{service-account}");
    assert_eq!(volume["secret"]["secretName"], "id-shop");
    let (volume, _) = of("csi=csi.cert-manager.io,issuer-name=ca");
    let attributes = &volume["csi"]["volumeAttributes"];
    assert_eq!(attributes["csi.cert-manager.io/issuer-name"], "ca");
    assert_eq!(
        attributes["csi.cert-manager.io/uri-sans"],
        "spiffe://sidecar.local/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}"
    );
    let (volume, environment) = of("csi=csi.spiffe.io");
    assert_eq!(
        volume["csi"],
        json!({"driver": "csi.spiffe.io", "readOnly": true})
    );
    let socket = "unix:/run/sidecar/workload-api/spire-agent.sock".to_owned();
    assert!(environment.contains(&("SIDECAR_WORKLOAD_API".to_owned(), socket)));
    let (_, environment) = of("dev-ca");
    let id = environment
        .iter()
        .find(|(name, _)| name == "SIDECAR_IDENTITY");
    assert_eq!(
        id.expect("one").1,
        "spiffe://sidecar.local/ns/$(SIDECAR_POD_NAMESPACE)/sa/$(SIDECAR_POD_SERVICE_ACCOUNT)"
    );
}

/// A pod with a container of its own that is called like ours and does the same, but for somebody else.
const STRANGER: &str = "  initContainers:
  - name: sidecar
    image: somebody/else
    args: [run]
";

#[test]
fn a_container_of_somebody_else_is_neither_replaced_nor_taken_out() {
    let pod = format!("{POD}{STRANGER}");
    let sentence = refused(&pod);
    assert!(
        sentence.contains("container of its own called sidecar"),
        "{sentence}"
    );
    assert_eq!(uninjected(&pod), pod);
}

#[test]
fn a_volume_that_the_app_has_stays_the_apps() {
    let volume = "  volumes:\n  - name: sidecar-config\n    emptyDir: {}\n";
    let mount = "    volumeMounts: [{name: sidecar-config, mountPath: /x}]\n";
    let injected = injected(POD);
    // The app was given it after it was given a sidecar.
    let taken = injected
        .replace("    image: app\n", &format!("    image: app\n{mount}"))
        .replace("  volumes:\n", volume);
    let sentence = refused(&taken);
    assert!(
        sentence.contains("volume of its own called sidecar-config"),
        "{sentence}"
    );
    let left = yaml(&uninjected(&taken));
    assert_eq!(names(&left["spec"], "volumes"), ["sidecar-config"]);
    assert_eq!(names(&left["spec"], "initContainers"), [""; 0]);
}

#[test]
fn an_app_on_the_sidecars_port_is_refused() {
    for port in ["4195", "0x1063", "4_195", "4195, protocol: TCP"] {
        let pod = format!("{POD}    ports: [{{containerPort: {port}}}]\n");
        let sentence = refused(&pod);
        assert!(
            sentence.contains("container app declares port 4195"),
            "{sentence}"
        );
    }
    injected(&format!(
        "{POD}    ports: [{{containerPort: 4195, protocol: UDP}}, {{containerPort: 4196}}]\n"
    ));
}

#[test]
fn the_sidecar_is_moved_from_the_apps_port_by_an_annotation_with_all_that_is_asked_of_it() {
    let app = |port: u16| format!("    ports: [{{containerPort: {port}}}]\n");
    let sentence = refused(&format!("{POD}{}", app(4195)));
    assert!(
        sentence
            .ends_with("give the sidecar another one by the annotation sidecar.mesh/admin-port"),
        "{sentence}"
    );
    let moved = annotated(&[("admin-port", "4196")]);
    let result = injected(&format!("{moved}{}", app(4195)));
    let pod = yaml(&result);
    let admin = ("SIDECAR_ADMIN".to_owned(), "[::]:4196".to_owned());
    assert!(environment(&pod, 1).contains(&admin), "{pod}");
    let sidecar = &pod["spec"]["initContainers"][1];
    assert_eq!(sidecar["ports"][0]["containerPort"], 4196);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        assert_eq!(sidecar[probe]["httpGet"]["port"], 4196, "{probe}");
    }
    let (again, outcomes) = inject(&result).expect("it can be edited");
    assert_eq!((again, outcomes[0].result), (result, Fate::Unchanged));
    let sentence = refused(&format!("{moved}{}", app(4196)));
    assert!(
        sentence.contains("container app declares port 4196"),
        "{sentence}"
    );
}

#[test]
fn what_is_said_of_probes_leaves_the_rest_to_the_pod() {
    let probe = "    livenessProbe: {httpGet: {port: 8080}}\n";
    let set = |key: &str, value: &str| {
        let pod = yaml(&injected(&format!("{}{probe}", annotated(&[(key, value)]))));
        let variables = &pod["spec"]["initContainers"][1]["env"];
        let of = |name: &str| {
            let all = variables.as_array().expect("a list");
            let found: Vec<_> = all.iter().filter(|one| one["name"] == name).collect();
            assert_eq!(found.len(), 1, "{name} in {variables}");
            found[0].clone()
        };
        (of("SIDECAR_PROBE_PORTS"), of("SIDECAR_PROBE_SOURCES"))
    };
    let field = &json!("status.hostIPs");
    let (ports, sources) = set("inbound", "strict");
    assert_eq!(ports["value"], "8080");
    assert_eq!(sources["valueFrom"]["fieldRef"]["fieldPath"], *field);
    let (ports, sources) = set("probe-ports", "9000");
    assert_eq!(ports["value"], "9000");
    assert_eq!(sources["valueFrom"]["fieldRef"]["fieldPath"], *field);
    let (ports, sources) = set("probe-sources", "198.18.0.1/32");
    assert_eq!(ports["value"], "8080");
    assert_eq!(sources["value"], "198.18.0.1/32");
}

#[test]
fn who_asks_is_told_with_the_ports_that_are_asked_on_and_never_alone() {
    let variables = |annotations: &[(&str, &str)]| {
        let pod = yaml(&injected(&annotated(annotations)));
        let names = environment(&pod, 1).into_iter().map(|(name, _)| name);
        let is_asked = |name: &String| name.starts_with("SIDECAR_PROBE_");
        names.filter(is_asked).collect::<Vec<_>>()
    };
    let both = ["SIDECAR_PROBE_PORTS", "SIDECAR_PROBE_SOURCES"];
    assert_eq!(variables(&[("probe-ports", "9000")]), both);
    assert_eq!(variables(&[("inbound", "strict")]), [""; 0]);
    let sources = ("probe-sources", "198.18.0.1/32");
    assert_eq!(variables(&[sources]), both[1..]);
}

#[test]
fn what_is_said_where_no_pod_hears_it_is_refused() {
    let deployment = |metadata: &str| {
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  {metadata}
spec:
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers: [{{name: app}}]
"
        )
    };
    injected(&deployment("annotations: {example.com/inbound: strict}"));
    let common = deployment("labels: {sidecar.mesh/inject: enabled}");
    injected(&common.replace("app: web", "sidecar.mesh/inject: enabled"));
    for (kind, metadata) in [
        ("annotations", "annotations: {sidecar.mesh/inbound: strict}"),
        ("labels", "labels: {sidecar.mesh/inject: disabled}"),
    ] {
        let plain = deployment(metadata);
        let list = format!(
            "apiVersion: v1\nkind: List\nitems:\n- {}",
            plain.trim_end().replace('\n', "\n  ")
        );
        for text in [plain, list] {
            let sentence = refused(&text);
            assert!(
                sentence.starts_with("deployment/web: sidecar.mesh/in"),
                "{sentence}"
            );
            assert!(
                sentence.contains(&format!("stands in the {kind}"))
                    && sentence.contains("template"),
                "{sentence}"
            );
            // It says nothing of what is there.
            assert_eq!(uninjected(&text), text);
        }
    }
    let job = "apiVersion: batch/v1
kind: CronJob
metadata: {name: web}
spec:
  jobTemplate:
    metadata: {annotations: {sidecar.mesh/inbound: strict}}
    spec: {template: {spec: {containers: [{name: app}]}}}
";
    assert!(refused(job).contains("stands in the annotations"));
}

#[test]
fn what_kubectl_takes_for_yes_is_yes() {
    for (said, reason) in [
        ("hostNetwork: y", Reason::HostNetwork),
        ("hostNetwork: Y", Reason::HostNetwork),
        ("hostUsers: n", Reason::UserNamespace),
    ] {
        let text = format!("{POD}  {said}\n");
        let (result, outcomes) = inject(&text).expect("understood");
        assert_eq!(outcomes[0].result, Fate::Skipped(reason), "{said}");
        assert_eq!(result, text);
    }
}

#[test]
fn an_annotation_that_is_tagged_as_text_is_read() {
    let tagged = annotated(&[("exclude-inbound-ports", "9090")]).replace("\"9090\"", "!!str 9090");
    let pod = yaml(&injected(&tagged));
    let ports = (
        "SIDECAR_EXCLUDE_INBOUND_PORTS".to_owned(),
        "9090".to_owned(),
    );
    assert!(environment(&pod, 1).contains(&ports), "{pod}");
}

#[test]
fn ports_are_told_in_whatever_notation_they_are_written() {
    for written in [
        "0x1F90",
        "0o17620",
        "017620",
        "8_080",
        "08080",
        "8080.0",
        "808e1",
        "!!int \"0x1F90\"",
    ] {
        let probe = format!("    livenessProbe: {{tcpSocket: {{port: {written}}}}}\n");
        let pod = yaml(&injected(&format!("{POD}{probe}")));
        let ports = ("SIDECAR_PROBE_PORTS".to_owned(), "8080".to_owned());
        assert!(environment(&pod, 0).contains(&ports), "{written}: {pod}");
    }
}

#[test]
fn a_volume_of_ours_that_the_app_has_come_to_mount_is_replaced_and_outlives_our_containers() {
    let mount = "    volumeMounts: [{name: sidecar-identity, mountPath: /identity}]\n";
    for others in [
        format!("{POD}{mount}"),
        format!("{POD}  initContainers:\n  - name: other\n{mount}"),
        format!("{POD}  ephemeralContainers:\n  - name: other\n{mount}"),
    ] {
        let both = injected(&others);
        let (again, outcomes) = inject(&both).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(outcomes[0].result, Fate::Unchanged);
        assert_eq!(again, both);
        let volumes = ["sidecar-cgroup", "sidecar-bpf", "sidecar-identity"];
        assert_eq!(names(&yaml(&both)["spec"], "volumes"), volumes);
        let alone = yaml(&uninjected(&both));
        assert_eq!(names(&alone["spec"], "volumes"), ["sidecar-identity"]);
        assert!(!has_sidecar(&alone["spec"]), "{alone}");
    }
}

#[test]
fn what_is_said_to_the_pod_as_well_may_stand_elsewhere_too() {
    for kind in ["annotations", "labels"] {
        let deployment = |inside: &str| {
            format!(
                "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, {kind}: {{sidecar.mesh/inject: enabled}}}}
spec:
  template:
    metadata: {{{kind}: {{sidecar.mesh/inject: {inside}}}}}
    spec:
      containers: [{{name: app}}]
"
            )
        };
        // As tools write it that put the same everywhere.
        injected(&deployment("enabled"));
        assert!(refused(&deployment("disabled")).contains(&format!("stands in the {kind}")));
    }
}
