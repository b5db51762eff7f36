//! `/devices`, `/refused`: who connects, and what was refused.

use std::{net::IpAddr, time::SystemTime};

use axum::{
    Extension, Json,
    extract::{RawQuery, Request, State},
    http::StatusCode,
};
use ipnet::IpNet;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    part::{ListPart, Named, TheApp},
    proposals,
};
use crate::{
    admin::{
        adoption::{adopted, notes},
        app::App,
        caller::Caller,
        gate::row,
        params::{self, Params},
        problem::{ApiError, ProblemDetails},
    },
    listener::{devices::DeviceFilter, refused::RefusedRow},
    mail::{
        text::shown_to,
        time::{from_micros, micros},
    },
    view::ProposalView,
    window::{audit::AuditRow, devices::DeviceRow},
};

/// Addresses that are adopted at once.
const ADOPTED: usize = 500;

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
    // A device that is many addresses stands under its network.
    let network: Option<IpNet> = address.and_then(|address| address.parse().ok());
    let is_of = |row: &RefusedRow, address: &str| {
        row.address == address
            || network
                .zip(row.address.parse::<IpAddr>().ok())
                .is_some_and(|(network, peer)| network.contains(&peer))
    };
    let takes = |row: &RefusedRow| {
        (client.is_none() || row.client.as_deref() == client)
            && address.is_none_or(|address| is_of(row, address))
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
    // A stranger then may be in a client by now.
    let rules = listeners.rules();
    let known = |row: &RefusedRow| {
        let peer = row.address.parse().ok()?;
        rules.policy.client(peer).map(|client| client.name.clone())
    };
    let items = found.into_iter().map(|(_, row)| RefusedRow {
        client: row.client.clone().or_else(|| known(&row)),
        ..row
    });
    Ok(ListPart {
        items: items.collect(),
        next,
    })
}

/// Who is taken in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct AdoptRequest {
    /// Their addresses, at most 500.
    pub(in crate::admin) addresses: Vec<String>,
    /// Of the `[[client]]`; where there are several `-2`, `-3` follows it.
    pub(in crate::admin) name: String,
}

/// Proposes a `[[client]]` for those with the same senders, with what they needed.
#[utoipa::path(post, path = "/api/v1/devices/adopt", tag = "devices",
    request_body = AdoptRequest,
    responses(
        (status = 201, body = ProposalView),
        (status = 422, description = "The result is no configuration", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn adopt(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(StatusCode, Json<ProposalView>), ApiError> {
    let row = row(&caller, &request, "propose", "");
    let wanted: AdoptRequest = params::json(request).await?;
    let kept = take_in(&app, &wanted, row).await?;
    Ok((StatusCode::CREATED, Json(kept)))
}

/// The same for a page.
pub(in crate::admin) async fn take_in(
    app: &App,
    wanted: &AdoptRequest,
    row: AuditRow,
) -> Result<ProposalView, ApiError> {
    if wanted.addresses.is_empty() || wanted.addresses.len() > ADOPTED {
        return Err(ApiError::bad("`addresses` takes 1 to 500 addresses"));
    }
    let devices = wanted.addresses.iter().map(|address| one(app, address));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    if let Some(known) = devices.iter().find(|device| device.client.is_some()) {
        return Err(ApiError::bad(format!(
            "{} is in [[client]] {:?} already",
            known.address,
            known.client.as_deref().unwrap_or_default()
        )));
    }
    let base = app.host.config().await.sha256.unwrap_or_default();
    let changes = adopted(&base, &devices, &wanted.name);
    let changes = serde_json::from_value(changes)
        .map_err(|error| ApiError::bad(format!("no change can be made of it: {error}")))?;
    proposals::keep_with(app, row, changes, notes(&devices)).await
}
