//! What every call is given, and what every list is told in: parts of it, each with the way to the next.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::{app::App, problem::ApiError};

/// What every handler is given.
pub(in crate::admin) type TheApp = State<Arc<App>>;

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct ListPart<T> {
    /// In the order of the list.
    pub(in crate::admin) items: Vec<T>,
    /// `cursor` of the next part; null: this was the last.
    pub(in crate::admin) next: Option<String>,
}

/// The one part of a path that is not fixed.
pub(in crate::admin) struct Named(pub(in crate::admin) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let found = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = found.map_err(|_| ApiError::not_found("there is nothing of that name"))?;
        Ok(Self(name))
    }
}
