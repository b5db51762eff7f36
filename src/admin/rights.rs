//! Who may ask what: every path, with the least role of each method. Whoever adds a path adds it here, or nobody reaches it.

use axum::http::Method;

use super::settings::Role;

/// What is needed to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: whoever watches whether it lives knows no password.
    Nothing,
    /// Nothing but to come from the same page.
    SameSite,
    /// This role.
    Role(Role),
}

use Need::{Nothing, SameSite};
use Role::{Admin, Metrics, Operator, Viewer};

const GET: Method = Method::GET;
const POST: Method = Method::POST;

/// By the path as the router has it.
const RIGHTS: &[(&str, &[(Method, Need)])] = &[
    ("/livez", &[(GET, Nothing)]),
    ("/readyz", &[(GET, Nothing)]),
    ("/healthz", &[(GET, Need::Role(Viewer))]),
    ("/metrics", &[(GET, Need::Role(Metrics))]),
    ("/openapi.json", &[(GET, Need::Role(Viewer))]),
    (
        "/",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Operator))],
    ),
    (
        "/messages",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Operator))],
    ),
    (
        "/messages/{id}",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Operator))],
    ),
    ("/connectors", &[(GET, Need::Role(Viewer))]),
    (
        "/connectors/{name}",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Operator))],
    ),
    (
        "/devices",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Admin))],
    ),
    (
        "/devices/{address}",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Operator))],
    ),
    ("/devices/adopt", &[(POST, Need::Role(Admin))]),
    ("/refused", &[(GET, Need::Role(Viewer))]),
    ("/captures/{id}", &[(GET, Need::Role(Operator))]),
    (
        "/incidents",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Operator))],
    ),
    (
        "/incidents/{id}",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Operator))],
    ),
    (
        "/connectors/new",
        &[(GET, Need::Role(Admin)), (POST, Need::Role(Admin))],
    ),
    (
        "/connectors/{name}/edit",
        &[(GET, Need::Role(Admin)), (POST, Need::Role(Admin))],
    ),
    ("/try", &[(GET, Need::Role(Viewer))]),
    (
        "/config",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Operator))],
    ),
    (
        "/proposals/{id}",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Admin))],
    ),
    ("/audit", &[(GET, Need::Role(Admin))]),
    ("/login", &[(GET, SameSite), (POST, SameSite)]),
    ("/logout", &[(POST, SameSite)]),
    ("/assets/{name}", &[(GET, SameSite)]),
    ("/api/v1/needs", &[(GET, Need::Role(Viewer))]),
    ("/api/v1/status", &[(GET, Need::Role(Viewer))]),
    (
        "/api/v1/messages",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Operator))],
    ),
    ("/api/v1/messages/{id}", &[(GET, Need::Role(Viewer))]),
    ("/api/v1/messages/{id}/events", &[(GET, Need::Role(Viewer))]),
    ("/api/v1/messages/{id}/content", &[(GET, Need::Role(Admin))]),
    ("/api/v1/messages/retry", &[(POST, Need::Role(Operator))]),
    ("/api/v1/messages/hold", &[(POST, Need::Role(Operator))]),
    ("/api/v1/messages/release", &[(POST, Need::Role(Operator))]),
    ("/api/v1/messages/fail", &[(POST, Need::Role(Operator))]),
    ("/api/v1/messages/drop", &[(POST, Need::Role(Operator))]),
    ("/api/v1/connectors", &[(GET, Need::Role(Viewer))]),
    ("/api/v1/connectors/{name}", &[(GET, Need::Role(Viewer))]),
    (
        "/api/v1/connectors/{name}/test",
        &[(POST, Need::Role(Operator))],
    ),
    (
        "/api/v1/connectors/{name}/stop",
        &[(POST, Need::Role(Operator))],
    ),
    (
        "/api/v1/connectors/{name}/start",
        &[(POST, Need::Role(Operator))],
    ),
    ("/api/v1/explain", &[(GET, Need::Role(Viewer))]),
    ("/api/v1/devices", &[(GET, Need::Role(Viewer))]),
    ("/api/v1/devices/{address}", &[(GET, Need::Role(Viewer))]),
    ("/api/v1/devices/adopt", &[(POST, Need::Role(Admin))]),
    ("/api/v1/refused", &[(GET, Need::Role(Viewer))]),
    (
        "/api/v1/learning",
        &[
            (GET, Need::Role(Viewer)),
            (POST, Need::Role(Admin)),
            (Method::DELETE, Need::Role(Admin)),
        ],
    ),
    (
        "/api/v1/captures",
        &[(GET, Need::Role(Operator)), (POST, Need::Role(Operator))],
    ),
    ("/api/v1/captures/{id}", &[(GET, Need::Role(Operator))]),
    ("/api/v1/config", &[(GET, Need::Role(Viewer))]),
    ("/api/v1/config/check", &[(POST, Need::Role(Admin))]),
    (
        "/api/v1/proposals",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Admin))],
    ),
    ("/api/v1/proposals/{id}", &[(GET, Need::Role(Viewer))]),
    ("/api/v1/proposals/{id}/apply", &[(POST, Need::Role(Admin))]),
    ("/api/v1/proposals/{id}/drop", &[(POST, Need::Role(Admin))]),
    // A connector may be called so.
    (
        "/api/v1/connectors/test",
        &[(GET, Need::Role(Viewer)), (POST, Need::Role(Admin))],
    ),
    ("/api/v1/incidents", &[(GET, Need::Role(Viewer))]),
    ("/api/v1/incidents/{id}", &[(GET, Need::Role(Viewer))]),
    (
        "/api/v1/incidents/{id}/ack",
        &[(POST, Need::Role(Operator))],
    ),
    (
        "/api/v1/notify/{name}/test",
        &[(POST, Need::Role(Operator))],
    ),
    ("/api/v1/audit", &[(GET, Need::Role(Admin))]),
    ("/api/v1/reload", &[(POST, Need::Role(Operator))]),
    ("/api/v1/services", &[(GET, Need::Role(Viewer))]),
    ("/api/v1/events", &[(GET, Need::Role(Viewer))]),
];

/// What this method needs on this path; `Err`: there is no such method there.
pub(super) fn needed(path: &str, method: &Method) -> Result<Need, ()> {
    let asked = if *method == Method::HEAD {
        &GET
    } else {
        method
    };
    let of = RIGHTS.iter().find(|(known, _)| *known == path);
    let (_, methods) = of.ok_or(())?;
    let found = methods.iter().find(|(known, _)| known == asked);
    found.map(|(_, need)| *need).ok_or(())
}

/// The methods of a path, as `Allow` has them (RFC 9110 §10.2.1); none: there is no such path.
pub(super) fn allowed(path: &str) -> String {
    let of = RIGHTS.iter().find(|(known, _)| *known == path);
    let mut all = Vec::new();
    for (method, _) in of.into_iter().flat_map(|(_, methods)| *methods) {
        all.push(method.as_str());
        if *method == GET {
            all.push(Method::HEAD.as_str());
        }
    }
    all.join(", ")
}

/// Whether a path answers programs, and not people.
pub(super) fn is_for_programs(path: &str) -> bool {
    path.starts_with("/api/")
        || ["/metrics", "/healthz", "/livez", "/readyz", "/openapi.json"].contains(&path)
}

/// Every path with its methods, for the tests.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static Method, Need)> {
    RIGHTS.iter().flat_map(|(path, methods)| {
        methods
            .iter()
            .map(move |(method, need)| (*path, method, *need))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_stands_once_and_programs_have_their_own() {
        let mut seen = std::collections::BTreeSet::new();
        for (path, method, need) in all() {
            assert!(
                seen.insert(format!("{method} {path}")),
                "{method} {path} twice"
            );
            assert_eq!(needed(path, method), Ok(need));
            if path.starts_with("/api/") {
                assert!(matches!(need, Need::Role(role) if role >= Viewer), "{path}");
                assert!(is_for_programs(path));
            }
            if *method != GET {
                assert_ne!(need, Nothing, "{method} {path} changes something");
            }
        }
        assert_eq!(
            needed("/api/v1/status", &Method::HEAD),
            Ok(Need::Role(Viewer))
        );
        assert_eq!(needed("/api/v1/status", &POST), Err(()));
        assert_eq!(needed("/nothing", &GET), Err(()));
    }
}
