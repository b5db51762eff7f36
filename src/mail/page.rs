//! For tests alone: the tables of `docs/exchange-online.md`, so that page and program cannot say different things.
//!
//! SMTP, Graph and token endpoints each hold their own table of refusals against the same page. A test takes the rows
//! under its heading, looks the codes of the first cell up in its own table, and compares; and it asks of each of its rows whether
//! the page has it.

/// The page.
pub const EXCHANGE_ONLINE: &str = include_str!("../../docs/exchange-online.md");

/// The rows of the first table behind the heading, without its own heading: each a list of cells.
///
/// # Panics
/// There is no such heading, or no table behind it.
pub fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let mut lines = page.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "no heading {heading}");
    let rows: Vec<Vec<String>> = lines
        .take_while(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let inside = line.trim_matches('|');
            inside
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    assert!(!rows.is_empty(), "no table behind {heading}");
    rows
}

/// What stands between backticks in a cell.
pub fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}
