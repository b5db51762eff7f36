//! `postern sendmail`, and the program when it is called `sendmail`: the drop-in for local programs.
//!
//! Apart from clap, which cannot read this command line (`-oi`, `-fADDRESS`, `-F "Full Name"`). It keeps no queue:
//! what the listener does not take is an exit status for the caller.

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufRead as _, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use super::{
    exit::{Ended, Exit, Failure},
    handover, output, send,
};
use crate::{
    config::{self, Secrets},
    mail::{headers, mailboxes},
};

/// Behind `postern sendmail --help`.
pub(super) const HELP: &str = "\
  -t          take the recipients from To, Cc and Bcc, besides those on the command line; Bcc is removed
  -i, -oi     a line with a single dot does not end the input
  -f, -r A    the envelope sender; <> for none
  -F NAME     the full name, for a message without From
  -bm         read a message (the default)
  -bs         speak SMTP on standard input and output
  -C, -c FILE the configuration
  -v          say what became of it
  --          what follows are recipients

Without effect: -A -B -d -e -G -h -L -m -n -N -o -O -p -q -R -U -V -X. Not offered, 64: the other -b modes.
Exit: 0 taken, 64 usage, 65 the message, 67 a recipient, 69 refused otherwise, 75 not now, 77 a rule refuses.";

/// Where no configuration says how large a message may be.
const MOST: u64 = 100 * 1024 * 1024;

/// The command line, understood.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    config: Option<PathBuf>,
    sender: Option<String>,
    name: Option<String>,
    from_header: bool,
    dot_is_text: bool,
    speak_smtp: bool,
    verbose: bool,
    help: bool,
    recipients: Vec<String>,
}

/// When `argv` is `postern [-c FILE] sendmail …`: the configuration and what follows the word.
pub(super) fn cut(argv: &[OsString]) -> Option<(Option<PathBuf>, &[OsString])> {
    let mut config = None;
    let mut rest = argv.get(1..)?;
    loop {
        let (first, after) = rest.split_first()?;
        let text = first.as_bytes();
        if text == b"sendmail" {
            return Some((config, after));
        } else if text == b"-c" || text == b"--config" {
            let (value, after) = after.split_first()?;
            config = Some(PathBuf::from(value));
            rest = after;
        } else if let Some(value) = text.strip_prefix(b"--config=").or(text.strip_prefix(b"-c")) {
            config = Some(PathBuf::from(OsStr::from_bytes(value)));
            rest = after;
        } else {
            return None;
        }
    }
}

pub(super) fn main(path: Option<PathBuf>, arguments: &[OsString]) -> Ended {
    let mut wishes = read(arguments)?;
    if wishes.help {
        output::line(format_args!("sendmail [OPTION]... [ADDRESS]...\n\n{HELP}"))?;
        return Ok(Exit::Ok);
    }
    let address = gateway(wishes.config.take().or(path))?;
    if wishes.speak_smtp {
        return bridge(&address);
    }
    let input = input(wishes.dot_is_text)?;
    let message = prepare(&mut wishes, &input)?;
    if wishes.recipients.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "no recipients: name them on the command line, or in the message with -t",
        ));
    }
    let sender = match wishes.sender {
        Some(sender) => sender,
        None => format!(
            "{}@{}",
            login()?,
            gethostname::gethostname().to_string_lossy()
        ),
    };
    if !sender.is_empty() {
        handover::speakable(&sender)?;
    }
    for recipient in &wishes.recipients {
        handover::speakable(recipient)?;
    }
    let taken = handover::hand_over(&address, &sender, &wishes.recipients, &message)
        .map_err(|unsent| Failure::new(unsent.exit(), format_args!("sendmail: {unsent}")))?;
    if wishes.verbose {
        output::line(output::safe(&taken.reply.text))?;
    }
    let mut exit = Exit::Ok;
    for (address, reply) in &taken.refused {
        output::complain(format_args!(
            "sendmail: not taken for {}: {reply}",
            output::safe(address)
        ));
        exit = handover::verdict("RCPT", reply);
    }
    Ok(exit)
}

/// The variable, else the configuration if it may be read, else the fallback.
fn gateway(path: Option<PathBuf>) -> Result<String, Failure> {
    if let Some(address) = handover::from_environment() {
        return Ok(address);
    }
    let path = config::find(path);
    // Local users may not read the gateway's configuration; that is no fault.
    if std::fs::File::open(&path).is_err() {
        return Ok(handover::FALLBACK.to_owned());
    }
    let (config, _) = config::load(&path, Secrets::Ignore)
        .map_err(|diagnostics| Failure::new(Exit::Config, diagnostics))?;
    send::listener(&config)
}

/// Options as Sendmail, Postfix and Exim document them.
fn read(arguments: &[OsString]) -> Result<Wishes, Failure> {
    let mut wishes = Wishes::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let text = argument.as_bytes();
        if text == b"--" {
            for recipient in arguments.by_ref() {
                add(&mut wishes.recipients, recipient)?;
            }
            break;
        }
        if text == b"--help" {
            wishes.help = true;
            continue;
        }
        let Some((letter, glued)) = text.strip_prefix(b"-").and_then(|t| t.split_first()) else {
            add(&mut wishes.recipients, argument)?;
            continue;
        };
        // The value is glued on or is the next argument.
        let mut value = || -> Result<&OsStr, Failure> {
            if glued.is_empty() {
                arguments.next().map(OsString::as_os_str).ok_or_else(|| {
                    Failure::new(
                        Exit::Usage,
                        format_args!("sendmail: -{} needs a value", char::from(*letter)),
                    )
                })
            } else {
                Ok(OsStr::from_bytes(glued))
            }
        };
        match (letter, glued) {
            (b'f' | b'r', _) => {
                let sender = value()?.to_string_lossy();
                wishes.sender = Some(bare(&sender).to_owned());
            }
            (b'F', _) => wishes.name = Some(value()?.to_string_lossy().into_owned()),
            (b'C' | b'c', _) => wishes.config = Some(PathBuf::from(value()?)),
            // These take a value that means nothing here.
            (b'B' | b'h' | b'L' | b'N' | b'O' | b'p' | b'R' | b'V' | b'X', _) => {
                value()?;
            }
            (b'b', b"m") => {}
            (b'b', b"s") => wishes.speak_smtp = true,
            (b'b', _) => {
                return Err(Failure::new(
                    Exit::Usage,
                    format_args!(
                        "sendmail: {} is not offered; `postern queue list` shows the queue, `postern explain` tests addresses",
                        output::safe(&argument.to_string_lossy())
                    ),
                ));
            }
            (b'o', b"i") => wishes.dot_is_text = true,
            // A bare -o takes its option as the next argument, as Sendmail does.
            (b'o', b"") => wishes.dot_is_text |= value()? == "i",
            (b'o' | b'q' | b'd' | b'e' | b'A', _) => {}
            _ => flags(&mut wishes, text.get(1..).unwrap_or_default())?,
        }
    }
    Ok(wishes)
}

/// Letters without a value may stand together: `-ti`.
fn flags(wishes: &mut Wishes, letters: &[u8]) -> Result<(), Failure> {
    for letter in letters {
        match letter {
            b't' => wishes.from_header = true,
            b'i' => wishes.dot_is_text = true,
            b'v' => wishes.verbose = true,
            b'G' | b'm' | b'n' | b'U' | b'E' => {}
            _ => {
                return Err(Failure::new(
                    Exit::Usage,
                    format_args!(
                        "sendmail: unknown option -{}; --help lists them",
                        output::safe(&String::from_utf8_lossy(letters))
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// A recipient argument; it may be a list, as in `"a@x, b@y"`.
fn add(recipients: &mut Vec<String>, argument: &OsStr) -> Result<(), Failure> {
    let text = argument.to_string_lossy();
    if let Ok(list) = mailboxes::parse(text.as_bytes())
        && !list.is_empty()
    {
        for mailbox in list {
            once(recipients, mailbox.address.to_string());
        }
        return Ok(());
    }
    // A bare name such as `root`: the gateway completes it or refuses it.
    for part in text.split(',') {
        let part = bare(part.trim());
        handover::speakable(part)?;
        once(recipients, part.to_owned());
    }
    Ok(())
}

fn once(recipients: &mut Vec<String>, address: String) {
    if !recipients.contains(&address) {
        recipients.push(address);
    }
}

fn bare(address: &str) -> &str {
    address
        .strip_prefix('<')
        .and_then(|a| a.strip_suffix('>'))
        .unwrap_or(address)
}

/// The message: to the end, or to a line with a single dot.
fn input(dot_is_text: bool) -> Result<Vec<u8>, Failure> {
    let mut stdin = io::stdin().lock().take(MOST + 1);
    let mut text = Vec::new();
    if dot_is_text {
        stdin.read_to_end(&mut text)?;
    } else {
        loop {
            let start = text.len();
            if stdin.read_until(b'\n', &mut text)? == 0 {
                break;
            }
            if matches!(text.get(start..), Some(b".\n" | b".\r\n" | b".")) {
                text.truncate(start);
                break;
            }
        }
    }
    if text.len() as u64 > MOST {
        return Err(Failure::new(
            Exit::Data,
            "sendmail: the message is too large",
        ));
    }
    Ok(text)
}

/// CRLF line ends, recipients and sender from the header, Bcc out; all other bytes stay.
fn prepare(wishes: &mut Wishes, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let content = handover::crlf(input);
    let end = header_end(&content);
    let (header, body) = content.split_at(end);
    let mut header = header.to_vec();
    if wishes.from_header {
        for field in headers::fields(&header) {
            if !["To", "Cc", "Bcc"].iter().any(|name| field.is(name)) || field.is_blank() {
                continue;
            }
            let list = mailboxes::parse(field.value).map(|list| {
                list.into_iter()
                    .map(|mailbox| mailbox.address.to_string())
                    .collect::<Vec<_>>()
            });
            match list {
                Ok(list) => list
                    .into_iter()
                    .for_each(|address| once(&mut wishes.recipients, address)),
                Err(error) => local_names(field.value, &mut wishes.recipients).map_err(|()| {
                    Failure::new(
                        Exit::Data,
                        format_args!(
                            "sendmail: cannot read {}: {error}",
                            output::safe(&String::from_utf8_lossy(field.raw))
                        ),
                    )
                })?,
            }
        }
        header = headers::remove(&header, &["Bcc"]);
    }
    let from = headers::value_of(&header, "From").map(<[u8]>::to_vec);
    if wishes.sender.is_none()
        && let Some(value) = &from
        && let Ok(list) = mailboxes::parse(value)
        && let Some(first) = list.first()
    {
        wishes.sender = Some(first.address.to_string());
    }
    if from.is_none()
        && let Some(name) = &wishes.name
    {
        let sender = match &wishes.sender {
            Some(sender) if !sender.is_empty() => sender.clone(),
            _ => format!(
                "{}@{}",
                login()?,
                gethostname::gethostname().to_string_lossy()
            ),
        };
        headers::append(
            &mut header,
            "From",
            format!("{} <{sender}>", phrase(name)).as_bytes(),
        );
    }
    let mut message = header;
    // What begins without an empty line is body all the same: the listener would put one there.
    if !body.is_empty() && !body.starts_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(body);
    Ok(message)
}

/// `To: root, admin`: programs of the machine write local names; the gateway completes or refuses them.
fn local_names(value: &[u8], recipients: &mut Vec<String>) -> Result<(), ()> {
    let text = std::str::from_utf8(value).map_err(|_| ())?;
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        if let Ok(list) = mailboxes::parse(part.as_bytes()) {
            for mailbox in list {
                once(recipients, mailbox.address.to_string());
            }
        } else if part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
        {
            once(recipients, part.to_owned());
        } else {
            return Err(());
        }
    }
    Ok(())
}

/// Where the header ends: at the empty line, or at the first line that is neither a field nor its continuation.
fn header_end(content: &[u8]) -> usize {
    let mut at = 0;
    for line in content.split_inclusive(|b| *b == b'\n') {
        let field = memchr::memchr(b':', line)
            .and_then(|colon| line.get(..colon))
            .is_some_and(|name| {
                let name = name.trim_ascii_end();
                !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
            });
        let continued = at > 0 && matches!(line.first(), Some(b' ' | b'\t'));
        // A first line `From user date` (mbox) is left for the listener to drop.
        let mbox = at == 0 && line.starts_with(b"From ");
        if line == b"\r\n" || !(field || continued || mbox) {
            break;
        }
        at += line.len();
    }
    at
}

/// A display name, quoted where it must be (RFC 5322 §3.2.4).
fn phrase(name: &str) -> String {
    if !name.is_ascii() {
        use base64::Engine as _;
        let name: String = name.chars().take(40).collect();
        let text = base64::engine::general_purpose::STANDARD.encode(name);
        // RFC 2047 §2: at most 75 characters a word.
        return text
            .as_bytes()
            .chunks(60)
            .map(|chunk| format!("=?utf-8?B?{}?=", String::from_utf8_lossy(chunk)))
            .take(1)
            .collect();
    }
    let mut quoted = String::from("\"");
    for c in name.chars().filter(|c| !c.is_ascii_control()) {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// The login name by the user id, not by the environment, which the caller can set.
fn login() -> Result<String, Failure> {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let name = String::from_utf8_lossy(&passwd).lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.filter(|name| !name.is_empty()).ok_or_else(|| {
        Failure::new(
            Exit::NoUser,
            format_args!("sendmail: user id {uid} has no name; -f says who sends"),
        )
    })
}

/// `-bs`: what comes goes to the listener and back, octet by octet.
fn bridge(address: &str) -> Ended {
    let later = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Later, format_args!("sendmail: {error}"))
    };
    let mut down = handover::dial(address).map_err(|unsent| later(&unsent))?;
    // The session's own time-outs are the listener's.
    down.set_read_timeout(None).map_err(|e| later(&e))?;
    let up = down.try_clone().map_err(|e| later(&e))?;
    let mut out = io::stdout().lock();
    let mut piece = [0; 8192];
    let mut waiting = Some(up);
    loop {
        let read = down.read(&mut piece).map_err(|e| later(&e))?;
        if read == 0 {
            return Ok(Exit::Ok);
        }
        let heard = piece.get(..read).unwrap_or_default();
        out.write_all(heard)?;
        out.flush()?;
        // A program that writes before the greeting is common on a pipe and refused on the wire: its words wait here.
        if heard.contains(&b'\n')
            && let Some(up) = waiting.take()
        {
            std::thread::spawn(move || upload(up));
        }
    }
}

/// Ends with standard input; the listener then says what it has left to say. When the listener goes first this ends with the
/// program.
fn upload(mut up: TcpStream) {
    let _ = io::copy(&mut io::stdin().lock(), &mut up);
    let _ = up.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(line: &str) -> Result<Wishes, u8> {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        read(&arguments).map_err(|failure| failure.code)
    }

    #[test]
    fn options() {
        let w = wishes("-t -i").unwrap();
        assert!(w.from_header && w.dot_is_text && w.recipients.is_empty());
        let w = wishes("-ti -oem -odb -v").unwrap();
        assert!(w.from_header && w.dot_is_text && w.verbose);
        for line in [
            "-f a@b.c x@y.z",
            "-fa@b.c x@y.z",
            "-r a@b.c -- x@y.z",
            "-f <a@b.c> x@y.z",
        ] {
            let w = wishes(line).unwrap();
            assert_eq!(w.sender.as_deref(), Some("a@b.c"), "{line}");
            assert_eq!(w.recipients, ["x@y.z"], "{line}");
        }
        assert_eq!(wishes("-f <> x@y.z").unwrap().sender.as_deref(), Some(""));
        let w = wishes("-F Name -O DeliveryMode=b -N never -B8BITMIME -q15m -oi a@b.c,d@e.f root")
            .unwrap();
        assert_eq!(w.recipients, ["a@b.c", "d@e.f", "root"]);
        assert!(wishes("-bs").unwrap().speak_smtp);
        assert_eq!(wishes("-- -t@x.y").unwrap().recipients, ["-t@x.y"]);
        for line in ["-bp", "-bt", "-bd", "-Z", "-f", "a>b@c"] {
            assert_eq!(wishes(line), Err(64), "{line}");
        }
    }

    #[test]
    fn messages() {
        fn check(input: &str, expected: &str, sender: Option<&str>, recipients: &[&str]) {
            let mut wishes = Wishes {
                from_header: true,
                ..Wishes::default()
            };
            let message = prepare(&mut wishes, input.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(message).unwrap(), expected, "{input:?}");
            assert_eq!(wishes.sender.as_deref(), sender, "{input:?}");
            assert_eq!(wishes.recipients, recipients, "{input:?}");
        }
        check(
            "From: A <a@b.c>\nTo: x@y.z,\n G: p@q.r, x@y.z;\nBcc: h@i.j\nSubject: s\n\nbody\n..\n",
            "From: A <a@b.c>\r\nTo: x@y.z,\r\n G: p@q.r, x@y.z;\r\nSubject: s\r\n\r\nbody\r\n..\r\n",
            Some("a@b.c"),
            &["x@y.z", "p@q.r", "h@i.j"],
        );
        check(
            "To: root, x@y.z\nhello\n",
            "To: root, x@y.z\r\n\r\nhello\r\n",
            None,
            &["root", "x@y.z"],
        );
        check("To: x@y.z\n", "To: x@y.z\r\n", None, &["x@y.z"]);
        check("hello\n", "\r\nhello\r\n", None, &[]);
    }

    #[test]
    fn a_full_name() {
        let mut wishes = Wishes {
            sender: Some("a@b.c".into()),
            name: Some("The \"Boss\"".into()),
            ..Wishes::default()
        };
        let message = prepare(&mut wishes, b"Subject: s\n\nx\n").unwrap();
        assert_eq!(
            String::from_utf8(message).unwrap(),
            "Subject: s\r\nFrom: \"The \\\"Boss\\\"\" <a@b.c>\r\n\r\nx\r\n"
        );
    }

    #[test]
    fn the_word_on_the_line() {
        fn check(line: &str, expected: Option<(Option<&str>, usize)>) {
            let argv: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(
                cut(&argv).map(|(config, rest)| (config, rest.len())),
                expected.map(|(config, rest)| (config.map(PathBuf::from), rest)),
                "{line}"
            );
        }
        check("postern sendmail -t -i", Some((None, 2)));
        check("postern -c x sendmail", Some((Some("x"), 0)));
        check("postern --config=x sendmail a", Some((Some("x"), 1)));
        check("postern run", None);
        check("postern send --from sendmail", None);
    }
}
