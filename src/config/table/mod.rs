//! A reader over the parsed file that collects every problem with its place (design: all problems in one run).
//!
//! Apart because it knows TOML and nothing of mail: a section asks for its keys one by one, what was not asked for is
//! an unknown key. It resolves no secret and touches no file.

mod nested;

use std::{
    cell::RefCell, collections::BTreeSet, fmt::Display, ops::RangeInclusive, time::Duration,
};

use ipnet::IpNet;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diagnostic::Span,
    source::{Form, Source, Unknown, nearest},
    values::{self, Fault, plain},
};
use crate::mail::pattern::Pattern;

/// A value and its place.
#[derive(Debug, Clone)]
pub(in crate::config) struct At<T> {
    pub(in crate::config) value: T,
    pub(in crate::config) span: Span,
}

/// One table of the file, or one that is absent and gives defaults.
#[derive(Debug)]
pub(in crate::config) struct Table<'a> {
    source: &'a Source<'a>,
    section: &'static str,
    entries: Option<&'a DeTable<'a>>,
    /// The header of the section.
    pub(in crate::config) span: Span,
    taken: RefCell<BTreeSet<&'static str>>,
}

/// A key with its value.
#[derive(Debug, Clone)]
struct Entry<'a> {
    value: &'a DeValue<'a>,
    span: Span,
}

impl<'a> Table<'a> {
    pub(in crate::config) fn root(source: &'a Source<'a>, root: &'a Spanned<DeTable<'a>>) -> Self {
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
            "secret" => "this table ".to_owned(),
            section if section.contains('.') => format!(
                "the table of `{}` ",
                section.rsplit('.').next().unwrap_or(section)
            ),
            section if self.source.is_repeated(section) => {
                format!("[[{section}]] ")
            }
            section => format!("[{section}] "),
        }
    }

    fn entry(&self, key: &'static str, form: Form) -> Option<Entry<'a>> {
        self.taken.borrow_mut().insert(key);
        self.source.ask(self.section, key, form);
        let value = self.entries?.get(key)?;
        Some(Entry {
            value: value.get_ref(),
            span: value.span(),
        })
    }

    /// Whether the key is there.
    pub(in crate::config) fn has(&self, key: &'static str) -> bool {
        self.place(key).is_some()
    }

    /// Where the value of the key is.
    pub(in crate::config) fn place(&self, key: &'static str) -> Option<Span> {
        Some(self.entries?.get(key)?.span())
    }

    /// Where the value of the key is, else the header of the section.
    pub(in crate::config) fn place_or_header(&self, key: &'static str) -> Span {
        self.place(key).unwrap_or_else(|| self.span.clone())
    }

    pub(in crate::config) fn is_present(&self) -> bool {
        self.entries.is_some()
    }

    /// Marks a key as known without reading it (a key another key makes pointless).
    pub(in crate::config) fn skip(&self, key: &'static str) {
        let _ = self.entry(key, Form::Key);
    }

    /// Marks every key as known: the section was refused as a whole.
    pub(in crate::config) fn skip_all(&self) {
        self.taken.borrow_mut().clear();
        self.taken.borrow_mut().insert("*");
    }

    fn wrong_type(&self, key: &str, entry: &Entry<'_>, wanted: &str) {
        // What was meant, where only quotes or a unit are wrong.
        let hint = match entry.value {
            DeValue::Integer(number) if wanted.starts_with("a duration") => {
                Some(format!("write {key} = \"{number}s\""))
            }
            DeValue::Integer(number) if wanted.starts_with("a size") => {
                Some(format!("write {key} = \"{number}B\""))
            }
            DeValue::String(text) if wanted == "a number" && text.parse::<u64>().is_ok() => {
                Some(format!("write {key} = {text}"))
            }
            // `tls = true`, `verify = false`.
            DeValue::Boolean(value) => meant(key, if *value { "true" } else { "false" })
                .filter(|word| wanted.contains(&format!("\"{word}\"")))
                .map(|word| format!("write {key} = \"{word}\"")),
            DeValue::String(text) if wanted == "true or false" => match text.as_ref() {
                "true" | "yes" | "on" => Some(format!("write {key} = true")),
                "false" | "no" | "off" => Some(format!("write {key} = false")),
                _ => None,
            },
            _ => None,
        };
        self.source.error(
            &entry.span,
            Fault {
                message: format!("`{key}` takes {wanted}, not {}", kind(entry.value)),
                hint,
            },
        );
    }

    /// The text of a string.
    pub(in crate::config) fn text(&self, key: &'static str, wanted: &str) -> Option<At<&'a str>> {
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
    pub(in crate::config) fn parsed<T>(
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
    pub(in crate::config) fn missing(&self, key: &str, example: &str) {
        self.source.error(
            &self.span,
            Fault::new(
                format!("{}needs `{key}`", self.label()),
                format!("add {example}"),
            ),
        );
    }

    /// Whether the key is absent; then says so.
    pub(in crate::config) fn requires(&self, key: &'static str, example: &str) -> bool {
        let absent = !self.has(key);
        if absent {
            self.missing(key, example);
        }
        absent
    }

    pub(in crate::config) fn flag(&self, key: &'static str, default: bool) -> bool {
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

    pub(in crate::config) fn number(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        self.number_if(key, range).unwrap_or(default)
    }

    pub(in crate::config) fn number_if(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
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
    pub(in crate::config) fn duration(
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
    pub(in crate::config) fn size(
        &self,
        key: &'static str,
        (least, most): (&str, &str),
        default: u64,
    ) -> u64 {
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
    pub(in crate::config) fn choice<T: Clone>(
        &self,
        key: &'static str,
        words: &[(&str, T)],
    ) -> Option<At<T>> {
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
                    hint: words
                        .iter()
                        .map(|(word, _)| *word)
                        .find(|word| word.len() > 2 && text.to_lowercase().starts_with(word))
                        .or_else(|| nearest(text, words.iter().map(|(word, _)| *word)))
                        .or_else(|| {
                            let meant = meant(key, &text.to_lowercase())?;
                            words
                                .iter()
                                .map(|(word, _)| *word)
                                .find(|word| *word == meant)
                        })
                        .map(|word| format!("did you mean \"{word}\"?")),
                })
        })
    }

    /// A list of strings, each read by `read`. `None`: absent, or not a list.
    pub(in crate::config) fn list<T>(
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
        for item in array {
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

    /// Whether the key is there and its list is written empty; a list whose entries are all wrong is not.
    pub(in crate::config) fn is_empty_list(&self, key: &'static str) -> bool {
        self.entries
            .and_then(|entries| entries.get(key))
            .is_some_and(
                |value| matches!(value.get_ref(), DeValue::Array(array) if array.is_empty()),
            )
    }

    /// A list of patterns. `None`: absent, or not a list.
    pub(in crate::config) fn patterns(&self, key: &'static str) -> Option<Vec<Pattern>> {
        Some(bare(self.list(key, values::pattern)?.value))
    }

    /// A list of networks; absent is empty.
    pub(in crate::config) fn networks(&self, key: &'static str) -> Vec<At<IpNet>> {
        self.list(key, values::network)
            .map(|list| list.value)
            .unwrap_or_default()
    }

    /// Every key that was not asked for is unknown.
    pub(in crate::config) fn finish(self) {
        let taken = self.taken.borrow();
        let Some(entries) = self.entries.filter(|_| !taken.contains("*")) else {
            return;
        };
        for (key, value) in entries {
            if !taken.contains(key.get_ref().as_ref()) {
                self.source.unknown(Unknown {
                    section: self.section,
                    label: self.label(),
                    key: key.get_ref().to_string(),
                    span: key.span(),
                    is_section: self.section.is_empty()
                        && match value.get_ref() {
                            DeValue::Table(_) => true,
                            DeValue::Array(array) => array
                                .iter()
                                .any(|item| matches!(item.get_ref(), DeValue::Table(_))),
                            _ => false,
                        },
                });
            }
        }
    }
}

/// What another program's word for a choice comes to.
fn meant(key: &str, word: &str) -> Option<&'static str> {
    Some(match (key, word) {
        ("tls", "true" | "yes" | "on" | "tls" | "required" | "encrypt" | "must" | "force") => {
            "starttls"
        }
        ("tls", "ssl" | "smtps" | "ssl/tls" | "wrapper" | "always") => "implicit",
        ("tls", "may" | "optional" | "auto") => "opportunistic",
        ("tls" | "auth", "false" | "no" | "none" | "plain" | "disabled") => "off",
        ("verify", "true" | "yes" | "on" | "strict" | "hostname") => "full",
        ("verify", "false" | "no" | "off" | "insecure" | "skip") => "none",
        ("verify", "ca" | "chain") => "certificate",
        ("auth", "true" | "yes" | "on" | "mandatory") => "required",
        ("level", "warning") => "warn",
        ("level", "notice" | "information" | "informational") => "info",
        ("level", "verbose" | "all") => "debug",
        ("level", "fatal" | "critical" | "err") => "error",
        ("format", "plain" | "console" | "text/plain" | "logfmt") => "text",
        ("format", "systemd" | "journal") => "journald",
        ("tolerance", "lax" | "lenient" | "loose" | "printer") => "device",
        ("tolerance", "default" | "normal") => "standard",
        _ => return None,
    })
}

/// Without places.
pub(in crate::config) fn bare<T>(list: Vec<At<T>>) -> Vec<T> {
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
