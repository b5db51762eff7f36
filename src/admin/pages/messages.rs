//! The page `/messages`: where they are, and the verbs for those that are ticked or for all of a filter.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    response::Response,
};
use form_urlencoded::Serializer;

use super::{
    shell::{shown, shown_with},
    templates::{FilterForm, Frame, MessagesPage},
    verbs::{Wish, carry_out},
};
use crate::{
    admin::{
        api::messages::{filter, find, read_id},
        app::App,
        caller::Caller,
        gate::row,
        params::Params,
        problem::ApiError,
    },
    queue::store::Filter,
};

/// The keys of a filter.
const KEYS: [&str; 11] = [
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
];

fn known() -> Vec<&'static str> {
    let mut known = KEYS.to_vec();
    known.extend(["cursor", "done"]);
    known
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &known())?;
    let frame = Frame::of(&app, &caller, "messages", "Messages").noticing(&params);
    match page(&app, &caller, frame.clone(), &params).await {
        Ok(page) => Ok(shown(&page)),
        // What cannot be read as a filter is said beside it.
        Err(refusal) if refusal.status == 400 => {
            let frame = Frame {
                alert: Some(refusal.detail.clone()),
                ..frame
            };
            let mut page = page(&app, &caller, frame, &Params::default()).await?;
            page.filters = form(&params);
            Ok(shown_with(&refusal, &page))
        }
        Err(refusal) => Err(refusal),
    }
}

async fn page(
    app: &App,
    caller: &Caller,
    frame: Frame,
    params: &Params,
) -> Result<MessagesPage, ApiError> {
    let found = find(app, caller, params).await?;
    let filters = form(params);
    let next = found.next.as_ref().map(|cursor| {
        let start = if filters.query.is_empty() {
            "?"
        } else {
            &filters.query
        };
        Serializer::for_suffix(start.to_owned(), start.len())
            .append_pair("cursor", cursor)
            .finish()
    });
    let (routes, connectors) = app.host.names();
    Ok(MessagesPage {
        frame,
        entries: found.items,
        routes,
        connectors,
        next,
        cursor: found.next.unwrap_or_default(),
        searched_to: found.searched_to,
        filters,
    })
}

fn form(params: &Params) -> FilterForm {
    let given = |key: &str| params.get(key).unwrap_or_default().to_owned();
    FilterForm {
        state: params
            .all("state")
            .flat_map(|words| words.split(','))
            .map(str::to_owned)
            .collect(),
        route: given("route"),
        connector: given("connector"),
        client: given("client"),
        quota: given("quota"),
        sender: given("sender"),
        recipient: given("recipient"),
        text: given("text"),
        since: given("since"),
        until: given("until"),
        all: params.get("all") == Some("true"),
        query: query(params),
    }
}

/// The filter alone; empty, or with its question mark.
fn query(params: &Params) -> String {
    let mut query = Serializer::for_suffix("?".to_owned(), 1);
    let mut is_empty = true;
    for key in KEYS {
        for value in params.all(key) {
            is_empty = false;
            query.append_pair(key, value);
        }
    }
    if is_empty {
        String::new()
    } else {
        query.finish()
    }
}

/// In words, for the question and the audit.
fn words(params: &Params) -> String {
    let said: Vec<String> = KEYS
        .iter()
        .flat_map(|key| params.all(key).map(move |value| format!("{key} {value}")))
        .collect();
    if said.is_empty() {
        "all messages that are not done".to_owned()
    } else {
        format!("messages with {}", said.join(", "))
    }
}

/// A verb for those that are ticked, or for all of the filter.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let params = Params::of(request.uri().query(), &known())?;
    let row = row(&caller, &request, "", "");
    let sent = Params::form(request).await?;
    let scope = sent.get("scope").unwrap_or("ids");
    let mut fields = vec![("scope", scope.to_owned())];
    let (filter, which) = if scope == "filter" {
        (filter(&app, &caller, &params)?, words(&params))
    } else {
        let mut filter = Filter::default();
        for id in sent.all("id") {
            filter.ids.push(read_id(id)?);
            fields.push(("id", id.to_owned()));
        }
        let ids: Vec<String> = filter.ids.iter().map(ToString::to_string).collect();
        (filter, format!("messages {}", ids.join(", ")))
    };
    if scope != "filter" && filter.ids.is_empty() {
        let refusal =
            ApiError::bad("No message is ticked: tick some, or choose all of this filter.");
        let frame = Frame {
            alert: Some(refusal.detail.clone()),
            ..Frame::of(&app, &caller, "messages", "Messages")
        };
        return Ok(shown_with(
            &refusal,
            &page(&app, &caller, frame, &params).await?,
        ));
    }
    let wish = Wish {
        filter,
        which,
        page: "messages",
        path: format!("/messages{}", query(&params)),
        fields,
    };
    carry_out(&app, &caller, row, &sent, wish).await
}
