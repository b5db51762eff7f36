//! Would the smarthost take mail of a sender? MAIL and RCPT ask it, both with that address, and RSET takes them back: nothing is sent.

use tokio::time::Instant;

use super::{link::Link, stream::LinkFault};
use crate::{
    connector::interface::{ExpectedMail, Knock},
    mail::{address::Address, reply::Reply},
    smtp::client::{
        Stage,
        class::{Class, Override, Place, diagnose},
    },
};

/// What the upstream says to each, until it says nothing more.
pub(super) async fn knock(
    link: &mut Link,
    mail: ExpectedMail<'_>,
    overrides: &[Override],
    deadline: Instant,
) -> Vec<Knock> {
    let mut found = Vec::new();
    if let Some(size) = link.offered.size
        && size < mail.largest
    {
        found.push(Knock::Narrow(format!(
            "{} takes up to {size} octets of a message, and the listeners up to {}: what lies between comes back to its sender",
            link.via, mail.largest
        )));
    }
    for sender in mail.senders {
        match ask(link, sender, overrides, deadline).await {
            Ok(knock) => found.push(knock),
            Err(fault) => {
                found.push(Knock::Shut(format!("{sender}: {fault}")));
                break;
            }
        }
    }
    found
}

async fn ask(
    link: &mut Link,
    sender: &Address,
    overrides: &[Override],
    deadline: Instant,
) -> Result<Knock, LinkFault> {
    let command = format!("MAIL FROM:<{sender}>\r\n");
    let mut said = (Place::Mail, say(link, &command, deadline).await?);
    if said.1.is_positive() {
        let command = format!("RCPT TO:<{sender}>\r\n");
        said = (Place::Rcpt, say(link, &command, deadline).await?);
    }
    if said.1.code != 421 {
        say(link, "RSET\r\n", deadline).await?;
    }
    let (place, reply) = said;
    if reply.is_positive() {
        return Ok(Knock::Open(format!("{} takes mail of {sender}", link.via)));
    }
    let diagnosis = diagnose(&reply, place, overrides, false);
    let text = format!("{sender}: {}", diagnosis.explain(&reply, place));
    // A sender need be nobody's mailbox, and what is put off may be taken the next time.
    let is_shut = match diagnosis.class {
        Class::Obstacle(_) => true,
        Class::Failed => place == Place::Mail,
        Class::Deferred | Class::Crowded => false,
    };
    Ok(if is_shut {
        Knock::Shut(text)
    } else {
        Knock::Doubtful(text)
    })
}

async fn say(link: &mut Link, command: &str, deadline: Instant) -> Result<Reply, LinkFault> {
    link.out.extend_from_slice(command.as_bytes());
    link.send(Stage::Envelope, None, deadline).await?;
    link.read(Stage::Envelope, deadline).await
}
