//! How a key of the file is described: the form of its value, its default, its words, and the section that it stands in.

use std::fmt::Debug;

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `true` or `false`.
    Flag,
    /// A number within bounds.
    Number(u64, u64),
    /// A duration within bounds, as the file writes them.
    Duration(&'static str, &'static str),
    /// A size within bounds, as the file writes them.
    Size(&'static str, &'static str),
    /// One of these.
    Word(&'static [&'static str]),
    /// A day: `2027-05-01`, with or without quotes.
    Day,
    /// A string.
    Text(Text),
    /// A list of such strings.
    List(Text),
    /// `true`, or a string.
    TrueOr(Text),
    /// A string, or a table of the section `secret`.
    Secret,
    /// A table as a value, whose keys are any names, and whose values are one of these.
    Names(&'static [&'static str]),
    /// A table as a value, of the section `THIS.KEY`.
    Inner,
    /// A list of those.
    Inners,
    /// `[KEY]`.
    Section,
    /// `[[KEY]]`, as many as there are.
    Sections,
}

/// A kind of string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text {
    /// In "`key` takes …".
    pub(super) wanted: &'static str,
    /// A regular expression.
    pub(super) pattern: &'static str,
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// As the file writes it, a string without its quotes; empty: there is none, or the words say it.
    pub(super) default: &'static str,
    /// What it is for.
    pub(super) words: &'static str,
}

impl Key {
    /// As it stands in the file.
    pub(super) fn written(&self) -> String {
        match self.form {
            Form::Section => format!("[{}]", self.name),
            Form::Sections => format!("[[{}]]", self.name),
            _ => self.name.to_owned(),
        }
    }

    /// Its words. Each value ends in its word, and that holds the order of both.
    pub(super) fn words<T: Debug>(&self, values: &[T]) -> &'static [&'static str] {
        let Form::Word(words) = self.form else {
            return &[];
        };
        let bare = |text: &str| {
            text.replace(|c: char| !c.is_ascii_alphanumeric(), "")
                .to_lowercase()
        };
        let called =
            |(word, value): (&&str, &T)| bare(&format!("{value:?}")).ends_with(&bare(word));
        debug_assert!(
            words.len() == values.len() && words.iter().zip(values).all(called),
            "{} takes {words:?}, and these are {values:?}",
            self.name
        );
        words
    }
}

/// The keys of a section, or those that its `type` or `provider` adds and changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    /// With the name of the section that it is a value in: `connector.oauth`; empty: the top of the file.
    pub(super) name: &'static str,
    /// The `type` or `provider`; empty: any.
    pub(super) kind: &'static str,
    /// What must be there.
    pub(super) needs: &'static [&'static str],
    pub(super) keys: &'static [&'static [Key]],
}
