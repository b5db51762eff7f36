//! WHAT THE GATEWAY SAYS OF ITSELF: the log, as text for people, as JSON, or to the journal with fields; and what it counts.
//!
//! Everybody else only names events and fields. A full pipe behind standard error never holds the gateway up: lines go through a
//! bounded channel to a thread of their own, and those that do not fit are counted and reported later.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Value, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::LevelFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::mail::{text, time};
use metrics::Metrics;
use sorted::SortedEvents;

mod copies;
pub mod counted;
pub mod day;
pub mod gauges;
mod labels;
pub mod maillog;
pub mod metrics;
pub mod noticed;
mod series;
mod sorted;

#[cfg(test)]
pub(crate) use sorted::counting;

/// A single value of any origin is cut to so many octets.
const ANY_TEXT: usize = 4_000;
/// Lines that wait for standard error.
const WAITING_LINES: usize = 4_096;
/// How long we wait for the next lines, and how many octets are written at once.
const GATHER: Duration = Duration::from_millis(2);
const AT_ONCE: usize = 64 * 1024;

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `error`, `warn`, `info`, `debug`, `trace`.
    pub level: String,
    /// How lines look.
    pub format: Format,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// To the journal, with fields.
    Journald,
}

/// Keeps the log going; what waits is written when it is dropped (for two seconds at most).
#[derive(Debug, Default)]
pub struct Guard {
    lines: Option<Lines>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(lines) = self.lines.take() {
            // The subscriber keeps a sender for ever, so the end has to be sent as a line.
            let _ = lines.sender.try_send(Line::End);
        }
        if let Some(thread) = self.thread.take() {
            for _ in 0..200 {
                if thread.is_finished() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Starts the log of this process, and has what happens counted. Keep the guard until the end.
///
/// # Errors
/// A sentence: an unknown level, no journal, or a log that was already started.
pub fn init(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Guard, String> {
    let level: LevelFilter = settings.level.parse().map_err(|_| {
        format!(
            "\"{}\" is not a log level; it is one of error, warn, info, debug, trace",
            text::logged(&settings.level)
        )
    })?;
    let registry = tracing_subscriber::registry();
    let started = |result: Result<(), _>| {
        result.map_err(|_: tracing_subscriber::util::TryInitError| {
            "the log was already started".to_owned()
        })
    };
    if settings.format == Format::Journald {
        let journal = tracing_journald::layer()
            .map_err(|e| format!("the journal cannot be reached: {e}"))?
            .with_field_prefix(Some("POSTERN".to_owned()));
        let log = Escaped(journal);
        started(
            registry
                .with(SortedEvents::new(level, log, metrics))
                .try_init(),
        )?;
        return Ok(Guard::default());
    }
    let (lines, thread) = to_standard_error().map_err(|e| format!("the log thread: {e}"))?;
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(lines.clone());
    if settings.format == Format::Json {
        let json = layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_target(false);
        started(
            registry
                .with(SortedEvents::new(level, json, metrics))
                .try_init(),
        )?;
    } else {
        let text = layer.event_format(TextLines);
        started(
            registry
                .with(SortedEvents::new(level, text, metrics))
                .try_init(),
        )?;
    }
    Ok(Guard {
        lines: Some(lines),
        thread: Some(thread),
    })
}

/// Hands on events whose values are escaped: the journal takes whatever octets it is given, and its readers show them to a terminal.
struct Escaped<L>(L);

impl<S: Subscriber, L: Layer<S>> Layer<S> for Escaped<L> {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let (Self(inner), metadata) = (self, event.metadata());
        let mut values = EscapedValues(vec![None; metadata.fields().len()]);
        event.record(&mut values);
        let of = values.0.iter();
        let values: Vec<_> = of.map(|v| v.as_ref().map(|v| v as &dyn Value)).collect();
        let escaped = metadata.fields().value_set_all(&values);
        inner.on_event(&Event::new(metadata, &escaped), context);
    }
}

/// One for each field of an event; `None`: it has no value.
struct EscapedValues(Vec<Option<String>>);

impl Visit for EscapedValues {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0[field.index()] = Some(text::logged_to(value, ANY_TEXT));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// `time LEVEL message key=value …`
struct TextLines;

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = TextFields::new();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARN ",
            Level::INFO => "INFO ",
            Level::DEBUG => "DEBUG",
            Level::TRACE => "TRACE",
        };
        writer.write_str(&time::logged(SystemTime::now()))?;
        for part in [" ", level, " ", &fields.message, &fields.rest, "\n"] {
            writer.write_str(part)?;
        }
        Ok(())
    }
}

struct TextFields {
    message: String,
    rest: String,
    /// A value on its way into one of them.
    value: String,
}

impl TextFields {
    /// With room for a usual line.
    fn new() -> Self {
        Self {
            message: String::with_capacity(32),
            rest: String::with_capacity(512),
            value: String::with_capacity(128),
        }
    }

    fn put(&mut self, name: &str, value: &str) {
        if name == "message" {
            text::append_logged(value, ANY_TEXT, &mut self.message);
            return;
        }
        self.rest.push(' ');
        self.rest.push_str(name);
        self.rest.push('=');
        // Nearly every value is a word of ASCII, and this runs for each of them.
        let is_word = |b| matches!(b, b'!' | b'#'..=b'<' | b'>'..=b'[' | b']'..=b'~');
        if !value.is_empty() && value.len() <= ANY_TEXT && value.bytes().all(is_word) {
            self.rest.push_str(value);
            return;
        }
        let bare = !value.is_empty()
            && !value
                .chars()
                .any(|c| c.is_whitespace() || matches!(c, '"' | '\\' | '='));
        if bare {
            text::append_logged(value, ANY_TEXT, &mut self.rest);
        } else {
            self.rest.push('"');
            if value.contains(['"', '\\']) {
                let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
                text::append_logged(&quoted, ANY_TEXT, &mut self.rest);
            } else {
                text::append_logged(value, ANY_TEXT, &mut self.rest);
            }
            self.rest.push('"');
        }
    }

    fn put_formatted(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut text = std::mem::take(&mut self.value);
        text.clear();
        // Writing to a String cannot fail, but a value may refuse to be written.
        let _ = text.write_fmt(value);
        self.put(field.name(), &text);
        self.value = text;
    }
}

impl Visit for TextFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_formatted(field, format_args!("{value:?}"));
    }
}

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    End,
}

/// The near end of the channel to the thread that writes.
#[derive(Debug, Clone)]
struct Lines {
    sender: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

fn to_standard_error() -> io::Result<(Lines, JoinHandle<()>)> {
    let (sender, receiver) = sync_channel(WAITING_LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let lines = Lines {
        sender,
        dropped: Arc::clone(&dropped),
    };
    let thread = std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&receiver, &dropped, &mut io::stderr()))?;
    Ok((lines, thread))
}

fn write_lines(receiver: &Receiver<Line>, dropped: &AtomicU64, out: &mut dyn Write) {
    // While lines keep coming the thread polls instead of waiting, so that writing a line wakes nobody.
    let mut busy = false;
    loop {
        let next = if busy {
            std::thread::sleep(GATHER);
            receiver.try_recv().ok()
        } else {
            match receiver.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => Some(line),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        };
        let Some(first) = next else {
            if !std::mem::take(&mut busy) {
                report_lost(dropped, out);
            }
            continue;
        };
        if !busy {
            // Perhaps the first of many.
            std::thread::sleep(GATHER);
        }
        busy = true;
        let mut lines = Vec::new();
        let mut end = false;
        for line in std::iter::once(first).chain(receiver.try_iter()) {
            match line {
                Line::Text(line) => lines.extend_from_slice(&line),
                Line::End => end = true,
            }
            if end || lines.len() >= AT_ONCE {
                break;
            }
        }
        // There is nowhere to report that the log cannot be written.
        let _ = if text::is_plain(&lines) {
            out.write_all(&lines)
        } else {
            // Text is escaped already; what makes JSON escapes less than a terminal would obey.
            let lines = String::from_utf8_lossy(&lines);
            out.write_all(text::json(&lines).as_bytes())
        };
        if end {
            return;
        }
    }
}

fn report_lost(dropped: &AtomicU64, out: &mut dyn Write) {
    let lost = dropped.swap(0, Ordering::Relaxed);
    if lost > 0 {
        let _ = writeln!(
            out,
            "{} WARN  log lines dropped count={lost}",
            time::logged(SystemTime::now())
        );
    }
}

/// Collects one line; the line goes to the channel when it is dropped.
struct OneLine<'a> {
    lines: &'a Lines,
    text: Vec<u8>,
}

impl Write for OneLine<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OneLine<'_> {
    fn drop(&mut self) {
        let line = Line::Text(std::mem::take(&mut self.text));
        if self.lines.sender.try_send(line).is_err() {
            self.lines.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = OneLine<'a>;

    fn make_writer(&'a self) -> OneLine<'a> {
        OneLine {
            lines: self,
            text: Vec::with_capacity(512),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_silences_what_is_counted_and_the_log_has_none_of_it() {
        let (sender, receiver) = sync_channel(8);
        let lines = Lines {
            sender,
            dropped: Arc::default(),
        };
        let text = tracing_subscriber::fmt::layer()
            .event_format(TextLines)
            .with_writer(lines);
        let metrics = Arc::new(Metrics::default());
        metrics.know(&metrics::LabelNames {
            listeners: vec!["lan".to_owned()],
            ..metrics::LabelNames::default()
        });
        let told = SortedEvents::new(LevelFilter::ERROR, text, &metrics);
        let subscriber = tracing_subscriber::registry().with(told);
        tracing::subscriber::with_default(subscriber, || {
            counted::refused("lan", "rcpt", 550);
            counted::refused("of a client", "rcpt", 550);
            tracing::info!("beneath the level");
            tracing::error!(target: "hyper", "a library");
            tracing::error!("ours");
        });
        let Ok(Line::Text(line)) = receiver.try_recv() else {
            panic!("no line")
        };
        assert!(line.ends_with(b"ERROR ours\n"), "{line:?}");
        assert!(receiver.try_recv().is_err(), "one line");
        let text = metrics.text(&gauges::Gauges::default());
        let series = "postern_rejections_total{listener=\"lan\",stage=\"rcpt\",code=\"550\"} 1\n";
        assert!(text.contains(series), "{text}");
        assert!(!text.contains("of a client"));
    }

    #[test]
    fn text_line() {
        let (sender, receiver) = sync_channel(8);
        let lines = Lines {
            sender,
            dropped: Arc::default(),
        };
        let subscriber = tracing_subscriber::registry().with(
            tracing_subscriber::fmt::layer()
                .event_format(TextLines)
                .with_writer(lines),
        );
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(id = 7, who = "a \"b\"\nc", "accepted");
        });
        let Ok(Line::Text(line)) = receiver.try_recv() else {
            panic!("no line")
        };
        let line = String::from_utf8(line).unwrap();
        assert!(
            line.ends_with("INFO  accepted id=7 who=\"a \\\"b\\\"\\nc\"\n"),
            "{line}"
        );
    }

    #[test]
    fn the_journal_is_given_nothing_that_a_terminal_obeys() {
        #[derive(Default)]
        struct Given(Arc<std::sync::Mutex<Vec<(String, String)>>>);
        impl<S: Subscriber> Layer<S> for Given {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                struct Raw<'a>(&'a mut Vec<(String, String)>);
                impl Visit for Raw<'_> {
                    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                        self.0.push((field.name().to_owned(), format!("{value:?}")));
                    }
                    fn record_str(&mut self, field: &Field, value: &str) {
                        self.0.push((field.name().to_owned(), value.to_owned()));
                    }
                }
                event.record(&mut Raw(&mut self.0.lock().unwrap()));
            }
        }
        let given = Given::default();
        let seen = given.0.clone();
        let subscriber = tracing_subscriber::registry().with(Escaped(given));
        let long = "y".repeat(100_000);
        tracing::subscriber::with_default(subscriber, || {
            let said = "x\u{1b}[2J\u{202e}\0\r\nMESSAGE=forged";
            tracing::info!(id = 7, who = said, why = %said, none = tracing::field::Empty, long, "said {said}");
        });
        let mut seen = seen.lock().unwrap();
        let tame = "x\\u{1b}[2J\\u{202e}\\u{0}\\r\\nMESSAGE=forged";
        let place = seen.iter().position(|(name, _)| name == "long").unwrap();
        let (_, cut) = seen.remove(place);
        assert!(
            (100..=ANY_TEXT).contains(&cut.len()),
            "{} octets",
            cut.len()
        );
        let expected = [
            ("id", "7"),
            ("who", tame),
            ("why", tame),
            ("message", &format!("said {tame}")),
        ];
        let mut expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        expected.sort();
        seen.sort();
        assert_eq!(*seen, expected);
    }

    #[test]
    fn every_line_is_written_in_order_until_the_end() {
        let (sender, receiver) = sync_channel(10_000);
        let mut expected = String::new();
        for n in 0..5000 {
            let line = format!("line {n}\n");
            expected.push_str(&line);
            sender.send(Line::Text(line.into_bytes())).unwrap();
        }
        let ending = std::thread::spawn(move || {
            // While it looks for more, and while it waits for more.
            for (pause, line) in [(5, "late\n"), (30, "later\n")] {
                std::thread::sleep(Duration::from_millis(pause));
                sender.send(Line::Text(line.into())).unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
            sender.send(Line::End).unwrap();
            sender
        });
        let mut out = Vec::new();
        write_lines(&receiver, &AtomicU64::new(0), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected + "late\nlater\n");
        drop(ending.join().unwrap());
    }

    #[test]
    fn full_channel_drops_and_counts() {
        let (sender, receiver) = sync_channel(1);
        let lines = Lines {
            sender,
            dropped: Arc::default(),
        };
        for _ in 0..3 {
            lines.make_writer().write_all(b"x\n").unwrap();
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 2);
        drop(receiver);
    }
}
