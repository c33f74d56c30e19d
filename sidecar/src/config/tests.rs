//! What holds for the settings as a whole: one name in every place, one order of precedence, and
//! a refusal of what cannot be carried out.

use std::{collections::BTreeSet, ffi::OsString, fs};

use clap::{Args as _, Command, FromArgMatches as _};

use super::*;
use crate::{policy::Mode, telemetry::Kind};

/// The settings of a command line, without the program's name.
fn flags(line: &[&str]) -> Settings {
    let matches = command()
        .try_get_matches_from([&["sidecar"], line].concat())
        .unwrap_or_else(|error| panic!("{error}"));
    Settings::from_arg_matches(&matches).expect("the matches are those of the settings")
}

fn command() -> Command {
    Settings::augment_args(Command::new("sidecar"))
}

fn yaml(text: &str) -> Settings {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The keys of the file, which the parser lists when it meets an unknown one.
fn keys() -> BTreeSet<String> {
    let error = serde_saphyr::from_str::<Settings>("?: 0").expect_err("an unknown key");
    match error.without_snippet() {
        serde_saphyr::Error::SerdeUnknownField { expected, .. } => {
            expected.iter().map(ToString::to_string).collect()
        }
        other => panic!("{other}"),
    }
}

/// The key of a flag: the same word, but for the one flag that is repeated instead of listed.
fn key(flag: &str) -> String {
    match flag {
        "override" => "overrides".to_owned(),
        same => same.to_owned(),
    }
}

/// What takes more than a flag can say, and so stands in the file alone.
const FILE_ONLY: [&str; 2] = ["authorization", "expect"];

#[test]
fn every_setting_has_a_flag_a_key_and_a_variable_of_one_name() {
    let mut from_flags = BTreeSet::new();
    for arg in command().get_arguments() {
        let key = key(arg.get_long().expect("every setting has a long flag"));
        let variable = format!("SIDECAR_{}", key.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().map(OsString::from), Some(variable.into()));
        assert!(arg.get_help().is_some(), "{key} has no help");
        assert!(from_flags.insert(key));
    }
    from_flags.extend(FILE_ONLY.map(str::to_owned));
    assert_eq!(from_flags, keys());
}

#[test]
fn the_example_file_shows_every_setting_and_is_valid() {
    let text = include_str!("../../../docs/sidecar.yaml");
    let shown: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once(':'))
        .map(|(key, _)| key.to_owned())
        .filter(|key| keys().contains(key))
        .collect();
    assert_eq!(shown, keys());
    Config::try_from(yaml(text)).expect("the example can be carried out");
}

#[test]
fn the_reference_has_a_row_for_every_setting() {
    let text = include_str!("../../../docs/configuration.md");
    for arg in command().get_arguments() {
        let flag = arg.get_long().expect("every setting has a long flag");
        let key = key(flag);
        let variable = arg.get_env().expect("every setting has a variable");
        let heading = format!("### `{key}`");
        let (_, section) = text
            .split_once(&heading)
            .unwrap_or_else(|| panic!("no section {heading}"));
        let section = section.split("\n#").next().unwrap_or_default();
        assert!(section.contains(&format!("`--{flag} ")), "{key}: its flag");
        let variable = format!("`{}`", variable.display());
        assert!(section.contains(&variable), "{key}: its variable");
        assert!(section.contains("Default:"), "{key}: its default");
    }
    for key in FILE_ONLY {
        let (_, section) = text
            .split_once(&format!("### `{key}`"))
            .unwrap_or_else(|| panic!("no section for {key}"));
        let section = section.split("\n#").next().unwrap_or_default();
        assert!(section.contains("Default:"), "{key}: its default");
    }
    let sections = text.matches("\n### `").count();
    assert_eq!(sections, keys().len(), "a section for what is no setting");
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = yaml("log: warn\ninbound: strict\nexclude-inbound-ports: [22, 23]\n");
    let settings = flags(&["--log", "debug", "--exclude-inbound-ports", "80"]).or(file);
    let config = Config::try_from(settings).expect("valid");
    assert_eq!(config.log, "debug");
    assert_eq!(
        config.policy.inbound.mode(80, Ipv4Addr::LOCALHOST.into()),
        Mode::Strict
    );
    assert_eq!(
        config.policy.outbound.mode(80, Ipv4Addr::LOCALHOST.into()),
        Mode::Permissive
    );
    // A list replaces the file's: it is not added to it.
    assert_eq!(config.policy.exclusions.inbound_ports, [80].into());
}

#[test]
fn each_setting_of_the_upper_layer_wins() {
    let every = yaml(
        "{cgroup: a, netns: a, inbound: off, outbound: off, inbound-failure: open, \
         outbound-failure: open, overrides: [], \
         exclude-inbound-ports: [], exclude-outbound-ports: [], exclude-outbound-cidrs: [], \
         exclude-uids: [], authorization: {rules: []}, expect: [], certificate: a, key: a, trust-bundle: a, dev-ca: a, \
         identities: a, trust-domain: a, identity: 'spiffe://a/a', crl: [a], workload-api: 'unix:/a', \
         federated-bundles: [{trust-domain: a, file: a}], admin: '[::]:1', access-log: off, \
         access-log-events: [], access-log-file: a, access-log-sampling: 1, log: off, \
         log-format: json, observe: off, opaque-ports: [], max-peers: 1, forget-peers-after: 1s, \
         probe-ports: [], probe-sources: [], naming: off, pod-name: a, pod-namespace: a, \
         pod-service-account: a, pod-workload: a, node-name: a, \
         connect-timeout: 1s, handshake-timeout: 1s, identity-timeout: 1s, \
         max-handshakes: 1, reuse: 1s, drain-timeout: 1s, workers: 1, traces: 'http://a:1', bpffs: a}",
    );
    assert!(
        !format!("{every:?}").contains("None"),
        "a setting is not tried"
    );
    assert_eq!(every.clone().or(Settings::default()), every);
    assert_eq!(Settings::default().or(every.clone()), every);
}

#[test]
fn each_name_of_the_pod_is_in_its_own_label() {
    let config = Config::try_from(flags(&[
        "--pod-name=web-0",
        "--pod-namespace=shop",
        "--pod-service-account=web",
        "--pod-workload=statefulset/web",
        "--node-name=node-1",
    ]));
    let expected = PodLabels {
        namespace: "shop".into(),
        node: "node-1".into(),
        pod: "web-0".into(),
        service_account: "web".into(),
        workload: "statefulset/web".into(),
    };
    assert_eq!(config.expect("valid").labels, expected);
    let none = Config::try_from(Settings::default()).expect("valid");
    assert_eq!(none.labels, PodLabels::default());
}

#[test]
fn probes_have_ports_and_sources_of_either_family() {
    let config = Config::try_from(yaml(
        "{probe-ports: [8080, 8081], probe-sources: [198.18.0.1, 'fd00::/64']}",
    ));
    let policy = config.expect("valid").policy;
    let pairs: Vec<_> = { policy.probes.pairs() }
        .map(|(port, source)| format!("{port} {source}"))
        .collect();
    assert_eq!(
        pairs,
        [
            "8080 198.18.0.1/32",
            "8080 fd00::/64",
            "8081 198.18.0.1/32",
            "8081 fd00::/64"
        ]
    );
}

#[test]
fn settings_that_differ_are_named_by_their_keys() {
    let settings = |text| yaml(text);
    let one = settings("{inbound: off, workers: 1, exclude-uids: [1]}");
    let other = settings("{workers: 2, exclude-uids: [1], dev-ca: a}");
    assert_eq!(one.differing(&one), [""; 0]);
    assert_eq!(one.differing(&other), ["dev-ca", "inbound", "workers"]);
}

#[test]
fn nothing_set_gives_the_documented_defaults() {
    let config = Config::try_from(Settings::default()).expect("valid");
    assert_eq!(config.admin.to_string(), "127.0.0.1:4195");
    assert_eq!(config.bpffs, PathBuf::from("/sys/fs/bpf"));
    assert_eq!(config.limits.connect, Duration::from_secs(10));
    assert_eq!(config.limits.handshake, Duration::from_secs(10));
    assert_eq!(config.limits.handshakes, 4096);
    assert_eq!(config.drain_timeout, Duration::from_secs(5));
    assert_eq!(config.access_log, AccessLog::Text);
    assert_eq!(
        config.access_log_choice,
        Choice {
            events: vec![Kind::Closed, Kind::Denied, Kind::Failed],
            share: 1.0
        }
    );
    assert_eq!(config.access_log_file, None);
    assert_eq!(config.traces, None);
    assert_eq!(config.log, "info");
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.observing, Observing::default());
    assert_eq!(config.policy.exclusions, Exclusions::default());
    assert_eq!(config.policy.inbound_failure, Failure::Closed);
    assert_eq!(config.policy.outbound_failure, Failure::Closed);
    let identity::Origin::DevCa { dir, id } = config.identity else {
        panic!("{:?}", config.identity);
    };
    assert_eq!(dir, PathBuf::from("/var/lib/sidecar/dev-ca"));
    assert_eq!(id.trust_domain_name(), "sidecar.local");
    assert!(id.path().starts_with("/ns/default/sa/"), "{id}");
}

#[test]
fn lists_are_separated_by_commas_and_overrides_by_semicolons() {
    let settings = flags(&[
        "--exclude-uids=0,1000",
        "--exclude-outbound-cidrs=10.0.0.0/8,fd00::1",
        "--override=inbound,port=22,mode=off;outbound,cidr=10.0.0.1,mode=strict",
        "--override=outbound,port=53,mode=off",
    ]);
    assert_eq!(settings.overrides.as_ref().map(Vec::len), Some(3));
    let config = Config::try_from(settings).expect("valid");
    assert_eq!(config.policy.exclusions.uids, [0, 1000].into());
    assert_eq!(config.policy.exclusions.outbound_cidrs.len(), 2);
    assert_eq!(
        config.policy.inbound.mode(22, Ipv4Addr::LOCALHOST.into()),
        Mode::Off
    );
    assert_eq!(
        config.policy.outbound.mode(53, Ipv4Addr::LOCALHOST.into()),
        Mode::Off
    );
    assert_eq!(
        config.policy.outbound.mode(53, Ipv4Addr::LOCALHOST.into()),
        Mode::Off
    );
}

#[test]
fn excluding_all_of_ipv6_excludes_nothing_of_ipv4() {
    let config = Config::try_from(flags(&["--exclude-outbound-cidrs=::/0"])).expect("valid");
    let mapped = Ipv4Addr::new(198, 18, 0, 1).to_ipv6_mapped();
    let mut excluded = config.policy.exclusions.outbound_cidrs.iter();
    assert!(!excluded.any(|net| net.contains(&IpAddr::from(mapped))));
}

#[test]
fn what_is_not_to_be_looked_into_is_left_alone() {
    let observing = |line: &[&str]| Config::try_from(flags(line)).expect("valid").observing;
    assert!(!observing(&["--observe=on"]).is_off);
    assert!(observing(&["--observe=off"]).is_off);
    assert_eq!(
        observing(&["--opaque-ports=3306,5432"]).opaque_ports,
        [3306, 5432].into()
    );
}

#[test]
fn an_override_says_the_same_in_a_file_and_on_the_command_line() {
    assert_eq!(
        yaml("overrides: [{direction: outbound, cidr: 10.0.0.0/8, port: 5432, mode: strict}]"),
        flags(&[
            "--override",
            "outbound,cidr=10.0.0.0/8,port=5432,mode=strict"
        ]),
    );
}

#[test]
fn a_wrong_flag_is_refused_with_its_name_and_value() {
    for (flag, value) in [
        ("--inbound", "strickt"),
        ("--override", "outbound,cidr=10.0.0.0/33,mode=off"),
        ("--exclude-inbound-ports", "22,ssh"),
        ("--exclude-outbound-cidrs", "10.0.0.1/8"),
        ("--exclude-uids", "root"),
        ("--identity", "web"),
        ("--access-log-events", "closed,opens"),
        ("--access-log-sampling", "2"),
        ("--admin", "4195"),
        ("--traces", "collector:4317"),
        ("--log", "verbos"),
        ("--observe", "yes"),
        ("--opaque-ports", "5432,redis"),
        ("--connect-timeout", "0s"),
        ("--workers", "0"),
    ] {
        let error = command()
            .try_get_matches_from(["sidecar", flag, value])
            .expect_err(flag)
            .to_string();
        assert!(error.contains(flag), "{error}");
    }
}

#[test]
fn a_file_that_is_missing_is_named() {
    let args = Args {
        config: Some("/nonexistent/sidecar.yaml".into()),
        ..Args::default()
    };
    assert_eq!(
        args.load().expect_err("no such file").to_string(),
        "the settings file /nonexistent/sidecar.yaml cannot be read: \
         No such file or directory (os error 2)"
    );
}

#[test]
fn a_mistake_in_the_file_is_named_with_file_and_line() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), "log: info\ninbond: strict\n").expect("it can be written");
    let args = Args {
        config: Some(file.path().into()),
        ..Args::default()
    };
    assert_eq!(
        args.load().expect_err("an unknown key").to_string(),
        format!(
            "{}:2: unknown key `inbond`; did you mean `inbound`?",
            file.path().display()
        )
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (text, sentence) in [
        (
            "{certificate: a, trust-bundle: b}",
            "identity files belong together, but --key is not set; \
             set --certificate, --key and --trust-bundle, or none of them to use the \
             development CA",
        ),
        (
            "{certificate: a, key: b, trust-bundle: c, identity: 'spiffe://a/b'}",
            "identity comes from files, from the Workload API or from the development CA, \
             but --certificate and --identity are both set; remove one of them",
        ),
        (
            "{workload-api: 'unix:/a', dev-ca: b}",
            "identity comes from files, from the Workload API or from the development CA, \
             but --workload-api and --dev-ca are both set; remove one of them",
        ),
        (
            "{outbound: strict, outbound-failure: open}",
            "outbound-failure is open, which lets plaintext pass while no sidecar serves, but \
             outbound is strict; set outbound-failure to closed, or outbound to permissive",
        ),
        (
            "{inbound: strict, inbound-failure: open}",
            "inbound-failure is open, which lets plaintext pass while no sidecar serves, but \
             inbound is strict; set inbound-failure to closed, or inbound to permissive",
        ),
        (
            "federated-bundles: [{trust-domain: a, file: b}, {trust-domain: a, file: c}]",
            "federated-bundles names b and c for trust domain a; \
             put all of its authorities into one file",
        ),
        (
            "{overrides: [{direction: inbound, port: 1, mode: off}, \
             {direction: inbound, port: 1, mode: strict}]}",
            "the override `inbound,port=1,mode=strict` contradicts an earlier one that says off \
             for the same connections; keep one of them",
        ),
    ] {
        let error = Config::try_from(yaml(text)).expect_err(text);
        assert_eq!(error.to_string(), sentence);
    }
}

#[test]
fn the_workload_api_of_the_environment_is_used_when_no_source_is_set() {
    let origin = |identity: Option<&str>, endpoint: &str| {
        let settings = IdentitySettings {
            certificate: None,
            key: None,
            trust_bundle: None,
            workload_api: None,
            identities: None,
            dev_ca: None,
            identity: identity.map(|id| id.parse().expect("SPIFFE ID")),
        };
        let trust_domain = TrustDomain::new("example.org").expect("a name");
        settings.origin(Some(endpoint.into()), &Hostname::read(), &trust_domain)
    };
    assert_eq!(
        origin(None, "unix:///run/agent.sock").expect("valid"),
        identity::Origin::WorkloadApi("/run/agent.sock".into())
    );
    assert!(matches!(
        origin(Some("spiffe://example.org/web"), "unix:///run/agent.sock"),
        Ok(identity::Origin::DevCa { .. })
    ));
    assert_eq!(
        origin(None, "tcp://127.0.0.1:1")
            .expect_err("refused")
            .to_string(),
        "SPIFFE_ENDPOINT_SOCKET: `tcp://127.0.0.1:1` is not a Unix socket of the Workload API; \
         write one such as unix:/run/spire/agent.sock"
    );
}

#[test]
fn identities_of_many_are_a_source_of_their_own() {
    let config = |text| Config::try_from(yaml(text));
    let many = config("{identities: /run/identities, trust-domain: example.org}").expect("valid");
    assert_eq!(
        many.identity,
        identity::Origin::Accounts("/run/identities".into())
    );
    assert_eq!(many.trust_domain.as_str(), "example.org");
    let error = config("{identities: a, dev-ca: b}").expect_err("two sources");
    assert!(
        error
            .to_string()
            .contains("--identities and --dev-ca are both set"),
        "{error}"
    );
}

#[test]
fn the_trust_domain_is_that_of_the_identity_unless_it_is_named() {
    let config = |text| Config::try_from(yaml(text));
    let domain = |text| config(text).expect("valid").trust_domain.to_string();
    assert_eq!(domain("{}"), "sidecar.local");
    assert_eq!(
        domain("identity: 'spiffe://example.org/web'"),
        "example.org"
    );
    assert_eq!(domain("trust-domain: example.com"), "example.com");
    let error = config("{trust-domain: example.com, identity: 'spiffe://example.org/web'}");
    assert_eq!(
        error.expect_err("two trust domains").to_string(),
        "trust-domain is example.com, but identity is in example.org; leave trust-domain out, or \
         set it to example.org"
    );
    let made = config("trust-domain: example.com").expect("valid").identity;
    let identity::Origin::DevCa { id, .. } = made else {
        panic!("{made:?}");
    };
    assert_eq!(id.trust_domain_name(), "example.com");
}
