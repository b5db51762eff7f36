//! Several gateways on one PostgreSQL as their number and their releases change: as many as may be and one more, and a schema that a newer
//! release has added to while older ones are at work.

use std::{
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::cluster::{Cluster, send};
use crate::harness::{gateway::Gateway, postgres::Postgres};

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// A start that is refused.
fn refused(cluster: &Cluster, name: &str) -> (Option<i32>, String) {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), cluster.config(name)).unwrap();
    let output = Command::new(Gateway::binary())
        .args(["run", "-c", "config.toml"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    (output.status.code(), text(&output))
}

#[test]
#[ignore = "needs PostgreSQL"]
fn eight_gateways_work_and_a_ninth_waits_until_one_has_left() {
    let cluster = Cluster::new(Postgres::shared(), "");
    let mut members: Vec<Gateway> = (0..8)
        .map(|n| cluster.member(&format!("relay-{n}")))
        .collect();
    let (code, said) = refused(&cluster, "relay-8");
    assert_eq!(code, Some(75), "{said}");
    assert!(
        said.contains("eight gateways are at work on this queue already"),
        "{said}"
    );
    for (n, member) in members.iter().enumerate() {
        assert!(send(member, &format!("m{n}")), "{}", member.log());
    }
    cluster.sink.wait(8);
    assert_eq!(members[0].terminate(), 0, "{}", members[0].log());
    let ninth = cluster.member("relay-8");
    assert!(send(&ninth, "m8"), "{}", ninth.log());
    assert_eq!(cluster.sink.wait(9).len(), 9);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_release_works_on_while_a_newer_one_has_added_to_the_schema() {
    let server = Postgres::shared();
    let cluster = Cluster::new(server, "");
    let one = cluster.member("relay-a");
    assert!(send(&one, "before"));
    cluster.sink.wait(1);
    let schema = &cluster.schema;
    let tables = [
        "node",
        "message",
        "content",
        "chunk",
        "job",
        "recipient",
        "event",
        "note",
        "lane",
    ];
    let added = tables.map(|table| {
        format!("ALTER TABLE {schema}.{table} ADD COLUMN of_a_newer_release text DEFAULT 'x';")
    });
    server.sql(
        "postern",
        &format!("{} UPDATE {schema}.schema SET version = 3;", added.concat()),
    );
    // Whoever was at work before, and who starts now.
    let two = cluster.member("relay-b");
    for n in 0..10 {
        assert!(send(&one, &format!("a{n}")), "{}", one.log());
        assert!(send(&two, &format!("b{n}")), "{}", two.log());
    }
    assert_eq!(cluster.sink.wait(21).len(), 21);
    let listed = one.cli(&["queue", "list", "--all"]);
    assert!(listed.status.success(), "{}", text(&listed));
    server.sql(
        "postern",
        &format!("UPDATE {schema}.schema SET version = 4, readable_by = 4"),
    );
    let (code, said) = refused(&cluster, "relay-c");
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains("the queue was written by a newer postern (schema 4"),
        "{said}"
    );
}

/// As the server counts it: the transactions' own words are not questions.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_gateway_without_mail_asks_three_times_a_second() {
    let server = Postgres::start("shared_preload_libraries = 'pg_stat_statements'\n");
    server.sql("postgres", "CREATE EXTENSION pg_stat_statements");
    let cluster = Cluster::new(&server, "");
    let one = cluster.member("relay-a");
    assert!(send(&one, "before"));
    cluster.sink.wait(1);
    // What a start and a message bring with them is over.
    thread::sleep(Duration::from_secs(5));
    let asked = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements JOIN pg_roles ON userid = pg_roles.oid
        WHERE rolname = 'postern' AND query !~* '^(begin|commit|set|rollback|start)'";
    let count = || -> u64 { server.sql("postgres", asked).parse().unwrap() };
    let (begun, before) = (Instant::now(), count());
    thread::sleep(Duration::from_secs(20));
    let questions = count() - before;
    let seconds = begun.elapsed().as_secs_f64();
    assert!(questions > 20, "it counts: {questions}");
    let rate = questions as f64 / seconds;
    assert!(rate <= 3.1, "{rate} a second");
}

/// Half a second of the server's processor each time, which eight gateways together made a database that answers nobody.
#[test]
#[ignore = "needs PostgreSQL"]
fn the_server_compiles_no_plan() {
    let server = Postgres::start("shared_preload_libraries = 'pg_stat_statements'\njit = on\n");
    server.sql("postgres", "CREATE EXTENSION pg_stat_statements");
    let cluster = Cluster::new(&server, "");
    let one = cluster.member("relay-a");
    let mut two = cluster.member("relay-b");
    for n in 0..4 {
        assert!(send(&one, &format!("a{n}")), "{}", one.log());
        assert!(send(&two, &format!("b{n}")), "{}", two.log());
    }
    cluster.sink.wait(8);
    for words in [
        &["queue", "list", "--all"][..],
        &["queue", "stats"],
        &["status"],
    ] {
        one.cli(words);
    }
    assert_eq!(two.terminate(), 0, "{}", two.log());
    let compiled =
        "SELECT count(*) || ' of ' || (SELECT count(*) FROM pg_stat_statements) || coalesce(': ' || string_agg(left(query, 60), '; '), '')
        FROM pg_stat_statements WHERE jit_functions > 0";
    let said = server.sql("postgres", compiled);
    assert!(
        said.starts_with("0 of ") && !said.starts_with("0 of 0"),
        "{said}"
    );
}
