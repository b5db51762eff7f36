//! Who has a port: what an administrator asks first when a bind fails.
//!
//! Apart because it reads `/proc` and is only a best effort; it never fails, it just knows nothing.

use std::{fs, net::SocketAddr};

/// `pid 812 (master)`, or nothing when it cannot be told (another user's process, say).
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
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(open) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let has = open.flatten().any(|file| {
            fs::read_link(file.path())
                .is_ok_and(|to| names.iter().any(|name| to.as_os_str() == name.as_str()))
        });
        if has {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("pid {pid} ({})", name.trim()));
        }
    }
    None
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
    fn finds_ourselves() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let owner = of_port(socket.local_addr().unwrap()).unwrap();
        assert!(
            owner.starts_with(&format!("pid {} (", std::process::id())),
            "{owner}"
        );
    }
}
