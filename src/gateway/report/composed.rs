//! What `send` composes: Markdown as text and as HTML, with what is attached.

use std::time::SystemTime;

use lettre::message::{
    Attachment, Mailbox, MultiPart, SinglePart,
    header::{ContentType, HeaderName, HeaderValue},
};
use pulldown_cmark::{Event, Options, Parser, html};

/// What is to be sent.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The sender, with or without a name.
    pub from: Mailbox,
    /// The recipients.
    pub to: Vec<Mailbox>,
    /// Those of a copy.
    pub cc: Vec<Mailbox>,
    /// Those that the others do not see.
    pub bcc: Vec<Mailbox>,
    /// As it is read.
    pub subject: String,
    /// Lines that end CRLF.
    pub markdown: String,
    /// What goes with it.
    pub enclosures: Vec<Enclosure>,
}

/// A file that is attached.
#[derive(Debug, Clone)]
pub struct Enclosure {
    /// With its extension, which says what it is.
    pub name: String,
    /// Its octets.
    pub content: Vec<u8>,
}

/// Why it cannot be composed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ComposeError(#[from] lettre::error::Error);

impl Letter {
    /// Of the envelope.
    pub fn sender(&self) -> String {
        self.from.email.to_string()
    }

    /// Of the envelope: all of them.
    pub fn recipients(&self) -> Vec<String> {
        let all = self.to.iter().chain(&self.cc).chain(&self.bcc);
        all.map(|mailbox| mailbox.email.to_string()).collect()
    }

    /// The message, as it is handed over.
    ///
    /// # Errors
    /// It is no mail.
    pub fn compose(&self, at: SystemTime) -> Result<Vec<u8>, ComposeError> {
        let mut mail = lettre::Message::builder()
            .from(self.from.clone())
            .subject(self.subject.clone())
            .message_id(None)
            .date(at);
        for mailbox in &self.to {
            mail = mail.to(mailbox.clone());
        }
        for mailbox in &self.cc {
            mail = mail.cc(mailbox.clone());
        }
        if self.to.is_empty() && self.cc.is_empty() {
            // Only hidden recipients; a Bcc field never goes into the message.
            mail = mail.raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("To"),
                "undisclosed-recipients:;".to_owned(),
            ));
        }
        let html = to_html(&self.markdown);
        let both = MultiPart::alternative_plain_html(self.markdown.clone(), html);
        let mail = if self.enclosures.is_empty() {
            mail.multipart(both)?
        } else {
            let mut mixed = MultiPart::mixed().multipart(both);
            for enclosure in &self.enclosures {
                mixed = mixed.singlepart(attachment(enclosure));
            }
            mail.multipart(mixed)?
        };
        Ok(mail.formatted())
    }
}

/// Raw HTML in the Markdown is shown as text: what is sent is what was written, and no script or image comes along.
fn to_html(markdown: &str) -> String {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let events = Parser::new_ext(markdown, options).map(|event| match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        other => other,
    });
    let mut body = String::new();
    html::push_html(&mut body, events);
    format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head><body>\n{body}</body></html>\n"
    )
}

fn attachment(enclosure: &Enclosure) -> SinglePart {
    let name = enclosure.name.clone();
    // The table holds only types that can be read.
    let kind = ContentType::parse(mime(&name)).unwrap_or(ContentType::TEXT_PLAIN);
    Attachment::new(name).body(enclosure.content.clone(), kind)
}

/// By extension: what offices, scanners and scripts attach; the rest is octets.
fn mime(name: &str) -> &'static str {
    let extension = name
        .rsplit_once('.')
        .map_or("", |(_, e)| e)
        .to_ascii_lowercase();
    match extension.as_str() {
        "txt" | "log" | "md" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "ics" => "text/calendar; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "svg" => "image/svg+xml",
        "tif" | "tiff" => "image/tiff",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xls" => "application/vnd.ms-excel",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        // An attached message must not be re-encoded (RFC 2046 §5.2.1), which the composer cannot promise.
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_in_markdown_is_text() {
        let html = to_html("# Hi\n\n<script>alert(1)</script>\n\na <b>c</b> **d**");
        assert!(
            html.contains("<h1>Hi</h1>") && html.contains("<strong>d</strong>"),
            "{html}"
        );
        assert!(
            !html.contains("<script>") && !html.contains("<b>"),
            "{html}"
        );
        assert!(html.contains("&lt;script&gt;"), "{html}");
    }
}
