//! A day of the file: TOML has a form for one, and people write it as a string as often. It says nothing of what ends or begins then.

use std::time::SystemTime;

use toml::de::DeValue;

use super::{At, Table};
use crate::{
    config::values::{Fault, fault},
    mail::time,
};

impl Table<'_> {
    /// Its first moment, UTC. What stands there in its place is not repeated: it may belong to the key beside it.
    pub(in crate::config) fn day(&self, name: &str) -> Option<At<SystemTime>> {
        let entry = self.entry(name)?;
        let written = match entry.value {
            DeValue::String(text) => text.to_string(),
            DeValue::Datetime(at) if at.time.is_none() => at.to_string(),
            DeValue::Datetime(_) => {
                let message = format!("`{name}` takes a day, not a date with a time");
                let hint = "write it without the time, as in 2027-05-01";
                self.error(name, Fault::new(message, hint));
                return None;
            }
            _ => return self.wrong_type(entry),
        };
        match first_moment(&written) {
            Ok(value) => Some(At::new(value, entry.span)),
            Err(fault) => {
                self.error(name, fault);
                None
            }
        }
    }
}

fn first_moment(day: &str) -> Result<SystemTime, Fault> {
    let is_day = day.len() == 10 && day.is_ascii();
    let start = is_day.then(|| time::parsed(&format!("{day}T00:00:00Z")));
    start
        .flatten()
        .filter(|at| *at > SystemTime::UNIX_EPOCH)
        .ok_or_else(|| fault!("this is not a day"; "write it as \"2027-05-01\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        for (text, expected) in [
            ("2027-05-01", Some("2027-05-01T00:00:00Z")),
            ("2028-02-29", Some("2028-02-29T00:00:00Z")),
            ("2027-02-29", None),
            ("1970-01-01", None),
            ("27-05-01", None),
            ("01.05.2027", None),
            ("2027-05-01T", None),
            ("2027-5-1", None),
            ("", None),
            ("ééééé", None),
        ] {
            let found = first_moment(text).ok().map(time::rfc3339);
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
