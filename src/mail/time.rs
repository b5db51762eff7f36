//! A moment in the forms that people and programs read: a message's date, a log line's, a day. Always UTC.
//!
//! It asks no clock: the moment is the caller's.

use std::time::{Duration, SystemTime};

use time::{
    OffsetDateTime,
    format_description::well_known::{Rfc2822, Rfc3339},
    macros::format_description,
};

/// Microseconds since 1970 (UTC), as the databases keep times; 0 for what was before.
pub fn micros(at: SystemTime) -> i64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// Back from [`micros`].
pub fn from_micros(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// So many seconds after 1970 began (before it: 1970), as certificates and tokens count.
pub fn at(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// `None` of a year that has more than four digits.
fn utc(at: SystemTime) -> Option<OffsetDateTime> {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    OffsetDateTime::UNIX_EPOCH.checked_add(time::Duration::try_from(since).ok()?)
}

/// A date and time by RFC 5322 §3.3. Times that have no such form become the epoch.
pub fn rfc5322(at: SystemTime) -> String {
    utc(at)
        .and_then(|at| at.format(&Rfc2822).ok())
        .unwrap_or_else(|| "Thu, 01 Jan 1970 00:00:00 +0000".to_owned())
}

/// RFC 3339 to the second, for programs: `2026-11-23T23:10:04Z`.
pub fn rfc3339(at: SystemTime) -> String {
    utc(at)
        .and_then(|at| at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok())
        .unwrap_or_else(|| "an unknown time".to_owned())
}

/// For people: `2026-11-23 23:10:04Z`.
pub fn human(at: SystemTime) -> String {
    let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    utc(at)
        .and_then(|at| at.format(form).ok())
        .unwrap_or_else(|| "an unknown time".to_owned())
}

/// A day: `2026-11-23`.
pub fn day(at: SystemTime) -> String {
    utc(at).map_or_else(|| "an unknown day".to_owned(), |at| at.date().to_string())
}

/// RFC 3339 to the millisecond, as the log writes it. By hand: it stands in every line.
pub fn logged(at: SystemTime) -> String {
    let at = utc(at).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let parts = [
        (at.year().unsigned_abs(), 4, '-'),
        (u32::from(u8::from(at.month())), 2, '-'),
        (u32::from(at.day()), 2, 'T'),
        (u32::from(at.hour()), 2, ':'),
        (u32::from(at.minute()), 2, ':'),
        (u32::from(at.second()), 2, '.'),
        (u32::from(at.millisecond()), 3, 'Z'),
    ];
    let mut text = String::with_capacity(24);
    for (number, digits, mark) in parts {
        for digit in (0..digits).rev() {
            let digit = number / 10_u32.pow(digit) % 10;
            text.push(char::from_digit(digit, 10).unwrap_or('0'));
        }
        text.push(mark);
    }
    text
}

/// What [`logged`] and [`rfc3339`] write, read again.
pub fn parsed(text: &str) -> Option<SystemTime> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(at.into())
}

/// `45s`, `12m`, `3h05m`, `2d04h`.
pub fn span(length: Duration) -> String {
    let s = length.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m", s / 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// How long ago; zero if it lies ahead.
pub fn since(at: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(at).unwrap_or_default()
}

/// `in 4m` or `now`.
pub fn ahead(at: SystemTime, now: SystemTime) -> String {
    match at.duration_since(now) {
        Ok(wait) if wait.as_secs() > 0 => format!("in {}", span(wait)),
        _ => "now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_moment_in_every_form() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_475_404_123);
        assert_eq!(rfc5322(then), "Mon, 23 Nov 2026 23:10:04 +0000");
        assert_eq!(rfc3339(then), "2026-11-23T23:10:04Z");
        assert_eq!(human(then), "2026-11-23 23:10:04Z");
        assert_eq!(day(then), "2026-11-23");
        assert_eq!(day(at(-5)), "1970-01-01");
    }

    #[test]
    fn what_no_calendar_holds() {
        let far = at(1 << 50);
        assert_eq!(rfc5322(far), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(rfc3339(far), "an unknown time");
        assert_eq!(human(far), "an unknown time");
        assert_eq!(day(far), "an unknown day");
        assert_eq!(logged(far), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(i64::MAX), at(i64::MAX));
    }

    #[test]
    fn a_moment_in_the_log() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_798_761_599_999_900, "2026-12-31T23:59:59.999Z"),
            (951_782_400_050_000, "2000-02-29T00:00:00.050Z"),
        ] {
            let at = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            assert_eq!(logged(at), expected);
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(micros / 1000);
            assert_eq!(parsed(expected), Some(at));
        }
    }

    #[test]
    fn lengths_of_time() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3599, "59m"),
            (3900, "1h05m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }
}
