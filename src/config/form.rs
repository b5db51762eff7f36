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

/// One that is no kind of its own.
pub(super) const fn text(wanted: &'static str, pattern: &'static str) -> Text {
    Text { wanted, pattern }
}

pub(super) const ANY: Text = text("a string", ".");
pub(super) const NAME: Text = text("a string", "^[A-Za-z0-9._-]{1,64}$");
pub(super) const DOMAIN: Text = text("a domain", r"^[^@\s]+$");
pub(super) const HOST: Text = text("a name", r"^[^@\s/]+$");
/// Names a file or a directory.
pub(super) const PATH: Text = text("a path", ".");
pub(super) const ADDRESS: Text = text("an address", "^[^<>]+@[^<>@]+$");
pub(super) const PATTERN: Text = text("a pattern", r"^(\*|<>|.*[@.].*)$");
pub(super) const NETWORK: Text = text("a network", "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$");
pub(super) const HOSTS: Text = text("a host", r"^[^@\s]+$");
pub(super) const PROXY: Text = text(
    "a proxy such as \"http://proxy:3128\"",
    "^(none|http://.+|socks5h?://.+)$",
);
pub(super) const URL: Text = text("a URL", r"^\s*[hH][tT][tT][pP][sS]?:.+$");
pub(super) const SCOPE: Text = text("a scope", ".");
pub(super) const IDENTIFIER: Text = text("a name", "^.{1,63}$");
pub(super) const WAIT: Text = text("a duration", DURATION);
pub(super) const LONGEST: Text = text(
    "a duration, or \"off\"",
    "^(off|[0-9]+ *(ms|s|sec|m|min|h|d) *)$",
);
pub(super) const RATE: Text = text(
    "a rate such as \"30/min\"",
    "^ *[+]?[0-9]+ */ *[0-9]*(s|sec|second|m|min|minute|h|hour|d|day) *$",
);
pub(super) const UPLOAD: Text = text(
    "an upload rate such as \"150MB/5min\"",
    "^ *[0-9]+ *([kKmMgG][iI]?)?[bB] */ *[0-9]*(s|sec|second|m|min|minute|h|hour|d|day) *$",
);

/// How a duration is written.
pub(super) const DURATION: &str = "^[0-9]+ *(ms|s|sec|m|min|h|d) *$";
/// How a size is written.
pub(super) const SIZE: &str = "^[0-9]+ *([kKmMgG][iI]?)?[bB] *$";

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
