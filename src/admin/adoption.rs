//! Devices that were seen become a change of the configuration: one `[[client]]` for those with the same senders, with what they needed.
//!
//! It is made of operations, as the body of a proposal has them; nothing is stored or written here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    mail::text::shown_to,
    smtp::server::tolerance::Quirk,
    view::Problem,
    window::devices::{DeviceRow, NAMES},
};

/// Names of a device that are listed.
const LISTED: usize = 5;
/// With so many senders a device may have more that are not known.
const SENDERS: usize = 5;

/// The change, for the file with this hash. Where it needs several clients, `-2`, `-3` follows the name.
pub fn adopted(base: &str, devices: &[DeviceRow], name: &str) -> Value {
    json!({
        "base": base,
        "title": format!("adopt {} as {}", devices.len(), shown_to(name, 60)),
        "changes": operations(devices, name),
    })
}

/// What is to be known before they are admitted: an address may stand for several devices, and whoever is behind it is let in with them.
pub fn notes(devices: &[DeviceRow]) -> Vec<Problem> {
    let several = devices.iter().filter_map(|device| {
        let address = &device.address;
        if address.contains('/') {
            return Some((
                format!(
                    "{address} is a whole network, of which more than 64 addresses have connected"
                ),
                "every device in it would be admitted".to_owned(),
            ));
        }
        let count = device.names.len();
        if count < 2 {
            return None;
        }
        let least = if count >= NAMES { "at least " } else { "" };
        let mut names: Vec<String> = device.names.iter().map(|name| shown_to(name, 60)).collect();
        let more = names.len().saturating_sub(LISTED);
        names.truncate(LISTED);
        let mut listed = names.join(", ");
        if more > 0 {
            listed = format!("{listed} and {more} more");
        }
        Some((
            format!(
                "{least}{count} devices stand behind {address}, by the names they give: {listed}"
            ),
            "a NAT or a proxy has this address, and everybody behind it would be admitted"
                .to_owned(),
        ))
    });
    several
        .map(|(message, hint)| Problem {
            severity: "warning",
            place: None,
            line: None,
            column: None,
            message,
            hint: Some(hint),
        })
        .collect()
}

fn operations(devices: &[DeviceRow], name: &str) -> Vec<Value> {
    let mut groups: BTreeMap<Vec<&str>, Vec<&DeviceRow>> = BTreeMap::new();
    for device in devices {
        let mut senders: Vec<&str> = device.senders.iter().map(String::as_str).collect();
        senders.sort_unstable();
        if senders.len() >= SENDERS {
            senders.clear();
        }
        groups.entry(senders).or_default().push(device);
    }
    let clients = groups.iter().enumerate();
    clients
        .map(|(at, (senders, devices))| {
            let name = match at {
                0 => name.to_owned(),
                at => format!("{name}-{}", at + 1),
            };
            json!({
                "op": "add",
                "section": "client",
                "name": name,
                "values": values(senders, devices),
            })
        })
        .collect()
}

/// The keys of a `[[client]]`.
fn values(senders: &[&str], devices: &[&DeviceRow]) -> Map<String, Value> {
    let needs: Vec<&str> = devices
        .iter()
        .flat_map(|device| device.needs.iter().map(String::as_str))
        .collect();
    let mut networks: Vec<&str> = devices
        .iter()
        .map(|device| device.address.as_str())
        .collect();
    networks.sort_unstable();
    networks.dedup();
    let mut values = Map::new();
    values.insert("networks".to_owned(), json!(networks));
    if !senders.is_empty() {
        values.insert("senders".to_owned(), json!(senders));
    }
    if needs.iter().any(|need| Quirk::is_of_device(need)) {
        values.insert("tolerance".to_owned(), json!("device"));
    }
    for key in ["hide_starttls", "lf_only"] {
        if needs.contains(&key) {
            values.insert(key.to_owned(), json!(true));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn device(address: &str, senders: &[&str], needs: &[&str]) -> DeviceRow {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        DeviceRow {
            address: address.to_owned(),
            client: None,
            first_seen: SystemTime::UNIX_EPOCH,
            last_seen: SystemTime::UNIX_EPOCH,
            accepted: 1,
            refused: 0,
            senders: owned(senders),
            last_session: None,
            refusals: Vec::new(),
            candidate: true,
            needs: owned(needs),
            last_mail: None,
            old_tls: None,
            names: Vec::new(),
        }
    }

    #[test]
    fn several_behind_an_address_are_said() {
        let mut devices = [
            device("10.0.0.1", &[], &[]),
            device("10.0.0.2", &[], &[]),
            device("10.0.0.3", &[], &[]),
            device("2001:db8::/64", &[], &[]),
        ];
        devices[0].names = vec!["one".to_owned()];
        devices[1].names = vec!["one".to_owned(), "t\u{202e}wo".to_owned()];
        devices[2].names = (0..NAMES).map(|n| format!("mfp{n}")).collect();
        let said: Vec<String> = notes(&devices)
            .into_iter()
            .map(|note| note.message)
            .collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(
            said[0].starts_with("2 devices stand behind 10.0.0.2, by the names they give: one, t")
        );
        assert!(!said[0].contains('\u{202e}'));
        assert_eq!(
            said[1],
            "at least 16 devices stand behind 10.0.0.3, by the names they give: mfp0, mfp1, mfp2, mfp3, mfp4 and 11 more"
        );
        assert!(said[2].starts_with("2001:db8::/64 is a whole network"));
    }

    #[test]
    fn those_with_the_same_senders_are_one_client() {
        let devices = [
            device("10.0.0.7", &["b@x.example", "a@x.example"], &["no_helo"]),
            device(
                "10.0.0.5",
                &["a@x.example", "b@x.example"],
                &["bare_lf", "lf_only"],
            ),
            device("2001:db8::/64", &[], &["blanks", "hide_starttls"]),
            device("10.0.0.9", &["1@x", "2@x", "3@x", "4@x", "5@x"], &[]),
        ];
        assert_eq!(
            adopted("ab12", &devices, "printers"),
            json!({"base": "ab12", "title": "adopt 4 as printers", "changes": [
                {"op": "add", "section": "client", "name": "printers", "values": {
                    "networks": ["10.0.0.9", "2001:db8::/64"], "hide_starttls": true}},
                {"op": "add", "section": "client", "name": "printers-2", "values": {
                    "networks": ["10.0.0.5", "10.0.0.7"],
                    "senders": ["a@x.example", "b@x.example"],
                    "tolerance": "device", "lf_only": true}},
            ]})
        );
    }
}
