//! What other programs call the same things: the words of Postfix, Exim, msmtp, ssmtp, nodemailer, Kibana and of people in a hurry.
//!
//! Apart from `source`, which compares spellings: these are other words altogether.

/// What to write in place of a key that this section does not have. Upper case, `-` and `_` make no difference.
pub(super) fn foreign(section: &str, key: &str) -> Option<&'static str> {
    let key: String = key
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let key = key.as_str();
    match section {
        "connector" => connector(key),
        "connector.oauth" => credential(key),
        "listener" => listener(key),
        "client" => client(key),
        "user" => user(key),
        "route" | "rewrite" | "allowlist" => mail(section, key),
        "outbound" => (key == "allowedhosts").then_some("did you mean [outbound] `allowed_hosts`?"),
        "" => top(key),
        _ => None,
    }
}

fn connector(key: &str) -> Option<&'static str> {
    Some(match key {
        "secure" | "ssl" | "smtps" | "usessl" | "usetls" | "ssltls" | "encryption" | "security" => {
            "write tls = \"implicit\" (secure = true) or tls = \"opportunistic\" (secure = false)"
        }
        "requiretls" | "starttls" | "usestarttls" | "tlsstarttls" | "enablestarttls" => {
            "write tls = \"starttls\""
        }
        "ignoretls" => "write tls = \"off\"",
        "verificationmode" | "verifyssl" | "sslverify" | "tlsverify" | "tlscertcheck"
        | "rejectunauthorized" | "insecure" | "insecureskipverify" | "skipverify" => {
            "write verify = \"full\", \"certificate\" or \"none\""
        }
        "ca" | "cacert" | "cafile" | "cabundle" | "capath" | "tlstrustfile" | "tlscafile" => {
            "did you mean `ca_file`?"
        }
        "cert" | "certificate" | "tlscert" | "tlscertfile" | "clientcert" => {
            "did you mean `client_certificate`?"
        }
        "key" | "tlskey" | "tlskeyfile" | "privatekey" => "did you mean `client_key`?",
        "oauthtokenurl" => {
            "write `login_url`; in the `oauth` table of an smtp connector also `token_url`"
        }
        "microsoftexchangeurl" => "did you mean `login_url`?",
        "microsoftgraphapiurl" => "did you mean `graph_url`? It is written without /v1.0",
        "microsoftgraphapiscope" => "did you mean `scope`?",
        "user" | "login" | "usr" | "uid" | "account" | "loginname" | "authuser" | "smtpuser"
        | "smtpusername" => "did you mean `username`?",
        "pass" | "pwd" | "passwd" | "passphrase" | "authpass" | "authpassword" | "smtppass"
        | "smtppassword" => "did you mean `password`?",
        "server" | "smarthost" | "relayhost" | "relay" | "mailhub" | "mx" | "address"
        | "hostname" | "smtphost" | "smtpserver" => "did you mean `host`?",
        "authentication" | "authmethod" | "authmechanism" | "mechanism" | "mech" => {
            "did you mean `auth`?"
        }
        "from" | "sender" | "mailfrom" | "envelopefrom" | "fromaddress" => {
            "a connector sends what it is given; a [[rewrite]] gives mail another sender"
        }
        "heloname" | "ehlo" | "helohost" | "clienthostname" => "did you mean `helo`?",
        _ => return credential(key),
    })
}

/// Keys that say where a secret is: here that is part of its value.
fn credential(key: &str) -> Option<&'static str> {
    Some(match key {
        "passwordfile" | "passfile" => "write password = { file = \"path\" }",
        "passwordenv" | "passenv" => "write password = { env = \"NAME\" }",
        "passwordeval" | "passwordcommand" | "passwordcmd" | "passcmd" => {
            "no command is run for a password; write password = { file = \"path\" } or { env = \"NAME\" }"
        }
        "clientsecretfile" | "secretfile" => "write client_secret = { file = \"path\" }",
        "clientsecretenv" | "secretenv" => "write client_secret = { env = \"NAME\" }",
        "refreshtokenfile" => "write refresh_token = { file = \"path\" }",
        "refreshtokenenv" => "write refresh_token = { env = \"NAME\" }",
        "secret" | "appsecret" | "applicationsecret" => "did you mean `client_secret`?",
        "tenant" | "directoryid" => "did you mean `tenant_id`?",
        "appid" | "applicationid" | "client" => "did you mean `client_id`?",
        "userid" | "userprincipalname" | "upn" => "did you mean `mailbox`?",
        _ => return None,
    })
}

fn listener(key: &str) -> Option<&'static str> {
    Some(match key {
        "port" | "bind" | "host" | "listen" | "ip" | "interface" | "addresses" => {
            "the port is part of the address: address = \"127.0.0.1:25\""
        }
        "cert" | "certfile" | "certificatefile" | "tlscert" | "sslcert" | "tlscertificate" => {
            "did you mean `certificate`?"
        }
        "keyfile" | "privatekey" | "tlskey" | "sslkey" | "tlsprivatekey" => "did you mean `key`?",
        "starttls" | "usestarttls" => "write tls = \"starttls\"",
        "secure" | "ssl" | "smtps" => "write tls = \"implicit\"",
        "networks" | "allow" | "allowed" | "mynetworks" => {
            "who may connect is said by a [[client]]: networks = [\"10.20.0.0/16\"]"
        }
        _ => return None,
    })
}

fn client(key: &str) -> Option<&'static str> {
    Some(match key {
        "ip" | "ips" | "address" | "addresses" | "cidr" | "host" | "hosts" | "subnet"
        | "subnets" => "did you mean `networks`?",
        "from" => "did you mean `senders`?",
        "to" => "did you mean `recipients`?",
        "auth" => {
            "write require_auth = true, or any_credentials = true for devices that insist on a login"
        }
        _ => return None,
    })
}

fn user(key: &str) -> Option<&'static str> {
    Some(match key {
        "username" | "user" | "login" => "did you mean `name`?",
        "hash" | "passwordhash" | "pass" | "passwd" => "did you mean `password`?",
        "passwordfile" => "write password = { file = \"path\" }; the file holds the hash",
        _ => return None,
    })
}

/// Of sections that say whose mail.
fn mail(section: &str, key: &str) -> Option<&'static str> {
    Some(match (section, key) {
        ("route", "via" | "relay" | "smarthost" | "host" | "target" | "transport" | "use") => {
            "write connectors = [\"NAME\"], the names of [[connector]] sections"
        }
        ("route" | "allowlist", "domain" | "domains") => {
            "write `senders` or `recipients`; a domain alone is a pattern"
        }
        (_, "from") => "did you mean `senders`?",
        ("route" | "allowlist", "to" | "rcpt") => "did you mean `recipients`?",
        _ => return None,
    })
}

fn top(key: &str) -> Option<&'static str> {
    Some(match key {
        "allowedhosts" => "did you mean [outbound] `allowed_hosts`?",
        "domainallowlist" => "write [allowlist] `senders` and `recipients`",
        "port" | "listen" | "bind" | "bindaddress" | "listenaddress" | "inetinterfaces" => {
            "it is said by a section: [[listener]], name = \"local\", address = \"127.0.0.1:25\""
        }
        "mynetworks" | "networks" | "relayfromhosts" | "allowednetworks" => {
            "who may connect is said by a [[client]]: networks = [\"10.20.0.0/16\"]"
        }
        "relayhost" | "smarthost" | "mailhub" | "host" | "server" | "relay" | "smtp" => {
            "the way out is a [[connector]]: name = \"smarthost\", type = \"smtp\", host = \"smtp.corp.example\""
        }
        "myhostname" | "primaryhostname" | "servername" => "did you mean `hostname`?",
        "mydomain" | "myorigin" | "domain" | "qualifydomain" | "defaultsenderdomain" => {
            "did you mean `default_domain`?"
        }
        "queuedirectory" | "spooldirectory" | "spool" | "spooldir" | "queuedir"
        | "datadirectory" => "did you mean `data_dir`?",
        "messagesizelimit" | "maxmessagesize" => "did you mean [limits] `message_size`?",
        "loglevel" => "did you mean [log] `level`?",
        "relaydomains" => "did you mean [allowlist] `recipients`?",
        "users" => "did you mean [[user]]?",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_for_the_same() {
        fn check(section: &str, key: &str, expected: &str) {
            let hint = foreign(section, key).unwrap_or_default();
            assert!(hint.contains(expected), "{section} {key}: {hint}");
        }
        check("connector", "user", "`username`");
        check("connector", "Password-File", "{ file");
        check("connector.oauth", "client_secret_file", "{ file");
        check("", "relayhost", "[[connector]]");
        check("client", "ip", "`networks`");
        check("route", "via", "connectors =");
        assert_eq!(foreign("connector", "nonsense"), None);
        assert_eq!(foreign("limits", "user"), None);
    }
}
