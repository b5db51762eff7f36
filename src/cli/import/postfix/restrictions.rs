//! Postfix' restrictions, asked for one question: what a client of `mynetworks`, which has not logged in, may send.
//!
//! Each list is walked as Postfix walks it, up to the word that ends it. What might have refused and is not understood is named; a
//! list that Postern's patterns cannot say lets nobody send rather than too many.

use ipnet::IpNet;

use super::{
    super::{
        draft::ImportDraft,
        files::NamedFiles,
        note::{NotUnderstood, SourcePlace},
        words::{network, pattern},
    },
    main_cf::MainCf,
    maps::{self, MapEntry},
};

/// The lists, in the order in which a mail meets them.
const LISTS: [&str; 7] = [
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
    "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions",
];

/// Senders or recipients: `None` is anybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Permitted {
    pub(super) senders: Option<Vec<String>>,
    pub(super) recipients: Option<Vec<String>>,
    /// Networks that are refused before any is permitted.
    pub(super) refused: Vec<IpNet>,
}

/// What one list has said so far.
#[derive(Default)]
struct RestrictionWalk {
    yes_senders: Vec<AccessPattern>,
    no_senders: Vec<AccessPattern>,
    yes_recipients: Vec<AccessPattern>,
    no_recipients: Vec<AccessPattern>,
    /// So many tables were read.
    tables: usize,
    /// `reject_unauth_destination` before a permit: only what Postfix is a destination for.
    only_own: bool,
    refuses_the_rest: bool,
    refused: Vec<IpNet>,
}

/// A pattern, and of which table it is.
type AccessPattern = (usize, String);

/// What an entry of an access table says.
enum AccessWord {
    Yes,
    No,
    Nothing,
    Other,
}

/// Asks every list.
pub(super) fn permitted(
    main: &MainCf,
    files: &dyn NamedFiles,
    draft: &mut ImportDraft,
) -> Result<Permitted, NotUnderstood> {
    let mut all = Permitted::default();
    let parents = main
        .value("parent_domain_matches_subdomains")?
        .contains("smtpd_access_maps");
    let fallback = main.value("default_database_type")?;
    for list in LISTS {
        let place = main.place(list);
        let tokens = main.list(list)?;
        let mut walker = Walker {
            list,
            place,
            files,
            fallback: &fallback,
            parents,
            draft: &mut *draft,
        };
        let walk = walker.walk(&tokens);
        let found = walker.conclude(walk, &relay_domains(main)?);
        all.senders = both(all.senders, found.senders);
        all.recipients = both(all.recipients, found.recipients);
        all.refused.extend(found.refused);
    }
    Ok(all)
}

fn relay_domains(main: &MainCf) -> Result<Vec<String>, NotUnderstood> {
    let words = main.list("relay_domains")?;
    Ok(words.iter().filter_map(|word| pattern(word)).collect())
}

struct Walker<'a> {
    list: &'static str,
    place: Option<SourcePlace>,
    files: &'a dyn NamedFiles,
    fallback: &'a str,
    /// `corp.example` stands for its sub-domains, too.
    parents: bool,
    draft: &'a mut ImportDraft,
}

impl Walker<'_> {
    fn walk(&mut self, tokens: &[String]) -> RestrictionWalk {
        let mut walk = RestrictionWalk::default();
        let mut rest = tokens.iter();
        // Behind a permit nothing is asked of our clients any more.
        let mut is_permitted = false;
        while let Some(token) = rest.next() {
            let word = token.to_ascii_lowercase();
            match word.as_str() {
                "permit" | "permit_mynetworks" => is_permitted = true,
                "permit_sasl_authenticated"
                | "permit_auth_destination"
                | "permit_inet_interfaces"
                | "permit_tls_clientcerts"
                | "permit_tls_all_clientcerts" => {}
                "reject" | "defer" => {
                    walk.refuses_the_rest |= !is_permitted;
                    break;
                }
                "reject_unauth_destination" | "defer_unauth_destination" => {
                    walk.only_own |= !is_permitted;
                }
                "check_sender_access" | "check_recipient_access" => {
                    let Some(map) = rest.next() else { break };
                    if !is_permitted {
                        self.access(&word, map, &mut walk);
                    }
                }
                "check_client_access" => {
                    let Some(map) = rest.next() else { break };
                    if is_permitted {
                        self.other(&word, Some(map), true);
                    } else {
                        self.clients(map, &mut walk);
                    }
                }
                "warn_if_reject" => {
                    // The next one refuses nothing.
                    if rest.next().is_some_and(|next| takes_word(next)) {
                        rest.next();
                    }
                }
                _ => {
                    let argument = takes_word(&word).then(|| rest.next()).flatten();
                    self.other(&word, argument, is_permitted);
                }
            }
        }
        walk
    }

    /// A restriction that is not carried over.
    fn other(&mut self, word: &str, argument: Option<&String>, is_permitted: bool) {
        let what = match argument {
            Some(argument) => format!("{}: {word} {argument}", self.list),
            None => format!("{}: {word}", self.list),
        };
        let place = self.place.clone();
        let only_refuses = word.starts_with("reject_") || word.starts_with("defer_");
        if only_refuses && is_permitted {
            // Only strangers were asked, and they may not send now.
        } else if only_refuses {
            self.draft.lacks(
                what,
                place,
                "Postern does not ask this, and it may have refused mail of your networks",
            );
        } else {
            self.draft.lacks(
                what,
                place,
                "restrictions of this kind are not carried over",
            );
        }
    }

    fn access(&mut self, word: &str, map: &str, walk: &mut RestrictionWalk) {
        let (entries, unread) = maps::read(
            &[map.to_owned()],
            self.fallback,
            self.files,
            self.place.as_ref(),
        );
        for one in unread {
            self.draft.lacks(
                format!("{}: {word} {}", self.list, one.map),
                self.place.clone(),
                one.why,
            );
        }
        let is_sender = word == "check_sender_access";
        walk.tables += 1;
        let table = walk.tables;
        for entry in entries {
            if self.parents && entry.key.starts_with('.') {
                // It is never looked up (access(5)).
                continue;
            }
            let patterns = self.patterns(&entry);
            let patterns: Vec<_> = patterns.into_iter().map(|text| (table, text)).collect();
            if patterns.is_empty() {
                self.draft.lacks(
                    format!("{word}: {}", entry.key),
                    Some(entry.place.clone()),
                    "this key cannot be said as a pattern",
                );
                continue;
            }
            let (yes, no) = if is_sender {
                (&mut walk.yes_senders, &mut walk.no_senders)
            } else {
                (&mut walk.yes_recipients, &mut walk.no_recipients)
            };
            match access_of(&entry.value) {
                AccessWord::Yes => yes.extend(patterns),
                AccessWord::No => no.extend(patterns),
                AccessWord::Nothing => {}
                AccessWord::Other => {
                    // Whatever it did, it was no plain yes.
                    no.extend(patterns);
                    self.draft.lacks(
                        format!("{word}: {}", entry.key),
                        Some(entry.place.clone()),
                        "only OK, REJECT and DUNNO are carried over",
                    );
                }
            }
        }
    }

    /// Addresses and networks that are refused; names of clients are not known here.
    fn clients(&mut self, map: &str, walk: &mut RestrictionWalk) {
        let what = format!("{}: check_client_access", self.list);
        let (entries, unread) = match map.strip_prefix("cidr:") {
            Some(file) => maps::read(
                &[format!("texthash:{file}")],
                self.fallback,
                self.files,
                self.place.as_ref(),
            ),
            None => maps::read(
                &[map.to_owned()],
                self.fallback,
                self.files,
                self.place.as_ref(),
            ),
        };
        for one in unread {
            // A `cidr:` was asked for as a text, which it is.
            let shown = if map.starts_with("cidr:") {
                map
            } else {
                &one.map
            };
            self.draft
                .lacks(format!("{what} {shown}"), self.place.clone(), one.why);
        }
        for entry in entries {
            match (access_of(&entry.value), client_network(&entry.key)) {
                // What it permits, it permits to connect, and no more.
                (AccessWord::Yes | AccessWord::Nothing, _) => {}
                (AccessWord::No, Some(network)) => walk.refused.push(network),
                _ => self.draft.lacks(
                    format!("{what}: {}", entry.key),
                    Some(entry.place),
                    "it may have refused a client, and is not carried over",
                ),
            }
        }
    }

    /// What a key of an access table stands for (access(5)).
    fn patterns(&self, entry: &MapEntry) -> Vec<String> {
        let key = entry.key.as_str();
        let texts = match key.strip_suffix('@') {
            Some(local) if !local.is_empty() => vec![format!("{local}@*")],
            _ if key == "<>" || key.contains('@') => vec![key.to_owned()],
            _ => match key.strip_prefix('.') {
                Some(parent) => vec![format!("*.{parent}")],
                None if self.parents => vec![key.to_owned(), format!("*.{key}")],
                None => vec![key.to_owned()],
            },
        };
        texts.iter().filter_map(|text| pattern(text)).collect()
    }

    /// What a list lets pass.
    fn conclude(&mut self, walk: RestrictionWalk, own: &[String]) -> Permitted {
        let mut found = Permitted::default();
        let RestrictionWalk {
            yes_senders,
            no_senders,
            yes_recipients,
            no_recipients,
            only_own,
            refuses_the_rest,
            refused,
            tables: _,
        } = walk;
        found.refused = refused;
        if refuses_the_rest {
            if yes_senders.is_empty() {
                found.recipients = Some(self.without(yes_recipients, &no_recipients));
                if !no_senders.is_empty() {
                    self.cannot("senders", &no_senders);
                    found.senders = Some(Vec::new());
                }
            } else {
                found.senders = Some(self.without(yes_senders, &no_senders));
                if !no_recipients.is_empty() {
                    self.cannot("recipients", &no_recipients);
                    found.recipients = Some(Vec::new());
                }
                if !yes_recipients.is_empty() {
                    self.draft.lacks(
                        format!("{}: check_recipient_access", self.list),
                        self.place.clone(),
                        "senders or recipients of this list were enough; only its senders are carried over",
                    );
                }
            }
        } else {
            // All but some cannot be said by patterns; what was said yes to before stands.
            if !no_senders.is_empty() {
                self.cannot("senders", &no_senders);
                found.senders = Some(self.without(yes_senders, &no_senders));
            }
            if !no_recipients.is_empty() {
                self.cannot("recipients", &no_recipients);
                found.recipients = Some(self.without(yes_recipients, &no_recipients));
            }
        }
        if only_own {
            self.draft.lacks(
                self.list,
                self.place.clone(),
                "it lets nobody send elsewhere before it permits `mynetworks`: only relay_domains are recipients",
            );
            found.recipients = both(found.recipients, Some(own.to_vec()));
        }
        found
    }

    fn cannot(&mut self, whose: &str, no: &[AccessPattern]) {
        let some: Vec<&str> = no.iter().take(3).map(|(_, text)| text.as_str()).collect();
        self.draft.lacks(
            format!("{}: all {whose} but {}", self.list, some.join(", ")),
            self.place.clone(),
            format!("the allowlist says who may, not who may not: write those who may into `{whose}`, which admits nobody now"),
        );
    }

    /// Those that are not also refused in part: a pattern has no exceptions.
    fn without(&mut self, yes: Vec<AccessPattern>, no: &[AccessPattern]) -> Vec<String> {
        let is_refused = |(table, text): &AccessPattern| {
            no.iter().any(|(other, refused)| {
                // What an earlier table refuses, no later one permits.
                holds(text, refused) || (other < table && holds(refused, text))
            })
        };
        let (gone, kept): (Vec<_>, Vec<_>) = yes.into_iter().partition(is_refused);
        for (_, wide) in gone {
            self.draft.lacks(
                format!("{}: {wide}", self.list),
                self.place.clone(),
                "a part of it is rejected, and a pattern has no exceptions",
            );
        }
        let mut kept: Vec<String> = kept.into_iter().map(|(_, text)| text).collect();
        kept.dedup();
        kept
    }
}

/// `10.20.30` stands for a network in a table of texts; an address and a network for themselves.
fn client_network(key: &str) -> Option<IpNet> {
    let octets = key.split('.').count();
    let is_short = octets < 4 && key.split('.').all(|octet| octet.parse::<u8>().is_ok());
    if is_short {
        let zeros = ".0".repeat(4 - octets);
        return network(&format!("{key}{zeros}/{}", octets * 8));
    }
    network(key)
}

fn access_of(value: &str) -> AccessWord {
    let word = value
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // A number alone is a yes, whatever number it is; a code refuses with its text.
    let is_code = word.len() == 3 && is_number(&word) && word.starts_with(['4', '5']);
    match word.as_str() {
        "OK" | "PERMIT" => AccessWord::Yes,
        "REJECT" | "DEFER" | "DEFER_IF_PERMIT" | "DEFER_IF_REJECT" => AccessWord::No,
        "DUNNO" => AccessWord::Nothing,
        _ if is_number(value) => AccessWord::Yes,
        _ if is_code => AccessWord::No,
        _ => AccessWord::Other,
    }
}

/// Restrictions that are followed by a table, a server or a domain.
fn takes_word(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    word.starts_with("check_")
        || word.starts_with("reject_rbl")
        || word.starts_with("reject_rhsbl")
        || word.starts_with("permit_dnswl")
        || word.starts_with("permit_rhswl")
        || word == "sleep"
}

/// Whether the first admits something of the second.
fn holds(wide: &str, narrow: &str) -> bool {
    let parts = |text: &str| {
        let (local, domain) = text.rsplit_once('@').unwrap_or(("*", text));
        (local.to_ascii_lowercase(), domain.to_ascii_lowercase())
    };
    let ((wide_local, wide_domain), (local, domain)) = (parts(wide), parts(narrow));
    let locals = wide_local == "*" || local == "*" || wide_local == local;
    let below = |parent: &str, child: &str| {
        parent
            .strip_prefix('*')
            .is_some_and(|end| child.len() > end.len() && child.ends_with(end))
    };
    let domains = wide_domain == "*"
        || domain == "*"
        || wide_domain == domain
        || below(&wide_domain, &domain)
        || below(&domain, &wide_domain);
    // A key of one address is looked up before that of a domain, and so is a narrower domain; a wider refusal comes later.
    let is_wider = (wide_local != "*" && local == "*")
        || (domain != wide_domain && below(&domain, &wide_domain));
    locals && domains && !is_wider
}

/// What both admit.
pub(super) fn both(one: Option<Vec<String>>, other: Option<Vec<String>>) -> Option<Vec<String>> {
    match (one, other) {
        (None, list) | (list, None) => list,
        (Some(one), Some(other)) => {
            let within = |narrow: &String, wide: &[String]| {
                wide.iter().any(|wide| {
                    wide.eq_ignore_ascii_case(narrow)
                        || (!wide.contains('@')
                            && narrow.rsplit('@').next().is_some_and(|domain| {
                                domain.eq_ignore_ascii_case(wide)
                                    || wide.strip_prefix('*').is_some_and(|end| {
                                        domain.len() > end.len() && domain.ends_with(end)
                                    })
                            }))
                })
            };
            let mut common: Vec<String> =
                one.iter().filter(|p| within(p, &other)).cloned().collect();
            common.extend(
                other
                    .iter()
                    .filter(|p| within(p, &one) && !one.contains(p))
                    .cloned(),
            );
            Some(common)
        }
    }
}
