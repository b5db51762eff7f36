//! The pages `/connectors` and `/connectors/NAME`: how they do, their settings, and whether they work.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    response::Response,
};
use serde_json::Value;

use super::{
    filters::connector_path,
    shell::{done, shown, shown_with},
    templates::{ConnectorPage, ConnectorsPage, Frame},
    verbs::{Wish, carry_out},
};
use crate::{
    admin::{
        api::{
            connectors::{TryRequest, one, set_stopped, try_out},
            part::Named,
            proposals,
        },
        app::App,
        caller::Caller,
        gate::row,
        params::Params,
        problem::ApiError,
        settings::Role,
    },
    queue::store::{Filter, JobState},
    view,
    window::audit::AuditRow,
};

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["done"])?;
    Ok(shown(&ConnectorsPage {
        frame: Frame::of(&app, &caller, "connectors", "Connectors").noticing(&params),
        connectors: app.host.connectors().await?,
        may_change: may_change(&app, &caller),
    }))
}

/// Whether the form of a connector is for this caller.
fn may_change(app: &App, caller: &Caller) -> bool {
    caller.role >= Role::Admin && proposals::may_change(app).is_ok()
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["done"])?;
    let page = page(&app, &caller, &name).await?;
    Ok(shown(&ConnectorPage {
        frame: page.frame.noticing(&params),
        ..page
    }))
}

async fn page(app: &App, caller: &Caller, name: &str) -> Result<ConnectorPage, ApiError> {
    let connector = one(app, name).await?;
    let mut settings = Vec::new();
    flatten("", &connector.settings, &mut settings);
    Ok(ConnectorPage {
        frame: Frame::of(app, caller, "connector", format!("Connector {name}")),
        connector,
        settings,
        may_change: may_change(app, caller),
        to: String::new(),
        from: String::new(),
        tried: None,
    })
}

/// Keys as the file has them, dotted below a table.
fn flatten(key: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let key = if key.is_empty() {
                    name.clone()
                } else {
                    format!("{key}.{name}")
                };
                flatten(&key, value, out);
            }
        }
        Value::String(text) => out.push((key.to_owned(), text.clone())),
        other => out.push((key.to_owned(), other.to_string())),
    }
}

/// Test, retry what waits for it, stop, or start.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "test", "");
    let form = Params::form(request).await?;
    match form.get("do") {
        Some("test") => {
            let wanted = TryRequest {
                to: form.get("to").unwrap_or_default().to_owned(),
                from: form.get("from").map(str::to_owned),
            };
            let tried: Result<view::Tried, ApiError> = try_out(&app, &name, &wanted, row).await;
            let page = ConnectorPage {
                to: wanted.to,
                from: wanted.from.unwrap_or_default(),
                ..page(&app, &caller, &name).await?
            };
            Ok(match tried {
                Ok(tried) => shown(&ConnectorPage {
                    tried: Some(tried),
                    ..page
                }),
                Err(refusal) => shown_with(
                    &refusal,
                    &ConnectorPage {
                        frame: Frame {
                            alert: Some(refusal.detail.clone()),
                            ..page.frame
                        },
                        ..page
                    },
                ),
            })
        }
        Some("retry") => {
            one(&app, &name).await?;
            let wish = Wish {
                filter: Filter {
                    states: vec![JobState::Waiting],
                    connector: Some(app.host.of_connector(&name)),
                    ..Filter::default()
                },
                which: format!("messages that wait for connector {name}"),
                page: "connector",
                path: connector_path(&name),
                fields: Vec::new(),
            };
            carry_out(&app, &caller, row, &form, wish).await
        }
        Some("stop") => {
            let why = form.get("why").unwrap_or_default();
            let action = "stop".to_owned();
            set_stopped(&app, &name, Some(why), AuditRow { action, ..row }).await?;
            Ok(done(&connector_path(&name), "stopped", 1))
        }
        Some("start") => {
            let action = "start".to_owned();
            set_stopped(&app, &name, None, AuditRow { action, ..row }).await?;
            Ok(done(&connector_path(&name), "started", 1))
        }
        _ => Err(ApiError::bad("`do` takes retry, test, stop or start")),
    }
}
