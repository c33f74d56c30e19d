//! Two pods of which one has a sidecar, and attacks that come from the other by way of TLS.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::CertificateParams;

use crate::{
    App, Behaviour, Capture, Pod, Pods, Process, Program, SECRET,
    app::FAREWELL,
    forge::{Holder, Shown, uri},
    tls_peer::{ALPN, TlsPeer},
    wait,
};

/// Where the servers are.
pub const PORT: u16 = 8080;

/// TLS as a sidecar speaks it, in OpenSSL's flags.
pub const PROPER: [&str; 3] = ["-tls1_3", "-alpn", ALPN];

/// Who signs.
#[derive(Debug)]
pub struct Authorities {
    /// The root that the sidecar trusts.
    pub ours: Holder,
    /// Another of the same name and trust domain, that it does not.
    pub foreign: Holder,
    /// Where OpenSSL may leave its files.
    pub directory: PathBuf,
}

impl Authorities {
    fn new(directory: &Path) -> Self {
        Self {
            ours: Holder::root(),
            foreign: Holder::root(),
            directory: directory.to_owned(),
        }
    }

    /// Of a certificate by our root that is wrong as `adjust` has it.
    pub fn wrong(&self, adjust: impl FnOnce(&mut CertificateParams)) -> Shown {
        self.ours.issue(adjust).show(&[])
    }

    /// Of a certificate by our root with these names.
    pub fn named(&self, names: &[&str]) -> Shown {
        self.wrong(|params| params.subject_alt_names = names.iter().copied().map(uri).collect())
    }
}

/// A pod with a sidecar and one without, from which the attacks come.
#[derive(Debug)]
pub struct Site {
    /// The server of the pod with a sidecar, if that is the server's.
    app: Option<App>,
    /// All that crosses the wire.
    pub capture: Capture,
    /// The pods.
    pub pods: Pods,
    /// Who signs.
    pub authorities: Authorities,
}

impl Site {
    /// A server with a sidecar that has these flags, and an app that says [`FAREWELL`].
    pub fn server_meshed(flags: &[&str]) -> Self {
        Self::server_meshed_with(Behaviour::Farewell, flags)
    }

    /// Likewise, with an app that does something else.
    pub fn server_meshed_with(behaviour: Behaviour, flags: &[&str]) -> Self {
        let mut pods = Pods::plain();
        let authorities = mesh(&mut pods.server, flags);
        Self {
            app: Some(App::start(&pods.server, behaviour, PORT)),
            capture: pods.client.capture(),
            pods,
            authorities,
        }
    }

    /// A client with a strict sidecar.
    pub fn client_meshed() -> Self {
        let mut pods = Pods::plain();
        let authorities = mesh(&mut pods.client, &["--outbound", "strict"]);
        Self {
            app: None,
            capture: pods.client.capture(),
            pods,
            authorities,
        }
    }

    /// The pod with the sidecar.
    fn meshed(&self) -> &Pod {
        match self.app {
            Some(_) => &self.pods.server,
            None => &self.pods.client,
        }
    }

    /// The server of the pod with a sidecar.
    ///
    /// # Panics
    ///
    /// When that is the client's.
    #[track_caller]
    pub fn app(&self) -> &App {
        self.app.as_ref().expect("the server has the sidecar")
    }

    /// A client that says [`SECRET`] and listens to the end.
    pub fn client(&self, shown: Option<&Shown>, flags: &[&str]) -> Program<'_> {
        let server = format!("{}:{PORT}", self.pods.server.v4());
        let client = openssl(&self.pods.client, "s_client", shown, flags);
        client.args(["-connect", &server, "-ign_eof"]).stdin(SECRET)
    }

    /// A server that sends back every line backwards.
    pub fn server(&self, shown: &Shown, flags: &[&str]) -> Process {
        let server = openssl(&self.pods.server, "s_server", Some(shown), flags);
        server
            .args(["-accept", &PORT.to_string(), "-Verify", "1", "-rev"])
            .listen(PORT)
    }

    /// A client that dials the server pod, says [`SECRET`], and prints what comes of it.
    pub fn talk(&self, port: u16) -> Process {
        self.snippet(
            port,
            "print(converse(sys.argv[1], sys.argv[2], 'violet rhinoceros\\n'))",
        )
    }

    /// A client that is told the server pod's address and the port.
    pub fn snippet(&self, port: u16, code: &str) -> Process {
        let to = [self.pods.server.v4().to_string(), port.to_string()];
        self.pods.client.snippet(code).args(to).start()
    }

    /// Has a client come that shows this and speaks TLS by these flags, as the first failure or a
    /// later one, and checks that it is refused and told for what.
    #[track_caller]
    pub fn assert_client_is_refused(
        &self,
        count: usize,
        what: &str,
        shown: Option<&Shown>,
        flags: &[&str],
        close: &str,
        says: &str,
    ) {
        let output = self.client(shown, flags).run();
        assert!(!output.stdout.contains(FAREWELL), "{what}: {output}");
        self.assert_failed("inbound", count, what, close, says);
        assert_eq!(self.app().sessions(), [], "{what}");
    }

    /// Likewise, of a server that the app dials.
    #[track_caller]
    pub fn assert_server_is_refused(
        &self,
        count: usize,
        what: &str,
        shown: &Shown,
        flags: &[&str],
        close: &str,
        says: &str,
    ) {
        let _server = self.server(shown, flags);
        assert_eq!(self.talk(PORT).wait().success().stdout, "reset\n", "{what}");
        self.assert_failed("outbound", count, what, close, says);
    }

    /// Checks that the newest of `count` failures is logged and counted for this reason, in these
    /// words.
    #[track_caller]
    pub fn assert_failed(
        &self,
        direction: &str,
        count: usize,
        what: &str,
        close: &str,
        says: &str,
    ) {
        let sidecar = self.meshed().sidecar();
        let failed = sidecar.failures(direction, count);
        assert_eq!(failed[count - 1].close, close, "{what}");
        let sentence = || {
            let log = sidecar.log();
            log.lines()
                .filter(|line| line.contains("connection failed"))
                .nth(count - 1)
                .map(str::to_owned)
        };
        let sentence = wait::until_some(format!("{what} is logged"), sentence);
        assert!(
            sentence.contains(says),
            "{what}: {says:?} is not in {sentence:?}"
        );
    }

    /// Checks that the newest of `count` connections that broke within is told as such, and that
    /// the app heard `more` bytes after that only if they were well said.
    #[track_caller]
    pub fn assert_broken(&self, direction: &str, count: usize, what: &str, more: u64) {
        let sidecar = self.meshed().sidecar();
        let ended = || sidecar.connections().get(count - 1).cloned();
        let ended = wait::until_some(format!("{what} is over"), ended);
        // Half a record may be the fault of the network.
        let close = match what {
            "half a record" if direction == "inbound" => "client_reset",
            "half a record" => "server_reset",
            _ => "tls_broken",
        };
        assert_eq!((&*ended.tls, &*ended.close), ("mutual", close), "{what}");
        let well_said = what == "a record twice" && more == SECRET.len() as u64;
        assert!(more == 0 || well_said, "{what}: the app heard {more} bytes");
    }

    /// Checks that the sidecar serves others as before, and that nothing has crossed the wire but
    /// TLS.
    #[track_caller]
    pub fn assert_unharmed(self) {
        let honest = self.authorities.ours.issue(|_| ()).show(&[]);
        if let Some(app) = &self.app {
            let output = self.client(Some(&honest), &PROPER).run();
            assert!(output.stdout.contains(FAREWELL), "{output}");
            app.only_session();
        } else {
            let _server = self.server(&honest, &PROPER);
            let answer: String = SECRET.chars().rev().collect();
            let (server, line) = (self.pods.server.v4(), format!("{SECRET}\n"));
            assert_eq!(self.pods.client.converse(server, PORT, &line), answer);
        }
        self.assert_harmless();
    }

    /// Checks that nothing has crossed the wire but TLS.
    #[track_caller]
    pub fn assert_harmless(self) {
        let wire = self.capture.finish();
        for secret in [SECRET, FAREWELL] {
            assert!(!wire.contains(secret), "{secret:?} crossed the wire");
        }
    }

    /// Has a server of the client's own give it a ticket.
    pub fn forge_ticket(&self, ticket: &Path) {
        let pod = &self.pods.client;
        let listener = TlsPeer::listen(pod, 9443);
        let client = openssl(pod, "s_client", None, &PROPER)
            .args(["-connect", "127.0.0.1:9443", "-ign_eof", "-sess_out"])
            .arg(ticket)
            .start();
        let shown = self.authorities.foreign.issue(|_| ()).show(&[]);
        let peer = TlsPeer::accept(&listener, &shown).expect("a handshake");
        wait::until("a ticket is given", || {
            fs::read(ticket).is_ok_and(|ticket| ticket.ends_with(b"-----\n"))
        });
        drop(peer);
        client.wait();
    }
}

/// Gives a pod a sidecar, and an identity by a root that the attackers can use.
fn mesh(pod: &mut Pod, flags: &[&str]) -> Authorities {
    let directory = pod.sandbox().directory().to_owned();
    let authorities = Authorities::new(&directory);
    let svid = authorities.ours.svid(&directory, pod.role());
    pod.mesh_with(&[&svid.flags(), flags].concat());
    authorities
}

/// One of OpenSSL's programs with a certificate, that finds no key too short.
fn openssl<'a>(pod: &'a Pod, program: &str, shown: Option<&Shown>, flags: &[&str]) -> Program<'a> {
    let mut openssl = pod
        .program("/usr/bin/openssl")
        .args([program, "-cipher", "ALL:@SECLEVEL=0"])
        .args(flags);
    if let Some(shown) = shown {
        let files = shown.save(pod.sandbox().directory(), "shown");
        openssl = openssl.arg("-cert").arg(files.certificate);
        openssl = openssl.arg("-key").arg(files.key);
        if shown.chain.len() > 1 {
            openssl = openssl.arg("-cert_chain").arg(files.chain);
        }
    }
    openssl
}
