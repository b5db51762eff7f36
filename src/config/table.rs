//! A reader over the parsed file that collects every problem with its place (design: all problems in one run).
//!
//! Apart because it knows TOML and nothing of mail: a section asks for its keys one by one, what was not asked for is
//! an unknown key. It resolves no secret and touches no file.

use std::{
    cell::RefCell, collections::BTreeSet, fmt::Display, ops::RangeInclusive, path::Path,
    time::Duration,
};

use ipnet::IpNet;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diagnostic::{Diagnostic, Severity, Span},
    values::{self, Fault, plain},
};
use crate::mail::pattern::Pattern;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// How a key is written, for hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    Key,
    Table,
    Tables,
}

/// A key some section asked for: its section (`""` is the top level), its name, how it is written.
pub(super) type Asked = BTreeSet<(&'static str, &'static str, Form)>;

/// A key nobody asked for; looked at when all sections have been read.
#[derive(Debug)]
struct Unknown {
    section: &'static str,
    label: String,
    key: String,
    span: Span,
}

/// The text, and all that was found wrong with it so far.
#[derive(Debug)]
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    found: RefCell<Vec<Diagnostic>>,
    asked: RefCell<Asked>,
    unknown: RefCell<Vec<Unknown>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self {
            path,
            text,
            found: RefCell::default(),
            asked: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn error(&self, span: &Span, fault: impl Into<Fault>) {
        self.report(Severity::Error, span, fault.into());
    }

    pub(super) fn warning(&self, span: &Span, fault: impl Into<Fault>) {
        self.report(Severity::Warning, span, fault.into());
    }

    pub(super) fn note(&self, span: &Span, fault: impl Into<Fault>) {
        self.report(Severity::Note, span, fault.into());
    }

    /// About the file as a whole.
    pub(super) fn whole(&self, severity: Severity, fault: impl Into<Fault>) {
        let fault = fault.into();
        self.found
            .borrow_mut()
            .push(Diagnostic::whole(severity, self.path, fault.message).hint(fault.hint));
    }

    fn report(&self, severity: Severity, span: &Span, fault: Fault) {
        self.found.borrow_mut().push(
            Diagnostic::at(severity, self.path, self.text, span, fault.message).hint(fault.hint),
        );
    }

    /// The line of a place, for sentences that name two.
    pub(super) fn line(&self, span: &Span) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        memchr::memchr_iter(b'\n', before).count() + 1
    }

    /// All that was found, and all keys that were asked for.
    pub(super) fn finish(self) -> (Vec<Diagnostic>, Asked) {
        let asked = self.asked.borrow().clone();
        for unknown in self.unknown.take() {
            let fault = Fault {
                message: format!("{}has no key `{}`", unknown.label, plain(&unknown.key)),
                hint: suggestion(&asked, unknown.section, &unknown.key),
            };
            self.error(&unknown.span, fault);
        }
        (self.found.take(), asked)
    }
}

/// The nearest key of the section, or the section that has this key.
fn suggestion(asked: &Asked, section: &str, key: &str) -> Option<String> {
    let known = || asked.iter().filter(|(of, _, _)| *of == section);
    if let Some(best) = nearest(key, known().map(|(_, name, _)| *name)) {
        let form = known()
            .find(|(_, name, _)| *name == best)
            .map_or(Form::Key, |(_, _, form)| *form);
        return Some(format!("did you mean `{}`?", written(best, form)));
    }
    if let Some((of, name, form)) = asked.iter().find(|(_, name, _)| *name == key) {
        return Some(if of.is_empty() {
            format!(
                "did you mean `{}` at the top of the file, before the first section?",
                written(name, *form)
            )
        } else if is_repeated(asked, of) {
            format!("did you mean [[{of}]] `{name}`?")
        } else {
            format!("did you mean [{of}] `{name}`?")
        });
    }
    foreign(section, key).map(str::to_owned).or_else(|| {
        let keys: Vec<_> = known()
            .map(|(_, name, form)| written(name, *form))
            .collect();
        (!section.is_empty() && !keys.is_empty())
            .then(|| format!("its keys are {}", keys.join(", ")))
    })
}

fn is_repeated(asked: &Asked, section: &str) -> bool {
    asked
        .iter()
        .any(|(of, name, form)| of.is_empty() && *name == section && *form == Form::Tables)
}

fn written(name: &str, form: Form) -> String {
    match form {
        Form::Key => name.to_owned(),
        Form::Table => format!("[{name}]"),
        Form::Tables => format!("[[{name}]]"),
    }
}

/// Words that other programs use for the same things.
fn foreign(section: &str, key: &str) -> Option<&'static str> {
    Some(match (section, key.to_ascii_lowercase().as_str()) {
        ("connector", "secure" | "ssl" | "smtps") => {
            "write tls = \"implicit\" (secure = true) or tls = \"opportunistic\" (secure = false)"
        }
        ("connector", "requiretls") => "write tls = \"starttls\"",
        ("connector", "ignoretls") => "write tls = \"off\"",
        ("connector", "verificationmode") => "write verify = \"full\", \"certificate\" or \"none\"",
        ("connector", "user" | "login") => "did you mean `username`?",
        ("connector", "server" | "smarthost" | "relayhost") => "did you mean `host`?",
        ("" | "outbound", "allowedhosts") => "did you mean [outbound] `allowed_hosts`?",
        ("" | "allowlist", "domain_allowlist") => "write [allowlist] `senders` and `recipients`",
        ("listener", "port" | "bind" | "host" | "listen") => {
            "the port is part of the address: address = \"127.0.0.1:25\""
        }
        _ => return None,
    })
}

/// The most similar word, when it is similar enough to be a slip of the pen.
pub(super) fn nearest<'n>(word: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // A megabyte of a key is no slip of the pen, and comparing takes time by its length.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    known
        .map(|name| {
            let other = name.to_lowercase().replace('-', "_");
            (strsim::damerau_levenshtein(&word, &other), name)
        })
        .filter(|(distance, name)| *distance <= (name.len().min(word.len()) / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// One table of the file, or one that is absent and gives defaults.
#[derive(Debug)]
pub(super) struct Table<'a> {
    source: &'a Source<'a>,
    section: &'static str,
    entries: Option<&'a DeTable<'a>>,
    /// The header of the section.
    pub(super) span: Span,
    taken: RefCell<BTreeSet<&'static str>>,
}

/// A key with its value.
#[derive(Debug, Clone)]
struct Entry<'a> {
    value: &'a DeValue<'a>,
    span: Span,
}

impl<'a> Table<'a> {
    pub(super) fn root(source: &'a Source<'a>, root: &'a Spanned<DeTable<'a>>) -> Self {
        Self::new(source, "", Some(root.get_ref()), 0..0)
    }

    fn new(
        source: &'a Source<'a>,
        section: &'static str,
        entries: Option<&'a DeTable<'a>>,
        span: Span,
    ) -> Self {
        Self {
            source,
            section,
            entries,
            span,
            taken: RefCell::default(),
        }
    }

    fn label(&self) -> String {
        match self.section {
            "" => "the top level ".to_owned(),
            section if section.contains('.') => format!(
                "the table of `{}` ",
                section.rsplit('.').next().unwrap_or(section)
            ),
            section if is_repeated(&self.source.asked.borrow(), section) => {
                format!("[[{section}]] ")
            }
            section => format!("[{section}] "),
        }
    }

    fn entry(&self, key: &'static str, form: Form) -> Option<Entry<'a>> {
        self.taken.borrow_mut().insert(key);
        self.source
            .asked
            .borrow_mut()
            .insert((self.section, key, form));
        let value = self.entries?.get(key)?;
        Some(Entry {
            value: value.get_ref(),
            span: value.span(),
        })
    }

    /// Whether the key is there.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.place(key).is_some()
    }

    /// Where the value of the key is.
    pub(super) fn place(&self, key: &'static str) -> Option<Span> {
        Some(self.entries?.get(key)?.span())
    }

    /// Where the value of the key is, else the header of the section.
    pub(super) fn place_or_header(&self, key: &'static str) -> Span {
        self.place(key).unwrap_or_else(|| self.span.clone())
    }

    pub(super) fn is_present(&self) -> bool {
        self.entries.is_some()
    }

    /// Marks a key as known without reading it (a key another key makes pointless).
    pub(super) fn skip(&self, key: &'static str) {
        let _ = self.entry(key, Form::Key);
    }

    /// Marks every key as known: the section was refused as a whole.
    pub(super) fn skip_all(&self) {
        self.taken.borrow_mut().clear();
        self.taken.borrow_mut().insert("*");
    }

    fn wrong_type(&self, key: &str, entry: &Entry<'_>, wanted: &str) {
        self.source.error(
            &entry.span,
            Fault::from(format!("`{key}` takes {wanted}, not {}", kind(entry.value))),
        );
    }

    /// The text of a string.
    pub(super) fn text(&self, key: &'static str, wanted: &str) -> Option<At<&'a str>> {
        let entry = self.entry(key, Form::Key)?;
        if let DeValue::String(text) = entry.value {
            return Some(At {
                value: text.as_ref(),
                span: entry.span,
            });
        }
        self.wrong_type(key, &entry, wanted);
        None
    }

    /// A string that is read by `read`.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        wanted: &str,
        read: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<At<T>> {
        let At { value, span } = self.text(key, wanted)?;
        match read(value) {
            Ok(value) => Some(At { value, span }),
            Err(fault) => {
                self.source.error(&span, fault);
                None
            }
        }
    }

    /// Says that a key is missing, with the line to write.
    pub(super) fn missing(&self, key: &str, example: &str) {
        self.source.error(
            &self.span,
            Fault::new(
                format!("{}needs `{key}`", self.label()),
                format!("add {example}"),
            ),
        );
    }

    /// Whether the key is absent; then says so.
    pub(super) fn requires(&self, key: &'static str, example: &str) -> bool {
        let absent = !self.has(key);
        if absent {
            self.missing(key, example);
        }
        absent
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        match self.entry(key, Form::Key) {
            None => default,
            Some(Entry {
                value: DeValue::Boolean(value),
                ..
            }) => *value,
            Some(entry) => {
                self.wrong_type(key, &entry, "true or false");
                default
            }
        }
    }

    pub(super) fn number(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        self.number_if(key, range).unwrap_or(default)
    }

    pub(super) fn number_if(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let entry = self.entry(key, Form::Key)?;
        let DeValue::Integer(value) = entry.value else {
            self.wrong_type(key, &entry, "a number");
            return None;
        };
        match u64::from_str_radix(value.as_str().trim_start_matches('+'), value.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                self.out_of_range(key, &entry.span, range.start(), range.end());
                None
            }
        }
    }

    fn out_of_range(&self, key: &str, span: &Span, least: impl Display, most: impl Display) {
        self.source.error(
            span,
            Fault::from(format!("`{key}` must be between {least} and {most}")),
        );
    }

    /// A duration within bounds, which are given as the file would write them.
    pub(super) fn duration(
        &self,
        key: &'static str,
        (least, most): (&str, &str),
        default: Duration,
    ) -> Duration {
        let wanted = "a duration such as \"90s\" or \"5m\"";
        let Some(At { value, span }) = self.parsed(key, wanted, values::duration) else {
            return default;
        };
        let bound = |text| values::duration(text).unwrap_or(default);
        if (bound(least)..=bound(most)).contains(&value) {
            return value;
        }
        self.out_of_range(key, &span, format!("\"{least}\""), format!("\"{most}\""));
        default
    }

    /// A size within bounds, which are given as the file would write them.
    pub(super) fn size(&self, key: &'static str, (least, most): (&str, &str), default: u64) -> u64 {
        let Some(At { value, span }) = self.parsed(key, "a size such as \"35MiB\"", values::size)
        else {
            return default;
        };
        let bound = |text| values::size(text).unwrap_or(default);
        if (bound(least)..=bound(most)).contains(&value) {
            return value;
        }
        self.out_of_range(key, &span, format!("\"{least}\""), format!("\"{most}\""));
        default
    }

    /// One of a few words.
    pub(super) fn choice<T: Clone>(&self, key: &'static str, words: &[(&str, T)]) -> Option<At<T>> {
        let all = || {
            let quoted: Vec<_> = words
                .iter()
                .map(|(word, _)| format!("\"{word}\""))
                .collect();
            match quoted.split_last() {
                Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                _ => quoted.join(""),
            }
        };
        self.parsed(key, &all(), |text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| Fault {
                    message: format!("`{key}` takes {}, not \"{}\"", all(), plain(text)),
                    hint: nearest(text, words.iter().map(|(word, _)| *word))
                        .map(|word| format!("did you mean \"{word}\"?")),
                })
        })
    }

    /// A list of strings, each read by `read`. `None`: absent, or not a list.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        mut read: impl FnMut(&str) -> Result<T, Fault>,
    ) -> Option<At<Vec<At<T>>>> {
        let entry = self.entry(key, Form::Key)?;
        let DeValue::Array(array) = entry.value else {
            let hint = match entry.value {
                DeValue::String(text) => Some(format!("write {key} = [\"{}\"]", plain(text))),
                _ => None,
            };
            self.source.error(
                &entry.span,
                Fault {
                    message: format!("`{key}` takes a list of strings, not {}", kind(entry.value)),
                    hint,
                },
            );
            return None;
        };
        let mut values = Vec::new();
        for item in array.iter() {
            let DeValue::String(text) = item.get_ref() else {
                self.source.error(
                    &item.span(),
                    Fault::from(format!(
                        "`{key}` takes a list of strings, and this is {}",
                        kind(item.get_ref())
                    )),
                );
                continue;
            };
            match read(text) {
                Ok(value) => values.push(At {
                    value,
                    span: item.span(),
                }),
                Err(fault) => self.source.error(&item.span(), fault),
            }
        }
        Some(At {
            value: values,
            span: entry.span,
        })
    }

    /// A list of patterns. `None`: absent, or not a list.
    pub(super) fn patterns(&self, key: &'static str) -> Option<Vec<Pattern>> {
        Some(bare(self.list(key, values::pattern)?.value))
    }

    /// A list of networks; absent is empty.
    pub(super) fn networks(&self, key: &'static str) -> Vec<At<IpNet>> {
        self.list(key, values::network)
            .map(|list| list.value)
            .unwrap_or_default()
    }

    /// A section; an absent one gives defaults.
    pub(super) fn table(&self, key: &'static str, section: &'static str) -> Table<'a> {
        match self.entry(key, Form::Table) {
            None => Table::new(self.source, section, None, self.span.clone()),
            Some(Entry {
                value: DeValue::Table(table),
                span,
            }) => Table::new(self.source, section, Some(table), span),
            Some(entry) => {
                let fault = if let DeValue::Array(_) = entry.value {
                    Fault::new(
                        format!("there is one [{key}] only"),
                        format!("write [{key}], with one pair of brackets"),
                    )
                } else {
                    Fault::from(format!("`{key}` is a section, not {}", kind(entry.value)))
                };
                self.source.error(&entry.span, fault);
                Table::new(self.source, section, None, entry.span)
            }
        }
    }

    /// A string or a table, as secrets are written.
    pub(super) fn string_or_table(
        &self,
        key: &'static str,
        section: &'static str,
    ) -> Option<Result<At<&'a str>, Table<'a>>> {
        let entry = self.entry(key, Form::Key)?;
        match entry.value {
            DeValue::String(text) => Some(Ok(At {
                value: text.as_ref(),
                span: entry.span,
            })),
            DeValue::Table(table) => Some(Err(Table::new(
                self.source,
                section,
                Some(table),
                entry.span,
            ))),
            _ => {
                self.wrong_type(
                    key,
                    &entry,
                    "a string or a table such as { env = \"NAME\" }, { file = \"path\" }, { credential = \"name\" }",
                );
                None
            }
        }
    }

    /// A list of inline tables.
    pub(super) fn inline_tables(&self, key: &'static str, section: &'static str) -> Vec<Table<'a>> {
        let Some(entry) = self.entry(key, Form::Key) else {
            return Vec::new();
        };
        let DeValue::Array(array) = entry.value else {
            self.wrong_type(key, &entry, "a list of tables");
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in array.iter() {
            if let DeValue::Table(table) = item.get_ref() {
                tables.push(Table::new(self.source, section, Some(table), item.span()));
            } else {
                let fault = format!(
                    "`{key}` takes a list of tables, and this is {}",
                    kind(item.get_ref())
                );
                self.source.error(&item.span(), fault);
            }
        }
        tables
    }

    /// A section that may occur more than once.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Table<'a>> {
        let Some(entry) = self.entry(key, Form::Tables) else {
            return Vec::new();
        };
        match entry.value {
            DeValue::Array(array) => array
                .iter()
                .filter_map(|item| {
                    if let DeValue::Table(table) = item.get_ref() {
                        return Some(Table::new(self.source, key, Some(table), item.span()));
                    }
                    self.source.error(
                        &item.span(),
                        Fault::from(format!(
                            "`{key}` is a section, not {}",
                            kind(item.get_ref())
                        )),
                    );
                    None
                })
                .collect(),
            DeValue::Table(table) => {
                self.source.error(
                    &entry.span,
                    Fault::new(
                        format!(
                            "there may be several [[{key}]], so it is written with two brackets"
                        ),
                        format!("write [[{key}]]"),
                    ),
                );
                vec![Table::new(self.source, key, Some(table), entry.span)]
            }
            _ => {
                self.source.error(
                    &entry.span,
                    Fault::from(format!("`{key}` is a section, not {}", kind(entry.value))),
                );
                Vec::new()
            }
        }
    }

    /// Every key that was not asked for is unknown.
    pub(super) fn finish(self) {
        let taken = self.taken.borrow();
        let Some(entries) = self.entries.filter(|_| !taken.contains("*")) else {
            return;
        };
        for (key, _) in entries {
            if !taken.contains(key.get_ref().as_ref()) {
                self.source.unknown.borrow_mut().push(Unknown {
                    section: self.section,
                    label: self.label(),
                    key: key.get_ref().to_string(),
                    span: key.span(),
                });
            }
        }
    }
}

/// Without places.
pub(super) fn bare<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|at| at.value).collect()
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
