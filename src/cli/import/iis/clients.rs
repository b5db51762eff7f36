//! Who may relay through a virtual server of IIS: `RelayIpList`, a binary list that nobody documents.
//!
//! One form of it is known by what scripts write and the console shows. Any other lets nobody send, and is shown as it stands.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::{
    super::{
        draft::{ClientDraft, ImportDraft},
        words,
    },
    server::VirtualServer,
};

/// `RelayIpList`, where its form is known.
pub(super) fn read(server: &VirtualServer<'_, '_>, draft: &mut ImportDraft) -> Vec<String> {
    let place = server.place("RelayIpList");
    let text = server.text("RelayIpList").unwrap_or_default();
    let found = relay_list(text);
    let Some(networks) = found else {
        draft.lacks(
            format!("RelayIpList of {}: {text}", server.name),
            place,
            "its form is not known here: look it up in the console (Access, Relay) and name the networks in [[client]]; until then none may send",
        );
        return Vec::new();
    };
    if networks.is_empty() {
        draft.lacks(
            format!("RelayIpList of {}", server.name),
            place,
            "no address may relay without a login there: look at the console (Access, Relay) and name the networks in [[client]]",
        );
        return Vec::new();
    }
    draft.changes(
        format!("RelayIpList of {}", server.name),
        place,
        "its form is not documented: compare the networks of the [[client]] with the console (Access, Relay)",
    );
    let mut new = Vec::new();
    let mut names = Vec::new();
    for network in networks {
        let text = network.to_string();
        match draft
            .clients
            .iter()
            .find(|client| client.networks.contains(&text))
        {
            Some(client) if !names.contains(&client.name) => names.push(client.name.clone()),
            Some(_) => {}
            None => new.push(text),
        }
    }
    if !new.is_empty() {
        let name = words::unique(&format!("relay-{}", server.name), |name| {
            draft.clients.iter().any(|c| c.name == name)
        });
        names.push(name.clone());
        draft.clients.push(ClientDraft {
            name,
            networks: new,
            ..ClientDraft::default()
        });
    }
    names
}

/// The one form that was seen: a head of 80 octets that says "only these", a mask in it, and four octets an address.
fn relay_list(hexadecimal: &str) -> Option<Vec<IpNet>> {
    const HEAD: [u8; 20] = [
        0x18, 0, 0, 0x80, 0x20, 0, 0, 0x80, 0x3c, 0, 0, 0x80, 0x44, 0, 0, 0x80, 1, 0, 0, 0,
    ];
    if hexadecimal.is_empty() {
        return Some(Vec::new());
    }
    if hexadecimal.len() > 1 << 20 || !hexadecimal.len().is_multiple_of(2) {
        return None;
    }
    let octets: Vec<u8> = (0..hexadecimal.len())
        .step_by(2)
        .map(|at| {
            hexadecimal
                .get(at..at + 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect::<Option<_>>()?;
    let (head, addresses) = octets.split_at_checked(80)?;
    let word = |at: usize| {
        let octets: Option<[u8; 4]> = head
            .get(at..at + 4)
            .and_then(|octets| octets.try_into().ok());
        octets.map(u32::from_le_bytes)
    };
    let count = u32::try_from(addresses.len() / 4).ok()?;
    let is_known = head.starts_with(&HEAD)
        && addresses.len().is_multiple_of(4)
        // Nothing is denied; one list is granted, of so many addresses of IPv4, and no names are.
        && word(20)? == 76
        && word(24)? == 0
        && word(28)? == 0
        && word(32)? == 1
        && word(36)? == count
        && word(40)? == 2
        && word(44)? == count + 1
        && word(48)? == 4
        && word(52)? == 0
        && word(56)? == 0x8000_004c
        && (60..76).step_by(4).all(|at| word(at) == Some(0));
    if !is_known {
        return None;
    }
    let mask: [u8; 4] = head.get(76..80)?.try_into().ok()?;
    let prefix = ipnet::ipv4_mask_to_prefix(Ipv4Addr::from(mask)).ok()?;
    addresses
        .chunks_exact(4)
        .map(|octets| {
            let octets: [u8; 4] = octets.try_into().ok()?;
            let network = Ipv4Net::new(Ipv4Addr::from(octets), prefix).ok()?;
            Some(IpNet::V4(network.trunc()))
        })
        .collect()
}
