//! Who may reach an app, and who may answer one; and what becomes of a changed settings file.

use std::{fs, path::PathBuf};

use nix::sys::signal::Signal;
use sidecar_tests::{
    App, Behaviour, Connection, Pod, Pods, Process, SECRET, Sidecar, sidecar, wait,
};

/// A settings file in the directory of a pod.
struct File {
    path: PathBuf,
}

impl File {
    fn new(pod: &Pod, text: &str) -> Self {
        Self {
            path: pod.sandbox().file("sidecar.yaml", text),
        }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("the names are ASCII")
    }

    /// Replaces it as careful writers do: the file is at every moment the old or the new one.
    fn replace(&self, text: &str) {
        let new = self.path.with_extension("new");
        fs::write(&new, text).expect("writing a file");
        fs::rename(&new, &self.path).expect("replacing a file");
    }

    /// Writes into it as careless writers do, a few bytes at a time.
    fn write_slowly(&self, text: &str) {
        use std::io::Write as _;
        let mut file = fs::File::create(&self.path).expect("emptying a file");
        for byte in text.as_bytes() {
            file.write_all(&[*byte]).expect("writing a file");
        }
    }
}

/// How often settings were taken over or refused.
fn reloads(sidecar: &Sidecar, outcome: &str) -> u64 {
    let metrics = sidecar.metrics();
    metrics.count("sidecar_config_reloads_total", &[("outcome", outcome)])
}

/// Waits until settings were taken over, or refused, this often.
#[track_caller]
fn wait_for_reload(sidecar: &Sidecar, outcome: &str, count: u64) {
    wait::until(format!("{count} reloads are {outcome}"), || {
        reloads(sidecar, outcome) >= count
    });
}

/// Waits until the sidecar has said this.
#[track_caller]
fn wait_for_log(sidecar: &Sidecar, words: &str) {
    wait::until(format!("{words:?} is logged"), || {
        sidecar.log().contains(words)
    });
}

/// How often a rule has decided.
fn decisions(sidecar: &Sidecar, decision: &str, rule: &str) -> u64 {
    let labels = [("decision", decision), ("rule", rule)];
    let metrics = sidecar.metrics();
    metrics.count("sidecar_authorization_decisions_total", &labels)
}

/// A client that has said one thing and heard it back, and says another when it gets SIGUSR1.
#[track_caller]
fn open_connection(pod: &Pod, server: &Pod, port: u16) -> Process {
    let snippet = "import signal\n\
                   signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n\
                   sock = dial(sys.argv[1], sys.argv[2])\n\
                   sock.sendall(b'first\\n')\n\
                   print(read_line(sock))\n\
                   signal.sigwait([signal.SIGUSR1])\n\
                   try:\n\
                   \x20   sock.sendall(b'second\\n')\n\
                   \x20   print(ending(sock))\n\
                   except (ConnectionResetError, BrokenPipeError):\n\
                   \x20   print('reset')\n";
    let address = server.v4().to_string();
    let snippet = pod.snippet(snippet).args([&*address, &*port.to_string()]);
    let mut client = snippet.start();
    client.wait_for_stdout("first");
    client
}

/// What becomes of such a client's second word.
#[track_caller]
fn second_word(client: Process) -> String {
    client.signal(Signal::SIGUSR1);
    let output = client.wait().success().stdout;
    output.lines().last().unwrap_or_default().to_owned()
}

/// The exit code of `sidecar policy explain`, and what it says.
fn explain(pod: &Pod, file: &File, who: &[&str], source: &Pod, port: u16) -> (Option<i32>, String) {
    let (port, source) = (port.to_string(), source.v4().to_string());
    let explain = pod.program(sidecar::binary()).args(["policy", "explain"]);
    let explain = explain.args(["--config", file.path(), "--to", &port, "--source", &source]);
    let output = explain.args(who).run();
    (output.status.code(), output.stdout)
}

const RULES: &str = "authorization:
  rules:
    - name: client
      action: allow
      identities: [spiffe://sidecar.local/ns/default/sa/client]
      ports: [8080-8081]
    - name: guest
      action: allow
      unauthenticated: true
      cidrs: [198.18.0.4]
      ports: [8081]
    - name: not-there
      action: deny
      ports: [8082]
    - name: look
      action: audit
      service-accounts: [client]
";

#[test]
fn rules_decide_who_reaches_the_app_and_explain_says_the_same() {
    let mut pods = Pods::plain();
    let file = File::new(&pods.server, RULES);
    let apps: Vec<_> = [8080, 8081, 8082]
        .map(|port| App::start(&pods.server, Behaviour::Echo, port))
        .into();
    pods.mesh(Some(&[]), Some(&["--config", file.path()]));
    let dev_ca = pods.dev_ca();
    // The numbers of pods, which end their addresses, go on from those of the first two.
    let mut stranger = pods.join("stranger");
    let guest = pods.join("guest");
    let passer_by = pods.join("passer-by");
    stranger.mesh(&dev_ca, &[]);
    stranger.wait_until_ready();

    let (echo, reset) = (SECRET, "reset");
    let mut allowed = [0; 3];
    for (pod, port, outcome, rule) in [
        (&pods.client, 8080, echo, "client"),
        (&pods.client, 8081, echo, "client"),
        (&pods.client, 8082, reset, "not-there"),
        (&stranger, 8080, reset, "default"),
        (&stranger, 8081, reset, "default"),
        (&guest, 8080, reset, "default"),
        (&guest, 8081, echo, "guest"),
        (&guest, 8082, reset, "not-there"),
        (&passer_by, 8081, reset, "default"),
    ] {
        let case = format!("{} to {port}", pod.role());
        let verdict = if outcome == echo { "allow" } else { "deny" };
        let before = decisions(pods.server.sidecar(), verdict, rule);
        assert_eq!(
            pod.converse(pods.server.v4(), port, SECRET),
            outcome,
            "{case}"
        );
        wait::until(format!("{case} is counted"), || {
            decisions(pods.server.sidecar(), verdict, rule) == before + 1
        });
        let is_it =
            |entry: &Connection| entry.client.ip() == pod.v4() && entry.destination.port() == port;
        let entry = pods.server.sidecar().connection(is_it);
        assert_eq!(entry.rule.as_deref(), Some(rule), "{case}: {entry:?}");
        if outcome == reset {
            assert_eq!(entry.close, "denied", "{case}");
            let sentence = format!("may not reach port {port}: denied by the rule `{rule}`");
            wait_for_log(pods.server.sidecar(), &sentence);
        } else {
            allowed[usize::from(port - 8080)] += 1;
        }

        let identity = pod.identity();
        let who = if pod.is_meshed() {
            vec!["--from", &*identity]
        } else {
            vec!["--unauthenticated"]
        };
        let (code, text) = explain(&pods.server, &file, &who, pod, port);
        assert_eq!(code, Some(i32::from(outcome == reset)), "{case}: {text}");
        let decisive = if rule == "default" {
            "no rule decides".to_owned()
        } else {
            format!("the rule `{rule}` says so")
        };
        assert!(text.contains(&decisive), "{case}: {text}");
    }
    // Nobody who was denied was even noticed.
    for (app, count) in apps.iter().zip(allowed) {
        app.sessions_when(count);
    }
    let metrics = pods.server.sidecar().metrics();
    let audits = metrics.count("sidecar_authorization_audits_total", &[("rule", "look")]);
    assert_eq!(audits, 3, "every connection of the client is audited");
}

#[test]
fn explain_does_not_guess() {
    let pods = Pods::plain();
    let file = File::new(&pods.server, RULES);
    let explain = |arguments: &[&str]| {
        let explain = pods.server.program(sidecar::binary());
        let explain = explain.args(["policy", "explain", "--config", file.path()]);
        explain.args(arguments).run().code(2)
    };
    let output = explain(&["--unauthenticated", "--to", "8081"]);
    output.assert_one_sentence(&["`guest`", "--source"]);
    let output = explain(&["--from", "spiffe://sidecar.local", "--to", "8081"]);
    output.assert_one_sentence(&["--from", "spiffe://example.org/ns/default/sa/web"]);
    explain(&["--to", "8081"]).assert_one_sentence(&["--from"]);
    let check = |text: &str| {
        fs::write(&file.path, text).expect("writing a file");
        let check = pods.server.program(sidecar::binary());
        check
            .args(["policy", "check", "--config", file.path()])
            .run()
    };
    let _valid = check(RULES).success();
    let wrong = RULES.replace("service-accounts", "service-acounts");
    check(&wrong).assert_one_sentence(&["sidecar.yaml:17:", "did you mean `service-accounts`?"]);
}

/// Edits the file while connections of two clients are open, one of which it then denies.
#[track_caller]
fn assert_only_the_denied_one_is_closed(edit: impl FnOnce(&File, &Sidecar, &str)) {
    let mut pods = Pods::plain();
    let file = File::new(&pods.server, "inbound: permissive\n");
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    pods.mesh(Some(&[]), Some(&["--config", file.path()]));
    let mut stranger = pods.join("stranger");
    stranger.mesh(&pods.dev_ca(), &[]);
    stranger.wait_until_ready();
    let friend = open_connection(&pods.client, &pods.server, 8080);
    let stranger_client = open_connection(&stranger, &pods.server, 8080);

    let sidecar = pods.server.sidecar();
    edit(
        &file,
        sidecar,
        "authorization: {rules: [{name: no-strangers, action: deny, service-accounts: [stranger]}]}\n",
    );

    let entry = sidecar.connection(|entry| entry.client.ip() == stranger.v4());
    assert_eq!(entry.close, "no_longer_allowed", "{entry:?}");
    assert_eq!(entry.rule.as_deref(), Some("no-strangers"));
    assert_eq!(second_word(stranger_client), "reset");
    wait_for_log(sidecar, "denied by the rule `no-strangers`");
    assert_eq!(app.only_session().end, "reset");
    assert_eq!(second_word(friend), "second");
    assert_eq!(app.sessions_when(2)[1].end, "eof");
    assert_eq!(stranger.converse(pods.server.v4(), 8080, SECRET), "reset");
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
}

#[test]
fn a_replaced_file_closes_exactly_the_connections_it_denies() {
    assert_only_the_denied_one_is_closed(|file, _, text| file.replace(text));
}

#[test]
fn a_file_written_in_place_closes_exactly_the_connections_it_denies() {
    assert_only_the_denied_one_is_closed(|file, _, text| file.write_slowly(text));
}

#[test]
fn a_changed_mode_takes_effect_in_the_kernel_and_on_open_connections() {
    let mut pods = Pods::plain();
    let file = File::new(
        &pods.server,
        "inbound: permissive\nexclude-inbound-ports: [8081]\n",
    );
    let _apps = [8080, 8081].map(|port| App::start(&pods.server, Behaviour::Echo, port));
    pods.mesh(None, Some(&["--config", file.path()]));
    let (client, server) = (&pods.client, &pods.server);
    let converse = |port| client.converse(server.v4(), port, SECRET);
    let sidecar = server.sidecar();
    // A late segment of a connection that is over is looked up once more: so what is counted is
    // whether the kernel has decided so at all.
    let converse_with = |port, event: &str| {
        let before = sidecar.kernel_events(event);
        let heard = converse(port);
        assert!(
            sidecar.kernel_events(event) > before,
            "no {event} at {port}"
        );
        heard
    };
    let open = open_connection(client, server, 8080);
    assert_eq!(converse_with(8081, "inbound_excluded_port"), SECRET);

    file.replace("inbound: strict\n");
    let entry = sidecar.connection(|entry| entry.close == "no_longer_allowed");
    assert_eq!((&*entry.tls, entry.sent), ("no_peer_option", 6));
    assert_eq!(second_word(open), "reset");
    wait_for_reload(sidecar, "taken_over", 1);
    // The second port is no longer excluded, which only the kernel decides.
    for port in [8080, 8081] {
        assert_eq!(converse_with(port, "inbound_steered"), "reset");
        let entry = sidecar.connection(|entry| {
            entry.close == "plaintext_refused" && entry.destination.port() == port
        });
        assert_eq!(entry.sent, 0);
    }

    file.replace("inbound: \"off\"\noverrides: [{direction: inbound, port: 8081, mode: strict}]\n");
    wait_for_reload(sidecar, "taken_over", 2);
    assert_eq!(converse_with(8080, "inbound_off"), SECRET);
    assert_eq!(converse_with(8081, "inbound_steered"), "reset");

    // What stood there in between has left no trace.
    file.replace("exclude-inbound-ports: [8081]\n");
    wait_for_reload(sidecar, "taken_over", 3);
    assert_eq!(converse_with(8080, "inbound_steered"), SECRET);
    assert_eq!(converse_with(8081, "inbound_excluded_port"), SECRET);
}

#[test]
fn a_changed_file_is_taken_over_also_with_the_default_identity() {
    let mut pods = Pods::plain();
    let file = File::new(&pods.server, "log: info\n");
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let dev_ca = pods.dev_ca();
    let dev_ca = dev_ca.to_str().expect("the names are ASCII");
    let flags = ["--dev-ca", dev_ca, "--config", file.path()];
    pods.server.mesh_with(&flags);
    let (client, server) = (&pods.client, &pods.server);
    let converse = || client.converse(server.v4(), 8080, SECRET);
    assert_eq!(converse(), SECRET);

    file.replace("authorization: {default: deny}\n");
    let outcome = || ["taken_over", "refused"].map(|outcome| reloads(server.sidecar(), outcome));
    wait::until("the file is looked at", || outcome() != [0, 0]);
    assert_eq!(outcome(), [1, 0], "{}", server.sidecar().log());
    assert_eq!(converse(), "reset");
    server.sidecar().signal(Signal::SIGHUP);
    wait_for_reload(server.sidecar(), "taken_over", 2);
}

#[test]
fn a_bad_file_keeps_the_old_settings_and_says_why() {
    let mut pods = Pods::plain();
    let deny = "authorization: {default: deny}\n";
    let file = File::new(&pods.server, deny);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    pods.mesh(Some(&[]), Some(&["--config", file.path()]));
    let sidecar = pods.server.sidecar();
    let is_denied = || {
        assert_eq!(
            pods.client.converse(pods.server.v4(), 8080, SECRET),
            "reset"
        );
    };
    let successful = || {
        sidecar
            .metrics()
            .count("sidecar_config_last_reload_successful", &[])
    };
    is_denied();
    assert_eq!(successful(), 1);

    file.replace("log: info\nauthorization: {defualt: allow}\n");
    wait_for_reload(sidecar, "refused", 1);
    assert_eq!(successful(), 0);
    let path = file.path();
    let why = format!(
        "kept the settings as they were: {path}:2: unknown key `defualt`; did you mean `default`?"
    );
    wait_for_log(sidecar, &why);
    is_denied();

    // An emptied file would mean every default: everybody is let in.
    fs::write(&file.path, "").expect("emptying a file");
    wait_for_reload(sidecar, "refused", 2);
    is_denied();
    fs::remove_file(&file.path).expect("removing a file");
    wait_for_reload(sidecar, "refused", 3);
    is_denied();

    file.replace(deny);
    wait_for_reload(sidecar, "taken_over", 1);
    assert_eq!(successful(), 1);
    sidecar.signal(Signal::SIGHUP);
    wait_for_reload(sidecar, "taken_over", 2);
    is_denied();
    // What takes a restart is named, and the rest is taken over all the same.
    file.replace("workers: 7\nauthorization: {default: allow}\n");
    wait_for_reload(sidecar, "taken_over", 3);
    wait_for_log(sidecar, "changes of workers wait for a restart");
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
}

#[test]
fn a_server_that_is_not_expected_is_told_nothing() {
    let mut pods = Pods::plain();
    let expect = |identity: &str| {
        format!("expect: [{{cidr: 198.18.0.0/15, port: 8080, identities: ['{identity}']}}]\n")
    };
    let file = File::new(&pods.client, &expect("spiffe://sidecar.local/ns/other/*"));
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let other_app = App::start(&pods.server, Behaviour::Echo, 8081);
    pods.mesh(Some(&["--config", file.path()]), Some(&[]));
    let plain = pods.join("plain");
    let _plain_app = App::start(&plain, Behaviour::Echo, 8080);

    let capture = pods.client.capture();
    assert_eq!(
        pods.client.converse(pods.server.v4(), 8080, SECRET),
        "reset"
    );
    assert_eq!(pods.client.converse(plain.v4(), 8080, SECRET), "reset");
    let wire = capture.finish();
    assert!(!wire.contains(SECRET));
    let sidecar = pods.client.sidecar();
    let failed = sidecar.failures("outbound", 2);
    assert_eq!(failed[0].close, "peer_unexpected");
    assert_eq!(failed[0].peer, Some(pods.server.identity()));
    assert_eq!(failed[1].close, "plaintext_refused");
    let answers = format!(
        "{} answers at {}:8080, where spiffe://sidecar.local/ns/other/* is expected",
        pods.server.identity(),
        pods.server.v4()
    );
    wait_for_log(sidecar, &answers);
    wait_for_log(
        sidecar,
        "it shows no sidecar, and spiffe://sidecar.local/ns/other/* is expected",
    );
    assert!(app.sessions().iter().all(|session| session.received == 0));

    // Nobody is expected at the other port; and a changed file changes who is.
    assert_eq!(pods.client.converse(pods.server.v4(), 8081, SECRET), SECRET);
    other_app.only_session();
    file.replace(&expect(&pods.server.identity()));
    wait_for_reload(sidecar, "taken_over", 1);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    // What its own address is, an app is told by a table that was written anew, without privileges.
    let own = "print(dial(sys.argv[1], 8080).getsockname()[0])";
    let own = pods.client.snippet(own).arg(pods.server.v4().to_string());
    assert_eq!(own.succeed().trim(), pods.client.v4().to_string());
    let open = open_connection(&pods.client, &pods.server, 8080);
    file.replace(&expect("spiffe://sidecar.local/ns/other/*"));
    sidecar.connection(|entry| entry.close == "no_longer_allowed");
    assert_eq!(second_word(open), "reset");
}
