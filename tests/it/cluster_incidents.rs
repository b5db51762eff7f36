//! What is wrong with the other gateways of a queue, or with its database, opens an incident, and is over when that is mended.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cluster::{Cluster, send},
    harness::{
        clock::Clock,
        gateway::{Gateway, stdout},
        postgres::Postgres,
        time::wait,
        upstream::{Act, Script},
    },
};

const SOON: &str = "[incidents]\nopen_after = \"0s\"\nrecover_after = \"1s\"\n";

fn watched(cluster: &Cluster, name: &str, more: &str) -> Gateway {
    let dir = TempDir::new().unwrap();
    watched_in(dir, cluster, name, (more, Vec::new()))
}

fn watched_in(
    dir: TempDir,
    cluster: &Cluster,
    name: &str,
    (more, env): (&str, Vec<(&'static str, PathBuf)>),
) -> Gateway {
    let config = format!("{}{more}{SOON}", cluster.config(name));
    fs::write(dir.path().join("config.toml"), config).unwrap();
    Gateway::start_with(dir, env)
}

/// Waits until one about this is in this state.
fn is(gateway: &Gateway, kind: &str, object: &str, state: &str) -> Value {
    wait(&format!("{kind} {object} is {state}"), || {
        let said = stdout(&gateway.cli(&["incident", "list", "--all", "--json"]));
        let all: Value = serde_json::from_str(&said).unwrap();
        let of =
            |one: &&Value| one["kind"] == kind && one["object"] == object && one["state"] == state;
        all.as_array().unwrap().iter().find(of).cloned()
    })
}

#[test]
#[ignore = "needs PostgreSQL"]
pub(crate) fn a_database_that_is_away() {
    let mut server = Postgres::start("");
    let cluster = Cluster::new(&server, "");
    let gateway = watched(&cluster, "relay-a", "");
    server.stop();
    let open = is(&gateway, "store_away", "", "open");
    assert_eq!(open["severity"], "critical");
    server.start_again();
    is(&gateway, "store_away", "", "recovered");
}

#[test]
#[ignore = "needs PostgreSQL"]
pub(crate) fn a_gateway_that_dies() {
    let cluster = Cluster::new(Postgres::shared(), "");
    let one = watched(&cluster, "relay-a", "");
    let mut two = cluster.member("relay-b");
    wait("both know each other", || {
        let said = String::from_utf8(one.cli(&["status"]).stdout).unwrap();
        said.contains("member      relay-b").then_some(())
    });
    two.kill();
    is(&one, "member_silent", "relay-b", "open");
    is(&one, "member_taken_over", "relay-b", "open");
    is(&one, "member_silent", "relay-b", "recovered");
    two.restart();
    is(&one, "member_taken_over", "relay-b", "recovered");
}

#[test]
#[ignore = "needs PostgreSQL"]
pub(crate) fn another_configuration() {
    let cluster = Cluster::new(Postgres::shared(), "");
    let dir = TempDir::new().unwrap();
    let clock = Clock::new(dir.path());
    let one = watched_in(dir, &cluster, "relay-a", ("", clock.env()));
    let more = "[[rewrite]]\nsenders = [\"root@*\"]\nto = \"noreply@corp.example\"\n";
    let two = watched(&cluster, "relay-b", more);
    wait("it is seen", || {
        let said = String::from_utf8(one.cli(&["status"]).stdout).unwrap();
        said.contains("another configuration since").then_some(())
    });
    clock.set(700);
    is(&one, "configurations_differ", "relay-b", "open");
    drop(two);
}

/// It stands still with a message of which the last octet is out; the others send it again, and then it hears that it was taken.
#[test]
#[ignore = "needs PostgreSQL"]
pub(crate) fn a_message_that_two_send() {
    let sink = Script::default()
        .when(|at| (at.stage == "EOD" && at.dot == 1).then_some(Act::Once(|seen| seen.dots > 1)))
        .start();
    let cluster = Cluster {
        sink,
        ..Cluster::new(Postgres::shared(), "")
    };
    let one = watched(&cluster, "relay-a", "");
    assert!(send(&one, "twice"));
    wait("the last octet", || {
        (cluster.sink.seen().dots == 1).then_some(())
    });
    let two = cluster.member("relay-b");
    // Before it counts the other one it may use all of the limits, and nothing is left while it is missing.
    let knew = format!("SELECT min(knew) FROM {}.node", cluster.schema);
    wait("each counts the other", || {
        (Postgres::shared().sql("postern", &knew) == "2").then_some(())
    });
    one.send_signal("STOP");
    cluster.sink.wait(2);
    let id = wait("the other one is done with it", || {
        let said = stdout(&two.cli(&["queue", "list", "--all", "--json"]));
        let all: Value = serde_json::from_str(&said).ok()?;
        let entry = all.get(0)?;
        (entry["state"] == "done").then(|| entry["id"].as_str().unwrap().to_owned())
    });
    one.send_signal("CONT");
    is(&one, "sent_twice", "", "open");
    let life = stdout(&two.cli(&["trace", &id]));
    assert!(life.contains("it may have been sent twice"), "{life}");
    assert!(one.log().contains("sent twice"), "{}", one.log());
}
