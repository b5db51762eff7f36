//! What stands before every answer: Host, login, cross-site, role, in this order; and the headers behind every answer.

use std::sync::Arc;

use axum::{
    extract::{Extension, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Redirect, Response},
};
use form_urlencoded::byte_serialize;

use super::{
    app::App,
    caller::{
        Caller, Peer, Proof, RequestOrigin, Unknown, answers_to, bearer, cookie, cookie_name, hash,
        only,
    },
    problem::ApiError,
    rights::{Need, allowed, is_for_programs, needed},
    settings::{Role, WindowSettings},
};
use crate::window::audit::AuditRow;

/// Nothing from anywhere else, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'";

/// Of every answer.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Under no-referrer a form sends `Origin: null`.
    (header::REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];
/// Of every answer that does not say otherwise.
const STORED: &str = "no-store";

/// The same as lines, for what does not come by here.
pub(super) fn lines() -> String {
    let stored = (header::CACHE_CONTROL, STORED);
    let all = HEADERS.into_iter().chain([stored]);
    all.fold(String::new(), |lines, (name, value)| {
        format!("{lines}{name}: {value}\r\n")
    })
}

/// Asks, and adds the headers.
pub(super) async fn gate(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let given = request.uri().path().to_owned();
    let path = path.map_or_else(|| given.clone(), |path| path.as_str().to_owned());
    let admitted = admit(&app, &peer, &path, &mut request).await;
    let caller = request.extensions().get::<Caller>().cloned();
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(NotAdmitted::Refused(refusal)) => refusal.into_response(),
        Err(NotAdmitted::LogIn(to)) => Redirect::to(&to).into_response(),
    };
    if let Some(caller) = caller {
        // Whoever dresses a refusal wants to know for whom.
        response.extensions_mut().insert(caller);
    }
    app.host.counted_request(response.status().as_u16());
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static(STORED));
    response
}

/// Why a request goes no further.
enum NotAdmitted {
    Refused(ApiError),
    LogIn(String),
}

impl From<ApiError> for NotAdmitted {
    fn from(refusal: ApiError) -> Self {
        Self::Refused(refusal)
    }
}

async fn admit(
    app: &App,
    peer: &Peer,
    path: &str,
    request: &mut Request,
) -> Result<(), NotAdmitted> {
    if app.is_shut() {
        let detail = "the configuration has no [admin] any more";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail).into());
    }
    let settings = app.settings();
    let need = needed(path, request.method());
    let origin = RequestOrigin::of(peer, request.headers(), &settings);
    request.extensions_mut().insert(origin.clone());
    if need == Ok(Need::Nothing) {
        return Ok(());
    }
    let is_scrape = path == "/metrics"
        && origin.ip.is_some_and(|ip| {
            settings
                .metrics
                .iter()
                .any(|net| net.contains(&ip.to_canonical()))
        });
    if !is_scrape {
        is_private(peer, &settings)?;
    }
    is_ours(request, &settings)?;
    if request.method() == Method::OPTIONS {
        // No other site is ever told what it may do here.
        return Err(not_there(path, request).into());
    }
    let known = who(
        app,
        peer,
        &origin,
        request.method(),
        request.headers(),
        path,
        &settings,
    );
    let method = request.method().clone();
    let is_safe = method == Method::GET || method == Method::HEAD;
    if matches!(need, Ok(Need::SameSite)) {
        if !is_safe {
            is_same_site(request.headers(), known.as_ref().ok())?;
        }
        if let Ok(caller) = known {
            request.extensions_mut().insert(caller);
        }
        return Ok(());
    }
    if is_scrape && is_safe {
        return Ok(());
    }
    let caller = match known {
        Ok(caller) => caller,
        Err(why) => {
            if let Some(row) = stranger(why, &origin, request) {
                app.audit.refuse(row).await;
                app.host.counted_login(false);
            }
            return Err(unknown(why, path, request));
        }
    };
    if !is_safe {
        is_same_site(request.headers(), Some(&caller))?;
    }
    request.extensions_mut().insert(caller.clone());
    match need {
        Ok(Need::Role(least)) if caller.role < least => {
            let refusal = ApiError::new(
                StatusCode::FORBIDDEN,
                format!(
                    "this needs the role {}, and {} has {}",
                    least.as_str(),
                    caller.name,
                    caller.role.as_str()
                ),
            );
            app.audit
                .refuse(row(
                    &caller,
                    request,
                    "role",
                    "refused: the role is not enough",
                ))
                .await;
            return Err(refusal.into());
        }
        // What has no line in `rights.rs` is reached by nobody.
        Err(()) => return Err(not_there(path, request).into()),
        Ok(_) => {}
    }
    Ok(())
}

/// There is no such path, or not with this method.
fn not_there(path: &str, request: &Request) -> ApiError {
    let allowed = allowed(path);
    if allowed.is_empty() && request.method() != Method::OPTIONS {
        return ApiError::not_found("there is nothing here");
    }
    let detail = format!("there is no {} here", request.method());
    let mut refusal = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, detail);
    refusal.allowed = Some(allowed);
    refusal
}

/// Somebody who has said who he is, and is not believed. Who says nothing leaves no row.
fn stranger(why: Unknown, origin: &RequestOrigin, request: &Request) -> Option<AuditRow> {
    let why = match why {
        Unknown::Silent => return None,
        Unknown::Wrong(why) => why,
        Unknown::NoRole => "no group of this user has a role",
    };
    Some(AuditRow {
        from: origin.written(),
        action: "login".to_owned(),
        object: request.uri().path().to_owned(),
        result: format!("refused: {why}"),
        request: format!("{} {}", request.method(), request.uri().path()),
        ..AuditRow::default()
    })
}

/// A row of the audit about this request.
pub(super) fn row(caller: &Caller, request: &Request, action: &str, result: &str) -> AuditRow {
    AuditRow {
        who: caller.name.clone(),
        role: caller.role.as_str().to_owned(),
        from: caller.from.clone(),
        action: action.to_owned(),
        object: request.uri().path().to_owned(),
        result: result.to_owned(),
        request: format!("{} {}", request.method(), request.uri().path()),
        ..AuditRow::default()
    }
}

/// Without TLS a login could be read on the way.
fn is_private(peer: &Peer, settings: &WindowSettings) -> Result<(), ApiError> {
    let is_near = peer.ip.is_none_or(|ip| ip.to_canonical().is_loopback());
    if peer.is_encrypted || is_near || peer.is_trusted(settings) {
        return Ok(());
    }
    Err(ApiError::coded(
        StatusCode::FORBIDDEN,
        "tls_needed",
        "without TLS only this machine and the proxies of admin.trusted_proxies are served",
    ))
}

/// The name that was asked for is one of ours.
fn is_ours(request: &Request, settings: &WindowSettings) -> Result<(), ApiError> {
    let authority = authority(request);
    if authority.is_some_and(|authority| answers_to(&authority, &settings.hosts)) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::MISDIRECTED_REQUEST,
        "this name is not one of ours: hostname, localhost, IP addresses and admin.hosts are",
    ))
}

/// Of the target where it has one (RFC 9112 §3.2.2), else of `Host`, given once.
fn authority(request: &Request) -> Option<Authority> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.clone());
    }
    let host = only(request.headers(), header::HOST.as_str()).ok()??;
    host.trim().parse().ok()
}

fn unknown(why: Unknown, path: &str, request: &Request) -> NotAdmitted {
    let detail = match why {
        Unknown::NoRole => {
            let detail = "none of this user's groups has a role in admin.groups";
            return ApiError::new(StatusCode::FORBIDDEN, detail).into();
        }
        Unknown::Wrong(detail) => detail,
        Unknown::Silent => "log in, or send a token",
    };
    let is_program = is_for_programs(path) || matches!(why, Unknown::Wrong(_));
    if is_program {
        let mut refusal = ApiError::new(StatusCode::UNAUTHORIZED, detail);
        refusal.is_challenge = true;
        return refusal.into();
    }
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let is_page = request.method() == Method::GET && target != "/";
    NotAdmitted::LogIn(if is_page {
        let next: String = byte_serialize(target.as_bytes()).collect();
        format!("/login?next={next}")
    } else {
        "/login".to_owned()
    })
}

/// One login counts: a token, else what a proxy says, else the kernel, else the cookie.
fn who(
    app: &App,
    peer: &Peer,
    origin: &RequestOrigin,
    method: &Method,
    headers: &HeaderMap,
    path: &str,
    settings: &WindowSettings,
) -> Result<Caller, Unknown> {
    let from = origin.written();
    if let Some(token) = bearer(headers) {
        return by_token(token, origin, settings, from);
    }
    if origin.is_proxied && !settings.user_header.is_empty() {
        match only(headers, &settings.user_header) {
            Err(()) => {
                return Err(Unknown::Wrong(
                    "the header that says who has logged in was given twice, or is no text",
                ));
            }
            Ok(Some(name)) if !name.is_empty() => return by_proxy(name, headers, settings, from),
            Ok(_) => {}
        }
    }
    if let (None, Some(uid), false) = (peer.ip, peer.uid, settings.trusts_unix) {
        let is_own = uid == 0 || uid == rustix::process::geteuid().as_raw();
        return Ok(Caller {
            name: format!("uid {uid}"),
            role: if is_own { Role::Admin } else { Role::Viewer },
            proof: Proof::Uid,
            from,
        });
    }
    let cookie =
        cookie(headers, &cookie_name(origin.is_secure, peer.port)).ok_or(Unknown::Silent)?;
    let of = hash(cookie);
    // What a program or the stream asks for by itself keeps nobody logged in.
    let is_read = [Method::GET, Method::HEAD].contains(method);
    let is_used = !(is_for_programs(path) && is_read);
    let (name, role) = app
        .sessions
        .find(&of, settings, is_used)
        .ok_or(Unknown::Silent)?;
    Ok(Caller {
        name,
        role,
        proof: Proof::Session(of),
        from,
    })
}

fn by_token(
    token: Result<&str, ()>,
    origin: &RequestOrigin,
    settings: &WindowSettings,
    from: String,
) -> Result<Caller, Unknown> {
    let token = token.map_err(|()| Unknown::Wrong("a token was given twice, or is no text"))?;
    let given = hash(token);
    // Hashes of 256 random bits: that one ends sooner than another tells nothing.
    let known = settings.tokens.iter().find(|token| token.hash == given);
    let known = known.ok_or(Unknown::Wrong("this token is not known"))?;
    if !known.is_good() {
        return Err(Unknown::Wrong("this token has expired"));
    }
    let is_there = |ip: std::net::IpAddr| {
        known
            .networks
            .iter()
            .any(|net| net.contains(&ip.to_canonical()))
    };
    if !known.networks.is_empty() && !origin.ip.is_some_and(is_there) {
        return Err(Unknown::Wrong("this token is not good from here"));
    }
    Ok(Caller {
        name: known.name.clone(),
        role: known.role,
        proof: Proof::Token(given),
        from,
    })
}

fn by_proxy(
    name: &str,
    headers: &HeaderMap,
    settings: &WindowSettings,
    from: String,
) -> Result<Caller, Unknown> {
    let groups = if settings.groups_header.is_empty() {
        None
    } else {
        only(headers, &settings.groups_header).map_err(|()| {
            Unknown::Wrong("the header that says one's groups was given twice, or is no text")
        })?
    };
    let groups: Vec<&str> = groups
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .collect();
    let role = settings.role_of(&groups).ok_or(Unknown::NoRole)?;
    Ok(Caller {
        name: name.to_owned(),
        role,
        proof: Proof::Proxy,
        from,
    })
}

/// What changes something comes from a page of ours: browsers say so, and a page of another host cannot say it of itself. A program
/// with a token is no browser.
fn is_same_site(headers: &HeaderMap, caller: Option<&Caller>) -> Result<(), ApiError> {
    if caller.is_some_and(|caller| matches!(caller.proof, Proof::Token(_))) {
        return Ok(());
    }
    let refused = |why: &str| {
        Err(ApiError::coded(
            StatusCode::FORBIDDEN,
            "cross_site",
            format!("this did not come from a page of this window: {why}"),
        ))
    };
    match only(headers, "sec-fetch-site") {
        Err(()) => return refused("Sec-Fetch-Site was given twice"),
        Ok(Some("same-origin")) => return Ok(()),
        Ok(Some(other)) => return refused(&format!("Sec-Fetch-Site is {other:?}")),
        Ok(None) => {}
    }
    match only(headers, header::ORIGIN.as_str()) {
        Err(()) => refused("Origin was given twice"),
        Ok(Some(origin)) => {
            let host = only(headers, header::HOST.as_str())
                .ok()
                .flatten()
                .unwrap_or_default();
            let authority = origin
                .split_once("://")
                .map_or("", |(_, authority)| authority);
            if !host.is_empty() && authority.eq_ignore_ascii_case(host) {
                return Ok(());
            }
            refused(&format!(
                "Origin is {origin:?} and Host {host:?}; a proxy between them must leave Host as it is"
            ))
        }
        Ok(None) if caller.is_some_and(|caller| caller.proof == Proof::Uid) => Ok(()),
        Ok(None) => refused("neither Sec-Fetch-Site nor Origin was sent"),
    }
}
