//! Whose turn it is in a lane: pure, and the same for every store.
//!
//! What is due leaves by client, then by sender within the client, then oldest first. A turn is up to [`TURN`] messages of one
//! client and sender, so nobody waits for more than one turn of each other client, however much that one sends. Where many have mail
//! waiting a turn is shorter: messages that came together then leave together, and what is written of one is near what is written
//! of the next.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use crate::{
    mail::message::{Message, Origin},
    route::{ConnectorName, LaneId, RouteName},
};

/// Messages of one turn.
pub const TURN: usize = 8;
/// Pairs of a lane that are looked at for when something is due.
pub const LOOKED_AT: usize = 64;
/// Messages of a turn each of all pairs together, as far as it can be kept; and the turns by which it is known how many pairs there are.
const ROUND: usize = 64;
/// Pairs that one claim looks at in vain. The next one goes on behind them.
const IN_VAIN: usize = 4096;
/// Lanes whose cursors are remembered.
const LANES: usize = 1000;

/// How many messages a turn has where so many pairs have mail waiting.
fn length(pairs: usize) -> usize {
    (ROUND / pairs.max(1)).clamp(1, TURN)
}

/// A client and a sender, each a number made of its name. Those that share one share turns, which harms nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    /// The user that logged in, else the peer's address (of IPv6 its /64, RFC 7934 §3), else the gateway itself.
    pub client: u8,
    /// The envelope's sender.
    pub sender: u8,
}

impl Pair {
    /// Of a message, by its origin and the address that it comes from; empty: `<>`. It is written down with the job, so what it says
    /// of a name stays.
    pub fn of(origin: &Origin, sender: &str) -> Self {
        let client = match (&origin.user, origin.peer.ip().to_canonical()) {
            (Some(user), _) => number(user.as_bytes()),
            (None, _) if origin.listener == "bounce" => number(b"gateway"),
            (None, IpAddr::V4(ip)) => number(&ip.octets()),
            (None, IpAddr::V6(ip)) => number(&(ip.to_bits() >> 64).to_be_bytes()),
        };
        Self {
            client,
            sender: number(sender.as_bytes()),
        }
    }

    /// As [`Pair::of`].
    pub fn of_message(message: &Message) -> Self {
        let sender = message.envelope.sender.as_ref();
        let sender = sender.map(ToString::to_string).unwrap_or_default();
        Self::of(&message.origin, &sender)
    }

    /// The first that stands behind it, in order of client and sender.
    pub fn next(self) -> Option<Self> {
        match self.sender.checked_add(1) {
            Some(sender) => Some(Self { sender, ..self }),
            None => first_behind(self.client),
        }
    }
}

/// The first that the clients behind this one can have.
fn first_behind(client: u8) -> Option<Pair> {
    let client = client.checked_add(1)?;
    Some(Pair { client, sender: 0 })
}

/// FNV-1a, without case, folded.
fn number(name: &[u8]) -> u8 {
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, octet| {
        (hash ^ u32::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    let [a, b, c, d] = hash.to_be_bytes();
    a ^ b ^ c ^ d
}

/// What waits in one lane, as a store finds it.
pub trait Pairs {
    /// Why it cannot be read.
    type Error;
    /// The first pair from this one on that has waiting jobs, and whether one of them is due.
    ///
    /// # Errors
    /// It cannot be read.
    fn from(&mut self, pair: Pair) -> Result<Option<(Pair, bool)>, Self::Error>;
    /// Claims due jobs of a pair, oldest due first, at most so many; how many it were.
    ///
    /// # Errors
    /// It cannot be read or written.
    fn take(&mut self, pair: Pair, limit: usize) -> Result<usize, Self::Error>;
}

/// Where the turns of a lane are.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// Who had the last turn, or has it still.
    client: u8,
    /// What is left of it.
    left: usize,
    /// How many messages a turn has.
    turn: usize,
    /// The turns that were given since that was last thought about.
    given: usize,
    /// Whose they were.
    met: Vec<Pair>,
    /// The sender that had the last turn of each client.
    senders: [u8; 256],
    /// Where a look through all that waits goes on.
    pub swept: Option<Mark>,
}

impl Cursor {
    /// One that begins behind this client.
    fn behind(client: u8) -> Self {
        Self {
            client,
            left: 0,
            // Until it is known how many there are: a short turn costs some steps, a long one what many wait for.
            turn: 1,
            given: 0,
            met: Vec::new(),
            senders: [u8::MAX; 256],
            swept: None,
        }
    }

    /// Claims what is due in turns, at most `limit`.
    ///
    /// # Errors
    /// Those of [`Pairs`].
    pub fn claim<P: Pairs>(&mut self, pairs: &mut P, limit: usize) -> Result<(), P::Error> {
        let (mut wanted, mut looks) = (limit, IN_VAIN);
        while wanted > 0 {
            if self.left == 0 {
                if !self.turn(pairs, &mut looks)? {
                    break;
                }
                self.left = self.turn;
                self.count();
            }
            let most = wanted.min(self.left);
            let taken = pairs.take(self.pair(self.client), most)?;
            wanted -= taken.min(wanted);
            self.left = if taken < most { 0 } else { self.left - most };
        }
        Ok(())
    }

    /// A turn was given: to how many pairs the last ones were says how long they are.
    fn count(&mut self) {
        let pair = self.pair(self.client);
        if !self.met.contains(&pair) {
            self.met.push(pair);
        }
        self.given += 1;
        if self.given == ROUND {
            self.turn = length(self.met.len());
            self.given = 0;
            self.met.clear();
        }
    }

    /// Gives the next pair its turn; whether there is one.
    fn turn<P: Pairs>(&mut self, pairs: &mut P, looks: &mut usize) -> Result<bool, P::Error> {
        let last = self.client;
        // Those behind the last one, then from the first one on up to it.
        for is_again in [false, true] {
            let mut from = if is_again {
                Some(Pair::default())
            } else {
                first_behind(last)
            };
            while let Some(pair) = from {
                let first = pairs.from(pair)?;
                let Some(first) = first.filter(|(pair, _)| !is_again || pair.client <= last) else {
                    break;
                };
                let client = first.0.client;
                if let Some(sender) = self.sender(pairs, first, looks)? {
                    self.client = client;
                    self.set_sender(client, sender);
                    return Ok(true);
                }
                if *looks == 0 {
                    // The next claim goes on with this client.
                    self.client = client.wrapping_sub(1);
                    return Ok(false);
                }
                from = first_behind(client);
            }
        }
        Ok(false)
    }

    /// The next sender of a client that has something due; the first one of the client is known.
    fn sender<P: Pairs>(
        &mut self,
        pairs: &mut P,
        first: (Pair, bool),
        looks: &mut usize,
    ) -> Result<Option<u8>, P::Error> {
        let last = self.pair(first.0.client);
        for is_again in [false, true] {
            let mut found = if is_again || first.0 > last {
                Some(first)
            } else {
                next_sender(pairs, last)?
            };
            while let Some((pair, is_due)) = found.filter(|(pair, _)| !is_again || *pair <= last) {
                if is_due {
                    return Ok(Some(pair.sender));
                }
                *looks = looks.saturating_sub(1);
                if *looks == 0 {
                    self.set_sender(pair.client, pair.sender);
                    return Ok(None);
                }
                found = next_sender(pairs, pair)?;
            }
        }
        Ok(None)
    }

    /// Who had the last turn, or has it still: the client, and the last sender of each client. A store that looks ahead finds by them
    /// whose turns come next.
    pub fn last(&self) -> (u8, &[u8; 256]) {
        (self.client, &self.senders)
    }

    fn pair(&self, client: u8) -> Pair {
        let sender = self.senders.get(usize::from(client));
        Pair {
            client,
            sender: sender.copied().unwrap_or_default(),
        }
    }

    fn set_sender(&mut self, client: u8, sender: u8) {
        if let Some(last) = self.senders.get_mut(usize::from(client)) {
            *last = sender;
        }
    }
}

/// The sender of the same client behind this one.
fn next_sender<P: Pairs>(pairs: &mut P, pair: Pair) -> Result<Option<(Pair, bool)>, P::Error> {
    let Some(next) = pair.next().filter(|next| next.client == pair.client) else {
        return Ok(None);
    };
    let found = pairs.from(next)?;
    Ok(found.filter(|(found, _)| found.client == pair.client))
}

/// A pair, and when a job of it is due by the store's count.
pub type Mark = (Pair, i64);

/// A route, a pin and a lane.
pub type RouteLane = (RouteName, Option<ConnectorName>, Option<LaneId>);

/// The cursors of the lanes that were claimed from of late.
#[derive(Debug, Default)]
pub struct Cursors {
    of: HashMap<RouteLane, Cursor>,
    /// In the order in which they came.
    places: VecDeque<RouteLane>,
    /// Cursors that were made when others had to go for them.
    replaced: u32,
}

impl Cursors {
    /// Of a lane.
    pub fn of(&mut self, place: RouteLane) -> &mut Cursor {
        let mut last = u8::MAX;
        if !self.of.contains_key(&place) {
            if self.places.len() >= LANES
                && let Some(gone) = self.places.pop_front()
            {
                self.of.remove(&gone);
                // Else a lane that is forgotten again and again would begin with the same client each time.
                self.replaced = self
                    .replaced
                    .wrapping_mul(0x0019_660d)
                    .wrapping_add(0x3c6e_f35f);
                last = self.replaced.to_be_bytes()[0];
            }
            self.places.push_back(place.clone());
        }
        self.of.entry(place).or_insert_with(|| Cursor::behind(last))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        convert::Infallible,
    };

    use super::*;
    use crate::fixture;

    /// The times at which jobs are due, by pairs, and what was taken.
    #[derive(Default)]
    struct Lane {
        jobs: BTreeMap<Pair, Vec<u32>>,
        now: u32,
        taken: Vec<(Pair, u32)>,
        looks: usize,
    }

    impl Lane {
        fn put(&mut self, (client, sender): (u8, u8), due: u32) {
            let jobs = self.jobs.entry(Pair { client, sender }).or_default();
            jobs.push(due);
            jobs.sort_unstable();
        }

        fn is_due(&self, pair: Pair) -> bool {
            self.jobs.get(&pair).is_some_and(|jobs| jobs[0] <= self.now)
        }
    }

    impl Pairs for Lane {
        type Error = Infallible;
        fn from(&mut self, pair: Pair) -> Result<Option<(Pair, bool)>, Infallible> {
            self.looks += 1;
            let found = self.jobs.range(pair..).next();
            Ok(found.map(|(pair, jobs)| (*pair, jobs[0] <= self.now)))
        }
        fn take(&mut self, pair: Pair, limit: usize) -> Result<usize, Infallible> {
            let jobs = self.jobs.entry(pair).or_default();
            let due = jobs.iter().filter(|due| **due <= self.now).count();
            let taken = due.min(limit);
            self.taken
                .extend(jobs.drain(..taken).map(|due| (pair, due)));
            if jobs.is_empty() {
                self.jobs.remove(&pair);
            }
            Ok(taken)
        }
    }

    fn claim(cursor: &mut Cursor, lane: &mut Lane, limit: usize) -> usize {
        let before = lane.taken.len();
        let Ok(()) = cursor.claim(lane, limit);
        lane.taken.len() - before
    }

    /// Where turns are as long as they can be.
    fn long(client: u8) -> Cursor {
        Cursor {
            turn: TURN,
            ..Cursor::behind(client)
        }
    }

    /// Random mail comes and goes. Within a pair the oldest leaves first, a claim comes back with less than it asked for only
    /// when nothing is due, and nobody waits longer than one turn of each other client, times the senders of the own one.
    #[test]
    fn nobody_waits_for_more_than_a_turn_of_each_other() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..fixture::times(200) {
            let (mut lane, mut cursor) = (Lane::default(), Cursor::behind(random.u8(..)));
            let clients: Vec<u8> = (0..random.u8(1..6)).map(|_| random.u8(..)).collect();
            let senders: Vec<u8> = (0..random.u8(1..4)).map(|_| random.u8(..)).collect();
            let most = 1 + (clients.len() - 1) * TURN + TURN;
            let mut waits: BTreeMap<Pair, usize> = BTreeMap::new();
            for step in 0..300 {
                lane.now = step;
                for _ in 0..random.u8(..20) {
                    let due = step + random.u32(..3);
                    let client = *random.choice(&clients).unwrap();
                    lane.put((client, *random.choice(&senders).unwrap()), due);
                }
                let (limit, before) = (random.usize(..20), lane.taken.len());
                let due = lane
                    .jobs
                    .values()
                    .flatten()
                    .filter(|due| **due <= step)
                    .count();
                let waiting: Vec<Pair> = lane
                    .jobs
                    .keys()
                    .filter(|pair| lane.is_due(**pair))
                    .copied()
                    .collect();
                assert_eq!(claim(&mut cursor, &mut lane, limit), limit.min(due));
                // What was due before this claim, and how much left before it since.
                for pair in waiting {
                    waits.entry(pair).or_insert(0);
                }
                for (taken, _) in lane.taken[before..].iter().copied() {
                    for (pair, others) in &mut waits {
                        if *pair != taken {
                            *others += 1;
                            assert!(*others <= most * senders.len(), "{pair:?} waits");
                        }
                    }
                    waits.remove(&taken);
                }
                waits.retain(|pair, _| lane.is_due(*pair));
            }
        }
    }

    /// In the order of the specification, whatever the claims ask for.
    #[test]
    fn clients_take_turns_and_so_do_the_senders_of_one() {
        for limit in [1, 2, 3, 4, 7, 8, 9, 100] {
            let (mut lane, mut cursor) = (Lane::default(), long(u8::MAX));
            for due in 0..20 {
                lane.put((7, 3), due);
                lane.put((7, 200), due);
            }
            lane.put((3, 255), 5);
            lane.put((9, 0), 100);
            lane.now = 50;
            while claim(&mut cursor, &mut lane, limit) > 0 {}
            let mut order: Vec<(u8, u8, usize)> = Vec::new();
            for (pair, _) in &lane.taken {
                match order.last_mut() {
                    Some((client, sender, count))
                        if (*client, *sender) == (pair.client, pair.sender) =>
                    {
                        *count += 1;
                    }
                    _ => order.push((pair.client, pair.sender, 1)),
                }
            }
            let expected = [
                (3, 255, 1),
                (7, 3, 8),
                (7, 200, 8),
                (7, 3, 8),
                (7, 200, 8),
                (7, 3, 4),
                (7, 200, 4),
            ];
            assert_eq!(order, expected, "{limit}");
            for sender in [3, 200] {
                let of = lane.taken.iter().filter(|(pair, _)| pair.sender == sender);
                assert!(of.map(|(_, due)| *due).is_sorted());
            }
            lane.now = 100;
            assert_eq!(claim(&mut cursor, &mut lane, limit), 1);
        }
    }

    /// Of many, each has one message a round: what came together leaves together.
    #[test]
    fn where_many_have_mail_waiting_a_turn_is_short() {
        assert_eq!(
            [1, 2, 8, 9, 16, 33, 64, 1000].map(length),
            [8, 8, 8, 7, 4, 1, 1, 1]
        );
        let (mut lane, mut cursor) = (Lane::default(), Cursor::behind(u8::MAX));
        for due in 0..640 {
            lane.put((7, (due % 64) as u8), due);
        }
        lane.now = 640;
        for limit in 1..36 {
            claim(&mut cursor, &mut lane, limit);
        }
        assert_eq!(lane.taken.len(), 630);
        assert!(lane.taken.iter().map(|(_, due)| *due).eq(0..630));
        // Two have long ones, as soon as it is known that they are two; and others who come then make them short again.
        let (mut lane, mut cursor) = (Lane::default(), Cursor::behind(u8::MAX));
        for due in 0..640 {
            lane.put((7, (due % 2) as u8), due);
        }
        lane.now = 640;
        claim(&mut cursor, &mut lane, 64 + 24);
        let senders: Vec<u8> = lane.taken.iter().map(|(pair, _)| pair.sender).collect();
        assert!(senders[..64].iter().copied().eq((0..64).map(|n| n % 2)));
        assert!(senders[64..].iter().copied().eq((0..24).map(|n| n / 8 % 2)));
        for client in 8..200 {
            for _ in 0..100 {
                lane.put((client, 0), 0);
            }
        }
        claim(&mut cursor, &mut lane, 64 * TURN);
        lane.taken.clear();
        claim(&mut cursor, &mut lane, 50);
        let clients: BTreeSet<u8> = lane.taken.iter().map(|(pair, _)| pair.client).collect();
        assert_eq!(clients.len(), 50);
    }

    /// A claim looks at so many pairs in vain, and the next one goes on behind them.
    #[test]
    fn every_due_job_is_reached_however_many_pairs_wait_for_later() {
        let (mut lane, mut cursor) = (Lane::default(), Cursor::behind(u8::MAX));
        for client in (0..=255).step_by(4) {
            for sender in 0..=255 {
                lane.put((client, sender), 100);
            }
        }
        lane.put((200, 77), 1);
        lane.now = 1;
        let mut claims = 0;
        while lane.taken.is_empty() {
            lane.looks = 0;
            claim(&mut cursor, &mut lane, 50);
            assert!(lane.looks <= IN_VAIN + 512, "{}", lane.looks);
            claims += 1;
            assert!(claims <= 5);
        }
        lane.now = 100;
        for _ in 0..500 {
            claim(&mut cursor, &mut lane, 50);
        }
        assert_eq!(lane.taken.len(), 16_385);
        assert!(lane.looks < 75_000, "{}", lane.looks);
    }

    #[test]
    fn who_is_one_client() {
        let pair = |user: Option<&str>, peer: &str, sender: &str| {
            let mut origin = fixture::origin(std::time::SystemTime::UNIX_EPOCH);
            (origin.user, origin.peer) = (user.map(str::to_owned), peer.parse().unwrap());
            Pair::of(&origin, sender)
        };
        let of = |user, peer| pair(user, peer, "a@x.example").client;
        // A user wherever it comes from, an address whatever its port, a /64, a mapped address as what it is.
        assert_eq!(
            of(Some("app"), "192.0.2.1:1"),
            of(Some("app"), "[2001:db8::1]:2")
        );
        assert_eq!(of(None, "192.0.2.1:1"), of(None, "192.0.2.1:2"));
        assert_eq!(of(None, "192.0.2.1:1"), of(None, "[::ffff:192.0.2.1]:1"));
        assert_eq!(
            of(None, "[2001:db8::1]:1"),
            of(None, "[2001:db8::2:3:4:5]:1")
        );
        // What is in the rows of a store means the same tomorrow.
        assert_eq!(
            [
                of(None, "192.0.2.1:1"),
                of(None, "192.0.2.2:1"),
                of(None, "[2001:db8::1]:1"),
                of(None, "[2001:db8:0:1::1]:1"),
                of(Some("app"), "192.0.2.1:1"),
                pair(None, "192.0.2.1:1", "").sender,
                pair(None, "192.0.2.1:1", "App@x.example").sender,
                pair(None, "192.0.2.1:1", "app@X.example").sender,
            ],
            [17, 254, 243, 0, 218, 197, 12, 12]
        );
    }

    /// A lane that others push out again and again is not begun with the same client each time.
    #[test]
    fn cursors_are_bounded() {
        let mut cursors = Cursors::default();
        let place = |n: usize| -> RouteLane {
            let lane = LaneId::parse(&format!("up/{n}"));
            ("r".into(), None, Some(lane))
        };
        let mut begun = std::collections::BTreeSet::new();
        for _ in 0..100 {
            for n in 0..=LANES {
                begun.insert(cursors.of(place(n)).client);
            }
            assert_eq!((cursors.of.len(), cursors.places.len()), (LANES, LANES));
        }
        assert_eq!(begun.len(), 256);
        cursors.of(place(0)).client = 42;
        assert_eq!(cursors.of(place(0)).client, 42);
    }
}
