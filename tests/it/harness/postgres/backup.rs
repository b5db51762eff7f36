//! Backups: a dump of a schema, and the files of a server that is stopped.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use super::{PASSWORD, Postgres, succeeded};

impl Postgres {
    fn client(&self, name: &str, database: &str) -> Command {
        let mut client = self.program(name);
        client
            .env("PGPASSWORD", PASSWORD)
            .args(["-h", "127.0.0.1", "-U", "postgres", "-d", database, "-p"])
            .arg(self.port.to_string());
        client
    }

    /// All of a schema.
    pub fn dump(&self, database: &str, schema: &str) -> String {
        let mut dump = self.client("pg_dump", database);
        let output = dump.args(["-n", schema]).output().unwrap();
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    }

    /// In the place of what is there, in one transaction.
    pub fn restore(&self, database: &str, schema: &str, dump: &str) {
        let mut psql = self.client("psql", database);
        psql.args(["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut psql = psql.spawn().unwrap();
        let mut input = psql.stdin.take().unwrap();
        write!(
            input,
            "SET client_min_messages = warning; DROP SCHEMA {schema} CASCADE;\n{dump}"
        )
        .unwrap();
        drop(input);
        succeeded(&psql.wait_with_output().unwrap());
    }

    /// Keeps its files as they are now; it is stopped.
    pub fn keep(&self) {
        let (data, kept) = (self.dir.join("data"), self.dir.join("kept"));
        let copied = Command::new("cp").arg("-a").args([data, kept]).output();
        succeeded(&copied.unwrap());
    }

    /// Has those again; it is stopped.
    pub fn go_back(&self) {
        let (data, kept) = (self.dir.join("data"), self.dir.join("kept"));
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::rename(kept, data).unwrap();
    }
}
