//! PgBouncer in front of a server, as an instance of its own on loopback, without a login of its own.

use std::{
    fs,
    net::TcpStream,
    os::unix::{fs::chown, process::CommandExt as _},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{
    super::{
        peers::{free_port, need},
        time::wait,
    },
    PASSWORD, Postgres,
};

/// To drop it ends it.
pub struct Pooler {
    pub port: u16,
    child: Child,
    _dir: TempDir,
}

impl Pooler {
    /// `mode`: what a client has for itself, a `session` or a `transaction`.
    pub fn start(server: &Postgres, mode: &str) -> Self {
        need("pgbouncer");
        let dir = tempfile::Builder::new()
            .prefix("postern-pooler")
            .tempdir_in("/tmp")
            .unwrap();
        let (port, to) = (free_port(), server.port);
        let users = dir.path().join("users");
        fs::write(&users, "\"postern\" \"\"\n").unwrap();
        let file = dir.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\npostern = host=127.0.0.1 port={to} user=postern password='{PASSWORD}'\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n\
             auth_file = {}\npool_mode = {mode}\ndefault_pool_size = 20\n",
            users.display()
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new("pgbouncer");
        command
            .arg("-q")
            .arg(&file)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((uid, gid)) = server.user {
            for path in [dir.path(), &users, &file] {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
            command.uid(uid).gid(gid);
        }
        let child = command.spawn().unwrap();
        wait("PgBouncer", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self {
            port,
            child,
            _dir: dir,
        }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
