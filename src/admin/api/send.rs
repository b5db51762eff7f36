//! `POST /messages`: a message that somebody writes at the window, which goes the way of every other.

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::part::TheApp;
use crate::{
    admin::{
        caller::Caller,
        gate::row,
        host::{NewMail, NotSent},
        params,
        problem::{ApiError, ProblemDetails},
    },
    window::audit::AuditRow,
};

/// A message to send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SendRequest {
    /// The sender, with or without a name.
    from: String,
    /// Recipients.
    #[serde(default)]
    to: Vec<String>,
    /// Recipients of a copy.
    #[serde(default)]
    cc: Vec<String>,
    /// Recipients that the others do not see.
    #[serde(default)]
    bcc: Vec<String>,
    /// One line.
    #[serde(default)]
    subject: String,
    /// The text.
    #[serde(default)]
    markdown: String,
}

/// The message that was queued.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Queued {
    /// Its id.
    id: String,
}

/// Sends a message through a listener, as `postern send` does: by the same rules as everybody's.
#[utoipa::path(post, path = "/api/v1/messages", tag = "messages", request_body = SendRequest,
    responses(
        (status = 202, description = "It is queued", body = Queued),
        (status = 422, description = "The listener refuses it", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn send(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "send", "");
    let asked: SendRequest = params::json(request).await?;
    app.audit.ready().await?;
    let mail = NewMail {
        from: asked.from,
        to: asked.to,
        cc: asked.cc,
        bcc: asked.bcc,
        subject: asked.subject,
        markdown: asked.markdown,
    };
    let sent = app.host.send(mail).await;
    let (object, result) = match &sent {
        Ok(id) => (format!("message {id}"), "ok".to_owned()),
        Err(NotSent::Unfit(why) | NotSent::Refused(why) | NotSent::Unreachable(why)) => {
            ("a message".to_owned(), why.clone())
        }
    };
    app.audit
        .write(AuditRow {
            object,
            result,
            ..row
        })
        .await?;
    match sent {
        Ok(id) => Ok((StatusCode::ACCEPTED, Json(Queued { id })).into_response()),
        Err(NotSent::Unfit(why)) => Err(ApiError::bad(why)),
        Err(NotSent::Refused(why)) => Err(ApiError::coded(
            StatusCode::UNPROCESSABLE_ENTITY,
            "refused",
            why,
        )),
        Err(NotSent::Unreachable(why)) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}
