//! `/devices`, `/refused`: who connects, and what was refused.

use std::time::SystemTime;

use axum::{
    Json,
    extract::{RawQuery, State},
};

use super::part::{ListPart, Named, TheApp};
use crate::{
    admin::{
        app::App,
        params::Params,
        problem::{ApiError, ProblemDetails},
    },
    listener::{devices::DeviceFilter, refused::RefusedRow},
    mail::{
        text::shown_to,
        time::{from_micros, micros},
    },
    window::devices::DeviceRow,
};

/// Everybody who has connected, the latest first.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices",
    params(
        ("client" = Option<String>, Query, description = "In this [[client]]"),
        ("refused" = Option<bool>, Query, description = "Something of it was refused, or nothing"),
        ("limit" = Option<usize>, Query, description = "At most 500"),
        ("cursor" = Option<String>, Query, description = "Of the part before"),
    ),
    responses(
        (status = 200, body = ListPart<DeviceRow>),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<ListPart<DeviceRow>>, ApiError> {
    let params = Params::of(query.as_deref(), &["client", "refused", "limit", "cursor"])?;
    part(&app, &params).map(Json)
}

/// A part of the devices.
pub(in crate::admin) fn part(app: &App, params: &Params) -> Result<ListPart<DeviceRow>, ApiError> {
    let filter = DeviceFilter {
        client: params.get("client").map(str::to_owned),
        refused: params.parsed("refused", "true or false")?,
        behind: params.get("cursor").map(read_cursor).transpose()?,
    };
    let (items, more) = app.host.listeners().devices.list(&filter, params.limit()?);
    let cursor = |row: &DeviceRow| format!("{}.{}", micros(row.last_seen), row.address);
    let next = items.last().filter(|_| more).map(cursor);
    Ok(ListPart { items, next })
}

fn read_cursor(text: &str) -> Result<(SystemTime, String), ApiError> {
    let parts = text.split_once('.');
    let found = parts.and_then(|(at, address)| Some((at.parse().ok()?, address.to_owned())));
    let (at, address) = found.ok_or_else(bad_cursor)?;
    Ok((from_micros(at), address))
}

fn bad_cursor() -> ApiError {
    ApiError::bad("`cursor` is not one that was given")
}

/// One of them.
#[utoipa::path(get, path = "/api/v1/devices/{address}", tag = "devices",
    params(("address" = String, Path, description = "Its address")),
    responses(
        (status = 200, body = DeviceRow),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(app): TheApp,
    Named(address): Named,
    RawQuery(query): RawQuery,
) -> Result<Json<DeviceRow>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    one(&app, &address).map(Json)
}

/// The device of that address.
pub(in crate::admin) fn one(app: &App, address: &str) -> Result<DeviceRow, ApiError> {
    let found = app.host.listeners().devices.one(address);
    found.ok_or_else(|| {
        ApiError::not_found(format!(
            "nobody has connected from {:?}",
            shown_to(address, 60)
        ))
    })
}

/// What was refused, the latest first; the last 10,000 since the gateway started.
#[utoipa::path(get, path = "/api/v1/refused", tag = "devices",
    params(
        ("client" = Option<String>, Query, description = "Of this [[client]]"),
        ("address" = Option<String>, Query, description = "Of this address"),
        ("limit" = Option<usize>, Query, description = "At most 500"),
        ("cursor" = Option<String>, Query, description = "Of the part before"),
    ),
    responses(
        (status = 200, body = ListPart<RefusedRow>),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn refused(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<ListPart<RefusedRow>>, ApiError> {
    let params = Params::of(query.as_deref(), &["client", "address", "limit", "cursor"])?;
    refusals(&app, &params).map(Json)
}

/// A part of the refusals.
pub(in crate::admin) fn refusals(
    app: &App,
    params: &Params,
) -> Result<ListPart<RefusedRow>, ApiError> {
    let (client, address) = (params.get("client"), params.get("address"));
    let takes = |row: &RefusedRow| {
        (client.is_none() || row.client.as_deref() == client)
            && address.is_none_or(|address| row.address == address)
    };
    let before = params.parsed("cursor", "one that was given")?;
    let limit = params.limit()?;
    let listeners = app.host.listeners();
    let mut found = listeners.devices.refused.list(takes, before, limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found
        .last()
        .filter(|_| more)
        .map(|(number, _)| number.to_string());
    let items = found.into_iter().map(|(_, row)| row).collect();
    Ok(ListPart { items, next })
}
