//! Whose senders are to be told that it takes long: found, and told in one transaction with the word that they were, by whichever
//! gateway comes first.

use std::{sync::Arc, time::SystemTime};

use super::{
    PostgresStore, event::LifeLines, fault::DbFault, insert::MailRows, link::DbLink, values::id,
};
use crate::{
    mail::message::MessageId,
    queue::store::{LateNotice, NodeId, StoreError},
};

const LATE: &str = "SELECT m.id FROM message m WHERE m.tell_late AND m.accepted <= $1::bigint
       AND EXISTS (SELECT 1 FROM job j WHERE j.message = m.id AND j.state < 3)
    ORDER BY m.accepted LIMIT $2::bigint";
const TELL: &str = "UPDATE message m SET tell_late = false WHERE m.id = $1::bytea AND m.tell_late
       AND EXISTS (SELECT 1 FROM job j WHERE j.message = m.id AND j.state < 3)
    RETURNING m.id";

impl PostgresStore {
    pub(super) async fn find_late(
        &self,
        by: SystemTime,
        limit: usize,
    ) -> Result<Vec<MessageId>, StoreError> {
        let by = self.at(SystemTime::now()).theirs(by);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found = self
            .crew
            .on(true, move |link| Box::pin(late(link, by, limit)));
        found.await
    }

    pub(super) async fn say_late(
        &self,
        notice: LateNotice,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        let at = (self.own(), self.at(now).now());
        let notice = Arc::new(notice);
        let told = self.crew.on(true, move |link| {
            let notice = Arc::clone(&notice);
            Box::pin(async move { tell(link, &notice, at).await })
        });
        told.await
    }
}

async fn late(link: &mut DbLink, by: i64, limit: i64) -> Result<Vec<MessageId>, DbFault> {
    let found = link.whole(&[(LATE, vec![&by, &limit])]).await?;
    found.iter().flatten().map(|row| id(row, 0)).collect()
}

/// Where the answer to the commit was lost it may be written all the same, and is not written again.
async fn tell(
    link: &mut DbLink,
    notice: &LateNotice,
    (node, now): (i64, i64),
) -> Result<bool, DbFault> {
    let key = notice.message.to_bytes().to_vec();
    let told = link.begin(&[(TELL, vec![&key])]).await?;
    if told.iter().flatten().next().is_none() {
        link.roll_back().await?;
        return Ok(false);
    }
    let mut lines = LifeLines::of(node);
    if let Some(event) = &notice.event {
        lines.add(
            notice.message,
            now,
            event.kind,
            &event.recipients,
            &event.text,
        );
    }
    let mut mail = MailRows::default();
    for report in &notice.reports {
        mail.add(report, &[], NodeId(node.unsigned_abs()), now);
    }
    let mut spoken = Vec::new();
    if !mail.is_empty() {
        spoken.push(mail.spoken());
    }
    if !lines.is_empty() {
        spoken.push(lines.spoken());
    }
    link.commit(&spoken).await?;
    Ok(true)
}
