//! Who has a port: what an administrator asks first when a bind fails.
//!
//! It reads `/proc` and is only a best effort: it never fails, it just knows nothing.

use std::{fs, net::SocketAddr, path::Path};

/// `pid 812 (master)`, or nothing when it cannot be known (another user's process, say).
///
/// A socket can be open in several processes: in a server and its workers, in systemd and what it starts, in a child between
/// its fork and its exec. This process is named when it is one of them, otherwise the one that has run longest: the server,
/// not the worker.
pub(crate) fn of_port(address: SocketAddr) -> Option<String> {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, address.port()))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let names: Vec<String> = inodes.iter().map(|i| format!("socket:[{i}]")).collect();
    let holds = |process: &Path| {
        let Ok(mut open) = fs::read_dir(process.join("fd")) else {
            return false;
        };
        open.any(|file| {
            file.and_then(|file| fs::read_link(file.path()))
                .is_ok_and(|to| names.iter().any(|name| to.as_os_str() == name.as_str()))
        })
    };
    let (_, pid, process) = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let process = entry.path();
            holds(&process).then(|| {
                let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
                // Ours is before all others; one that is gone already is after them.
                let rank = if pid == std::process::id() {
                    0
                } else {
                    started(&stat).unwrap_or(u64::MAX)
                };
                (rank, pid, process)
            })
        })
        .min()?;
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    Some(format!("pid {pid} ({})", name.trim()))
}

/// When a process was started, in clock ticks since boot, from its `stat` of `proc(5)`: the 22nd field. The second, its name
/// in parentheses, may itself hold spaces and parentheses.
fn started(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Inodes of the sockets that listen on a port, from a table of `proc(5)`.
fn listening(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (local, _, state) = (words.next()?, words.next()?, words.next()?);
            let (_, hex) = local.rsplit_once(':')?;
            let fits = state == "0A" && u16::from_str_radix(hex, 16).ok()? == port;
            fits.then(|| words.nth(5)?.parse().ok()).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_ourselves_though_a_child_holds_it_too() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = format!("pid {} (", std::process::id());
        assert!(of(&socket).starts_with(&ours), "{}", of(&socket));
        let mut child = holder(&socket);
        assert!(of(&socket).starts_with(&ours), "{}", of(&socket));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn of_several_the_one_that_runs_longest() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut first = holder(&socket);
        // Ticks are of 10 ms.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut second = holder(&socket);
        drop(socket);
        let expected = format!("pid {} (cat)", first.id());
        // A child that another test starts at this moment holds it for the time between fork and exec, as does `second` itself.
        let named = (0..50).find_map(|_| {
            let owner = of_port(address).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            (owner == expected).then_some(owner)
        });
        for child in [&mut first, &mut second] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(named.is_some());
    }

    #[test]
    fn a_name_cannot_shift_the_fields() {
        let rest = "1 7 7 0 -1 4194560 96 0 0 0 1 2 0 0 20 0 1 0 271828 2932736 231";
        assert_eq!(started(&format!("7 (a) b ( c) S {rest}")), Some(271_828));
        assert_eq!(started("7 (a) S 1"), None);
        assert_eq!(started(""), None);
    }

    fn of(socket: &std::net::TcpListener) -> String {
        of_port(socket.local_addr().unwrap()).unwrap()
    }

    /// A process that has the socket as its standard output, and waits.
    fn holder(socket: &std::net::TcpListener) -> std::process::Child {
        use std::{os::fd::OwnedFd, process::Stdio};
        std::process::Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())))
            .spawn()
            .unwrap()
    }
}
