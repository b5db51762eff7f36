//! A tenant of our own: token endpoint and Graph's sendMail, from the public documentation, and as strict: the method, the URL, the
//! content type, the token, the size, the base64 and what each mailbox is sent are checked as the real one checks them.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    cloud_drafts::Drafts,
    cloud_limits::{Counter, Limits},
    cloud_token::{Asked, Endpoint, Said, granted},
};

/// One mail as the tenant took it.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The mailbox of the URL.
    pub mailbox: String,
    /// The MIME message.
    pub content: String,
    /// To, Cc and Bcc as a reader of its own finds them.
    pub recipients: HashSet<String>,
}

/// What the tenant says before it looks at a mail; `None`: what is right.
type Script = dyn Fn(usize, &str) -> Option<Said> + Send + Sync;

/// The tenant.
pub struct Tenant {
    pub endpoint: Endpoint,
    /// What is done by drafts; without the permission Mail.ReadWrite nothing.
    pub drafts: Drafts,
    taken: Arc<Mutex<Vec<Taken>>>,
    /// Who may stand in From of whatever mailbox: aliases, and those that Send As was granted for.
    send_as: Arc<Mutex<HashSet<String>>>,
    counter: Counter,
}

impl Tenant {
    /// One that gives tokens and takes mail, unless the script (number of the request, mailbox) says otherwise.
    pub fn start(script: impl Fn(usize, &str) -> Option<Said> + Send + Sync + 'static) -> Self {
        Self::start_as(&["Mail.Send"], Limits::default(), script)
    }

    /// One with limits of its own.
    pub fn limited(
        limits: Limits,
        script: impl Fn(usize, &str) -> Option<Said> + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(&["Mail.Send"], limits, script)
    }

    /// One whose application may also write drafts.
    pub fn with_drafts() -> Self {
        let roles = &["Mail.Send", "Mail.ReadWrite"];
        Self::start_as(roles, Limits::default(), |_, _| None)
    }

    fn start_as(
        roles: &'static [&'static str],
        limits: Limits,
        script: impl Fn(usize, &str) -> Option<Said> + Send + Sync + 'static,
    ) -> Self {
        let drafts = Drafts::start();
        let to_drafts = drafts.clone();
        let taken: Arc<Mutex<Vec<Taken>>> = Arc::default();
        let (tokens, requests) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let counter = Counter::new(limits);
        let script: Box<Script> = Box::new(script);
        let send_as: Arc<Mutex<HashSet<String>>> = Arc::default();
        let (kept, counts, granted_to) = (taken.clone(), counter.clone(), send_as.clone());
        to_drafts.send_as(send_as.clone());
        let endpoint = Endpoint::start(move |asked| {
            if asked.target.ends_with("/oauth2/v2.0/token") {
                let n = tokens.fetch_add(1, Ordering::SeqCst);
                return granted(&token(n, roles), 3599);
            }
            // Nobody's mailbox pays for what nobody may ask.
            if !is_authorized(asked, &tokens, roles) {
                return error(401, "InvalidAuthenticationToken", "");
            }
            let _entered = match counts.enter(asked) {
                Ok(entered) => entered,
                Err(said) => return said,
            };
            if asked.target.contains("/messages") {
                if roles.contains(&"Mail.ReadWrite") {
                    to_drafts.answer(asked)
                } else {
                    error(403, "ErrorAccessDenied", "")
                }
            } else {
                send_mail(asked, &requests, &*script, &kept, &granted_to)
            }
        });
        Self {
            endpoint,
            drafts,
            taken,
            send_as,
            counter,
        }
    }

    /// Grants Send As for this From, in every mailbox.
    pub fn grant_send_as(&self, from: &str) {
        self.send_as.lock().unwrap().insert(from.to_owned());
    }

    /// How often it was asked to send a MIME message.
    pub fn asked_to_send(&self) -> usize {
        let asked = self.endpoint.asked();
        let sends = asked.iter().filter(|a| a.target.ends_with("/sendMail"));
        sends.count()
    }

    /// What it took.
    pub fn mails(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    /// Waits for so many.
    pub fn wait(&self, count: usize) -> Vec<Taken> {
        super::gateway::wait(&format!("{count} mails in the tenant"), || {
            let mails = self.mails();
            (mails.len() >= count).then_some(mails)
        })
    }

    /// The most requests of one mailbox that were ever under way.
    pub fn most_at_once(&self) -> usize {
        self.counter.most_at_once()
    }

    /// Where a limit was passed.
    pub fn violations(&self) -> Vec<String> {
        self.counter.violations()
    }

    /// A connector section for it, named `up`.
    pub fn connector(&self) -> String {
        let url = self.endpoint.url("");
        format!(
            "[[connector]]\nname = \"up\"\ntype = \"graph\"\ntenant_id = \"corp.example\"\nclient_id = \"11111111-2222-3333-4444-555555555555\"\n\
             client_secret = \"hush-hush-value\"\nlogin_url = \"{url}\"\ngraph_url = \"{url}\"\nrate = \"1000/min\"\n"
        )
    }
}

/// An error as Graph words it.
pub fn error(status: u16, code: &str, headers: &str) -> Said {
    let body = format!(
        "{{\"error\":{{\"code\":\"{code}\",\"message\":\"words that may change\",\"innerError\":{{\"request-id\":\"r\"}}}}}}"
    );
    (status, headers.to_owned(), body)
}

/// The nth token: a JWT whose claims name the permission.
fn token(n: usize, roles: &[&str]) -> String {
    let part = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.sig",
        part("{\"alg\":\"RS256\"}".into()),
        part(format!("{{\"n\":{n},\"roles\":{roles:?}}}"))
    )
}

/// Each that was given out is good until its end: a new one takes none back, whoever asked for it.
fn is_authorized(asked: &Asked, tokens: &AtomicUsize, roles: &[&str]) -> bool {
    let given = 0..tokens.load(Ordering::SeqCst);
    let header = asked.header("authorization");
    header.is_some_and(|header| {
        let mut given = given.map(|n| format!("Bearer {}", token(n, roles)));
        given.any(|token| token == *header)
    })
}

fn send_mail(
    asked: &Asked,
    requests: &AtomicUsize,
    script: &Script,
    kept: &Mutex<Vec<Taken>>,
    send_as: &Mutex<HashSet<String>>,
) -> Said {
    let mailbox = asked
        .target
        .strip_prefix("/v1.0/users/")
        .and_then(|rest| rest.strip_suffix("/sendMail"))
        .map(|m| m.replace("%40", "@"));
    let (Some(mailbox), "POST") = (mailbox, asked.method.as_str()) else {
        return error(404, "UnknownResource", "");
    };
    if let Some(said) = script(requests.fetch_add(1, Ordering::SeqCst), &mailbox) {
        return said;
    }
    if asked.header("content-type") == Some("application/json") {
        // The other form of sendMail; nobody here sends one to anybody.
        let sent: serde_json::Value = serde_json::from_str(&asked.body).unwrap_or_default();
        let to = &sent["message"]["toRecipients"];
        assert!(to.as_array().is_some_and(Vec::is_empty), "{sent}");
        return error(400, "ErrorInvalidRecipients", "");
    }
    if asked.header("content-type") != Some("text/plain") {
        return error(415, "UnsupportedMediaType", "");
    }
    if asked.body.len() > 4_000_000 {
        return error(413, "RequestEntityTooLarge", "");
    }
    let Some(content) = STANDARD.decode(&asked.body).ok() else {
        return error(400, "ErrorMimeContentInvalidBase64String", "");
    };
    let Some(parsed) = mail_parser::MessageParser::default().parse(&content) else {
        return error(400, "ErrorMimeContentInvalid", "");
    };
    let mut recipients = HashSet::new();
    for list in [
        parsed.to(),
        parsed.cc(),
        parsed.bcc(),
        parsed.resent_to(),
        parsed.resent_cc(),
        parsed.resent_bcc(),
    ]
    .into_iter()
    .flatten()
    {
        for address in list.clone().into_list() {
            recipients.insert(address.address.unwrap_or_default().to_lowercase());
        }
    }
    if recipients.is_empty() || recipients.iter().any(|r| is_impossible(r)) {
        return error(400, "ErrorInvalidRecipients", "");
    }
    // Exchange Online refuses what the mailbox says in another's name.
    let mut from = parsed.from().into_iter().flat_map(|list| list.iter());
    let may = |from: &str| from == mailbox.to_lowercase() || send_as.lock().unwrap().contains(from);
    if !from.all(|from| may(&from.address().unwrap_or_default().to_lowercase())) {
        return error(403, "ErrorSendAsDenied", "");
    }
    let content = String::from_utf8_lossy(&content).into_owned();
    kept.lock().unwrap().push(Taken {
        mailbox,
        content,
        recipients,
    });
    (202, "request-id: r-1\r\n".into(), String::new())
}

/// An address that Exchange never takes.
pub fn is_impossible(address: &str) -> bool {
    address.starts_with("impossible")
}
