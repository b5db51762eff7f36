//! What a 250 means here: how the database keeps what it has committed.

use super::{fault::DbFault, link::DbLink, settings::Durability, values::get};

const FACTS: &str = "SELECT current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_standby_names'), current_setting('server_version'), current_setting('server_encoding')";

/// What the database says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub(super) async fn ask(link: &DbLink) -> Result<Self, DbFault> {
        let rows = link.apart(FACTS, &[]).await?;
        let text = |at| -> Result<String, DbFault> {
            let value = rows.first().map(|row| get(row, at)).transpose()?;
            Ok(value.unwrap_or_default())
        };
        Ok(Self {
            fsync: text(0)? == "on",
            full_page_writes: text(1)? == "on",
            has_standbys: !text(2)?.trim().is_empty(),
            version: text(3)?,
            encoding: text(4)?,
        })
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

    /// What it would be good to know, where mail may be acknowledged.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if !self.full_page_writes {
            warnings.push(
                "full_page_writes = off: unless the file system writes whole pages, a power loss may damage the queue",
            );
        }
        if !self.has_standbys {
            warnings.push(
                "synchronous_standby_names is empty: a failover may forget mail that was answered with 250 just before it",
            );
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
        let latin = DurabilityFacts {
            encoding: "LATIN1".to_owned(),
            ..facts(true, true)
        };
        assert!(refused(&latin, Durability::Primary));
        assert_eq!(facts(true, false).warnings().len(), 1);
        assert!(facts(true, true).warnings().is_empty());
    }
}
