//! A line of some length: octets arrive in their order, and later.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Listens on loopback; whatever comes goes on to `to`, each way after half of `round_trip`. It ends with the process.
pub fn delay(to: SocketAddr, round_trip: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            thread::spawn(move || {
                // What a handshake costs.
                thread::sleep(round_trip);
                let Ok(far) = TcpStream::connect(to) else {
                    return;
                };
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let ends = (near.try_clone().unwrap(), far.try_clone().unwrap());
                thread::spawn(move || carry(ends.0, ends.1, round_trip / 2));
                carry(far, near, round_trip / 2);
            });
        }
    });
    address
}

fn carry(mut from: TcpStream, mut to: TcpStream, after: Duration) {
    let (send, receive) = mpsc::channel::<(Instant, Vec<u8>)>();
    let writer = thread::spawn(move || {
        for (due, octets) in receive {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&octets).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut block = vec![0; 64 * 1024];
    while let Ok(octets) = from.read(&mut block) {
        let sent = send.send((Instant::now() + after, block[..octets].to_vec()));
        if octets == 0 || sent.is_err() {
            break;
        }
    }
    drop(send);
    let _ = writer.join();
}
