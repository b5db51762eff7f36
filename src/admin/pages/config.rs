//! `/config`: the file, its secrets masked, and what is wrong with it, where.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    response::Response,
};

use super::{
    shell::{done, shown, shown_with},
    templates::{ConfigPage, FileLine, Frame},
};
use crate::{
    admin::{
        api::{configuration, gateway::read_again, proposals::part},
        app::App,
        caller::Caller,
        gate::row,
        params::Params,
        problem::ApiError,
    },
    view,
};

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["done"])?;
    let frame = Frame::of(&app, &caller, "config", "Configuration").noticing(&params);
    Ok(shown(&page(&app, &caller, frame).await?))
}

async fn page(app: &App, caller: &Caller, frame: Frame) -> Result<ConfigPage, ApiError> {
    let file = configuration::file(app, caller).await;
    let reload = app.host.status().await?.reload;
    let lines = file.text.as_deref().map(|text| lines(text, &file.problems));
    let proposals = part(app, &Params::default()).await?.items;
    Ok(ConfigPage {
        frame,
        path: file.path,
        sha256: file.sha256,
        lines,
        problems: file.problems,
        reload,
        write: file.write,
        read_only: file.read_only,
        proposals,
    })
}

fn lines(text: &str, problems: &[view::Problem]) -> Vec<FileLine> {
    let line = |(at, text): (usize, &str)| FileLine {
        number: at + 1,
        text: text.to_owned(),
        problems: problems
            .iter()
            .filter(|problem| problem.line == Some(at + 1))
            .cloned()
            .collect(),
    };
    text.lines().enumerate().map(line).collect()
}

/// Reload.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "", "");
    let form = Params::form(request).await?;
    if form.get("do") != Some("reload") {
        return Err(ApiError::bad("`do` takes reload"));
    }
    match read_again(&app, row).await {
        Ok(()) => Ok(done("/config", "reload", 0)),
        Err(refusal) => {
            let frame = Frame {
                alert: Some(refusal.detail.clone()),
                ..Frame::of(&app, &caller, "config", "Configuration")
            };
            Ok(shown_with(&refusal, &page(&app, &caller, frame).await?))
        }
    }
}
