//! `/config/check`, `/proposals`: a change of the configuration is looked at, kept, made or given up. No secret is in what is kept.

use std::time::SystemTime;

use axum::{
    Extension, Json,
    extract::{RawQuery, Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use super::{
    connectors::NoKeys,
    part::{ListPart, Named, TheApp},
};
use crate::{
    admin::{
        app::App,
        caller::Caller,
        gate::row,
        params::{self, Params},
        problem::{ApiError, ProblemDetails},
        settings::{Role, WriteConfig},
    },
    mail::text::shown_to,
    view::{Changes, CheckedChange, Problem, ProposalView, sides},
    window::{
        audit::AuditRow,
        proposals::{self as rows, ProposalRow, ProposalState},
    },
};

/// Characters of a title.
const TITLE: usize = 200;

/// What a change would make of the configuration. Nothing is stored.
#[utoipa::path(post, path = "/api/v1/config/check", tag = "configuration", request_body = Changes,
    responses(
        (status = 200, body = CheckedChange),
        (status = 412, description = "`changed`: the file is another than `base`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "The result is no configuration, or `not_provable`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn check(
    State(app): TheApp,
    request: Request,
) -> Result<Json<CheckedChange>, ApiError> {
    look_at(&app, params::json(request).await?).await.map(Json)
}

/// The same for a page.
pub(in crate::admin) async fn look_at(
    app: &App,
    changes: Changes,
) -> Result<CheckedChange, ApiError> {
    may_change(app)?;
    Ok(app.host.check_change(changes).await?)
}

/// Keeps a change as a proposal.
#[utoipa::path(post, path = "/api/v1/proposals", tag = "configuration", request_body = Changes,
    responses(
        (status = 201, body = ProposalView),
        (status = 403, description = "`only_in_file`, `config_off`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "`secret_needed`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 412, description = "`changed`: the file is another than `base`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "The result is no configuration, or `not_provable`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn propose(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "propose", "");
    let changes = params::json(request).await?;
    let kept = keep(&app, row, changes).await?;
    Ok((StatusCode::CREATED, Json(kept)).into_response())
}

/// The same for a page.
pub(in crate::admin) async fn keep(
    app: &App,
    row: AuditRow,
    changes: Changes,
) -> Result<ProposalView, ApiError> {
    keep_with(app, row, changes, Vec::new()).await
}

/// With more to be known than what the check of the file says.
pub(super) async fn keep_with(
    app: &App,
    row: AuditRow,
    changes: Changes,
    notes: Vec<Problem>,
) -> Result<ProposalView, ApiError> {
    let object = match changes.changes.as_slice() {
        [one] => one.object(),
        all => format!("{} changes", all.len()),
    };
    let object = shown_to(&object, 200);
    let row = AuditRow { object, ..row };
    app.audit.ready().await?;
    let kept = plan(app, &row.who, changes, notes).await;
    match kept {
        Ok(kept) => {
            let (before, after) = sides(&kept.diff);
            let row = AuditRow {
                object: format!("proposal {}: {}", kept.id, row.object),
                before: Some(before),
                after: Some(after),
                result: "ok".to_owned(),
                ..row
            };
            tell(app, &kept.id, kept.state);
            app.audit.write(row).await?;
            Ok(kept)
        }
        Err(refusal) => refused(app, row, refusal).await,
    }
}

async fn plan(
    app: &App,
    by: &str,
    changes: Changes,
    notes: Vec<Problem>,
) -> Result<ProposalView, ApiError> {
    may_change(app)?;
    let title = changes.title.trim().to_owned();
    if title.chars().count() > TITLE || title.contains(char::is_control) {
        let detail = format!("a title is one line of at most {TITLE} characters");
        return Err(ApiError::bad(detail));
    }
    let mut planned = app.host.plan_change(changes).await?;
    planned.checked.problems.extend(notes);
    let proposal = ProposalRow {
        number: 0,
        state: ProposalState::Open,
        by: by.to_owned(),
        at: SystemTime::now(),
        title,
        diff: planned.checked.diff,
        problems: json!(planned.checked.problems).to_string(),
        base: planned.base,
        body: planned.body,
    };
    let kept = app
        .window
        .run(move |tx| {
            let number = rows::add(tx, &proposal)?;
            Ok(ProposalRow { number, ..proposal })
        })
        .await?;
    Ok(ProposalView::of(&kept))
}

/// Proposals, newest first.
#[utoipa::path(get, path = "/api/v1/proposals", tag = "configuration",
    params(
        ("limit" = Option<u32>, Query, description = "At most so many; 50 unless said, 500 at most"),
        ("cursor" = Option<String>, Query, description = "`next` of the part before"),
    ),
    responses(
        (status = 200, body = ListPart<ProposalView>),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<ListPart<ProposalView>>, ApiError> {
    let params = Params::of(query.as_deref(), &["limit", "cursor"])?;
    let ListPart { items, next } = part(&app, &params).await?;
    let items = items.into_iter().map(|one| seen_by(&caller, one)).collect();
    Ok(Json(ListPart { items, next }))
}

/// As this one may see it.
fn seen_by(caller: &Caller, proposal: ProposalView) -> ProposalView {
    match caller.role {
        Role::Admin => proposal,
        _ => proposal.without_hash(),
    }
}

/// The same for a page.
pub(in crate::admin) async fn part(
    app: &App,
    params: &Params,
) -> Result<ListPart<ProposalView>, ApiError> {
    let limit = params.limit()?;
    let before = params.parsed::<i64>("cursor", "`next` of the part before")?;
    let mut found = app
        .window
        .read(move |tx| rows::list(tx, before, limit + 1))
        .await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| has_more);
    Ok(ListPart {
        next: last.map(|row| row.number.to_string()),
        items: found.iter().map(ProposalView::of).collect(),
    })
}

/// One proposal.
#[utoipa::path(get, path = "/api/v1/proposals/{id}", tag = "configuration",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = ProposalView),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    RawQuery(query): RawQuery,
) -> Result<Json<ProposalView>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    let found = one(&app, &id).await?;
    Ok(Json(seen_by(&caller, found)))
}

/// The same for a page.
pub(in crate::admin) async fn one(app: &App, id: &str) -> Result<ProposalView, ApiError> {
    Ok(ProposalView::of(&find(app, id).await?))
}

async fn find(app: &App, id: &str) -> Result<ProposalRow, ApiError> {
    let not_known = || ApiError::not_found(format!("there is no proposal {}", shown_to(id, 100)));
    let number = ProposalView::number(id).ok_or_else(not_known)?;
    let found = app.window.read(move |tx| rows::find(tx, number)).await?;
    found.ok_or_else(not_known)
}

/// Does a proposal anew on the file of now, writes that, and reloads.
#[utoipa::path(post, path = "/api/v1/proposals/{id}/apply", tag = "configuration",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = ProposalView),
        (status = 403, description = "`only_on_the_machine`, `config_off`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "`changed`, `read_only`, or it is not open", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "The result is no configuration, or `not_reloaded`: the file is as it was", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn apply(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    request: Request,
) -> Result<Json<ProposalView>, ApiError> {
    let row = row(&caller, &request, "apply", "");
    params::json::<NoKeys>(request).await?;
    write(&app, row, &id).await.map(Json)
}

/// The same for a page.
pub(in crate::admin) async fn write(
    app: &App,
    row: AuditRow,
    id: &str,
) -> Result<ProposalView, ApiError> {
    let object = format!("proposal {}", shown_to(id, 100));
    let row = AuditRow { object, ..row };
    app.audit.ready().await?;
    match make(app, id).await {
        Ok((applied, checked)) => {
            let (before, after) = sides(&checked.diff);
            let row = AuditRow {
                before: Some(before),
                after: Some(after),
                result: "ok".to_owned(),
                ..row
            };
            tell(app, id, ProposalState::Applied);
            app.audit.write(row).await?;
            Ok(applied)
        }
        Err(refusal) => refused(app, row, refusal).await,
    }
}

async fn make(app: &App, id: &str) -> Result<(ProposalView, CheckedChange), ApiError> {
    may_change(app)?;
    if app.settings().write_config != WriteConfig::Write {
        return Err(ApiError::coded(
            StatusCode::FORBIDDEN,
            "only_on_the_machine",
            format!(
                "the page writes nothing here: run `postern config apply {}` on the machine",
                shown_to(id, 100)
            ),
        ));
    }
    let proposal = find(app, id).await?;
    is_open(&proposal)?;
    let body = proposal.body.clone();
    let checked = app.host.apply_change(proposal.number, body).await?;
    let applied = ProposalRow {
        state: ProposalState::Applied,
        ..proposal
    };
    Ok((ProposalView::of(&applied), checked))
}

/// Gives a proposal up.
#[utoipa::path(post, path = "/api/v1/proposals/{id}/drop", tag = "configuration",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = ProposalView),
        (status = 409, description = "It is not open", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn discard(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    request: Request,
) -> Result<Json<ProposalView>, ApiError> {
    let row = row(&caller, &request, "drop", "");
    params::json::<NoKeys>(request).await?;
    give_up(&app, row, &id).await.map(Json)
}

/// The same for a page.
pub(in crate::admin) async fn give_up(
    app: &App,
    row: AuditRow,
    id: &str,
) -> Result<ProposalView, ApiError> {
    let object = format!("proposal {}", shown_to(id, 100));
    let row = AuditRow { object, ..row };
    app.audit.ready().await?;
    match close(app, id).await {
        Ok(dropped) => {
            let result = "ok".to_owned();
            tell(app, id, ProposalState::Dropped);
            app.audit.write(AuditRow { result, ..row }).await?;
            Ok(dropped)
        }
        Err(refusal) => refused(app, row, refusal).await,
    }
}

async fn close(app: &App, id: &str) -> Result<ProposalView, ApiError> {
    may_change(app)?;
    let proposal = find(app, id).await?;
    let number = proposal.number;
    let is_done = app.window.run(move |tx| rows::discard(tx, number)).await?;
    let proposal = find(app, id).await?;
    if !is_done {
        is_open(&proposal)?;
        let detail = format!("proposal p{number} is being written just now");
        return Err(ApiError::new(StatusCode::CONFLICT, detail));
    }
    Ok(ProposalView::of(&proposal))
}

fn is_open(proposal: &ProposalRow) -> Result<(), ApiError> {
    match proposal.state {
        ProposalState::Open => Ok(()),
        state => Err(ApiError::new(
            StatusCode::CONFLICT,
            format!(
                "proposal p{} is {} already",
                proposal.number,
                state.as_str()
            ),
        )),
    }
}

/// Whether anything may be changed from here.
pub(in crate::admin) fn may_change(app: &App) -> Result<(), ApiError> {
    if app.settings().write_config == WriteConfig::Off {
        let detail = "admin.write_config is off: the configuration changes in its file only";
        return Err(ApiError::coded(StatusCode::FORBIDDEN, "config_off", detail));
    }
    Ok(())
}

/// What was refused is written down, too.
async fn refused<T>(app: &App, row: AuditRow, refusal: ApiError) -> Result<T, ApiError> {
    let result = format!("refused: {}", refusal.detail);
    app.audit.write(AuditRow { result, ..row }).await?;
    Err(refusal)
}

fn tell(app: &App, id: &str, state: ProposalState) {
    app.feed
        .tell("proposal", id, json!({ "id": id, "state": state }));
}
