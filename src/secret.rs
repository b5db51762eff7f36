//! A value that must not be seen.
//!
//! Apart from everything else so that no module can forget: a [`Secret`] has no `Display` and no
//! `Serialize`, and its `Debug` is `***`. It does not encrypt memory and it does not fetch values;
//! `config` resolves them.

use std::fmt;

/// A password, token or key. Prints as `***`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes the value in.
    pub fn new(value: impl Into<Box<str>>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that puts it on the wire or compares it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_stars() {
        assert_eq!(
            format!("{:?} {:#?}", Secret::new("hunter2"), Secret::new("x")),
            "*** ***"
        );
    }
}
