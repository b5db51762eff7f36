//! A second server that follows the first one, and what an administrator does to them: promotes, demotes, sets, lets others log in.

use std::{fs, os::unix::fs::chown};

use super::{PASSWORD, Postgres, succeeded};

impl Postgres {
    /// A server that follows this one, under a name by which that can wait for it.
    pub fn standby(&self, name: &str) -> Self {
        let mut this = Self::prepare(|dir| {
            for file in ["ca.pem", "cert.pem", "key.pem"] {
                fs::copy(self.dir.join(file), dir.join(file)).unwrap();
            }
        });
        let copied = this
            .program("pg_basebackup")
            .env("PGPASSWORD", PASSWORD)
            .arg("-d")
            .arg(self.conninfo(name))
            .args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-D"])
            .arg(this.dir.join("data"))
            .output()
            .unwrap();
        succeeded(&copied);
        this.configure("");
        this.launch();
        this
    }

    fn conninfo(&self, name: &str) -> String {
        let port = self.port;
        format!(
            "host=127.0.0.1 port={port} user=postgres password='{PASSWORD}' application_name={name}"
        )
    }

    /// It takes writes from now on.
    pub fn promote(&self) {
        let mut promote = self.program("pg_ctl");
        promote
            .args(["promote", "-w", "-D"])
            .arg(self.dir.join("data"));
        succeeded(&promote.output().unwrap());
    }

    /// It was stopped, and goes on as one that follows the other.
    pub fn follow(&mut self, other: &Self, name: &str) {
        let data = self.dir.join("data");
        let signal = data.join("standby.signal");
        fs::write(&signal, "").unwrap();
        if let Some((uid, gid)) = self.user {
            chown(&signal, Some(uid), Some(gid)).unwrap();
        }
        let file = data.join("postgresql.conf");
        let conninfo = other.conninfo(name).replace('\'', "''");
        let own = format!("primary_conninfo = '{conninfo}'\nrecovery_target_timeline = 'latest'\n");
        fs::write(&file, fs::read_to_string(&file).unwrap() + &own).unwrap();
        self.launch();
    }

    /// A setting of the server, read again; waits until it is so.
    pub fn set(&self, name: &str, value: &str) {
        self.sql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.reload();
        super::super::time::wait("the setting", || {
            (self.sql("postgres", &format!("SHOW {name}")) == value).then_some(())
        });
    }

    pub fn reload(&self) {
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// Ends every connection of the gateways; how many there were.
    pub fn end_connections(&self) -> String {
        self.sql(
            "postgres",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'postern'",
        )
    }

    /// Who gets in how: before what is said already. `ident`: whom of the system's users it takes for whom.
    pub fn lets_in(&self, hba: &str, ident: &str) {
        let data = self.dir.join("data");
        for (file, lines) in [("pg_hba.conf", hba), ("pg_ident.conf", ident)] {
            let file = data.join(file);
            let before = fs::read_to_string(&file).unwrap();
            fs::write(&file, format!("{lines}\n{before}")).unwrap();
        }
        self.reload();
    }

    /// A folder in which the server may write.
    pub fn folder(&self, name: &str, with: impl FnOnce(&std::path::Path)) -> std::path::PathBuf {
        let folder = self.dir.join(name);
        fs::create_dir(&folder).unwrap();
        with(&folder);
        if let Some((uid, gid)) = self.user {
            chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        folder
    }
}
