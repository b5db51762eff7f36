//! The page `/`: whether mail flows, what needs somebody, and how the gateway is.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    response::Response,
};

use super::{
    needs::{Needs, SeenNow},
    shell::{done, shown, shown_with},
    templates::{Frame, OverviewPage},
    verbs::{Wish, carry_out},
};
use crate::{
    admin::{
        api::gateway::read_again, app::App, caller::Caller, gate::row, params::Params,
        problem::ApiError,
    },
    queue::store::{Filter, JobState},
};

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["done"])?;
    let frame = Frame::of(&app, &caller, "overview", "Overview").noticing(&params);
    Ok(shown(&page(&app, frame).await?))
}

async fn page(app: &App, frame: Frame) -> Result<OverviewPage, ApiError> {
    let seen = SeenNow::of(app).await?;
    Ok(OverviewPage {
        frame,
        needs: Needs::of(&seen),
        endings: seen.endings(),
        shared: seen.shared(),
        status: seen.status,
        ready: seen.ready,
        connectors: seen.connectors,
    })
}

/// Reload, or retry all that waits.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "", "");
    let form = Params::form(request).await?;
    match form.get("do") {
        Some("reload") => match read_again(&app, row).await {
            Ok(()) => Ok(done("/", "reload", 0)),
            Err(refusal) => {
                let frame = Frame {
                    alert: Some(refusal.detail.clone()),
                    ..Frame::of(&app, &caller, "overview", "Overview")
                };
                Ok(shown_with(&refusal, &page(&app, frame).await?))
            }
        },
        Some("retry") => {
            let wish = Wish {
                filter: Filter {
                    states: vec![JobState::Waiting],
                    ..Filter::default()
                },
                which: "all messages that wait".to_owned(),
                page: "overview",
                path: "/".to_owned(),
                fields: Vec::new(),
            };
            carry_out(&app, &caller, row, &form, wish).await
        }
        _ => Err(ApiError::bad("`do` takes retry or reload")),
    }
}
