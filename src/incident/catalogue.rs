//! Every kind of incident in fixed words: how bad it is, what it is called, what may have caused it, and what to do.

use std::fmt;

pub use super::severity::IncidentSeverity;

/// What needs somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IncidentKind {
    /// A connector waits for our configuration or credentials to be mended.
    ConnectorPaused,
    /// The same of a mailbox.
    MailboxRefused,
    /// An upstream is down.
    ConnectorClosed,
    /// An operator has stopped a connector.
    ConnectorStopped,
    /// The oldest mail of a route waits for long.
    QueueOld,
    /// A recipient was given up.
    MailFailed,
    /// It stays unknown whether mail has arrived.
    MailInDoubt,
    /// The store does not write.
    StoreFailing,
    /// The disk is nearly full.
    DiskLow,
    /// A connector's credential ends.
    CredentialExpires,
    /// A listener's certificate ends.
    CertificateExpires,
    /// A credential could not be replaced by itself.
    RotationFailed,
    /// A token endpoint gives no token.
    TokenFailing,
    /// A new configuration was refused.
    ReloadRefused,
    /// Somebody guesses passwords.
    LoginAttack,
    /// A client that should send has not.
    ClientSilent,
    /// The clock was set.
    ClockJumped,
    /// A channel tells nobody.
    NotifyFailing,
    /// What the page needs is broken.
    WindowFailing,
    /// The database that has the queue is away.
    StoreAway,
    /// Another gateway of the queue is not heard of.
    MemberSilent,
    /// Another gateway of the queue was taken over.
    MemberTakenOver,
    /// A message was sent by two gateways.
    SentTwice,
    /// Two gateways of the queue do different things with the same mail.
    ConfigurationsDiffer,
    /// Somebody has overrun a quota.
    QuotaUsedUp,
    /// A copy for an archive was given up.
    Archive,
    /// Many at once.
    Storm,
}

/// The words of a kind. `{}` in the title stands for the object.
#[derive(Debug)]
pub struct IncidentText {
    /// Which.
    pub kind: IncidentKind,
    /// The word in the configuration and in JSON.
    pub word: &'static str,
    /// How bad it is at first.
    pub severity: IncidentSeverity,
    /// It opens without `open_after`: it is ours to mend, or was long in coming.
    pub at_once: bool,
    /// One line.
    pub title: &'static str,
    /// What may have caused it, the likeliest first.
    pub causes: &'static [&'static str],
    /// What to do.
    pub remedy: &'static str,
}

use IncidentKind as Kind;
use IncidentSeverity::{Critical, Info, Warning};

const TEXTS: &[IncidentText] = &[
    IncidentText {
        kind: Kind::ConnectorPaused,
        word: "connector_paused",
        severity: Critical,
        at_once: true,
        title: "Connector {} is paused: our configuration or credentials are not accepted",
        causes: &[
            "the password, client secret or certificate has expired or was changed at the provider",
            "the account lost the right to send, or SMTP AUTH was switched off for it",
            "host, port, tls or tenant of the connector is wrong",
            "the upstream's certificate is not trusted",
        ],
        remedy: "Read the evidence: it ends with what is to be mended. Mend it in the configuration, then run `postern reload`; the \
                 connector is tried at once, and waiting mail goes out by itself. `postern check --connect` tries the login before that.",
    },
    IncidentText {
        kind: Kind::MailboxRefused,
        word: "mailbox_refused",
        severity: Warning,
        at_once: true,
        title: "The sending mailbox {} is refused by the upstream",
        causes: &[
            "there is no such mailbox, it has no licence, or it is blocked from sending",
            "the application or account may not send as this address",
        ],
        remedy: "Create or unblock the mailbox, or grant the right to send as it, at the provider. Where the sender is a mistake of a \
                 device, correct it there or with [[rewrite]]. Mail of other senders is not held up. `postern queue retry` tries at once.",
    },
    IncidentText {
        kind: Kind::ConnectorClosed,
        word: "connector_closed",
        severity: Warning,
        at_once: false,
        title: "Connector {} is closed: the upstream takes no mail",
        causes: &[
            "the upstream or the network on the way to it is down",
            "a firewall or proxy does not let the connection through",
            "the name of the upstream cannot be resolved",
        ],
        remedy: "Nothing is lost: mail waits, or goes by the next connector of its route, and the upstream is tried again by itself. \
                 If it lasts, `postern test` shows where the connection ends; look at the network, the firewall and the provider's status page.",
    },
    IncidentText {
        kind: Kind::ConnectorStopped,
        word: "connector_stopped",
        severity: Info,
        at_once: true,
        title: "Connector {} was stopped by an operator",
        causes: &["somebody stopped it, by the page or by `postern connector stop`"],
        remedy: "`postern connector start NAME` lets it send again. Until then its mail goes by the next connector of the route, or waits.",
    },
    IncidentText {
        kind: Kind::QueueOld,
        word: "queue_old",
        severity: Warning,
        at_once: true,
        title: "Mail of the route {} waits for over an hour",
        causes: &[
            "every connector of the route is closed, paused or stopped",
            "the upstream defers the mail again and again",
            "there is more mail than the rate of the connector lets out",
        ],
        remedy: "`postern queue list` says of each message what it waits for. If a connector is at fault, its own incident says what to \
                 do; if `rate` is, raise it as far as the provider allows.",
    },
    IncidentText {
        kind: Kind::MailFailed,
        word: "mail_failed",
        severity: Warning,
        at_once: true,
        title: "Mail of the route {} could not be delivered and was given up",
        causes: &[
            "the upstream refused a recipient, the sender or the content for good",
            "it was tried for as long as `give_up` says",
        ],
        remedy: "`postern queue list --state failed` shows the mail, `postern trace ID` why. Once the cause is gone, \
                 `postern queue retry ID` sends it; it is kept as long as `keep_failed` says. The sender was told if bounces are on.",
    },
    IncidentText {
        kind: Kind::MailInDoubt,
        word: "mail_in_doubt",
        severity: Info,
        at_once: true,
        title: "Of mail of the route {} it is unknown for 30 minutes whether it has arrived",
        causes: &[
            "the connection broke after the last octet and before the answer, and the upstream has not been reached since",
            "a proxy or firewall cuts long connections",
        ],
        remedy: "It is tried again by the same connector, so a recipient may get it twice. Look at that connector; if the mail is known \
                 to have arrived, `postern queue drop ID` ends it.",
    },
    IncidentText {
        kind: Kind::StoreFailing,
        word: "store_failing",
        severity: Critical,
        at_once: false,
        title: "The queue cannot be written: no mail is taken",
        causes: &[
            "the disk or its controller fails, or the file system went read-only",
            "the rights of data_dir were changed",
            "the disk is full",
        ],
        remedy: "Look at the log and the kernel's (`dmesg`), at the mount and at the owner of data_dir. Clients are told to come again \
                 later (451). It goes on by itself as soon as a write succeeds.",
    },
    IncidentText {
        kind: Kind::DiskLow,
        word: "disk_low",
        severity: Critical,
        at_once: false,
        title: "The disk of the queue is nearly full",
        causes: &[
            "something else fills the disk",
            "much mail waits, or failed mail is kept for long",
        ],
        remedy: "Make room, or move data_dir to a larger disk. Below limits.free_disk no mail is taken any more (452). `postern queue list` \
                 shows what waits; `postern queue drop` and a shorter keep_failed give space back.",
    },
    IncidentText {
        kind: Kind::CredentialExpires,
        word: "credential_expires",
        severity: Warning,
        at_once: true,
        title: "A credential of the connector {} ends soon, or has ended",
        causes: &[
            "every client secret and certificate has an end, and this one's is near",
            "the last [[dkim]] of a domain ends with its `active_until`, and no other follows",
        ],
        remedy: "Make a new one at the provider, put it in the place of the old one and run `postern reload` (a file is taken by itself). \
                 Delete the old one at the provider only when mail flows by the new one. The next DKIM key is made by `postern dkim new`.",
    },
    IncidentText {
        kind: Kind::CertificateExpires,
        word: "certificate_expires",
        severity: Warning,
        at_once: true,
        title: "A certificate or list of the listener {} ends soon, or has ended",
        causes: &[
            "nothing renews the file",
            "it is renewed elsewhere and not copied to the path in the configuration",
            "an authority in `client_ca` ends, or the list in `client_crl` was not followed by another",
        ],
        remedy: "The evidence names the file. Put the new certificate and key in the place of the old files (`postern cert` makes one of a \
                 private CA), the authority that follows beside the one in `client_ca`, the next list into `client_crl`: all are taken within \
                 ten seconds. A list that is overdue stays in force.",
    },
    IncidentText {
        kind: Kind::RotationFailed,
        word: "rotation_failed",
        severity: Warning,
        at_once: true,
        title: "The credential of the connector {} could not be replaced by itself",
        causes: &[
            "the provider could not be reached",
            "a policy of the tenant keeps applications from changing their own certificates",
            "the certificate in use has ended: only a valid one can prove itself",
        ],
        remedy: "Read the evidence. It is tried again after an hour and then daily, and mail goes on with the old certificate until that ends. \
                 If it stays so, run `postern setup exchange --renew NAME` and have an administrator run its script.",
    },
    IncidentText {
        kind: Kind::TokenFailing,
        word: "token_failing",
        severity: Warning,
        at_once: false,
        title: "The connector {} gets no access token",
        causes: &[
            "the client secret or certificate has expired, or was deleted at the provider",
            "the token endpoint cannot be reached from here",
            "this machine's clock is wrong",
        ],
        remedy: "`postern check --connect` asks for a token and says what is wrong. An old token serves until it ends; after that the \
                 connector pauses or closes, and mail waits.",
    },
    IncidentText {
        kind: Kind::ReloadRefused,
        word: "reload_refused",
        severity: Warning,
        at_once: true,
        title: "The new configuration was refused; the old one stays in force",
        causes: &[
            "the file has a mistake",
            "a secret or certificate that it names cannot be read",
        ],
        remedy: "`postern check` says what is wrong and where. Correct it, then run `postern reload`. A gateway that is started with this \
                 file would not run.",
    },
    IncidentText {
        kind: Kind::LoginAttack,
        word: "login_attack",
        severity: Warning,
        at_once: true,
        title: "Over 20 logins from {} failed within 5 minutes",
        causes: &[
            "a device or program has an old password",
            "somebody guesses passwords",
        ],
        remedy: "Find out what has that address. Give a device its new password; shut out a stranger by the firewall. The address is \
                 slowed down by itself meanwhile.",
    },
    IncidentText {
        kind: Kind::ClientSilent,
        word: "client_silent",
        severity: Warning,
        at_once: true,
        title: "The client {} has sent no mail for longer than it should",
        causes: &[
            "the device or program is off, or its job did not run",
            "its network, its address or its configuration has changed",
            "its mail is refused here",
        ],
        remedy: "Look whether it runs and what it says of its mail. `postern explain --client ADDRESS` says whether it would be taken. \
                 If it sends seldom by nature, make `expect_every` longer.",
    },
    IncidentText {
        kind: Kind::ClockJumped,
        word: "clock_jumped",
        severity: Warning,
        at_once: true,
        title: "The clock of this machine was set by more than 5 minutes",
        causes: &[
            "no time service runs, or it could not reach its servers",
            "a virtual machine was paused, restored or moved",
        ],
        remedy: "Let a time service run (chrony, systemd-timesyncd) and look whether the time is right now. What waits in the queue keeps \
                 its age; certificates and tokens go by the clock and fail when it is wrong.",
    },
    IncidentText {
        kind: Kind::NotifyFailing,
        word: "notify_failing",
        severity: Warning,
        at_once: true,
        title: "The channel {} tells nobody: what it was to say was given up",
        causes: &[
            "the URL was revoked or has changed",
            "a firewall or proxy, or outbound.allowed_hosts, does not let it through",
            "the receiver is down for over a day",
        ],
        remedy: "Correct the [[notify]] section and run `postern incident test NAME`. What was given up is not told again: look at \
                 `postern incident list`.",
    },
    IncidentText {
        kind: Kind::WindowFailing,
        word: "window_failing",
        severity: Warning,
        at_once: true,
        title: "The page, or the file that it keeps things in, had a fault",
        causes: &[
            "window.db was damaged, by the disk or by hand",
            "a fault of this program; the log has it",
        ],
        remedy: "Mail is not touched by it. A damaged file is kept as window.db.bad and a new one is in use: logins, the audit and \
                 proposals begin anew. Look at the disk, and report what the log says.",
    },
    IncidentText {
        kind: Kind::StoreAway,
        word: "store_away",
        severity: Critical,
        at_once: false,
        title: "The database that has the queue is away",
        causes: &[
            "it restarts, or its primary fails over",
            "the network between this gateway and the database is down",
            "its password or its rights were changed, or its disk is full",
        ],
        remedy: "Mail is taken and kept on this machine meanwhile (unless on_outage is \"refuse\"); what goes through no shared limit is sent. \
                 Look at the reason in the evidence, at the database and at the way there. Everything moves back by itself once it answers.",
    },
    IncidentText {
        kind: Kind::MemberSilent,
        word: "member_silent",
        severity: Warning,
        at_once: false,
        title: "The gateway {} of this queue is not heard of",
        causes: &[
            "it was killed, or its machine is down",
            "it does not reach the database",
        ],
        remedy: "After its dead_after the others take over what it was sending; that may arrive twice. Start it again, or mend its way to the \
                 database. One that is switched off for good is forgotten by `postern queue forget NAME`.",
    },
    IncidentText {
        kind: Kind::MemberTakenOver,
        word: "member_taken_over",
        severity: Warning,
        at_once: true,
        title: "The gateway {} of this queue was taken over",
        causes: &["it was not heard of for its dead_after"],
        remedy: "What it was sending waits for in_doubt_wait and is sent again, so it may arrive twice; mail that only its disk has waits for its \
                 return. Its part of the limits is kept for share_for: where it does not come back, `postern queue forget NAME` gives it to the others.",
    },
    IncidentText {
        kind: Kind::SentTwice,
        word: "sent_twice",
        severity: Warning,
        at_once: true,
        title: "Mail was sent by two gateways",
        causes: &[
            "a gateway stood still for longer than its dead_after while it was sending, and went on (a virtual machine that was paused)",
        ],
        remedy: "Nothing can be undone; `postern trace ID` of the messages in the log says what happened. Keep gateways from standing still, or make \
                 dead_after longer than they do.",
    },
    IncidentText {
        kind: Kind::ConfigurationsDiffer,
        word: "configurations_differ",
        severity: Warning,
        at_once: true,
        title: "The gateway {} of this queue has another configuration",
        causes: &[
            "a change was made on one machine and not on the other, or one has not reloaded since",
        ],
        remedy: "Each gateway sends what it claims by its own routes, connectors and lists. Make the files equal (but for hostname, addresses, \
                 certificates and cluster.name) and run `postern reload` on each.",
    },
    IncidentText {
        kind: Kind::QuotaUsedUp,
        word: "quota_used_up",
        severity: Warning,
        at_once: true,
        title: "The quota {} is used up",
        causes: &[
            "an application or a device sends more than it should: a loop, an error that is told again and again, a stolen login",
            "there is more to send than the quota was made for",
        ],
        remedy: "The evidence names who has no room; `postern queue list --quota NAME` shows what is held. Look for what sends it and stop that; then \
                 drop what nobody should get (`postern queue drop --quota NAME`) and let the rest go (`postern queue release --quota NAME`). Where \
                 it is all as it should be, raise max in [[quota]].",
    },
    IncidentText {
        kind: Kind::Archive,
        word: "archive",
        severity: Warning,
        at_once: true,
        title: "Copies for the archive {} could not be delivered and were given up",
        causes: &[
            "the archive refused the copy for good: its address is wrong, it is full, or the message is too large for it",
            "it was tried for as long as `give_up` of [queue] says",
        ],
        remedy: "The archive is incomplete; the mail itself went its own way. `postern queue list --route \"archive NAME\" --state failed` shows the \
                 copies. Once the cause is gone, `postern queue retry --route \"archive NAME\"` sends them; they are kept as long as `keep_failed` says.",
    },
    IncidentText {
        kind: Kind::Storm,
        word: "storm",
        severity: Warning,
        at_once: true,
        title: "Many things went wrong at once",
        causes: &[
            "they have one cause: the network, name resolution, the clock, or a change of the configuration",
        ],
        remedy: "Read the list in the evidence and look for what they have in common; mend that first. Each of them recovers by itself \
                 or has an incident of its own once this one is over.",
    },
];

impl IncidentKind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        TEXTS.iter().map(|text| text.kind)
    }

    /// Its words.
    pub fn text(self) -> &'static IncidentText {
        // They stand in the order of the kinds, which a test holds.
        TEXTS.get(self as usize).unwrap_or(&TEXTS[0])
    }

    /// The word in the configuration and in JSON.
    pub fn as_str(self) -> &'static str {
        self.text().word
    }

    /// From the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::all().find(|kind| kind.as_str() == word)
    }

    /// The title of one about this object.
    pub fn title(self, object: &str) -> String {
        self.text().title.replace("{}", object)
    }
}

impl fmt::Display for IncidentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_says_what_it_is_what_may_have_caused_it_and_what_to_do() {
        let mut words = std::collections::BTreeSet::new();
        for (place, text) in TEXTS.iter().enumerate() {
            assert_eq!(text.kind as usize, place, "{}", text.word);
            assert_eq!(text.kind.as_str(), text.word);
            assert_eq!(IncidentKind::parse(text.word), Some(text.kind));
            assert!(words.insert(text.word), "{} twice", text.word);
            assert!(text.title.len() > 20 && !text.title.contains('\n'));
            assert!(!text.causes.is_empty(), "{}", text.word);
            assert!(text.causes.iter().all(|cause| cause.len() > 10));
            assert!(text.remedy.len() > 60 && !text.remedy.contains("  "));
            assert!(text.remedy.ends_with('.'), "{}", text.word);
        }
        // The last one of the enum has its words as well.
        assert_eq!(IncidentKind::Storm as usize + 1, TEXTS.len());
        let known = [
            "connector_paused",
            "mailbox_refused",
            "connector_closed",
            "connector_stopped",
            "queue_old",
            "mail_failed",
            "mail_in_doubt",
            "store_failing",
            "disk_low",
            "credential_expires",
            "certificate_expires",
            "rotation_failed",
            "token_failing",
            "reload_refused",
            "login_attack",
            "client_silent",
            "clock_jumped",
            "notify_failing",
            "window_failing",
            "store_away",
            "member_silent",
            "member_taken_over",
            "sent_twice",
            "configurations_differ",
            "quota_used_up",
            "archive",
            "storm",
        ];
        assert_eq!(words, known.into());
    }
}
