use std::collections::BTreeSet;

use clap::CommandFactory as _;

use super::*;
use crate::{
    cli::Cli,
    identity::{Files, Origin, TrustFile, testing::id},
    observe::Lost,
    telemetry::KernelEvents,
};

fn words(group: Group) -> BTreeSet<&'static str> {
    group.codes().iter().map(|code| code.code).collect()
}

#[test]
fn a_word_means_one_thing() {
    let mut known = BTreeSet::new();
    for code in all() {
        assert!(known.insert(code.code), "{} stands there twice", code.code);
    }
}

// Those of other groups are explained by a `match`.
#[test]
fn every_reason_not_to_follow_requests_is_explained() {
    assert_eq!(words(Group::Opaque), Lost::WORDS.into());
}

#[test]
fn every_reason_to_lose_statistics_is_explained() {
    assert_eq!(words(Group::Statistics), KernelEvents::LOSSES.into());
}

#[test]
fn every_source_that_can_fail_is_explained() {
    let path = std::path::PathBuf::new;
    let origins = [
        Origin::Files(Files {
            certificate: path(),
            key: path(),
            trust_bundle: path(),
        }),
        Origin::DevCa {
            dir: path(),
            id: id("a"),
        },
        Origin::WorkloadApi(path()),
    ];
    let files = [
        TrustFile::Crl(path()),
        TrustFile::Federated(id("a").trust_domain().clone(), path()),
    ];
    let mut known: BTreeSet<_> = origins.iter().map(Origin::as_str).collect();
    known.extend(files.iter().map(TrustFile::as_str));
    assert_eq!(words(Group::Identity), known);
}

#[test]
fn whatever_was_refused_or_has_failed_has_a_hint() {
    let mut to_act_on = all().filter(|code| {
        let word = code.code;
        let group = code.group;
        matches!(group, Group::Identity | Group::Settings | Group::Tls)
            || (group == Group::Connections && word != "eof")
            || ["dropped_", "_full", "failed_open"]
                .iter()
                .any(|part| word.contains(part))
    });
    assert_eq!(to_act_on.find(|code| code.hint.is_none()), None);
}

#[test]
fn explanations_are_sentences() {
    for code in all() {
        for text in [Some(code.meaning), code.hint].into_iter().flatten() {
            assert!(
                text.ends_with('.') && !text.contains("  "),
                "{}: {text}",
                code.code
            );
            assert!(!text.contains('|'), "{}: a table would break", code.code);
        }
    }
}

#[test]
fn hints_name_commands_codes_and_settings_that_exist() {
    let command = Cli::command();
    let settings = command.find_subcommand("run").expect("a command");
    let known: BTreeSet<_> = all().map(|code| code.code).collect();
    for code in all() {
        let text = format!("{} {}", code.meaning, code.hint.unwrap_or_default());
        for word in text.split('`').skip(1).step_by(2) {
            if let Some(line) = word.strip_prefix("sidecar ") {
                assert_command(&command, line);
            } else if word.contains('-') && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            {
                let mut flags = settings.get_arguments().filter_map(clap::Arg::get_long);
                assert!(
                    flags.any(|flag| flag == word),
                    "{}: no setting {word}",
                    code.code
                );
            } else if word.contains('_') && !word.contains(['=', '.', ' ']) {
                let is_metric = word.starts_with("sidecar_");
                assert!(
                    is_metric || known.contains(word),
                    "{}: no code {word}",
                    code.code
                );
            }
        }
    }
}

/// Checks that the command line begins with a command, and a command of that.
fn assert_command(command: &clap::Command, line: &str) {
    let mut command = command;
    for word in line.split(' ') {
        if word.starts_with('-') {
            let flag = word.trim_start_matches('-');
            let mut flags = command.get_arguments().filter_map(clap::Arg::get_long);
            assert!(
                flag == "version" || flags.any(|known| known == flag),
                "{line}"
            );
        } else if command.has_subcommands() {
            command = command
                .find_subcommand(word)
                .unwrap_or_else(|| panic!("there is no `sidecar {line}`"));
        }
    }
}
