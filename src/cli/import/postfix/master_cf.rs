//! `master.cf`: which services listen, on what ports, and what is set for each alone.
//!
//! Only services that take mail by SMTP matter here; the rest is named by others.

use super::{
    super::{
        note::{NotUnderstood, SourcePlace},
        words::port_of,
    },
    main_cf::{logical_lines, words},
};

/// No more services are read.
const MOST: usize = 2000;

/// A service.
#[derive(Debug, Clone)]
pub(super) struct MasterService {
    pub(super) name: String,
    /// inet, unix, …
    pub(super) kind: String,
    pub(super) command: String,
    /// `-o name=value`.
    pub(super) own: Vec<(String, String)>,
    pub(super) place: SourcePlace,
}

/// The services of a stock master.cf; whatever else there is was made for something.
const STOCK: &str = "pickup cleanup qmgr tlsmgr rewrite bounce defer trace verify flush proxymap proxywrite smtp relay showq error \
    retry discard local virtual lmtp anvil scache postlog smtpd dnsblog";

impl MasterService {
    /// Whether clients speak SMTP to it.
    pub(super) fn takes_mail(&self) -> bool {
        self.kind == "inet" && matches!(self.command.as_str(), "smtpd" | "postscreen")
    }

    /// Whether it comes with every Postfix.
    pub(super) fn is_stock(&self) -> bool {
        self.kind != "inet"
            && (STOCK.split_whitespace().any(|name| name == self.name)
                || self.command == "tlsproxy")
    }

    /// The address that it is bound to, if it names one, and the port.
    pub(super) fn bound_to(&self) -> Option<(Option<String>, u16)> {
        let (host, port) = match self.name.rsplit_once(':') {
            Some((host, port)) => (Some(host.trim_matches(['[', ']']).to_owned()), port),
            None => (None, self.name.as_str()),
        };
        Some((host.filter(|host| !host.is_empty()), port_of(port)?))
    }
}

pub(super) fn parse(text: &str, file: &str) -> Result<Vec<MasterService>, NotUnderstood> {
    let mut services = Vec::new();
    for (line, text) in logical_lines(text) {
        let place = SourcePlace {
            file: Some(file.to_owned()),
            line,
        };
        let fields = words(&text);
        let [name, kind, _, _, _, _, _, command, arguments @ ..] = fields.as_slice() else {
            return Err(NotUnderstood::new(
                Some(place),
                "this is no service; a master.cf of Postfix is expected",
            ));
        };
        if services.len() >= MOST {
            return Err(NotUnderstood::new(
                Some(place),
                "so many services are no master.cf",
            ));
        }
        services.push(MasterService {
            name: name.clone(),
            kind: kind.clone(),
            command: command.clone(),
            own: own(arguments, &text),
            place,
        });
    }
    Ok(services)
}

/// `-o name=value`, `-oname=value`, `-o { name = value }`. A value without braces has no blanks; commas belong to it.
fn own(arguments: &[String], line: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if arguments.is_empty() {
        return found;
    }
    // Commas part no words here.
    let mut rest = line;
    while let Some(at) = rest.find(" -o") {
        rest = rest[at + 3..].trim_start();
        let text = if rest.starts_with('{') {
            let end = rest.find('}').unwrap_or(rest.len());
            let inner = rest[1..end].trim();
            rest = rest.get(end + 1..).unwrap_or_default();
            inner
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let inner = &rest[..end];
            rest = &rest[end..];
            inner
        };
        if let Some((name, value)) = text.split_once('=') {
            found.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_their_own_settings() {
        let text = "smtp inet n - y - - smtpd\n#submission inet n - y - - smtpd\n\
            127.0.0.1:10587 inet n - y - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n  -o { smtpd_client_restrictions = permit_sasl_authenticated, reject }\n\
            \x20 -o smtpd_relay_restrictions=permit_mynetworks,reject\npickup unix n - y 60 1 pickup\n[::1]:smtps inet n - n - - smtpd\n";
        let all = parse(text, "master.cf").unwrap();
        assert_eq!(all.len(), 4);
        assert_eq!(all[0].bound_to(), Some((None, 25)));
        assert_eq!(
            all[1].bound_to(),
            Some((Some("127.0.0.1".to_owned()), 10587))
        );
        assert_eq!(all[3].bound_to(), Some((Some("::1".to_owned()), 465)));
        let own: Vec<_> = all[1]
            .own
            .iter()
            .map(|(name, value)| format!("{name}|{value}"))
            .collect();
        assert_eq!(
            own,
            [
                "smtpd_sasl_auth_enable|yes",
                "smtpd_client_restrictions|permit_sasl_authenticated, reject",
                "smtpd_relay_restrictions|permit_mynetworks,reject"
            ]
        );
        assert!(all[0].takes_mail() && all[2].is_stock() && !all[2].takes_mail());
        assert_eq!(
            parse("nonsense\n", "master.cf")
                .unwrap_err()
                .place
                .unwrap()
                .line,
            1
        );
    }
}
