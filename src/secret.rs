//! A value that must not be seen.
//!
//! No module can forget: a [`Secret`] has no `Display` and no
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
    use std::marker::PhantomData;

    use super::*;

    struct Has<T>(PhantomData<T>);
    impl<T: fmt::Display> Has<T> {
        const DISPLAY: bool = true;
    }
    impl<T: serde::Serialize> Has<T> {
        const SERIALIZE: bool = true;
    }
    /// What is found where the trait is not there.
    trait HasNot {
        const DISPLAY: bool = false;
        const SERIALIZE: bool = false;
    }
    impl<T> HasNot for Has<T> {}

    #[test]
    fn a_secret_has_no_display_and_no_serialize() {
        assert_eq!(
            [Has::<String>::DISPLAY, Has::<String>::SERIALIZE],
            [true; 2]
        );
        assert_eq!(
            [Has::<Secret>::DISPLAY, Has::<Secret>::SERIALIZE],
            [false; 2]
        );
    }

    #[test]
    fn prints_as_stars() {
        assert_eq!(
            format!("{:?} {:#?}", Secret::new("hunter2"), Secret::new("x")),
            "*** ***"
        );
    }
}
