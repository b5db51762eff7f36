//! The new configuration as text: sections in the order of the documentation, what stands as a comment behind `# `.
//!
//! No secret is written here, only where it lies, and a user's hash.

use toml::Value;

use super::{
    draft::{ClientDraft, ImportDraft, ImportedConnector, ListenerDraft, LoginSecret, RouteDraft},
    words,
};

/// What the text needs that is no part of the draft.
#[derive(Debug, Default)]
pub(super) struct RenderAround {
    /// Where the files with passwords lie; absent: beside the configuration.
    pub(super) secrets: Option<String>,
    /// The hash of each user's password, in their order.
    pub(super) hashes: Vec<String>,
}

impl RenderAround {
    /// As the configuration names the file of a secret.
    pub(super) fn secret_path(&self, file: &str) -> String {
        match &self.secrets {
            Some(directory) => format!("{}/{file}", directory.trim_end_matches('/')),
            None => file.to_owned(),
        }
    }
}

/// RenderedLines, some of them comments.
#[derive(Default)]
struct RenderedLines {
    text: String,
    is_comment: bool,
}

impl RenderedLines {
    fn line(&mut self, line: &str) {
        if self.is_comment {
            self.text.push_str("# ");
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn comment(&mut self, line: &str) {
        self.text.push_str("# ");
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn gap(&mut self) {
        if !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// A section begins; `asleep` says why it stands as a comment.
    fn begin(&mut self, header: &str, asleep: Option<&String>) {
        self.gap();
        self.is_comment = asleep.is_some();
        if let Some(why) = asleep {
            self.comment(why);
        }
        self.line(header);
    }

    fn end(&mut self) {
        self.is_comment = false;
    }

    fn pair(&mut self, key: &str, value: &Value) {
        self.line(&format!("{key} = {}", literal(value)));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.pair(key, &Value::from(text));
    }

    fn list(&mut self, key: &str, list: &[String]) {
        if list.is_empty() {
            return;
        }
        self.any_list(key, list, &[]);
    }

    /// Long lists have a line for each, and so have those of which a part stands as comments.
    fn any_list(&mut self, key: &str, list: &[String], asleep: &[String]) {
        let short = list.iter().map(|item| item.len() + 4).sum::<usize>() < 100;
        if short && asleep.is_empty() {
            let items: Vec<String> = list
                .iter()
                .map(|item| literal(&Value::from(item.as_str())))
                .collect();
            return self.line(&format!("{key} = [{}]", items.join(", ")));
        }
        self.line(&format!("{key} = ["));
        for item in list {
            self.line(&format!("    {},", literal(&Value::from(item.as_str()))));
        }
        for item in asleep {
            self.line(&format!("    # {},", literal(&Value::from(item.as_str()))));
        }
        self.line("]");
    }
}

/// On one line; what is written has no line ends in it.
fn literal(value: &Value) -> String {
    value.to_string().replace(['\n', '\r'], " ")
}

/// All of it.
pub(super) fn render(draft: &ImportDraft, around: &RenderAround) -> String {
    let mut lines = RenderedLines::default();
    lines.comment(&format!(
        "Made from the configuration of {} by `postern import`. Read these lines, then try it: postern check -c FILE",
        draft.program
    ));
    let notes = draft.notes.lines();
    if !notes.is_empty() {
        lines.text.push_str("#\n");
    }
    for note in &notes {
        lines.comment(note);
    }
    lines.gap();
    for (key, value) in [
        ("hostname", &draft.hostname),
        ("default_domain", &draft.default_domain),
    ] {
        if let Some(value) = value {
            lines.text(key, value);
        }
    }
    if draft.message_size.is_some() || draft.recipients.is_some() {
        lines.begin("[limits]", None);
        if let Some(octets) = draft.message_size {
            lines.text("message_size", &words::size(octets));
        }
        if let Some(most) = draft.recipients {
            lines.pair("recipients", &Value::from(most.min(100_000).cast_signed()));
        }
    }
    for listener in &draft.listeners {
        self::listener(&mut lines, listener);
    }
    for client in &draft.clients {
        self::client(&mut lines, client);
    }
    for (user, hash) in draft.users.iter().zip(&around.hashes) {
        lines.begin("[[user]]", None);
        lines.text("name", &user.name);
        lines.text("password", hash);
        if let Some(senders) = &user.senders {
            lines.any_list("senders", senders, &[]);
        }
    }
    allowlist(&mut lines, draft);
    for rewrite in &draft.rewrites {
        lines.begin("[[rewrite]]", None);
        lines.list("senders", &rewrite.senders);
        lines.text("to", &rewrite.to);
        lines.text("reply_to", "keep");
    }
    ways_out(&mut lines, draft, around);
    rest(&mut lines, draft);
    lines.text
}

fn listener(lines: &mut RenderedLines, listener: &ListenerDraft) {
    lines.begin("[[listener]]", listener.asleep.as_ref());
    lines.text("name", &listener.name);
    lines.text("address", &listener.address);
    if let Some((certificate, key)) = &listener.certificate {
        lines.text("tls", listener.tls);
        if listener.require_tls {
            lines.pair("require_tls", &Value::from(true));
        }
        lines.text("certificate", certificate);
        lines.text("key", key);
    }
    if !matches!(listener.auth, "" | "off") {
        lines.text("auth", listener.auth);
        if listener.plaintext_auth {
            lines.pair("plaintext_auth", &Value::from(true));
        }
    }
    lines.end();
}

fn client(lines: &mut RenderedLines, client: &ClientDraft) {
    // One of which nothing is left stands as a comment.
    let asleep = (client.networks.is_empty())
        .then(|| "No network is left of this one: `check` refuses those below.".to_owned());
    lines.begin("[[client]]", asleep.as_ref());
    if let Some(comment) = client.comment {
        lines.comment(comment);
    }
    lines.text("name", &client.name);
    lines.any_list("networks", &client.networks, &client.asleep);
    if let Some(senders) = &client.senders {
        lines.any_list("senders", senders, &[]);
    }
    if client.is_barred {
        lines.line("recipients = []");
    }
    lines.end();
}

fn allowlist(lines: &mut RenderedLines, draft: &ImportDraft) {
    lines.begin("[allowlist]", None);
    let anybody = ["*".to_owned()];
    let senders = draft.allowed_senders.as_deref().unwrap_or(&anybody);
    let recipients = draft.allowed_recipients.as_deref().unwrap_or(&anybody);
    if draft.allowed_senders.is_none() || draft.allowed_recipients.is_none() {
        lines.comment(&format!(
            "{} let its networks write to anybody from any address. Narrow it here: senders = [\"corp.example\"]",
            draft.program
        ));
    }
    lines.any_list("senders", senders, &[]);
    if draft.stands_still || draft.has_no_door {
        lines.comment(if draft.stands_still {
            "Nobody, until there is a way out; it was:"
        } else {
            "Nobody, until a listener of the old system is there again; it was:"
        });
        lines.is_comment = true;
        lines.any_list("recipients", recipients, &[]);
        lines.is_comment = false;
        lines.line("recipients = []");
    } else {
        lines.any_list("recipients", recipients, &[]);
    }
}

fn ways_out(lines: &mut RenderedLines, draft: &ImportDraft, around: &RenderAround) {
    for route in &draft.routes {
        let is_awake = |name: &String| {
            draft
                .connectors
                .iter()
                .any(|c| c.asleep.is_none() && c.name == *name)
        };
        let awake: Vec<String> = route
            .connectors
            .iter()
            .filter(|name| is_awake(name))
            .cloned()
            .collect();
        let why = if awake.is_empty() {
            Some("Where it leads stands as a comment, too.".to_owned())
        } else if route.is_closed {
            Some("The clients that it is for stand as comments, too.".to_owned())
        } else {
            None
        };
        let connectors = if awake.is_empty() {
            &route.connectors
        } else {
            &awake
        };
        self::route(lines, route, connectors, why.as_ref());
    }
    if draft.stands_still {
        if draft.connectors.is_empty() {
            let why = "Name your smarthost below, take the `# ` away here and there, and remove \"nowhere\".";
            lines.begin("[[route]]", Some(&why.to_owned()));
            lines.text("name", "default");
            lines.list("connectors", &["smarthost".to_owned()]);
            lines.end();
        }
        lines.begin("[[route]]", None);
        lines.text("name", "nowhere");
        lines.list("connectors", &["nowhere".to_owned()]);
    }
    for connector in &draft.connectors {
        self::connector(lines, connector, around);
    }
    if draft.stands_still {
        if draft.connectors.is_empty() {
            let why = "All mail is handed to a smarthost: your provider's, or a relay of your own."
                .to_owned();
            lines.begin("[[connector]]", Some(&why));
            lines.text("name", "smarthost");
            lines.text("type", "smtp");
            lines.text("host", "smtp.corp.example");
            lines.end();
        }
        lines.begin("[[connector]]", None);
        lines.text("name", "nowhere");
        lines.text("type", "smtp");
        lines.text("host", "smarthost.invalid");
    }
}

fn route(
    lines: &mut RenderedLines,
    route: &RouteDraft,
    connectors: &[String],
    asleep: Option<&String>,
) {
    lines.begin("[[route]]", asleep);
    lines.text("name", &route.name);
    lines.list("senders", &route.senders);
    lines.list("recipients", &route.recipients);
    lines.list("clients", &route.clients);
    lines.list("listeners", &route.listeners);
    lines.list("connectors", connectors);
    lines.end();
}

fn connector(lines: &mut RenderedLines, connector: &ImportedConnector, around: &RenderAround) {
    lines.begin("[[connector]]", connector.asleep.as_ref());
    lines.text("name", &connector.name);
    for (key, value) in &connector.pairs {
        lines.pair(key, value);
    }
    if let (Some(login), Some(file)) = (&connector.login, connector.secret_file()) {
        let was = lines.is_comment;
        lines.is_comment |= matches!(login.secret, LoginSecret::Missing);
        if let Some((key, name)) = &login.beside {
            lines.text(key, name);
        }
        let path = literal(&Value::from(around.secret_path(&file)));
        lines.line(&format!("{} = {{ file = {path} }}", login.key));
        lines.is_comment = was;
    }
    lines.end();
}

fn rest(lines: &mut RenderedLines, draft: &ImportDraft) {
    if !draft.retry.is_empty() || draft.give_up.is_some() {
        lines.begin("[queue]", None);
        lines.list("retry", &draft.retry);
        if let Some(time) = draft.give_up {
            lines.text("give_up", &words::duration(time));
        }
    }
    if let Some(proxy) = &draft.proxy {
        lines.begin("[outbound]", None);
        lines.text("proxy", proxy);
    }
    if !draft.copy_to.is_empty() {
        lines.begin("[bounce]", None);
        lines.list("copy_to", &draft.copy_to);
    }
}
