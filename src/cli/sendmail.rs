//! `postern sendmail`, and the program when it is called `sendmail`: the drop-in for local programs.
//!
//! clap cannot read this command line (`-oi`, `-fADDRESS`, `-F "Full Name"`). It keeps no queue: what the listener does not take is
//! an exit status for the caller. What becomes of the text is in `message`.

mod message;

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufRead as _, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use super::{
    exit::{CommandError, Ended, Exit},
    handover::{self, Taken, Unsent},
    output, send,
};
use crate::{
    config::{self, Secrets},
    mail::{address::Domain, text::shown},
};
use message::{LocalMessage, addresses, once};

/// Behind `postern sendmail --help`.
pub(super) const HELP: &str = "\
  -t          take the recipients from To, Cc and Bcc, or Resent-To, -Cc and -Bcc where there are any, besides those on the
              command line; Bcc and Resent-Bcc are removed
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
    run_queue: bool,
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
    let gateway = gateway(wishes.config.take().or(path))?;
    if wishes.speak_smtp {
        return bridge(&gateway.address);
    }
    if wishes.run_queue && !wishes.from_header && wishes.recipients.is_empty() {
        // There is no queue here that could be run.
        return Ok(Exit::Ok);
    }
    let input = input(wishes.dot_is_text)?;
    let draft = LocalMessage::read(&input, wishes.from_header)
        .map_err(|error| CommandError::new(Exit::Data, format_args!("sendmail: {error}")))?;
    for address in &draft.recipients {
        once(&mut wishes.recipients, address.clone());
    }
    if wishes.recipients.is_empty() {
        return Err(CommandError::new(
            Exit::Usage,
            "no recipients: name them on the command line, or in the message with -t",
        ));
    }
    for recipient in &wishes.recipients {
        handover::speakable(recipient)?;
    }
    let given = wishes.sender.take().or_else(|| draft.sender.clone());
    let senders = senders(given, &gateway.default_domain)?;
    let taken = hand_over(&gateway.address, &senders, &wishes, &draft)?;
    if wishes.verbose {
        output::line(shown(&taken.reply.text))?;
    }
    let mut exit = Exit::Ok;
    for (address, reply) in &taken.refused {
        output::complain(format_args!(
            "sendmail: refused for {}: {reply}",
            shown(address)
        ));
        exit = handover::verdict("RCPT", reply);
    }
    Ok(exit)
}

/// Hands the message over as the first of these senders that the gateway can read.
fn hand_over(
    address: &str,
    senders: &[String],
    wishes: &Wishes,
    draft: &LocalMessage,
) -> Result<Taken, CommandError> {
    let mut refused = CommandError::new(Exit::Unavailable, "sendmail: no sender");
    for sender in senders {
        if !sender.is_empty() {
            handover::speakable(sender)?;
        }
        let message = draft.message(sender, wishes.name.as_deref());
        let unsent = match handover::hand_over(address, sender, &wishes.recipients, &message) {
            Ok(taken) => return Ok(taken),
            Err(unsent) => unsent,
        };
        refused = CommandError::new(handover::exit(&unsent), format_args!("sendmail: {unsent}"));
        // The gateway completes no bare names: the next one is complete.
        if !matches!(unsent, Unsent::Said("MAIL", reply) if matches!(reply.code, 501 | 553)) {
            break;
        }
    }
    Err(refused)
}

/// Where to, and what completes a bare name there.
struct Destination {
    address: String,
    default_domain: DefaultDomain,
}

enum DefaultDomain {
    /// As the configuration has it.
    Known(Option<Domain>),
    /// The configuration cannot be read by this user, or is another gateway's: the gateway knows.
    Unknown,
}

/// The variable, else the configuration if it may be read, else the fallback.
fn gateway(path: Option<PathBuf>) -> Result<Destination, CommandError> {
    let named = handover::from_environment();
    let path = config::find(path);
    // Local users may not read the gateway's configuration; that is no fault.
    if std::fs::File::open(&path).is_err() {
        return Ok(Destination {
            address: named.unwrap_or_else(|| handover::FALLBACK.to_owned()),
            default_domain: DefaultDomain::Unknown,
        });
    }
    match (named, config::load(&path, Secrets::Ignore)) {
        (Some(address), Ok((config, _))) => Ok(Destination {
            address,
            default_domain: DefaultDomain::Known(config.default_domain),
        }),
        (Some(address), Err(_)) => Ok(Destination {
            address,
            default_domain: DefaultDomain::Unknown,
        }),
        (None, Ok((config, _))) => Ok(Destination {
            address: send::listener(&config)?,
            default_domain: DefaultDomain::Known(config.default_domain),
        }),
        (None, Err(diagnostics)) => Err(CommandError::new(Exit::Config, diagnostics)),
    }
}

/// Who sends, in the order in which the gateway is asked: as given, else the login name.
fn senders(given: Option<String>, default: &DefaultDomain) -> Result<Vec<String>, CommandError> {
    let is_given = given.is_some();
    let name = given.map_or_else(login, Ok)?;
    if name.is_empty() || name.contains('@') {
        return Ok(vec![name]);
    }
    let here = || format!("{name}@{}", gethostname::gethostname().to_string_lossy());
    Ok(match default {
        DefaultDomain::Known(Some(domain)) => vec![format!("{name}@{domain}")],
        _ if is_given => vec![name],
        DefaultDomain::Known(None) => vec![here()],
        DefaultDomain::Unknown => vec![name.clone(), here()],
    })
}

/// Options as Sendmail, Postfix and Exim document them.
fn read(arguments: &[OsString]) -> Result<Wishes, CommandError> {
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
        let mut value = || -> Result<&OsStr, CommandError> {
            if glued.is_empty() {
                arguments.next().map(OsString::as_os_str).ok_or_else(|| {
                    CommandError::new(
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
                wishes.sender = Some(sender_of(value()?)?);
            }
            (b'F', _) => wishes.name = Some(text_of(value()?)),
            (b'C' | b'c', _) => wishes.config = Some(PathBuf::from(value()?)),
            // These take a value that means nothing here.
            (b'B' | b'h' | b'L' | b'N' | b'O' | b'p' | b'R' | b'V' | b'X', _) => {
                value()?;
            }
            (b'b', b"m") => {}
            (b'b', b"s") => wishes.speak_smtp = true,
            (b'b', _) => {
                return Err(CommandError::new(
                    Exit::Usage,
                    format_args!(
                        "sendmail: {} is not offered; `postern queue list` shows the queue, `postern explain` tests addresses",
                        shown(&argument.to_string_lossy())
                    ),
                ));
            }
            (b'o', b"i") => wishes.dot_is_text = true,
            // A bare -o takes its option as the next argument, as Sendmail does.
            (b'o', b"") => wishes.dot_is_text |= value()? == "i",
            (b'q', _) => wishes.run_queue = true,
            (b'o' | b'd' | b'e' | b'A', _) => {}
            _ => flags(&mut wishes, text.get(1..).unwrap_or_default())?,
        }
    }
    Ok(wishes)
}

/// Letters without a value may stand together: `-ti`.
fn flags(wishes: &mut Wishes, letters: &[u8]) -> Result<(), CommandError> {
    for letter in letters {
        match letter {
            b't' => wishes.from_header = true,
            b'i' => wishes.dot_is_text = true,
            b'v' => wishes.verbose = true,
            b'G' | b'm' | b'n' | b'U' | b'E' => {}
            _ => {
                return Err(CommandError::new(
                    Exit::Usage,
                    format_args!(
                        "sendmail: unknown option -{}; --help lists them",
                        shown(&String::from_utf8_lossy(letters))
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// A recipient argument; it may be a list, as in `"a@x, b@y"`.
fn add(recipients: &mut Vec<String>, argument: &OsStr) -> Result<(), CommandError> {
    let list = addresses(argument.as_bytes()).map_err(|_| no_address(argument))?;
    for address in list {
        once(recipients, address);
    }
    Ok(())
}

/// The one address of `-f`, with or without a name; none at all is `<>`.
fn sender_of(value: &OsStr) -> Result<String, CommandError> {
    let mut list = addresses(value.as_bytes()).map_err(|_| no_address(value))?;
    match (list.pop(), list.is_empty()) {
        (None, _) => Ok(String::new()),
        (Some(address), true) => Ok(address),
        (Some(_), false) => Err(no_address(value)),
    }
}

fn no_address(text: &OsStr) -> CommandError {
    CommandError::new(
        Exit::Usage,
        format_args!(
            "sendmail: not an address: {}",
            shown(&text.to_string_lossy())
        ),
    )
}

/// An argument that is UTF-8, as nearly everywhere, or else ISO-8859-1.
fn text_of(argument: &OsStr) -> String {
    let octets = argument.as_bytes();
    str::from_utf8(octets).map_or_else(
        |_| octets.iter().map(|b| char::from(*b)).collect(),
        str::to_owned,
    )
}

/// The message: to the end, or to a line with a single dot.
fn input(dot_is_text: bool) -> Result<Vec<u8>, CommandError> {
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
            let line = text.get(start..).unwrap_or_default();
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let crs = line.iter().rev().take_while(|b| **b == b'\r').count();
            if line.get(..line.len() - crs) == Some(b".") {
                text.truncate(start);
                break;
            }
        }
    }
    if text.len() as u64 > MOST {
        return Err(CommandError::new(
            Exit::Data,
            "sendmail: the message is too large",
        ));
    }
    Ok(text)
}

/// The login name by the user id; by the environment, which the caller can set, only where the id has no name.
fn login() -> Result<String, CommandError> {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let name = String::from_utf8_lossy(&passwd).lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    // Users of a directory (LDAP) and of containers are not in the file; cron and logins set the variable.
    let name = name.or_else(from_environment);
    name.filter(|name| !name.is_empty()).ok_or_else(|| {
        CommandError::new(
            Exit::NoUser,
            format_args!("sendmail: user id {uid} has no name; say who sends with -f"),
        )
    })
}

/// `$LOGNAME`, where it is a plain word.
#[expect(
    clippy::disallowed_methods,
    reason = "the name of a user who stands in no file"
)]
fn from_environment() -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    std::env::var("LOGNAME")
        .ok()
        .filter(|name| name.len() <= 64 && name.bytes().all(plain))
}

/// `-bs`: what comes goes to the listener and back, octet by octet.
fn bridge(address: &str) -> Ended {
    let later = |error: &dyn std::fmt::Display| {
        CommandError::new(Exit::Later, format_args!("sendmail: {error}"))
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
            "-f <a@b.c> <x@y.z>",
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
        let w = wishes("-q -odq x@y.z").unwrap();
        assert!(w.run_queue);
        for line in ["-bp", "-bt", "-bd", "-Z", "-f", "a>b@c", "-f a@b.c,d@e.f"] {
            assert_eq!(wishes(line), Err(64), "{line}");
        }
    }

    #[test]
    fn who_sends() {
        let known = |domain: &str| DefaultDomain::Known(Some(Domain::parse(domain).unwrap()));
        let none = DefaultDomain::Known(None);
        for (given, default, expected) in [
            ("a@b.c", &known("x.y"), "a@b.c"),
            ("root", &known("x.y"), "root@x.y"),
            ("root", &none, "root"),
            ("root", &DefaultDomain::Unknown, "root"),
            ("", &known("x.y"), ""),
        ] {
            let senders = senders(Some(given.to_owned()), default).unwrap();
            assert_eq!(senders, [expected], "{given}");
        }
        let login = login().unwrap();
        let here = format!("{login}@{}", gethostname::gethostname().to_string_lossy());
        let completed = format!("{login}@x.y");
        assert_eq!(senders(None, &known("x.y")).unwrap(), [completed]);
        let asked = senders(None, &none).unwrap();
        assert_eq!(asked, [here.as_str()]);
        let asked = senders(None, &DefaultDomain::Unknown).unwrap();
        assert_eq!(asked, [login, here]);
    }

    #[test]
    fn names_that_are_not_utf_8() {
        assert_eq!(text_of(OsStr::from_bytes(b"B\xfcro")), "B\u{fc}ro");
        assert_eq!(text_of(OsStr::new("B\u{fc}ro")), "B\u{fc}ro");
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
