//! Real servers on real configuration, kept in the pod's directory.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use nix::unistd::User;

use crate::{Pod, Process, Program};

/// nginx with one page at `/`. Its access log on standard output has a line `CLIENT SERVER` of
/// addresses for each request.
#[track_caller]
pub fn nginx(pod: &Pod, port: u16, page: &str) -> Process {
    let line = "$remote_addr:$remote_port $server_addr:$server_port";
    nginx_logging(pod, port, page, line)
}

/// nginx with one page at `/`, and on standard output, for each request, this line of its variables.
#[track_caller]
pub fn nginx_logging(pod: &Pod, port: u16, page: &str, line: &str) -> Process {
    let http = format!(
        "log_format line '{line}';\n\
         access_log /dev/stdout line;\n\
         server {{ listen {port}; listen [::]:{port}; root html; }}\n"
    );
    nginx_with(pod, port, page, &http)
}

/// nginx that speaks HTTP/2 without TLS, with one page at `/`, and with `/moved` (301), `/missing`
/// (404) and `/broken` (503).
#[track_caller]
pub fn nginx_http2(pod: &Pod, port: u16, page: &str) -> Process {
    let http = format!(
        "access_log off;\n\
         server {{ listen {port} http2; root html;\n\
           location /moved {{ return 301 /; }}\n\
           location /broken {{ return 503; }}\n\
         }}\n"
    );
    nginx_with(pod, port, page, &http)
}

/// nginx with one page at `/`, and with `/broken` (500).
#[track_caller]
pub fn nginx_with_errors(pod: &Pod, port: u16, page: &str) -> Process {
    let http = format!(
        "access_log off;\n\
         server {{ listen {port}; root html; location /broken {{ return 500; }} }}\n"
    );
    nginx_with(pod, port, page, &http)
}

/// nginx that answers gRPC calls over HTTP/2 without TLS: `/shop.Stock/Take` succeeds, and
/// `/shop.Stock/Fail` is `UNAVAILABLE`.
#[track_caller]
pub fn nginx_grpc(pod: &Pod, port: u16) -> Process {
    let calls = [("Take", 0), ("Fail", 14)].map(|(call, status)| {
        format!(
            "location /shop.Stock/{call} {{\n\
               default_type application/grpc; add_header grpc-status {status}; return 200 '';\n\
             }}\n"
        )
    });
    let http = format!(
        "access_log off;\nserver {{ listen {port} http2;\n{}}}\n",
        calls.concat()
    );
    nginx_with(pod, port, "", &http)
}

/// nginx with these directives in its block `http`, and a page in the directory `html`.
#[track_caller]
fn nginx_with(pod: &Pod, port: u16, page: &str, http: &str) -> Process {
    let root = directory(pod, &format!("nginx-{port}"), "root");
    let html = root.join("html");
    fs::create_dir(&html).expect("making a directory of pages");
    fs::write(html.join("index.html"), page).expect("writing a page");
    let configuration = format!(
        "daemon off; user root; pid nginx.pid; error_log stderr;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ keepalive_requests 1000000;\n{http}}}\n"
    );
    let file = root.join("nginx.conf");
    fs::write(&file, configuration).expect("writing nginx's configuration");
    pod.program("/usr/sbin/nginx")
        .args([Path::new("-p"), &root, Path::new("-c"), &file])
        .listen(port)
}

/// `postgres` with the superuser `postgres`, who needs no password.
#[track_caller]
pub fn postgres(pod: &Pod) -> Process {
    const BIN: &str = "/usr/lib/postgresql/15/bin";
    let home = directory(pod, "postgres", "postgres");
    let data = home.join("data");
    let program = |name| pod.program(format!("{BIN}/{name}")).user("postgres");
    program("initdb")
        .args([
            "--auth=trust",
            "--no-sync",
            "--username=postgres",
            "--pgdata",
        ])
        .arg(&data)
        .succeed();
    let rules = "host all all samenet trust\n";
    fs::write(data.join("pg_hba.conf"), rules).expect("writing PostgreSQL's rules");
    program("postgres")
        .args([
            "-c",
            "listen_addresses=*",
            "-c",
            "fsync=off",
            "-c",
            // Among its files: what is in shared memory stays there when it is killed.
            "dynamic_shared_memory_type=mmap",
            "-c",
            "unix_socket_directories=",
            "-D",
        ])
        .arg(&data)
        .listen(5432)
}

/// Redis, in memory only.
#[track_caller]
pub fn redis(pod: &Pod) -> Process {
    let options = [
        "--port",
        "6379",
        "--bind",
        "*",
        "--protected-mode",
        "no",
        "--save",
        "",
    ];
    pod.program("/usr/bin/redis-server")
        .args(options)
        .listen(6379)
}

/// `mariadbd` with the user `app`, who needs no password.
#[track_caller]
pub fn mariadb(pod: &Pod) -> Process {
    let home = directory(pod, "mariadb", "mysql");
    let data = format!("--datadir={}", home.join("data").display());
    // At its start, the server removes what looks like its own from the directory it shares with
    // others. Nothing here has to survive a power cut.
    let program = |path| {
        let program = pod.program(path).env("TMPDIR", &home).arg("--no-defaults");
        program.args([
            "--user=mysql",
            "--debug-no-sync",
            "--innodb-flush-method=nosync",
            &data,
        ])
    };
    program("/usr/bin/mariadb-install-db")
        .arg("--skip-test-db")
        .succeed();
    let grants = home.join("grants.sql");
    fs::write(&grants, "CREATE USER app;\nGRANT ALL ON *.* TO app;\n").expect("writing grants");
    program("/usr/sbin/mariadbd")
        .args(["--skip-name-resolve", "--port=3306"])
        .arg(format!("--socket={}", home.join("socket").display()))
        .arg(format!("--pid-file={}", home.join("pid").display()))
        .arg(format!("--init-file={}", grants.display()))
        .listen(3306)
}

/// Exim on port 25, which takes every mail and appends it to [`mailbox`].
#[track_caller]
pub fn exim(pod: &Pod) -> Process {
    let home = directory(pod, "exim", "Debian-exim");
    let configuration = format!(
        "primary_hostname = mail.example\n\
         qualify_domain = example\n\
         spool_directory = {spool}\n\
         log_file_path = {spool}/%slog\n\
         daemon_smtp_ports = 25\n\
         local_interfaces = <; 0.0.0.0 ; ::0\n\
         tls_advertise_hosts =\n\
         host_lookup =\n\
         rfc1413_hosts =\n\
         never_users =\n\
         acl_smtp_rcpt = accept\n\
         acl_smtp_data = accept\n\
         begin routers\n\
         every:\n\
         driver = accept\n\
         transport = mailbox\n\
         begin transports\n\
         mailbox:\n\
         driver = appendfile\n\
         file = {mailbox}\n\
         user = Debian-exim\n",
        spool = home.display(),
        mailbox = mailbox(pod).display(),
    );
    let file = home.join("exim.conf");
    fs::write(&file, configuration).expect("writing Exim's configuration");
    pod.program("/usr/sbin/exim4")
        .arg("-C")
        .arg(&file)
        .arg("-bdf")
        .listen(25)
}

/// Where [`exim`] puts mail.
pub fn mailbox(pod: &Pod) -> PathBuf {
    pod.sandbox().directory().join("exim/mailbox")
}

/// OpenSSH on port 22 for root by [`ssh_key`].
#[track_caller]
pub fn sshd(pod: &Pod) -> Process {
    // Where sshd keeps the unprivileged half of itself; Debian makes it when the service starts.
    fs::create_dir_all("/run/sshd").expect("making /run/sshd");
    let home = directory(pod, "ssh", "root");
    for key in ["host", "user"] {
        pod.program("/usr/bin/ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(home.join(key))
            .succeed();
    }
    let configuration = format!(
        "Port 22\n\
         HostKey {home}/host\n\
         AuthorizedKeysFile {home}/user.pub\n\
         PasswordAuthentication no\n\
         PermitRootLogin prohibit-password\n\
         StrictModes no\n\
         UsePAM no\n\
         PidFile none\n\
         Subsystem sftp internal-sftp\n",
        home = home.display()
    );
    let file = home.join("sshd_config");
    fs::write(&file, configuration).expect("writing sshd's configuration");
    pod.program("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(&file)
        .listen(22)
}

/// `ssh` or `scp` from another pod to [`sshd`], without asking about the host's key.
pub fn ssh_client<'a>(client: &'a Pod, server: &Pod, program: &str) -> Program<'a> {
    let key = server.sandbox().directory().join("ssh/user");
    client
        .program(program)
        .args([
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-i"])
        .arg(key)
}

/// Makes a directory of a server's own in the pod's.
fn directory(pod: &Pod, name: &str, owner: &str) -> PathBuf {
    let path = pod.sandbox().directory().join(name);
    fs::create_dir(&path).unwrap_or_else(|error| panic!("making {}: {error}", path.display()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("opening it to read");
    let user = User::from_name(owner).expect("reading the user database");
    let user = user.unwrap_or_else(|| panic!("no user {owner}: run `cargo xtask setup`"));
    chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("giving it away");
    path
}
