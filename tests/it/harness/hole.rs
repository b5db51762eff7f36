//! A way to a server on which everything stops for a while: no octet, and no end of a connection, comes through.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How soon it is seen that the way is open or closed.
const LOOK: Duration = Duration::from_millis(20);

/// The way. What was opened by it lives as long as both ends.
pub struct Hole {
    pub address: SocketAddr,
    is_dark: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
}

impl Hole {
    /// To this port of the machine.
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (is_dark, is_over) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        std::thread::spawn({
            let (is_dark, is_over) = (Arc::clone(&is_dark), Arc::clone(&is_over));
            move || {
                for client in listener.incoming() {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let (Ok(client), is_dark) = (client, Arc::clone(&is_dark)) else {
                        continue;
                    };
                    std::thread::spawn(move || connect(client, port, &is_dark));
                }
            }
        });
        Self {
            address,
            is_dark,
            is_over,
        }
    }

    /// Nothing comes through from now on, or everything again.
    pub fn set(&self, is_dark: bool) {
        self.is_dark.store(is_dark, Ordering::Relaxed);
    }
}

impl Drop for Hole {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.set(false);
        let _ = TcpStream::connect(self.address);
    }
}

fn connect(client: TcpStream, port: u16, is_dark: &Arc<AtomicBool>) {
    waits(is_dark);
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
        return;
    };
    let (back, forth) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let other = Arc::clone(is_dark);
    std::thread::spawn(move || copy(client, forth, &other));
    copy(server, back, is_dark);
}

fn waits(is_dark: &AtomicBool) {
    while is_dark.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, is_dark: &AtomicBool) {
    from.set_read_timeout(Some(LOOK)).unwrap();
    let mut octets = [0; 16 * 1024];
    loop {
        waits(is_dark);
        let read = match from.read(&mut octets) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                continue;
            }
            Err(_) => break,
        };
        waits(is_dark);
        if to
            .write_all(octets.get(..read).unwrap_or_default())
            .is_err()
        {
            break;
        }
    }
    waits(is_dark);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
