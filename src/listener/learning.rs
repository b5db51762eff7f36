//! LEARN WHO THERE IS: for a time, addresses of private networks that are in no `[[client]]` are served as devices.
//!
//! Everything else holds: lists, limits, routes, AUTH where it is required. It ends with its time by a clock that nobody sets, when it is
//! stopped, and with the gateway.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::devices::Devices;
use crate::{
    mail::{pattern::Pattern, time::rfc3339},
    policy::{
        Policy,
        client::{Client, ToleranceLevel},
    },
};

/// The longest.
pub const LONGEST: Duration = Duration::from_hours(8);
/// Networks of one.
const NETWORKS: usize = 64;
/// Beside the tolerances: what such a device seems to need.
pub(super) const LF_ONLY: &str = "lf_only";
/// See [`LF_ONLY`].
pub(super) const HIDE_STARTTLS: &str = "hide_starttls";

/// That it is learned who there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LearningView {
    /// Where.
    pub networks: Vec<String>,
    /// Until when.
    pub until: String,
    /// Whether mail goes to every recipient that the lists admit, and not to our own domains alone.
    pub external: bool,
}

#[derive(Debug)]
struct LearningTime {
    networks: Vec<IpNet>,
    until: Instant,
    ends: SystemTime,
    external: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Learning {
    is_on: AtomicBool,
    time: RwLock<Option<LearningTime>>,
}

/// Networks that no router of the Internet knows, with the machine's own.
fn private() -> [IpNet; 8] {
    let four = |a, b, length| {
        IpNet::V4(Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), length).unwrap_or_default())
    };
    let six = |first, length| {
        let address = Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0);
        IpNet::V6(Ipv6Net::new(address, length).unwrap_or_default())
    };
    [
        four(10, 0, 8),
        four(172, 16, 12),
        four(192, 168, 16),
        four(169, 254, 16),
        four(127, 0, 8),
        six(0xfc00, 7),
        six(0xfe80, 10),
        IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ]
}

/// Reads the networks, and says what is too much.
///
/// # Errors
/// A sentence for the operator.
pub fn bounded(networks: &[String], length: Duration) -> Result<Vec<IpNet>, String> {
    if networks.is_empty() || networks.len() > NETWORKS {
        return Err(format!("1 to {NETWORKS} networks are learned at once"));
    }
    if length.is_zero() || length > LONGEST {
        return Err("it is learned for 8 hours at most".to_owned());
    }
    let read = |text: &String| {
        let shown = crate::mail::text::shown_to(text, 60);
        let host = text
            .parse::<IpAddr>()
            .map(|ip| IpNet::from(ip.to_canonical()));
        let net = host
            .or_else(|_| text.parse::<IpNet>())
            .map_err(|_| format!("{shown:?} is no network, such as 10.20.0.0/16"))?
            .trunc();
        let widest = if net.addr().is_ipv4() { 16 } else { 48 };
        if net.prefix_len() < widest {
            return Err(format!("{net} is wider than /{widest}"));
        }
        if !private().iter().any(|private| private.contains(&net)) {
            return Err(format!("{net} is no private network"));
        }
        Ok(net)
    };
    networks.iter().map(read).collect()
}

impl Learning {
    /// Begins, in the place of what there was. The networks are those of [`bounded`].
    pub fn begin(&self, networks: Vec<IpNet>, length: Duration, external: bool) -> LearningView {
        let length = length.min(LONGEST);
        let time = LearningTime {
            networks,
            until: Instant::now() + length,
            ends: SystemTime::now() + length,
            external,
        };
        let view = time.view();
        *self.time.write().unwrap_or_else(PoisonError::into_inner) = Some(time);
        self.is_on.store(true, Ordering::Release);
        view
    }

    /// Ends; whether it was on.
    pub fn stop(&self) -> bool {
        self.is_on.store(false, Ordering::Release);
        let time = self
            .time
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        time.is_some_and(|time| Instant::now() < time.until)
    }

    /// What is on.
    pub fn view(&self) -> Option<LearningView> {
        let time = self.time.read().unwrap_or_else(PoisonError::into_inner);
        let time = time.as_ref().filter(|time| Instant::now() < time.until)?;
        Some(time.view())
    }

    /// What an address in no `[[client]]` is for now. `None`: a stranger, as ever.
    pub(super) fn client(
        &self,
        peer: IpAddr,
        policy: &Policy,
        devices: &Devices,
    ) -> Option<Arc<Client>> {
        if !self.is_on.load(Ordering::Acquire) {
            return None;
        }
        let peer = peer.to_canonical();
        let external = {
            let time = self.time.read().unwrap_or_else(PoisonError::into_inner);
            let time = time.as_ref().filter(|time| Instant::now() < time.until)?;
            if !time.networks.iter().any(|net| net.contains(&peer)) {
                return None;
            }
            time.external
        };
        if policy.client(peer).is_some() {
            return None;
        }
        let own = policy.allowlist.senders.iter();
        let recipients = (!external).then(|| own.filter_map(Pattern::whole_domain).collect());
        Some(Arc::new(Client {
            name: "learning".to_owned(),
            recipients,
            tolerance: ToleranceLevel::Device,
            lf_only: devices.needs(peer, LF_ONLY),
            hide_starttls: devices.needs(peer, HIDE_STARTTLS),
            ..Client::default()
        }))
    }
}

impl LearningTime {
    fn view(&self) -> LearningView {
        LearningView {
            networks: self.networks.iter().map(ToString::to_string).collect(),
            until: rfc3339(self.ends),
            external: self.external,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::policy;

    #[test]
    fn only_private_networks_of_a_size_for_a_time() {
        let hour = Duration::from_hours(1);
        for (network, expected) in [
            ("10.20.0.0/16", ""),
            ("10.20.3.4/16", ""),
            ("192.168.1.7", ""),
            ("127.0.0.0/16", ""),
            ("fd00:1:2::/48", ""),
            ("10.0.0.0/8", "wider than /16"),
            ("10.0.0.0/15", "wider than /16"),
            ("172.32.0.0/16", "no private network"),
            ("192.0.2.0/24", "no private network"),
            ("0.0.0.0/0", "wider"),
            ("fd00::/47", "wider than /48"),
            ("2001:db8::/48", "no private network"),
            ("::/0", "wider"),
            ("::ffff:8.8.8.8", "no private network"),
            ("::ffff:10.0.0.0/112", "no private network"),
            ("printer", "no network"),
            ("", "no network"),
        ] {
            let said = bounded(&[network.to_owned()], hour).map_or_else(|e| e, |_| String::new());
            assert!(
                said.contains(expected) && said.is_empty() == expected.is_empty(),
                "{network}: {said}"
            );
        }
        let one = ["10.20.0.0/16".to_owned()];
        assert!(bounded(&one, LONGEST).is_ok());
        assert!(bounded(&one, LONGEST + Duration::from_secs(1)).is_err());
        assert!(bounded(&one, Duration::ZERO).is_err());
        assert!(bounded(&[], hour).is_err());
        assert!(bounded(&vec![one[0].clone(); 65], hour).is_err());
    }

    #[test]
    fn who_is_served_and_to_whom() {
        let (learning, devices) = (Learning::default(), Devices::default());
        let mut policy = policy("corp.example *.sub.example a@one.example * root@*", "*");
        let ask = |learning: &Learning, policy: &Policy, ip: &str| {
            learning.client(ip.parse().unwrap(), policy, &devices)
        };
        assert!(ask(&learning, &policy, "10.20.0.1").is_none());
        let net = bounded(&["10.20.0.0/16".to_owned()], LONGEST).unwrap();
        learning.begin(net.clone(), Duration::from_mins(1), false);
        let client = ask(&learning, &policy, "10.20.0.1").unwrap();
        let recipients = client.recipients.as_ref().unwrap();
        let named: Vec<String> = recipients.iter().map(ToString::to_string).collect();
        assert_eq!(named, ["corp.example", "*.sub.example", "one.example"]);
        assert_eq!(client.tolerance, ToleranceLevel::Device);
        assert!(ask(&learning, &policy, "::ffff:10.20.0.1").is_some());
        assert!(ask(&learning, &policy, "10.21.0.1").is_none());
        policy.clients = vec![crate::fixture::client("known", "10.20.0.7/32")];
        assert!(ask(&learning, &policy, "10.20.0.7").is_none());
        assert!(learning.view().is_some());
        learning.begin(net.clone(), Duration::from_mins(1), true);
        assert!(
            ask(&learning, &policy, "10.20.0.1")
                .unwrap()
                .recipients
                .is_none()
        );
        assert!(learning.stop() && !learning.stop());
        assert!(ask(&learning, &policy, "10.20.0.1").is_none() && learning.view().is_none());
        learning.begin(net, Duration::from_nanos(1), true);
        std::thread::sleep(Duration::from_millis(1));
        assert!(ask(&learning, &policy, "10.20.0.1").is_none() && learning.view().is_none());
    }
}
