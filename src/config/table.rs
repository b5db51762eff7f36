//! A reader over the parsed file that collects every problem with its place, all in one run.
//!
//! It knows TOML and nothing of mail: a section asks for its keys one by one, and `keys` says how each is written. It
//! resolves no secret and touches no file.

use std::{
    cell::Cell,
    fmt::{Debug, Display},
    time::Duration,
};

use ipnet::IpNet;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

pub(super) use super::source::{At, bare};
use super::{
    diagnostic::Span,
    keys::{self, Form, Key},
    source::Source,
    values::{self, Fault, fault, plain},
    wording,
};
use crate::mail::pattern::Pattern;
mod day;

/// One table of the file, or one that is absent and gives defaults.
#[derive(Debug)]
pub(super) struct Table<'a> {
    source: &'a Source<'a>,
    section: &'static str,
    /// Its `type` or `provider`, when that has been read.
    kind: Cell<&'static str>,
    entries: Option<&'a DeTable<'a>>,
    /// The header of the section.
    pub(super) span: Span,
}

/// A key with its value.
struct KeyValue<'a> {
    key: &'static Key,
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
            kind: Cell::new(""),
            entries,
            span,
        }
    }

    fn below(&self, section: &'static str, entries: &'a DeTable<'a>, span: Span) -> Self {
        Self::new(self.source, section, Some(entries), span)
    }

    /// Says what the `type` or `provider` is. Without it nothing is said of keys that are not known.
    pub(super) fn set_kind(&self, kind: &'static str) {
        self.kind.set(kind);
    }

    fn label(&self) -> String {
        match self.section {
            "" => "the top level ".to_owned(),
            "secret" => "this table ".to_owned(),
            section if section.contains('.') => {
                format!(
                    "the table of `{}` ",
                    section.rsplit('.').next().unwrap_or(section)
                )
            }
            section if keys::is_repeated(section) => format!("[[{section}]] "),
            section => format!("[{section}] "),
        }
    }

    /// What is known of a key. A section that asks for one that stands nowhere is a mistake in this program.
    fn key(&self, name: &str) -> Option<&'static Key> {
        let found = keys::of(self.section, self.kind.get()).find(|key| key.name == name);
        debug_assert!(found.is_some(), "no key {name} of [{}]", self.section);
        found
    }

    fn default(&self, name: &str) -> &'static str {
        self.key(name).map_or("", |key| key.default)
    }

    fn entry(&self, name: &str) -> Option<KeyValue<'a>> {
        let key = self.key(name)?;
        let value = self.entries?.get(name)?;
        Some(KeyValue {
            key,
            value: value.get_ref(),
            span: value.span(),
        })
    }

    /// Whether the key is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    /// Where the value of the key is.
    pub(super) fn place(&self, name: &str) -> Option<Span> {
        Some(self.entries?.get(name)?.span())
    }

    /// Where the value of the key is, else the header of the section.
    pub(super) fn place_or_header(&self, name: &str) -> Span {
        self.place(name).unwrap_or_else(|| self.span.clone())
    }

    /// Says what is wrong, where the key is, else at the header of the section.
    pub(super) fn error(&self, name: &str, fault: impl Into<Fault>) {
        self.source.error(&self.place_or_header(name), fault);
    }

    pub(super) fn warning(&self, name: &str, fault: impl Into<Fault>) {
        self.source.warning(&self.place_or_header(name), fault);
    }

    pub(super) fn is_present(&self) -> bool {
        self.entries.is_some()
    }

    /// Says that the value is of another type; nothing can be read.
    fn wrong_type<T>(&self, KeyValue { key, value, span }: KeyValue<'_>) -> Option<T> {
        self.source.error(&span, wording::wrong_type(key, value));
        None
    }

    fn checked<T>(&self, read: Result<T, Fault>, span: &Span) -> Option<T> {
        read.map_err(|fault| self.source.error(span, fault)).ok()
    }

    /// The text of a string.
    pub(super) fn text(&self, name: &str) -> Option<At<&'a str>> {
        let entry = self.entry(name)?;
        let DeValue::String(text) = entry.value else {
            return self.wrong_type(entry);
        };
        Some(At::new(text.as_ref(), entry.span))
    }

    /// A string that is read by `read`.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<At<T>> {
        let At { value, span } = self.text(name)?;
        let value = self.checked(read(value), &span)?;
        Some(At { value, span })
    }

    /// The same, or the default if there is one.
    pub(super) fn parsed_or_default<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let given = self.parsed(name, &read).map(|given| given.value);
        given.or_else(|| read(self.default(name)).ok())
    }

    /// Says so when a key is missing, with the line to write.
    pub(super) fn requires(&self, name: &str, example: &str) {
        if !self.has(name) {
            self.source.error(
                &self.span,
                fault!("{}needs `{name}`", self.label(); "add {example}"),
            );
        }
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        let given = self.entry(name).and_then(|entry| match entry.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong_type(entry),
        });
        given.unwrap_or_else(|| self.default(name) == "true")
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        let default = || self.default(name).parse().unwrap_or_default();
        self.number_if(name).unwrap_or_else(default)
    }

    pub(super) fn number_if(&self, name: &str) -> Option<u64> {
        let entry = self.entry(name)?;
        let DeValue::Integer(value) = entry.value else {
            return self.wrong_type(entry);
        };
        let number = u64::from_str_radix(value.as_str().trim_start_matches('+'), value.radix());
        let Form::Number(least, most) = entry.key.form else {
            return number.ok();
        };
        let inside = number.ok().filter(|number| (least..=most).contains(number));
        inside.or_else(|| self.out_of_range(name, &entry.span, (least, most)))
    }

    fn out_of_range<T>(
        &self,
        name: &str,
        span: &Span,
        (least, most): (impl Display, impl Display),
    ) -> Option<T> {
        self.source
            .error(span, fault!("`{name}` must be between {least} and {most}"));
        None
    }

    /// A duration or a size within its bounds.
    fn bounded<T: PartialOrd>(&self, name: &str, read: fn(&str) -> Result<T, Fault>) -> Option<T> {
        let At { value, span } = self.parsed(name, read)?;
        let (Form::Duration(least, most) | Form::Size(least, most)) = self.key(name)?.form else {
            return Some(value);
        };
        let inside = read(least).is_ok_and(|least| least <= value)
            && read(most).is_ok_and(|most| value <= most);
        if inside {
            return Some(value);
        }
        self.out_of_range(name, &span, (format!("\"{least}\""), format!("\"{most}\"")))
    }

    pub(super) fn duration_if(&self, name: &str) -> Option<Duration> {
        self.bounded(name, values::duration)
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        let default = || values::duration(self.default(name)).unwrap_or_default();
        self.duration_if(name).unwrap_or_else(default)
    }

    pub(super) fn size(&self, name: &str) -> u64 {
        let default = || values::size(self.default(name)).unwrap_or_default();
        self.bounded(name, values::size).unwrap_or_else(default)
    }

    /// What one of a few words stands for; `values` in the order of the words.
    pub(super) fn choice_if<T: Copy + Debug, const N: usize>(
        &self,
        name: &str,
        values: [T; N],
    ) -> Option<At<T>> {
        let words = self.key(name).map_or(&[][..], |key| key.words(&values));
        self.parsed(name, |text| {
            let at = words.iter().position(|word| *word == text);
            at.and_then(|at| values.get(at).copied())
                .ok_or_else(|| wording::not_among(name, words, text))
        })
    }

    /// The same, or what the default stands for.
    pub(super) fn choice<T: Copy + Debug, const N: usize>(&self, name: &str, values: [T; N]) -> T {
        const { assert!(N > 0, "there is a word") };
        let words = self.key(name).map_or(&[][..], |key| key.words(&values));
        let at = words
            .iter()
            .position(|word| *word == self.default(name))
            .unwrap_or(0);
        self.choice_if(name, values)
            .map_or(values[at.min(N - 1)], |given| given.value)
    }

    /// A list of strings, each read by `read`. `None`: absent, or not a list.
    pub(super) fn list<T>(
        &self,
        name: &str,
        mut read: impl FnMut(&str) -> Result<T, Fault>,
    ) -> Option<At<Vec<At<T>>>> {
        let entry = self.entry(name)?;
        let DeValue::Array(array) = entry.value else {
            return self.wrong_type(entry);
        };
        let mut value = Vec::new();
        for item in array {
            let span = item.span();
            let DeValue::String(text) = item.get_ref() else {
                let what = wording::named(item.get_ref());
                self.source.error(
                    &span,
                    fault!("`{name}` takes a list of strings, and this is {what}"),
                );
                continue;
            };
            if let Some(read) = self.checked(read(text), &span) {
                value.push(At { value: read, span });
            }
        }
        Some(At::new(value, entry.span))
    }

    /// The same without places, or the default.
    pub(super) fn list_or_default<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Vec<T> {
        match self.list(name, &read) {
            Some(list) => bare(list.value),
            None => self.default_list(name, read),
        }
    }

    pub(super) fn default_list<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Vec<T> {
        let texts: Vec<String> = serde_json::from_str(self.default(name)).unwrap_or_default();
        texts.iter().filter_map(|text| read(text).ok()).collect()
    }

    /// Whether the key is there and its list is written empty; a list whose entries are all wrong is not.
    pub(super) fn is_empty_list(&self, name: &str) -> bool {
        let value = self
            .entries
            .and_then(|entries| entries.get(name))
            .map(Spanned::get_ref);
        matches!(value, Some(DeValue::Array(array)) if array.is_empty())
    }

    /// A list of patterns. `None`: absent, or not a list.
    pub(super) fn patterns(&self, name: &str) -> Option<Vec<Pattern>> {
        Some(bare(self.list(name, values::pattern)?.value))
    }

    /// A list of networks; absent is empty.
    pub(super) fn networks(&self, name: &str) -> Vec<At<IpNet>> {
        let list = self.list(name, values::network);
        list.map(|list| list.value).unwrap_or_default()
    }

    /// A string or a table, as secrets are written.
    pub(super) fn string_or_table(&self, name: &str) -> Option<Result<At<&'a str>, Table<'a>>> {
        let entry = self.entry(name)?;
        match entry.value {
            DeValue::String(text) => Some(Ok(At::new(text.as_ref(), entry.span))),
            DeValue::Table(table) => Some(Err(self.below("secret", table, entry.span))),
            _ => self.wrong_type(entry),
        }
    }

    /// `true` (`None`), or a string.
    pub(super) fn true_or_text(&self, name: &str) -> Option<At<Option<&'a str>>> {
        let entry = self.entry(name)?;
        let value = match entry.value {
            DeValue::Boolean(true) => None,
            DeValue::String(text) => Some(text.as_ref()),
            DeValue::Boolean(false) => {
                self.source.error(
                    &entry.span,
                    fault!("`{name}` takes true or a string"; "leave `{name}` out"),
                );
                return None;
            }
            _ => return self.wrong_type(entry),
        };
        Some(At::new(value, entry.span))
    }

    /// A table of any names and strings.
    pub(super) fn names(&self, name: &str) -> Vec<(String, At<&'a str>)> {
        let table = self.inner(name, "names").and_then(|table| table.entries);
        let mut all = Vec::new();
        for (name, value) in table.into_iter().flatten() {
            let text = value.get_ref().as_str().unwrap_or_default();
            all.push((name.get_ref().to_string(), At::new(text, value.span())));
        }
        all
    }

    /// A table as the value of a key.
    pub(super) fn inner(&self, name: &str, section: &'static str) -> Option<Table<'a>> {
        let entry = self.entry(name)?;
        let DeValue::Table(table) = entry.value else {
            return self.wrong_type(entry);
        };
        Some(self.below(section, table, entry.span))
    }

    /// A list of inline tables.
    pub(super) fn inner_tables(&self, name: &str, section: &'static str) -> Vec<Table<'a>> {
        let Some(entry) = self.entry(name) else {
            return Vec::new();
        };
        let DeValue::Array(array) = entry.value else {
            return self.wrong_type(entry).unwrap_or_default();
        };
        let mut tables = Vec::new();
        for item in array {
            if let DeValue::Table(table) = item.get_ref() {
                tables.push(self.below(section, table, item.span()));
            } else {
                let what = wording::named(item.get_ref());
                self.source.error(
                    &item.span(),
                    fault!("`{name}` takes a list of tables, and this is {what}"),
                );
            }
        }
        tables
    }

    /// A section; an absent one gives defaults.
    pub(super) fn table(&self, section: &'static str) -> Table<'a> {
        let entry = self.entry(section);
        let span = entry
            .as_ref()
            .map_or(&self.span, |entry| &entry.span)
            .clone();
        let entries = entry.and_then(|entry| match entry.value {
            DeValue::Table(table) => Some(table),
            DeValue::Array(_) => {
                let fault = fault!("there is one [{section}] only"; "write [{section}], with one pair of brackets");
                self.source.error(&entry.span, fault);
                None
            }
            other => self.no_section(section, other, &entry.span),
        });
        Table::new(self.source, section, entries, span)
    }

    fn no_section<T>(&self, section: &str, value: &DeValue<'_>, span: &Span) -> Option<T> {
        self.source.error(
            span,
            fault!("`{section}` is a section, not {}", wording::named(value)),
        );
        None
    }

    /// A section that may occur more than once.
    pub(super) fn tables(&self, section: &'static str) -> Vec<Table<'a>> {
        let Some(entry) = self.entry(section) else {
            return Vec::new();
        };
        let one = |value: &'a DeValue<'a>, span: Span| {
            if let DeValue::Table(table) = value {
                return Some(self.below(section, table, span));
            }
            self.no_section(section, value, &span)
        };
        if let DeValue::Array(array) = entry.value {
            let items = array.iter();
            return items
                .filter_map(|item| one(item.get_ref(), item.span()))
                .collect();
        }
        if let DeValue::Table(_) = entry.value {
            let fault = fault!("there may be several [[{section}]], so it is written with two brackets";
                "write [[{section}]]");
            self.source.error(&entry.span, fault);
        }
        one(entry.value, entry.span).into_iter().collect()
    }

    /// Says which keys of the table are not known.
    pub(super) fn finish(self) {
        let (section, kind) = (self.section, self.kind.get());
        if kind.is_empty() && keys::kinds(section).next().is_some() {
            return;
        }
        for (key, value) in self.entries.into_iter().flatten() {
            let name: &str = key.get_ref();
            if keys::of(section, kind).any(|known| known.name == name) {
                continue;
            }
            if section.is_empty() && keys::LATER.contains(&name) {
                let later =
                    fault!("[{name}] comes with a later version"; "remove the section for now");
                self.source.error(&value.span(), later);
                continue;
            }
            let message = if section.is_empty() && wording::is_section(value.get_ref()) {
                format!("there is no section [{}]", plain(name))
            } else {
                format!("{}has no key `{}`", self.label(), plain(name))
            };
            let hint = keys::suggestion(section, kind, name);
            self.source.error(&key.span(), Fault { message, hint });
        }
    }
}
