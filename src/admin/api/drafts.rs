//! `POST /connectors/test`: a connector that is not saved is tried, by the rules of one that is.

use axum::{
    Extension, Json,
    extract::{RawQuery, Request, State},
};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{connectors, part::TheApp};
use crate::{
    admin::{
        app::App,
        caller::Caller,
        gate::row,
        params::{self, Params},
        problem::{ApiError, ProblemDetails},
    },
    mail::text::shown_to,
    view,
    window::audit::AuditRow,
};

/// A draft.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct DraftRequest {
    /// The keys of its section; a secret is `{"secret": "…"}`, and `{"secret": "keep"}` the saved one of that name.
    #[schema(value_type = Object)]
    pub(in crate::admin) connector: Value,
    /// The recipient of a message. Absent: it only logs in.
    #[serde(default)]
    pub(in crate::admin) to: Option<String>,
}

/// Tries a connector that is not saved, and tells the conversation. 200 whatever came of it.
#[utoipa::path(post, path = "/api/v1/connectors/test", tag = "connectors", request_body = DraftRequest,
    responses(
        (status = 200, body = view::Tried),
        (status = 403, description = "`only_in_file`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "`secret_needed`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn test(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<view::Tried>, ApiError> {
    let row = row(&caller, &request, "test", "");
    let draft: DraftRequest = params::json(request).await?;
    try_draft(&app, row, draft).await.map(Json)
}

/// The same for a page.
pub(in crate::admin) async fn try_draft(
    app: &App,
    row: AuditRow,
    draft: DraftRequest,
) -> Result<view::Tried, ApiError> {
    app.guard.trial()?;
    app.audit.ready().await?;
    let name = draft.connector["name"].as_str().unwrap_or_default();
    let object = format!("draft {}", shown_to(name, 100));
    let tried = app
        .host
        .try_draft(draft.connector, draft.to.as_deref())
        .await;
    let result = match &tried {
        Ok(tried) => tried.outcome.clone(),
        Err(refused) => refused.detail.clone(),
    };
    let row = AuditRow {
        object,
        result,
        ..row
    };
    app.audit.write(row).await?;
    Ok(tried?)
}

/// The connector of the name `test`, which is a name as well.
#[utoipa::path(get, path = "/api/v1/connectors/test", tag = "connectors", operation_id = "show_test",
    responses(
        (status = 200, body = view::ConnectorView),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<view::ConnectorView>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    connectors::one(&app, "test").await.map(Json)
}
