//! Whom a rule is for, as a route says it: senders, recipients, clients, users, listeners; what is absent is anybody.
//!
//! A route looks at one recipient, and so does a quota; a header is one for all of them.

use crate::mail::{address::Address, pattern::Pattern};

/// Whom a rule is for. `None` matches anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Envelope senders after rewriting.
    pub senders: Option<Vec<Pattern>>,
    /// Recipients.
    pub recipients: Option<Vec<Pattern>>,
    /// Names of `[[client]]`.
    pub clients: Option<Vec<String>>,
    /// Names of `[[user]]`.
    pub users: Option<Vec<String>>,
    /// Names of `[[listener]]`.
    pub listeners: Option<Vec<String>>,
}

/// Whose mail it is.
#[derive(Debug, Clone, Copy)]
pub struct Posted<'a> {
    /// The envelope sender after rewriting; `None` is `<>`.
    pub sender: Option<&'a Address>,
    /// Name of the `[[client]]`.
    pub client: Option<&'a str>,
    /// Name of the `[[user]]` that logged in.
    pub user: Option<&'a str>,
    /// Name of the `[[listener]]`.
    pub listener: &'a str,
}

impl Scope {
    /// Whether it is for this mail, whoever its recipients are.
    pub fn takes(&self, mail: Posted<'_>) -> bool {
        fn named(names: Option<&Vec<String>>, name: Option<&str>) -> bool {
            names.is_none_or(|names| name.is_some_and(|name| names.iter().any(|n| n == name)))
        }
        let is_sender = |patterns: &Vec<Pattern>| patterns.iter().any(|p| p.matches(mail.sender));
        self.senders.as_ref().is_none_or(is_sender)
            && named(self.clients.as_ref(), mail.client)
            && named(self.users.as_ref(), mail.user)
            && named(self.listeners.as_ref(), Some(mail.listener))
    }

    /// Whether it is for this recipient.
    pub fn takes_recipient(&self, recipient: &Address) -> bool {
        let is_one = |patterns: &Vec<Pattern>| patterns.iter().any(|p| p.matches(Some(recipient)));
        self.recipients.as_ref().is_none_or(is_one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{address, patterns};

    #[test]
    fn as_in_a_route() {
        let names = |text: &str| {
            let names: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            (!names.is_empty()).then_some(names)
        };
        for (senders, clients, users, sender, client, user, expected) in [
            ("", "", "", "<>", None, None, true),
            ("corp.com", "", "", "a@corp.com", None, None, true),
            ("corp.com", "", "", "a@x.com", None, None, false),
            ("*", "", "", "<>", None, None, false),
            ("<>", "", "", "<>", None, None, true),
            ("", "erp crm", "", "a@x.com", Some("crm"), None, true),
            ("", "erp", "", "a@x.com", Some("ERP"), None, false),
            ("", "erp", "", "a@x.com", None, None, false),
            ("", "", "bob", "a@x.com", None, Some("bob"), true),
            ("", "", "bob", "a@x.com", None, None, false),
            (
                "corp.com",
                "erp",
                "bob",
                "a@corp.com",
                Some("erp"),
                Some("bob"),
                true,
            ),
            (
                "corp.com",
                "erp",
                "bob",
                "a@corp.com",
                Some("erp"),
                None,
                false,
            ),
        ] {
            let scope = Scope {
                senders: (!senders.is_empty()).then(|| patterns(senders)),
                recipients: Some(patterns("b@corp.com")),
                clients: names(clients),
                users: names(users),
                listeners: names("local"),
            };
            let sender = (sender != "<>").then(|| address(sender));
            let mut mail = Posted {
                sender: sender.as_ref(),
                client,
                user,
                listener: "local",
            };
            assert_eq!(scope.takes(mail), expected, "{scope:?} {mail:?}");
            mail.listener = "other";
            assert!(!scope.takes(mail));
            assert!(scope.takes_recipient(&address("B@corp.com")));
            assert!(!scope.takes_recipient(&address("c@corp.com")));
        }
    }
}
