//! Every key of the file as data: its form, its default and what it is for. The reader, the hints about unknown keys and the schema for
//! editors come from it, and a test holds `config.example.toml` to it.
//!
//! What a value means is said in `sections`; here is how one is written. Patterns are regular expressions that refuse
//! nothing the reader takes.

use super::form::{
    ADDRESS, ANY, DOMAIN, HOST, HOSTS, IDENTIFIER, LONGEST, NAME, NETWORK, PATTERN, PROXY, RATE,
    SCOPE, UPLOAD, URL, WAIT, text,
};
pub(super) use super::form::{DURATION, Form, Key, PATH, SIZE, Section, Text};
use super::words::{foreign, nearest};

/// The keys of a section with this `type` or `provider`; what the kind says of a key goes before what the section says.
pub(super) fn of(section: &str, kind: &str) -> impl Iterator<Item = &'static Key> {
    let parts = SECTIONS.iter().filter(move |part| part.name == section);
    let own = parts
        .clone()
        .filter(move |part| !part.kind.is_empty() && part.kind == kind);
    own.chain(parts.filter(|part| part.kind.is_empty()))
        .flat_map(|part| part.keys.iter().copied().flatten())
}

/// What an unknown key was probably meant to be: the nearest of the section, another program's word, or the section that has it.
pub(super) fn suggestion(section: &str, kind: &str, name: &str) -> Option<String> {
    let mut known: Vec<_> = of(section, kind).collect();
    known.sort_by_key(|key| key.name);
    known.dedup_by_key(|key| key.name);
    if let Some(best) = nearest(name, known.iter().map(|key| key.name)) {
        let key = known.iter().find(|key| key.name == best)?;
        return Some(format!("did you mean `{}`?", key.written()));
    }
    if let Some(hint) = foreign(section, kind, name) {
        return Some(hint.to_owned());
    }
    if let Some((of, key)) = elsewhere(section, name).filter(|_| !section.contains('.')) {
        return Some(match of {
            "" => format!(
                "did you mean `{}` at the top of the file, before the first section?",
                key.written()
            ),
            of if is_repeated(of) => format!("did you mean [[{of}]] `{name}`?"),
            of => format!("did you mean [{of}] `{name}`?"),
        });
    }
    let keys: Vec<_> = known.iter().map(|key| key.written()).collect();
    (!section.is_empty()).then(|| format!("its keys are {}", keys.join(", ")))
}

/// Which section has such a key, whatever its kind.
fn elsewhere(section: &str, name: &str) -> Option<(&'static str, &'static Key)> {
    // One of another type of the same section is not what was meant to stand elsewhere.
    let own = SECTIONS.iter().filter(|part| part.name == section);
    let mut own = own.flat_map(|part| part.keys.iter().copied().flatten());
    if own.any(|key| key.name == name) {
        return None;
    }
    let has_header = |name: &str| !name.contains('.') && name != "secret";
    let parts = SECTIONS
        .iter()
        .filter(|part| part.name != section && has_header(part.name));
    let mut keys = parts.flat_map(|part| {
        part.keys
            .iter()
            .copied()
            .flatten()
            .map(|key| (part.name, key))
    });
    keys.find(|(_, key)| key.name == name)
}

/// What the `type` or `provider` of a section may be.
pub(super) fn kinds(section: &str) -> impl Iterator<Item = &'static str> {
    let parts = SECTIONS.iter().filter(move |part| part.name == section);
    parts.map(|part| part.kind).filter(|kind| !kind.is_empty())
}

/// The keys that must be there.
pub(super) fn needed(section: &str, kind: &str) -> Vec<&'static str> {
    let parts = SECTIONS.iter().filter(|part| part.name == section);
    let parts = parts.filter(|part| part.kind.is_empty() || part.kind == kind);
    parts.flat_map(|part| part.needs).copied().collect()
}

/// Whether the section is written `[[section]]`.
pub(super) fn is_repeated(section: &str) -> bool {
    of("", "").any(|key| key.name == section && key.form == Form::Sections)
}

/// Where everything is kept when the file does not say.
pub(super) const DATA_DIR: &str = "/var/lib/postern";

/// Sections that have a place in the design but not in this version.
pub(super) const LATER: [&str; 1] = ["alert"];

use Form::{
    Day, Duration, Flag, Inner, Inners, List, Names, Number, Secret, Sections, Size, Text as Is,
    TrueOr, Word,
};

macro_rules! keys {
    ($($name:ident: $form:expr, $default:expr, $words:literal;)*) => {
        &[$(Key { name: stringify!($name), form: $form, default: $default, words: $words }),*]
    };
}

macro_rules! sections {
    ($($section:literal $kind:literal needs [$($needed:literal)*] $(and $shared:ident)? { $($keys:tt)* })*) => {
        /// Every section, in the order of the example.
        pub(super) const SECTIONS: &[Section] = &[$(Section {
            name: $section,
            kind: $kind,
            needs: &[$($needed),*],
            keys: &[keys! { $($keys)* }, $($shared)?],
        }),*];
    };
}

sections! {
    "" "" needs ["listener" "allowlist" "route" "connector"] {
        hostname: Is(HOST), "", "The name in banner, EHLO and Received. Default: the machine's full name.";
        data_dir: Is(PATH), DATA_DIR, "Where the queue is kept. A change needs a restart.";
        default_domain: Is(DOMAIN), "", "Completes bare names such as `root`, in the envelope and in From, Sender, To and Cc; without it they are refused.";
        log: Form::Section, "", "What is logged, and how.";
        limits: Form::Section, "", "What one client, one message and one session may take.";
        listener: Sections, "", "An address that SMTP is accepted on.";
        client: Sections, "", "Networks that may send without a login. If there are none, only this machine may.";
        user: Sections, "", "Who may log in; a listener with `auth` is needed for it.";
        allowlist: Form::Section, "", "What may pass at all.";
        rewrite: Sections, "", "Gives a message another sender, before the lists are asked; the first that matches.";
        redirect: Sections, "", "Sends mail for some recipients to somebody else; the first that matches. An absent key matches anything.";
        archive: Sections, "", "Copies mail for somebody else by a way of its own: all that match. An absent key matches anything.";
        header: Sections, "", "Changes the header of a message before it is judged: all that match, in order. An absent key matches anything.";
        quota: Sections, "", "How many recipients, of whom, in which time; all that match count. An absent key matches anything.";
        route: Sections, "", "Which connectors take a message: the first route that matches. An absent key matches anything.";
        connector: Sections, "", "A way to send mail out.";
        dkim: Sections, "", "A key that signs the mail of a domain (DKIM), where a connector has `dkim = true`.";
        queue: Form::Section, "", "How long a message is tried and kept.";
        postgres: Form::Section, "", "The database that several gateways share, where `store` of [queue] is \"postgres\".";
        cluster: Form::Section, "", "This gateway among those that share the database.";
        outbound: Form::Section, "", "Where connections may go, and through what.";
        bounce: Form::Section, "", "Who is told when a message has failed.";
        incidents: Form::Section, "", "When something needs somebody, and when that is over.";
        notify: Sections, "", "A channel that tells of incidents.";
        admin: Form::Section, "", "The page and the interface for administrators; without it nothing listens.";
        admin_user: Sections, "", "Who may log in at the page.";
        admin_token: Sections, "", "A program that may use the interface.";
    }
    "log" "" needs [] {
        level: Word(&["error", "warn", "info", "debug", "trace"]), "info", "How much is logged.";
        format: Word(&["text", "json", "journald"]), "text", "How a line is written.";
    }
    "limits" "" needs [] {
        message_size: Size("1KiB", "2GiB"), "35MiB", "A larger message is refused.";
        recipients: Number(1, 100_000), "1000", "Recipients of one message.";
        connections: Number(1, 100_000), "1000", "Connections at once, in all.";
        connections_per_client: Number(1, 100_000), "100", "Connections at once from one address (IPv6: one /64).";
        unlisted_connections: Number(1, 100_000), "100", "Of all connections, those from networks of no [[client]] that have not logged in; 10 of them from one address (IPv6: one /64).";
        messages_per_minute: Number(0, 1_000_000), "0", "Messages a minute from one address; 0 = no limit.";
        command_timeout: Duration("1s", "1d"), "5m", "Silence between commands.";
        data_timeout: Duration("1s", "1d"), "10m", "Silence inside DATA.";
        session_errors: Number(1, 1_000_000), "20", "After so many errors the session ends with 421.";
        received_headers: Number(1, 1000), "50", "More Received fields than this are a mail loop.";
        free_disk: Size("0B", "1000GiB"), "256MiB", "Below this much free space no mail is taken (452 4.3.1); \"0B\" = do not look.";
    }
    "listener" "" needs ["name" "address"] {
        name: Is(NAME), "", "Its name, in the log and for routes.";
        address: Is(text("an address and a port", "^(socket:[!-9;-~]{1,255}|.+:[0-9]+)$")), "", "\"127.0.0.1:25\", \"0.0.0.0:25\", \"[::]:25\", or \"socket:NAME\" for a socket handed over by systemd.";
        tls: Word(&["off", "starttls", "implicit"]), "off", "Whether TLS is offered, or spoken from the first octet.";
        require_tls: Flag, "false", "With starttls: no mail is taken before it.";
        certificate: Is(PATH), "", "PEM file, with tls other than off; `postern cert` makes one.";
        key: Is(PATH), "", "PEM file, with tls other than off; `postern cert` makes one.";
        old_certificate: Is(PATH), "", "PEM file for old handshakes (`min_tls` and `old_ciphers` of [[client]]), which need an RSA key; `postern cert --rsa` makes one. Default: certificate.";
        old_key: Is(PATH), "", "PEM file, with old_certificate.";
        client_certificates: Word(&["off", "optional", "required"]), "off", "Whether clients are asked for a certificate: optional logs in who shows one of a [[user]], required refuses a handshake without one.";
        client_ca: Is(PATH), "", "PEM file of the authorities that clients' certificates are held to; with client_certificates.";
        client_crl: Is(PATH), "", "PEM file of revocation lists of these authorities.";
        auth: Word(&["off", "optional", "required"]), "off", "Whether users log in.";
        plaintext_auth: Flag, "false", "Offer AUTH without TLS (loopback and trusted networks only).";
        chunking: Flag, "false", "Offer CHUNKING (BDAT). Nobody needs it to send.";
        smtputf8: Flag, "false", "Offer SMTPUTF8: addresses may be other than ASCII (büro@corp.example). An smtp connector needs a server that offers it, too.";
        proxy_protocol: List(NETWORK), "[]", "Networks whose connections begin with a PROXY v1/v2 header.";
    }
    "client" "" needs ["name" "networks"] {
        name: Is(NAME), "", "Its name, in the log and for routes.";
        networks: List(NETWORK), "", "Who it is: the longest prefix decides.";
        senders: List(PATTERN), "", "Narrows the allowlist; absent = all of it.";
        recipients: List(PATTERN), "", "Narrows the allowlist; absent = all of it.";
        hide_starttls: Flag, "false", "For devices that try STARTTLS and fail.";
        lf_only: Flag, "false", "For devices that end a message with <LF>.<LF>.";
        tolerance: Word(&["strict", "standard", "device"]), "standard", "How much of what is not SMTP is forgiven.";
        require_auth: Flag, "false", "A login is required nevertheless.";
        any_credentials: Flag, "false", "For devices that insist on logging in: any name and password will do (PLAIN, LOGIN, CRAM-MD5), and grant nothing.";
        transcript: Flag, "false", "Log every command and reply (no bodies, no credentials).";
        min_tls: Word(&["1.3", "1.2", "1.1", "1.0"]), "1.2", "The oldest TLS that is spoken with it. 1.1 and 1.0 are weak, and for devices that know nothing better.";
        old_ciphers: Flag, "false", "TLS 1.2 with CBC or RSA key exchange too (Windows 8.1, Server 2012 R2, Java 7); a lower min_tls has them anyway.";
        expect_every: Duration("1m", "365d"), "", "It sends at least so often: silence for longer is an incident. Default: it may be silent.";
    }
    "user" "" needs ["name"] {
        name: Is(text("a string", "^.{1,255}$")), "", "The name to log in with.";
        password: Secret, "", "What `postern hash-password` prints; needed where there is no certificate.";
        certificate: List(text("a name in a certificate", "^(dns|email|cn|sha256):.+$")), "", "Who shows a certificate with one of these (client_certificates of [[listener]]) is this user.";
        senders: List(PATTERN), "", "Narrows the allowlist; absent = all of it.";
        recipients: List(PATTERN), "", "Narrows the allowlist; absent = all of it.";
    }
    "allowlist" "" needs ["senders" "recipients"] {
        senders: List(PATTERN), "", "Who may be the sender; [\"*\"] is anybody, [] is nobody.";
        recipients: List(PATTERN), "", "Who may be a recipient; [\"*\"] is anybody, [] is nobody.";
        header_recipients: Flag, "false", "Hold the recipients in the header (To, Cc, Bcc, their Resent forms, Apparently-To) to the list of recipients too.";
    }
    "rewrite" "" needs ["senders" "to"] {
        senders: List(PATTERN), "", "Which senders: the envelope's, and each address of From and Sender.";
        to: Is(ADDRESS), "", "What they become.";
        reply_to: Word(&["original", "keep"]), "original", "original: the replaced From becomes Reply-To.";
    }
    "redirect" "" needs ["name" "to"] {
        name: Is(NAME), "", "Its name, in the log.";
        senders: List(PATTERN), "", "Which senders.";
        recipients: List(PATTERN), "", "Which recipients.";
        clients: List(NAME), "", "Names of clients.";
        users: List(ANY), "", "Names of users.";
        listeners: List(NAME), "", "Names of listeners.";
        to: List(ADDRESS), "", "Who gets it in their place; `recipients` of [allowlist] must admit them.";
        except: List(PATTERN), "", "Recipients that are delivered to as addressed, if the lists let them pass.";
    }
    "archive" "" needs ["name" "to" "connectors"] {
        name: Is(NAME), "", "Its name, in the log and in the queue.";
        senders: List(PATTERN), "", "Which senders.";
        recipients: List(PATTERN), "", "Where one of its recipients is one of these; those that a redirect has put in.";
        clients: List(NAME), "", "Names of clients.";
        users: List(ANY), "", "Names of users.";
        listeners: List(NAME), "", "Names of listeners.";
        to: Is(ADDRESS), "", "Who gets the copies; `recipients` of [allowlist] must admit it.";
        connectors: List(NAME), "", "Names of connectors, tried in this order, for the copies alone.";
        form: Word(&["copy", "attached"]), "copy", "copy: as the message leaves; attached: to a small message that says what the envelope was, and all that a graph connector can do.";
    }
    "header" "" needs [] {
        senders: List(PATTERN), "", "Which senders.";
        recipients: List(PATTERN), "", "Where one of its recipients is one of these: all of them get the same header.";
        clients: List(NAME), "", "Names of clients.";
        users: List(ANY), "", "Names of users.";
        listeners: List(NAME), "", "Names of listeners.";
        subject_prefix: Is(text("a prefix", "^[^ ].*$")), "", "What the subject begins with, unless it stands there already; \"[TEST] \" with the blank that follows it.";
        add: List(text("a header field", r"^[!-9;-~]+:.*[^ ].*$")), "", "Fields to put in, each as in \"X-Environment: staging\"; never who, to whom, when, or how the body is read.";
        remove: List(text("the name of a header field", "^[!-9;-~]+$")), "", "Names of fields that go, before others come.";
    }
    "quota" "" needs ["name" "per" "max" "over"] {
        name: Is(NAME), "", "Its name, in replies, in the log and in the queue.";
        senders: List(PATTERN), "", "Which senders.";
        recipients: List(PATTERN), "", "Which recipients.";
        clients: List(NAME), "", "Names of clients.";
        users: List(ANY), "", "Names of users.";
        listeners: List(NAME), "", "Names of listeners.";
        per: Word(&["sender", "user", "client", "route"]), "", "Whose recipients are counted together: those of a sender, of who has logged in, of a client's address (IPv6: of a /64), of a route.";
        max: Is(RATE), "", "Recipients in any window of that length, as in \"200/h\".";
        over: Word(&["hold", "refuse", "alert"]), "", "What becomes of mail beyond it: accepted and held until it is released, refused with 450, or only told.";
        hold_for: Duration("1m", "365d"), "2d", "With hold: what is not released then has failed, and is bounced.";
    }
    "route" "" needs ["name" "connectors"] {
        name: Is(NAME), "", "Its name, in the log and in the queue.";
        senders: List(PATTERN), "", "Which senders.";
        recipients: List(PATTERN), "", "Which recipients.";
        clients: List(NAME), "", "Names of clients.";
        users: List(ANY), "", "Names of users.";
        listeners: List(NAME), "", "Names of listeners.";
        connectors: List(NAME), "", "Names of connectors, tried in this order.";
        retry: List(WAIT), "", "Overrides the one of [queue] for this route.";
        give_up: Duration("1ms", "365d"), "", "Overrides the one of [queue] for this route.";
    }
    "connector" "" needs ["name" "type"] {
        name: Is(NAME), "", "Its name, in the log and for routes.";
        type: Word(&["smtp", "graph", "capture", "discard"]), "", "An SMTP server, Exchange Online through Microsoft Graph, files in a directory, or nowhere.";
        rate: Is(RATE), "", "Never more messages than this in any window of that length. Default: no limit.";
        timeout: Duration("1s", "1d"), "15m", "For one whole delivery.";
        probe: Duration("1s", "1d"), "1m", "The longest time between two probes while the connector is closed; the first ones come sooner (5 s, 10 s, 20 s, …).";
        proxy: Is(PROXY), "", "\"http://user:password@host:port\", \"socks5://host:port\" or \"none\". Default: proxy of [outbound].";
    }
    "connector" "smtp" needs [] {
        host: Is(text("a name or an address", r"^[^@\s/]+$")), "", "The server.";
        port: Number(1, 65_535), "", "Default by tls: 465 with implicit, 587 with starttls, else 25.";
        tls: Word(&["starttls", "implicit", "opportunistic", "off"]), "starttls", "starttls is required. Default: starttls, on port 465 implicit. opportunistic goes on in plain text where there is no TLS.";
        service: Is(text("the name of a service", ".")), "", "In place of host, port and tls: a name from `postern services`.";
        verify: Word(&["full", "certificate", "none"]), "full", "What is checked of the server's certificate: all, all but the name, or nothing.";
        ca_file: Is(PATH), "", "PEM file whose certificates are the roots, in place of the system's.";
        client_certificate: Is(PATH), "", "PEM file.";
        client_key: Is(PATH), "", "PEM file.";
        min_tls: Word(&["1.3", "1.2", "1.1", "1.0"]), "1.2", "The oldest TLS that is spoken with it. 1.1 and 1.0 are weak, and for a server that knows nothing better.";
        old_ciphers: Flag, "false", "TLS 1.2 with CBC or RSA key exchange too; a lower min_tls has them anyway.";
        auth: Word(&["auto", "plain", "login", "xoauth2", "oauthbearer", "none"]), "auto", "How to log in; xoauth2 and oauthbearer with the table `oauth`.";
        username: Is(text("a string", "^.{1,1000}$")), "", "The name to log in with.";
        password: Secret, "", "The password to log in with.";
        oauth: Inner, "", "Where tokens come from, in place of a password.";
        plaintext_credentials: Flag, "false", "Send the password without TLS, or where TLS is not certain.";
        max_connections: Number(1, 1000), "", "Connections at once, at most; how many there are follows the work and the upstream. Default: 20; of a service 4 or 10 (`postern services`), 3 of smtp.office365.com.";
        pipelining: Word(&["full", "commands", "off"]), "full", "full: the commands of a message follow the content of the one before in one piece. commands: they wait for its answer. off: one command at a time.";
        dsn: Flag, "true", "What a sender asked of delivery reports (DSN) goes to a server that offers it; false: the reports are made here.";
        tls_resumption: Flag, "true", "A connection goes on with the TLS session of one before; false for servers that break on it.";
        messages_per_connection: Number(1, 1_000_000), "100", "After so many a connection is closed.";
        idle_timeout: Duration("1ms", "1h"), "30s", "How long a connection waits for the next message.";
        helo: Is(HOST), "", "The name said in EHLO. Default: hostname.";
        overrides: Inners, "", "Replies that mean something else on this server.";
        dkim: Flag, "false", "Mail is signed with the keys of [[dkim]] as it leaves.";
        max_concurrent: Number(1, 10_000), "", "Deliveries at once. Default: three times max_connections, so that a message always waits behind each connection.";
        max_recipients: Number(1, 100_000), "100", "Recipients of one delivery.";
    }
    "connector" "graph" needs [] and MICROSOFT {
        mailbox: Is(ADDRESS), "", "The mailbox that sends. Default: the From of each message.";
        graph_url: Is(URL), "", "Without /v1.0. Default by cloud.";
        mime_limit: Size("1KB", "35MiB"), "3MB", "`large_messages` says what is done with a larger message.";
        large_messages: Word(&["upload", "refuse"]), "upload", "upload needs Mail.ReadWrite.";
        upload_rate: Is(UPLOAD), "150MB/5min", "The most that each mailbox sends in any window of that length, in octets on the wire.";
        max_connections: Number(1, 1000), "16", "Deliveries at once, of all mailboxes together.";
        ca_file: Is(PATH), "", "PEM file with roots in addition to the system's (for a proxy that inspects TLS).";
        max_concurrent: Number(1, 10_000), "4", "Deliveries at once, for each mailbox.";
        max_recipients: Number(1, 100_000), "500", "Recipients of one delivery.";
        rate: Is(RATE), "30/min", "Never more messages than this in any window of that length, for each mailbox.";
    }
    "connector" "capture" needs ["directory"] {
        directory: Is(PATH), "", "Where messages are kept as .eml files.";
        max_concurrent: Number(1, 10_000), "4", "Deliveries at once.";
        max_recipients: Number(1, 100_000), "1000", "Recipients of one delivery.";
    }
    "connector" "discard" needs [] {
        max_concurrent: Number(1, 10_000), "16", "Deliveries at once.";
        max_recipients: Number(1, 100_000), "1000", "Recipients of one delivery.";
    }
    "connector.oauth" "" needs ["provider"] {
        provider: Word(&["microsoft", "google"]), "", "Who issues the tokens.";
        mailbox: Is(text("an address", ".")), "", "The mailbox that logs in (at Azure Communication Services the name of an SMTP username).";
        token_url: Is(URL), "", "The whole URL, in place of login_url.";
        ca_file: Is(PATH), "", "Roots for the token endpoint; those of the connector itself are for its SMTP server.";
        refresh_token: Secret, "", "Of one mailbox.";
    }
    "connector.oauth" "microsoft" needs ["mailbox"] and MICROSOFT {
        graph_url: Is(URL), "", "Where rotate replaces the certificate, without /v1.0. Default by cloud.";
    }
    "connector.oauth" "google" needs [] {
        service_account_file: Is(PATH), "", "JSON file of a service account with domain-wide delegation.";
        subject: Is(ADDRESS), "", "The mailbox that the service account speaks for.";
        client_id: Is(text("a client id", "^[!-~]+$")), "", "Ends with .apps.googleusercontent.com; with refresh_token.";
        client_secret: Secret, "", "With refresh_token.";
        scope: Is(SCOPE), "https://mail.google.com/", "What the token is for.";
        token_url: Is(URL), "https://oauth2.googleapis.com/token", "The whole URL.";
    }
    "connector.overrides" "" needs ["code" "class"] {
        code: Number(400, 599), "", "The code of the reply.";
        enhanced: Is(text("a code such as \"5.4.5\"", r"^[+]?0*[45](\.[+]?[0-9]+){2}$")), "", "And its enhanced status code.";
        text: Is(text("a part of the reply", ".")), "", "And a part of its text, in any case.";
        class: Word(&["deferred", "failed", "down", "misconfigured", "mailbox refused", "throttled", "crowded"]), "", "What it means. crowded: too many connections.";
    }
    "dkim" "" needs ["domain" "selector" "key"] {
        domain: Is(DOMAIN), "", "The domain of From whose mail it signs, or one above it.";
        selector: Is(text("a selector", r"^[^@\s]+$")), "", "The name that the key is published under: SELECTOR._domainkey.DOMAIN.";
        key: Secret, "", "PKCS #8 in PEM form, RSA of 2048 bits or more, or Ed25519; `postern dkim new` makes one.";
        active_from: Day, "", "The first day on which it signs, UTC.";
        active_until: Day, "", "The last day on which it signs, UTC.";
    }
    "queue" "" needs [] {
        store: Word(&["sqlite", "postgres"]), "sqlite", "Where mail is kept: in data_dir, or in a database that several gateways share. A change needs a restart.";
        retry: List(WAIT), r#"["1m", "5m", "15m", "30m", "1h"]"#, "Waits between attempts; the last one repeats.";
        give_up: Duration("1ms", "365d"), "2d", "Then the message has failed. Counts from acceptance.";
        in_doubt_wait: Duration("1ms", "7d"), "5m", "The wait before a message that may have arrived is sent again.";
        keep_failed: Duration("0s", "365d"), "14d", "How long a message with a failed recipient is kept, with its body.";
        keep_history: Duration("0s", "3650d"), "30d", "How long a record is kept of who sent what to whom, when, and what became of it.";
    }
    "postgres" "" needs ["hosts"] {
        hosts: List(text("a host and a port, or a directory", r"^(/.*|[^/@\s]+)$")), "", "\"db1.corp.example:5432\", or \"/run/postgresql\" for a Unix socket; the first that takes writes is used.";
        database: Is(IDENTIFIER), "postern", "Its name.";
        username: Is(IDENTIFIER), "postern", "The role to log in with.";
        password: Secret, "", "Its password. Without one: a client certificate, or the user of this process (peer authentication).";
        client_certificate: Is(PATH), "", "PEM file.";
        client_key: Is(PATH), "", "PEM file.";
        tls: Word(&["require", "off"]), "", "Default: require; off where `hosts` are Unix sockets.";
        verify: Word(&["full", "certificate", "none"]), "full", "What is checked of the server's certificate: all, all but the name, or nothing.";
        ca_file: Is(PATH), "", "PEM file whose certificates are the roots, in place of the system's.";
        plaintext_credentials: Flag, "false", "Send the password without TLS.";
        schema: Is(IDENTIFIER), "postern", "The schema that its tables are in.";
        connections: Number(4, 64), "8", "Connections of this gateway.";
        durability: Word(&["primary", "quorum"]), "primary", "What a 250 waits for: primary, and synchronous standbys where there are any; or quorum, and there must be some.";
        on_outage: Word(&["spill", "refuse"]), "spill", "While the database is away: spill takes mail into data_dir, refuse answers 451.";
    }
    "cluster" "" needs [] {
        name: Is(NAME), "", "Of this gateway, each its own. Default: the machine's name up to its first dot.";
        key: Secret, "", "Seals tokens and keys that are shared: 32 octets in base64. Where there are several, one a line, the first seals and all open.";
        dead_after: Duration("10s", "10m"), "60s", "After such a silence of a gateway the others take over what it had.";
        share_for: Duration("10m", "7d"), "1h", "How long the part of a missing gateway in the limits is kept for it.";
        spill_size: Size("1MiB", "1000GiB"), "1GiB", "The most mail that is taken into data_dir while the database is away; then 452 4.3.1.";
    }
    "outbound" "" needs [] {
        allowed_hosts: List(HOSTS), r#"["*"]"#, "Every host a connector, its token endpoint, its uploads or a proxy may name: \"smtp.corp.example\", \"*.corp.example\" or \"*\".";
        proxy: Is(PROXY), "none", "\"http://user:password@host:port\", \"socks5://host:port\" or \"none\".";
        proxy_bypass: List(HOSTS), "[]", "Hosts and networks that are reached directly.";
    }
    "bounce" "" needs [] {
        to_sender: Flag, "true", "Tell the sender when a message has failed (RFC 3464).";
        from: Is(ADDRESS), "", "Its visible From. Default: the mailbox of the route's first connector that has one, else postmaster@ the hostname.";
        copy_to: List(ADDRESS), "[]", "The administrators. They get the reports of failures only.";
        delay_notice: Is(LONGEST), "off", "After this time in the queue a sender that asked for it (NOTIFY=DELAY) is told once that the message waits.";
        full_limit: Size("0B", "10MiB"), "1MiB", "The largest message that comes back whole in the report of a failure, where its sender asked for that (RET=FULL).";
    }
    "incidents" "" needs [] {
        open_after: Duration("0s", "1d"), "2m", "How long a condition must hold to be an incident; mail that failed, and what is ours to mend, is one at once.";
        recover_after: Duration("0s", "1d"), "5m", "How long it must be gone.";
        remind: Duration("1m", "365d"), "24h", "After this long whoever was told is told again, unless it was acknowledged.";
    }
    "notify" "" needs ["name" "type"] {
        name: Is(NAME), "", "Its name, for `postern incident test`.";
        type: Word(&["webhook", "slack", "teams", "ntfy", "mail", "heartbeat"]), "", "A POST of JSON, Slack or Mattermost, Microsoft Teams by a workflow, ntfy, mail past the queue, or a GET as long as all is well.";
        min_severity: Word(&["info", "warning", "critical"]), "warning", "It is told of nothing less.";
        kinds: List(text("a kind of incident, or \"*\"", r"^(\*|[a-z_]+)$")), r#"["*"]"#, "The kinds of incidents that it is told of.";
    }
    "notify" "webhook" needs ["url"] and WEB {
        secret: Secret, "", "Signs: Postern-Signature is HMAC-SHA256 over the time and the body.";
    }
    "notify" "slack" needs ["url"] and WEB {}
    "notify" "teams" needs ["url"] and WEB {}
    "notify" "ntfy" needs ["url" "topic"] and WEB {
        topic: Is(text("a topic", "^[A-Za-z0-9_-]{1,64}$")), "", "The topic, without the server.";
        token: Secret, "", "An access token.";
    }
    "notify" "mail" needs ["to"] {
        to: List(ADDRESS), "", "Who is told.";
        connector: Is(NAME), "", "By which connector. Default: the first smtp or graph connector that is open and is not what it is about.";
    }
    "notify" "heartbeat" needs ["url"] and WEB {
        every: Duration("10s", "1d"), "1m", "How often, while mail is taken and nothing critical is open.";
    }
    "admin" "" needs [] {
        address: Is(text("an address and a port", "^(socket:[!-9;-~]{1,255}|unix:/.+|.+:[0-9]+)$")), "127.0.0.1:8025", "\"127.0.0.1:8025\", \"unix:/run/postern/admin.sock\", or \"socket:NAME\" for a socket handed over by systemd. A change needs a restart.";
        certificate: Is(PATH), "", "PEM file, with `key`; needed unless the address is on loopback or a Unix socket, or a proxy is trusted.";
        key: Is(PATH), "", "PEM file, with `certificate`.";
        hosts: List(HOST), "[]", "Names that it answers to, beside hostname, localhost and IP addresses.";
        trusted_proxies: List(text("a network, or \"unix\"", "^(unix|[0-9a-fA-F:.]+(/[0-9]{1,3})?)$")), "[]", "Networks, or \"unix\": only from them X-Forwarded-For, X-Forwarded-Proto and the next two count.";
        user_header: Is(text("the name of a header field", "^[A-Za-z0-9-]*$")), "", "In which a proxy says who has logged in, such as \"Remote-User\".";
        groups_header: Is(text("the name of a header field", "^[A-Za-z0-9-]*$")), "", "In which it says that one's groups, with commas between them, such as \"Remote-Groups\".";
        groups: Names(&["metrics", "viewer", "operator", "admin"]), "", "What a group may do: { \"mail-admins\" = \"admin\", \"*\" = \"viewer\" }; the highest wins, and without any nothing is shown.";
        metrics: List(NETWORK), "[]", "Networks that read /metrics without a login.";
        write_config: Word(&["off", "propose", "write"]), "propose", "What becomes of a change that is made on the page: none can be made, a command on this machine applies it, or it is written.";
        content: Word(&["none", "subject", "all"]), "none", "What is shown of the content of mail: nothing, its subject to operators, or all of it to admins.";
        session: Duration("1m", "30d"), "12h", "How long a login lasts.";
        keep_audit: Duration("90d", "3650d"), "365d", "How long a record is kept of who did what.";
    }
    "admin_user" "" needs ["name" "password" "role"] {
        name: Is(text("a string", "^.{1,255}$")), "", "The name to log in with.";
        password: Secret, "", "What `postern hash-password` prints.";
        role: Word(&["viewer", "operator", "admin"]), "", "viewer looks; operator acts on mail and connectors; admin changes who may send, and the configuration.";
    }
    "admin_token" "" needs ["name" "hash" "role"] {
        name: Is(NAME), "", "Its name, in the audit.";
        hash: Is(text("\"sha256:\" and 64 hex digits", "^sha256:[0-9a-fA-F]{64}$")), "", "What `postern admin token` prints.";
        role: Word(&["metrics", "viewer", "operator", "admin"]), "", "As of [[admin_user]]; metrics reads /metrics alone.";
        networks: List(NETWORK), "[]", "Where it may come from; empty: anywhere.";
        expires: Is(text("a day such as \"2027-12-31\"", "^[0-9]{4}-[0-9]{2}-[0-9]{2}$")), "", "Its last day, UTC.";
    }
    "secret" "" needs [] {
        env: Is(text("the name of an environment variable", "")), "", "An environment variable.";
        file: Is(PATH), "", "A file that holds nothing else.";
        credential: Is(text("the name of a systemd credential", r"^[^./][^/]*$")), "", "A credential of systemd, LoadCredential=.";
    }
}

/// What all channels share that ask a server.
const WEB: &[Key] = keys! {
    url: Secret, "", "Where; https, or http to this machine. Whoever knows it may speak there.";
    proxy: Is(PROXY), "", "\"http://user:password@host:port\", \"socks5://host:port\" or \"none\". Default: proxy of [outbound].";
    ca_file: Is(PATH), "", "PEM file with roots in addition to the system's.";
};

/// What `type = "graph"` and `provider = "microsoft"` share.
const MICROSOFT: &[Key] = keys! {
    tenant_id: Is(text("a directory (tenant) id", "^[^/ ]+$")), "", "The directory (tenant) ID, from the page of the application in Entra.";
    client_id: Is(text("an application (client) id", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")), "", "The application (client) ID, from the page of the application in Entra.";
    client_secret: Secret, "", "One credential of client_secret, certificate and key, managed_identity, federated_token_file.";
    certificate: Is(PATH), "", "PEM file, with `key`.";
    key: Is(PATH), "", "PEM file, with `certificate`.";
    rotate: Flag, "false", "The gateway replaces the certificate by itself from half of its life on; the new one is kept in the queue.";
    rotate_retire: Duration("1s", "30d"), "1d", "How long a certificate that was replaced stays registered.";
    managed_identity: TrueOr(text("true or a string", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")), "", "true, or the client ID of a user-assigned one; then without tenant_id and client_id.";
    federated_token_file: Is(PATH), "", "The token of a workload identity.";
    client_secret_expires: Day, "", "The day on which client_secret ends, as the page of the application shows it: it is told before.";
    client_auth: Word(&["post", "basic"]), "post", "How the secret is sent.";
    cloud: Word(&["global", "gcc-high", "dod", "china"]), "global", "The defaults of login_url, graph_url and scope.";
    login_url: Is(URL), "", "Without the tenant. Default by cloud.";
    scope: Is(SCOPE), "", "What the token is for. Default by cloud.";
};
