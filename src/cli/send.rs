//! `postern send`: Markdown from standard input, sent as text and HTML through the listener.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart, header::ContentType};
use pulldown_cmark::{Event, Options, Parser, html};

use super::{
    exit::{CommandError, Ended, Exit},
    handover, output,
};
use crate::config::{self, Config, Secrets};
use crate::mail::text::shown;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The sender, with or without a name: "ERP <erp@corp.example>"
    #[arg(long, value_name = "ADDRESS")]
    from: Mailbox,
    /// A recipient; may be given several times
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["cc", "bcc"])]
    to: Vec<Mailbox>,
    /// A recipient of a copy
    #[arg(long, value_name = "ADDRESS")]
    cc: Vec<Mailbox>,
    /// A recipient that the others do not see
    #[arg(long, value_name = "ADDRESS")]
    bcc: Vec<Mailbox>,
    /// The subject
    #[arg(long, default_value = "")]
    subject: String,
    /// A file to attach; may be given several times
    #[arg(long, value_name = "FILE")]
    attach: Vec<PathBuf>,
}

/// Where no configuration says how large a message may be.
const MOST: u64 = 100 * 1024 * 1024;

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let path = config::find(path);
    let address = if let Some(address) = handover::from_environment() {
        address
    } else {
        let (config, _) = config::load(&path, Secrets::Ignore)
            .map_err(|diagnostics| CommandError::new(Exit::Config, diagnostics))?;
        listener(&config)?
    };
    let mut markdown = Vec::new();
    io::stdin()
        .lock()
        .take(MOST + 1)
        .read_to_end(&mut markdown)?;
    if markdown.len() as u64 > MOST {
        return Err(CommandError::new(Exit::Data, "the text is too long"));
    }
    let markdown = String::from_utf8(handover::plain(&markdown))
        .map_err(|_| CommandError::new(Exit::Data, "the text on standard input is not UTF-8"))?;
    let content = compose(arguments, &markdown)?;
    let recipients: Vec<String> = arguments
        .to
        .iter()
        .chain(&arguments.cc)
        .chain(&arguments.bcc)
        .map(|mailbox| mailbox.email.to_string())
        .collect();
    let sender = arguments.from.email.to_string();
    for address in recipients.iter().chain([&sender]) {
        handover::speakable(address)?;
    }
    let taken = handover::hand_over(&address, &sender, &recipients, &content)
        .map_err(|unsent| CommandError::new(unsent.exit(), format_args!("not sent: {unsent}")))?;
    output::line(shown(&taken.reply.text))?;
    let mut exit = Exit::Ok;
    for (address, reply) in &taken.refused {
        output::complain(format_args!("not sent to {}: {reply}", shown(address)));
        exit = handover::verdict("RCPT", reply);
    }
    Ok(exit)
}

/// The listener that takes local mail without a login.
pub(super) fn listener(config: &Config) -> Result<String, CommandError> {
    handover::local_listener(config)
        .map(|address| address.to_string())
        .ok_or_else(|| {
            CommandError::new(
                Exit::Config,
                format_args!(
                    "{}: no listener admits 127.0.0.1 without TLS and AUTH; {} names another way in",
                    config.path.display(),
                    handover::OVERRIDE
                ),
            )
        })
}

fn compose(arguments: &Arguments, markdown: &str) -> Result<Vec<u8>, CommandError> {
    let fault = |error: lettre::error::Error| CommandError::new(Exit::Data, error);
    let mut mail = lettre::Message::builder()
        .from(arguments.from.clone())
        .subject(arguments.subject.clone())
        .message_id(None)
        .date(output::now());
    for mailbox in &arguments.to {
        mail = mail.to(mailbox.clone());
    }
    for mailbox in &arguments.cc {
        mail = mail.cc(mailbox.clone());
    }
    if arguments.to.is_empty() && arguments.cc.is_empty() {
        // Only hidden recipients; a Bcc field never goes into the message.
        mail = mail.raw_header(lettre::message::header::HeaderValue::new(
            lettre::message::header::HeaderName::new_from_ascii_str("To"),
            "undisclosed-recipients:;".to_owned(),
        ));
    }
    let both = MultiPart::alternative_plain_html(markdown.to_owned(), to_html(markdown));
    let mail = if arguments.attach.is_empty() {
        mail.multipart(both).map_err(fault)?
    } else {
        let mut mixed = MultiPart::mixed().multipart(both);
        for path in &arguments.attach {
            mixed = mixed.singlepart(attachment(path)?);
        }
        mail.multipart(mixed).map_err(fault)?
    };
    Ok(mail.formatted())
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

fn attachment(path: &Path) -> Result<SinglePart, CommandError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        CommandError::new(
            Exit::NoInput,
            format_args!("cannot read {}: {error}", path.display()),
        )
    };
    let file = fs::File::open(path).map_err(|e| unreadable(&e))?;
    let mut content = Vec::new();
    file.take(MOST + 1)
        .read_to_end(&mut content)
        .map_err(|e| unreadable(&e))?;
    if content.len() as u64 > MOST {
        return Err(unreadable(&"it is too large for mail"));
    }
    let name = path.file_name().map_or_else(
        || "attachment".to_owned(),
        |n| n.to_string_lossy().into_owned(),
    );
    let kind = ContentType::parse(mime(&name)).map_err(|e| unreadable(&e))?;
    Ok(Attachment::new(name).body(content, kind))
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
