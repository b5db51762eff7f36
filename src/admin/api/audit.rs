//! The audit for programs: who did what, in parts or as one export.

use axum::{
    Extension, Json,
    extract::{RawQuery, Request, State},
    http::header,
    response::{IntoResponse as _, Response},
};

use super::part::{ListPart, TheApp};
use crate::{
    admin::{
        caller::Caller,
        gate::row,
        params::Params,
        problem::{ApiError, ProblemDetails},
    },
    window::audit::{self as rows, AuditFilter, AuditRow},
};

const KEYS: &[&str] = &["since", "who", "action", "limit", "cursor"];
/// An export reads so many at once.
const PART: usize = 1_000;
/// The largest export.
const MOST: usize = 100_000;

/// Who did what, newest first. With `Accept: application/x-ndjson` all of it, a line each.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit",
    params(
        ("since" = Option<String>, Query, description = "From then on, RFC 3339"),
        ("who" = Option<String>, Query, description = "Of this name"),
        ("action" = Option<String>, Query, description = "This word"),
        ("limit" = Option<usize>, Query, description = "At most so many, up to 500"),
        ("cursor" = Option<String>, Query, description = "`next` of the part before"),
    ),
    responses(
        (status = 200, body = ListPart<AuditRow>),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), KEYS)?;
    let filter = filter(&params)?;
    let accept = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/x-ndjson")) {
        let row = row(&caller, &request, "audit", "exported");
        let lines = export(&app, row, filter).await?;
        return Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response());
    }
    let limit = params.limit()?;
    Ok(Json(part(&app, filter, limit).await?).into_response())
}

/// What is asked for.
pub(in crate::admin) fn filter(params: &Params) -> Result<AuditFilter, ApiError> {
    Ok(AuditFilter {
        since: params.time("since")?,
        who: params.get("who").map(str::to_owned),
        action: params.get("action").map(str::to_owned),
        before: params.parsed("cursor", "what `next` of the part before was")?,
        limit: 0,
    })
}

/// One part of the list.
pub(in crate::admin) async fn part(
    app: &crate::admin::app::App,
    filter: AuditFilter,
    limit: usize,
) -> Result<ListPart<AuditRow>, ApiError> {
    let filter = AuditFilter {
        limit: limit + 1,
        ..filter
    };
    let mut rows = app.window.run(move |tx| rows::list(tx, &filter)).await?;
    let is_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows
        .last()
        .filter(|_| is_more)
        .map(|(id, _)| id.to_string());
    let items = rows.into_iter().map(|(_, row)| row).collect();
    Ok(ListPart { items, next })
}

/// All of it, a line each; that it was taken is the row.
pub(in crate::admin) async fn export(
    app: &crate::admin::app::App,
    row: AuditRow,
    filter: AuditFilter,
) -> Result<String, ApiError> {
    app.audit.ready().await?;
    let (mut lines, mut before, mut count) = (String::new(), filter.before, 0);
    while count < MOST {
        let filter = AuditFilter {
            before,
            limit: PART,
            ..filter.clone()
        };
        let rows = app.window.run(move |tx| rows::list(tx, &filter)).await?;
        let Some((last, _)) = rows.last() else { break };
        before = Some(*last);
        count += rows.len();
        for (_, row) in rows {
            lines.push_str(&serde_json::to_string(&row).unwrap_or_default());
            lines.push('\n');
        }
    }
    app.audit.write(row).await?;
    Ok(lines)
}
