//! The well-known services: a name for host, port and TLS (`service = "Gmail"`), and what is peculiar to each.
//!
//! A table and its lookup; `postern services` prints it. `smtp` knows hosts only.

use super::settings::{
    Auth::{self, Auto},
    Tls::{self, Implicit, Off, StartTls},
};
use crate::smtp::sasl::Mechanism;

/// One service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// As it is listed.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// The domains of its mailboxes.
    pub domains: &'static [&'static str],
    /// Host of its submission server.
    pub host: &'static str,
    /// Port.
    pub port: u16,
    /// TLS.
    pub tls: Tls,
    /// How to log in, where `auto` does not work.
    pub auth: Auth,
}

impl Service {
    fn is_called(&self, name: &str) -> bool {
        std::iter::once(&self.name)
            .chain(self.aliases)
            .chain(self.domains)
            .any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Senders of mail in bulk: they have room for more connections than providers of mailboxes, and publish no number.
const IN_BULK: &[&str] = &[
    "ElasticEmail",
    "Loops",
    "MailerSend",
    "Mailgun",
    "Mailjet",
    "Mandrill",
    "Postmark",
    "Resend",
    "SendCloud",
    "SendGrid",
    "SendinBlue",
    "SMTP2GO",
    "Sparkpost",
];

impl Service {
    /// Connections that it is known to take at once, where it publishes a number. Exchange Online: three for a mailbox, 432 4.3.2
    /// beyond (learn.microsoft.com, "Exchange Online limits").
    pub fn known_connections(&self) -> Option<usize> {
        (self.host == "smtp.office365.com").then_some(3)
    }

    /// `max_connections` where the file does not say.
    pub fn connections(&self) -> usize {
        let is_in_bulk = IN_BULK.contains(&self.name) || self.name.starts_with("SES");
        let unknown = if is_in_bulk { 10 } else { 4 };
        self.known_connections().unwrap_or(unknown)
    }
}

/// The service that has this host, by whatever name it was given.
pub fn at(host: &str) -> Option<&'static Service> {
    let is_it = |service: &&Service| service.host.eq_ignore_ascii_case(host);
    SERVICES.iter().find(is_it)
}

/// Every service, by name.
pub fn all() -> &'static [Service] {
    SERVICES
}

/// By name, alias or domain (also of an address), without case.
pub fn find(name: &str) -> Option<&'static Service> {
    let name = name.rsplit('@').next().unwrap_or(name).trim();
    SERVICES.iter().find(|service| service.is_called(name))
}

const fn service(
    name: &'static str,
    aliases: &'static [&'static str],
    domains: &'static [&'static str],
    host: &'static str,
    port: u16,
    tls: Tls,
    auth: Auth,
) -> Service {
    Service {
        name,
        aliases,
        domains,
        host,
        port,
        tls,
        auth,
    }
}

const LOGIN: Auth = Auth::With(Mechanism::Login);

/// Name, aliases, domains, host, port, TLS, login. One line each.
#[rustfmt::skip]
const SERVICES: &[Service] = &[
    service("126", &[], &[], "smtp.126.com", 465, Implicit, Auto),
    service("163", &[], &[], "smtp.163.com", 465, Implicit, Auto),
    service("1und1", &[], &[], "smtp.1und1.de", 465, Implicit, LOGIN),
    service("Aliyun", &[], &["aliyun.com"], "smtp.aliyun.com", 465, Implicit, Auto),
    service("AliyunQiye", &[], &[], "smtp.qiye.aliyun.com", 465, Implicit, Auto),
    service("AOL", &[], &["aol.com"], "smtp.aol.com", 587, StartTls, Auto),
    service("Aruba", &["Aruba PEC"], &["aruba.it", "pec.aruba.it"], "smtps.aruba.it", 465, Implicit, LOGIN),
    service("Bluewin", &[], &["bluewin.ch"], "smtpauths.bluewin.ch", 465, Implicit, Auto),
    service("BOL", &[], &["bol.com.br"], "smtp.bol.com.br", 587, StartTls, Auto),
    service("DebugMail", &[], &[], "debugmail.io", 25, StartTls, Auto),
    service("Disroot", &[], &["disroot.org"], "disroot.org", 587, StartTls, LOGIN),
    service("DynectEmail", &["Dynect"], &[], "smtp.dynect.net", 25, StartTls, Auto),
    service("ElasticEmail", &["Elastic Email"], &[], "smtp.elasticemail.com", 465, Implicit, Auto),
    service("Ethereal", &["ethereal.email"], &[], "smtp.ethereal.email", 587, StartTls, Auto),
    service("FastMail", &[], &["fastmail.com", "fastmail.fm"], "smtp.fastmail.com", 465, Implicit, Auto),
    service("Feishu Mail", &["Feishu", "FeishuMail"], &["www.feishu.cn"], "smtp.feishu.cn", 465, Implicit, Auto),
    service("Forward Email", &["FE", "ForwardEmail"], &["forwardemail.net"], "smtp.forwardemail.net", 465, Implicit, Auto),
    service("GandiMail", &["Gandi", "Gandi Mail"], &[], "mail.gandi.net", 587, StartTls, Auto),
    service("Gmail", &["Google Mail"], &["gmail.com", "googlemail.com"], "smtp.gmail.com", 465, Implicit, Auto),
    service("GmailWorkspace", &["Google Workspace Mail"], &[], "smtp-relay.gmail.com", 465, Implicit, Auto),
    service("GMX", &[], &["gmx.com", "gmx.net", "gmx.de"], "mail.gmx.com", 587, StartTls, Auto),
    service("Godaddy", &[], &[], "smtpout.secureserver.net", 25, StartTls, Auto),
    service("GodaddyAsia", &[], &[], "smtp.asia.secureserver.net", 25, StartTls, Auto),
    service("GodaddyEurope", &[], &[], "smtp.europe.secureserver.net", 25, StartTls, Auto),
    service("Groundmail", &[], &[], "smtp.groundmail.dev", 587, StartTls, Auto),
    service("hot.ee", &[], &[], "mail.hot.ee", 587, StartTls, Auto),
    service("Hotmail", &["Outlook", "Outlook.com", "Hotmail.com"], &["hotmail.com", "outlook.com"], "smtp-mail.outlook.com", 587, StartTls, Auto),
    service("iCloud", &["Me", "Mac"], &["icloud.com", "me.com", "mac.com"], "smtp.mail.me.com", 587, StartTls, Auto),
    service("Infomaniak", &[], &["ik.me", "ikmail.com", "etik.com"], "mail.infomaniak.com", 587, StartTls, Auto),
    service("KolabNow", &["Kolab"], &["kolabnow.com"], "smtp.kolabnow.com", 465, Implicit, LOGIN),
    service("Loopia", &[], &[], "mailcluster.loopia.se", 465, Implicit, Auto),
    service("Loops", &[], &[], "smtp.loops.so", 587, StartTls, Auto),
    service("mail.ee", &[], &[], "smtp.mail.ee", 587, StartTls, Auto),
    service("Mail.ru", &[], &[], "smtp.mail.ru", 465, Implicit, Auto),
    service("Mailcatch.app", &[], &[], "sandbox-smtp.mailcatch.app", 2525, StartTls, Auto),
    service("Maildev", &[], &[], "localhost", 1025, Off, Auto),
    service("MailerSend", &[], &[], "smtp.mailersend.net", 587, StartTls, Auto),
    service("Mailgun", &[], &[], "smtp.mailgun.org", 465, Implicit, Auto),
    service("Mailjet", &[], &[], "in.mailjet.com", 587, StartTls, Auto),
    service("Mailosaur", &[], &[], "mailosaur.io", 25, StartTls, Auto),
    service("MailSenpai", &[], &[], "relay.mailsenpai.com", 2525, StartTls, Auto),
    service("Mailtrap", &[], &[], "live.smtp.mailtrap.io", 587, StartTls, Auto),
    service("Mandrill", &[], &[], "smtp.mandrillapp.com", 587, StartTls, Auto),
    service("Naver", &[], &[], "smtp.naver.com", 587, StartTls, Auto),
    service("OhMySMTP", &[], &[], "smtp.ohmysmtp.com", 587, StartTls, Auto),
    service("One", &[], &[], "send.one.com", 465, Implicit, Auto),
    service("OpenMailBox", &["OMB", "openmailbox.org"], &[], "smtp.openmailbox.org", 465, Implicit, Auto),
    service("Outlook365", &[], &[], "smtp.office365.com", 587, StartTls, Auto),
    service("Oveyon", &[], &[], "smtp.oveyon.com", 587, StartTls, Auto),
    service("Postmark", &["PostmarkApp"], &[], "smtp.postmarkapp.com", 2525, StartTls, Auto),
    service("Proton", &["ProtonMail", "Proton.me", "Protonmail.com", "Protonmail.ch"], &["proton.me", "protonmail.com", "pm.me", "protonmail.ch"], "smtp.protonmail.ch", 587, StartTls, Auto),
    service("qiye.aliyun", &[], &[], "smtp.mxhichina.com", 465, Implicit, Auto),
    service("QQ", &[], &["qq.com"], "smtp.qq.com", 465, Implicit, Auto),
    service("QQex", &["QQ Enterprise"], &["exmail.qq.com"], "smtp.exmail.qq.com", 465, Implicit, Auto),
    service("Resend", &[], &[], "smtp.resend.com", 465, Implicit, Auto),
    service("Runbox", &[], &["runbox.com"], "smtp.runbox.com", 465, Implicit, Auto),
    service("SendCloud", &[], &[], "smtp.sendcloud.net", 2525, StartTls, Auto),
    service("SendGrid", &[], &[], "smtp.sendgrid.net", 587, StartTls, Auto),
    service("SendinBlue", &["Brevo"], &[], "smtp-relay.brevo.com", 587, StartTls, Auto),
    service("SendPulse", &[], &[], "smtp-pulse.com", 465, Implicit, Auto),
    service("SES", &[], &[], "email-smtp.us-east-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-AP-NORTHEAST-1", &[], &[], "email-smtp.ap-northeast-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-AP-NORTHEAST-2", &[], &[], "email-smtp.ap-northeast-2.amazonaws.com", 465, Implicit, Auto),
    service("SES-AP-NORTHEAST-3", &[], &[], "email-smtp.ap-northeast-3.amazonaws.com", 465, Implicit, Auto),
    service("SES-AP-SOUTH-1", &[], &[], "email-smtp.ap-south-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-AP-SOUTHEAST-1", &[], &[], "email-smtp.ap-southeast-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-AP-SOUTHEAST-2", &[], &[], "email-smtp.ap-southeast-2.amazonaws.com", 465, Implicit, Auto),
    service("SES-CA-CENTRAL-1", &[], &[], "email-smtp.ca-central-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-EU-CENTRAL-1", &[], &[], "email-smtp.eu-central-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-EU-NORTH-1", &[], &[], "email-smtp.eu-north-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-EU-WEST-1", &[], &[], "email-smtp.eu-west-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-EU-WEST-2", &[], &[], "email-smtp.eu-west-2.amazonaws.com", 465, Implicit, Auto),
    service("SES-EU-WEST-3", &[], &[], "email-smtp.eu-west-3.amazonaws.com", 465, Implicit, Auto),
    service("SES-SA-EAST-1", &[], &[], "email-smtp.sa-east-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-US-EAST-1", &[], &[], "email-smtp.us-east-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-US-EAST-2", &[], &[], "email-smtp.us-east-2.amazonaws.com", 465, Implicit, Auto),
    service("SES-US-GOV-EAST-1", &[], &[], "email-smtp.us-gov-east-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-US-GOV-WEST-1", &[], &[], "email-smtp.us-gov-west-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-US-WEST-1", &[], &[], "email-smtp.us-west-1.amazonaws.com", 465, Implicit, Auto),
    service("SES-US-WEST-2", &[], &[], "email-smtp.us-west-2.amazonaws.com", 465, Implicit, Auto),
    service("Seznam", &["Seznam Email"], &["seznam.cz", "email.cz", "post.cz", "spoluzaci.cz"], "smtp.seznam.cz", 465, Implicit, Auto),
    service("SMTP2GO", &[], &[], "mail.smtp2go.com", 2525, StartTls, Auto),
    service("SpacePost", &[], &[], "smtp.spacepost.dev", 25976, StartTls, Auto),
    service("Sparkpost", &["SparkPost", "SparkPost Mail"], &["sparkpost.com"], "smtp.sparkpostmail.com", 587, StartTls, Auto),
    service("Tipimail", &[], &[], "smtp.tipimail.com", 587, StartTls, Auto),
    service("TurboSMTP", &[], &[], "pro.turbo-smtp.com", 465, Implicit, Auto),
    service("TurboSMTP-EU", &[], &[], "pro.eu.turbo-smtp.com", 465, Implicit, Auto),
    service("Tutanota", &[], &["tutanota.com", "tuta.com", "tutanota.de", "tuta.io"], "smtp.tutanota.com", 465, Implicit, Auto),
    service("Yahoo", &[], &["yahoo.com"], "smtp.mail.yahoo.com", 465, Implicit, Auto),
    service("Yandex", &[], &["yandex.ru"], "smtp.yandex.ru", 465, Implicit, Auto),
    service("Zimbra", &["Zimbra Collaboration"], &[], "smtp.zimbra.com", 587, StartTls, Auto),
    service("Zoho", &[], &[], "smtp.zoho.com", 465, Implicit, LOGIN),
];

/// High Volume Email of Exchange Online, by its host of today and by the old one: it has a scope and rules for tokens of its own.
pub fn is_high_volume(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "smtp-hve.office365.com" || host.ends_with(".hve.mx.microsoft")
}

/// Azure Communication Services, where a login is by the name of an SMTP username, which need not be an address.
pub fn is_communication(host: &str) -> bool {
    is_below(host, "azurecomm.net")
}

/// Submission to Exchange Online or Outlook.com, which begins without TLS, and which will take no passwords.
pub fn is_exchange(host: &str) -> bool {
    let is_its = |domain: &&str| is_below(host, domain);
    let domains = [
        "office365.com",
        "office365.us",
        "outlook.com",
        "partner.outlook.cn",
    ];
    !is_high_volume(host) && domains.iter().any(is_its)
}

/// It is the domain, or a name in it.
fn is_below(host: &str, domain: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host.strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup() {
        fn check(name: &str, host: Option<&str>) {
            assert_eq!(find(name).map(|service| service.host), host, "{name}");
        }
        check("Gmail", Some("smtp.gmail.com"));
        check("GMAIL", Some("smtp.gmail.com"));
        check("google mail", Some("smtp.gmail.com"));
        check("someone@googlemail.com", Some("smtp.gmail.com"));
        check("Outlook365", Some("smtp.office365.com"));
        check("hotmail.com", Some("smtp-mail.outlook.com"));
        check("", None);
        check("gmial", None);
    }

    #[test]
    fn high_volume_email() {
        for (host, expected) in [
            ("smtp.hve.mx.microsoft", true),
            ("SMTP.HVE.mx.microsoft.", true),
            ("smtp-hve.office365.com", true),
            ("smtp.office365.com", false),
            ("evilhve.mx.microsoft", false),
            ("smtp.hve.mx.microsoft.evil.tld", false),
        ] {
            assert_eq!(is_high_volume(host), expected, "{host}");
        }
    }

    #[test]
    fn hosts_with_rules_of_their_own() {
        for (host, exchange, communication) in [
            ("smtp.office365.com", true, false),
            ("SMTP.Office365.com.", true, false),
            ("smtp-legacy.office365.com", true, false),
            ("smtp-mail.outlook.com", true, false),
            ("smtp.office365.us", true, false),
            ("smtp-hve.office365.com", false, false),
            ("smtp.hve.mx.microsoft", false, false),
            ("smtp.azurecomm.net", false, true),
            ("smtp.notoffice365.com", false, false),
            ("office365.com.evil.tld", false, false),
            ("azurecomm.net.evil.tld", false, false),
        ] {
            assert_eq!(is_exchange(host), exchange, "{host}");
            assert_eq!(is_communication(host), communication, "{host}");
        }
    }

    #[test]
    fn every_name_means_one_service() {
        for service in all() {
            assert_eq!(find(service.name), Some(service), "{}", service.name);
            for name in service.aliases.iter().chain(service.domains) {
                assert!(find(name).is_some(), "{name}");
            }
            assert!(crate::mail::address::Domain::parse(service.host).is_ok());
            assert_ne!(service.port, 0);
            assert!(
                service.tls != Off || service.host == "localhost",
                "{} without TLS",
                service.name
            );
            assert_eq!(
                service.port == 465,
                service.tls == Implicit,
                "{}",
                service.name
            );
        }
        assert!(all().is_sorted_by_key(|service| service.name.to_lowercase()));
    }
}
