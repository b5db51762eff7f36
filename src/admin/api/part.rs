//! What every call is given, and what every list is told in: parts of it, each with the way to the next.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::app::App;

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
