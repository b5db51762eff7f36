//! The three lines that the script ends with, as somebody brings them back. It asks nobody whether they are true.

use super::flags::address;
use crate::{config::values, mail::address::Address};

/// Lines that are none of the three are passed over, so many of them.
pub(super) const PASSED_OVER: usize = 100;

/// What is known of the application.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ThreeLines {
    pub(super) tenant_id: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) mailbox: Option<Address>,
    is_mailbox_said: bool,
}

impl ThreeLines {
    /// Takes one of them.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn take(&mut self, line: &str) -> Result<(), String> {
        let line = line.trim();
        if line.starts_with('#') && line.contains("mailbox") {
            // Of several, or of every one.
            self.is_mailbox_said = true;
            return Ok(());
        }
        let none = || {
            "this is none of the three lines: tenant_id = \"…\", client_id = \"…\", mailbox = \"…\""
                .to_owned()
        };
        let read: toml::Table = line.parse().map_err(|_| none())?;
        let (key, value) = read.iter().next().ok_or_else(none)?;
        let value = value.as_str().ok_or_else(none)?;
        match key.as_str() {
            "tenant_id" => self.tenant_id = Some(tenant(value)?),
            "client_id" => self.client_id = Some(guid(value)?),
            "mailbox" => {
                self.mailbox = Some(address(value)?);
                self.is_mailbox_said = true;
            }
            _ => return Err(none()),
        }
        Ok(())
    }

    /// Whether all are there.
    pub(super) fn is_whole(&self) -> bool {
        self.has_ids() && self.is_mailbox_said
    }

    /// Whether those are there without which nothing works.
    pub(super) fn has_ids(&self) -> bool {
        self.tenant_id.is_some() && self.client_id.is_some()
    }
}

/// The ID of a directory, or one of its domains.
pub(super) fn tenant(text: &str) -> Result<String, String> {
    if let Ok(id) = guid(text) {
        return Ok(id);
    }
    let domain = values::domain(text).ok().map(|domain| domain.to_string());
    domain.filter(|domain| domain.contains('.')).ok_or_else(|| {
        "this is no tenant: it is the directory (tenant) ID, or a domain such as corp.onmicrosoft.com"
            .to_owned()
    })
}

/// `8-4-4-4-12` hexadecimal digits.
pub(super) fn guid(text: &str) -> Result<String, String> {
    let lengths = [8, 4, 4, 4, 12];
    let is_guid = text.split('-').count() == lengths.len()
        && text.split('-').zip(lengths).all(|(part, length)| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit())
        });
    is_guid.then(|| text.to_ascii_lowercase()).ok_or_else(|| {
        "this is no client ID: it has the form 00000000-0000-0000-0000-000000000000".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "11111111-2222-3333-4444-55555555abCD";

    #[test]
    fn lines_in_any_order_with_anything_around_them() {
        let mut lines = ThreeLines::default();
        for (line, is_one) in [
            ("ok      service principal", false),
            (&format!("  client_id = \"{ID}\"\r"), true),
            ("client_secret = \"hunter2\"", false),
            ("tenant_id = \"\"", false),
            ("tenant_id = \"corp.example\"", true),
            ("tenant_id = \"x\u{1b}[2J\"", false),
            ("mailbox = 5", false),
            ("", false),
        ] {
            assert_eq!(lines.take(line).is_ok(), is_one, "{line:?}");
        }
        assert!(lines.has_ids() && !lines.is_whole());
        let mut several = lines.clone();
        several.take("# mailbox: the From of each message").unwrap();
        assert!(several.is_whole() && several.mailbox.is_none());
        lines.take("mailbox = \"o'brien@corp.example\"").unwrap();
        assert!(lines.is_whole());
        assert_eq!(lines.client_id.unwrap(), ID.to_ascii_lowercase());
    }

    #[test]
    fn what_is_no_id_is_not_repeated() {
        for text in [
            "",
            "hunter2",
            "{11111111-2222-3333-4444-555555555555}",
            "common",
        ] {
            assert!(guid(text).is_err());
            let why = tenant(text).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
        assert_eq!(
            tenant("corp.onmicrosoft.com").unwrap(),
            "corp.onmicrosoft.com"
        );
    }
}
