//! What stands behind the question mark, or in a form: known keys alone.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use axum::{
    body::to_bytes,
    extract::Request,
    http::{StatusCode, header},
};
use http_body_util::LengthLimitError;

use super::problem::ApiError;
use crate::mail::{text::shown_to, time};

/// The largest body.
pub(super) const BODY: usize = 64 << 10;

/// A body comes within this.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keys and values as they came.
#[derive(Debug, Clone, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Those of a query.
    ///
    /// # Errors
    /// One that is not known.
    pub(super) fn of(query: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let all = Self::read(query.unwrap_or_default());
        match all.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(ApiError::unknown_key(key)),
            None => Ok(all),
        }
    }

    /// Whatever they are.
    pub(super) fn read(text: &str) -> Self {
        let pairs = form_urlencoded::parse(text.as_bytes());
        Self(
            pairs
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// These.
    pub(super) fn given(pairs: impl Iterator<Item = (String, String)>) -> Self {
        Self(pairs.collect())
    }

    /// Of a form that a page has sent.
    ///
    /// # Errors
    /// It is too large, or no form.
    pub(super) async fn form(request: Request) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.is_empty() && !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "a page takes a form",
            ));
        }
        let body = read(request).await?;
        Ok(Self::read(&String::from_utf8_lossy(&body)))
    }

    /// The first of that key; an empty one is none.
    pub(super) fn get<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        let mut all = self.all(key);
        all.next()
    }

    /// All of that key that are not empty.
    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let of = self
            .0
            .iter()
            .filter(move |(known, value)| known == key && !value.is_empty());
        of.map(|(_, value)| value.as_str())
    }

    /// Read as what it should be.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn parsed<T: FromStr>(
        &self,
        key: &str,
        wanted: &str,
    ) -> Result<Option<T>, ApiError> {
        let read = |text: &str| {
            text.parse().map_err(|_| {
                ApiError::bad(format!(
                    "`{key}` takes {wanted}, not {:?}",
                    shown_to(text, 100)
                ))
            })
        };
        self.get(key).map(read).transpose()
    }

    /// A time as RFC 3339 writes it, or a day.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn time(&self, key: &str) -> Result<Option<SystemTime>, ApiError> {
        let read = |text: &str| {
            let day = || time::parsed(&format!("{text}T00:00:00Z"));
            time::parsed(text).or_else(day).ok_or_else(|| {
                ApiError::bad(format!(
                    "`{key}` takes a time such as 2026-12-31T08:00:00Z, not {:?}",
                    shown_to(text, 100)
                ))
            })
        };
        self.get(key).map(read).transpose()
    }

    /// How many are asked for.
    ///
    /// # Errors
    /// Too many, or none.
    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        match self.parsed("limit", "a number from 1 to 500")? {
            None => Ok(50),
            Some(limit @ 1..=500) => Ok(limit),
            Some(_) => Err(ApiError::bad("`limit` takes a number from 1 to 500")),
        }
    }
}

/// A length of time, such as `15m`.
///
/// # Errors
/// It is none.
pub(super) fn length(key: &str, text: &str) -> Result<Duration, ApiError> {
    let read = || {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at_checked(digits)?;
        let of_one = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        let seconds = number.parse::<u64>().ok()?.checked_mul(of_one)?;
        Some(Duration::from_secs(seconds))
    };
    read().ok_or_else(|| {
        ApiError::bad(format!(
            "`{key}` takes a length of time such as 90s, 15m or 2h, not {:?}",
            shown_to(text, 60)
        ))
    })
}

/// The body, if it is not too large.
pub(super) async fn read(request: Request) -> Result<axum::body::Bytes, ApiError> {
    let body = to_bytes(request.into_body(), BODY);
    match tokio::time::timeout(PATIENCE, body).await {
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come within 10 s",
        )),
        Ok(body) => body.map_err(|error| {
            use std::error::Error as _;
            if error
                .source()
                .is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
            {
                let detail = format!("a body has at most {BODY} octets");
                return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail);
            }
            ApiError::bad("the body cannot be read to its end")
        }),
    }
}

/// A body of JSON.
///
/// # Errors
/// It is no JSON, or not the one that is wanted, or has a key that is not known.
pub(super) async fn json<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let body = read(request).await?;
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let is_json = essence.eq_ignore_ascii_case("application/json");
    if !(is_json || essence.is_empty() && body.is_empty()) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is to be application/json",
        ));
    }
    let body = if body.is_empty() {
        b"{}".as_slice()
    } else {
        &body
    };
    serde_json::from_slice(body).map_err(|error| {
        let said = error.to_string();
        match said
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.split_once('`'))
        {
            Some((key, _)) => ApiError::unknown_key(key),
            None => ApiError::bad(format!("the body cannot be read: {}", shown_to(&said, 300))),
        }
    })
}
