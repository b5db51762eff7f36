//! What is wrong with the file: `path:line:column`, the line, a caret, a hint.
//!
//! Every problem looks the same, whoever found it. It decides nothing; it must never print a secret or
//! anything a terminal would obey.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    secrecy::{is_path_all_the_same, is_secret_somewhere},
    values::is_plain,
};
use crate::view::Problem;

/// Octets of the text.
pub(super) type Span = Range<usize>;

/// Columns of a quoted line at most.
const WIDTH: usize = 110;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is not taken.
    Error,
    /// It is taken; something is probably not meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Counted from 1; 0 = it concerns the file as a whole.
    pub line: usize,
    /// Counted in characters from 1; 0 = it concerns the file as a whole.
    pub column: usize,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    path: PathBuf,
    /// The line and the caret line, ready to print.
    quote: Option<(String, String)>,
}

impl Diagnostic {
    /// About a place in the text.
    pub(super) fn at(
        severity: Severity,
        path: &Path,
        text: &str,
        span: &Span,
        message: String,
    ) -> Self {
        let start = text.floor_char_boundary(span.start);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = text.get(line_start..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let column = before.get(line_start..).unwrap_or_default().chars().count();
        let inside = text
            .get(start..text.floor_char_boundary(span.end))
            .unwrap_or_default()
            .split(['\n', '\r'])
            .next()
            .unwrap_or_default()
            .chars()
            .count();
        let inside_text = in_multiline_string(before);
        Self {
            severity,
            line: before.matches('\n').count() + 1,
            column: column + 1,
            message,
            hint: None,
            path: path.to_owned(),
            quote: Some(quote(line, column, inside, inside_text)),
        }
    }

    /// About the file as a whole.
    pub(super) fn whole(severity: Severity, path: &Path, message: String) -> Self {
        Self {
            severity,
            line: 0,
            column: 0,
            message,
            hint: None,
            path: path.to_owned(),
            quote: None,
        }
    }

    /// For programs.
    pub fn problem(&self) -> Problem {
        let is_at_a_place = self.line > 0;
        Problem {
            severity: self.severity.as_str(),
            line: is_at_a_place.then_some(self.line),
            column: is_at_a_place.then_some(self.column),
            message: self.message.clone(),
            hint: self.hint.clone(),
            place: None,
        }
    }

    /// With a hint.
    pub(super) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity.as_str(), self.path.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        writeln!(f, ": {}", self.message)?;
        if let Some((line, caret)) = &self.quote {
            writeln!(f, "  {line}")?;
            writeln!(f, "  {caret}")?;
        }
        if let Some(hint) = &self.hint {
            let mut lines = hint.lines();
            writeln!(f, "  hint: {}", lines.next().unwrap_or_default())?;
            for line in lines {
                writeln!(f, "        {line}")?;
            }
        }
        Ok(())
    }
}

/// Why a file is not taken: at least one error, in the order of the text, with the warnings beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// In the order of the text; what concerns the whole file comes last.
    pub(super) fn new(mut list: Vec<Diagnostic>) -> Self {
        sort(&mut list);
        Self(list)
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.0
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .count()
    }
}

/// In the order of the text, the same thing said once.
pub(super) fn sort(list: &mut Vec<Diagnostic>) {
    list.sort_by_key(|d| (d.line == 0, d.line, d.column, d.severity));
    list.dedup();
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.0 {
            write!(f, "{diagnostic}")?;
        }
        let errors = self.errors();
        let warnings = self
            .0
            .iter()
            .filter(|d| d.severity == Severity::Warning)
            .count();
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        write!(f, "{errors} error{}", plural(errors))?;
        if warnings > 0 {
            write!(f, ", {warnings} warning{}", plural(warnings))?;
        }
        // Where it is not TOML, nothing behind the first slip was read.
        if self.0.iter().any(|d| d.message.starts_with(NOT_TOML)) {
            write!(f, "; the rest of the file is read once that is mended")?;
        }
        writeln!(f)
    }
}

/// How the sentence about a file that is not TOML begins.
pub(super) const NOT_TOML: &str = "this is not TOML: ";

impl std::error::Error for Diagnostics {}

/// Whether an odd number of `"""` or `'''` stands before: such a line may be the inside of a secret.
fn in_multiline_string(before: &str) -> bool {
    before.matches("\"\"\"").count() % 2 == 1 || before.matches("'''").count() % 2 == 1
}

/// The line and the caret line: secrets masked, control characters escaped, cut around the span. `start` and `length`
/// count characters.
fn quote(line: &str, start: usize, length: usize, hidden: bool) -> (String, String) {
    let chars: Vec<char> = line.chars().collect();
    let masks = if hidden {
        std::iter::once(0..chars.len()).collect()
    } else {
        masks(&chars)
    };
    // What is printed, and which character of the line it stands for.
    let mut printed: Vec<(char, usize)> = Vec::new();
    for (at, &c) in chars.iter().enumerate() {
        if let Some(mask) = masks.iter().find(|mask| mask.contains(&at)) {
            if mask.start == at {
                printed.extend("***".chars().map(|c| (c, at)));
            }
            continue;
        }
        match c {
            '\t' => printed.push((' ', at)),
            c if is_plain(c) => printed.push((c, at)),
            c => printed.extend(c.escape_unicode().map(|c| (c, at))),
        }
    }
    // A span that begins inside a mask is shown under the stars.
    let start = masks
        .iter()
        .find(|mask| mask.contains(&start))
        .map_or(start, |mask| mask.start);
    let first = printed
        .iter()
        .position(|(_, at)| *at >= start)
        .unwrap_or(printed.len());
    let last = printed
        .iter()
        .rposition(|(_, at)| *at < start + length.max(1))
        .map_or(first, |at| at.max(first));
    let from = if printed.len() > WIDTH {
        first.saturating_sub(WIDTH / 3).min(printed.len() - WIDTH)
    } else {
        0
    };
    let to = (from + WIDTH).min(printed.len());
    let mut text = String::new();
    if from > 0 {
        text.push('…');
    }
    text.extend(printed.iter().skip(from).take(to - from).map(|(c, _)| c));
    if to < printed.len() {
        text.push('…');
    }
    let indent = first - from + usize::from(from > 0);
    let carets = (last.min(to.saturating_sub(1)).saturating_sub(first)) + 1;
    let caret = format!("{}{}", " ".repeat(indent), "^".repeat(carets));
    (text.trim_end().to_owned(), caret)
}

/// The parts of a line that must not be seen: what follows a key that holds a secret (unless it says where the secret
/// is), and the password of a URL.
pub(super) fn masks(chars: &[char]) -> Vec<Range<usize>> {
    let mut masks = Vec::new();
    let mut at = 0;
    let is_word = |c: &char| c.is_ascii_alphanumeric() || *c == '_' || *c == '-';
    while at < chars.len() {
        let word_end = chars
            .iter()
            .skip(at)
            .position(|c| !is_word(c))
            .map_or(chars.len(), |n| at + n);
        if word_end == at {
            at += 1;
            continue;
        }
        let word: String = chars.get(at..word_end).unwrap_or_default().iter().collect();
        if holds_secret(&word)
            && let Some(from) = value_start(chars, word_end)
        {
            let value = chars.get(from..).unwrap_or_default();
            // The names in there are no keys.
            if says_where(value) || is_path_all_the_same(&word, &value.iter().collect::<String>()) {
                break;
            }
            masks.push(from..chars.len());
            return masks;
        }
        at = word_end;
    }
    let text: String = chars.iter().collect();
    if let Some((before, after)) = text.split_once("://")
        && let Some((login, _)) = after.rsplit_once('@')
        && let Some((user, _)) = login.split_once(':')
    {
        let from = before.chars().count() + 3 + user.chars().count() + 1;
        let to = before.chars().count() + 3 + login.chars().count();
        masks.push(from..to);
    }
    masks
}

pub(super) fn holds_secret(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let tail = |end: &str| word.ends_with(end);
    ["passw", "secret", "token", "passphrase"]
        .iter()
        .any(|part| word.contains(part))
        && !tail("_file")
        && !tail("_url")
        || word == "pass"
        || is_secret_somewhere(&word)
        // A slip of the pen in the key must not show the value.
        || ["password", "client_secret", "refresh_token"]
            .iter()
            .any(|key| strsim::damerau_levenshtein(key, &word) <= 2)
}

/// Where the value begins after a key that ended at `from`: behind quotes of the key, spaces and `=`.
fn value_start(chars: &[char], from: usize) -> Option<usize> {
    let mut at = from;
    let skip = |at: &mut usize, set: &[char]| {
        while chars.get(*at).is_some_and(|c| set.contains(c)) {
            *at += 1;
        }
    };
    skip(&mut at, &['"', '\'']);
    skip(&mut at, &[' ', '\t']);
    match chars.get(at) {
        // The value itself, or the end of the line.
        Some('=' | ':') => {
            at += 1;
            skip(&mut at, &[' ', '\t']);
        }
        None => return None,
        // A name inside a string or a comment is no key, but a forgotten `=` is no excuse to show a password.
        Some(_) if at == from => return None,
        Some(_) => {}
    }
    (at < chars.len()).then_some(at)
}

/// `{ env = … }`, `{ file = … }`, `{ credential = … }` hold no secret; with anything else in it, it may.
fn says_where(value: &[char]) -> bool {
    let text: String = value.iter().collect();
    text.trim()
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .is_some_and(|inside| {
            inside.split(',').all(|pair| {
                let key = pair.split('=').next().unwrap_or_default().trim();
                matches!(key, "env" | "file" | "credential")
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, start: usize, length: usize, expected: (&str, &str)) {
        let (text, caret) = quote(line, start, length, false);
        assert_eq!((text.as_str(), caret.as_str()), expected, "{line:?}");
    }

    #[test]
    fn quotes() {
        check("port = 25", 7, 2, ("port = 25", "       ^^"));
        check("\tport", 1, 4, (" port", " ^^^^"));
        check("a\u{1b}b = 1", 2, 1, ("a\\u{1b}b = 1", "       ^"));
        check("x", 1, 0, ("x", " ^"));
        check("", 0, 0, ("", "^"));
        check(
            "passwort = \"hunter2\"",
            0,
            8,
            ("passwort = ***", "^^^^^^^^"),
        );
        check(
            "password = \"hunter2\"",
            11,
            9,
            ("password = ***", "           ^^^"),
        );
        check("pasword = \"hunter2\"", 0, 7, ("pasword = ***", "^^^^^^^"));
        check(
            "password \"hunter2\"",
            9,
            1,
            ("password ***", "         ^^^"),
        );
        check(
            "password = hunter2",
            11,
            1,
            ("password = ***", "           ^^^"),
        );
        check(
            "\"password\" = 'a b'",
            13,
            1,
            ("\"password\" = ***", "             ^^^"),
        );
        check(
            "password = { env = \"NAME\" }",
            19,
            6,
            ("password = { env = \"NAME\" }", "                   ^^^^^^"),
        );
        check(
            "password = { env = \"SMARTHOST_PASSWORD\" }",
            0,
            8,
            ("password = { env = \"SMARTHOST_PASSWORD\" }", "^^^^^^^^"),
        );
        check(
            "oauth = { provider = \"google\", client_secret = \"x\" }",
            0,
            5,
            (
                "oauth = { provider = \"google\", client_secret = ***",
                "^^^^^",
            ),
        );
        check(
            "proxy = \"http://me:hunter2@proxy:3128\"",
            8,
            30,
            (
                "proxy = \"http://me:***@proxy:3128\"",
                "        ^^^^^^^^^^^^^^^^^^^^^^^^^^",
            ),
        );
        check(
            "token_url = \"https://x\"",
            0,
            9,
            ("token_url = \"https://x\"", "^^^^^^^^^"),
        );
        assert_eq!(quote("hunter2", 2, 1, true), ("***".into(), "^^^".into()));
    }

    #[test]
    fn long_lines_are_cut_around_the_span() {
        let line = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let (text, caret) = quote(&line, 500, 1, false);
        assert!(text.chars().count() <= WIDTH + 2, "{text}");
        assert_eq!(text.chars().nth(caret.len() - 1), Some('X'));
        let (text, caret) = quote(&"a".repeat(5000), 10, 4000, false);
        assert!(text.chars().count() <= WIDTH + 2 && caret.len() <= WIDTH + 2);
    }
}
