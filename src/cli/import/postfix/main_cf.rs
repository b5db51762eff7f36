//! `main.cf`: logical lines, the last of a name wins, and `$name` in values, as postconf(5) has them.
//!
//! A value that refers to itself, or grows without end, is refused by its name. What a parameter means is not known here.

use std::collections::BTreeMap;

use super::super::note::{NotUnderstood, SourcePlace};

/// Deeper references are a circle.
const DEEPEST: usize = 50;
/// What the expansion of one value may cost: octets written and references followed.
const DEAREST: usize = 4 << 20;
/// No more parameters are read.
const MOST: usize = 20_000;

/// The parameters, as they stand.
#[derive(Debug, Clone, Default)]
pub(super) struct MainCf {
    values: BTreeMap<String, (String, SourcePlace)>,
    /// Where `$config_directory` is.
    directory: String,
}

/// Logical lines with the number of their first one: a line that begins with white space goes on with the one before, and comments
/// between them do not end it.
pub(super) fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, before)) if line.starts_with([' ', '\t']) => {
                before.push(' ');
                before.push_str(trimmed);
            }
            _ => lines.push((number, trimmed.to_owned())),
        }
    }
    lines
}

/// Words between white space and commas; what stands in braces stays together.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut depth = 0usize;
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && (c.is_whitespace() || c == ',') {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

impl MainCf {
    pub(super) fn parse(
        text: &str,
        file: Option<&str>,
        directory: &str,
    ) -> Result<Self, NotUnderstood> {
        let place = |line| SourcePlace {
            file: file.map(str::to_owned),
            line,
        };
        let mut values = BTreeMap::new();
        for (line, text) in logical_lines(text) {
            let Some((name, value)) = text.split_once('=') else {
                return Err(NotUnderstood::new(
                    Some(place(line)),
                    "this is no `name = value`; a main.cf of Postfix is expected",
                ));
            };
            let name = name.trim();
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            {
                return Err(NotUnderstood::new(
                    Some(place(line)),
                    "this is no name of a parameter; a main.cf of Postfix is expected",
                ));
            }
            if values.len() >= MOST {
                return Err(NotUnderstood::new(
                    Some(place(line)),
                    "so many parameters are no main.cf",
                ));
            }
            values.insert(name.to_owned(), (value.trim().to_owned(), place(line)));
        }
        if values.is_empty() {
            return Err(NotUnderstood::new(
                None,
                "there is no parameter in it; a main.cf of Postfix is expected",
            ));
        }
        Ok(Self {
            values,
            directory: directory.to_owned(),
        })
    }

    /// With what a service of master.cf has for itself.
    pub(super) fn with(&self, own: &[(String, String)], place: &SourcePlace) -> Self {
        let mut all = self.clone();
        for (name, value) in own {
            all.values
                .insert(name.clone(), (value.clone(), place.clone()));
        }
        all
    }

    /// The names that are set, with their places.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, &SourcePlace)> {
        self.values
            .iter()
            .map(|(name, (_, place))| (name.as_str(), place))
    }

    pub(super) fn place(&self, name: &str) -> Option<SourcePlace> {
        self.values.get(name).map(|(_, place)| place.clone())
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// What is set, with every reference in it replaced; `None` where it is not set.
    pub(super) fn set(&self, name: &str) -> Result<Option<String>, NotUnderstood> {
        if self.is_set(name) {
            self.value(name).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The value, or the default, with every reference in it replaced.
    pub(super) fn value(&self, name: &str) -> Result<String, NotUnderstood> {
        let mut out = String::new();
        let mut left = DEAREST;
        self.lookup(name, 0, &mut left, &mut out)
            .map_err(|why| NotUnderstood::new(self.place(name), format!("{name}: {why}")))?;
        Ok(out.trim().to_owned())
    }

    /// Words of a list.
    pub(super) fn list(&self, name: &str) -> Result<Vec<String>, NotUnderstood> {
        self.value(name).map(|value| words(&value))
    }

    /// `yes`, or not.
    pub(super) fn flag(&self, name: &str) -> Result<bool, NotUnderstood> {
        self.value(name)
            .map(|value| value.eq_ignore_ascii_case("yes"))
    }

    fn lookup(
        &self,
        name: &str,
        depth: usize,
        left: &mut usize,
        out: &mut String,
    ) -> Result<(), &'static str> {
        if depth > DEEPEST {
            return Err("it refers to itself");
        }
        match self.values.get(name) {
            Some((value, _)) => self.expand(value, depth + 1, left, out),
            None => self.expand(&self.default(name), depth + 1, left, out),
        }
    }

    /// Postfix' own defaults, of the parameters that others refer to or that decide something here.
    fn default(&self, name: &str) -> String {
        match name {
            "config_directory" => self.directory.clone(),
            "mydomain" => self
                .values
                .get("myhostname")
                .and_then(|(host, _)| host.split_once('.'))
                .map_or_else(|| "localdomain".to_owned(), |(_, domain)| domain.to_owned()),
            "myorigin" => "$myhostname".to_owned(),
            "mydestination" => "$myhostname, localhost.$mydomain, localhost".to_owned(),
            "inet_interfaces" | "inet_protocols" => "all".to_owned(),
            "default_database_type" => "hash".to_owned(),
            "default_transport" => "smtp".to_owned(),
            "mail_name" => "Postfix".to_owned(),
            "smtpd_tls_key_file" => "$smtpd_tls_cert_file".to_owned(),
            "smtp_tls_key_file" => "$smtp_tls_cert_file".to_owned(),
            "compatibility_level" => "0".to_owned(),
            "smtpd_relay_restrictions" => {
                "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination".to_owned()
            }
            "parent_domain_matches_subdomains" => "relay_domains, smtpd_access_maps".to_owned(),
            _ => String::new(),
        }
    }

    fn expand(
        &self,
        text: &str,
        depth: usize,
        left: &mut usize,
        out: &mut String,
    ) -> Result<(), &'static str> {
        if depth > DEEPEST {
            return Err("it refers to itself");
        }
        let mut rest = text;
        loop {
            *left = left
                .checked_sub(1)
                .ok_or("it is too long, with what it refers to")?;
            let Some(at) = rest.find('$') else {
                return push(rest, left, out);
            };
            push(&rest[..at], left, out)?;
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('$') {
                push("$", left, out)?;
                rest = behind;
            } else if rest.starts_with(['{', '(']) {
                let end = closing(rest).ok_or("a brace is not closed")?;
                self.braced(rest[1..end].trim(), depth, left, out)?;
                rest = &rest[end + 1..];
            } else {
                let end = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                if end == 0 {
                    push("$", left, out)?;
                } else {
                    self.lookup(&rest[..end], depth, left, out)?;
                }
                rest = &rest[end..];
            }
        }
    }

    /// `name`, `name?text`, `name:text`, `name?{text}:{text}`, `{a} == {b}?{text}:{text}`.
    fn braced(
        &self,
        inner: &str,
        depth: usize,
        left: &mut usize,
        out: &mut String,
    ) -> Result<(), &'static str> {
        let (is_true, rest) = if inner.starts_with('{') {
            self.comparison(inner, depth, left)?
        } else {
            let end = inner
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(inner.len());
            let rest = inner[end..].trim_start();
            if rest.is_empty() {
                return self.lookup(&inner[..end], depth, left, out);
            }
            let mut value = String::new();
            self.lookup(&inner[..end], depth, left, &mut value)?;
            (!value.is_empty(), rest)
        };
        let (yes, no) = branches(rest)?;
        self.expand(if is_true { yes } else { no }, depth + 1, left, out)
    }

    fn comparison<'a>(
        &self,
        text: &'a str,
        depth: usize,
        left: &mut usize,
    ) -> Result<(bool, &'a str), &'static str> {
        let odd = "a condition is not understood";
        let first_end = closing(text).ok_or(odd)?;
        let rest = text[first_end + 1..].trim_start();
        let second = rest.find('{').ok_or(odd)?;
        let (operator, rest) = (rest[..second].trim(), &rest[second..]);
        let second_end = closing(rest).ok_or(odd)?;
        let (mut one, mut other) = (String::new(), String::new());
        self.expand(text[1..first_end].trim(), depth + 1, left, &mut one)?;
        self.expand(rest[1..second_end].trim(), depth + 1, left, &mut other)?;
        let (operator, is_level) = match operator.strip_suffix("level") {
            Some(operator) => (operator.trim(), true),
            None => (operator, false),
        };
        let order = match (one.parse::<u64>(), other.parse::<u64>()) {
            (Ok(one), Ok(other)) => one.cmp(&other),
            // 3.6 is before 3.10 there.
            _ if is_level => level(&one).cmp(&level(&other)),
            _ => one.cmp(&other),
        };
        let is_true = match operator {
            "==" => order.is_eq(),
            "!=" => order.is_ne(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            ">=" => order.is_ge(),
            _ => return Err(odd),
        };
        Ok((is_true, rest[second_end + 1..].trim_start()))
    }
}

/// The parts of a `compatibility_level`.
fn level(text: &str) -> Vec<u64> {
    let mut parts: Vec<u64> = text
        .split('.')
        .take(3)
        .map(|part| part.trim().parse().unwrap_or_default())
        .collect();
    parts.resize(3, 0);
    parts
}

/// What stands behind `?` and behind `:`.
fn branches(text: &str) -> Result<(&str, &str), &'static str> {
    let odd = "a condition is not understood";
    if let Some(no) = text.strip_prefix(':') {
        return Ok(("", bare(no)));
    }
    let yes = text.strip_prefix('?').ok_or(odd)?.trim_start();
    if !yes.starts_with('{') {
        return Ok((yes, ""));
    }
    let end = closing(yes).ok_or(odd)?;
    let rest = yes[end + 1..].trim_start();
    let no = rest.strip_prefix(':').map_or("", bare);
    Ok((yes[1..end].trim(), no))
}

fn bare(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .map_or(text, str::trim)
}

/// Where the brace at the start is closed.
fn closing(text: &str) -> Option<usize> {
    let (open, close) = if text.starts_with('(') {
        ('(', ')')
    } else {
        ('{', '}')
    };
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

fn push(text: &str, left: &mut usize, out: &mut String) -> Result<(), &'static str> {
    *left = left
        .checked_sub(text.len())
        .ok_or("it is too long, with what it refers to")?;
    out.push_str(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> String {
        let parsed = MainCf::parse(text, None, "/etc/postfix").unwrap();
        parsed
            .value(name)
            .unwrap_or_else(|fault| format!("! {}", fault.why))
    }

    #[test]
    fn values_are_read_as_postfix_does() {
        fn check(text: &str, expected: &str) {
            assert_eq!(value(text, "x"), expected, "{text}");
        }
        check("x = a\n", "a");
        check("x = a\nx = b\n", "b");
        check("# c\nx = a,\n  # between\n\n  b\n", "a, b");
        check("y = 1\nx = $y ${y} $(y) $$y\n", "1 1 1 $y");
        check("x = $config_directory/sasl\n", "/etc/postfix/sasl");
        check(
            "myhostname = a.corp.example\nx = $mydomain $myorigin\n",
            "corp.example a.corp.example",
        );
        check("x = ${y?yes}${y:no}\n", "no");
        check("y = 1\nx = ${y?{yes}:{no}}\n", "yes");
        check(
            "x = ${{$compatibility_level} <level {2} ? {old} : {new}}\n",
            "old",
        );
        check(
            "compatibility_level = 3.6\nx = ${{$compatibility_level} <level {2} ? {old} : {new}}\n",
            "new",
        );
        for (level, expected) in [
            ("3.6", "new"),
            ("3.10", "new"),
            ("2", "old"),
            ("3.2", "old"),
        ] {
            check(
                &format!(
                    "compatibility_level = {level}\nx = ${{{{$compatibility_level}} >=level {{3.6}} ? {{new}} : {{old}}}}\n"
                ),
                expected,
            );
        }
        check("x = $\n", "$");
        check("x = $x\n", "! x: it refers to itself");
        check("x = $y\ny = ${z}\nz = $x\n", "! x: it refers to itself");
        check("x = ${y\n", "! x: a brace is not closed");
    }

    #[test]
    fn a_value_that_doubles_itself_ends() {
        let doubled = |n: u32| format!("a{n} = $a{0}$a{0}\nb{n} = $b{0}$b{0}\n", n - 1);
        let lines: Vec<String> = (1..40).map(doubled).collect();
        let bomb = format!("a0 = lololol\nb0 =\n{}", lines.concat());
        for x in ["$a39", "$b39"] {
            assert_eq!(
                value(&format!("{bomb}x = {x}\n"), "x"),
                "! x: it is too long, with what it refers to"
            );
        }
    }

    #[test]
    fn what_is_no_main_cf_is_said_so() {
        for (text, line) in [
            ("", None),
            ("# only this\n", None),
            ("a = b\nnonsense\n", Some(2)),
            ("<xml a=\"b\">\n", Some(1)),
        ] {
            let fault = MainCf::parse(text, None, "").unwrap_err();
            assert_eq!(fault.place.map(|place| place.line), line, "{text}");
        }
    }

    #[test]
    fn braces_keep_words_together() {
        assert_eq!(
            words("hash:/a, inline:{ {k = v}, x=y } z"),
            ["hash:/a", "inline:{ {k = v}, x=y }", "z"]
        );
    }
}
