//! `/proposals/ID`: a change of the configuration that waits, what it makes of the file, and how it gets there: by the page where the
//! page may write, else by a command on the machine.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    response::Response,
};

use super::{
    changing::{ProposalPage, diff_lines},
    shell::{done, shown, shown_with},
    templates::Frame,
};
use crate::{
    admin::{
        api::{
            part::Named,
            proposals::{give_up, one, write},
        },
        app::App,
        caller::Caller,
        gate::row,
        params::Params,
        problem::ApiError,
    },
    window::audit::AuditRow,
};

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["done"])?;
    let page = page(&app, &caller, &id).await?;
    Ok(shown(&ProposalPage {
        frame: page.frame.noticing(&params),
        ..page
    }))
}

async fn page(app: &App, caller: &Caller, id: &str) -> Result<ProposalPage, ApiError> {
    let proposal = one(app, id).await?;
    let file = app.host.config().await;
    Ok(ProposalPage {
        frame: Frame::of(app, caller, "proposal", format!("Proposal {}", proposal.id)),
        lines: diff_lines(&proposal.diff),
        problems: proposal.problems.clone(),
        proposal,
        path: file.path,
        write: file.write,
        read_only: file.read_only,
    })
}

/// Apply, or drop.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "apply", "");
    let form = Params::form(request).await?;
    let path = format!("/proposals/{id}");
    match form.get("do") {
        Some("apply") => match write(&app, row, &id).await {
            Ok(_) => Ok(done(&path, "applied", 0)),
            Err(refusal) => not_done(&app, &caller, &id, &refusal).await,
        },
        Some("drop") => {
            let action = "drop".to_owned();
            match give_up(&app, AuditRow { action, ..row }, &id).await {
                Ok(_) => Ok(done(&path, "dropped", 0)),
                Err(refusal) => not_done(&app, &caller, &id, &refusal).await,
            }
        }
        _ => Err(ApiError::bad("`do` takes apply or drop")),
    }
}

/// The page of a proposal that was not applied: why, and what is wrong with what it makes of the file now.
///
/// # Errors
/// There is no such proposal.
pub(super) async fn not_done(
    app: &App,
    caller: &Caller,
    id: &str,
    refusal: &ApiError,
) -> Result<Response, ApiError> {
    let page = page(app, caller, id).await?;
    let problems = refusal.problems.clone();
    Ok(shown_with(
        refusal,
        &ProposalPage {
            frame: Frame {
                alert: Some(refusal.detail.clone()),
                ..page.frame
            },
            problems: problems.unwrap_or(page.problems),
            ..page
        },
    ))
}
