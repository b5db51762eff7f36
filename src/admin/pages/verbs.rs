//! A verb of a form: done at once where it is a few and can be undone, else asked about first.

use axum::response::Response;

use super::{
    shell::{done, shown, shown_with},
    templates::{Frame, SurePage, VERBS, VerbText},
};
use crate::{
    admin::{
        api::verbs::{carry_out as act, count},
        app::App,
        caller::Caller,
        params::Params,
        problem::ApiError,
    },
    queue::store::{Filter, Verb},
    window::audit::AuditRow,
};

/// Above so many the number is typed.
const FEW: u64 = 50;

/// What a form is about.
#[derive(Debug)]
pub(super) struct Wish {
    /// Which entries.
    pub(super) filter: Filter,
    /// The same, in words.
    pub(super) which: String,
    /// `data-page` of the form's page.
    pub(super) page: &'static str,
    /// Where the form goes, and where it leads back to.
    pub(super) path: String,
    /// What it needs besides, to say the same again.
    pub(super) fields: Vec<(&'static str, String)>,
}

/// The verb that a form asks for.
///
/// # Errors
/// It is none.
pub(super) fn verb(form: &Params) -> Result<VerbText, ApiError> {
    let asked = form.get("do").unwrap_or_default();
    let found = VERBS.into_iter().find(|verb| verb.word == asked);
    found.ok_or_else(|| ApiError::bad("`do` takes retry, hold, release, fail or drop"))
}

/// Does it, or asks first.
///
/// # Errors
/// The queue or the audit cannot be written.
pub(super) async fn carry_out(
    app: &App,
    caller: &Caller,
    row: AuditRow,
    form: &Params,
    wish: Wish,
) -> Result<Response, ApiError> {
    let text = verb(form)?;
    let verb: Verb = text.word.parse().map_err(ApiError::bad)?;
    let found = count(app, &wish.filter, &verb).await?;
    if found == 0 {
        return Ok(done(&wish.path, text.word, 0));
    }
    let is_typed = found > FEW;
    let given = form.parsed::<u64>("count", "a number")?;
    let shows = form.parsed::<u64>("expect", "a number")?;
    let sure = |alert: Option<String>| SurePage {
        frame: Frame {
            alert,
            ..Frame::of(app, caller, wish.page, format!("{} {found}?", text.name))
        },
        verb: text,
        count: found,
        is_typed,
        action: wish.path.clone(),
        fields: wish.fields.clone(),
        which: wish.which.clone(),
        back: wish.path.clone(),
    };
    if (is_typed || text.is_final) && shows.is_none() {
        return Ok(shown(&sure(None)));
    }
    if shows.is_some() && given != shows {
        let wrong = "The number was another one: nothing was done.";
        return Ok(shown(&sure(Some(wrong.to_owned()))));
    }
    let row = AuditRow {
        action: text.word.to_owned(),
        ..row
    };
    let filter = wish.filter.clone();
    match act(app, row, filter, &verb, shows.or(Some(found))).await {
        Ok(taken) => Ok(done(&wish.path, text.word, taken.count)),
        Err(refusal) if refusal.code == "count_changed" => {
            let page = sure(Some(refusal.detail.clone()));
            Ok(shown_with(&refusal, &page))
        }
        Err(refusal) => Err(refusal),
    }
}
