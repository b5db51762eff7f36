//! Reports as the gateway asks for them: of its own store and settings, with no directory to look into.

use std::{fs, path::Path, time::Duration};

use postern::{
    config::{self, Config, Secrets},
    gateway::report::{
        site::Site,
        situation::Situation,
        status::StatusReport,
        trial::{Trial, TrialEnd, TrialError},
    },
    queue::{
        lock::Holder,
        store::{Filter, Search, Store},
    },
    view::{STATUS_ROW, StatusRow},
};
use serde_json::json;

use super::store::{at, mail};
use crate::{
    fixture::address,
    harness::{gateway::basic, memory::Memory, upstream::Upstream},
};

fn load(text: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, text).unwrap();
    config::load(&file, Secrets::Resolve).unwrap().0
}

#[tokio::test]
async fn a_gateway_sees_itself() {
    let store = Memory::default();
    let row = StatusRow {
        pid: std::process::id(),
        connectors: vec!["up".to_owned()],
        ..StatusRow::default()
    };
    store.set_note(STATUS_ROW, row.written()).await.unwrap();
    let sent = mail(1, &["a@x.example"]);
    store.insert(&sent, &[], at(0)).await.unwrap();
    let site = Site {
        data_dir: Path::new("/nowhere"),
        config: None,
        problems: None,
        running: Some(Holder::this()),
        now: at(0) + Duration::from_hours(2),
    };
    let report = StatusReport::read(site, Some(&store)).await.unwrap();
    let shown = serde_json::to_value(report.view()).unwrap();
    assert_eq!(shown["running"], json!(true));
    assert_eq!(shown["pid"], json!(std::process::id()));
    assert_eq!(shown["connectors"][0]["name"], json!("up"));
    // It waits for more than an hour.
    assert_eq!(shown["oldest_seconds"], json!(7200));
    assert_eq!(shown["ok"], json!(false));
    let search = Search {
        filter: Filter {
            subjects: true,
            ..Filter::default()
        },
        limit: 1,
        ..Search::default()
    };
    let found = store.search(&search).await.unwrap();
    let situation = Situation::read(&site, &store).await.unwrap();
    let shown = serde_json::to_value(situation.found(&found)).unwrap();
    let item = &shown["items"][0];
    let seen = [
        &item["id"],
        &item["client"],
        &item["subject"],
        &item["state"],
    ];
    let id = sent.message.id.to_string();
    assert_eq!(
        seen,
        [
            &json!(id),
            &json!("printers"),
            &json!("x"),
            &json!("waiting")
        ]
    );
    assert_eq!(shown["next"], json!(found.next.unwrap().to_string()));
}

#[tokio::test]
async fn a_connector_that_is_not_saved_is_tried() {
    let upstream = Upstream::start();
    let config = load(&basic(upstream.address));
    let mut draft = config.connectors[0].clone();
    draft.name = "draft".into();
    let trial = Trial {
        config: &config,
        settings: &draft,
        token_store: None,
        recorder: None,
    };
    let tried = trial.examine().await;
    assert!(tried.ok && !tried.conversation.is_empty(), "{tried:?}");
    let said = (tried.connector.as_str(), tried.outcome.as_str(), tried.to);
    assert_eq!(said, ("draft", "open", None));
    assert_eq!(upstream.count(), 0);
    let from = Some(address("app@corp.example"));
    let to = address("ops@partner.example");
    let sent = trial.send(from.clone(), &to, at(0)).await.unwrap();
    assert_eq!(
        (sent.end, sent.view.outcome.as_str()),
        (TrialEnd::Works, "delivered")
    );
    assert_eq!(upstream.count(), 1);
    // Not past the allowlists.
    let stranger = address("ops@elsewhere.example");
    let refused = trial.send(from, &stranger, at(0)).await;
    assert!(matches!(refused, Err(TrialError::Refused(_))));
    assert_eq!(upstream.count(), 1);
}
