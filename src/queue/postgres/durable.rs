//! What a 250 means here: how the database keeps what it has committed.

use super::settings::Durability;

/// What the database says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DurabilityFacts {
    /// Commits are synced. Without it nothing survives a power loss.
    pub fsync: bool,
    /// A page that a power loss cut in two is mended.
    pub full_page_writes: bool,
    /// Synchronous standbys are named: a commit waits for them.
    pub has_standbys: bool,
    /// Of the server.
    pub version: String,
    /// Of the texts in the database.
    pub encoding: String,
}

impl DurabilityFacts {
    /// From what it has set: `fsync`, `full_page_writes`, `synchronous_standby_names`, `server_version`, `server_encoding`.
    pub(super) fn of([fsync, full_page_writes, standbys, version, encoding]: [&str; 5]) -> Self {
        // What a distribution says beside the number is not the version.
        let version = version.split_whitespace().next().unwrap_or_default();
        Self {
            fsync: fsync == "on",
            full_page_writes: full_page_writes == "on",
            has_standbys: !standbys.trim().is_empty(),
            version: version.to_owned(),
            encoding: encoding.to_owned(),
        }
    }

    /// Why no mail may be acknowledged over it; `None`: it may.
    pub fn refusal(&self, wanted: Durability) -> Option<&'static str> {
        if self.encoding != "UTF8" {
            return Some(
                "the database cannot hold every address and reply: create one with ENCODING 'UTF8'",
            );
        }
        if !self.fsync {
            return Some(
                "the database has fsync = off: it would forget acknowledged mail when the power fails; set fsync = on",
            );
        }
        let is_enough = self.has_standbys || wanted == Durability::Primary;
        (!is_enough).then_some(
            "durability = \"quorum\", but synchronous_standby_names is empty: let the database have synchronous standbys",
        )
    }

    /// What it would be good to know, where mail may be acknowledged; each with what to do about it.
    pub fn warnings(&self) -> Vec<(&'static str, &'static str)> {
        let mut warnings = Vec::new();
        if !self.full_page_writes {
            warnings.push((
                "full_page_writes is off: unless the file system writes whole pages, a power loss may damage the queue.",
                "Set full_page_writes = on",
            ));
        }
        if !self.has_standbys {
            warnings.push((
                "synchronous_standby_names is empty: a failover may forget mail that was answered with 250 just before it.",
                "Let the database have synchronous standbys (Patroni: synchronous_mode), then write durability = \"quorum\"",
            ));
        }
        warnings
    }

    /// What an acknowledged message is on.
    pub fn promise(&self) -> &'static str {
        if self.has_standbys {
            "on the disks of the primary and of its synchronous standbys"
        } else {
            "on the disk of the primary"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_acknowledged() {
        let facts = |fsync, has_standbys| DurabilityFacts {
            fsync,
            full_page_writes: true,
            has_standbys,
            version: "15.18".to_owned(),
            encoding: "UTF8".to_owned(),
        };
        let refused = |facts: &DurabilityFacts, wanted| facts.refusal(wanted).is_some();
        for (fsync, standbys, primary, quorum) in [
            (true, false, false, true),
            (true, true, false, false),
            (false, true, true, true),
        ] {
            let facts = facts(fsync, standbys);
            assert_eq!(refused(&facts, Durability::Primary), primary);
            assert_eq!(refused(&facts, Durability::Quorum), quorum);
        }
        let said = ["on", "off", " ", "15.18 (Debian 15.18-0+deb12u1)", "UTF8"];
        let read = DurabilityFacts::of(said);
        assert_eq!(
            read,
            DurabilityFacts {
                full_page_writes: false,
                ..facts(true, false)
            }
        );
        let latin = DurabilityFacts {
            encoding: "LATIN1".to_owned(),
            ..facts(true, true)
        };
        assert!(refused(&latin, Durability::Primary));
        assert_eq!(facts(true, false).warnings().len(), 1);
        assert!(facts(true, true).warnings().is_empty());
    }
}
