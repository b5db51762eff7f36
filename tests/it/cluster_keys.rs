//! The key that gateways seal their shared refresh tokens with is changed while they are at work: in the right order every token stays readable
//! on all of them; who lacks the key is told so, and spoils nothing.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tempfile::TempDir;

use crate::{
    cluster::{Cluster, send},
    harness::{
        cloud_token::Endpoint,
        gateway::{Gateway, stdout},
        postgres::Postgres,
        time::wait,
        upstream::{Act, Script},
    },
};

const A: &str = "relay-a";
const B: &str = "relay-b";
const OLD: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";
const NEW: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\n";
const OTHER: &str = "b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90aGVyb3Q=\n";
const REFUSED: &str = "what another gateway has written cannot be opened: every gateway needs the same cluster.key, and the one before \
                       as well after a change";

/// Gateways that log in with a token, which each message renews.
struct Sealed {
    cluster: Cluster,
    /// The endpoint gives another refresh token each time, and takes no other.
    rotates: Arc<AtomicBool>,
    sent: usize,
}

impl Sealed {
    fn new() -> Self {
        let rotates = Arc::new(AtomicBool::new(true));
        let is_rotating = Arc::clone(&rotates);
        let newest = std::sync::Mutex::new(("configured".to_owned(), 0));
        let endpoint = Endpoint::start(move |asked| {
            let mut newest = newest.lock().unwrap();
            if asked.field("refresh_token").as_deref() != Some(&newest.0) {
                newest.0 = "revoked".into();
                return (400, String::new(), r#"{"error":"invalid_grant"}"#.into());
            }
            let mut body = serde_json::json!({"access_token": "access", "expires_in": 0});
            if is_rotating.load(Ordering::SeqCst) {
                newest.1 += 1;
                newest.0 = format!("rotated-{}", newest.1);
                body["refresh_token"] = newest.0.clone().into();
            }
            (200, String::new(), body.to_string())
        });
        let connector = format!(
            "auth = \"xoauth2\"\noauth = {{ provider = \"google\", mailbox = \"erp@corp.example\", client_id = \"app\", \
             client_secret = \"hush-hush\", refresh_token = \"configured\", token_url = \"{}\" }}\n",
            endpoint.url("/t")
        );
        let sink = Script::default()
            .offers("AUTH_XOAUTH2")
            .at("AUTH", Act::says("235 2.7.0 ok"))
            .at("EOD", Act::Leaves("421 4.3.2 one message each"))
            .start();
        let cluster = Cluster {
            sink,
            ..Cluster::new(Postgres::shared(), Box::leak(connector.into_boxed_str()))
        };
        Self {
            cluster,
            rotates,
            sent: 0,
        }
    }

    fn member(&self, name: &str, keys: &str) -> Gateway {
        let dir = TempDir::new().unwrap();
        let config = self.cluster.config(name) + "key = { file = \"cluster-key\" }\n";
        fs::write(dir.path().join("config.toml"), config).unwrap();
        fs::write(dir.path().join("cluster-key"), keys).unwrap();
        Gateway::start_in(dir)
    }

    /// A message that each of them has sent itself, so it has read the token. One that has just begun leaves what it takes to the others.
    fn all_read(&mut self, members: [(&Gateway, &str); 2]) {
        let schema = &self.cluster.schema;
        let by = format!(
            "SELECT n.name FROM {schema}.recipient r JOIN {schema}.message m ON m.id = r.message JOIN {schema}.node n ON n.id = r.node
             ORDER BY m.place DESC LIMIT 1"
        );
        for (member, name) in members {
            wait("it sends itself", || {
                self.sent += 1;
                assert!(send(member, "m"), "{}", member.log());
                self.cluster.sink.wait(self.sent);
                wait("it is written down", || {
                    let left = format!("SELECT count(*) FROM {schema}.job");
                    (Postgres::shared().sql("postern", &left) == "0").then_some(())
                });
                (Postgres::shared().sql("postern", &by) == name).then_some(())
            });
        }
    }
}

/// It takes the file as an administrator has it taken.
fn changes(member: &Gateway, keys: &str) {
    let new = member.path("cluster-key.new");
    fs::write(&new, keys).unwrap();
    fs::rename(new, member.path("cluster-key")).unwrap();
    let count = || member.log().matches("event=reloaded").count();
    let before = count();
    member.hang_up();
    wait("the reload", || (count() > before).then_some(()));
    let log = member.log();
    assert!(
        !log.contains("restart needed") && !log.contains("control character"),
        "{log}"
    );
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_key_is_changed_while_two_gateways_are_at_work() {
    let mut sealed = Sealed::new();
    let mut one = sealed.member(A, OLD);
    let two = sealed.member(B, OLD);
    sealed.all_read([(&one, A), (&two, B)]);
    // All can open what the new one seals, before anybody seals with it.
    for keys in [OLD.to_owned() + NEW, NEW.to_owned() + OLD] {
        changes(&one, &keys);
        sealed.all_read([(&one, A), (&two, B)]);
        changes(&two, &keys);
        sealed.all_read([(&two, B), (&one, A)]);
    }
    // From a token that is sealed with the old key, and is never rotated again.
    changes(&one, OLD);
    changes(&two, &(OLD.to_owned() + NEW));
    sealed.all_read([(&two, B), (&one, A)]);
    sealed.rotates.store(false, Ordering::SeqCst);
    changes(&one, &(NEW.to_owned() + OLD));
    changes(&two, &(NEW.to_owned() + OLD));
    // By hand, of all that no mail has gone by since.
    stdout(&two.cli(&["check", "--connect"]));
    changes(&two, NEW);
    sealed.all_read([(&one, A), (&two, B)]);
    // A restart has it as well.
    fs::write(one.path("cluster-key"), NEW).unwrap();
    assert_eq!(one.terminate(), 0, "{}", one.log());
    one.restart();
    sealed.rotates.store(true, Ordering::SeqCst);
    sealed.all_read([(&one, A), (&two, B)]);

    // One without the key, which must not take the configured token in the place of what it cannot read.
    let three = sealed.member("relay-c", OTHER);
    let refused = three.cli(&["check", "--connect"]);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        !refused.status.success() && said.contains(REFUSED),
        "{said}"
    );
    // The order that is not described: whoever seals first is not understood, until the others have the key.
    changes(&one, &(OLD.to_owned() + NEW));
    stdout(&one.cli(&["check", "--connect"]));
    let refused = two.cli(&["check", "--connect"]);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        !refused.status.success() && said.contains(REFUSED),
        "{said}"
    );
    drop(three);
    changes(&two, &(OLD.to_owned() + NEW));
    stdout(&two.cli(&["check", "--connect"]));
    for member in [&one, &two] {
        let log = member.log();
        assert!(
            !log.contains("rotated-") && !log.contains("invalid_grant"),
            "{log}"
        );
    }
}
