//! The tenant's drafts, from the public documentation, and as strict: what a draft may hold, what one request may weigh, what goes
//! by an upload session, at a host of its own that wants no token, in order, in pieces of the right size; and the ids change when a
//! message moves. Any step can be told to fail.

use super::time::wait;
use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    cloud::{error, is_impossible},
    cloud_token::{Asked, Said},
    http::{Head, Wire, serve},
};

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Search,
    Create,
    Attach,
    Session,
    Piece,
    Standing,
    Send,
    Delete,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Not done, and said so: status, code, further header lines.
    Say(u16, &'static str, &'static str),
    /// Not done, and the connection cut; a piece in the middle of it.
    Cut,
    /// Done, and the connection cut.
    Lose,
    /// Done, and something else said.
    Does(u16),
    /// Not done until [`Drafts::release`].
    Hold,
    /// Done, and not said until [`Drafts::release`].
    DoesAndHold,
    /// The upload session ends.
    Expire,
    /// Of a piece: not done, and a page says so that is not Graph's.
    Page(u16),
}

/// A file of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub name: String,
    pub kind: String,
    pub content_id: Option<String>,
    pub inline: bool,
    pub octets: Vec<u8>,
    /// By an upload session.
    pub uploaded: bool,
}

/// A message that left.
#[derive(Debug, Clone)]
pub struct Sent {
    pub mailbox: String,
    pub message: Value,
    pub files: Vec<Attached>,
}

impl Sent {
    /// To, Cc and Bcc.
    pub fn recipients(&self) -> HashSet<String> {
        ["toRecipients", "ccRecipients", "bccRecipients"]
            .iter()
            .filter_map(|list| self.message[list].as_array())
            .flatten()
            .map(|one| one["emailAddress"]["address"].as_str().unwrap().to_owned())
            .collect()
    }
}

struct Item {
    id: String,
    mailbox: String,
    folder: &'static str,
    is_draft: bool,
    message: Value,
    files: Vec<Attached>,
}

struct Upload {
    item: String,
    file: Attached,
    size: usize,
    token: String,
}

#[derive(Default)]
struct State {
    items: Vec<Item>,
    uploads: HashMap<String, Upload>,
    sent: Vec<Sent>,
    ids: usize,
    counts: HashMap<Step, usize>,
    faults: Vec<(Step, usize, Act)>,
    /// What was wrong with a request.
    complaints: Vec<String>,
    open: bool,
    upload_host: String,
    send_as: Arc<Mutex<HashSet<String>>>,
}

/// The drafts of a tenant.
#[derive(Clone)]
pub struct Drafts {
    state: Arc<Mutex<State>>,
    uploads: SocketAddr,
}

impl Drafts {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let drafts = Self {
            state: Arc::default(),
            uploads: listener.local_addr().unwrap(),
        };
        drafts.state().upload_host = "127.0.0.1".into();
        let serving = drafts.clone();
        serve(listener, move |wire| serving.take_uploads(wire));
        drafts
    }

    /// Who may stand in From of whatever mailbox.
    pub(super) fn send_as(&self, list: Arc<Mutex<HashSet<String>>>) {
        self.state().send_as = list;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The nth time (from 0) that this is asked.
    pub fn fail(&self, step: Step, nth: usize, act: Act) {
        self.state().faults.push((step, nth, act));
    }

    /// What was held goes on.
    pub fn release(&self) {
        self.state().open = true;
    }

    /// Upload URLs name this host.
    pub fn upload_host(&self, name: &str) {
        self.state().upload_host = name.into();
    }

    /// What left.
    pub fn sent(&self) -> Vec<Sent> {
        self.state().sent.clone()
    }

    /// Waits for so many.
    pub fn wait(&self, count: usize) -> Vec<Sent> {
        super::gateway::wait(&format!("{count} sent drafts"), || {
            let sent = self.sent();
            (sent.len() >= count).then_some(sent)
        })
    }

    /// How often that was asked.
    pub fn count(&self, step: Step) -> usize {
        self.state().counts.get(&step).copied().unwrap_or_default()
    }

    /// What is left in the folder Drafts.
    pub fn left(&self) -> usize {
        let state = self.state();
        state.items.iter().filter(|i| i.folder == "Drafts").count()
    }

    /// Requests that broke a rule.
    pub fn complaints(&self) -> Vec<String> {
        self.state().complaints.clone()
    }

    /// Counts the step; what is to go wrong.
    fn fault(&self, step: Step) -> Option<Act> {
        let mut state = self.state();
        let count = state.counts.entry(step).or_default();
        let nth = *count;
        *count += 1;
        let found = state.faults.iter().find(|f| (f.0, f.1) == (step, nth));
        found.map(|f| f.2)
    }

    fn hold(&self) {
        wait("the release", || self.state().open.then_some(()));
    }

    /// A rule is broken.
    fn complain(&self, status: u16, code: &str, why: String) -> Said {
        self.state().complaints.push(why);
        error(status, code, "")
    }

    /// What Graph answers below `/users/MAILBOX/messages`.
    pub(super) fn answer(&self, asked: &Asked) -> Said {
        let path = asked.target.split('?').next().unwrap();
        let pieces: Vec<String> = path
            .trim_start_matches("/v1.0/users/")
            .split('/')
            .map(|piece| piece.replace("%40", "@").replace("%3D", "="))
            .collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let step = match (asked.method.as_str(), &pieces[1..]) {
            ("GET", ["messages"]) => Step::Search,
            ("POST", ["messages"]) => Step::Create,
            ("DELETE", ["messages", _]) => Step::Delete,
            ("POST", ["messages", _, "attachments"]) => Step::Attach,
            ("POST", ["messages", _, "attachments", "createUploadSession"]) => Step::Session,
            ("POST", ["messages", _, "send"]) => Step::Send,
            _ => return self.complain(404, "UnknownResource", asked.target.clone()),
        };
        let fault = self.fault(step);
        match fault {
            Some(Act::Say(status, code, more)) => return error(status, code, more),
            Some(Act::Cut) => return (0, String::new(), String::new()),
            Some(Act::Hold) => self.hold(),
            _ => {}
        }
        if asked.body.len() > 4 << 20 || (step == Step::Create && asked.body.len() > 4_000_000) {
            let text = format!("{step:?} of {} octets", asked.body.len());
            return self.complain(413, "RequestEntityTooLarge", text);
        }
        if asked.method == "POST" && asked.header("content-length").is_none() {
            return self.complain(411, "LengthRequired", format!("{step:?} without a length"));
        }
        let json_expected = matches!(step, Step::Create | Step::Attach | Step::Session);
        if json_expected && asked.header("content-type") != Some("application/json") {
            return self.complain(415, "UnsupportedMediaType", format!("{step:?}"));
        }
        let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        let item = pieces.get(2).copied().unwrap_or_default();
        let said = match step {
            Step::Search => self.search(asked, pieces[0]),
            Step::Create => self.create(pieces[0], &body),
            Step::Attach => self.attach(item, &body),
            Step::Session => self.session(item, &body),
            Step::Send => self.send(item),
            _ => self.delete(item),
        };
        match fault {
            Some(Act::Lose) => (0, String::new(), String::new()),
            Some(Act::Does(status)) => error(status, "UnknownError", ""),
            Some(Act::DoesAndHold) => {
                self.hold();
                said
            }
            _ => said,
        }
    }

    fn search(&self, asked: &Asked, mailbox: &str) -> Said {
        let (Some(filter), Some("id,isDraft")) =
            (asked.field("$filter"), asked.field("$select").as_deref())
        else {
            return self.complain(400, "BadRequest", asked.target.clone());
        };
        if asked.target.contains([' ', '+', '{']) {
            return self.complain(400, "BadRequest", format!("not encoded: {}", asked.target));
        }
        let quoted: Vec<&str> = filter.split('\'').collect();
        let [
            "singleValueExtendedProperties/Any(ep: ep/id eq ",
            id,
            " and ep/value eq ",
            value,
            ")",
        ] = quoted[..]
        else {
            return self.complain(400, "BadRequest", filter);
        };
        let state = self.state();
        let found: Vec<Value> = state
            .items
            .iter()
            .filter(|item| item.mailbox == mailbox)
            .filter(|item| {
                let properties = item.message["singleValueExtendedProperties"].as_array();
                properties.into_iter().flatten().any(|p| {
                    // The id is compared as it is, the value without case.
                    p["id"] == id && p["value"].as_str().unwrap().eq_ignore_ascii_case(value)
                })
            })
            .map(|item| json!({"id": item.id, "isDraft": item.is_draft}))
            .collect();
        (200, String::new(), json!({"value": found}).to_string())
    }

    fn create(&self, mailbox: &str, message: &Value) -> Said {
        if let Some(why) = unlike_a_message(message) {
            return self.complain(400, "ErrorInvalidParameter", why);
        }
        let mut state = self.state();
        let id = state.next_id();
        state.items.push(Item {
            id: id.clone(),
            mailbox: mailbox.into(),
            folder: "Drafts",
            is_draft: true,
            message: message.clone(),
            files: Vec::new(),
        });
        // The id, and everything else.
        let rest = message.to_string();
        let body = format!("{{\"id\":\"{id}\",\"isDraft\":true,{}", &rest[1..]);
        (201, String::new(), body)
    }

    fn attach(&self, item: &str, file: &Value) -> Said {
        if file["@odata.type"] != "#microsoft.graph.fileAttachment" {
            return self.complain(400, "ErrorInvalidParameter", format!("{file}"));
        }
        let octets = file["contentBytes"].as_str().map(|t| STANDARD.decode(t));
        let (Some(Ok(octets)), Some(attached)) = (octets, described(file)) else {
            return self.complain(400, "ErrorInvalidParameter", "an attachment".into());
        };
        if octets.len() >= 3_000_000 {
            let text = format!("an attachment of {} in one request", octets.len());
            return self.complain(413, "RequestEntityTooLarge", text);
        }
        match self.state().draft(item) {
            Some(item) => {
                item.files.push(Attached { octets, ..attached });
                let mut made = file.clone();
                made["id"] = "att".into();
                (201, String::new(), made.to_string())
            }
            None => error(404, "ErrorItemNotFound", ""),
        }
    }

    fn session(&self, item: &str, body: &Value) -> Said {
        let file = &body["AttachmentItem"];
        let size = file["size"].as_u64().unwrap_or_default() as usize;
        let Some(attached) = described(file).filter(|_| file["attachmentType"] == "file") else {
            return self.complain(400, "ErrorInvalidParameter", format!("{body}"));
        };
        if size < 3_000_000 {
            let code = "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize";
            return self.complain(400, code, format!("a session for {size}"));
        }
        if size > 150_000_000 {
            return error(400, "ErrorMessageSizeExceeded", "");
        }
        let mut state = self.state();
        if state.draft(item).is_none() {
            return error(404, "ErrorItemNotFound", "");
        }
        let id = state.next_id();
        let token = format!("upload-secret-{}", state.ids);
        let url = format!(
            "http://{}:{}/api/Messages('{item}')/AttachmentSessions('{id}')?authtoken={token}",
            state.upload_host,
            self.uploads.port()
        );
        let upload = Upload {
            item: item.into(),
            file: attached,
            size,
            token,
        };
        state.uploads.insert(id, upload);
        let body = json!({"uploadUrl": url, "expirationDateTime": "2030-01-01T00:00:00Z", "nextExpectedRanges": ["0-"]});
        (201, String::new(), body.to_string())
    }

    fn send(&self, id: &str) -> Said {
        let mut state = self.state();
        let next = state.next_id();
        let send_as = state.send_as.clone();
        let Some(item) = state.draft(id) else {
            return error(404, "ErrorItemNotFound", "");
        };
        let sent = Sent {
            mailbox: item.mailbox.clone(),
            message: item.message.clone(),
            files: item.files.clone(),
        };
        if sent.recipients().is_empty() || sent.recipients().iter().any(|r| is_impossible(r)) {
            return error(400, "ErrorInvalidRecipients", "");
        }
        if let Some(from) = sent.message["from"]["emailAddress"]["address"].as_str()
            && !from.eq_ignore_ascii_case(&sent.mailbox)
            && !send_as.lock().unwrap().contains(from)
        {
            return error(403, "ErrorSendAsDenied", "");
        }
        item.is_draft = false;
        item.folder = "Sent Items";
        item.id = next;
        state.sent.push(sent);
        (202, "request-id: r-9\r\n".into(), String::new())
    }

    /// First it moves to Deleted Items, from there it goes.
    fn delete(&self, id: &str) -> Said {
        let mut state = self.state();
        let next = state.next_id();
        let Some(at) = state.items.iter().position(|item| item.id == id) else {
            return error(404, "ErrorItemNotFound", "");
        };
        if state.items[at].folder == "Drafts" {
            state.items[at].folder = "Deleted Items";
            state.items[at].id = next;
        } else {
            state.items.remove(at);
        }
        (204, String::new(), String::new())
    }

    fn take_uploads(&self, mut wire: Wire) -> Option<()> {
        loop {
            let head = wire.head()?;
            let is_piece = head.method() == "PUT";
            let fault = self.fault(if is_piece {
                Step::Piece
            } else {
                Step::Standing
            });
            match fault {
                Some(Act::Cut) => {
                    wire.body(head.length() / 2)?;
                    return None;
                }
                Some(Act::Hold) => self.hold(),
                _ => {}
            }
            let octets = wire.body(head.length())?;
            let (status, more, body) = match fault {
                Some(Act::Say(status, code, more)) => error(status, code, more),
                Some(Act::Page(status)) => (status, String::new(), "<html>no</html>".into()),
                Some(Act::Expire) => {
                    self.state().uploads.clear();
                    error(404, "ErrorItemNotFound", "")
                }
                _ => self.upload(&head, &octets, is_piece),
            };
            if fault == Some(Act::Lose) {
                return None;
            }
            wire.answer(status, &more, body.as_bytes())?;
        }
    }

    fn upload(&self, head: &Head, octets: &[u8], is_piece: bool) -> Said {
        if head.header("authorization").is_some() {
            return self.complain(
                401,
                "InvalidAuthenticationToken",
                "a token for uploads".into(),
            );
        }
        let target = head.target();
        let id = target.split("AttachmentSessions('").nth(1);
        let id = id
            .and_then(|rest| rest.split('\'').next())
            .unwrap()
            .to_owned();
        let mut state = self.state();
        let Some(upload) = state.uploads.get_mut(&id) else {
            return error(404, "ErrorItemNotFound", "");
        };
        if !target.ends_with(&format!("?authtoken={}", upload.token)) {
            return error(401, "InvalidAuthenticationToken", "");
        }
        let done = upload.file.octets.len();
        if is_piece {
            let expected = format!(
                "bytes {done}-{}/{}",
                (done + octets.len()).saturating_sub(1),
                upload.size
            );
            let range = head.header("content-range").unwrap_or_default();
            let is_last = done + octets.len() == upload.size;
            let fits = (octets.len().is_multiple_of(320 * 1024) || is_last)
                && octets.len() <= 4_000_000
                && !octets.is_empty()
                && head.header("content-type") == Some("application/octet-stream");
            if range != expected || !fits {
                // After a lost answer a client may send again what is there; on its own it may not.
                if state.faults.is_empty() || !fits {
                    state
                        .complaints
                        .push(format!("{range} instead of {expected}"));
                }
                return error(416, "InvalidRange", "");
            }
            upload.file.octets.extend_from_slice(octets);
            if is_last {
                let Some(upload) = state.uploads.remove(&id) else {
                    unreachable!()
                };
                return match state.draft(&upload.item) {
                    Some(item) => {
                        item.files.push(upload.file);
                        (201, "Location: http://x/att\r\n".into(), String::new())
                    }
                    None => error(404, "ErrorItemNotFound", ""),
                };
            }
        }
        let next = state.uploads[&id].file.octets.len().to_string();
        let body = json!({"nextExpectedRanges": [next]});
        (200, String::new(), body.to_string())
    }
}

impl State {
    fn next_id(&mut self) -> String {
        self.ids += 1;
        format!("AAMk-ID_{}=", self.ids)
    }

    fn draft(&mut self, id: &str) -> Option<&mut Item> {
        self.items
            .iter_mut()
            .find(|item| item.id == id && item.folder == "Drafts")
    }
}

fn described(file: &Value) -> Option<Attached> {
    Some(Attached {
        name: file["name"].as_str().filter(|n| !n.is_empty())?.to_owned(),
        kind: file["contentType"].as_str()?.to_owned(),
        content_id: file["contentId"].as_str().map(str::to_owned),
        inline: file["isInline"].as_bool()?,
        octets: Vec::new(),
        uploaded: file.get("size").is_some(),
    })
}

/// What Graph would not take for a message.
fn unlike_a_message(message: &Value) -> Option<String> {
    let Some(message) = message.as_object() else {
        return Some("no JSON".into());
    };
    for (key, value) in message {
        let fine = match key.as_str() {
            "subject" | "internetMessageId" => value.is_string(),
            "importance" => ["low", "normal", "high"].iter().any(|i| value == i),
            "body" => {
                ["text", "html"].iter().any(|t| value["contentType"] == *t)
                    && value["content"].is_string()
            }
            "from" | "sender" => is_recipient(value),
            "toRecipients" | "ccRecipients" | "bccRecipients" | "replyTo" => {
                let list = value.as_array();
                list.is_some_and(|list| !list.is_empty() && list.iter().all(is_recipient))
            }
            "internetMessageHeaders" => value.as_array().is_some_and(|list| {
                (1..=5).contains(&list.len())
                    && list.iter().all(|f| {
                        let name = f["name"].as_str().unwrap_or_default();
                        name.to_ascii_lowercase().starts_with("x-") && f["value"].is_string()
                    })
            }),
            "singleValueExtendedProperties" => value.as_array().is_some_and(|list| {
                list.iter().all(|p| {
                    let id = p["id"].as_str().unwrap_or_default();
                    (id.starts_with("String 0x")
                        || (id.starts_with("String {") && id.contains("} Name ")))
                        && p["value"].is_string()
                })
            }),
            _ => false,
        };
        if !fine {
            return Some(format!("{key}: {value}"));
        }
    }
    None
}

fn is_recipient(value: &Value) -> bool {
    let address = &value["emailAddress"];
    address["address"].as_str().is_some_and(|a| a.contains('@'))
        && address.get("name").is_none_or(Value::is_string)
}
