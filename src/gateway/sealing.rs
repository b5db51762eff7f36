//! Secrets that gateways share through the queue's database lie there sealed: AES-256-GCM, the note's key as additional data, so that one
//! cannot be put in the place of another.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::config::cluster::SealingKey;

/// What a sealed value begins with.
const SEALED: &str = "sealed ";

/// Seals a value by the first of the keys. Without a key it stays as it is: who is alone keeps it on a disk of his own.
///
/// # Errors
/// The library cannot.
pub(super) fn seal(keys: &[SealingKey], note: &str, value: &str) -> Result<String, String> {
    let Some(key) = keys.first() else {
        return Ok(value.to_owned());
    };
    let key =
        RandomizedNonceKey::new(&AES_256_GCM, &key.0).map_err(|_| "cluster.key cannot be used")?;
    let mut octets = value.as_bytes().to_vec();
    let nonce = key
        .seal_in_place_append_tag(Aad::from(note.as_bytes()), &mut octets)
        .map_err(|_| "it cannot be sealed")?;
    let whole = [nonce.as_ref().as_slice(), &octets].concat();
    Ok(format!("{SEALED}{}", STANDARD.encode(whole)))
}

/// What was sealed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsealed {
    pub(super) value: String,
    /// As it would be sealed now.
    pub(super) is_by_first: bool,
}

/// Opens a value by whichever of the keys it was sealed with. One that was never sealed is as it stands.
///
/// # Errors
/// No key opens it: a sentence.
pub(super) fn open(keys: &[SealingKey], note: &str, value: &str) -> Result<Unsealed, String> {
    let Some(sealed) = value.strip_prefix(SEALED) else {
        return Ok(Unsealed {
            value: value.to_owned(),
            is_by_first: keys.is_empty(),
        });
    };
    let refused = || {
        "what another gateway has written cannot be opened: every gateway needs the same cluster.key, and the one before as well after a change".to_owned()
    };
    let whole = STANDARD.decode(sealed).map_err(|_| refused())?;
    let (nonce, octets) = whole.split_at_checked(NONCE_LEN).ok_or_else(refused)?;
    for (at, key) in keys.iter().enumerate() {
        let Ok(key) = RandomizedNonceKey::new(&AES_256_GCM, &key.0) else {
            continue;
        };
        let Ok(nonce) = Nonce::try_assume_unique_for_key(nonce) else {
            continue;
        };
        let mut octets = octets.to_vec();
        if let Ok(text) = key.open_in_place(nonce, Aad::from(note.as_bytes()), &mut octets) {
            let value = String::from_utf8(text.to_vec()).map_err(|_| refused())?;
            let is_by_first = at == 0;
            return Ok(Unsealed { value, is_by_first });
        }
    }
    Err(refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_its_key_and_in_its_place_alone() {
        let (one, two) = (SealingKey([1; 32]), SealingKey([2; 32]));
        let sealed = seal(std::slice::from_ref(&one), "note", "a secret").unwrap();
        assert!(sealed.starts_with(SEALED) && !sealed.contains("secret"));
        assert_ne!(
            sealed,
            seal(std::slice::from_ref(&one), "note", "a secret").unwrap(),
            "no nonce twice"
        );
        // After a change of the key the old one still opens.
        let both = [two.clone(), one.clone()];
        let opened = |is_by_first| {
            let value = "a secret".to_owned();
            Ok(Unsealed { value, is_by_first })
        };
        assert_eq!(open(&both, "note", &sealed), opened(false));
        let anew = seal(&both, "note", "a secret").unwrap();
        assert_eq!(open(&both, "note", &anew), opened(true));
        assert_eq!(open(&both, "note", "a secret"), opened(false));
        assert!(open(&[two], "note", &sealed).is_err());
        assert!(open(&both, "other", &sealed).is_err());
        let mut broken = STANDARD
            .decode(sealed.strip_prefix(SEALED).unwrap())
            .unwrap();
        broken[NONCE_LEN] ^= 1;
        let broken = format!("{SEALED}{}", STANDARD.encode(broken));
        for value in [broken.as_str(), "sealed ", "sealed AAAA", "sealed ?"] {
            let why = open(&both, "note", value).unwrap_err();
            assert!(why.contains("cluster.key"), "{why}");
        }
    }

    #[test]
    fn who_is_alone_seals_nothing() {
        assert_eq!(seal(&[], "note", "text").as_deref(), Ok("text"));
        let opened = open(&[], "note", "text").unwrap();
        assert_eq!((opened.value.as_str(), opened.is_by_first), ("text", true));
    }
}
