//! What a program is told when it is refused (RFC 9457), and a person when a page is.

use std::ops::{Deref, DerefMut};

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;

use super::host::ChangeRefused;
use crate::{mail::text, view, window::WindowError};

/// A refusal: nothing was changed.
#[derive(Debug, Clone)]
pub(super) struct ApiError(Box<ProblemDetails>);

impl Deref for ApiError {
    type Target = ProblemDetails;
    fn deref(&self) -> &ProblemDetails {
        &self.0
    }
}

impl DerefMut for ApiError {
    fn deref_mut(&mut self) -> &mut ProblemDetails {
        &mut self.0
    }
}

/// What is said of it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct ProblemDetails {
    /// `about:blank`: the code says which problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: String,
    /// The status.
    pub(super) status: u16,
    /// What is wrong, and which rule says so.
    pub(super) detail: String,
    /// A word for programs.
    pub(super) code: String,
    /// Of the configuration: what is wrong with it, where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problems: Option<Vec<view::Problem>>,
    /// Seconds to wait.
    #[serde(skip)]
    pub(super) retry_after: Option<u64>,
    /// The methods that there are.
    #[serde(skip)]
    pub(super) allowed: Option<String>,
    /// How to log in.
    #[serde(skip)]
    pub(super) is_challenge: bool,
}

impl ApiError {
    /// With the status in words as its code.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Refused");
        let code = title.to_ascii_lowercase().replace([' ', '-'], "_");
        Self::coded(status, &code, detail)
    }

    /// With a code of its own.
    pub(super) fn coded(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        Self(Box::new(ProblemDetails {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Refused").to_owned(),
            status: status.as_u16(),
            detail: text::shown_lines(&detail).into_owned(),
            code: code.to_owned(),
            problems: None,
            retry_after: None,
            allowed: None,
            is_challenge: false,
        }))
    }

    /// With what is wrong with the configuration.
    pub(super) fn with(mut self, problems: Vec<view::Problem>) -> Self {
        self.problems = (!problems.is_empty()).then_some(problems);
        self
    }

    /// All of it for a person: what is wrong with the configuration, too.
    pub(super) fn said(&self) -> String {
        let mut said = self.detail.clone();
        for problem in self.problems.iter().flatten() {
            said.push('\n');
            said.push_str(&problem.message);
        }
        said
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn unknown_key(key: &str) -> Self {
        let detail = format!("there is no key {:?} here", text::shown_to(key, 100));
        Self::coded(StatusCode::BAD_REQUEST, "unknown_key", detail)
    }

    pub(super) fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }
}

impl From<ChangeRefused> for ApiError {
    fn from(refused: ChangeRefused) -> Self {
        let status =
            StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::coded(status, refused.code, refused.detail).with(refused.problems)
    }
}

impl From<WindowError> for ApiError {
    fn from(error: WindowError) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("this cannot be written down: {error}"),
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&*self).unwrap_or_default();
        let mut response = (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allowed) = self.allowed.as_deref().map(HeaderValue::from_str) {
            headers.extend(allowed.ok().map(|allowed| (header::ALLOW, allowed)));
        }
        if self.is_challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}
