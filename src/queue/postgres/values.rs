//! Values as the columns take them, and rows as they come: what is not as it should be is an error, and ends nothing else.

use std::borrow::Cow;

use tokio_postgres::{Row, types::FromSql};

use super::fault::{DbFault, words};
use crate::{mail::message::MessageId, queue::store::StoreError};

/// A column of a row.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, DbFault> {
    row.try_get(at)
        .map_err(|error| broken(&format!("a column cannot be read: {}", words(&error))))
}

/// The id in a column.
pub(super) fn id(row: &Row, at: usize) -> Result<MessageId, DbFault> {
    let octets: &[u8] = get(row, at)?;
    let octets = <[u8; 16]>::try_from(octets);
    let octets = octets.map_err(|_| broken("an id has not 16 octets"))?;
    Ok(MessageId::from_bytes(octets))
}

pub(super) fn broken(why: &str) -> DbFault {
    DbFault::Store(StoreError::Unavailable(why.to_owned()))
}

/// Text as a column can have it: PostgreSQL takes no octet 0.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The octets of ids.
pub(super) fn octets<'a>(ids: impl IntoIterator<Item = &'a MessageId>) -> Vec<Vec<u8>> {
    ids.into_iter().map(|id| id.to_bytes().to_vec()).collect()
}

/// A number as its column has it.
pub(super) fn small(number: i64) -> i16 {
    i16::try_from(number).unwrap_or(i16::MAX)
}

/// The same.
pub(super) fn int(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
