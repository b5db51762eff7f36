//! `postern config list|show|apply|drop`: what the page proposes, and the machine does.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    time::SystemTime,
};

use rusqlite::Transaction;
use serde_json::json;

use super::{
    audited::{row, unwritten, window},
    exit::{CommandError, Ended, Exit},
    output, place,
    place::QueuePlace,
    prepare, reload,
};
use crate::{
    config::{
        Environment, Secrets,
        edit::{self, EditRefusal, Edited, Ground, Proposal, Why, Written},
    },
    mail::text::{shown, shown_to},
    view::{Problem, ProposalView, sides},
    window::{
        WindowDb,
        audit::{self, AuditRow},
        proposals::{self as rows, CutOff, ProposalRow, ProposalState},
    },
};

/// Proposals of a list.
const LISTED: usize = 1_000;

/// Newest first.
pub(super) fn list(place: &QueuePlace, is_json: bool) -> Ended {
    let found = settled(place)?
        .read_now(|tx| rows::list(tx, None, LISTED))
        .map_err(unwritten)?;
    let all: Vec<ProposalView> = found.iter().map(ProposalView::of).collect();
    if is_json {
        output::json(&json!({ "items": all, "next": null }))?;
        return Ok(Exit::Ok);
    }
    let cells = |one: &ProposalView| {
        vec![
            one.id.clone(),
            one.state.as_str().to_owned(),
            one.at.clone(),
            shown_to(&one.by, 40),
            shown_to(&one.title, 200),
        ]
    };
    let cells: Vec<_> = all.iter().map(cells).collect();
    let mut out = Vec::new();
    output::table(&mut out, &["ID", "STATE", "AT", "BY", "TITLE"], &cells)?;
    output::lines(&out)?;
    Ok(Exit::Ok)
}

/// One of them.
pub(super) fn show(place: &QueuePlace, id: &str, is_json: bool) -> Ended {
    let found = find(&settled(place)?, id)?;
    let proposal = ProposalView::of(&found);
    if is_json {
        output::json(&proposal)?;
        return Ok(Exit::Ok);
    }
    output::line(format_args!(
        "{} {}, by {} at {}: {}",
        proposal.id,
        proposal.state.as_str(),
        shown(&proposal.by),
        proposal.at,
        shown(&proposal.title)
    ))?;
    output::lines(proposal.diff.as_bytes())?;
    say(&proposal.problems);
    Ok(Exit::Ok)
}

fn find(window: &WindowDb, id: &str) -> Result<ProposalRow, CommandError> {
    let not_known = || {
        let text = format!("there is no proposal {}", shown_to(id, 100));
        CommandError::new(Exit::No, text)
    };
    let number = ProposalView::number(id).ok_or_else(not_known)?;
    let found = window.read_now(move |tx| rows::find(tx, number));
    found.map_err(unwritten)?.ok_or_else(not_known)
}

fn open(window: &WindowDb, id: &str) -> Result<ProposalRow, CommandError> {
    let proposal = find(window, id)?;
    match proposal.state {
        ProposalState::Open => Ok(proposal),
        state => Err(CommandError::new(
            Exit::No,
            format_args!(
                "proposal p{} is {} already",
                proposal.number,
                state.as_str()
            ),
        )),
    }
}

fn say(problems: &[Problem]) {
    for problem in problems {
        let place = problem.line.map_or_else(String::new, |line| {
            format!("line {line}, column {}: ", problem.column.unwrap_or(1))
        });
        output::complain(format_args!(
            "{}: {place}{}",
            problem.severity,
            shown(&problem.message)
        ));
        if let Some(hint) = &problem.hint {
            output::complain(format_args!("  hint: {}", shown(hint)));
        }
    }
}

/// Does it anew on the file of now.
pub(super) fn apply(place: &QueuePlace, id: &str, yes: bool) -> Ended {
    let is_asked = !yes;
    if is_asked && !io::stdin().is_terminal() {
        return Err(CommandError::new(
            Exit::Usage,
            "nobody can be asked here: --yes applies it without a question",
        ));
    }
    let window = settled(place)?;
    let proposal = open(&window, id)?;
    let object = format!("proposal p{}", proposal.number);
    let row = row("apply", &object, "config apply");
    let done = carry_out(place, &window, &proposal, is_asked);
    let (ended, row) = match done {
        Ok(Some((edited, exit))) => {
            let (before, after) = sides(&edited.diff);
            let row = AuditRow {
                before: Some(before),
                after: Some(after),
                ..row
            };
            (Ok(exit), row)
        }
        // Nobody wanted it.
        Ok(None) => return Ok(Exit::No),
        Err(why) => {
            let result = format!("refused: {}", why.text);
            (Err(why), AuditRow { result, ..row })
        }
    };
    write_down(&window, move |tx| audit::add(tx, &row, SystemTime::now()));
    ended
}

/// The window goes on as it can: what was done is done.
fn write_down(
    window: &WindowDb,
    what: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
) {
    if let Err(error) = window.wait(what) {
        output::complain(format_args!(
            "what was done could not be written down: {error}"
        ));
    }
}

/// `None`: whoever was asked does not want it.
fn carry_out(
    place: &QueuePlace,
    window: &WindowDb,
    proposal: &ProposalRow,
    is_asked: bool,
) -> Result<Option<(Edited, Exit)>, CommandError> {
    let done = Proposal::read(&proposal.body).map_err(refused)?;
    let before = fs::read(&place.path).map_err(|why| {
        CommandError::new(
            Exit::Config,
            format_args!("{} cannot be read: {why}", place.path.display()),
        )
    })?;
    let env = Environment::of_process();
    let ground = Ground {
        path: &place.path,
        octets: &before,
        env: &env,
        // Those of the gateway are known to the gateway, whose reload looks at them.
        secrets: Secrets::Ignore,
    };
    let edited = done.apply(ground).map_err(refused)?;
    output::lines(edited.diff.as_bytes())?;
    say(&edited.problems);
    if is_asked && !agreed(place)? {
        output::complain("nothing was changed");
        return Ok(None);
    }
    let number = proposal.number;
    begin(window, number, edit::digest(&edited.octets))?;
    let done = edit::write(&place.path, &before, &edited.octets)
        .map_err(|why| refused(EditRefusal::from(why)))
        .and_then(|written| read_again(place, written));
    let is_written = done.is_ok();
    write_down(window, move |tx| rows::finish(tx, number, is_written));
    done.map(|exit| Some((edited, exit)))
}

/// Writes down that it is being written, so that it is known what became of it whatever happens meanwhile.
fn begin(window: &WindowDb, number: i64, after: String) -> Result<(), CommandError> {
    let now = SystemTime::now();
    match window.wait(move |tx| rows::begin(tx, number, &after, now)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CommandError::new(
            Exit::No,
            format_args!("proposal p{number} is not open any more, or somebody else writes it"),
        )),
        Err(error) => {
            output::complain(format_args!(
                "that it is written cannot be written down: {error}"
            ));
            Ok(())
        }
    }
}

/// The window, where what a command or a gateway that was killed has left unfinished is what the file says.
fn settled(place: &QueuePlace) -> Result<WindowDb, CommandError> {
    let window = window(&place.data_dir)?;
    if let Ok(octets) = fs::read(&place.path) {
        let (file, now) = (edit::digest(&octets), SystemTime::now());
        // What cannot be written down now is looked at again.
        let _ = window.wait(move |tx| rows::settle(tx, &file, CutOff::Gone, now));
    }
    Ok(window)
}

fn agreed(place: &QueuePlace) -> Result<bool, CommandError> {
    let mut err = io::stderr().lock();
    write!(err, "Write this into {}? [y/N] ", place.path.display())?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    let answer = answer.trim().to_ascii_lowercase();
    Ok(answer == "y" || answer == "yes")
}

/// Has a running gateway read it; the old octets come back where it does not take the new ones.
fn read_again(place: &QueuePlace, written: Written) -> Ended {
    let Some(running) = place::running(&place.data_dir)? else {
        output::line("written; no gateway runs, and the next start takes it")?;
        return Ok(Exit::Ok);
    };
    let Some(pid) = running.pid else {
        output::line(
            "written; the gateway runs in another PID namespace (a container?): run `postern reload` inside it, or have its manager send SIGHUP",
        )?;
        return Ok(Exit::Ok);
    };
    let store = place::existing_store(&place.data_dir)?;
    let reloaded = prepare::block_on(reload::ask(store.as_ref(), pid));
    match reloaded {
        Ok(()) => {
            output::line("written and reloaded")?;
            Ok(Exit::Ok)
        }
        Err(why) if why.code == Exit::Config.code() => {
            let undone = match written.undo() {
                Ok(()) => "the file is as it was".to_owned(),
                Err(why) => format!("the file could not be brought back: {why}"),
            };
            // With the file as it was nothing is left to mend.
            let _ = prepare::block_on(reload::ask(store.as_ref(), pid));
            Err(CommandError::new(
                Exit::Config,
                format_args!("{undone}: {}", why.text),
            ))
        }
        // It is written, and nobody has said that it is wrong.
        Err(why) => {
            output::complain(format_args!("written; {}", why.text));
            Ok(Exit::Later)
        }
    }
}

fn refused(refusal: EditRefusal) -> CommandError {
    say(&refusal.problems);
    let exit = match refusal.why {
        Why::OtherBase | Why::Changed => Exit::No,
        Why::ReadOnly | Why::Failed => Exit::CannotCreate,
        Why::OnlyInFile | Why::SecretNeeded => Exit::Refused,
        Why::BadRequest | Why::NotProvable | Why::Invalid => Exit::Config,
    };
    CommandError::new(exit, refusal)
}

/// Gives it up.
pub(super) fn discard(place: &QueuePlace, id: &str) -> Ended {
    let window = settled(place)?;
    let proposal = open(&window, id)?;
    let (number, object) = (proposal.number, format!("proposal p{}", proposal.number));
    let row = row("drop", &object, "config drop");
    let dropped = window.wait(move |tx| {
        let is_done = rows::discard(tx, number)?;
        if is_done {
            audit::add(tx, &row, SystemTime::now())?;
        }
        Ok(is_done)
    });
    if !dropped.map_err(unwritten)? {
        return Err(CommandError::new(
            Exit::No,
            format_args!("proposal p{number} is being written just now"),
        ));
    }
    output::line(format_args!("dropped p{number}"))?;
    Ok(Exit::Ok)
}
