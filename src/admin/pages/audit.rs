//! The page `/audit`: who did what, newest first, and all of it as a file.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use form_urlencoded::Serializer;

use super::{
    shell::shown,
    templates::{AuditPage, Frame},
};
use crate::admin::{
    api::audit::{export, filter, part},
    app::App,
    caller::Caller,
    gate::row,
    params::Params,
    problem::ApiError,
};

/// Rows of a page.
const ROWS: usize = 50;

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let params = Params::of(
        query.as_deref(),
        &["since", "who", "action", "cursor", "export"],
    )?;
    let wanted = filter(&params)?;
    if params.get("export").is_some() {
        let lines = export(&app, row(&caller, &request, "audit", "exported"), wanted).await?;
        let headers = [
            (header::CONTENT_TYPE, "application/x-ndjson"),
            (
                header::CONTENT_DISPOSITION,
                "attachment; filename=\"audit.ndjson\"",
            ),
        ];
        return Ok((headers, lines).into_response());
    }
    let list = part(&app, wanted, ROWS).await?;
    let given = |key: &str| params.get(key).unwrap_or_default().to_owned();
    let with = |key: &str, value: &str| -> String {
        let mut query = Serializer::for_suffix("?".to_owned(), 1);
        for key in ["since", "who", "action"] {
            if let Some(value) = params.get(key) {
                query.append_pair(key, value);
            }
        }
        query.append_pair(key, value).finish()
    };
    Ok(shown(&AuditPage {
        frame: Frame::of(&app, &caller, "audit", "Audit"),
        since: given("since"),
        who: given("who"),
        action: given("action"),
        rows: list.items,
        next: list.next.map(|next| with("cursor", &next)),
        export: with("export", "ndjson"),
    }))
}
