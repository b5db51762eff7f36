//! `/connectors/new` and `/connectors/NAME/edit`: a connector from its service to the file, step by step: filled in, tried, looked at, then
//! proposed or written. Each step sends the whole form; what was typed as a secret waits in `typed.rs` meanwhile.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    http::StatusCode,
    response::Response,
};

use super::{
    arranged::groups,
    changing::{ConnectorFormPage, ServicePage, diff_lines, services},
    fields::ConnectorDraft,
    filters::connector_path,
    proposal::not_done,
    shell::{done, shown, shown_with},
    templates::Frame,
};
use crate::{
    admin::{
        api::{
            connectors::no_connector,
            drafts::{DraftRequest, try_draft},
            part::Named,
            proposals::{keep, look_at, may_change, write},
        },
        app::App,
        caller::{Caller, hash},
        gate::row,
        params::Params,
        problem::ApiError,
        typed::SecretsByKey,
    },
    mail::text::{hex, shown_to},
    secret::Secret,
    view::{Changes, ConnectorForm, Operation, Problem, ProposalView, SavedConnectors},
    window::audit::AuditRow,
};

/// What is said of a form whose secrets were not kept any longer.
const LOST: &str =
    "What was typed as a secret is kept for a quarter of an hour, and that is over: type it again.";
/// What is said of one whose file is another by now.
const CHANGED: &str = "Somebody has changed the file since this form was opened. The fields are as you filled them in; the next review is \
    about the file as it is now.";
const NOT_SAVED: &str = "nothing was saved";
/// What is said of one that was changed on its way.
const OTHER: &str = "The fields were changed after the review: this is what they say now.";

/// The service first, or the fields of a new connector.
pub(super) async fn choose(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["type", "service"])?;
    may_change(&app)?;
    let Some(kind) = params.get("type") else {
        return Ok(shown(&ServicePage {
            frame: Frame::of(&app, &caller, "connector-form", "New connector"),
            services: services(&app.host.services()),
        }));
    };
    let service = params.get("service").map(str::to_owned);
    let values = service.map(|service| ("service".to_owned(), service));
    let draft = ConnectorDraft::new(new_form(&app, kind)?, values.into_iter().collect());
    let sent = SentForm::of(saved(&app).await?, draft);
    Ok(shown(&sent.page(&app, &caller).await))
}

/// The fields of a connector of the file.
pub(super) async fn edit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    Params::of(query.as_deref(), &[])?;
    may_change(&app)?;
    let saved = saved(&app).await?;
    let draft = draft_of(&app, &saved, &name)?;
    Ok(shown(&SentForm::of(saved, draft).page(&app, &caller).await))
}

pub(super) async fn add(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "propose", "");
    let form = Params::form(request).await?;
    may_change(&app)?;
    let fields = new_form(&app, form.get("type").unwrap_or_default())?;
    let draft = ConnectorDraft::new(fields, std::iter::empty().collect());
    let saved = saved(&app).await?;
    act(&app, &caller, row, &form, SentForm::of(saved, draft)).await
}

pub(super) async fn change(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "propose", "");
    let form = Params::form(request).await?;
    may_change(&app)?;
    let saved = saved(&app).await?;
    let draft = draft_of(&app, &saved, &name)?;
    act(&app, &caller, row, &form, SentForm::of(saved, draft)).await
}

async fn saved(app: &App) -> Result<SavedConnectors, ApiError> {
    let host = Arc::clone(&app.host);
    let saved = tokio::task::spawn_blocking(move || host.saved_connectors()).await;
    saved.ok().flatten().ok_or_else(|| {
        ApiError::new(
            StatusCode::CONFLICT,
            "the configuration cannot be read, or is not TOML: mend the file first",
        )
    })
}

fn form_of(app: &App, kind: &str) -> Option<ConnectorForm> {
    let mut forms = app.host.connector_forms().into_iter();
    forms.find(|form| form.kind == kind)
}

/// Of a new one. A page cannot say where `capture` keeps what it takes.
fn new_form(app: &App, kind: &str) -> Result<ConnectorForm, ApiError> {
    let form = form_of(app, kind).ok_or_else(|| {
        ApiError::bad(format!(
            "there is no type {:?}: it is smtp, graph or discard",
            shown_to(kind, 60)
        ))
    })?;
    let mut paths = form.fields.iter();
    if paths.any(|field| field.is_needed && field.is_only_in_file) {
        let detail = format!("a connector of type {kind} can be added in the file only");
        return Err(ApiError::coded(
            StatusCode::FORBIDDEN,
            "only_in_file",
            detail,
        ));
    }
    Ok(form)
}

fn draft_of(app: &App, saved: &SavedConnectors, name: &str) -> Result<ConnectorDraft, ApiError> {
    let section = saved.sections.get(name).ok_or_else(|| no_connector(name))?;
    let kind = section["type"].as_str().unwrap_or_default();
    let form = form_of(app, kind).ok_or_else(|| no_connector(name))?;
    Ok(ConnectorDraft::saved(form, section))
}

/// A form as it was sent.
struct SentForm {
    draft: ConnectorDraft,
    /// The hash of the file that the form was begun with, and that of the file now.
    base: String,
    now: String,
    /// The name of its typed secrets.
    typed: Option<String>,
    to: String,
    title: String,
    /// The connector is to go.
    is_removal: bool,
}

impl SentForm {
    /// One that was only opened.
    fn of(saved: SavedConnectors, draft: ConnectorDraft) -> Self {
        Self {
            draft,
            base: saved.base.clone(),
            now: saved.base,
            typed: None,
            to: String::new(),
            title: String::new(),
            is_removal: false,
        }
    }

    /// With what was sent; whether all that was typed as a secret is there.
    fn fill(self, app: &App, caller: &Caller, form: &Params) -> (Self, bool) {
        let own = |key| form.get(key).map(str::to_owned);
        let sent = Self {
            base: own("base").unwrap_or_else(|| self.base.clone()),
            to: own("to").unwrap_or_default(),
            title: own("title").unwrap_or_default(),
            is_removal: form.get("remove").is_some(),
            ..self
        };
        if sent.is_removal {
            return (sent, true);
        }
        let old = form.get("typed");
        let found = old.map_or_else(
            || Some(SecretsByKey::new()),
            |name| app.typed.find(caller, name),
        );
        let is_whole = found.is_some();
        let mut secrets = found.unwrap_or_default();
        for key in sent.draft.secret_keys() {
            let secret = form.get(&key).map(Secret::new);
            secrets.extend(secret.map(|secret| (key, secret)));
        }
        let gone: BTreeSet<String> = form
            .all("gone")
            .filter(|key| !secrets.contains_key(*key))
            .map(str::to_owned)
            .collect();
        let typed = app.typed.keep(caller, old, secrets.clone());
        let draft = sent
            .draft
            .filled(|key| form.get(key).map(str::to_owned), secrets, gone);
        (
            Self {
                draft,
                typed,
                ..sent
            },
            is_whole,
        )
    }

    fn path(&self) -> String {
        if self.draft.is_saved() {
            format!("{}/edit", connector_path(self.draft.name()))
        } else {
            "/connectors/new".to_owned()
        }
    }

    fn operations(&self) -> Vec<Operation> {
        if !self.is_removal {
            return self.draft.operations();
        }
        vec![Operation::Remove {
            section: "connector".to_owned(),
            name: Some(self.draft.name().to_owned()),
            at: None,
        }]
    }

    /// What was looked at, so that nothing else is saved: of the operations, without the secrets.
    fn fingerprint(&self) -> String {
        let text = if self.is_removal {
            format!("remove {}", self.draft.name())
        } else {
            self.draft.fingerprint()
        };
        hex(&hash(&text))
    }

    /// What a proposal is called that nobody has given a title.
    fn own_title(&self) -> String {
        let name = shown_to(self.draft.name(), 64);
        if self.is_removal {
            return format!("Remove connector {name}");
        }
        if !self.draft.is_saved() {
            return format!("Add connector {name}");
        }
        let keys = self.draft.changed().join(", ");
        shown_to(&format!("Connector {name}: {keys}"), 200)
    }

    fn changes(&self) -> Changes {
        Changes {
            base: self.base.clone(),
            title: if self.title.is_empty() {
                self.own_title()
            } else {
                self.title.clone()
            },
            changes: self.operations(),
        }
    }

    async fn page(&self, app: &App, caller: &Caller) -> ConnectorFormPage {
        let draft = &self.draft;
        let title = match (self.is_removal, draft.is_saved()) {
            (true, _) => format!("Remove connector {}", draft.name()),
            (false, true) => format!("Edit connector {}", draft.name()),
            (false, false) => "New connector".to_owned(),
        };
        let service = draft.shown("service");
        let all = services(&app.host.services());
        ConnectorFormPage {
            frame: Frame::of(app, caller, "connector-form", title),
            action: self.path(),
            up: if draft.is_saved() {
                connector_path(draft.name())
            } else {
                "/connectors".to_owned()
            },
            name: draft.name().to_owned(),
            is_saved: draft.is_saved(),
            is_removal: self.is_removal,
            kind: draft.kind(),
            service: all
                .into_iter()
                .find(|one| one.name.eq_ignore_ascii_case(&service)),
            groups: groups(draft, &[]),
            only_in_file: draft.only_in_file(),
            never_asked: draft.never_asked(),
            base: self.base.clone(),
            typed: self.typed.clone(),
            to: self.to.clone(),
            title: self.title.clone(),
            own_title: self.own_title(),
            reviewed: self.fingerprint(),
            may_write: app.host.config().await.write == "write",
            can_test: ["smtp", "graph"].contains(&draft.kind()),
            lines: None,
            problems: Vec::new(),
            tried: None,
        }
    }

    /// Its page, with what is wrong beside the fields. `what`: how far it came.
    async fn refused(
        &self,
        app: &App,
        caller: &Caller,
        refusal: &ApiError,
        what: &str,
    ) -> Response {
        let mut problems = refusal.problems.clone().unwrap_or_default();
        problems.retain(|problem| problem.severity == "error");
        let mut faults = Vec::new();
        for problem in &problems {
            if let Some(key) = self.draft.field_of(problem) {
                let hint = problem.hint.iter().map(|hint| format!(" ({hint})"));
                let text = problem.message.clone() + &hint.collect::<String>();
                faults.push((key, text));
            }
        }
        if problems.is_empty()
            && let Some(key) = self.draft.named_in(&refusal.detail, "")
        {
            faults.push((key, refusal.detail.clone()));
        } else if refusal.code == "not_provable" && !self.draft.is_saved() {
            // All that keeps a new one from the file is another of its name.
            faults.push(("name".to_owned(), refusal.detail.clone()));
        }
        let detail = match (refusal.code.as_str(), problems.len()) {
            ("changed", _) => CHANGED.to_owned(),
            (_, 0) => refusal.detail.clone(),
            (_, 1) => format!(
                "The configuration would be wrong: {what}. What has to change is said below."
            ),
            (_, many) => format!(
                "The configuration would be wrong in {many} places: {what}. What has to change is said below."
            ),
        };
        let page = self.page(app, caller).await;
        // Their lines are those of a text that nobody sees.
        let problems = problems
            .into_iter()
            .map(|one| Problem { line: None, ..one });
        let page = ConnectorFormPage {
            groups: groups(&self.draft, &faults),
            problems: problems.collect(),
            base: self.now.clone(),
            ..page.alarmed(detail)
        };
        shown_with(refusal, &page)
    }

    /// Its page, with what would become of the file.
    async fn reviewed(&self, app: &App, caller: &Caller, alert: Option<&str>) -> Response {
        let checked = match look_at(app, self.changes()).await {
            Ok(checked) => checked,
            Err(refusal) => return self.refused(app, caller, &refusal, NOT_SAVED).await,
        };
        let page = self.page(app, caller).await;
        let page = match alert {
            Some(alert) => page.alarmed(alert.to_owned()),
            None => page,
        };
        shown(&ConnectorFormPage {
            lines: Some(diff_lines(&checked.diff)),
            problems: checked.problems,
            ..page
        })
    }

    async fn tried(&self, app: &App, caller: &Caller, row: AuditRow) -> Response {
        let draft = DraftRequest {
            connector: self.draft.connector(),
            to: Some(self.to.clone()).filter(|to| !to.is_empty()),
        };
        match try_draft(app, row, draft).await {
            Ok(tried) => {
                let page = self.page(app, caller).await;
                shown(&ConnectorFormPage {
                    tried: Some(tried),
                    ..page
                })
            }
            Err(refusal) => {
                self.refused(app, caller, &refusal, "nothing was tried")
                    .await
            }
        }
    }
}

async fn act(
    app: &App,
    caller: &Caller,
    row: AuditRow,
    form: &Params,
    sent: SentForm,
) -> Result<Response, ApiError> {
    let (sent, is_whole) = sent.fill(app, caller, form);
    if !is_whole {
        let page = sent.page(app, caller).await;
        return Ok(shown(&page.alarmed(LOST.to_owned())));
    }
    Ok(match form.get("do") {
        None | Some("fields") => shown(&sent.page(app, caller).await),
        Some("test") => {
            let action = "test".to_owned();
            sent.tried(app, caller, AuditRow { action, ..row }).await
        }
        Some("review") => sent.reviewed(app, caller, None).await,
        Some("save" | "write") if form.get("reviewed") != Some(&sent.fingerprint()) => {
            sent.reviewed(app, caller, Some(OTHER)).await
        }
        Some("save") => match keep(app, row, sent.changes()).await {
            Ok(kept) => saved_as(app, caller, &sent, &kept),
            Err(refusal) => sent.refused(app, caller, &refusal, NOT_SAVED).await,
        },
        Some("write") => match keep(app, row.clone(), sent.changes()).await {
            Ok(kept) => return written(app, caller, row, &sent, &kept).await,
            Err(refusal) => sent.refused(app, caller, &refusal, NOT_SAVED).await,
        },
        Some(_) => {
            return Err(ApiError::bad(
                "`do` takes fields, test, review, save or write",
            ));
        }
    })
}

/// What was typed is in its files now.
fn saved_as(app: &App, caller: &Caller, sent: &SentForm, kept: &ProposalView) -> Response {
    app.typed
        .keep(caller, sent.typed.as_deref(), SecretsByKey::new());
    done(&format!("/proposals/{}", kept.id), "proposed", 0)
}

/// A proposal that is applied at once. Where that is refused it is there still, and its page says why.
async fn written(
    app: &App,
    caller: &Caller,
    row: AuditRow,
    sent: &SentForm,
    kept: &ProposalView,
) -> Result<Response, ApiError> {
    let proposed = saved_as(app, caller, sent, kept);
    let action = "apply".to_owned();
    let row = AuditRow { action, ..row };
    if let Err(refusal) = write(app, row, &kept.id).await {
        return not_done(app, caller, &kept.id, &refusal).await;
    }
    let number = ProposalView::number(&kept.id).and_then(|number| u64::try_from(number).ok());
    Ok(match number {
        Some(number) if sent.is_removal => done("/connectors", "written", number),
        Some(number) => done(&connector_path(sent.draft.name()), "written", number),
        None => proposed,
    })
}
