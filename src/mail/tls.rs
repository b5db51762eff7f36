//! Versions of TLS, and the least that a peer is held to, in the words of configuration, log and page. It speaks none of them.

use std::fmt;

/// A version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 2246.
    V1_0,
    /// RFC 4346.
    V1_1,
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

impl TlsVersion {
    /// The newest first, as the configuration names them.
    pub const ALL: [Self; 4] = [Self::V1_3, Self::V1_2, Self::V1_1, Self::V1_0];

    /// `1.0`, as in the configuration and in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }

    /// Whether a version by this name is one that RFC 8996 forbids.
    pub fn is_obsolete(name: &str) -> bool {
        name == Self::V1_0.as_str() || name == Self::V1_1.as_str()
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS {}", self.as_str())
    }
}

/// The least of TLS that is spoken with somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TlsFloor {
    /// The oldest version.
    pub min: TlsVersion,
    /// TLS 1.2 with CBC or RSA key exchange too. Below 1.2 there is nothing else, so a lower `min` implies it.
    pub old_ciphers: bool,
}

impl Default for TlsFloor {
    fn default() -> Self {
        Self {
            min: TlsVersion::V1_2,
            old_ciphers: false,
        }
    }
}

impl TlsFloor {
    /// Whether it takes what a modern library does not speak.
    pub fn is_old(self) -> bool {
        self.min < TlsVersion::V1_2 || self.min == TlsVersion::V1_2 && self.old_ciphers
    }
}

impl fmt::Display for TlsFloor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min {
            TlsVersion::V1_3 => f.write_str("TLS 1.3"),
            TlsVersion::V1_2 if !self.old_ciphers => f.write_str("TLS 1.2 and newer"),
            TlsVersion::V1_2 => f.write_str("TLS 1.2 and newer, with old ciphers"),
            min => write!(f, "{min} and newer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old() {
        for (min, old_ciphers, is_old, words) in [
            (TlsVersion::V1_3, false, false, "TLS 1.3"),
            (TlsVersion::V1_3, true, false, "TLS 1.3"),
            (TlsVersion::V1_2, false, false, "TLS 1.2 and newer"),
            (
                TlsVersion::V1_2,
                true,
                true,
                "TLS 1.2 and newer, with old ciphers",
            ),
            (TlsVersion::V1_1, false, true, "TLS 1.1 and newer"),
            (TlsVersion::V1_0, true, true, "TLS 1.0 and newer"),
        ] {
            let floor = TlsFloor { min, old_ciphers };
            assert_eq!(floor.is_old(), is_old, "{floor:?}");
            assert_eq!(floor.to_string(), words);
        }
        assert!(!TlsFloor::default().is_old());
        assert!(TlsVersion::is_obsolete("1.0") && TlsVersion::is_obsolete("1.1"));
        assert!(!TlsVersion::is_obsolete("1.2") && !TlsVersion::is_obsolete("failed"));
    }
}
