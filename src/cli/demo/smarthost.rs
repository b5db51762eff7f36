//! The stand-in smarthost of the demo, on `mailin-embedded`: an implementation of SMTP that is not ours.
//!
//! It wants a password, which it accepts only after STARTTLS, and it answers 451 to the first mail for `later@…`. It keeps mail as
//! files and relays nothing.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use mailin_embedded::{AuthMechanism, Handler, Response, Server, SslConfig, response};

use crate::{cli::exit::CommandError, secret::Secret};

/// Larger mail is not part of the demo.
const MOST: usize = 40 * 1024 * 1024;

/// The mail that is put off once goes to this local part.
pub(super) const LATER: &str = "later@";

#[derive(Debug, Clone)]
struct Smarthost {
    mails: PathBuf,
    password: Arc<Secret>,
    taken: Arc<AtomicU32>,
    put_off: Arc<AtomicBool>,
    logged_in: bool,
    text: Vec<u8>,
}

/// Starts one on a free port; it ends with the program. Its mail goes to `mails` as `1.eml`, `2.eml`, ….
pub(super) fn start(
    mails: &Path,
    certificate: &Path,
    key: &Path,
    password: &Secret,
) -> Result<SocketAddr, CommandError> {
    let fault = |error: &dyn std::fmt::Display| {
        CommandError::new(
            super::Exit::System,
            format_args!("the stand-in smarthost does not start: {error}"),
        )
    };
    fs::create_dir_all(mails).map_err(|e| fault(&e))?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|e| fault(&e))?;
    let address = listener.local_addr().map_err(|e| fault(&e))?;
    let mut server = Server::new(Smarthost {
        mails: mails.to_owned(),
        password: Arc::new(password.clone()),
        taken: Arc::default(),
        put_off: Arc::default(),
        logged_in: false,
        text: Vec::new(),
    });
    server
        .with_name("smarthost.example")
        .with_num_threads(16)
        .with_auth(AuthMechanism::Plain)
        .with_tcp_listener(listener)
        .with_ssl(SslConfig::SelfSigned {
            cert_path: certificate.display().to_string(),
            key_path: key.display().to_string(),
        })
        .map_err(|e| fault(&e))?;
    std::thread::spawn(move || {
        // It ends with the program; only listening could fail, and that is done.
        let _ = server.serve();
    });
    Ok(address)
}

impl Handler for Smarthost {
    fn mail(&mut self, _ip: IpAddr, _domain: &str, _from: &str) -> Response {
        if self.logged_in {
            response::OK
        } else {
            response::AUTHENTICATION_REQUIRED
        }
    }

    fn rcpt(&mut self, to: &str) -> Response {
        if to.contains(LATER) && !self.put_off.swap(true, Ordering::Relaxed) {
            return Response::custom(451, "4.7.1 not now, please try again later".to_owned());
        }
        response::OK
    }

    fn data_start(&mut self, _domain: &str, _from: &str, _8bit: bool, _to: &[String]) -> Response {
        self.text.clear();
        response::START_DATA
    }

    fn data(&mut self, octets: &[u8]) -> io::Result<()> {
        if self.text.len() + octets.len() > MOST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(octets);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let number = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        let path = self.mails.join(format!("{number}.eml"));
        match fs::write(path, &self.text) {
            Ok(()) => Response::custom(250, format!("2.0.0 taken as mail number {number}")),
            Err(_) => response::INTERNAL_ERROR,
        }
    }

    fn auth_plain(&mut self, _as_whom: &str, name: &str, password: &str) -> Response {
        self.logged_in = name == "relay" && password == self.password.reveal();
        if self.logged_in {
            response::AUTH_OK
        } else {
            response::INVALID_CREDENTIALS
        }
    }
}
