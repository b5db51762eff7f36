//! What came back of a request, and what its header says beside the answer: the endpoint's clock, and how long it wants to be left alone.
//!
//! It sends nothing. It knows no endpoint, so no meaning of a status.

use std::time::{Duration, SystemTime};

use reqwest::{
    StatusCode,
    header::{self, HeaderMap},
};

/// Retry-After is taken between these.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header.
    pub headers: HeaderMap,
    /// The body, at most 1 MiB of it.
    pub body: Vec<u8>,
    /// The body is all there: it did not break off, was not too late and not too long.
    pub whole: bool,
}

impl Answer {
    /// How far this machine's clock is from that of the answer's Date (RFC 9110 §6.6.1), in words; `None`: near enough.
    pub fn clock(&self, now: SystemTime) -> Option<String> {
        let there = date(self.headers.get(header::DATE)?.to_str().ok()?)?;
        let (off, way) = match now.duration_since(there) {
            Ok(off) => (off, "ahead of"),
            Err(error) => (error.duration(), "behind"),
        };
        let minutes = off.as_secs() / 60;
        (minutes >= 2).then(|| {
            format!("this machine's clock is {minutes} minutes {way} the endpoint's; set it right")
        })
    }

    /// Retry-After in seconds or as a date (RFC 9110 §10.2.3), clamped.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
        wait(text.trim(), SystemTime::now())
    }
}

/// A date of HTTP (RFC 9110 §5.6.7), in the one form that is written today.
fn date(text: &str) -> Option<SystemTime> {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let at = time::PrimitiveDateTime::parse(text.trim(), format).ok()?;
    Some(SystemTime::from(at.assume_utc()))
}

fn wait(text: &str, now: SystemTime) -> Option<Duration> {
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number can have are a long time too.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        date(text)?.duration_since(now).unwrap_or_default()
    };
    Some(wait.clamp(WAIT.0, WAIT.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        let at = date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (seconds, expected) in [
            (0_i64, None),
            (119, None),
            (-119, None),
            (
                600,
                Some("this machine's clock is 10 minutes ahead of the endpoint's; set it right"),
            ),
            (
                -7_200,
                Some("this machine's clock is 120 minutes behind the endpoint's; set it right"),
            ),
        ] {
            let off = Duration::from_secs(seconds.unsigned_abs());
            let now = if seconds < 0 { at - off } else { at + off };
            let mut headers = HeaderMap::new();
            headers.insert(
                header::DATE,
                "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap(),
            );
            let answer = Answer {
                status: StatusCode::OK,
                headers,
                body: Vec::new(),
                whole: true,
            };
            assert_eq!(answer.clock(now).as_deref(), expected, "{seconds}");
        }
        assert_eq!(date("yesterday"), None);
    }

    #[test]
    fn wishes_to_wait() {
        let now = date("Wed, 21 Oct 2015 07:27:01 GMT").unwrap();
        for (text, seconds) in [
            ("0", Some(1)),
            ("30", Some(30)),
            ("99999999999999999999999", Some(3600)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(59)),
            ("Tue, 21 Oct 2014 07:28:00 GMT", Some(1)),
            ("Fri, 21 Oct 2095 07:28:00 GMT", Some(3600)),
            ("-5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
