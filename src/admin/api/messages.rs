//! `/messages`: where they are, what became of them, and the verbs.

use std::time::{Duration, Instant};

use axum::{
    Extension, Json,
    body::Body,
    extract::{RawQuery, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};

use tokio::sync::mpsc::error::SendTimeoutError;

use super::{
    part::{Named, TheApp},
    pieces::{BodyPiece, GONE_AFTER, Pieces},
};
use crate::{
    admin::{
        app::App,
        caller::Caller,
        gate::row,
        params::Params,
        problem::{ApiError, ProblemDetails},
        settings::{Role, ShownContent},
    },
    mail::{message::MessageId, pattern::Pattern, text::shown_to},
    policy::quota::holder,
    queue::{
        eml::Eml,
        store::{Filter, JobState, Needle, Search, StoreError},
    },
    route::RouteName,
    view,
    window::audit::AuditRow,
};

const KEYS: &[&str] = &[
    "state",
    "route",
    "connector",
    "client",
    "quota",
    "sender",
    "recipient",
    "text",
    "since",
    "until",
    "all",
    "limit",
    "cursor",
];
/// A search ends then with what it has found.
const PATIENCE: Duration = Duration::from_millis(250);

/// Messages, newest first: all but those that are done.
#[utoipa::path(get, path = "/api/v1/messages", tag = "messages",
    params(
        ("state" = Option<String>, Query, description = "waiting, sending, held, failed or done; several: with commas, or given again"),
        ("route" = Option<String>, Query, description = "On this route"),
        ("connector" = Option<String>, Query, description = "That wait for this connector, or may go by it"),
        ("client" = Option<String>, Query, description = "Sent by this [[client]]"),
        ("quota" = Option<String>, Query, description = "Held by this [[quota]]"),
        ("sender" = Option<String>, Query, description = "From this address or pattern"),
        ("recipient" = Option<String>, Query, description = "To this address or pattern"),
        ("text" = Option<String>, Query, description = "With this in id, sender, recipients or replies; in the subject where it is shown"),
        ("since" = Option<String>, Query, description = "Accepted then or later, RFC 3339"),
        ("until" = Option<String>, Query, description = "Accepted then or earlier, RFC 3339"),
        ("all" = Option<bool>, Query, description = "Also those that are done"),
        ("limit" = Option<usize>, Query, description = "At most so many, up to 500"),
        ("cursor" = Option<String>, Query, description = "`next` of the part before"),
    ),
    responses(
        (status = 200, body = view::FoundMessages),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<view::FoundMessages>, ApiError> {
    let params = Params::of(query.as_deref(), KEYS)?;
    find(&app, &caller, &params).await.map(Json)
}

/// A part of the list that is asked for.
pub(in crate::admin) async fn find(
    app: &App,
    caller: &Caller,
    params: &Params,
) -> Result<view::FoundMessages, ApiError> {
    let search = Search {
        filter: filter(app, caller, params)?,
        from: params.parsed("cursor", "what `next` of the part before was")?,
        limit: params.limit()?,
        deadline: Some(Instant::now() + PATIENCE),
    };
    Ok(app.host.search(&search).await?)
}

/// The filter that a query says. Subjects are looked at where whoever asks may see them.
pub(in crate::admin) fn filter(
    app: &App,
    caller: &Caller,
    params: &Params,
) -> Result<Filter, ApiError> {
    let mut states = Vec::new();
    for word in params.all("state").flat_map(|words| words.split(',')) {
        let known = JobState::ALL
            .into_iter()
            .find(|state| state.as_str() == word);
        states.push(known.ok_or_else(|| {
            ApiError::bad("`state` takes waiting, sending, held, failed and done")
        })?);
    }
    let is_all = match params.get("all") {
        None | Some("false" | "0") => false,
        Some("true" | "1" | "on") => true,
        Some(_) => return Err(ApiError::bad("`all` takes true or false")),
    };
    if states.is_empty() && !is_all {
        states = JobState::NOT_DONE.to_vec();
    }
    let pattern = |key: &str| {
        let read = |text: &str| {
            Pattern::parse(text).map_err(|why| ApiError::bad(format!("`{key}`: {why}")))
        };
        params.get(key).map(read).transpose()
    };
    Ok(Filter {
        states,
        sender: pattern("sender")?,
        recipient: pattern("recipient")?,
        route: params.get("route").map(RouteName::from),
        connector: params
            .get("connector")
            .map(|name| app.host.of_connector(name)),
        client: params.get("client").map(str::to_owned),
        held_by: params.get("quota").map(holder),
        text: params.get("text").map(Needle::new),
        since: params.time("since")?,
        older: params.time("until")?,
        subjects: sees_subjects(app, caller),
        ..Filter::default()
    })
}

/// The subject of a message, to be read, where whoever asks may see it and the message is still kept.
pub(in crate::admin) async fn subject(
    app: &App,
    caller: &Caller,
    id: MessageId,
) -> Result<Option<String>, ApiError> {
    if !sees_subjects(app, caller) {
        return Ok(None);
    }
    let search = Search {
        filter: Filter {
            subjects: true,
            ..Filter::of(id)
        },
        limit: 1,
        deadline: Some(Instant::now() + PATIENCE),
        ..Search::default()
    };
    let found = app.host.search(&search).await?;
    Ok(found.items.into_iter().find_map(|item| item.subject))
}

fn sees_subjects(app: &App, caller: &Caller) -> bool {
    let content = app.settings().content;
    content != ShownContent::None && caller.role >= Role::Operator
}

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
    Named(id): Named,
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
    Named(id): Named,
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
    Named(id): Named,
    request: Request,
) -> Result<Response, ApiError> {
    Params::of(request.uri().query(), &[])?;
    let row = row(&caller, &request, "content", "shown");
    let mut eml = open(&app, read_id(&id)?, row).await?;
    let (pieces, body) = tokio::sync::mpsc::channel::<BodyPiece>(2);
    app.spawn(async move {
        // A reader who is slow is waited for in this task alone; what cannot be read on is broken off.
        while let Some(piece) = eml.next().await.transpose() {
            let is_last = piece.is_err();
            let sent = pieces.send_timeout(piece, GONE_AFTER).await;
            if let Err(SendTimeoutError::Timeout(_)) = &sent {
                let _ = pieces.try_send(Err(std::io::ErrorKind::TimedOut.into()));
            }
            if is_last || sent.is_err() {
                return;
            }
        }
    });
    let mut response = Body::new(Pieces(body)).into_response();
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
