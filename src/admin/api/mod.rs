//! What programs ask: each call is a function with its own words for the description (OpenAPI 3.1), which is made of them.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::get,
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    app::App,
    gate::gate,
    pages::{self, shell::dress},
    problem::{ApiError, ProblemDetails},
};

pub(super) mod audit;
pub(super) mod captures;
pub(super) mod configuration;
pub(super) mod connectors;
pub(super) mod devices;
pub(super) mod drafts;
mod events;
pub(super) mod gateway;
mod health;
pub(super) mod incidents;
pub(super) mod learning;
pub(super) mod messages;
pub(super) mod part;
mod pieces;
pub(super) mod proposals;
mod send;
pub(super) mod verbs;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Postern",
        description = "The interface of a Postern gateway for programs and its own pages.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(ProblemDetails)),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi
            .components
            .get_or_insert_with(Default::default)
            .add_security_scheme("token", scheme);
    }
}

/// Everything that is answered.
pub(super) fn router(app: &Arc<App>) -> Router {
    let (router, description) = described().split_for_parts();
    let description = Arc::new(description);
    let show = move || {
        let description = Arc::clone(&description);
        async move { Json((*description).clone()) }
    };
    router
        .route("/openapi.json", get(show))
        .merge(pages::router())
        .fallback(|| async { ApiError::not_found("there is nothing here") })
        .layer(from_fn_with_state(Arc::clone(app), survive))
        .layer(from_fn_with_state(Arc::clone(app), gate))
        .layer(from_fn_with_state(Arc::clone(app), dress))
        .with_state(Arc::clone(app))
}

fn described() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(gateway::status))
        .routes(routes!(gateway::needs))
        .routes(routes!(gateway::explain))
        .routes(routes!(gateway::reload))
        .routes(routes!(gateway::services))
        .routes(routes!(messages::list, send::send))
        .routes(routes!(verbs::retry))
        .routes(routes!(verbs::hold))
        .routes(routes!(verbs::release))
        .routes(routes!(verbs::fail))
        .routes(routes!(verbs::discard))
        .routes(routes!(messages::show))
        .routes(routes!(messages::events))
        .routes(routes!(messages::content))
        .routes(routes!(connectors::list))
        .routes(routes!(connectors::show))
        .routes(routes!(connectors::test))
        .routes(routes!(connectors::stop))
        .routes(routes!(connectors::start))
        .routes(routes!(drafts::show, drafts::test))
        .routes(routes!(configuration::show))
        .routes(routes!(devices::list))
        .routes(routes!(devices::show))
        .routes(routes!(devices::adopt))
        .routes(routes!(devices::refused))
        .routes(routes!(learning::show, learning::begin, learning::end))
        .routes(routes!(captures::list, captures::begin))
        .routes(routes!(captures::show))
        .routes(routes!(proposals::check))
        .routes(routes!(proposals::list, proposals::propose))
        .routes(routes!(proposals::show))
        .routes(routes!(proposals::apply))
        .routes(routes!(proposals::discard))
        .routes(routes!(incidents::list))
        .routes(routes!(incidents::show))
        .routes(routes!(incidents::acknowledge))
        .routes(routes!(incidents::test_channel))
        .routes(routes!(audit::list))
        .routes(routes!(events::stream))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::healthz))
        .routes(routes!(health::metrics))
}

/// A panic is an answer, too.
/// What is begun is done, too, when whoever asked for it has gone.
async fn survive(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (answer, answered) = tokio::sync::oneshot::channel();
    app.spawn(async move {
        let _ = answer.send(next.run(request).await);
    });
    match answered.await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "a fault of this program; the log has it",
        )
        .into_response(),
    }
}
