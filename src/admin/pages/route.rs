//! `/try`: who would be taken, and which way his mail would leave.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, State},
    response::Response,
};

use super::{
    shell::{shown, shown_with},
    templates::{Frame, TryPage},
};
use crate::admin::{
    api::gateway::asked, app::App, caller::Caller, params::Params, problem::ApiError,
};

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let known = ["from", "to", "client", "user", "listener"];
    let params = Params::of(query.as_deref(), &known)?;
    let given = |key: &str| params.get(key).unwrap_or_default().to_owned();
    let mut listeners: Vec<String> = Vec::new();
    for listener in app.host.status().await?.listeners {
        if !listeners.contains(&listener.name) {
            listeners.push(listener.name);
        }
    }
    let page = TryPage {
        frame: Frame::of(&app, &caller, "try", "Try a route"),
        from: given("from"),
        to: given("to"),
        client: given("client"),
        user: given("user"),
        listener: given("listener"),
        listeners,
        explained: None,
    };
    // A link from what was refused has what is known; the rest is typed first.
    if params.get("to").is_none() {
        return Ok(shown(&page));
    }
    let explained =
        asked(&params).and_then(|asked| app.host.explain(&asked).map_err(ApiError::bad));
    Ok(match explained {
        Ok(explained) => shown(&TryPage {
            explained: Some(explained),
            ..page
        }),
        Err(refusal) => shown_with(
            &refusal,
            &TryPage {
                frame: Frame {
                    alert: Some(refusal.detail.clone()),
                    ..page.frame
                },
                ..page
            },
        ),
    })
}
