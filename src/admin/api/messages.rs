//! `/messages`: where they are, what became of them, and the verbs.

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{Path, RawQuery, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};

use super::part::TheApp;
use crate::{
    admin::{
        app::App,
        caller::Caller,
        gate::row,
        params::Params,
        problem::{ApiError, ProblemDetails},
        settings::ShownContent,
    },
    mail::{message::MessageId, text::shown_to},
    queue::{eml::Eml, store::StoreError},
    view,
    window::audit::AuditRow,
};

/// One message: its entries, the summary of its header, its events.
#[utoipa::path(get, path = "/api/v1/messages/{id}", tag = "messages",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = view::ShownMessage),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(app): TheApp,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<view::ShownMessage>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    let id = read_id(&id)?;
    let found = app.host.message(id).await?;
    found.map(Json).ok_or_else(|| not_known(id))
}

/// The life of a message: `postern trace --json`.
#[utoipa::path(get, path = "/api/v1/messages/{id}/events", tag = "messages",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = view::Life),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn events(
    State(app): TheApp,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<view::Life>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    life(&app, read_id(&id)?).await.map(Json)
}

/// The life of a message.
pub(in crate::admin) async fn life(app: &App, id: MessageId) -> Result<view::Life, ApiError> {
    let found = app.host.life(id).await?;
    found.ok_or_else(|| not_known(id))
}

/// The message itself, as text; every look is in the audit.
#[utoipa::path(get, path = "/api/v1/messages/{id}/content", tag = "messages",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn content(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    Params::of(request.uri().query(), &[])?;
    let row = row(&caller, &request, "content", "shown");
    let mut eml = open(&app, read_id(&id)?, row).await?;
    let (pieces, body) = tokio::sync::mpsc::channel::<Bytes>(2);
    app.spawn(async move {
        // A reader who is slow, or has gone, is waited for in this task alone.
        while let Ok(Some(piece)) = eml.next().await {
            if pieces.send(piece).await.is_err() {
                return;
            }
        }
    });
    let mut response = Body::new(super::events::Pieces(body)).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}

/// The content, if it may be seen and is still kept; that it was looked at is written down first.
pub(in crate::admin) async fn open(
    app: &App,
    id: MessageId,
    row: AuditRow,
) -> Result<Eml, ApiError> {
    if app.settings().content != ShownContent::All {
        let detail = "the content of mail is not shown: admin.content is not \"all\"";
        return Err(ApiError::coded(
            StatusCode::FORBIDDEN,
            "content_off",
            detail,
        ));
    }
    let message = app.host.store().content(id).await?;
    let message = message.ok_or_else(|| not_known(id))?;
    let object = format!("message {id}");
    app.audit.write(AuditRow { object, ..row }).await?;
    Eml::of(&message).await.map_err(|error| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("it cannot be read: {error}"),
        )
    })
}

/// The id of a message as a path has it.
pub(in crate::admin) fn read_id(text: &str) -> Result<MessageId, ApiError> {
    text.parse().map_err(|_| {
        ApiError::not_found(format!(
            "{:?} is not the id of a message",
            shown_to(text, 100)
        ))
    })
}

fn not_known(id: MessageId) -> ApiError {
    ApiError::not_found(format!("no message {id} is known, or it is not kept"))
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the queue cannot be read: {error}"),
        )
    }
}
