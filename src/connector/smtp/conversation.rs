//! One delivery over one connection: the steps of the dialogue, carried out.
//!
//! It decides nothing: which connection, whether once more and what becomes of the connection afterwards is the connector's.

use super::{pool::Pool, seat::Seat, stream::LinkFault};
use crate::{
    connector::deadline::Deadline,
    mail::message::Message,
    smtp::{
        client::{
            Stage,
            dialogue::{Dialogue, DialogueStep, Sent},
        },
        data::DotStuffer,
    },
};

/// A body is read and written in pieces of so many octets.
const BLOCK: usize = 64 * 1024;

/// A message, and the fields that were made to stand above its own.
#[derive(Clone, Copy)]
pub(super) struct Leaving<'a> {
    /// Complete lines.
    pub(super) above: &'a [u8],
    pub(super) message: &'a Message,
}

impl Leaving<'_> {
    /// Octets of all of it.
    pub(super) fn size(&self) -> u64 {
        self.above.len() as u64 + self.message.size()
    }
}

/// Delivers. `early`: the commands up to DATA are written already.
pub(super) async fn converse(
    pool: &Pool,
    seat: &mut Seat,
    dialogue: &mut Dialogue<'_>,
    leaving: Leaving<'_>,
    early: bool,
    limits: &Deadline,
) {
    let deadline = limits.at();
    let link = &mut seat.link;
    let mut out = std::mem::take(&mut link.out);
    let mut step = dialogue.begin(&mut out);
    link.out = out;
    if early {
        link.out.clear();
    }
    loop {
        let link = &mut seat.link;
        let (heard, sent) = match step {
            DialogueStep::Read(stage) => match link.send(stage, None, deadline).await {
                Ok(()) => (link.read(stage, deadline).await, Sent::Commands),
                Err(fault @ LinkFault::Silent(_)) => (Err(fault), Sent::Commands),
                Err(fault) => (Err(fault), Sent::Nothing),
            },
            DialogueStep::Content => {
                link.hurry = None;
                if let Some(before) = seat.before.take() {
                    // Had a reply come too many, one would be left.
                    let fits = link.our_turn(Stage::Content).await.is_ok();
                    let _ = before.send(fits);
                }
                let mut begun = false;
                let next = dialogue.is_last().then_some(pool);
                let sent = content(seat, leaving, next, &mut begun, limits).await;
                let link = &mut seat.link;
                if let Err(cause) = sent {
                    // An upstream that has had enough, and closes as a rule: its reply is there to be read.
                    let word = if begun {
                        link.last_word(deadline).await
                    } else {
                        None
                    };
                    match word {
                        Some(reply) => dialogue.early_reply(&reply),
                        None => dialogue.lost(&cause, Sent::Commands),
                    }
                    return;
                }
                dialogue.content_sent();
                // From here on silence means doubt.
                let heard = match link.flush(deadline).await {
                    Ok(()) => link.read(Stage::Dot, deadline).await,
                    Err(fault) => Err(fault),
                };
                (heard, Sent::Dot)
            }
            DialogueStep::Done => return,
        };
        match heard {
            Ok(reply) => {
                let mut out = std::mem::take(&mut seat.link.out);
                step = dialogue.reply(&reply, &mut out);
                seat.link.out = out;
            }
            Err(fault) => {
                match &fault {
                    LinkFault::Unasked(_, what) if !what.is_farewell() => {
                        dialogue.out_of_turn(&fault.to_string(), sent);
                    }
                    _ => dialogue.lost(&fault.to_string(), sent),
                }
                return;
            }
        }
    }
}

/// Header, empty line, body, dots stuffed, and the final dot, with the group of the message that waits behind it. A small message is
/// one write. `Ok` when the dot was handed to the network.
async fn content(
    seat: &mut Seat,
    leaving: Leaving<'_>,
    next: Option<&Pool>,
    begun: &mut bool,
    limits: &Deadline,
) -> Result<(), String> {
    let deadline = limits.at();
    let link = &mut seat.link;
    link.record(|| format!("> <message, {} octets>", leaving.size()));
    let message = leaving.message;
    let mut stuffer = DotStuffer::default();
    stuffer.encode(leaving.above, &mut link.out);
    stuffer.encode(&message.header, &mut link.out);
    stuffer.encode(b"\r\n", &mut link.out);
    let unreadable = |e: std::io::Error| format!("the stored body: {e}");
    let mut body = message.body.open().await.map_err(unreadable)?;
    let mut is_first = true;
    // Where it cannot be read to its end there is no dot: the upstream must not take half a message.
    while let Some(piece) = body.next().await.map_err(unreadable)? {
        // The header goes with the first piece, the dot with the last.
        if !std::mem::take(&mut is_first) {
            let sent = link.send_block(begun, deadline).await;
            sent.map_err(|e| e.to_string())?;
        }
        stuffer.encode(&piece, &mut link.out);
    }
    stuffer.finish(&mut link.out);
    let dot = link.out.len();
    let questions = next.and_then(|pool| pool.next_behind(seat)).unwrap_or(0);
    limits.gives_the_last_octet();
    let sent = seat.link.send_last(dot, questions, begun, deadline).await;
    if seat.link.is_spoilt {
        // What stands behind the dot was not written whole.
        seat.follower = None;
    }
    sent.map_err(|e| e.to_string())
}

/// A large message must not keep its buffer for as long as the connection lives.
pub(super) fn shrink(seat: &mut Seat) {
    seat.link.out.clear();
    seat.link.out.shrink_to(2 * BLOCK);
}
