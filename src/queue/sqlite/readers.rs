//! Connections that only read, a few of them kept open. None holds a transaction across an await.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;

use super::{op::store_error, schema};
use crate::queue::store::StoreError;

/// Connections that are kept open.
const KEPT: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Readers {
    database: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(database: PathBuf) -> Self {
        Self {
            database,
            idle: Arc::default(),
        }
    }

    /// What the work finds, where it has an error of its own to tell.
    pub(super) async fn read<T, E, F>(&self, work: F) -> Result<Result<T, E>, StoreError>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let (idle, database) = (Arc::clone(&self.idle), self.database.clone());
        let result = tokio::task::spawn_blocking(move || {
            let pooled = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let conn = match pooled {
                Some(conn) => conn,
                None => schema::reader(&database)?,
            };
            let result = work(&conn);
            // A connection that saw an error is not used again.
            if result.is_ok() {
                let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < KEPT {
                    idle.push(conn);
                }
            }
            Ok(result)
        });
        result
            .await
            .map_err(|e| StoreError::Unavailable(e.to_string()))?
    }

    /// What the work finds.
    pub(super) async fn query<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.read(work).await?.map_err(|e| store_error(&e))
    }
}
