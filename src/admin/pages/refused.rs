//! The page `/refused`: what was refused lately, whether it would be now, and the way to take in who it was.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{RawQuery, State},
    response::Response,
};
use form_urlencoded::Serializer;

use super::{
    devices::may_adopt,
    filters,
    shell::{shown, shown_with},
    templates::Frame,
};
use crate::{
    admin::{api::devices::refusals, app::App, caller::Caller, params::Params, problem::ApiError},
    listener::refused::RefusedRow,
};

#[derive(Debug, Template)]
#[template(path = "refused.html")]
struct RefusedPage {
    frame: Frame,
    /// The filter.
    client: String,
    address: String,
    refusals: Vec<RefusedRow>,
    /// The query of the next part.
    next: Option<String>,
    may_adopt: bool,
}

impl RefusedPage {
    /// The query of `/try`, with what is known of it.
    fn query(row: &RefusedRow) -> String {
        let mut query = Serializer::for_suffix("?".to_owned(), 1);
        let sender = row.sender.as_deref().filter(|sender| *sender != "<>");
        let known = [("from", sender), ("to", row.recipient.as_deref())];
        for (key, value) in known {
            if let Some(value) = value {
                query.append_pair(key, value);
            }
        }
        query
            .append_pair("client", &row.address)
            .append_pair("listener", &row.listener)
            .finish()
    }
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["client", "address", "cursor"])?;
    let frame = Frame::of(&app, &caller, "refused", "Refused");
    match page(&app, &caller, frame.clone(), &params) {
        Ok(page) => Ok(shown(&page)),
        Err(refusal) => {
            let frame = Frame {
                alert: Some(refusal.detail.clone()),
                ..frame
            };
            let page = page(&app, &caller, frame, &Params::default())?;
            Ok(shown_with(&refusal, &page))
        }
    }
}

fn page(
    app: &App,
    caller: &Caller,
    frame: Frame,
    params: &Params,
) -> Result<RefusedPage, ApiError> {
    let list = refusals(app, params)?;
    let given = |key: &str| params.get(key).unwrap_or_default().to_owned();
    let next = list.next.map(|next| {
        let mut query = Serializer::for_suffix("?".to_owned(), 1);
        for key in ["client", "address"] {
            if let Some(value) = params.get(key) {
                query.append_pair(key, value);
            }
        }
        query.append_pair("cursor", &next).finish()
    });
    Ok(RefusedPage {
        frame,
        client: given("client"),
        address: given("address"),
        refusals: list.items,
        next,
        may_adopt: may_adopt(app, caller),
    })
}
