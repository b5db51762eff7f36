//! The one matcher for allowlists, rewrites and routes.
//!
//! A pattern means the same everywhere. It is `*`, `<>`, DOMAIN or LOCAL@DOMAIN; DOMAIN is a
//! name (exactly), `*.name` (any sub-domain, not the name itself) or `*`; LOCAL may hold `*`. It does not decide what
//! a match means.

use std::fmt;

use super::{
    address::{Address, Domain},
    unicode,
};

/// One pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    source: String,
    form: PatternForm,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternForm {
    Anything,
    Null,
    Mailbox { local: Local, domain: Names },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Local {
    Any,
    Exactly(String),
    /// Lower-case pieces between the stars, at least two.
    Glob(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    Any,
    Exactly(Domain),
    /// `.corp.example`: a suffix that begins with a dot.
    Below(String),
}

impl Pattern {
    /// Reads a pattern as the configuration file has it; domains in Unicode are mapped by UTS 46.
    ///
    /// # Errors
    /// A sentence for the administrator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = match text {
            "" => return Err("an empty pattern matches nothing; write \"*\" for anything, \"<>\" for the null sender".into()),
            "*" => PatternForm::Anything,
            "<>" => PatternForm::Null,
            _ => match split_mailbox(text) {
                None => PatternForm::Mailbox { local: Local::Any, domain: names(text)? },
                Some((local, domain)) => PatternForm::Mailbox { local: local_part(local)?, domain: names(domain)? },
            },
        };
        Ok(Self {
            source: text.to_owned(),
            form,
        })
    }

    /// The one address that it names, where it names no more.
    pub fn literal(&self) -> Option<Address> {
        match &self.form {
            PatternForm::Mailbox {
                local: Local::Exactly(_),
                domain: Names::Exactly(_),
            } => Address::parse(&self.source).ok(),
            _ => None,
        }
    }

    /// Whether it matches; `None` is the null sender, which only `<>` matches.
    pub fn matches(&self, address: Option<&Address>) -> bool {
        match (&self.form, address) {
            (PatternForm::Null, None) | (PatternForm::Anything, Some(_)) => true,
            (PatternForm::Mailbox { local, domain }, Some(address)) => {
                domain.matches(address.domain()) && local.matches(address.local())
            }
            _ => false,
        }
    }

    /// Whether an allowlist with this pattern lets the address pass: it matches and, where the local part is one that
    /// a next hop may read a route out of ([`Address::is_risky`]), names that local part literally.
    pub fn admits(&self, address: Option<&Address>) -> bool {
        self.matches(address)
            && address.is_none_or(|a| {
                !a.is_risky()
                    || matches!(
                        &self.form,
                        PatternForm::Mailbox {
                            local: Local::Exactly(_),
                            ..
                        }
                    )
            })
    }

    /// `*`, which stands for anybody.
    pub fn is_anything(&self) -> bool {
        match &self.form {
            PatternForm::Anything => true,
            PatternForm::Mailbox { local, domain } => {
                matches!(domain, Names::Any) && matches!(local, Local::Any)
            }
            PatternForm::Null => false,
        }
    }

    /// Whether the domain may be any: a sender may then be anybody's address, whatever is asked of the local part.
    pub fn is_of_any_domain(&self) -> bool {
        match &self.form {
            PatternForm::Anything => true,
            PatternForm::Mailbox { domain, .. } => matches!(domain, Names::Any),
            PatternForm::Null => false,
        }
    }

    /// The same domain with any local part. `None`: the domain may be any, or it is `<>`.
    pub fn whole_domain(&self) -> Option<Self> {
        match &self.form {
            PatternForm::Mailbox { domain, .. } if !matches!(domain, Names::Any) => {
                let source = split_mailbox(&self.source).map_or(self.source.as_str(), |(_, of)| of);
                Some(Self {
                    source: source.to_owned(),
                    form: PatternForm::Mailbox {
                        local: Local::Any,
                        domain: domain.clone(),
                    },
                })
            }
            _ => None,
        }
    }

    /// One word without `@`, dot or star: it could be meant as a local part as well as a domain. `localhost` is a domain.
    pub fn is_one_word(&self) -> bool {
        match &self.form {
            PatternForm::Mailbox {
                domain: Names::Exactly(domain),
                ..
            } => {
                !self.source.contains('@')
                    && !domain.is_literal()
                    && !domain.as_str().contains('.')
                    && domain.as_str() != "localhost"
            }
            _ => false,
        }
    }

    /// `<>`.
    pub fn is_null(&self) -> bool {
        self.form == PatternForm::Null
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl Local {
    fn matches(&self, local: &str) -> bool {
        match self {
            Local::Any => true,
            Local::Exactly(name) => *name == unicode::lower(local),
            Local::Glob(pieces) => glob(pieces, &unicode::lower(local)),
        }
    }
}

impl Names {
    fn matches(&self, domain: &Domain) -> bool {
        match self {
            Names::Any => true,
            Names::Exactly(name) => name == domain,
            Names::Below(suffix) => {
                domain.as_str().len() > suffix.len() && domain.as_str().ends_with(suffix.as_str())
            }
        }
    }
}

/// First piece anchored at the start, last at the end, the others leftmost in between: linear, no backtracking.
fn glob(pieces: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = pieces else {
        return false;
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else {
        return false;
    };
    for piece in middle {
        match rest.find(piece.as_str()) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

/// The last `@` outside quotes parts local from domain.
fn split_mailbox(text: &str) -> Option<(&str, &str)> {
    let from = if text.starts_with('"') {
        text.rfind('"')?
    } else {
        0
    };
    text[from..]
        .rfind('@')
        .map(|at| (&text[..from + at], &text[from + at + 1..]))
}

fn local_part(text: &str) -> Result<Local, String> {
    if is_stars(text) {
        return Ok(Local::Any);
    }
    // A file may have it in another form than the wire.
    let text = &*unicode::composed(text);
    if text.starts_with('"') {
        // A quoted local part is taken as it is; a star in it is a star.
        let domain = Domain::parse("x").map_err(|e| e.to_string())?;
        let address = Address::complete(text, &domain).map_err(|e| e.to_string())?;
        return Ok(Local::Exactly(unicode::lower(address.local()).into_owned()));
    }
    if text.is_empty() {
        return Err("the local part is empty; write \"*@domain\" or just the domain".into());
    }
    if text
        .bytes()
        .any(|b| b <= b' ' || b == 127 || b"<>()[],;:\\\"".contains(&b))
    {
        return Err("the local part has a character that must be quoted".into());
    }
    let lower = unicode::lower(text);
    if text.contains('*') {
        // What no address may have matches none.
        unicode::check_characters(text)?;
        return Ok(Local::Glob(lower.split('*').map(str::to_owned).collect()));
    }
    if !text.is_ascii() {
        unicode::check_local(text)?;
    }
    Ok(Local::Exactly(lower.into_owned()))
}

/// Two stars say no more than one.
fn is_stars(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b == b'*')
}

fn names(text: &str) -> Result<Names, String> {
    if is_stars(text) {
        return Ok(Names::Any);
    }
    if let Some(parent) = text.strip_prefix("*.") {
        return Ok(Names::Below(format!(".{}", domain_from_file(parent)?)));
    }
    if text.contains('*') {
        return Err("in a domain `*` stands alone or first, as in \"*.corp.example\"".into());
    }
    domain_from_file(text).map(Names::Exactly)
}

/// A domain as people write it: Unicode is mapped by UTS 46, an invalid `xn--` label is refused.
///
/// # Errors
/// A sentence for the administrator.
pub fn domain_from_file(text: &str) -> Result<Domain, String> {
    if text.starts_with('[') {
        return Domain::parse(text).map_err(|e| e.to_string());
    }
    if text.is_ascii() && !text.to_ascii_lowercase().contains("xn--") {
        return Domain::parse(text).map_err(|e| e.to_string());
    }
    let ascii = idna::domain_to_ascii(text)
        .map_err(|_| "not a valid internationalised domain (UTS 46)".to_owned())?;
    Domain::parse(&ascii).map_err(|e| e.to_string())
}

/// The first pattern of a list that matches.
pub fn find<'a>(patterns: &'a [Pattern], address: Option<&Address>) -> Option<&'a Pattern> {
    patterns.iter().find(|p| p.matches(address))
}

/// Whether mail to about anybody may pass: `*` in any spelling, stars that are split over many patterns (`a*@*`, `b*@*`, …),
/// or all names below a top-level domain that is not a private one.
pub fn is_the_world(patterns: &[Pattern]) -> bool {
    /// Not in the public DNS: RFC 2606, RFC 6762 §3 and appendix G, RFC 9476 and what ICANN keeps back.
    const PRIVATE: [&str; 14] = [
        "alt",
        "arpa",
        "corp",
        "example",
        "home",
        "internal",
        "intranet",
        "invalid",
        "lan",
        "local",
        "localdomain",
        "localhost",
        "private",
        "test",
    ];
    let top_level = |pattern: &Pattern| match &pattern.form {
        PatternForm::Mailbox {
            local: Local::Any | Local::Glob(_),
            domain: Names::Below(suffix),
        } => suffix
            .strip_prefix('.')
            .is_some_and(|top| !top.contains('.') && !PRIVATE.contains(&top)),
        _ => false,
    };
    let begins_with = |letter: u8| {
        let local = char::from(letter).to_string().repeat(8);
        patterns.iter().any(|pattern| match &pattern.form {
            PatternForm::Mailbox {
                local: glob @ Local::Glob(_),
                domain: Names::Any,
            } => glob.matches(&local),
            _ => false,
        })
    };
    patterns.iter().any(|p| p.is_anything() || top_level(p))
        || (b'a'..=b'z').filter(|letter| begins_with(*letter)).count() > 12
}

/// The first pattern of an allowlist that admits.
pub fn admitting<'a>(patterns: &'a [Pattern], address: Option<&Address>) -> Option<&'a Pattern> {
    patterns.iter().find(|p| p.admits(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, address: &str, expected: bool) {
        let address = (address != "<>").then(|| Address::parse(address).unwrap());
        assert_eq!(
            Pattern::parse(pattern).unwrap().admits(address.as_ref()),
            expected,
            "{pattern} {address:?}"
        );
    }

    #[test]
    fn the_world() {
        let letters: Vec<String> = (b'a'..=b'z')
            .map(|letter| format!("{}*@*", char::from(letter)))
            .collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        for (list, expected) in [
            (&["*"][..], true),
            (&["corp.com", "*@*"], true),
            (&["**@*"], true),
            (&["*@**"], true),
            (&["***@**"], true),
            (&["**"], true),
            (&["*.com"], true),
            (&["x*@*.de"], true),
            (&letters, true),
            (&letters[..5], false),
            (&["postmaster@*"], false),
            (&["<>"], false),
            (&["*.corp.com", "corp.com"], false),
            (&["*.local", "*.lan", "me@*.com"], false),
            (&[], false),
        ] {
            let patterns: Vec<_> = list.iter().map(|p| Pattern::parse(p).unwrap()).collect();
            assert_eq!(is_the_world(&patterns), expected, "{list:?}");
        }
    }

    #[test]
    fn one_word() {
        for (pattern, expected) in [
            ("root", true),
            ("ROOT.", true),
            ("localhost", false),
            ("root@*", false),
            ("*@intranet", false),
            ("root@intranet", false),
            ("*.local", false),
            ("corp.com", false),
            ("[10.0.0.5]", false),
            ("*", false),
            ("<>", false),
        ] {
            let found = Pattern::parse(pattern).unwrap().is_one_word();
            assert_eq!(found, expected, "{pattern}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, address, expected) in [
            ("*", "a@b.c", true),
            ("*", "<>", false),
            ("*@*", "<>", false),
            ("<>", "<>", true),
            ("<>", "a@b.c", false),
            ("corp.com", "A@CORP.com", true),
            ("corp.com", "x@sub.corp.com", false),
            ("corp.com", "x@evilcorp.com", false),
            ("corp.com", "x@corp.com.evil.tld", false),
            ("*.corp.com", "x@sub.corp.com", true),
            ("*.corp.com", "x@a.b.corp.com", true),
            ("*.corp.com", "x@corp.com", false),
            ("*.corp.com", "x@evilcorp.com", false),
            ("App@corp.com", "aPP@corp.com", true),
            ("app@corp.com", "app+evil@corp.com", false),
            ("root@*", "root@host.example", true),
            ("app-*@corp.com", "APP-12@corp.com", true),
            ("a*b*c@corp.com", "abc@corp.com", true),
            ("a*b*c@corp.com", "ab@corp.com", false),
            ("*-a@corp.com", "x-a@corp.com", true),
            ("corp.com", "v%victim.tld@corp.com", false),
            ("*", "v%victim.tld@corp.com", false),
            ("v%*@corp.com", "v%victim.tld@corp.com", false),
            ("v%victim.tld@corp.com", "v%victim.tld@corp.com", true),
            (
                "\"v@victim.tld\"@corp.com",
                "\"v@victim.tld\"@corp.com",
                true,
            ),
            ("corp.com", "\"v@victim.tld\"@corp.com", false),
            ("b\u{fc}cher.example", "a@xn--bcher-kva.example", true),
            ("corp.com.", "a@corp.com", true),
            ("B\u{dc}ro@corp.com", "b\u{fc}RO@corp.com", true),
            ("bu\u{308}ro@corp.com", "b\u{fc}ro@corp.com", true),
            ("buro@corp.com", "b\u{fc}ro@corp.com", false),
            ("b\u{fc}*@corp.com", "B\u{dc}ro@corp.com", true),
            (
                "*\u{3a3}@corp.com",
                "\u{3bf}\u{3b4}\u{3bf}\u{3c3}@corp.com",
                true,
            ),
            ("\"B\u{dc} x\"@corp.com", "\"b\u{fc} x\"@corp.com", true),
            ("corp.com", "b\u{fc}ro@corp.com", true),
            ("kelvin@corp.com", "\u{17f}elvin@corp.com", false),
            ("*", "a@[10.0.0.5]", true),
            ("corp.com", "a@[10.0.0.5]", false),
            ("[10.0.0.5]", "a@[10.0.0.5]", true),
        ] {
            check(pattern, address, expected);
        }
        for bad in [
            "",
            "@corp.com",
            "a@",
            "a@c*.com",
            "a@**.com",
            "*corp.com",
            "xn--\u{e4}.com",
            "xn--a.com",
            "a b@corp.com",
            "a@b c",
            "a@<>",
            "a\u{ff20}b@corp.com",
            "b\u{202e}\u{fc}@corp.com",
            "*\u{e000}@corp.com",
            "\u{338}x@corp.com",
        ] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
