//! What is done to messages: `retry`, `hold`, `release`, `fail`, `drop`; by ids, or by a filter with the number that it takes.

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    messages::{filter, read_id},
    part::TheApp,
};
use crate::{
    admin::{
        app::App,
        caller::Caller,
        gate::row,
        params::{self, Params},
        problem::{ApiError, ProblemDetails},
    },
    queue::store::{Commanded, Filter, Verb},
    window::audit::AuditRow,
};

/// Ids of one request.
const IDS: usize = 500;

/// Which messages a verb is for: ids, or a filter with the number that it takes.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Selection {
    /// Messages, at most 500.
    #[serde(default)]
    ids: Option<Vec<String>>,
    /// The keys of the list.
    #[serde(default)]
    filter: Option<SelectionFilter>,
    /// How many messages the filter takes: another number, and nothing is done.
    #[serde(default)]
    expect: Option<u64>,
}

/// The keys of the list.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SelectionFilter {
    state: Option<String>,
    route: Option<String>,
    connector: Option<String>,
    client: Option<String>,
    quota: Option<String>,
    sender: Option<String>,
    recipient: Option<String>,
    text: Option<String>,
    since: Option<String>,
    until: Option<String>,
    all: Option<bool>,
}

impl SelectionFilter {
    fn params(self) -> Params {
        let all = self.all.map(|all| all.to_string());
        let pairs = [
            ("state", self.state),
            ("route", self.route),
            ("connector", self.connector),
            ("client", self.client),
            ("quota", self.quota),
            ("sender", self.sender),
            ("recipient", self.recipient),
            ("text", self.text),
            ("since", self.since),
            ("until", self.until),
            ("all", all),
        ];
        Params::given(
            pairs
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?))),
        )
    }
}

/// How many messages a verb has taken.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Count {
    /// So many.
    pub(in crate::admin) count: u64,
}

async fn verb(
    app: &App,
    caller: &Caller,
    request: Request,
    verb: Verb,
) -> Result<Json<Count>, ApiError> {
    let row = row(caller, &request, &verb.to_string(), "");
    let selection: Selection = params::json(request).await?;
    let (filter, expect) = match (selection.ids, selection.filter) {
        (Some(ids), None) => {
            if ids.is_empty() || ids.len() > IDS {
                return Err(ApiError::bad("`ids` takes 1 to 500 ids"));
            }
            let ids = ids.iter().map(|id| read_id(id)).collect::<Result<_, _>>()?;
            (
                Filter {
                    ids,
                    ..Filter::default()
                },
                selection.expect,
            )
        }
        (None, Some(filter)) => {
            let filter = filter_of(app, caller, filter)?;
            let Some(expect) = selection.expect else {
                return Err(expect_needed());
            };
            (filter, Some(expect))
        }
        _ => return Err(ApiError::bad("the body has either `ids` or `filter`")),
    };
    carry_out(app, row, filter, &verb, expect).await.map(Json)
}

fn filter_of(app: &App, caller: &Caller, given: SelectionFilter) -> Result<Filter, ApiError> {
    filter(app, caller, &given.params())
}

fn expect_needed() -> ApiError {
    let detail = "a filter needs `expect`: how many messages it takes";
    ApiError::coded(StatusCode::BAD_REQUEST, "expect_needed", detail)
}

/// The filter as the verb means it.
fn meant(filter: Filter, verb: &Verb) -> Filter {
    match verb {
        // What a failed report tells is old news, unless it is asked for by its name.
        Verb::Retry => Filter {
            but_failed_reports: filter.ids.is_empty() && filter.sender.is_none(),
            ..filter
        },
        _ => filter,
    }
}

/// How many it would take now.
pub(in crate::admin) async fn count(
    app: &App,
    filter: &Filter,
    verb: &Verb,
) -> Result<u64, ApiError> {
    let filter = meant(filter.clone(), verb);
    // Nobody has so many: nothing is done.
    let counted = app.host.command(&filter, verb, Some(u64::MAX)).await?;
    Ok(counted.count())
}

/// Does it, and writes down that it was done.
pub(in crate::admin) async fn carry_out(
    app: &App,
    row: AuditRow,
    filter: Filter,
    verb: &Verb,
    expect: Option<u64>,
) -> Result<Count, ApiError> {
    app.audit.ready().await?;
    let filter = meant(filter, verb);
    let done = app.host.command(&filter, verb, expect).await?;
    let object = match filter.ids.as_slice() {
        [] => "messages by a filter".to_owned(),
        [one] => format!("message {one}"),
        all => format!("{} messages", all.len()),
    };
    let result = match done {
        Commanded::Taken(count) => format!("{count} taken"),
        Commanded::Unexpected(count) => format!("refused: {count} would have been taken"),
    };
    app.audit
        .write(AuditRow {
            object,
            result,
            ..row
        })
        .await?;
    match done {
        Commanded::Taken(count) => Ok(Count { count }),
        Commanded::Unexpected(count) => Err(ApiError::coded(
            StatusCode::CONFLICT,
            "count_changed",
            format!("nothing was done: it would take {count} messages now"),
        )),
    }
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident $path:literal $verb:expr;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(post, path = $path, tag = "messages", request_body = Selection,
            responses(
                (status = 200, body = Count),
                (status = 409, description = "Another number would be taken", body = ProblemDetails, content_type = "application/problem+json"),
                (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
                (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
            ))]
        pub(super) async fn $name(
            State(app): TheApp,
            Extension(caller): Extension<Caller>,
            request: Request,
        ) -> Result<Json<Count>, ApiError> {
            verb(&app, &caller, request, $verb).await
        }
    )*};
}

verbs! {
    /// Tries them again now; also brings back failed recipients, and tries closed and paused connectors again.
    retry "/api/v1/messages/retry" Verb::Retry;
    /// Does not try them until they are released.
    hold "/api/v1/messages/hold" Verb::Hold;
    /// Undoes hold.
    release "/api/v1/messages/release" Verb::Release;
    /// Gives them up, without a bounce.
    fail "/api/v1/messages/fail" Verb::Fail;
    /// Deletes them, body included; the history keeps a line.
    discard "/api/v1/messages/drop" Verb::Drop;
}
