//! Coming in and going out: what a page does when somebody logs in, uses a link, or logs out.

use axum::http::{HeaderValue, StatusCode};

use super::{
    app::App,
    caller::{Caller, Peer, Proof, RequestOrigin, cookie_name},
    problem::ApiError,
    settings::Role,
};
use crate::{mail::text::shown_to, secret::Secret, telemetry::noticed, window::audit::AuditRow};

/// Where a login comes from.
pub(super) struct Entrance<'a> {
    pub(super) peer: &'a Peer,
    pub(super) origin: &'a RequestOrigin,
}

impl Entrance<'_> {
    fn row(&self, who: &str, role: Option<Role>, result: &str) -> AuditRow {
        AuditRow {
            who: shown_to(who, 255),
            role: role.map_or("", Role::as_str).to_owned(),
            from: self.origin.written(),
            action: "login".to_owned(),
            object: "page".to_owned(),
            result: result.to_owned(),
            request: "POST /login".to_owned(),
            ..AuditRow::default()
        }
    }

    /// The cookie, as it is set.
    fn set(&self, value: &str) -> Result<HeaderValue, ApiError> {
        let name = cookie_name(self.origin.is_secure, self.peer.port);
        let secure = if self.origin.is_secure {
            "; Secure"
        } else {
            ""
        };
        let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::from_str(&cookie)
            .map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "no cookie can be made"))
    }

    /// Logs in with a password: `Set-Cookie`.
    ///
    /// # Errors
    /// 401: name and password do not belong together; 429: too many have failed; 503: it cannot be written down.
    pub(super) async fn by_password(
        &self,
        app: &App,
        name: &str,
        password: Secret,
    ) -> Result<HeaderValue, ApiError> {
        if let Err(refusal) = app.guard.may_try(self.origin.ip, name) {
            return Err(self.too_many(app, name, refusal).await);
        }
        app.audit.ready().await?;
        let settings = app.settings();
        let checked = app.guard.check(&settings, self.origin.ip, name, password);
        match checked.await {
            Err(refusal) => Err(self.too_many(app, name, refusal).await),
            Ok(Some(user)) => self.enter(app, name, None, Some(user)).await,
            Ok(None) => {
                app.audit.refuse(self.row(name, None, "refused")).await;
                app.host.counted_login(false);
                self.notice_failure();
                Err(ApiError::new(
                    StatusCode::UNAUTHORIZED,
                    "this name and password do not belong together",
                ))
            }
        }
    }

    async fn too_many(&self, app: &App, name: &str, refusal: ApiError) -> ApiError {
        app.audit
            .refuse(self.row(name, None, "refused: too many have failed"))
            .await;
        app.host.counted_login(false);
        self.notice_failure();
        refusal
    }

    /// Logs in with a link: `Set-Cookie`.
    ///
    /// # Errors
    /// As above; 401: the link was used, or is too old.
    pub(super) async fn by_code(&self, app: &App, code: &str) -> Result<HeaderValue, ApiError> {
        if let Err(refusal) = app.guard.may_try(self.origin.ip, "") {
            return Err(self.too_many(app, "", refusal).await);
        }
        app.audit.ready().await?;
        let Some((name, role)) = app.sessions.redeem(code).await? else {
            app.guard.failed(self.origin.ip, "");
            app.audit
                .refuse(self.row("", None, "refused: the link was used, or is too old"))
                .await;
            app.host.counted_login(false);
            self.notice_failure();
            return Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "this link was used already, or is older than five minutes: `postern admin login` makes another one",
            ));
        };
        self.enter(app, &name, Some(role), None).await
    }

    /// Many of one address are an incident.
    fn notice_failure(&self) {
        if let Some(from) = self.origin.ip {
            noticed::login_failed(from);
        }
    }

    async fn enter(
        &self,
        app: &App,
        name: &str,
        link: Option<Role>,
        user: Option<&super::settings::AdminUser>,
    ) -> Result<HeaderValue, ApiError> {
        let cookie = app.sessions.begin(name, link, user).await?;
        let role = link.or(user.map(|user| user.role));
        app.audit.write(self.row(name, role, "ok")).await?;
        app.host.counted_login(true);
        self.set(&cookie)
    }

    /// Logs out: `Set-Cookie`, which takes the cookie away.
    ///
    /// # Errors
    /// It cannot be written down; the login has ended all the same.
    pub(super) async fn leave(
        &self,
        app: &App,
        caller: Option<&Caller>,
    ) -> Result<HeaderValue, ApiError> {
        if let Some(caller) = caller
            && let Proof::Session(of) = caller.proof
        {
            app.sessions.end(of).await?;
            let row = self.row(&caller.name, Some(caller.role), "ok");
            let request = "POST /logout".to_owned();
            app.audit
                .write(AuditRow {
                    action: "logout".to_owned(),
                    request,
                    ..row
                })
                .await?;
        }
        self.set("; Max-Age=0")
    }
}

/// Where somebody goes who has logged in: a path of ours, and nowhere else.
pub(super) fn next(asked: Option<&str>) -> &str {
    let is_ours = |path: &str| {
        path.starts_with('/')
            && !path
                .get(1..2)
                .is_some_and(|second| second == "/" || second == "\\")
            && !path.chars().any(char::is_control)
            && !path.starts_with("/login")
    };
    asked.filter(|path| is_ours(path)).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_a_login_leads_to_no_other_site() {
        for (asked, goes) in [
            (None, "/"),
            (Some("/messages?state=failed"), "/messages?state=failed"),
            (Some("//evil.example/"), "/"),
            (Some("/\\evil.example/"), "/"),
            (Some("https://evil.example/"), "/"),
            (Some("javascript:alert(1)"), "/"),
            (Some("/a\r\nSet-Cookie: x=y"), "/"),
            (Some("/\t/evil.example"), "/"),
            (Some(""), "/"),
            (Some("messages"), "/"),
            (Some("/login?next=/login"), "/"),
        ] {
            assert_eq!(next(asked), goes, "{asked:?}");
        }
    }
}
