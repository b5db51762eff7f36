//! SASL PLAIN (RFC 4616), LOGIN and the challenge of CRAM-MD5: what the client says and what the server reads.
//!
//! Both sides of a conversation need it. It checks no password; `listener` does.

use base64::{
    Engine as _,
    alphabet::STANDARD as ALPHABET,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};

use crate::secret::Secret;

/// The challenge `Username:`; a Xerox leaves at any other wording.
pub const LOGIN_USERNAME: &str = "VXNlcm5hbWU6";
/// The challenge `Password:`.
pub const LOGIN_PASSWORD: &str = "UGFzc3dvcmQ6";

/// How a client of ours logs in (RFC 4954 §3). The server's side understands PLAIN and LOGIN, by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Two prompts, never standardised, which devices use.
    Login,
    /// An access token as Google and Microsoft want it.
    Xoauth2,
    /// RFC 7628.
    OauthBearer,
}

impl Mechanism {
    /// As it stands behind AUTH.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::Xoauth2 => "XOAUTH2",
            Mechanism::OauthBearer => "OAUTHBEARER",
        }
    }

    /// Whether it takes an access token.
    pub fn bears_token(self) -> bool {
        matches!(self, Mechanism::Xoauth2 | Mechanism::OauthBearer)
    }
}

/// Why a response is no credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Not base64, not UTF-8 or not in the mechanism's form: 501 5.5.2.
    Syntax,
    /// Readable but never right: empty, or to act as somebody else: 535 5.7.8.
    Never,
}

/// The text of one response; `=` is the empty one (RFC 4954 §4).
///
/// # Errors
/// [`Malformed::Syntax`].
pub fn response(line: &[u8]) -> Result<Secret, Malformed> {
    /// Some old clients leave the padding out.
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &ALPHABET,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let line = line.trim_ascii();
    if line == b"=" {
        return Ok(Secret::default());
    }
    let octets = LENIENT.decode(line).map_err(|_| Malformed::Syntax)?;
    String::from_utf8(octets)
        .map(Secret::new)
        .map_err(|_| Malformed::Syntax)
}

/// User and password of a PLAIN response (RFC 4616 §2). To authorise as another than the one who logs in is refused.
///
/// # Errors
/// [`Malformed`].
pub fn plain(response: &Secret) -> Result<(String, Secret), Malformed> {
    let mut parts = response.reveal().split('\0');
    let (Some(as_whom), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed::Syntax);
    };
    if !as_whom.is_empty() && as_whom != user {
        return Err(Malformed::Never);
    }
    Ok((user.to_owned(), Secret::new(password)))
}

/// The client's PLAIN response, in base64: for the command line or after an empty 334.
pub fn plain_response(user: &str, password: &Secret) -> String {
    STANDARD.encode(format!("\0{user}\0{}", password.reveal()))
}

/// The client's XOAUTH2 response (Google and Microsoft, no RFC), in base64.
pub fn xoauth2_response(user: &str, token: &Secret) -> String {
    STANDARD.encode(format!(
        "user={user}\x01auth=Bearer {}\x01\x01",
        token.reveal()
    ))
}

/// The client's OAUTHBEARER response (RFC 7628 §3.1), in base64. In the name `=` and `,` are written as RFC 5801 §4 has it.
pub fn oauthbearer_response(user: &str, token: &Secret) -> String {
    let user = user.replace('=', "=3D").replace(',', "=2C");
    STANDARD.encode(format!(
        "n,a={user},\x01auth=Bearer {}\x01\x01",
        token.reveal()
    ))
}

/// A text in base64: the client's LOGIN responses.
pub fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// A challenge in the form of RFC 2195 §2, in base64. Nobody looks at what comes back, so it need not be fresh.
pub fn cram_challenge(hostname: &str) -> String {
    STANDARD.encode(format!("<0.0@{hostname}>"))
}

/// The secret in every form in which a login says it, so that nobody repeats one.
pub fn forms(user: &str, secret: &Secret) -> Vec<Secret> {
    // Of base64 of something that the secret stands in, what the secret alone makes: it begins at any of three places.
    let inside = |before: usize| {
        let text = base64(&("x".repeat(before) + secret.reveal()));
        text.get(4..text.len() - 4).unwrap_or_default().to_owned()
    };
    [
        secret.reveal().to_owned(),
        plain_response(user, secret),
        xoauth2_response(user, secret),
        oauthbearer_response(user, secret),
        base64(secret.reveal()),
        inside(1),
        inside(2),
        percent(secret.reveal()),
    ]
    .into_iter()
    .filter(|form| !form.is_empty())
    .map(Secret::new)
    .collect()
}

/// RFC 3986 §2.1.
fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, octet| {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            out.push(octet as char);
        } else {
            let _ = write!(out, "%{octet:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_responses() {
        let token = Secret::new("TESTTOKEN");
        assert_eq!(
            xoauth2_response("relay@example.com", &token),
            "dXNlcj1yZWxheUBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciBURVNUVE9LRU4BAQ=="
        );
        assert_eq!(
            oauthbearer_response("a=b,c@d", &token),
            base64("n,a=a=3Db=2Cc@d,\x01auth=Bearer TESTTOKEN\x01\x01")
        );
    }

    fn check(text: &str, expected: Result<(&str, &str), Malformed>) {
        let read = response(base64(text).as_bytes()).and_then(|r| plain(&r));
        let read = read
            .as_ref()
            .map(|(u, p)| (u.as_str(), p.reveal()))
            .map_err(|e| *e);
        assert_eq!(read, expected, "{text:?}");
    }

    #[test]
    fn plain_responses() {
        check("\0erp\0secret", Ok(("erp", "secret")));
        check("erp\0erp\0secret", Ok(("erp", "secret")));
        check("\0\u{e4}\0\u{f6}", Ok(("\u{e4}", "\u{f6}")));
        check("boss\0erp\0secret", Err(Malformed::Never));
        check("erp\0secret", Err(Malformed::Syntax));
        check("\0a\0b\0c", Err(Malformed::Syntax));
        check("", Err(Malformed::Syntax));
        let said = plain_response("erp", &Secret::new("secret"));
        assert_eq!(said, "AGVycABzZWNyZXQ=");
        assert_eq!(base64("Username:"), LOGIN_USERNAME);
        assert_eq!(base64("Password:"), LOGIN_PASSWORD);
    }

    #[test]
    fn responses() {
        for (line, expected) in [
            ("=", Ok("")),
            ("", Ok("")),
            ("ZXJw", Ok("erp")),
            ("c2VjcmU=", Ok("secre")),
            ("c2VjcmU", Ok("secre")),
            ("!!!", Err(Malformed::Syntax)),
            ("gICA", Err(Malformed::Syntax)),
        ] {
            let read = response(line.as_bytes());
            assert_eq!(
                read.as_ref().map(Secret::reveal),
                expected.as_ref().map(|s| *s)
            );
        }
    }
}
