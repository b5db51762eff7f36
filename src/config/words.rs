//! What other programs call the same things: the words of Postfix, Exim, msmtp, ssmtp, nodemailer, Kibana and of people in a hurry;
//! and what was nearly written.
//!
//! Our own words are in `keys`.

/// Sections, what a key is called elsewhere (without capitals, `-` and `_`), and what to write here.
const KEYS: &str = r#"
connector: secure ssl smtps usessl usetls ssltls encryption security -> write tls = "implicit" (secure = true) or tls = "opportunistic" (secure = false)
connector: requiretls starttls usestarttls tlsstarttls enablestarttls -> write tls = "starttls"
connector: ignoretls -> write tls = "off"
connector: verificationmode verifyssl sslverify tlsverify tlscertcheck rejectunauthorized insecure insecureskipverify skipverify -> write verify = "full", "certificate" or "none"
connector: ca cacert cafile cabundle capath tlstrustfile tlscafile -> did you mean `ca_file`?
connector: cert certificate tlscert tlscertfile clientcert -> did you mean `client_certificate`?
connector: key tlskey tlskeyfile privatekey -> did you mean `client_key`?
connector: oauthtokenurl -> write `login_url`; in the `oauth` table of an smtp connector also `token_url`
connector: microsoftexchangeurl -> did you mean `login_url`?
connector: microsoftgraphapiurl -> did you mean `graph_url`? It is written without /v1.0
connector: microsoftgraphapiscope -> did you mean `scope`?
connector.oauth: username -> did you mean `mailbox`?
connector/graph connector.oauth: user login usr uid email mail account loginname -> did you mean `mailbox`?
connector: user login usr uid account loginname authuser smtpuser smtpusername -> did you mean `username`?
connector: pass pwd passwd passphrase authpass authpassword smtppass smtppassword -> did you mean `password`?
connector: server smarthost relayhost relay mailhub mx address hostname smtphost smtpserver -> did you mean `host`?
connector: authentication authmethod authmechanism mechanism mech -> did you mean `auth`?
connector: from sender mailfrom envelopefrom fromaddress -> a connector sends what it is given; a [[rewrite]] gives mail another sender
connector: heloname ehlo helohost clienthostname -> did you mean `helo`?
connector connector.oauth: passwordfile passfile -> write password = { file = "path" }
connector connector.oauth: passwordenv passenv -> write password = { env = "NAME" }
connector connector.oauth: passwordeval passwordcommand passwordcmd passcmd -> no command is run for a password; write password = { file = "path" } or { env = "NAME" }
connector connector.oauth: clientsecretfile secretfile -> write client_secret = { file = "path" }
connector connector.oauth: clientsecretenv secretenv -> write client_secret = { env = "NAME" }
connector connector.oauth: refreshtokenfile -> write refresh_token = { file = "path" }
connector connector.oauth: refreshtokenenv -> write refresh_token = { env = "NAME" }
connector connector.oauth: secret appsecret applicationsecret -> did you mean `client_secret`?
connector connector.oauth: tenant directoryid -> did you mean `tenant_id`?
connector connector.oauth: appid applicationid client -> did you mean `client_id`?
connector connector.oauth: userid userprincipalname upn -> did you mean `mailbox`?
connector/graph: dkim -> Exchange Online signs what it sends, with keys that are set in Microsoft 365
dkim: d domains signingdomain -> did you mean `domain`?
dkim: s name -> did you mean `selector`?
dkim: keyfile privatekey privatekeyfile file -> write key = { file = "path" }
listener: port bind host listen ip interface addresses -> the port is part of the address: address = "127.0.0.1:25"
listener: cert certfile certificatefile tlscert sslcert tlscertificate -> did you mean `certificate`?
listener: keyfile privatekey tlskey sslkey tlsprivatekey -> did you mean `key`?
listener: starttls usestarttls -> write tls = "starttls"
listener: secure ssl smtps -> write tls = "implicit"
listener: networks allow allowed mynetworks -> who may connect is set in a [[client]]: networks = ["10.20.0.0/16"]
client: ip ips address addresses cidr host hosts subnet subnets -> did you mean `networks`?
client: from -> did you mean `senders`?
client: to -> did you mean `recipients`?
client: auth -> write require_auth = true, or any_credentials = true for devices that insist on a login
outbound: allowedhosts -> did you mean [outbound] `allowed_hosts`?
user: username user login -> did you mean `name`?
user: hash passwordhash pass passwd -> did you mean `password`?
user: passwordfile -> write password = { file = "path" }; the file holds the hash
top: allowedhosts -> did you mean [outbound] `allowed_hosts`?
top: domainallowlist -> write [allowlist] `senders` and `recipients`
top: port listen bind bindaddress listenaddress inetinterfaces -> it is set in a section: [[listener]], name = "local", address = "127.0.0.1:25"
top: mynetworks networks relayfromhosts allowednetworks -> who may connect is set in a [[client]]: networks = ["10.20.0.0/16"]
top: relayhost smarthost mailhub host server relay smtp -> the way out is a [[connector]]: name = "smarthost", type = "smtp", host = "smtp.corp.example"
top: myhostname primaryhostname servername -> did you mean `hostname`?
top: mydomain myorigin domain qualifydomain defaultsenderdomain -> did you mean `default_domain`?
top: queuedirectory spooldirectory spool spooldir queuedir datadirectory -> did you mean `data_dir`?
top: messagesizelimit maxmessagesize -> did you mean [limits] `message_size`?
top: loglevel -> did you mean [log] `level`?
top: relaydomains -> did you mean [allowlist] `recipients`?
top: users -> did you mean [[user]]?
quota: rate limit most maximum -> write max = "200/h"
quota: key by count -> did you mean `per`?
quota: action then exceed onexceed -> did you mean `over`?
archive: bcc alwaysbcc address mailbox recipient -> did you mean `to`?
archive: via relay smarthost host target transport use connector -> write connectors = ["NAME"], the names of [[connector]] sections
archive: from -> did you mean `senders`?
archive: format type mode -> did you mean `form`?
redirect: target targets address addresses rewrite -> write to = ["qa@corp.example"]
redirect: exclude unless exceptions allow -> did you mean `except`?
redirect: from -> did you mean `senders`?
redirect: rcpt -> did you mean `recipients`?
header: prefix subject subjecttag tag -> did you mean `subject_prefix`?
header: set append insert addheader headers -> write add = ["X-Environment: staging"]
header: delete drop strip removeheader -> did you mean `remove`?
route: via relay smarthost host target transport use -> write connectors = ["NAME"], the names of [[connector]] sections
route allowlist: domain domains -> write `senders` or `recipients`; a domain alone is a pattern
route rewrite allowlist: from -> did you mean `senders`?
route allowlist: to rcpt -> did you mean `recipients`?
"#;

/// Keys, what a value is called elsewhere, and what it is here.
const VALUES: &str = "
tls: true yes on tls required encrypt must force -> starttls
tls: ssl smtps ssl/tls wrapper always -> implicit
tls: may optional auto -> opportunistic
tls auth: false no none plain disabled -> off
verify: true yes on strict hostname -> full
verify: false no off insecure skip -> none
verify: ca chain -> certificate
auth: true yes on mandatory -> required
level: warning -> warn
level: notice information informational -> info
level: verbose all -> debug
level: fatal critical err -> error
format: plain console text/plain logfmt -> text
format: systemd journal -> journald
tolerance: lax lenient loose printer -> device
tolerance: default normal -> standard
";

/// What to write in place of a key that this section does not have. Upper case, `-` and `_` make no difference.
/// `kind` is the section's `type`, whose own words go first.
pub(super) fn foreign(section: &str, kind: &str, key: &str) -> Option<&'static str> {
    let key = key
        .replace(|c: char| !c.is_ascii_alphanumeric(), "")
        .to_ascii_lowercase();
    let section = if section.is_empty() { "top" } else { section };
    find(KEYS, &format!("{section}/{kind}"), &key).or_else(|| find(KEYS, section, &key))
}

/// What another program's word for a choice comes to.
pub(super) fn meant(key: &str, word: &str) -> Option<&'static str> {
    find(VALUES, key, word)
}

fn find(table: &'static str, place: &str, word: &str) -> Option<&'static str> {
    table.lines().find_map(|line| {
        let (places, rest) = line.split_once(": ")?;
        let (words, meant) = rest.split_once(" -> ")?;
        let has = |list: &str, one: &str| list.split(' ').any(|other| other == one);
        (has(places, place) && has(words, word)).then_some(meant)
    })
}

/// The most similar word, when it is similar enough to be a slip of the pen.
pub(super) fn nearest<'n>(word: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // A megabyte of a key is no slip of the pen, and comparing takes time by its length.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    known
        .map(|name| {
            let other = name.to_lowercase().replace('-', "_");
            (strsim::damerau_levenshtein(&word, &other), name)
        })
        .filter(|(distance, name)| *distance <= (name.len().min(word.len()) / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_for_the_same() {
        fn check(section: &str, key: &str, expected: &str) {
            let (section, kind) = section.split_once('/').unwrap_or((section, ""));
            let hint = foreign(section, kind, key).unwrap_or_default();
            assert!(hint.contains(expected), "{section} {key}: {hint}");
        }
        check("connector/smtp", "user", "`username`");
        check("connector/graph", "user", "`mailbox`");
        check("connector.oauth/microsoft", "username", "`mailbox`");
        check("connector", "Password-File", "{ file");
        check("connector.oauth", "client_secret_file", "{ file");
        check("", "relayhost", "[[connector]]");
        check("client", "ip", "`networks`");
        check("route", "via", "connectors =");
        assert_eq!(foreign("connector", "smtp", "nonsense"), None);
        assert_eq!(foreign("limits", "", "user"), None);
    }
}
