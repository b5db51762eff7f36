//! The one form of an address that is not ASCII (RFC 6531, RFC 6532): what is judged is what every later reader sees.
//!
//! A text that can be written in several ways, that hides something, or out of which a reader that normalises it makes another
//! address, is no address at all. Domains become A-labels (UTS 46); local parts stay as they came.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup},
};

/// Octets of an address that is not ASCII (RFC 5321 §4.5.3.1.3: 256 with its brackets).
pub(super) const LONGEST: usize = 254;

const NFC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfc();
const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfkc();

/// Whether a local part that is not ASCII is in its one form.
///
/// # Errors
/// The rule that is broken.
pub(super) fn check_local(local: &str) -> Result<(), &'static str> {
    check_characters(local)?;
    let begins = local.chars().next().map(category);
    if begins.is_some_and(|category| GeneralCategoryGroup::Mark.contains(category)) {
        // It would become one with the mark before it: `<` and U+0338 are `≮` to whoever normalises a whole line.
        return Err("the address begins with a combining mark");
    }
    if !NFC.is_normalized(local) {
        return Err("the address is not in the normal form NFC");
    }
    Ok(())
}

/// Whether every character may stand in an address: what is seen, is assigned, and is no mark of ASCII in disguise.
///
/// # Errors
/// The rule that is broken.
pub(super) fn check_characters(text: &str) -> Result<(), &'static str> {
    let hidden = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let mut piece = [0; 4];
    for c in text.chars().filter(|c| !c.is_ascii()) {
        match category(c) {
            GeneralCategory::Control => return Err("the address has a control character"),
            GeneralCategory::Format => {
                return Err("the address has a character that is not seen");
            }
            GeneralCategory::SpaceSeparator
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator => {
                return Err("the address has a blank");
            }
            GeneralCategory::PrivateUse => return Err("the address has a private character"),
            GeneralCategory::Unassigned | GeneralCategory::Surrogate => {
                return Err("the address has a character that is not assigned");
            }
            _ => {}
        }
        if hidden.contains(c) {
            return Err("the address has a character that is not seen");
        }
        // A full-width ＠ is an @ to whoever normalises by NFKC, and so are other marks that part an address.
        let folded = NFKC.normalize(c.encode_utf8(&mut piece));
        if folded
            .chars()
            .any(|c| c.is_ascii() && !c.is_ascii_alphanumeric())
        {
            return Err("the address has a character that stands for a mark of ASCII");
        }
    }
    Ok(())
}

/// The A-labels of a domain that is not ASCII, or has A-labels already, where every label is in its one form: a U-label is what
/// its A-label decodes to (but for case), an A-label decodes to a U-label.
///
/// # Errors
/// The rule that is broken.
pub(super) fn to_ascii(domain: &str) -> Result<String, &'static str> {
    const INVALID: &str = "the domain is not valid by UTS 46";
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if !NFC.is_normalized(domain) {
        return Err("the domain is not in the normal form NFC");
    }
    let ascii = idna::domain_to_ascii(domain).map_err(|_| INVALID)?;
    let (unicode, valid) = idna::domain_to_unicode(&ascii);
    valid.map_err(|_| INVALID)?;
    let mut labels = ascii.split('.').zip(unicode.split('.'));
    for given in domain.split('.') {
        let (a_label, u_label) = labels.next().ok_or(INVALID)?;
        let one_form = if given.is_ascii() { a_label } else { u_label };
        if lower(given) != one_form {
            return Err("the domain is not in the one form that UTS 46 gives it");
        }
        if u_label.starts_with('-') || u_label.ends_with('-') {
            return Err("a label of the domain begins or ends with -");
        }
    }
    if labels.next().is_some() {
        return Err(INVALID);
    }
    Ok(ascii)
}

/// In lower case, character by character, so that a part of a text becomes the same part of the lower text. What patterns are
/// compared in.
pub fn lower(text: &str) -> Cow<'_, str> {
    if text
        .bytes()
        .all(|b| b.is_ascii() && !b.is_ascii_uppercase())
    {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().flat_map(char::to_lowercase).collect())
}

/// In NFC, as a file or a form may not have it.
pub fn composed(text: &str) -> Cow<'_, str> {
    NFC.normalize(text)
}

/// As a reader sees it who normalises by NFKC.
pub(super) fn folded(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    NFKC.normalize(text)
}

fn category(c: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_parts() {
        for fine in [
            "b\u{fc}ro",
            "\u{43f}\u{43e}\u{447}\u{442}\u{430}",
            "\u{90a}\u{92e}\u{932}",
            "\u{7528}\u{6237}",
            "stra\u{df}e",
            "\u{5d0}\u{5d1}",
            "a.\u{e9}",
            "\u{1f4ee}",
            "x\u{b2}",
        ] {
            assert_eq!(check_local(fine), Ok(()), "{fine}");
        }
        for (bad, word) in [
            ("bu\u{308}ro", "NFC"),
            ("\u{212a}elvin", "NFC"),
            ("\u{308}x", "combining"),
            ("\u{338}x", "combining"),
            ("x\u{85}", "control"),
            ("x\u{202e}y", "not seen"),
            ("x\u{200b}", "not seen"),
            ("x\u{ad}y", "not seen"),
            ("x\u{fe0f}", "not seen"),
            ("\u{3164}", "not seen"),
            ("\u{115f}", "not seen"),
            ("\u{e0041}", "not seen"),
            ("x\u{a0}y", "blank"),
            ("x\u{2028}", "blank"),
            ("x\u{3000}", "blank"),
            ("\u{e000}", "private"),
            ("\u{10fffd}", "private"),
            ("\u{378}", "not assigned"),
            ("\u{ffff}", "not assigned"),
            ("\u{fdd0}", "not assigned"),
        ] {
            let said = check_local(bad).unwrap_err();
            assert!(said.contains(word), "{bad:?}: {said}");
        }
    }

    #[test]
    fn attack_marks_in_disguise() {
        for mark in [
            '\u{ff20}', '\u{fe6b}', '\u{ff05}', '\u{fe6a}', '\u{ff01}', '\u{fe57}', '\u{ff0e}',
            '\u{fe52}', '\u{2024}', '\u{2025}', '\u{2026}', '\u{ff1c}', '\u{fe64}', '\u{ff1e}',
            '\u{fe65}', '\u{ff02}', '\u{ff0c}', '\u{fe50}', '\u{ff1b}', '\u{fe54}', '\u{ff1a}',
            '\u{fe55}', '\u{ff3c}', '\u{fe68}', '\u{2048}', '\u{203c}', '\u{37e}', '\u{2a74}',
            '\u{2100}', '\u{ff0f}', '\u{ff5c}', '\u{ff0d}', '\u{2474}', '\u{ff1d}', '\u{ff1f}',
        ] {
            assert!(check_local(&format!("a{mark}b")).is_err(), "{mark:?}");
        }
    }

    #[test]
    fn domains() {
        for (given, expected) in [
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("B\u{dc}cher.Example.", "xn--bcher-kva.example"),
            ("XN--Bcher-KVA.b\u{fc}cher", "xn--bcher-kva.xn--bcher-kva"),
            ("fa\u{df}.example", "xn--fa-hia.example"),
            (
                "\u{645}\u{62b}\u{627}\u{644}.example",
                "xn--mgbh0fb.example",
            ),
        ] {
            assert_eq!(to_ascii(given).as_deref(), Ok(expected), "{given}");
        }
        for bad in [
            // Mapped, not what was written.
            "b\u{fc}cher\u{ff0e}example",
            "b\u{fc}cher\u{3002}example",
            "bu\u{308}cher.example",
            "\u{ff42}\u{fc}cher.example",
            "b\u{fc}\u{ad}cher.example",
            "\u{212b}.example",
            "corp\u{ff20}evil.example",
            // A-labels that are no label's.
            "xn--a.b\u{fc}cher",
            "xn--corp-.b\u{fc}cher",
            "xn--bu-cher-kva.b\u{fc}cher",
            "xn--a",
            // Two directions in one label.
            "\u{5d0}a.example",
            "\u{338}x.example",
            "-\u{fc}.example",
            "\u{fc}-.example",
        ] {
            assert!(to_ascii(bad).is_err(), "{bad:?}: {:?}", to_ascii(bad));
        }
    }

    #[test]
    fn lower_case_goes_by_characters() {
        for (text, expected) in [
            ("abc", "abc"),
            ("ABC", "abc"),
            ("B\u{dc}RO", "b\u{fc}ro"),
            (
                "\u{39f}\u{394}\u{39f}\u{3a3}",
                "\u{3bf}\u{3b4}\u{3bf}\u{3c3}",
            ),
            ("\u{130}", "i\u{307}"),
        ] {
            assert_eq!(lower(text), expected, "{text}");
        }
    }
}
