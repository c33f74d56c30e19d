//! Texts, of which everything else stays.

use super::*;

#[test]
fn the_example_is_what_comes_out() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
    let plain = fs::read_to_string(format!("{dir}/web.yaml")).expect("an example");
    let result = injected(&plain);
    let golden = format!("{dir}/web-injected.yaml");
    if std::env::var_os("SIDECAR_WRITE_GOLDEN").is_some() {
        fs::write(&golden, &result).expect("a writable file");
    }
    let golden = fs::read_to_string(golden).expect("an example");
    assert_eq!(result, golden, "SIDECAR_WRITE_GOLDEN=1 rewrites it");
    assert_eq!(uninjected(&golden), plain);
}

/// Ways to write a pod's `spec`, from after `spec:` on.
const LAYOUTS: &[&str] = &[
    "\n  containers:\n  - name: app\n",
    "\n  containers:\n    - name: app\n",
    "\n    containers:\n    - name: app",
    " # ours\n\n  # the app\n  containers: # one\n\n  - name: app # here\n  # the end\n\n# of it\n",
    "\n  containers:\n  - name: app\n  initContainers:\n  # first\n  - name: migrate\n  - name: warm\n    args: [\"a\", 'b', c]\n",
    "\n  containers:\n  - name: app\n  initContainers:   # some\n      -   name: migrate\n          image: |\n            text\n\n      -   name: warm\n  volumes:\n  - name: data\n    emptyDir: {}\n",
    "\n  initContainers:\n  -\n    name: migrate\n  containers:\n  -\n    name: app\n",
    "\n  initContainers: [{name: migrate}, {name: warm}]\n  volumes: [ {name: data, emptyDir: {}} ]\n  containers: [{name: app}]\n",
    "\n  initContainers: [\n    {name: migrate},\n    {name: warm} ]\n  containers: [{name: app}]\n",
    "\n  \"initContainers\" :\n  - name: migrate\n  'containers':\n  - {name: app}\n",
    " {containers: [{name: app}]}\n",
    " {containers: [{name: app}], initContainers: [{name: migrate}], volumes: [{name: data}]}\n",
    " { # kept\n    containers: [\n      {name: app}\n    ],\n  }\n",
    "\n  &spec\n  containers:\n  - name: app\n",
    " &spec\n  containers:\n  - &app\n    name: app\n    env: &env [{name: A, value: \"yes\"}]\n  - name: two\n    env: *env\n",
    "\n  ? containers\n  : - name: app\n",
    "\n  containers:\n  - name: app\n    args:\n    - |\n      initContainers:\n      - name: sidecar\n    - >-\n      spec:\n",
    "\n  containers:\n  - name: 😀é\n    command: [\"/bin/sh\", \"-c\", \"echo '---'\"]\n",
    "\n  containers:\n  - name: app\n  hostAliases: !!seq\n  - ip: 1.2.3.4\n",
];

#[test]
fn whatever_the_layout_each_line_stays_and_comes_back() {
    for layout in LAYOUTS {
        for head in ["", "# a comment\n---\n", "%YAML 1.2\n---\n"] {
            let text =
                format!("{head}apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:{layout}");
            let result = injected(&text);
            let spec = &yaml(&result)["spec"];
            let plain = &yaml(&text)["spec"];
            assert_eq!(
                names(spec, "initContainers")[..2],
                ["sidecar-init", "sidecar"],
                "{result}"
            );
            assert_eq!(
                names(spec, "initContainers")[2..],
                names(plain, "initContainers")
            );
            assert_eq!(spec["containers"], plain["containers"], "{result}");
            assert_eq!(uninjected(&result), text, "{result}");
            assert_eq!(injected_again(&result), result);
        }
    }
}

/// Nothing changes.
#[track_caller]
fn injected_again(text: &str) -> String {
    let (text, outcomes) = inject(text).expect("it can be edited");
    assert!(
        outcomes.iter().all(|one| one.result == Fate::Unchanged),
        "{outcomes:?}"
    );
    text
}

#[test]
fn windows_line_ends_stay() {
    for layout in LAYOUTS {
        let text = format!("apiVersion: v1\nkind: Pod\nspec:{layout}").replace('\n', "\r\n");
        let result = injected(&text);
        assert!(
            !result.replace("\r\n", "").contains(['\r', '\n']),
            "{result:?}"
        );
        assert_eq!(uninjected(&result), text);
    }
}

#[test]
fn empty_lists_are_filled() {
    for empty in ["", " []", " [ ]", " null", " ~", " [] # none", " # none"] {
        let text = format!("{POD}  initContainers:{empty}\n  volumes:{empty}\n");
        let result = injected(&text);
        let spec = &yaml(&result)["spec"];
        assert_eq!(names(spec, "initContainers"), ["sidecar-init", "sidecar"]);
        assert_eq!(names(spec, "volumes").len(), 3, "{result}");
        assert!(are_lines_kept(POD, &result), "{result}");
        assert_eq!(empty.contains('#'), result.contains("# none"), "{result}");
        assert_eq!(injected_again(&result), result);
    }
}

#[test]
fn where_there_is_nothing_to_take_out_nothing_changes() {
    for empty in ["", " []", " null", " ~", " [] # none"] {
        for list in ["initContainers", "volumes"] {
            let text = format!("{POD}  {list}:{empty}\n");
            let (left, outcomes) = manifests(&text, Change::Uninject)
                .unwrap_or_else(|error| panic!("{error}:\n{text}"));
            assert_eq!(outcomes[0].result, Fate::Unchanged, "{text}");
            assert_eq!(left, text);
        }
    }
}

#[test]
fn json_stays_json() {
    let compact = r#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"app"}]}}"#;
    let value: Value = serde_json::from_str(compact).expect("JSON");
    let pretty = serde_json::to_string_pretty(&value).expect("JSON") + "\n";
    let tabs = pretty.replace("  ", "\t");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [value, {"kind": "Service"}]});
    let list = serde_json::to_string_pretty(&list).expect("JSON");
    for text in [
        compact,
        &pretty,
        &tabs,
        &list,
        &pretty.replace('\n', "\r\n"),
    ] {
        let result = injected(text);
        serde_json::from_str::<Value>(&result).expect("JSON");
        assert_eq!(uninjected(&result), text, "{result}");
        assert_eq!(injected_again(&result), result);
    }
    let column = injected(&pretty);
    assert!(column.contains("\n    \"initContainers\": [\n"), "{column}");
}

#[test]
fn all_kinds_that_make_pods_get_one_and_others_stay() {
    let template = "template:\n    spec:\n      containers:\n      - name: app\n";
    for (api, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("batch/v1", "Job"),
        ("v1", "ReplicationController"),
    ] {
        let text =
            format!("apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: x\nspec:\n  {template}");
        let result = injected(&text);
        let spec = &yaml(&result)["spec"]["template"]["spec"];
        assert_eq!(names(spec, "initContainers"), ["sidecar-init", "sidecar"]);
    }
    let job = format!(
        "apiVersion: batch/v1\nkind: CronJob\nspec:\n  jobTemplate:\n    spec:\n      {}",
        template.replace("\n  ", "\n      ")
    );
    let spec = &yaml(&injected(&job))["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert_eq!(names(spec, "initContainers"), ["sidecar-init", "sidecar"]);
    for other in [
        "apiVersion: v1\nkind: Service\nspec:\n  ports: []\n",
        "apiVersion: example.org/v1\nkind: Deployment\nspec: {template: {}}\n",
        "kind: ConfigMap\ndata: {a: 1, a: 2}\n",
        "",
        "# nothing\n",
        "---\n---\n# nothing\n...\n",
        "- a\n- b\n",
        "text",
        "\u{feff}kind: Secret\n",
    ] {
        let (text, outcomes) = inject(other).expect("nothing to do");
        assert_eq!(text, other);
        assert_eq!(outcomes, []);
    }
}

#[test]
fn each_document_of_a_stream_is_edited_on_its_own() {
    let service = "apiVersion: v1\nkind: Service # {\nmetadata: {name: web}\n";
    let text = format!("---\n{POD}---\n{service}...\n---\n# empty\n---\n{POD}---\n{POD}");
    let (result, outcomes) = inject(&text).expect("it can be edited");
    assert_eq!(outcomes.len(), 3);
    assert_eq!(result.matches("- name: sidecar-init\n").count(), 3);
    assert!(result.contains(service));
    assert!(are_lines_kept(&text, &result));
    assert_eq!(uninjected(&result), text);
}

#[test]
fn what_an_edit_would_change_elsewhere_is_refused() {
    let shared = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n  spec: &s\n    containers:\n    - name: app\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: b}\n  spec: *s\n";
    let sentence = refused(shared);
    assert!(
        sentence.starts_with("pod/b: cannot be edited"),
        "{sentence}"
    );
    let merged = format!(
        "x: &x\n  initContainers: [{{name: migrate}}]\n{}",
        POD.replace("spec:\n", "spec:\n  <<: *x\n")
    );
    let sentence = refused(&merged);
    assert!(
        sentence.starts_with("pod/web: cannot be edited"),
        "{sentence}"
    );
    let list = format!("x: &x [{{name: migrate}}]\n{POD}  initContainers: *x\n");
    let sentence = refused(&list);
    assert!(
        sentence.contains("initContainers is an alias"),
        "{sentence}"
    );
    // A pod that is used elsewhere, outside of any pod.
    let used = format!("{}copy: *s\n", POD.replace("spec:\n", "spec: &s\n"));
    let sentence = refused(&used);
    assert!(
        sentence.contains("more than its pod would change"),
        "{sentence}"
    );
}

#[test]
fn what_is_ambiguous_or_endless_is_refused() {
    let twice = format!("{POD}  containers: []\n");
    assert_eq!(
        refused(&twice),
        "pod/web: line 9: containers stands there twice"
    );
    let sentence = refused("a: [b\n");
    assert!(sentence.starts_with("line "), "{sentence}");
    let deep = format!("{POD}    x: {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    assert!(refused(&deep).starts_with("line 9: "));
    let mut bomb = format!("{POD}a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let alias = format!("*a{}, ", level - 1).repeat(10);
        bomb = format!("{bomb}a{level}: &a{level} [{alias}]\n");
    }
    assert!(refused(&bomb).contains("aliases make more than"));
    let circle = format!("{POD}a: &a [*a]\n");
    assert!(refused(&circle).contains("an alias refers to what it is part of"));
}

#[test]
fn other_options_replace_what_was_added() {
    let options = Options {
        image: "registry.example/sidecar:2".to_owned(),
        validate: true,
        ..Options::default()
    };
    for layout in LAYOUTS {
        let text = format!("apiVersion: v1\nkind: Pod\nspec:{layout}");
        let change = Change::Inject {
            options: &options,
            unasked: Unasked::Inject,
        };
        let direct = manifests(&text, change).expect("it can be edited").0;
        let replaced = manifests(&injected(&text), change)
            .expect("it can be edited")
            .0;
        assert_eq!(replaced, direct);
        let names = names(&yaml(&replaced)["spec"], "initContainers");
        assert_eq!(names[..3], ["sidecar-init", "sidecar", "sidecar-validate"]);
    }
}

/// What means something in YAML.
const INSERTED: [&str; 14] = [
    "#", ":", "-", "\n", " ", "{", "]", "&a ", "*a", "'", "\"", "|", "\t", "? ",
];

/// Every text that is made of a layout by taking out or doubling a line, or by a character that
/// means something in YAML.
fn variations(text: &str) -> impl Iterator<Item = String> {
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let by_line = (0..lines.len()).flat_map({
        let lines = lines.clone();
        move |index| {
            let mut without = lines.clone();
            without.remove(index);
            let mut twice = lines.clone();
            twice.insert(index, lines[index]);
            [without.concat(), twice.concat()]
        }
    });
    let text = text.to_owned();
    // One of them at every other place: all of them everywhere takes minutes.
    let by_character = (0..text.len())
        .step_by(2)
        .filter({
            let text = text.clone();
            move |at| text.is_char_boundary(*at)
        })
        .enumerate()
        .map(move |(turn, at)| {
            let (before, after) = text.split_at(at);
            format!("{before}{}{after}", INSERTED[turn % INSERTED.len()])
        });
    by_line.chain(by_character)
}

#[test]
fn no_variation_is_corrupted() {
    let mut edited = 0;
    for layout in LAYOUTS {
        let text = format!("apiVersion: v1\nkind: Pod\nspec:{layout}");
        for text in variations(&text) {
            let Ok((result, outcomes)) = inject(&text) else {
                continue;
            };
            if outcomes.iter().all(|one| one.result != Fate::Injected) {
                assert_eq!(result, text);
                continue;
            }
            edited += 1;
            let again = inject(&result).unwrap_or_else(|error| panic!("{error}:\n{result}"));
            assert_eq!(again.0, result);
            // Another reader, and what it says without ours.
            let (Ok(before), Ok(after)) = (
                serde_saphyr::from_str::<Value>(&text),
                serde_saphyr::from_str::<Value>(&result),
            ) else {
                continue;
            };
            let restored = Addition::default().apply(&after["spec"]);
            let plain = Addition::default().apply(&before["spec"]);
            let others = |spec: &Value| {
                let mut spec = spec.clone();
                for list in ["initContainers", "volumes"] {
                    if spec[list].as_array().is_none_or(Vec::is_empty) {
                        spec.as_object_mut().expect("a mapping").remove(list);
                    }
                }
                spec
            };
            assert_eq!(others(&restored), others(&plain), "{text}\n{result}");
        }
    }
    assert!(edited > 500, "{edited}");
}
