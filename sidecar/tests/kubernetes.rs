//! What the documents about Kubernetes tell to type, and where they point, is there.

use std::{collections::BTreeSet, fs, process::Command};

use clap::{Parser as _, error::ErrorKind};
use serde_json::{Value, json};
use sidecar::{
    cli::Cli,
    codes, inject,
    kubernetes::{LABEL, annotations},
};
use sidecar_tests::manifests::{self, name, objects, overlays, render};

/// The documents.
const DOCUMENTS: [&str; 3] = [
    "docs/kubernetes.md",
    "docs/operations.md",
    "deploy/README.md",
];

fn read(path: &str) -> String {
    let path = manifests::root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The command lines of a document: what stands behind `$` in its console blocks.
fn lines(document: &str) -> Vec<String> {
    let mut is_console = false;
    let mut lines = Vec::new();
    for line in read(document).lines().map(str::trim) {
        if let Some(kind) = line.strip_prefix("```") {
            is_console = kind == "console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| is_console) {
            lines.push(settled(command));
        }
    }
    lines
}

/// The variables of command lines, with values that they could have.
const VARIABLES: [(&str, &str); 3] = [
    ("pod", "web-7d9c5b-x2x7k"),
    ("node", "node-1"),
    ("agent", "pod/sidecar-node-x2x7k"),
];

/// A command line with values for its variables, or what it gives one of them.
#[track_caller]
fn settled(line: &str) -> String {
    let given = VARIABLES.iter().find_map(|(name, _)| {
        let rest = line.strip_prefix(name)?.strip_prefix('=')?;
        Some(rest.strip_prefix("$(").map_or(rest, |rest| {
            rest.strip_suffix(')').expect("nothing follows")
        }))
    });
    let line = given.unwrap_or(line).to_owned();
    VARIABLES.iter().fold(line, |line, (name, value)| {
        line.replace(&format!("${name}"), value)
    })
}

/// The commands of a line, which pass on what they print; each as its words.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => commands.last_mut().expect("one").extend(word.take()),
            (None, '|') => commands.push(Vec::new()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "a quote without an end: {line}");
    commands.last_mut().expect("one").extend(word);
    commands
}

/// Words in code type, but for blocks.
fn words(document: &str) -> Vec<String> {
    let text = read(document);
    let outside = text.split("```").step_by(2);
    let words = outside.flat_map(|text| text.split('`').skip(1).step_by(2));
    words.map(str::to_owned).collect()
}

/// Has the command line of ours be understood; `is_whole`: with all that it takes.
#[track_caller]
fn check_ours(words: &[String], is_whole: bool) {
    let said = words.join(" ");
    if let [_, command, code] = words
        && command == "explain"
    {
        assert!(codes::all().any(|known| known.code == *code), "{said}");
    }
    let words = ["sidecar"]
        .into_iter()
        .chain(words[1..].iter().map(String::as_str));
    match Cli::try_parse_from(words) {
        Ok(_) => {}
        Err(error)
            if !is_whole
                && matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                ) => {}
        Err(error) => panic!("{said}: {error}"),
    }
}

/// Has kubectl understand a command line of its own, and looks for the objects that it names.
#[track_caller]
fn check_kubectl(words: &[String], known: &BTreeSet<String>) {
    let said = words.join(" ");
    let mut parts = words.splitn(2, |word| word == "--");
    let own = parts.next().expect("kubectl itself");
    if let Some(inside) = parts.next() {
        assert_eq!(inside[0], "/sidecar", "{said}");
        check_ours(inside, true);
    }
    let output = Command::new(manifests::tool("kubectl"))
        .args(&own[1..])
        .arg("--help")
        .output()
        .expect("kubectl starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaint.is_empty(),
        "{said}: {complaint}"
    );
    // It answers for the command that it has found, which may be the one above.
    let help = String::from_utf8_lossy(&output.stdout);
    let mut verbs = own[1..].iter();
    let verb = verbs.find(|word| *word != "-n" && !known.contains(*word));
    let verb = verb.unwrap_or_else(|| panic!("{said}: what does it do?"));
    let usage = help
        .split("Usage:")
        .nth(1)
        .unwrap_or_else(|| panic!("{said}: {help}"));
    assert!(
        usage.contains(&format!("kubectl {verb}")),
        "{said}: {usage}"
    );

    for (index, word) in own.iter().enumerate() {
        let next = || &own[index + 1];
        match word.as_str() {
            "-k" | "kustomize" => assert!(overlays().contains(next()), "{said}"),
            "-n" => assert!(known.contains(next()), "{said}"),
            "-c" => assert!(["agent", "sidecar"].contains(&&**next()), "{said}"),
            "deployment" if !next().starts_with('-') => {
                assert!(known.contains(&format!("deployment/{}", next())), "{said}");
            }
            word if word.starts_with("deployment/") || word.starts_with("daemonset/") => {
                assert!(known.contains(word), "{said}");
            }
            _ => {}
        }
    }
}

/// What the overlays have: `kind/name`, and the names of namespaces.
fn deployed() -> BTreeSet<String> {
    let objects = overlays()
        .into_iter()
        .flat_map(|overlay| objects(&render(&overlay)));
    let mut known = BTreeSet::new();
    for object in objects {
        known.insert(name(&object));
        let namespace = object["metadata"]["namespace"].as_str();
        known.extend(namespace.map(str::to_owned));
    }
    known
}

#[test]
fn every_command_is_one_that_there_is() {
    let known = deployed();
    let mut checked = 0;
    for document in DOCUMENTS {
        let mut said: Vec<_> = lines(document)
            .iter()
            .flat_map(|line| commands(line))
            .collect();
        let inline = words(document);
        let inline = inline.iter().filter(|word| word.starts_with("kubectl "));
        said.extend(
            inline
                .flat_map(|line| commands(line))
                .filter(|words| words.len() > 2 && words.last().is_some_and(|last| last != "-k")),
        );
        for words in said {
            match &*words[0] {
                "sidecar" => check_ours(&words, true),
                "kubectl" => check_kubectl(&words, &known),
                "grep" | "openssl" | "podman" | "tail" => {}
                one if VARIABLES.iter().any(|(_, value)| *value == one) => {}
                _ => panic!("{document}: who knows whether this is right: {words:?}"),
            }
            checked += 1;
        }
        for word in words(document) {
            let words = commands(&word).remove(0);
            if words.len() > 1 && words[0] == "sidecar" {
                check_ours(&words, false);
                checked += 1;
            }
        }
    }
    assert!(checked > 40, "only {checked} commands were found");
}

/// The commands of all documents, each with its document.
fn all() -> Vec<(&'static str, Vec<String>)> {
    let lines = DOCUMENTS.into_iter().flat_map(|document| {
        let lines = lines(document).into_iter();
        lines.map(move |line| (document, line))
    });
    lines
        .flat_map(|(document, line)| {
            let commands = commands(&line).into_iter();
            commands.map(move |words| (document, words))
        })
        .collect()
}

#[test]
fn commands_that_make_pods_of_ours_name_the_image_of_the_user() {
    let is_pushed = |words: &[String]| words[..2] == ["podman", "push"];
    let all = all();
    let (_, pushed) = all
        .iter()
        .find(|(_, words)| words.len() > 2 && is_pushed(words))
        .expect("an image is pushed");
    let mut named = 0;
    for (document, words) in &all {
        let said = words.join(" ");
        let makes = ["sidecar inject", "kubectl debug"];
        if !makes.iter().any(|make| said.starts_with(make)) || said.contains("--uninject") {
            continue;
        }
        named += 1;
        let flags = said.replace("--image=", "--image ");
        let image = format!("--image {} ", pushed[2]);
        assert!(flags.contains(&image), "{document}: {said}");
    }
    assert!(named > 3, "only {named} name an image");
}

#[test]
fn an_agent_is_the_one_of_a_node() {
    let mut asked = 0;
    for (document, words) in all() {
        let said = words.join(" ");
        let (_, agent) = VARIABLES[2];
        if ["exec", "logs"]
            .iter()
            .any(|verb| words.contains(&(*verb).to_owned()))
            && said.contains("-n sidecar-node")
        {
            asked += 1;
            assert!(said.contains(agent), "{document}: {said}");
        }
    }
    assert!(asked > 4, "only {asked} ask an agent");
}

#[test]
fn who_removes_what_is_left_on_a_node_is_root() {
    let document = "docs/operations.md";
    let text = read(document);
    let (_, file) = text.split_once("```json\n").expect("a file is shown");
    let (file, _) = file.split_once("```").expect("it ends");
    let file: Value = serde_json::from_str(file).expect("it is JSON");
    assert_eq!(file, json!({ "securityContext": { "runAsUser": 0 } }));
    let mut debugs = 0;
    for line in lines(document) {
        if line.starts_with("kubectl debug") {
            debugs += 1;
            for flag in ["--profile=sysadmin", "--custom=root.json"] {
                assert!(line.contains(flag), "{line}");
            }
        }
    }
    assert!(debugs > 1, "nothing is removed");
}

#[test]
fn secrets_that_are_there_are_replaced() {
    let mut replaced = 0;
    for line in lines("docs/operations.md") {
        if line.contains("create secret") {
            replaced += 1;
            let end = "--dry-run=client -o yaml | kubectl apply -f -";
            assert!(line.ends_with(end), "{line}");
        }
    }
    assert!(replaced > 1, "nothing is renewed");
}

#[test]
fn every_path_and_every_link_leads_somewhere() {
    let mut checked = 0;
    for document in DOCUMENTS {
        let directory = document.rsplit_once('/').expect("it is in a directory").0;
        for word in words(document) {
            if ["deploy/", "docs/"]
                .iter()
                .any(|begin| word.starts_with(begin))
            {
                assert!(manifests::root().join(&word).exists(), "{document}: {word}");
                checked += 1;
            }
        }
        let text = read(document);
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = match path {
                "" => document.to_owned(),
                path => format!("{directory}/{path}"),
            };
            let target = manifests::root().join(&path);
            assert!(target.exists(), "{document}: {link}");
            if !anchor.is_empty() {
                let anchors = anchors(&read(&path));
                assert!(anchors.contains(anchor), "{document}: {link}: {anchors:?}");
            }
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} were found");
}

/// The names of a document's headings in links.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    let mut anchors = BTreeSet::new();
    for heading in headings {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = kept
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor = kept.collect::<String>().replace(' ', "-");
        let times = (1..).map(|time| format!("{anchor}-{time}"));
        let mut names = [anchor.clone()].into_iter().chain(times);
        anchors.extend(names.find(|name| !anchors.contains(name)));
    }
    anchors
}

#[test]
fn labels_and_annotations_are_ones_that_we_know() {
    let mut checked = 0;
    for document in DOCUMENTS {
        for word in words(document) {
            let (key, _) = word.split_once(": ").unwrap_or((&word, ""));
            let Some(short) = key.strip_prefix(annotations::PREFIX) else {
                continue;
            };
            checked += 1;
            if key == LABEL || inject::ANNOTATIONS.contains(&short) {
                continue;
            }
            let none = [(key.to_owned(), "\u{0}".to_owned())].into();
            let error = annotations::settings(&none, &[]).expect_err("no value");
            assert!(
                !error.to_string().contains("no such setting"),
                "{document}: {error}"
            );
        }
    }
    assert!(checked > 8, "only {checked} were found");
}

#[test]
fn every_overlay_is_listed() {
    let readme = words("deploy/README.md");
    for overlay in overlays() {
        let short = overlay.strip_prefix("deploy/").expect("it is below");
        assert!(readme.iter().any(|word| word == short), "{overlay}");
    }
}
