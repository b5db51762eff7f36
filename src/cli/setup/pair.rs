//! The files of a new key: its certificate, and the script that makes it known. Made in memory; `staging` writes them.

use super::{
    super::{
        exit::{CommandError, Exit},
        output,
    },
    staging::{Audience, NewFile},
};
use crate::{
    config::Environment,
    connector::newpair::{NewPair, new_pair},
    secret::Secret,
};

/// For a certificate and a script any name will do.
pub(super) fn host_or_own(hostname: Option<String>) -> String {
    let own = hostname.unwrap_or_else(|| Environment::of_process().hostname);
    let is_fine = |c: &char| c.is_ascii_alphanumeric() || ".-".contains(*c);
    let host: String = own.chars().filter(is_fine).take(56).collect();
    if host.is_empty() {
        return "localhost".to_owned();
    }
    host
}

/// A pair and the files that it is written to.
pub(super) fn pair_files(
    stem: &str,
    host: &str,
    days: u32,
) -> Result<(NewPair, Vec<NewFile>), CommandError> {
    let pair = new_pair(&format!("postern {host}"), days, output::now())
        .map_err(|why| CommandError::new(Exit::Software, why))?;
    let files = vec![
        NewFile {
            name: format!("{stem}.key"),
            content: pair.key_pem.clone(),
            audience: Audience::Gateway,
        },
        NewFile {
            name: format!("{stem}.pem"),
            content: Secret::new(pair.certificate_pem.clone()),
            audience: Audience::Everybody,
        },
    ];
    Ok((pair, files))
}

/// A script beside them.
pub(super) fn script_file(stem: &str, text: String) -> NewFile {
    NewFile {
        name: format!("{stem}.ps1"),
        content: Secret::new(text),
        audience: Audience::Everybody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_of_a_machine_makes_a_script() {
        assert_eq!(
            host_or_own(Some("relay.corp.example".to_owned())),
            "relay.corp.example"
        );
        assert_eq!(host_or_own(Some("bü'ro\n1".to_owned())), "bro1");
        assert_eq!(host_or_own(Some("'".to_owned())), "localhost");
        assert_eq!(host_or_own(Some("a".repeat(300))).len(), 56);
    }
}
