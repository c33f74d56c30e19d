//! `sidecar inject` as people call it: files and pipes in, manifests out.

use std::path::{Path, PathBuf};

use sidecar_tests::{Program, Sandbox, sidecar};

/// A pod that gets a sidecar.
const POD: &str = "\
# ours
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: app # the only one
";

/// A manifest in JSON, as `kubectl get -o json` writes it.
const JOB: &str = r#"{
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {
        "name": "once"
    },
    "spec": {
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "app"
                    }
                ],
                "hostNetwork": true
            }
        }
    }
}
"#;

fn inject(sandbox: &Sandbox) -> Program<'_> {
    Program::new(sandbox, sidecar::binary()).arg("inject")
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples")
}

fn example(name: &str) -> String {
    std::fs::read_to_string(examples().join(name)).expect("an example")
}

#[test]
fn the_example_goes_in_and_comes_back() {
    let sandbox = Sandbox::new("inject");
    let output = inject(&sandbox)
        .arg(examples().join("web.yaml"))
        .run()
        .success();
    assert_eq!(output.stdout, example("web-injected.yaml"));
    assert_eq!(output.stderr, "deployment/web: injected\n");
    let piped = inject(&sandbox)
        .arg("-")
        .stdin(&output.stdout)
        .run()
        .success();
    assert_eq!(piped.stdout, output.stdout);
    assert_eq!(piped.stderr, "deployment/web: unchanged\n");
    let back = inject(&sandbox)
        .args(["--uninject", "-"])
        .stdin(&output.stdout)
        .run()
        .success();
    assert_eq!(back.stdout, example("web.yaml"));
    assert_eq!(back.stderr, "deployment/web: uninjected\n");
}

#[test]
fn several_files_are_one_stream_and_each_object_is_told() {
    let sandbox = Sandbox::new("inject");
    let pod = sandbox.file("pod.yaml", POD);
    let job = sandbox.file("job.json", JOB);
    let output = inject(&sandbox)
        .args([&pod, &job])
        .arg(examples().join("web.yaml"))
        .run()
        .success();
    assert_eq!(
        output.stderr,
        "pod/web: injected\n\
         job/once: skipped: hostNetwork: it shares the network of its node\n\
         deployment/web: injected\n"
    );
    let parts: Vec<_> = output.stdout.splitn(3, "---\n").collect();
    assert!(parts[0].starts_with("# ours\n") && parts[0].ends_with("# the only one\n"));
    assert_eq!(parts[1], JOB);
    assert_eq!(parts[2], example("web-injected.yaml"));
}

#[test]
fn if_anything_is_wrong_nothing_is_written() {
    let sandbox = Sandbox::new("inject");
    let good = sandbox.file("good.yaml", POD);
    let cases = [
        (
            "annotation.yaml",
            POD.replace(
                "name: web",
                "name: web, annotations: {sidecar.mesh/imbound: strict}",
            ),
            "pod/web",
        ),
        ("syntax.yaml", "a: [\n".to_owned(), "line "),
        (
            "alias.yaml",
            format!("{POD}  initContainers: &x []\n  volumes: *x\n"),
            "pod/web",
        ),
    ];
    for (name, text, named) in cases {
        let bad = sandbox.file(name, text);
        let output = inject(&sandbox).args([&good, &bad]).run().code(1);
        assert_eq!(output.stdout, "");
        output.assert_one_sentence(&[name, named]);
    }
    let bytes = sandbox.file("bytes.yaml", b"a: \xff\n");
    let output = inject(&sandbox).arg(bytes).run().code(1);
    output.assert_one_sentence(&["bytes.yaml", "UTF-8"]);
    for (flag, value, named) in [
        ("--set", "inbound=tight", "tight"),
        ("--set", "cgroup=/x", "the pod's"),
        ("--identity", "vault", "secret=NAME"),
        ("--trust-domain", "a/b", "a/b"),
    ] {
        let output = inject(&sandbox).args([flag, value]).arg(&good).run();
        assert_eq!(output.stdout, "");
        output.assert_one_sentence(&[named]);
    }
    inject(&sandbox)
        .arg("missing.yaml")
        .run()
        .code(1)
        .assert_one_sentence(&["missing.yaml"]);
}

#[test]
fn flags_say_what_is_added() {
    let sandbox = Sandbox::new("inject");
    let output = inject(&sandbox)
        .args(["--image", "registry.example/sidecar:2", "--validate"])
        .args(["--set", "inbound=strict", "--config-map", "rules"])
        .args(["--identity", "csi=spiffe.csi.cert-manager.io", "-"])
        .stdin(POD)
        .succeed();
    for line in [
        "\n    image: registry.example/sidecar:2\n",
        "\n  - name: sidecar-validate\n",
        "\n      - name: SIDECAR_INBOUND\n        value: strict\n",
        "\n        value: /etc/sidecar/sidecar.yaml\n",
        "\n      driver: spiffe.csi.cert-manager.io\n",
    ] {
        assert!(output.contains(line), "{line}{output}");
    }
    let only = inject(&sandbox)
        .args(["--only-enabled", "-"])
        .stdin(POD)
        .run()
        .success();
    assert_eq!(only.stdout, POD);
    assert_eq!(
        only.stderr,
        "pod/web: skipped: sidecar.mesh/inject does not ask for it\n"
    );
}
