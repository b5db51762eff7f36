//! The table: what an upstream's refusal says about us, about one sender, about one recipient, or about a quota.
//!
//! It is data, with the place beside each row where its text or its code comes from. The first row that fits counts;
//! what stands in none of them is judged by its first digit alone.

use std::time::Duration;

use super::meaning::{
    Blame::{self, Later, Message, Origin, Quota, Relay, Sender, Us},
    Place::{self, Auth, Greeting, Hello, Mail, Token},
};

use crate::mail::cause;

/// A row.
#[derive(Debug)]
pub(super) struct KnownRefusal {
    /// Whose matter it is.
    pub(super) blame: Blame,
    /// Codes from, to.
    pub(super) codes: (u16, u16),
    /// Enhanced codes, one of which it must be: subject, and detail from, to. Empty: any, or none. The class is the code's own.
    pub(super) enhanced: &'static [(u16, u16, u16)],
    /// Words, some of which it must say, quotations left out. Empty: whatever it says.
    pub(super) phrases: &'static [&'static str],
    /// Where in the conversation. Empty: anywhere.
    pub(super) at: &'static [Place],
    /// What to do about it.
    pub(super) remedy: &'static str,
    /// Where it is written that this is what it means.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "for whoever reads or changes the table; a test sees that it is there"
        )
    )]
    pub(super) source: &'static str,
}

/// The rows, in the order in which they are asked.
pub(super) fn all() -> impl Iterator<Item = &'static KnownRefusal> {
    [TOKENS, GOOGLE_DOMAINS, EXCHANGE, PROVIDERS, SERVERS, LOGINS]
        .into_iter()
        .flatten()
}

/// Those of Exchange Online.
#[cfg(test)]
pub(super) fn exchange() -> &'static [KnownRefusal] {
    EXCHANGE
}

/// A window of 24 hours moves on all the time: an hour later some of it is free again.
const DAY: Blame = Quota(Some(Duration::from_hours(1)));
/// Limits by the hour, or of an address.
const HOUR: Blame = Quota(Some(Duration::from_mins(15)));
/// Limits by the second or the minute: as long as seems right.
const SOON: Blame = Quota(None);

const PERMANENT: (u16, u16) = (500, 599);
const REFUSED: (u16, u16) = (400, 599);

type Codes = (u16, u16);
type Enhanced = &'static [(u16, u16, u16)];
type Phrases = &'static [&'static str];
type Places = &'static [Place];

const fn row(
    blame: Blame,
    codes: Codes,
    enhanced: Enhanced,
    phrases: Phrases,
    at: Places,
    remedy: &'static str,
    source: &'static str,
) -> KnownRefusal {
    KnownRefusal {
        blame,
        codes,
        enhanced,
        phrases,
        at,
        remedy,
        source,
    }
}

/// learn.microsoft.com: "Email non-delivery reports and SMTP errors in Exchange Online".
const NDR: &str = "https://learn.microsoft.com/exchange/troubleshoot/email-delivery/ndr/non-delivery-reports-in-exchange-online";
/// "Authenticate an IMAP, POP or SMTP connection using OAuth".
const MS_OAUTH: &str = "https://learn.microsoft.com/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth";
const MS_HVE: &str =
    "https://learn.microsoft.com/exchange/mail-flow-best-practices/high-volume-mails-m365";
const MS_BASIC: &str = "https://techcommunity.microsoft.com/blog/exchange/4489835";
const MS_SUBMISSION: &str = "https://learn.microsoft.com/exchange/clients-and-mobile-in-exchange-online/authenticated-client-smtp-submission";
const GOOGLE: &str = "https://support.google.com/a/answer/3726730";
const SES: &str = "https://docs.aws.amazon.com/ses/latest/dg/troubleshoot-error-messages.html";
const SES_CODES: &str = "https://docs.aws.amazon.com/ses/latest/dg/troubleshoot-smtp.html";
const SENDGRID: &str = "https://www.twilio.com/docs/sendgrid/for-developers/sending-email/smtp-errors-and-troubleshooting";
const POSTFIX: &str = "postfix src/smtpd/smtpd_check.c";
const EXIM: &str = "exim src/src/configure.default";
const SENDMAIL: &str = "sendmail cf/m4/proto.m4";
const QMAIL: &str = "netqmail qmail-smtpd.c";
const RFC4954: &str = "RFC 4954 section 6";

const HELO: &str = cause::HELO_REFUSED.text;
const RELAY: &str = cause::RELAY_DENIED.text;
const LOG_IN: &str = cause::NOT_LOGGED_IN.text;
const SEND_AS: &str = cause::SEND_AS_DENIED.text;
const OWN_FROM: &str = "the account that logs in may not send as this sender: rewrite the sender to the account's own address, or verify this one with the provider";
const WAITS: &str = "nothing to do: mail waits, and goes on by itself when the limit allows; a rate for the connector keeps it below the limit";
const TENANT: &str = cause::TENANT_BLOCKED.text;
const BANNED: &str = "the upstream has blocked this sender: secure the account, then lift the block (Exchange Online: Restricted entities in the Defender portal, or Microsoft support) [mailbox-blocked]";
const ADDRESS: &str = "the upstream does not trust the address of this machine: have it removed from the block list that is named, give it a name in DNS, or send through the provider's smarthost";
const DOMAIN: &str = "SPF, DKIM or DMARC of the sender's domain do not allow mail to be sent this way: correct them in DNS, or rewrite the sender";
const STARTTLS: &str = "the upstream wants TLS first: set tls = \"starttls\" or \"implicit\"";

/// Logging in with a token has causes of its own; of everything else under AUTH the last row is true.
#[rustfmt::skip]
const TOKENS: &[KnownRefusal] = &[
    row(Us, PERMANENT, &[(7, 3, 3)], &[], &[Token], cause::SMTP_SENDAS.text, MS_OAUTH),
    row(Us, PERMANENT, &[(7, 139, 139)], &["did not meet the criteria", "security defaults"], &[Token], cause::ACCESS_POLICY_ENTRA.text, MS_SUBMISSION),
    row(Us, PERMANENT, &[(7, 139, 139)], &[], &[Token], cause::SMTP_AUTH_OFF.text, MS_SUBMISSION),
    row(Us, PERMANENT, &[(7, 30, 30)], &[], &[Token], "the upstream takes no password, and has not seen a token: check that auth is \"xoauth2\" and that host is Exchange Online's [not-logged-in]", MS_BASIC),
    row(Us, PERMANENT, &[(7, 57, 57)], &[], &[Token], cause::NOT_LOGGED_IN.text, NDR),
    row(Us, PERMANENT, &[(7, 60, 60)], &[], &[Token], "the application may not send as this mailbox: correct mailbox, or grant the application access to it (Add-MailboxPermission, Send As) [send-as-denied]", MS_OAUTH),
    row(Us, PERMANENT, &[(7, 142, 142)], &[], &[Token], "the token ends too soon: this upstream wants at least 20 minutes left; check that the tenant's token lifetime policy gives more, and that this machine's clock is right", MS_HVE),
    row(Us, PERMANENT, &[(7, 143, 143)], &[], &[Token], "the token has expired: set this machine's clock right (NTP) [clock]", MS_HVE),
    row(Us, PERMANENT, &[(7, 144, 144)], &[], &[Token], "the application may not send: it needs the application permission Mail.Send of Office 365 Exchange Online, with admin consent", MS_HVE),
    row(Us, PERMANENT, &[(7, 240, 240)], &[], &[Token], "the application may not use this account: run Add-HVEAppAccess for the application", MS_HVE),
    row(Us, PERMANENT, &[(7, 9, 9)], &[], &[Token], cause::GOOGLE_PASSWORD.text, GOOGLE),
    row(Us, PERMANENT, &[(7, 14, 14)], &[], &[Token], "Google wants this account to sign in with a browser first, or has blocked it: sign in there as the mailbox, and look at its security page", GOOGLE),
    row(Us, PERMANENT, &[(5, 121, 126)], &[], &[Token], "the upstream does not understand the login; check mailbox and auth", MS_HVE),
    row(Us, (530, 530), &[], &[], &[Token], STARTTLS, RFC4954),
    row(Us, (538, 538), &[], &[], &[Token], STARTTLS, RFC4954),
    row(Us, (502, 504), &[], &[], &[Token], "the upstream does not know this AUTH mechanism; check host, port, `tls` and `auth` [auth-missing]", RFC4954),
    row(Us, PERMANENT, &[], &[], &[Token], "the token is not accepted for this mailbox: check mailbox (Google: subject, or whose refresh token it is), scope (Gmail: https://mail.google.com/), and that the application may send for it", RFC4954),
];

/// Google's 5.7.30, by its text, is about DKIM, and so is not Exchange Online's.
#[rustfmt::skip]
const GOOGLE_DOMAINS: &[KnownRefusal] = &[
    row(Sender, PERMANENT, &[(7, 26, 27), (7, 29, 30), (7, 40, 40)], &["dkim", "spf", "dmarc", "not authenticated", "unauthenticated"], &[], DOMAIN, GOOGLE),
];

/// Exchange Online. `docs/exchange-online.md` says the same, row by row.
#[rustfmt::skip]
const EXCHANGE: &[KnownRefusal] = &[
    row(Us, PERMANENT, &[(7, 139, 139)], &["did not meet the criteria", "security defaults"], &[], cause::ACCESS_POLICY_ENTRA.text, MS_SUBMISSION),
    row(Us, PERMANENT, &[(7, 139, 139)], &["basic authentication is disabled"], &[], cause::BASIC_ENDED.text, MS_BASIC),
    row(Us, PERMANENT, &[(7, 139, 139)], &[], &[], cause::SMTP_AUTH_OFF.text, MS_SUBMISSION),
    row(Us, PERMANENT, &[(7, 30, 30)], &[], &[], cause::BASIC_ENDED.text, MS_BASIC),
    row(Us, PERMANENT, &[(7, 57, 57)], &[], &[], cause::NOT_LOGGED_IN.text, NDR),
    row(Us, PERMANENT, &[(7, 240, 240)], &[], &[], "the application may not use this account: run Add-HVEAppAccess for the application", MS_HVE),
    row(Sender, PERMANENT, &[(7, 62, 62)], &[], &[], "the From must be the account that logs in: rewrite the sender", MS_HVE),
    row(Sender, PERMANENT, &[(7, 60, 60), (2, 252, 252)], &[], &[], SEND_AS, NDR),
    row(Sender, PERMANENT, &[], &["sendasdenied", "permissions to send as this sender"], &[], SEND_AS, NDR),
    row(Relay, PERMANENT, &[(7, 64, 64)], &[], &[], "Exchange Online does not recognise this gateway, which may not relay from this machine's address: check that the inbound connector names the public address or the certificate of this machine; without one, only recipients in the tenant are accepted [relay-denied]", NDR),
    row(Us, PERMANENT, &[(7, 68, 68)], &[], &[], "the tenant rejects Direct Send, and no inbound connector recognises this gateway: make one for the public address or the certificate of this machine, or use a connector of type \"graph\"", "https://techcommunity.microsoft.com/blog/exchange/4408790"),
    row(Relay, PERMANENT, &[(7, 54, 54)], &[], &[], RELAY, NDR),
    row(DAY, PERMANENT, &[(7, 232, 233), (7, 236, 236)], &[], &[], "the tenant has sent to as many external recipients as it may in 24 hours: mail waits; send less, get more licences, use a domain of your own instead of onmicrosoft.com (100 a day), or another connector for external recipients [quota-day]", NDR),
    row(DAY, PERMANENT, &[(1, 90, 92)], &[], &[], "the mailbox has sent to as many recipients as it may in 24 hours: its mail waits; spread the load over several mailboxes, or use High Volume Email [quota-day]", NDR),
    row(DAY, PERMANENT, &[(2, 0, 2)], &["submissionquotaexceeded", "submission quota"], &[], "the mailbox has sent to as many recipients as it may in 24 hours: its mail waits; spread the load over several mailboxes, or use High Volume Email [quota-day]", NDR),
    // At MAIL it can only be the sender's.
    row(DAY, PERMANENT, &[(2, 2, 2)], &[], &[Mail], "the sending mailbox is at its limit: its mail waits; make room in it, or send less", NDR),
    row(Later, PERMANENT, &[(2, 121, 122)], &[], &[], "nothing to do: the recipient gets more mail than Exchange Online allows in an hour; it is tried again", NDR),
    row(Sender, PERMANENT, &[(1, 8, 8)], &[], &[], "the upstream does not let this sender send: the mailbox is blocked (Exchange Online: Restricted entities in the Defender portal), or its domain is not in DNS [mailbox-blocked]", NDR),
    row(Sender, PERMANENT, &[(7, 501, 503), (7, 800, 800)], &[], &[], BANNED, NDR),
    row(Us, PERMANENT, &[(7, 506, 506)], &[], &[], HELO, NDR),
    row(Sender, PERMANENT, &[(2, 0, 2)], &["outboundspamexception"], &[], BANNED, "nodemailer/nodemailer#1486: the verdict of Exchange Online on outbound spam"),
    row(HOUR, PERMANENT, &[(7, 508, 508)], &[], &[], WAITS, NDR),
    row(Sender, PERMANENT, &[(7, 23, 23), (7, 509, 509), (7, 515, 515)], &[], &[], DOMAIN, NDR),
    row(Relay, PERMANENT, &[(7, 25, 25), (7, 511, 511), (7, 606, 649)], &[], &[], ADDRESS, NDR),
    row(Message, PERMANENT, &[(7, 703, 703)], &[], &[], "a recipient is on the block list of your own organization: see its Tenant Allow/Block List", NDR),
    row(Sender, PERMANENT, &[(7, 750, 750)], &[], &[], "the domain of the sender is not registered in the tenant: add and verify it, or rewrite the sender (the tenant is blocked by Microsoft for such mail, until its support lifts it) [tenant-blocked]", NDR),
    row(Us, PERMANENT, &[(7, 700, 749)], &[], &[], TENANT, NDR),
    // Refused by the recipient's own organization, whatever else it says.
    row(Message, PERMANENT, &[(7, 12, 13), (7, 124, 136), (7, 504, 505), (7, 507, 507), (7, 513, 513)], &[], &[], "the recipient's organization does not take mail from this sender: only it can change that", NDR),
    row(Us, PERMANENT, &[], &["client was not authenticated", "permission to submit mail to this server"], &[], LOG_IN, NDR),
];

/// The services, by their own lists of replies.
#[rustfmt::skip]
const PROVIDERS: &[KnownRefusal] = &[
    // Gmail and Workspace.
    row(DAY, PERMANENT, &[(4, 5, 5)], &[], &[], WAITS, GOOGLE),
    row(DAY, REFUSED, &[(7, 0, 1), (2, 0, 1)], &["daily smtp relay", "daily user sending", "daily sending quota", "email quota exceeded"], &[], WAITS, GOOGLE),
    row(SOON, REFUSED, &[(2, 1, 1)], &["smtp relay limit exceeded"], &[], WAITS, GOOGLE),
    row(HOUR, PERMANENT, &[(7, 0, 1), (7, 28, 28)], &["unusual rate of unsolicited mail"], &[], WAITS, GOOGLE),
    row(Later, PERMANENT, &[(2, 1, 1)], &["receiving mail at a rate", "receiving mail too quickly"], &[], "nothing to do: the recipient gets more mail than Google allows; it is tried again", GOOGLE),
    row(Origin, PERMANENT, &[(7, 0, 1)], &["invalid credentials for relay", "mail relay denied", "mail sending denied"], &[], "Google's relay does not know this gateway: in the admin console (Gmail, Routing, SMTP relay service) allow the public address of this machine, or require SMTP AUTH and set username and password; the sender's domain must be one of the Workspace [relay-denied]", GOOGLE),
    row(Us, PERMANENT, &[(7, 0, 1)], &["not authorized to send email directly"], &[], ADDRESS, GOOGLE),
    row(Us, PERMANENT, &[(7, 9, 9)], &[], &[], cause::GOOGLE_PASSWORD.text, GOOGLE),
    // Amazon SES.
    row(SOON, REFUSED, &[], &["throttling failure: maximum sending rate", "maximum sending rate exceeded"], &[], WAITS, SES_CODES),
    row(DAY, REFUSED, &[], &["throttling failure", "daily message quota exceeded"], &[], WAITS, SES_CODES),
    row(Sender, PERMANENT, &[], &["message rejected: email address is not verified", "email address is not verified"], &[], "the sender is not verified with Amazon SES in this region (in the sandbox a recipient must be too): verify its domain, or rewrite the sender", SES),
    row(Us, PERMANENT, &[], &["message rejected: sending suspended", "message rejected: sending paused", "message rejected: account is paused", "sending paused for this account", "sending suspended for this account"], &[], "Amazon SES has stopped this account: see its console and the mail that Amazon has sent", SES),
    row(Us, PERMANENT, &[], &["access denied: user"], &[], "the credentials may not send: give the IAM user ses:SendRawEmail for this identity", SES),
    // SendGrid, Brevo, Mailgun, Postmark.
    row(DAY, REFUSED, &[], &["maximum credits exceeded", "authentication failed: maximum credits exceeded"], &[], "the account's credits are used up: mail waits until there are more", SENDGRID),
    row(Sender, PERMANENT, &[], &["the from address does not match a verified sender identity", "cannot receive from specified address"], &[], OWN_FROM, SENDGRID),
    row(Us, PERMANENT, &[], &["unauthenticated senders not allowed"], &[], LOG_IN, SENDGRID),
    row(Us, PERMANENT, &[], &["unauthorized ip address"], &[], "the account accepts logins from listed addresses only: add the public address of this machine to its authorized IPs", "https://help.brevo.com/hc/en-us/articles/5740422459666"),
    row(Sender, PERMANENT, &[], &["validate your sender"], &[], OWN_FROM, "https://help.brevo.com/hc/en-us/articles/208836149"),
    row(Sender, REFUSED, &[], &["is not allowed to send:"], &[], "the domain of the account is not verified, or is a sandbox: finish its set-up with the provider", "https://help.mailgun.com/hc/en-us/articles/202236504"),
    row(Sender, PERMANENT, &[], &["is not a sender signature"], &[], OWN_FROM, "https://postmarkapp.com/developer/api/overview#error-codes"),
    // Mailboxes.
    row(Sender, PERMANENT, &[], &["sender address is not allowed"], &[], OWN_FROM, "GMX, WEB.DE and IONOS: infertux/zeyple#49"),
    row(Sender, PERMANENT, &[], &["relaying disallowed as", "sender is not allowed to relay emails"], &[], OWN_FROM, "Zoho: https://www.zoho.com/mail/help/error-codes.html"),
    row(Sender, (553, 553), &[], &["relaying disallowed"], &[], OWN_FROM, "Zoho: mybb/mybb#2644"),
    row(Sender, (553, 553), &[], &["from: address not verified"], &[], OWN_FROM, "Yahoo: https://help.yahoo.com/kb/SLN26513.html"),
    row(Sender, PERMANENT, &[], &["from address is not one of your addresses"], &[], OWN_FROM, "iCloud: https://support.apple.com/en-us/102198"),
    row(Sender, (551, 551), &[], &["not authorised to send from this header address"], &[], OWN_FROM, "Fastmail: https://www.fastmail.help/hc/en-us/articles/360060591213"),
    row(Sender, PERMANENT, &[], &["mail from must equal authorized user", "mail from address must be same as authorization user"], &[], OWN_FROM, "163 and QQ: https://help.mail.163.com/faqDetail.do?code=d7a5dc8471cd0c0e8b4b8f4f8e49998b374173cfe9171305fa1ce630d7f67ac2"),
    row(Sender, PERMANENT, &[], &["unconfigured sending domain"], &[], OWN_FROM, "SparkPost: transitland/transitland-datastore#1231"),
    row(Sender, PERMANENT, &[], &["not local sender over smtp"], &[], OWN_FROM, "Mail.ru: https://help.mail.ru/mail/mailer/popsmtp"),
    row(HOUR, PERMANENT, &[(4, 6, 6)], &["unusual sending activity"], &[], WAITS, "Zoho: https://www.zoho.com/mail/help/error-codes.html"),
    // Outlook.com, about the address that speaks to it.
    row(Relay, PERMANENT, &[(7, 1, 1)], &["part of their network is on our block list", "weren't sent"], &[], ADDRESS, "https://mail.live.com/mail/troubleshooting.aspx"),
    row(Relay, PERMANENT, &[], &["sc-001", "dy-001", "ou-001"], &[], ADDRESS, "https://mail.live.com/mail/troubleshooting.aspx"),
    row(Sender, PERMANENT, &[], &["sender is not allowed to send", "as a sender domain"], &[], OWN_FROM, "jstedfast/MailKit#1101, PHPMailer/PHPMailer#304"),
    row(HOUR, REFUSED, &[], &["has exceeded the max emails per hour", "has exceeded the max defers and failures per hour"], &[], WAITS, "cPanel: https://docs.cpanel.net/knowledge-base/email/how-to-fix-exceeded-max-emails-per-hour/"),
];

/// The servers that smarthosts are made of. What they say of a login, of EHLO, TLS and the address of who connects they may also hand
/// on from the server of one recipient, which says it of them: it is [`Relay`].
#[rustfmt::skip]
const SERVERS: &[KnownRefusal] = &[
    row(Us, REFUSED, &[], &["sender address rejected: not logged in"], &[], LOG_IN, POSTFIX),
    row(Sender, PERMANENT, &[], &["sender address rejected: not owned by"], &[], OWN_FROM, POSTFIX),
    row(Sender, PERMANENT, &[], &["sender address rejected", "sender verify failed", "sender denied"], &[], "the upstream does not accept this sender: a [[rewrite]] can give the mail one that it accepts", POSTFIX),
    row(Message, (504, 504), &[], &["recipient address rejected"], &[], "the recipient's address needs a domain: set default_domain", POSTFIX),
    // Every server that checks it says 504 to MAIL or RCPT about EHLO: the parameter is not theirs.
    row(Relay, PERMANENT, &[], &["helo command rejected", "ehlo command rejected", "invalid helo", "invalid ehlo", "bad helo", "helo argument", "ehlo argument", "need fully-qualified hostname", "helo name", "ehlo name", "in helo", "in ehlo"], &[], HELO, POSTFIX),
    row(Us, PERMANENT, &[], &["domain name", "invalid domain", "invalid name", "invalid host", "hostname", "fully qualified", "fully-qualified", "fqdn", "address literal"], &[Hello], HELO, "RFC 5321 section 4.1.4"),
    row(Relay, (504, 504), &[], &[], &[Mail, Place::Rcpt], HELO, POSTFIX),
    row(Relay, REFUSED, &[], &["client host rejected"], &[], ADDRESS, POSTFIX),
    row(Relay, PERMANENT, &[], &["service unavailable; client host", "service unavailable, client host", "service unavailable; client [", "service unavailable, client [", "client host blocked"], &[], ADDRESS, POSTFIX),
    row(Relay, PERMANENT, &[(7, 10, 11)], &[], &[Greeting, Hello, Mail, Place::Rcpt, Place::Data], STARTTLS, "RFC 5248, IANA: X.7.10 encryption needed, X.7.11 encryption required for this login"),
    row(Relay, REFUSED, &[], &["must issue a starttls", "starttls is required", "starttls required", "must use tls", "tls is required"], &[], STARTTLS, "RFC 3207 section 4"),
    row(Relay, REFUSED, &[], &["relay access denied"], &[], RELAY, POSTFIX),
    row(Relay, REFUSED, &[], &["relay not permitted", "relaying not permitted"], &[], RELAY, EXIM),
    row(Relay, REFUSED, &[], &["relaying denied"], &[], RELAY, SENDMAIL),
    row(Relay, REFUSED, &[], &["my list of allowed rcpthosts"], &[], RELAY, QMAIL),
    row(Relay, REFUSED, &[], &["unable to relay"], &[], RELAY, NDR),
    row(Relay, PERMANENT, &[], &["delivery is not allowed to this address"], &[], RELAY, "hMailServer SMTPConnection.cpp"),
    row(Relay, PERMANENT, &[], &["i cannot deliver mail for"], &[], RELAY, "Haraka connection.js"),
    row(Relay, PERMANENT, &[], &["when attempting to send to a non-local"], &[], RELAY, "MailEnable: https://www.mailenable.com/kb/content/article.asp?ID=ME020124"),
    row(Relay, REFUSED, &[], &["relay denied", "relay prohibited", "relay not allowed", "relay is not allowed", "relay rejected", "relaying disallowed", "relaying not allowed", "relaying is not allowed", "relaying prohibited", "relaying is prohibited", "not permitted to relay", "not allowed to relay", "not authorized to relay", "not authorised to relay", "we do not relay", "no relaying", "cannot relay"], &[], RELAY, "Courier, CommuniGate, Domino, Exim's older examples, James"),
];

/// Logins that are missing or refused; in words also the recipient's server's, as in [`SERVERS`].
#[rustfmt::skip]
const LOGINS: &[KnownRefusal] = &[
    row(Us, (534, 534), &[], &[], &[], "the upstream wants a different or stronger AUTH mechanism: check `auth`, or use an app password [auth-missing]", RFC4954),
    row(Us, (535, 535), &[(7, 3, 3)], &[], &[], "check `username` and `password` (user name or password is wrong), and that SMTP AUTH is on for the mailbox; Exchange Online is giving up passwords: use a connector of type \"graph\" or OAuth [login-refused]", MS_SUBMISSION),
    row(Us, (535, 535), &[], &[], &[], cause::LOGIN_REFUSED.text, RFC4954),
    row(Us, (538, 538), &[], &[], &[], "the upstream wants TLS before a login: set tls = \"starttls\" or \"implicit\"", RFC4954),
    row(Us, (530, 530), &[(7, 0, 0)], &[], &[], "the upstream wants TLS or a login first: set tls = \"starttls\", username and password", RFC4954),
    row(Us, (530, 530), &[], &[], &[], LOG_IN, RFC4954),
    row(Us, PERMANENT, &[], &[], &[Auth], "check `username`, `password` and `auth` (user name or password may be wrong) [login-refused]", RFC4954),
    row(Relay, REFUSED, &[], &["authentication required", "authentication is required", "auth required", "authenticate first", "authentication first", "auth first", "must authenticate", "must be authenticated", "please authenticate", "need to authenticate", "not authenticated", "login first", "log in first", "must log in", "requires authentication", "turn on smtp authentication"], &[Greeting, Hello, Mail, Place::Rcpt, Place::Data], LOG_IN, RFC4954),
];
