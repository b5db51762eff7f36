//! The audit for programs: who did what, in parts or as one export.

use std::{io, sync::Arc};

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{RawQuery, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use tokio::sync::{
    OwnedSemaphorePermit,
    mpsc::{self, error::SendTimeoutError},
};

use super::{
    part::{ListPart, TheApp},
    pieces::{BodyPiece, GONE_AFTER, Pieces},
};
use crate::{
    admin::{
        app::App,
        caller::Caller,
        gate::row,
        params::Params,
        problem::{ApiError, ProblemDetails},
    },
    window::{
        WindowDb,
        audit::{self as rows, AuditFilter, AuditRow},
    },
};

const KEYS: &[&str] = &["since", "who", "action", "limit", "cursor"];
/// An export reads so many at once.
const PART: usize = 200;

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
    app: &App,
    filter: AuditFilter,
    limit: usize,
) -> Result<ListPart<AuditRow>, ApiError> {
    let filter = AuditFilter {
        limit: limit + 1,
        ..filter
    };
    let mut rows = app.window.read(move |tx| rows::list(tx, &filter)).await?;
    let is_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows
        .last()
        .filter(|_| is_more)
        .map(|(id, _)| id.to_string());
    let items = rows.into_iter().map(|(_, row)| row).collect();
    Ok(ListPart { items, next })
}

/// All of it, a line each, as it is read; that it was taken is the row, which is not in it.
pub(in crate::admin) async fn export(
    app: &Arc<App>,
    row: AuditRow,
    filter: AuditFilter,
) -> Result<Body, ApiError> {
    app.audit.ready().await?;
    let Ok(permit) = Arc::clone(&app.streams).try_acquire_owned() else {
        let detail = "there are 50 streams and exports already";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let newest = AuditFilter {
        limit: 1,
        ..AuditFilter::default()
    };
    let newest = app.window.read(move |tx| rows::list(tx, &newest)).await?;
    let end = newest.first().map_or(0, |(number, _)| *number) + 1;
    app.audit.write(row).await?;
    let filter = AuditFilter {
        before: Some(filter.before.unwrap_or(end).min(end)),
        ..filter
    };
    let (pieces, body) = mpsc::channel(2);
    app.spawn(tell(Arc::clone(&app.window), filter, pieces, permit));
    Ok(Body::new(Pieces(body)))
}

async fn tell(
    window: Arc<WindowDb>,
    mut filter: AuditFilter,
    pieces: mpsc::Sender<BodyPiece>,
    permit: OwnedSemaphorePermit,
) {
    let _permit = permit;
    filter.limit = PART;
    loop {
        let asked = filter.clone();
        let (piece, is_last) = match window.read(move |tx| rows::list(tx, &asked)).await {
            Ok(rows) => {
                let Some((last, _)) = rows.last() else { return };
                filter.before = Some(*last);
                (Ok(lines(&rows)), rows.len() < PART)
            }
            Err(error) => (Err(io::Error::other(error)), true),
        };
        let sent = pieces.send_timeout(piece, GONE_AFTER).await;
        if let Err(SendTimeoutError::Timeout(_)) = &sent {
            // Not an end like any other: it is not all.
            let _ = pieces.try_send(Err(io::ErrorKind::TimedOut.into()));
        }
        if is_last || sent.is_err() {
            return;
        }
    }
}

fn lines(rows: &[(i64, AuditRow)]) -> Bytes {
    let mut lines = String::new();
    for (_, row) in rows {
        lines.push_str(&serde_json::to_string(row).unwrap_or_default());
        lines.push('\n');
    }
    lines.into()
}
