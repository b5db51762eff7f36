//! The files that are read, as an import sees them: texts by name, and whether a certificate is where it is said to be.
//!
//! An import opens nothing itself; who calls it does, within bounds.

/// A file that was named on the command line.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    /// As it is shown.
    pub(super) label: String,
    pub(super) text: String,
}

/// The files that a configuration names.
pub(super) trait NamedFiles {
    /// The text, or why it cannot be had.
    fn text(&self, path: &str) -> Result<String, String>;

    /// Where a file with such a mark in it (`-----BEGIN CERTIFICATE`) lies, as the new configuration names it; or why not.
    fn pem(&self, path: &str, mark: &str) -> Result<String, String>;
}

/// Of a certificate.
pub(super) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// Of its key.
pub(super) const KEY: &str = "PRIVATE KEY-----";

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::NamedFiles;

    /// Files that are nowhere but in a test.
    #[derive(Default)]
    pub(in super::super) struct Shelf(pub(in super::super) BTreeMap<String, String>);

    impl Shelf {
        pub(in super::super) fn of(files: &[(&str, &str)]) -> Self {
            let own = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
            Self(files.iter().map(own).collect())
        }
    }

    impl NamedFiles for Shelf {
        fn text(&self, path: &str) -> Result<String, String> {
            self.0
                .get(path)
                .cloned()
                .ok_or_else(|| "not there".to_owned())
        }

        fn pem(&self, path: &str, mark: &str) -> Result<String, String> {
            let text = self.text(path)?;
            if text.contains(mark) {
                Ok(path.to_owned())
            } else {
                Err("no PEM".to_owned())
            }
        }
    }
}
