//! Which connections there may be: so many in all, so many from one network, so many from peers in no `[[client]]`.
//!
//! One table, asked once for each connection: a permit is taken before anything is said and given back when it is dropped. Who has
//! a client's address is looked up elsewhere, and what a limit means to the peer is said elsewhere.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{limits::Network, settings::Limits};

/// Connections of one network that is in no `[[client]]`.
const UNLISTED_OF_ONE: usize = 10;
/// A network that holds fewer may have of the connections that are kept back.
const FEW: usize = 4;

/// Of all connections, those that are kept back for listed networks that hold few: the last tenth, so that one client cannot shut
/// out another, and the unlisted none of them.
fn kept_back(connections: usize) -> usize {
    let tenth = connections.div_ceil(10);
    tenth.min(connections.saturating_sub(1))
}

/// A limit that is reached, by its key in `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Connections,
    ConnectionsPerClient,
    UnlistedConnections,
}

/// The connections that there are. An unlisted one is from a network of no `[[client]]` and has not logged in (yet). As large as
/// the number of connections allows, since every network in it holds one.
#[derive(Debug, Default)]
struct Tally {
    open: usize,
    unlisted: usize,
    networks: HashMap<Network, NetworkConnections>,
}

/// The connections of a network.
#[derive(Debug, Default)]
struct NetworkConnections {
    all: usize,
    unlisted: usize,
}

impl Tally {
    /// One more whose network is not known yet.
    fn enter(&mut self, limits: &Limits) -> Result<(), Limit> {
        if self.open >= limits.connections {
            return Err(Limit::Connections);
        }
        self.open += 1;
        Ok(())
    }

    /// The network of one that has entered is known.
    fn settle(&mut self, network: Network, is_listed: bool, limits: &Limits) -> Result<(), Limit> {
        let others = self.open.saturating_sub(1);
        let common = limits
            .connections
            .saturating_sub(kept_back(limits.connections));
        let entry = self.networks.entry(network);
        let held = match &entry {
            Entry::Occupied(held) => held.get(),
            Entry::Vacant(_) => &NetworkConnections::default(),
        };
        if held.all >= limits.connections_per_client {
            return Err(Limit::ConnectionsPerClient);
        }
        if is_listed {
            if others >= common && held.all >= FEW {
                return Err(Limit::Connections);
            }
        } else if self.unlisted >= limits.unlisted_connections.min(common)
            || held.unlisted >= UNLISTED_OF_ONE
        {
            return Err(Limit::UnlistedConnections);
        } else if others >= common {
            return Err(Limit::Connections);
        }
        let held = entry.or_default();
        held.all += 1;
        if !is_listed {
            held.unlisted += 1;
            self.unlisted += 1;
        }
        Ok(())
    }

    /// An unlisted one of that network has logged in.
    fn list(&mut self, network: Network) {
        if let Some(held) = self.networks.get_mut(&network) {
            held.unlisted = held.unlisted.saturating_sub(1);
            self.unlisted = self.unlisted.saturating_sub(1);
        }
    }

    /// One has ended; of that network, if it had settled.
    fn leave(&mut self, network: Option<Network>) {
        self.open = self.open.saturating_sub(1);
        if let Some(network) = network
            && let Entry::Occupied(mut held) = self.networks.entry(network)
        {
            held.get_mut().all = held.get().all.saturating_sub(1);
            if held.get().all == 0 {
                held.remove();
            }
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Permits(Mutex<Tally>);

impl Permits {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.tally().open
    }

    /// For a connection of this peer.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn of(
        self: &Arc<Self>,
        peer: IpAddr,
        is_listed: bool,
        limits: &Limits,
    ) -> Result<ConnectionPermit, Limit> {
        let network = Network::of(peer);
        let mut tally = self.tally();
        tally.enter(limits)?;
        if let Err(limit) = tally.settle(network, is_listed, limits) {
            tally.leave(None);
            return Err(limit);
        }
        Ok(ConnectionPermit {
            permits: Arc::clone(self),
            network: Some(network),
            is_unlisted: !is_listed,
        })
    }

    /// For a connection of a proxy, which is counted for no network before [`ConnectionPermit::settle`].
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn of_proxy(self: &Arc<Self>, limits: &Limits) -> Result<ConnectionPermit, Limit> {
        self.tally().enter(limits)?;
        Ok(ConnectionPermit {
            permits: Arc::clone(self),
            network: None,
            is_unlisted: false,
        })
    }
}

/// The right to be one of the connections; dropped, it is given back.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    permits: Arc<Permits>,
    network: Option<Network>,
    is_unlisted: bool,
}

impl ConnectionPermit {
    /// The client behind the proxy is known.
    ///
    /// # Errors
    /// The limit that is reached; the permit is to be dropped then.
    pub(super) fn settle(
        &mut self,
        peer: IpAddr,
        is_listed: bool,
        limits: &Limits,
    ) -> Result<(), Limit> {
        let network = Network::of(peer);
        self.permits.tally().settle(network, is_listed, limits)?;
        self.network = Some(network);
        self.is_unlisted = !is_listed;
        Ok(())
    }

    /// Its peer has logged in: it is none of the unlisted any more.
    pub(super) fn logged_in(&mut self) {
        if let (true, Some(network)) = (std::mem::take(&mut self.is_unlisted), self.network) {
            self.permits.tally().list(network);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut tally = self.permits.tally();
        if let (true, Some(network)) = (self.is_unlisted, self.network) {
            tally.list(network);
        }
        tally.leave(self.network);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fixture;

    fn limits(connections: usize, per_client: usize, unlisted: usize) -> Limits {
        Limits {
            connections,
            connections_per_client: per_client,
            unlisted_connections: unlisted,
            messages_per_minute: 0,
            command_timeout: Duration::ZERO,
            data_timeout: Duration::ZERO,
            free_disk: 0,
        }
    }

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    /// Takes `count` and says how many were had, and what the next was told.
    fn take(
        permits: &Arc<Permits>,
        kept: &mut Vec<ConnectionPermit>,
        peer: &str,
        is_listed: bool,
        limits: &Limits,
    ) -> (usize, Limit) {
        let mut had = 0;
        loop {
            match permits.of(peer.parse().unwrap(), is_listed, limits) {
                Ok(permit) => kept.push(permit),
                Err(limit) => return (had, limit),
            }
            had += 1;
        }
    }

    #[test]
    fn the_unlisted_have_their_own_and_a_client_never_competes_with_them() {
        let (permits, limits) = (Arc::<Permits>::default(), limits(1_000, 100, 25));
        let mut kept = Vec::new();
        let full = Limit::UnlistedConnections;
        for (peer, expected) in [
            ("192.0.2.1", (10, full)),
            ("::ffff:192.0.2.1", (0, full)),
            // One machine has a /64.
            ("2001:db8::1", (10, full)),
            ("2001:db8::2:3:4:5", (0, full)),
            ("2001:db8:0:1::1", (5, full)),
            ("192.0.2.3", (0, full)),
        ] {
            let had = take(&permits, &mut kept, peer, false, &limits);
            assert_eq!(had, expected, "{peer}");
        }
        let mut listed = Vec::new();
        let had = take(&permits, &mut listed, "10.0.0.1", true, &limits);
        assert_eq!(had, (100, Limit::ConnectionsPerClient));
        // Who has logged in takes none of theirs any more, and what is given back is free.
        kept[0].logged_in();
        kept[0].logged_in();
        kept.pop();
        let had = take(&permits, &mut kept, "192.0.2.1", false, &limits);
        assert_eq!(had, (1, full));
        let had = take(&permits, &mut kept, "192.0.2.3", false, &limits);
        assert_eq!(had, (1, full));
        drop((kept, listed));
        assert_eq!(permits.open(), 0);
        assert!(permits.tally().networks.is_empty());
        assert_eq!(permits.tally().unlisted, 0);
    }

    #[test]
    fn the_last_tenth_is_for_listed_networks_that_hold_few() {
        let (permits, limits) = (Arc::<Permits>::default(), limits(100, 1_000, 1_000));
        let mut kept = Vec::new();
        // However many of the unlisted are allowed, a tenth is not theirs.
        for n in 0..9 {
            let had = take(&permits, &mut kept, &format!("192.0.2.{n}"), false, &limits);
            assert_eq!(had, (10, Limit::UnlistedConnections));
        }
        let had = take(&permits, &mut kept, "192.0.2.9", false, &limits);
        assert_eq!(had, (0, Limit::UnlistedConnections));
        let mut listed = Vec::new();
        for (peer, expected) in [("10.0.0.1", 4), ("10.0.0.2", 4), ("10.0.0.3", 2)] {
            let had = take(&permits, &mut listed, peer, true, &limits);
            assert_eq!(had, (expected, Limit::Connections), "{peer}");
        }
        drop((kept, listed));
        // One client takes all it can; another and whoever is behind a proxy have room, the unlisted have none.
        let mut kept = Vec::new();
        let had = take(&permits, &mut kept, "10.0.0.1", true, &limits);
        assert_eq!(had, (90, Limit::Connections));
        let had = take(&permits, &mut kept, "192.0.2.9", false, &limits);
        assert_eq!(had, (0, Limit::Connections));
        let mut proxied = permits.of_proxy(&limits).unwrap();
        assert_eq!(
            proxied.settle(ip(1), false, &limits),
            Err(Limit::Connections)
        );
        assert_eq!(proxied.settle(ip(1), true, &limits), Ok(()));
        let had = take(&permits, &mut kept, "10.0.0.2", true, &limits);
        assert_eq!(had, (4, Limit::Connections));
        // A login asks for nothing.
        drop(kept);
        let mut stranger = permits.of(ip(9), false, &limits).unwrap();
        let mut kept = Vec::new();
        take(&permits, &mut kept, "10.0.0.1", true, &limits);
        stranger.logged_in();
        assert_eq!(permits.open(), 90);
    }

    #[test]
    fn of_few_connections_a_client_has_one() {
        for (connections, unlisted) in [(1, 1), (2, 1), (9, 8), (10, 9), (11, 9), (20, 18)] {
            let (permits, limits) = (Arc::<Permits>::default(), limits(connections, 100, 100));
            let mut kept = Vec::new();
            for n in 0..10 {
                take(&permits, &mut kept, &format!("192.0.2.{n}"), false, &limits);
            }
            assert_eq!(kept.len(), unlisted, "of {connections}");
        }
    }

    /// Takes, settles, logs in and gives back as chance will have it, while the limits change.
    #[test]
    fn never_more_than_the_limits_and_what_is_given_back_is_free() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut chance = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..fixture::times(50) {
            let permits = Arc::<Permits>::default();
            let connections = 1 + chance(60) as usize;
            let limits = limits(
                connections,
                1 + chance(30) as usize,
                1 + chance(80) as usize,
            );
            // With the peer it was taken for, `None` of a proxy that has not said yet.
            let mut kept: Vec<(ConnectionPermit, Option<u32>)> = Vec::new();
            for _ in 0..2_000 {
                let peer = chance(12) as u32;
                let is_listed = peer < 6;
                match chance(5) {
                    0 | 1 => {
                        if let Ok(permit) = permits.of(ip(peer), is_listed, &limits) {
                            kept.push((permit, Some(peer)));
                        }
                    }
                    2 => {
                        if let Ok(permit) = permits.of_proxy(&limits) {
                            kept.push((permit, None));
                        }
                    }
                    3 if !kept.is_empty() => {
                        let n = chance(kept.len() as u64) as usize;
                        let (permit, of) = &mut kept[n];
                        if of.is_some() {
                            permit.logged_in();
                        } else if permit.settle(ip(peer), is_listed, &limits).is_ok() {
                            *of = Some(peer);
                        } else {
                            kept.swap_remove(n);
                        }
                    }
                    _ if !kept.is_empty() => {
                        kept.swap_remove(chance(kept.len() as u64) as usize);
                    }
                    _ => {}
                }
                let tally = permits.tally();
                assert_eq!(tally.open, kept.len());
                assert!(tally.open <= limits.connections);
                let unlisted = kept.iter().filter(|(permit, _)| permit.is_unlisted);
                assert_eq!(tally.unlisted, unlisted.count());
                assert!(tally.unlisted <= limits.unlisted_connections);
                assert!(connections == 1 || tally.unlisted < connections);
                assert!(tally.networks.len() <= tally.open);
                for (network, held) in &tally.networks {
                    let all = kept.iter().filter(|(p, _)| p.network == Some(*network));
                    assert_eq!(held.all, all.count());
                    assert!(held.all >= held.unlisted && held.all > 0);
                    assert!(held.all <= limits.connections_per_client);
                    assert!(held.unlisted <= UNLISTED_OF_ONE);
                }
            }
            kept.clear();
            let tally = permits.tally();
            assert_eq!((tally.open, tally.unlisted), (0, 0));
            assert!(tally.networks.is_empty());
        }
    }
}
