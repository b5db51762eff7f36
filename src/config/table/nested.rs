//! The tables inside a table: sections, repeated sections, inline tables.
//!
//! Apart from the values themselves for its length only.

use toml::de::DeValue;

use super::{Entry, Table, kind};
use crate::config::{source::Form, table::At, values::Fault};

impl<'a> Table<'a> {
    /// A section; an absent one gives defaults.
    pub(in crate::config) fn table(&self, key: &'static str, section: &'static str) -> Table<'a> {
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
    pub(in crate::config) fn string_or_table(
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

    /// A table as the value of a key.
    pub(in crate::config) fn inner(
        &self,
        key: &'static str,
        section: &'static str,
    ) -> Option<Table<'a>> {
        let entry = self.entry(key, Form::Key)?;
        let DeValue::Table(table) = entry.value else {
            self.wrong_type(key, &entry, "a table such as { provider = \"microsoft\" }");
            return None;
        };
        Some(Table::new(self.source, section, Some(table), entry.span))
    }

    /// `true` (`None`), or a string.
    pub(in crate::config) fn true_or_text(&self, key: &'static str) -> Option<At<Option<&'a str>>> {
        let entry = self.entry(key, Form::Key)?;
        let value = match entry.value {
            DeValue::Boolean(true) => None,
            DeValue::String(text) => Some(text.as_ref()),
            DeValue::Boolean(false) => {
                self.source.error(
                    &entry.span,
                    Fault::new(
                        format!("`{key}` takes true or a string"),
                        format!("leave `{key}` out"),
                    ),
                );
                return None;
            }
            _ => {
                self.wrong_type(key, &entry, "true or a string");
                return None;
            }
        };
        Some(At {
            value,
            span: entry.span,
        })
    }

    /// A list of inline tables.
    pub(in crate::config) fn inline_tables(
        &self,
        key: &'static str,
        section: &'static str,
    ) -> Vec<Table<'a>> {
        let Some(entry) = self.entry(key, Form::Key) else {
            return Vec::new();
        };
        let DeValue::Array(array) = entry.value else {
            self.wrong_type(key, &entry, "a list of tables");
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in array {
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
    pub(in crate::config) fn tables(&self, key: &'static str) -> Vec<Table<'a>> {
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
}
