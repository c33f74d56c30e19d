//! Databases and their own clients, unmodified, on their usual configuration.

use sidecar_tests::{Pods, SECRET, servers};

#[test]
fn psql_works_with_postgresql() {
    let pods = Pods::meshed();
    let _postgres = servers::postgres(&pods.server);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let script = "
        CREATE TABLE animals (id int, name text);
        INSERT INTO animals SELECT n, 'violet rhinoceros ' || n FROM generate_series(1, 20000) n;
        SELECT count(*), sum(length(name)) FROM animals;
        SELECT host(inet_client_addr()), host(inet_server_addr());
        COPY animals TO STDOUT;
    ";
    let psql = pods.client.program("/usr/bin/psql");
    let psql = psql.args([
        "-h",
        &address,
        "-U",
        "postgres",
        "-v",
        "ON_ERROR_STOP=1",
        "-qAt",
    ]);
    let output = psql.args(["-F", " "]).stdin(script).succeed();
    let mut lines = output.lines();
    assert_eq!(lines.next(), Some("20000 448894"));
    assert_eq!(
        lines.next(),
        Some(&*format!("{} {address}", pods.client.v4()))
    );
    assert_eq!(lines.clone().count(), 20_000);
    assert_eq!(lines.next_back(), Some("20000\tviolet rhinoceros 20000"));
    pods.mutual_connection(5432);
    capture
        .finish()
        .assert_encrypted(&[SECRET, "SELECT", "postgres"]);
}

#[test]
fn redis_cli_works_with_redis_one_by_one_and_pipelined() {
    let pods = Pods::meshed();
    let _redis = servers::redis(&pods.server);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let cli = || {
        pods.client
            .program("/usr/bin/redis-cli")
            .args(["-h", &*address])
    };
    assert_eq!(cli().args(["SET", "animal", SECRET]).succeed(), "OK\n");
    assert_eq!(
        cli().args(["GET", "animal"]).succeed(),
        "violet rhinoceros\n"
    );
    let info = cli().args(["CLIENT", "INFO"]).succeed();
    assert!(
        info.contains(&format!(" addr={}:", pods.client.v4())),
        "{info}"
    );
    assert!(info.contains(&format!(" laddr={address}:6379 ")), "{info}");
    let commands: Vec<_> = (0..20_000)
        .map(|key| format!("SET key:{key} violet-rhinoceros\r\n"))
        .collect();
    let replies = cli().arg("--pipe").stdin(commands.concat()).succeed();
    assert!(replies.contains("errors: 0, replies: 20000"), "{replies}");
    assert_eq!(cli().arg("DBSIZE").succeed(), "20001\n");
    pods.mutual_connection(6379);
    let secrets = [SECRET, "violet-rhinoceros", "CLIENT"];
    capture.finish().assert_encrypted(&secrets);
}

#[test]
fn mariadb_speaks_first_and_works() {
    let pods = Pods::meshed();
    let _mariadb = servers::mariadb(&pods.server);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let script = "
        CREATE DATABASE zoo;
        USE zoo;
        CREATE TABLE animals (id int, name text);
        INSERT INTO animals SELECT seq, CONCAT('violet rhinoceros ', seq) FROM seq_1_to_20000;
        SELECT COUNT(*), SUM(LENGTH(name)) FROM animals;
        SELECT USER();
        SELECT * FROM animals;
    ";
    let mariadb = pods.client.program("/usr/bin/mariadb");
    let output = mariadb.args(["--no-defaults", "-h", &address, "-u", "app", "-N"]);
    let output = output.stdin(script).succeed();
    let mut lines = output.lines();
    assert_eq!(lines.next(), Some("20000\t448894"));
    assert_eq!(lines.next(), Some(&*format!("app@{}", pods.client.v4())));
    assert_eq!(lines.count(), 20_000);
    pods.mutual_connection(3306);
    capture
        .finish()
        .assert_encrypted(&[SECRET, "SELECT", "MariaDB"]);
}

#[test]
fn mariadb_works_between_a_meshed_and_a_plain_pod() {
    for pods in [Pods::client_meshed(&[]), Pods::server_meshed(&[])] {
        let _mariadb = servers::mariadb(&pods.server);
        let capture = pods.client.capture();
        let address = pods.server.v4().to_string();
        let mariadb = pods.client.program("/usr/bin/mariadb");
        let query = "SELECT USER(), 'violet rhinoceros'";
        let output = mariadb
            .args([
                "--no-defaults",
                "-h",
                &address,
                "-u",
                "app",
                "-N",
                "-e",
                query,
            ])
            .succeed();
        assert_eq!(
            output,
            format!("app@{}\tviolet rhinoceros\n", pods.client.v4())
        );
        capture.finish().assert_plaintext(&[SECRET, "MariaDB"]);
    }
}
