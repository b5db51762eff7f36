//! Which Postern wrote a store, and what a program says that may not work on it. Each store keeps the facts in its own way; nothing is
//! opened or compared here.

/// This program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Who wrote a store, as the sentence about it names it. `version` comes from the store: what is no version is not repeated.
pub(super) fn writer(version: Option<&str>, schema: i64, known: i64) -> String {
    let is_plain = |text: &&str| {
        (1..=40).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_digit())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-+~".contains(c))
    };
    match version.filter(is_plain) {
        // Two builds of one version: the numbers are what differs.
        Some(version) if version != VERSION => format!("postern {version}"),
        _ => format!("a newer postern (schema {schema}, where this one knows {known})"),
    }
}

/// The refusal, the same for every store.
pub(super) fn refusal(writer: &str) -> String {
    format!("the queue was written by {writer}; this is {VERSION}: nothing was touched")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_store_is_named_only_where_it_is_a_version() {
        let by = |version| writer(version, 7, 6);
        assert_eq!(by(Some("0.4.0")), "postern 0.4.0");
        assert_eq!(by(Some("1.0.0-rc.1")), "postern 1.0.0-rc.1");
        let unknown = "a newer postern (schema 7, where this one knows 6)";
        let long = "1".repeat(41);
        for other in ["", "0.4\u{1b}[2J", "x", "0 4", VERSION, &long] {
            assert_eq!(by(Some(other)), unknown, "{other:?}");
        }
        assert_eq!(by(None), unknown);
        assert_eq!(
            refusal("postern 0.4.0"),
            format!(
                "the queue was written by postern 0.4.0; this is {VERSION}: nothing was touched"
            )
        );
    }
}
