//! Whose a certificate is: one user's, nobody's, or that of two and so nobody's.

use super::{Policy, certificate::CertificateNames, client::User};

/// Whose certificate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateOwner<'a> {
    /// No user has it.
    Nobody,
    /// One has.
    User(&'a User),
    /// Two have, or more: it is nobody's.
    Several(&'a User, &'a User),
}

impl Policy {
    /// Whose certificate it is.
    pub fn owner(&self, names: &CertificateNames) -> CertificateOwner<'_> {
        let fits = |user: &&User| user.certificates.iter().any(|one| one.fits(names));
        let mut users = self.users.iter().filter(fits);
        match (users.next(), users.next()) {
            (None, _) => CertificateOwner::Nobody,
            (Some(user), None) => CertificateOwner::User(user),
            (Some(one), Some(two)) => CertificateOwner::Several(one, two),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::certificate::CertificatePattern;

    const HASH: &str =
        "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00112233445566778899aabbccddeeff";

    fn pattern(text: &str) -> CertificatePattern {
        CertificatePattern::parse(text).unwrap()
    }

    fn user(name: &str, certificates: &[&str]) -> User {
        User {
            name: name.to_owned(),
            password: crate::secret::Secret::default(),
            certificates: certificates.iter().map(|text| pattern(text)).collect(),
            senders: None,
            recipients: None,
        }
    }

    #[test]
    fn whose_it_is() {
        let policy = Policy {
            users: vec![
                user("erp", &["dns:erp.corp.example", "cn:old erp"]),
                user(
                    "scan",
                    &["email:scan@corp.example", &format!("sha256:{HASH}")],
                ),
                user("clerk", &[]),
            ],
            ..Policy::default()
        };
        let hash = match pattern(&format!("sha256:{HASH}")) {
            CertificatePattern::Sha256(hash) => hash,
            other => panic!("{other}"),
        };
        let list = |text: &str| text.split_terminator(' ').map(str::to_owned).collect();
        for (dns, emails, common, sha256, expected) in [
            ("erp.corp.example", "", "", [9; 32], "erp"),
            ("x.example ERP.Corp.Example", "", "", [9; 32], "erp"),
            ("", "Scan@corp.example", "", [9; 32], "scan"),
            ("", "", "", hash, "scan"),
            (
                "erp.corp.example",
                "scan@corp.example",
                "",
                [9; 32],
                "several",
            ),
            // Kinds do not mix, and nothing is a part of anything.
            (
                "scan@corp.example",
                "erp.corp.example",
                "erp.corp.example",
                [9; 32],
                "nobody",
            ),
            ("erp.corp.example\0.evil.example", "", "", [9; 32], "nobody"),
            (
                "a.erp.corp.example *.corp.example",
                "",
                "",
                [9; 32],
                "nobody",
            ),
            ("", "", "", [0; 32], "nobody"),
        ] {
            let names = CertificateNames::new(list(dns), list(emails), list(common), sha256);
            let found = match policy.owner(&names) {
                CertificateOwner::Nobody => "nobody",
                CertificateOwner::User(user) => &user.name,
                CertificateOwner::Several(..) => "several",
            };
            assert_eq!(found, expected, "{names}");
        }
        let names = CertificateNames::new(vec![], vec![], vec!["Old ERP".to_owned()], [9; 32]);
        assert!(matches!(policy.owner(&names), CertificateOwner::User(user) if user.name == "erp"));
        // What explain shows is the user's.
        for user in &policy.users {
            for one in &user.certificates {
                assert_eq!(policy.owner(&one.example()), CertificateOwner::User(user));
            }
        }
    }
}
