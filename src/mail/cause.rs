//! The usual mistakes: for each one stable word, what is wrong, and what helps, said the same way wherever it is met.
//!
//! A text that names a cause ends with its word in brackets, so that log, lane, list, incident and report have it from the text itself, also
//! after a restart. Who recognises a mistake is not decided here: tables of codes and replies point to these rows.

use std::fmt;

/// A usual mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// The stable word.
    pub word: &'static str,
    /// What is wrong. What was met in particular (a host, a day) stands before it.
    pub says: &'static str,
    /// What helps. `NAME` is the connector.
    pub fix: &'static str,
    /// All of it: what is wrong, what helps, and the word in brackets.
    pub text: &'static str,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)
    }
}

macro_rules! causes {
    ($($name:ident = $word:literal, $says:literal, $fix:literal;)+) => {
        $(
            #[doc = concat!("`", $word, "`: ", $says, ".")]
            pub const $name: Cause = Cause {
                word: $word,
                says: $says,
                fix: $fix,
                text: concat!($says, "; ", $fix, " [", $word, "]"),
            };
        )+
        /// All of them, in the order of the page for administrators.
        pub const ALL: &[Cause] = &[$($name),+];
    };
}

causes! {
    // This machine and the way out.
    CLOCK = "clock",
        "this machine's clock is wrong",
        "set it right (timedatectl shows it) and let NTP keep it";
    DNS_FAILED = "dns-failed",
        "DNS does not know the name",
        "check its spelling, or the resolver of this machine";
    HOST_UNREACHABLE = "host-unreachable",
        "nobody can be reached there",
        "have the firewall let this machine out to it; mail is submitted on port 587 (many networks block port 25 outwards)";
    HOST_NOT_ALLOWED = "host-not-allowed",
        "outbound.allowed_hosts does not name it",
        "add it there";
    PROXY_UNREACHABLE = "proxy-unreachable",
        "the proxy itself does not answer",
        "correct `proxy`, or have the proxy looked at";
    PROXY_LOGIN = "proxy-login",
        "the proxy wants a login (407)",
        "write user and password into `proxy`: http://user:password@host:port";
    PROXY_NTLM = "proxy-ntlm",
        "the proxy takes only NTLM or Negotiate, and Postern speaks Basic",
        "have a rule made there that lets this machine's address through without a login";
    PROXY_REFUSES = "proxy-refuses",
        "the proxy does not let it through",
        "have that host and port allowed there";
    PROXY_PAGE = "proxy-page",
        "something in between answered",
        "make the proxy or filter of this network pass these hosts through";
    TLS_INSPECTED = "tls-inspected",
        "its certificate has an unknown issuer: something on the way opens TLS",
        "set ca_file to the CA of that proxy, or have these hosts passed through";
    TLS_ISSUER = "tls-issuer",
        "its certificate has an unknown issuer",
        "set ca_file to the CA that issued it";
    TLS_NAME = "tls-name",
        "the certificate is for another name",
        "set `host` to a name that is in the certificate";
    TLS_EXPIRED = "tls-expired",
        "its certificate, or one of its chain, has expired",
        "its owner must renew it; if it is still valid, this machine's clock is wrong";
    TLS_OLD = "tls-old",
        "it speaks no TLS 1.2 with a key exchange that is safe",
        "update the server; if you must, set min_tls or old_ciphers of the connector";
    TLS_MODE = "tls-mode",
        "it does not speak TLS there as `tls` expects",
        "set tls = \"starttls\" where it greets in plain text (port 587), tls = \"implicit\" where TLS is spoken at once (port 465)";
    STARTTLS_MISSING = "starttls-missing",
        "STARTTLS is not offered, or masked by a firewall on the way",
        "switch the firewall's SMTP inspection off for this gateway; or set `tls` to what the port speaks";
    TENANT_RESTRICTED = "tenant-restricted",
        "a proxy of this network, or a policy, restricts which tenants may be used",
        "have this tenant allowed there";
    // The token.
    SECRET_ID = "secret-id",
        "client_secret looks like the ID of a secret, not its Value",
        "create a new one under Certificates & secrets and set client_secret to its Value, which is shown once";
    SECRET_WRONG = "secret-wrong",
        "the client secret is wrong (often its ID was copied instead of its value)",
        "create a new one under Certificates & secrets and set client_secret to its Value";
    SECRET_EXPIRED = "secret-expired",
        "the client secret expired",
        "create a new one under Certificates & secrets and set client_secret to its Value; or run `postern setup exchange --renew NAME` for a certificate, which Postern renews itself";
    CREDENTIAL_UNSEEN = "credential-unseen",
        "the endpoint saw no credential",
        "set client_secret, or certificate and key";
    TENANT_UNKNOWN = "tenant-unknown",
        "there is no such tenant",
        "correct tenant_id, and cloud if it is a national one";
    APP_UNKNOWN = "app-unknown",
        "there is no such application in this tenant",
        "set client_id to the Application (client) ID, not an object ID; correct tenant_id, and check that an administrator has consented";
    APP_NO_PRINCIPAL = "app-no-principal",
        "the application has no service principal in this tenant",
        "give admin consent, which makes one";
    APP_DISABLED = "app-disabled",
        "the application is switched off (disabled)",
        "enable it under Enterprise applications, Properties";
    APP_PUBLIC = "app-public",
        "the application is registered as a public client, which has no credential",
        "set Authentication, Allow public client flows: No; or remove client_secret";
    TENANT_COMMON = "tenant-common",
        "this needs the tenant itself, not `common`",
        "set tenant_id";
    CLOUD_WRONG = "cloud-wrong",
        "the tenant belongs to another cloud",
        "set cloud";
    CONSENT_MISSING = "consent-missing",
        "nobody has consented",
        "use Grant admin consent under API permissions";
    RESOURCE_UNKNOWN = "resource-unknown",
        "the tenant does not know the resource that the token is for, or the application asks for none of its permissions",
        "leave `scope` out, check cloud, add the application permission and give admin consent";
    RESOURCE_OFF = "resource-off",
        "the service that the token is for is disabled or not subscribed in this tenant",
        "enable it under Enterprise applications (Office 365 Exchange Online, or Microsoft Graph), Properties, or check the tenant's subscription";
    SCOPE_WRONG = "scope-wrong",
        "the scope is wrong",
        "leave `scope` out, or end it with /.default";
    CERTIFICATE_UNREGISTERED = "certificate-unregistered",
        "the certificate is not registered with the application, or has another key",
        "upload the file of `certificate` under Certificates & secrets, and check that certificate and key belong together";
    CERTIFICATE_EXPIRED = "certificate-expired",
        "the certificate has expired",
        "run `postern setup exchange --renew NAME`, or upload a new one under Certificates & secrets and set certificate and key to it";
    CERTIFICATE_EARLY = "certificate-early",
        "the certificate is not valid yet",
        "set this machine's clock right, or wait for its day";
    CERTIFICATE_MISMATCH = "certificate-mismatch",
        "certificate and key do not belong together",
        "set both to the right pair";
    KEY_UNUSABLE = "key-unusable",
        "the private key cannot be used",
        "it must be RSA, PEM, without a passphrase: openssl rsa -in OLD -out NEW, or openssl pkcs12 -in FILE.pfx -nodes -out NEW.pem for a PFX";
    FEDERATED_MISMATCH = "federated-mismatch",
        "no federated credential of the application fits the token of federated_token_file; case counts",
        "compare issuer, subject and audience under Certificates & secrets, Federated credentials";
    FEDERATED_FILE = "federated-file",
        "there is no usable token in federated_token_file",
        "check the platform's projection of it, which must renew it";
    ACCESS_POLICY_ENTRA = "access-policy-entra",
        "Conditional Access or security defaults block it",
        "look at Sign-in logs in Entra, and exempt the application (or this machine's address)";
    NOT_ASSIGNED = "not-assigned",
        "the application (or its user) is not assigned to the resource",
        "assign it under Enterprise applications, Users and groups";
    IDENTITY_MISSING = "identity-missing",
        "there is no such managed identity here: none is assigned, or this is no machine of Azure",
        "assign one and correct managed_identity; or use a certificate";
    REFRESH_ENDED = "refresh-ended",
        "the refresh token is no longer valid",
        "sign in again and set refresh_token to the new one";
    USER_LOCKED = "user-locked",
        "the user's account is locked, disabled, or its password has changed or expired",
        "repair it, sign in again and set refresh_token to the new one";
    SECOND_FACTOR = "second-factor",
        "the sign-in needs a second factor now",
        "sign in again with it and set refresh_token to the new one";
    GOOGLE_DELEGATION = "google-delegation",
        "Domain-wide delegation does not allow this client ID and scope",
        "add exactly that client ID and scope in the admin console (Security, API controls, Domain-wide delegation)";
    GOOGLE_SUBJECT = "google-subject",
        "`subject` is no mailbox of this Workspace",
        "set `subject` to one";
    GOOGLE_KEY = "google-key",
        "the key in service_account_file is not accepted (often it was deleted)",
        "create a new JSON key for the service account";
    // Exchange by Graph.
    ROLE_MISSING = "role-missing",
        "its token has roles, but not Mail.Send",
        "add the application permission Mail.Send under API permissions with admin consent, or grant Exchange's role \"Application Mail.Send\" over the mailbox; a change takes up to 2 hours";
    AUDIENCE_WRONG = "audience-wrong",
        "the token is for another service",
        "leave `scope` out, and check cloud and graph_url";
    PERMISSION_NONE = "permission-none",
        "the token names no application permission",
        "add the application permission Mail.Send (not the delegated one) under API permissions and give admin consent, or grant the role \"Application Mail.Send\" (RBAC for Applications); a change takes up to 2 hours";
    MAILBOX_DENIED = "mailbox-denied",
        "the application may not send as it",
        "see Test-ServicePrincipalAuthorization: grant the application permission Mail.Send with admin consent, or the role \"Application Mail.Send\" (RBAC for Applications) over it; a change takes up to 2 hours; for a From that is another address, grant Send As";
    POLICY_DENIED = "policy-denied",
        "an application access policy of Exchange Online (or the scope of RBAC for Applications) keeps the application from this mailbox",
        "put the mailbox into the policy's group, see Test-ApplicationAccessPolicy and Test-ServicePrincipalAuthorization; a change takes up to 2 hours";
    MAILBOX_UNKNOWN = "mailbox-unknown",
        "there is no such mailbox in Exchange Online",
        "correct `mailbox` or the From, or give it a licence";
    MAILBOX_ELSEWHERE = "mailbox-elsewhere",
        "the mailbox is not in Exchange Online (on premises, inactive, without a licence)",
        "use a mailbox in the cloud";
    TENANT_NO_EXCHANGE = "tenant-no-exchange",
        "there is no Exchange Online in this tenant",
        "correct tenant_id, or give the tenant a licence with Exchange Online";
    CLAIMS_CHALLENGE = "claims-challenge",
        "Conditional Access does not let this machine's address (or the application) in",
        "exempt it; see Sign-in logs in Entra";
    SEND_AS_DENIED = "send-as-denied",
        "the From of the message is not an address that it may send as",
        "grant Send As (Add-RecipientPermission), or rewrite the sender with a [[rewrite]]";
    READWRITE_MISSING = "readwrite-missing",
        "a message above mime_limit needs the permission Mail.ReadWrite (RBAC for Applications: \"Application Mail.ReadWrite\") over the mailbox",
        "grant it, or write large_messages = \"refuse\"";
    MAILBOX_FULL = "mailbox-full",
        "the sending mailbox is full",
        "make room: empty it, its Sent Items above all";
    MAILBOX_BLOCKED = "mailbox-blocked",
        "the mailbox is blocked from sending (Restricted entities)",
        "secure the account, then lift the block in the Defender portal, Restricted entities, or by Microsoft's support";
    QUOTA_DAY = "quota-day",
        "the day's limit is reached (it is counted over 24 hours): mail waits",
        "spread the load over several mailboxes, or use High Volume Email (HVE)";
    // SMTP.
    LOGIN_REFUSED = "login-refused",
        "user name or password is wrong, or the account needs an app password (two-step verification)",
        "correct `username` and `password`";
    AUTH_MISSING = "auth-missing",
        "there is no AUTH that both speak",
        "check `auth`, `tls`, port and host";
    SMTP_AUTH_OFF = "smtp-auth-off",
        "SMTP AUTH is switched off for this mailbox or tenant, or a policy blocks it",
        "run Set-CASMailbox MAILBOX -SmtpClientAuthenticationDisabled $false, check security defaults and Conditional Access, or use a connector of type = \"graph\"";
    BASIC_ENDED = "basic-ended",
        "Exchange Online takes no passwords any more: Basic authentication is switched off",
        "run `postern setup exchange` (a connector of type = \"graph\"), or log in with `oauth`";
    SMTP_SENDAS = "smtp-sendas",
        "the token is not accepted for this mailbox: the application has no service principal in Exchange, no right to the mailbox, or not the permission SMTP.SendAsApp",
        "grant SMTP.SendAsApp of Office 365 Exchange Online with admin consent, run New-ServicePrincipal with the object ID of its Enterprise application, and Add-MailboxPermission (or the role \"Application SMTP.SendAsApp\"); a change takes up to 2 hours";
    NOT_LOGGED_IN = "not-logged-in",
        "no login took place, and the upstream wants one",
        "with `oauth` set auth = \"xoauth2\", else set username and password, and check that host and port are the ones for submission";
    RELAY_DENIED = "relay-denied",
        "the upstream does not relay mail for this gateway: it may not relay from this machine's address",
        "have the address of this machine allowed in the upstream's connector, or set username and password; if it refuses one domain only, no route should lead that domain here";
    HELO_REFUSED = "helo-refused",
        "the upstream rejects the name that this gateway gives in EHLO",
        "set hostname (or the connector's helo) to the full name of this machine, one that is in DNS";
    TENANT_BLOCKED = "tenant-blocked",
        "the whole tenant is blocked by Microsoft from sending",
        "find out what sent the suspicious mail, then contact Microsoft's support";
    PORT_465_OFFICE = "port-465-office",
        "smtp.office365.com is not to be had at port 465: it is 587, with STARTTLS",
        "write service = \"Outlook365\" in place of host and port";
    GOOGLE_PASSWORD = "google-password",
        "Google takes no account password here: it wants an app password or token",
        "make an app password (Google account, Security, App passwords), or use `oauth` with auth = \"xoauth2\"";
}

/// The cause of this word.
pub fn named(word: &str) -> Option<&'static Cause> {
    ALL.iter().find(|cause| cause.word == word)
}

impl Cause {
    /// What helps, of this connector.
    pub fn fix_for(&self, connector: &str) -> String {
        self.fix
            .replace("--renew NAME", &format!("--renew {connector}"))
    }

    /// The cause that a text names: by the last word in brackets.
    pub fn of(text: &str) -> Option<&'static Cause> {
        let (before, _) = text.rsplit_once(']')?;
        let (_, word) = before.rsplit_once('[')?;
        named(word)
    }

    /// A sentence of its own, and the word of this cause in brackets.
    pub fn marked(&self, sentence: &str) -> String {
        format!("{sentence} [{}]", self.word)
    }

    /// What was met, before what that means: `DETAIL: says; fix [word]`.
    pub fn at(&self, met: impl fmt::Display) -> String {
        format!("{met}: {}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_gives_its_cause_and_no_word_is_twice() {
        for (at, cause) in ALL.iter().enumerate() {
            assert_eq!(Cause::of(&cause.at("smtp.corp.example")), Some(cause));
            assert!(
                !ALL[..at].iter().any(|other| other.word == cause.word),
                "{cause}"
            );
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(cause.word.chars().all(word), "{cause}");
            assert!(
                !cause.says.ends_with('.') && !cause.fix.ends_with('.'),
                "{cause}"
            );
        }
        for text in ["", "]", "[", "no [such] word", "[clock", "clock]"] {
            assert_eq!(Cause::of(text), None, "{text}");
        }
        assert_eq!(
            Cause::of("[clock] ... [dns-failed]; trace_id x"),
            Some(&DNS_FAILED)
        );
    }
}
