//! What programs ask: each call is a function with its own words for the description (OpenAPI 3.1), which is made of them.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{get, on},
};
use utoipa::{
    Modify, OpenApi, Path as _,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::{PathItemExt as _, paste, router::OpenApiRouter, routes};

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
    let show = || async { Json(described()) };
    served()
        .route("/openapi.json", get(show))
        .merge(pages::router())
        .fallback(|| async { ApiError::not_found("there is nothing here") })
        .layer(from_fn_with_state(Arc::clone(app), survive))
        .layer(from_fn_with_state(Arc::clone(app), gate))
        .layer(from_fn_with_state(Arc::clone(app), dress))
        .with_state(Arc::clone(app))
}

/// Writes down every call once, for both who serves it and who describes it. To serve it takes no description: made at the start it
/// would leave two megabytes of every gateway's memory in pieces.
macro_rules! calls {
    ($($module:ident::$handler:ident,)*) => {
        fn served() -> Router<Arc<App>> {
            let mut router = Router::new();
            $(
                // What `utoipa::path` made of the words above the function.
                let (path, methods) = paste! {
                    ($module::[<__path_ $handler>]::path(), $module::[<__path_ $handler>]::methods())
                };
                for method in &methods {
                    router = router.route(&path, on(method.to_method_filter(), $module::$handler));
                }
            )*
            router
        }

        fn described() -> utoipa::openapi::OpenApi {
            OpenApiRouter::<Arc<App>>::with_openapi(Description::openapi())
                $(.routes(routes!($module::$handler)))*
                .into_openapi()
        }
    };
}

calls! {
    gateway::status,
    gateway::needs,
    gateway::explain,
    gateway::reload,
    gateway::services,
    messages::list,
    send::send,
    verbs::retry,
    verbs::hold,
    verbs::release,
    verbs::fail,
    verbs::discard,
    messages::show,
    messages::events,
    messages::content,
    connectors::list,
    connectors::show,
    connectors::test,
    connectors::stop,
    connectors::start,
    drafts::show,
    drafts::test,
    configuration::show,
    devices::list,
    devices::show,
    devices::adopt,
    devices::refused,
    learning::show,
    learning::begin,
    learning::end,
    captures::list,
    captures::begin,
    captures::show,
    proposals::check,
    proposals::list,
    proposals::propose,
    proposals::show,
    proposals::apply,
    proposals::discard,
    incidents::list,
    incidents::show,
    incidents::acknowledge,
    incidents::test_channel,
    audit::list,
    events::stream,
    health::livez,
    health::readyz,
    health::healthz,
    health::metrics,
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
