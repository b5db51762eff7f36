//! Who connects, and what was refused: gathered as sessions end, for `window.db` and whoever looks.
//!
//! One short lock at the end of a session, and now and then in a long one. The number of devices is bounded, and so is what is kept of
//! each; the one unseen for longest goes. It writes nothing itself.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use ipnet::{IpNet, Ipv6Net};

use super::refused::{RefusedRing, TEXT};
use crate::{
    mail::{address::Address, reply::Reply, text::shown_to, time::rfc3339},
    smtp::server::session::Rejection,
    window::devices::{DeviceRefusal, DeviceRow, DeviceSession},
};

/// Devices that are remembered.
pub const DEVICES: usize = 10_000;
/// Addresses of a /64 that are devices of their own.
const OF_A_NETWORK: usize = 64;
/// Senders of a device.
const SENDERS: usize = 5;
/// Kinds of refusals of a device, and of a session.
const REFUSALS: usize = 20;

/// What happened in a session since it was last told.
#[derive(Debug, Default)]
pub(super) struct Visit {
    accepted: u64,
    refused: u64,
    /// Nobody, or the senders of what was accepted, each once.
    senders: Vec<Option<Address>>,
    refusals: Vec<(&'static str, Reply, u64)>,
}

impl Visit {
    /// A message was accepted.
    pub(super) fn accepted(&mut self, sender: Option<&Address>) {
        self.accepted += 1;
        let is_known = |known: &Option<Address>| known.as_ref() == sender;
        if self.senders.len() < SENDERS && !self.senders.iter().any(is_known) {
            self.senders.push(sender.cloned());
        }
    }

    /// Something was refused.
    pub(super) fn refused(&mut self, stage: &'static str, reply: &Reply) {
        self.refused += 1;
        let is_same = |one: &(&'static str, Reply, u64)| one.0 == stage && one.1 == *reply;
        if let Some(known) = self.refusals.iter_mut().find(|one| is_same(one)) {
            known.2 += 1;
        } else if self.refusals.len() < REFUSALS {
            self.refusals.push((stage, reply.clone(), 1));
        }
    }

    /// Whether mail was accepted that is not told.
    pub(super) fn has_mail(&self) -> bool {
        self.accepted > 0
    }
}

/// Who it was.
#[derive(Debug, Default)]
pub(super) struct Visitor<'a> {
    pub(super) client: Option<&'a str>,
    pub(super) tls: Option<&'a str>,
    pub(super) helo: Option<&'a str>,
    pub(super) user: Option<&'a str>,
    pub(super) tolerances: Vec<&'static str>,
    pub(super) last_reply: Option<&'a Reply>,
    /// Beside the tolerances.
    pub(super) needs: Vec<&'static str>,
    /// It is served since it is learned who there is.
    pub(super) is_learned: bool,
}

/// One device, and whether its row is behind.
#[derive(Debug)]
struct KnownDevice {
    row: DeviceRow,
    seen: u64,
    is_changed: bool,
}

#[derive(Debug, Default)]
struct DeviceBook {
    devices: HashMap<IpNet, KnownDevice>,
    /// Each device once, by a time at which it was seen: the last, or one before it.
    order: BinaryHeap<Reverse<(u64, IpNet)>>,
    /// How many of each /64 are devices of their own.
    networks: HashMap<Ipv6Net, usize>,
    seen: u64,
    gone: Vec<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Devices {
    book: Mutex<DeviceBook>,
    /// What was refused.
    pub refused: RefusedRing,
}

/// Which devices.
#[derive(Debug, Clone, Default)]
pub struct DeviceFilter {
    /// In this `[[client]]`.
    pub client: Option<String>,
    /// Something was refused, or nothing.
    pub refused: Option<bool>,
    /// Behind this one: when it was seen last, and its address.
    pub behind: Option<(SystemTime, String)>,
}

impl DeviceFilter {
    fn takes(&self, row: &DeviceRow) -> bool {
        let client = self.client.as_deref();
        (client.is_none() || row.client.as_deref() == client)
            && self
                .refused
                .is_none_or(|refused| refused == (row.refused > 0))
    }
}

fn host(ip: IpAddr) -> IpNet {
    IpNet::from(ip.to_canonical())
}

/// `10.0.0.5`, `2001:db8::/64`.
fn named(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

fn read(address: &str) -> Option<IpNet> {
    let ip = address.parse::<IpAddr>().map(host);
    ip.or_else(|_| address.parse::<IpNet>()).ok()
}

fn unseen(key: IpNet, now: SystemTime) -> DeviceRow {
    DeviceRow {
        address: named(key),
        client: None,
        first_seen: now,
        last_seen: now,
        accepted: 0,
        refused: 0,
        senders: Vec::new(),
        last_session: None,
        refusals: Vec::new(),
        candidate: false,
        needs: Vec::new(),
        last_mail: None,
        old_tls: None,
        names: Vec::new(),
    }
}

fn network_of(net: IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V6(net) if net.prefix_len() == 128 => {
            Ipv6Net::new(net.addr(), 64).ok().map(|net| net.trunc())
        }
        IpNet::V6(_) | IpNet::V4(_) => None,
    }
}

impl DeviceBook {
    /// The device that an address is.
    fn key(&self, ip: IpAddr) -> IpNet {
        let host = host(ip);
        let Some(network) = network_of(host).filter(|_| !self.devices.contains_key(&host)) else {
            return host;
        };
        let whole = IpNet::V6(network);
        let is_many = self
            .networks
            .get(&network)
            .is_some_and(|n| *n >= OF_A_NETWORK);
        if is_many || self.devices.contains_key(&whole) {
            whole
        } else {
            host
        }
    }

    fn seen(&mut self, key: IpNet, now: SystemTime) -> &mut DeviceRow {
        self.seen += 1;
        if !self.devices.contains_key(&key) {
            self.add(key, unseen(key, now));
        }
        let seen = self.seen;
        let known = self.devices.entry(key).or_insert_with(|| KnownDevice {
            row: unseen(key, now),
            seen,
            is_changed: true,
        });
        (known.seen, known.is_changed) = (seen, true);
        known.row.last_seen = now;
        &mut known.row
    }

    fn add(&mut self, key: IpNet, row: DeviceRow) {
        while self.devices.len() >= DEVICES {
            if !self.forget_oldest() {
                break;
            }
        }
        if let Some(network) = network_of(key) {
            *self.networks.entry(network).or_default() += 1;
        }
        let seen = self.seen;
        self.order.push(Reverse((seen, key)));
        self.devices.insert(
            key,
            KnownDevice {
                row,
                seen,
                is_changed: false,
            },
        );
    }

    fn forget_oldest(&mut self) -> bool {
        while let Some(Reverse((seen, key))) = self.order.pop() {
            match self.devices.get(&key) {
                // Seen since: nothing that was not is behind it.
                Some(known) if known.seen != seen => self.order.push(Reverse((known.seen, key))),
                Some(known) => {
                    self.gone.push(known.row.address.clone());
                    self.devices.remove(&key);
                    if let Some(network) = network_of(key)
                        && let Some(count) = self.networks.get_mut(&network)
                    {
                        *count -= 1;
                        if *count == 0 {
                            self.networks.remove(&network);
                        }
                    }
                    return true;
                }
                None => {}
            }
        }
        false
    }
}

impl Devices {
    fn book(&self) -> MutexGuard<'_, DeviceBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened in a session; it has ended, or goes on.
    pub(super) fn visited(&self, peer: IpAddr, who: &Visitor<'_>, visit: &Visit, now: SystemTime) {
        let senders: Vec<String> = visit
            .senders
            .iter()
            .map(|sender| {
                sender
                    .as_ref()
                    .map_or_else(|| "<>".to_owned(), Address::to_string)
            })
            .collect();
        let said = |reply: &Reply| shown_to(&reply.to_string(), TEXT);
        let session = DeviceSession {
            at: rfc3339(now),
            tls: who.tls.map(|version| format!("TLSv{version}")),
            helo: who.helo.map(|helo| shown_to(helo, TEXT)),
            user: who.user.map(|user| shown_to(user, TEXT)),
            tolerances: who.tolerances.iter().map(ToString::to_string).collect(),
            last_reply: who.last_reply.map(said),
        };
        let refusals: Vec<DeviceRefusal> = visit
            .refusals
            .iter()
            .map(|(stage, reply, count)| DeviceRefusal {
                stage: (*stage).to_owned(),
                reply: said(reply),
                count: *count,
            })
            .collect();
        let mut book = self.book();
        let key = book.key(peer);
        let row = book.seen(key, now);
        row.client = who.client.map(str::to_owned);
        row.accepted += visit.accepted;
        row.refused += visit.refused;
        row.candidate |= who.is_learned && visit.accepted > 0;
        if visit.accepted > 0 {
            row.last_mail = Some(now);
        }
        row.spoke(who.tls, &session.at);
        if let Some(name) = &session.helo {
            row.add_name(name);
        }
        for sender in senders {
            if row.senders.len() < SENDERS && !row.senders.contains(&sender) {
                row.senders.push(sender);
            }
        }
        for need in who.tolerances.iter().chain(&who.needs) {
            if !row.needs.iter().any(|known| known == need) {
                row.needs.push((*need).to_owned());
            }
        }
        for refusal in refusals {
            add_refusal(&mut row.refusals, refusal);
        }
        row.last_session = Some(session);
    }

    /// It came, and was one too many.
    pub(super) fn turned_away(
        &self,
        (peer, client, listener): (IpAddr, Option<&str>, &str),
        rejection: &Rejection,
    ) {
        let now = SystemTime::now();
        self.refused.add((peer, client, listener), rejection, now);
        let mut visit = Visit::default();
        visit.refused(rejection.stage, &rejection.reply);
        let who = Visitor {
            client,
            last_reply: Some(&rejection.reply),
            ..Visitor::default()
        };
        self.visited(peer, &who, &visit, now);
    }

    /// What it seems to need beside tolerances.
    pub(super) fn needs(&self, peer: IpAddr, need: &str) -> bool {
        let book = self.book();
        let known = book.devices.get(&book.key(peer));
        known.is_some_and(|known| known.row.needs.iter().any(|one| one == need))
    }

    /// Those that a filter takes, the latest first, and whether there are more.
    pub fn list(&self, filter: &DeviceFilter, limit: usize) -> (Vec<DeviceRow>, bool) {
        let mut found: Vec<(Reverse<SystemTime>, IpNet, String)> = {
            let book = self.book();
            let taken = book
                .devices
                .iter()
                .filter(|(_, known)| filter.takes(&known.row));
            taken
                .map(|(key, known)| {
                    let row = &known.row;
                    (Reverse(row.last_seen), *key, row.address.clone())
                })
                .collect()
        };
        found.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
        if let Some((at, address)) = &filter.behind {
            found.retain(|one| (one.0, &one.2) > (Reverse(*at), address));
        }
        let more = found.len() > limit;
        found.truncate(limit);
        let book = self.book();
        let rows = found
            .iter()
            .filter_map(|(_, key, _)| book.devices.get(key).map(|known| known.row.clone()));
        (rows.collect(), more)
    }

    /// When the addresses that are `taken` last handed mail over that was accepted.
    pub fn last_mail(&self, taken: impl Fn(IpAddr) -> bool) -> Option<SystemTime> {
        let book = self.book();
        let of = book.devices.iter().filter(|(key, _)| taken(key.addr()));
        of.filter_map(|(_, known)| known.row.last_mail).max()
    }

    /// The one that an address is.
    pub fn one(&self, address: &str) -> Option<DeviceRow> {
        let net = read(address)?;
        let book = self.book();
        let key = if net.prefix_len() == net.max_prefix_len() {
            book.key(net.addr())
        } else {
            net
        };
        book.devices.get(&key).map(|known| known.row.clone())
    }

    /// Candidates: those in no `[[client]]` that have delivered while it was learned who there is.
    pub fn candidates(&self) -> Vec<String> {
        let book = self.book();
        let rows = book.devices.values().map(|known| &known.row);
        let mut found: Vec<String> = rows
            .filter(|row| row.candidate && row.client.is_none())
            .map(|row| row.address.clone())
            .collect();
        found.sort();
        found
    }

    /// As the last run left them, the latest first.
    pub fn recall(&self, rows: Vec<DeviceRow>) {
        let mut book = self.book();
        for row in rows.into_iter().rev() {
            let Some(key) = read(&row.address) else {
                continue;
            };
            if let Some(known) = book.devices.get_mut(&key) {
                // It has come before this was read.
                known.row.follow(row);
            } else {
                book.seen += 1;
                book.add(key, row);
            }
        }
    }

    /// How often a device was seen, and those that were seen since that number, at most so many, the latest first.
    pub fn news(&self, since: u64, most: usize) -> (u64, Vec<DeviceRow>) {
        let book = self.book();
        if book.seen <= since {
            return (book.seen, Vec::new());
        }
        let new = book.devices.values().filter(|known| known.seen > since);
        let mut new: Vec<&KnownDevice> = new.collect();
        new.sort_unstable_by_key(|known| Reverse(known.seen));
        let rows = new.iter().take(most).map(|known| known.row.clone());
        (book.seen, rows.collect())
    }

    /// Rows that have changed since the last call, and addresses that are gone.
    pub fn take_changes(&self) -> (Vec<DeviceRow>, Vec<String>) {
        let mut book = self.book();
        let gone = std::mem::take(&mut book.gone);
        let changed = book.devices.values_mut().filter(|known| known.is_changed);
        let rows = changed.map(|known| {
            known.is_changed = false;
            known.row.clone()
        });
        let rows = rows.collect();
        (rows, gone)
    }

    /// Those could not be written: again with the next ones.
    pub fn still_changed(&self, rows: &[DeviceRow], gone: Vec<String>) {
        let mut book = self.book();
        for row in rows {
            if let Some(known) = read(&row.address).and_then(|key| book.devices.get_mut(&key)) {
                known.is_changed = true;
            }
        }
        book.gone.extend(gone);
    }
}

impl DeviceRow {
    /// What an earlier run knew of it.
    fn follow(&mut self, before: Self) {
        self.first_seen = before.first_seen;
        self.accepted += before.accepted;
        self.refused += before.refused;
        self.candidate |= before.candidate;
        self.last_mail = self.last_mail.max(before.last_mail);
        for name in &before.names {
            self.add_name(name);
        }
        for sender in before.senders {
            if self.senders.len() < SENDERS && !self.senders.contains(&sender) {
                self.senders.push(sender);
            }
        }
        for need in before.needs {
            if !self.needs.contains(&need) {
                self.needs.push(need);
            }
        }
        let later = std::mem::replace(&mut self.refusals, before.refusals);
        for refusal in later {
            add_refusal(&mut self.refusals, refusal);
        }
    }
}

fn add_refusal(known: &mut Vec<DeviceRefusal>, mut new: DeviceRefusal) {
    let is_same = |one: &DeviceRefusal| one.stage == new.stage && one.reply == new.reply;
    if let Some(at) = known.iter().position(is_same) {
        new.count += known.remove(at).count;
    } else if known.len() >= REFUSALS {
        known.remove(0);
    }
    known.push(new);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::window::devices::NAMES;

    fn second(n: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(n)
    }

    fn visit(devices: &Devices, ip: &str, at: u64) {
        let ip = ip.parse().unwrap();
        devices.visited(ip, &Visitor::default(), &Visit::default(), second(at));
    }

    fn count(devices: &Devices) -> usize {
        devices.list(&DeviceFilter::default(), usize::MAX).0.len()
    }

    #[test]
    fn the_one_unseen_for_longest_goes() {
        let devices = Devices::default();
        let ip = |n: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string();
        for n in 0..10_000 {
            visit(&devices, &ip(n), 1);
        }
        // All but one are seen again.
        for n in (0..10_000).filter(|n| *n != 7_777) {
            visit(&devices, &ip(n), 2);
        }
        assert_eq!(count(&devices), DEVICES);
        devices.take_changes();
        visit(&devices, "192.0.2.1", 3);
        assert_eq!(count(&devices), DEVICES);
        assert!(devices.one(&ip(7_777)).is_none());
        let (changed, gone) = devices.take_changes();
        assert_eq!((changed.len(), gone), (1, vec![ip(7_777)]));
        // Then the one that was seen first of the others.
        visit(&devices, "192.0.2.2", 3);
        assert!(devices.one(&ip(0)).is_none() && devices.one(&ip(1)).is_some());
        for n in 0..30_000 {
            visit(&devices, &ip(100_000 + n), 4);
        }
        let book = devices.book();
        assert_eq!((book.devices.len(), book.order.len()), (DEVICES, DEVICES));
    }

    #[test]
    fn many_addresses_of_a_network_are_one_device() {
        let devices = Devices::default();
        for n in 0..1_000 {
            visit(&devices, &format!("2001:db8::{n:x}"), n);
        }
        visit(&devices, "2001:db8:0:1::1", 1);
        assert_eq!(count(&devices), OF_A_NETWORK + 2);
        let whole = devices.one("2001:db8::/64").unwrap();
        assert_eq!(whole.address, "2001:db8::/64");
        assert_eq!(whole.last_seen, second(999));
        // An address in it is that device; one of the first 64 is its own.
        assert_eq!(
            devices.one("2001:db8::ffff").unwrap().address,
            "2001:db8::/64"
        );
        assert_eq!(devices.one("2001:db8::3f").unwrap().address, "2001:db8::3f");
        assert_eq!(devices.one("::ffff:10.0.0.1"), None);
        visit(&devices, "::ffff:10.0.0.1", 1);
        assert_eq!(devices.one("10.0.0.1").unwrap().address, "10.0.0.1");
    }

    #[test]
    fn what_is_kept_of_one_is_bounded_and_comes_back() {
        let devices = Devices::default();
        let ip: IpAddr = "10.0.0.9".parse().unwrap();
        for n in 0..100_u64 {
            let mut visit = Visit::default();
            let sender = Address::parse(&format!("s{n}@corp.example")).unwrap();
            visit.accepted(Some(&sender));
            visit.accepted(Some(&sender));
            let hostile = "\u{1b}[31m\u{202e}".repeat(500);
            visit.refused(
                "rcpt",
                &Reply::new(550, (5, 7, 1), format!("{n} {hostile}")),
            );
            visit.refused("mail", &Reply::new(550, (5, 7, 1), "the same"));
            let helo = format!("a\u{7}b{}", n % 50);
            let who = Visitor {
                helo: Some(&helo),
                tolerances: vec!["bare_lf"],
                needs: vec!["lf_only"],
                is_learned: true,
                ..Visitor::default()
            };
            devices.visited(ip, &who, &visit, second(n));
        }
        let row = devices.one("10.0.0.9").unwrap();
        assert_eq!((row.accepted, row.refused), (200, 200));
        assert_eq!((row.senders.len(), row.refusals.len()), (SENDERS, REFUSALS));
        let last = row.refusals.last().unwrap();
        assert_eq!(
            (last.reply.as_str(), last.count),
            ("550 5.7.1 the same", 100)
        );
        assert_eq!(row.needs, ["bare_lf", "lf_only"]);
        assert_eq!((row.names.len(), row.last_mail), (NAMES, Some(second(99))));
        assert_eq!(devices.last_mail(|one| one == ip), row.last_mail);
        assert_eq!(devices.last_mail(|one| one != ip), None);
        let written = serde_json::to_string(&row).unwrap();
        assert!(written.len() < 20_000, "{}", written.len());
        assert!(!written.contains(['\u{1b}', '\u{202e}', '\u{7}']) && !written.contains("needs"));
        assert_eq!(devices.candidates(), ["10.0.0.9"]);
        let again = Devices::default();
        again.recall(vec![row.clone()]);
        assert_eq!(again.one("10.0.0.9"), Some(row));
        assert!(again.take_changes().0.is_empty());
    }

    #[test]
    fn news_are_those_that_were_seen_since() {
        let devices = Devices::default();
        let addresses = |rows: Vec<DeviceRow>| -> Vec<String> {
            rows.into_iter().map(|row| row.address).collect()
        };
        for n in 1..=5 {
            visit(&devices, &format!("10.0.0.{n}"), n);
        }
        let (mark, rows) = devices.news(0, 3);
        assert_eq!(addresses(rows), ["10.0.0.5", "10.0.0.4", "10.0.0.3"]);
        assert!(devices.news(mark, 3).1.is_empty());
        visit(&devices, "10.0.0.2", 6);
        visit(&devices, "10.0.0.2", 7);
        let (mark, rows) = devices.news(mark, 3);
        assert_eq!(addresses(rows), ["10.0.0.2"]);
        assert!(devices.news(mark, 3).1.is_empty());
    }

    #[test]
    fn pages() {
        let devices = Devices::default();
        for n in 0..120 {
            visit(&devices, &format!("10.0.0.{n}"), n / 2);
        }
        let mut filter = DeviceFilter::default();
        let mut seen = Vec::new();
        loop {
            let (rows, more) = devices.list(&filter, 50);
            seen.extend(rows.iter().map(|row| row.address.clone()));
            if !more {
                break;
            }
            let last = rows.last().unwrap();
            filter.behind = Some((last.last_seen, last.address.clone()));
        }
        assert_eq!(seen.len(), 120);
        assert_eq!(
            seen.iter().collect::<std::collections::HashSet<_>>().len(),
            120
        );
    }
}
