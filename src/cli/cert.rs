//! `postern cert`: a private CA and a certificate for the listeners.
//!
//! An existing CA is kept, since devices may already trust it. It does not touch the configuration.

use std::{
    fs,
    io::Write as _,
    net::IpAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};
use time::{Duration, OffsetDateTime};

use super::{
    exit::{CommandError, Ended, Exit},
    output,
};
use crate::mail::address::Domain;
use crate::mail::text::shown;

mod fetch;
mod offer;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<CertCommand>,
    /// Where the files go
    #[arg(long, value_name = "DIRECTORY", default_value = "certs")]
    dir: PathBuf,
    /// A name that devices use for the gateway; may be given several times
    #[arg(long, value_name = "NAME", required_unless_present = "ip")]
    name: Vec<String>,
    /// An address that devices use for the gateway; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// How long the relay's certificate is valid
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// A certificate with an RSA key, of an RSA CA of its own, for devices with old TLS: `old_certificate` of the listener
    #[arg(long)]
    rsa: bool,
    /// Overwrite an existing relay certificate and key (never the CA)
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Subcommand)]
enum CertCommand {
    /// Print the certificate that a server shows, in PEM, to be pinned as `ca_file`; and its SHA-256, to be compared
    Fetch(fetch::FetchArguments),
}

/// Where everything was put.
#[derive(Debug)]
pub(super) struct CertificateFiles {
    pub(super) ca: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    kept_ca: bool,
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    if let Some(CertCommand::Fetch(arguments)) = &arguments.command {
        return fetch::run(arguments);
    }
    let mut names = Vec::new();
    for name in &arguments.name {
        let bare = name.strip_prefix("*.").unwrap_or(name);
        let domain = Domain::parse(bare)
            .ok()
            .filter(|domain| !domain.is_literal())
            .ok_or_else(|| {
                CommandError::new(
                    Exit::Usage,
                    format_args!(
                        "--name {}: not a host name (addresses go to --ip)",
                        shown(name)
                    ),
                )
            })?;
        names.push(if bare.len() == name.len() {
            domain.to_string()
        } else {
            format!("*.{domain}")
        });
    }
    names.extend(arguments.ip.iter().map(ToString::to_string));
    let made = if arguments.rsa {
        make_of(
            &RSA,
            &arguments.dir,
            "rsa",
            &names,
            arguments.days,
            arguments.force,
        )?
    } else {
        make(
            &arguments.dir,
            "relay",
            &names,
            arguments.days,
            arguments.force,
        )?
    };
    let ca = if made.kept_ca { "kept" } else { "made" };
    if arguments.rsa {
        return tell_rsa(ca, &made, &names);
    }
    output::line(format_args!(
        "{ca}  {}  the CA: devices that check certificates must trust it\n\
         made  {}  the relay's certificate for {}\n\
         made  {}  its key: readable by you alone\n\n\
         In the configuration:\n\n\
         [[listener]]\n\
         name = \"devices\"\n\
         address = \"[::]:587\"\n\
         tls = \"starttls\"\n\
         certificate = {}\n\
         key = {}\n\n\
         On a device: import {} as a trusted root (\"CA certificate\"), and give the gateway by a name or\n\
         address of the certificate. Debian and Ubuntu: copy it to /usr/local/share/ca-certificates/postern.crt and\n\
         run update-ca-certificates. Keep {} off every other machine.",
        made.ca.display(),
        made.certificate.display(),
        names.join(", "),
        made.key.display(),
        toml::Value::from(made.certificate.display().to_string()),
        toml::Value::from(made.key.display().to_string()),
        made.ca.display(),
        made.ca.with_extension("key").display(),
    ))?;
    Ok(Exit::Ok)
}

/// What was made for old handshakes, and where it belongs.
fn tell_rsa(ca: &str, made: &CertificateFiles, names: &[String]) -> Ended {
    output::line(format_args!(
        "{ca}  {}  the CA with an RSA key: devices that check certificates must trust it\n\
         made  {}  a certificate with an RSA key for {}\n\
         made  {}  its key: readable by you alone\n\n\
         In the configuration, beside certificate and key:\n\n\
         [[listener]]\n\
         old_certificate = {}\n\
         old_key = {}\n\n\
         It is shown to the devices alone whose [[client]] has old_ciphers = true or a min_tls below 1.2, and that know nothing\n\
         better. Keep {} off every other machine.",
        made.ca.display(),
        made.certificate.display(),
        names.join(", "),
        made.key.display(),
        toml::Value::from(made.certificate.display().to_string()),
        toml::Value::from(made.key.display().to_string()),
        made.ca.with_extension("key").display(),
    ))?;
    Ok(Exit::Ok)
}

/// A kind of keys, with a CA of its own.
struct KeyForm {
    /// The file of the CA, without its ending.
    ca: &'static str,
    generate: fn() -> Result<KeyPair, rcgen::Error>,
    /// What the key of a certificate is for.
    usages: &'static [KeyUsagePurpose],
}

const ECDSA: KeyForm = KeyForm {
    ca: "ca",
    generate: KeyPair::generate,
    usages: &[KeyUsagePurpose::DigitalSignature],
};

/// An RSA key takes a secret too: the old key exchange. An old device knows no other signature of a CA either.
const RSA: KeyForm = KeyForm {
    ca: "ca-rsa",
    generate: || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
    usages: &[
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ],
};

/// Makes `NAME.pem` (with the CA behind it) and `NAME.key`, and `ca.pem` and `ca.key` unless they are there.
pub(super) fn make(
    directory: &Path,
    file: &str,
    names: &[String],
    days: u32,
    force: bool,
) -> Result<CertificateFiles, CommandError> {
    make_of(&ECDSA, directory, file, names, days, force)
}

fn make_of(
    form: &KeyForm,
    directory: &Path,
    file: &str,
    names: &[String],
    days: u32,
    force: bool,
) -> Result<CertificateFiles, CommandError> {
    let made = |kept_ca| CertificateFiles {
        ca: directory.join(form.ca).with_extension("pem"),
        certificate: directory.join(file).with_extension("pem"),
        key: directory.join(file).with_extension("key"),
        kept_ca,
    };
    let paths = made(false);
    if !force {
        for path in [&paths.certificate, &paths.key] {
            if path.exists() {
                return Err(CommandError::new(
                    Exit::CannotCreate,
                    format_args!("{} exists; --force overwrites it", path.display()),
                ));
            }
        }
    }
    fs::create_dir_all(directory).map_err(|error| cannot(directory, &error))?;
    let (ca_pem, issuer, kept) = authority(form, &paths.ca)?;

    let key = (form.generate)().map_err(fault)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(fault)?;
    if let Some(name) = names.first() {
        params
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
    }
    let now = OffsetDateTime::from(output::now());
    // From a day ago: the clocks of devices are not exact.
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(i64::from(days));
    params.key_usages = form.usages.to_vec();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).map_err(fault)?;

    write(&paths.key, &key.serialize_pem(), 0o600, force)?;
    write(
        &paths.certificate,
        &format!("{}{ca_pem}", certificate.pem()),
        0o644,
        force,
    )?;
    Ok(made(kept))
}

/// The CA that is there, or a new one.
fn authority(
    form: &KeyForm,
    path: &Path,
) -> Result<(String, Issuer<'static, KeyPair>, bool), CommandError> {
    let key_path = path.with_extension("key");
    if path.exists() || key_path.exists() {
        let pem = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        let key = fs::read_to_string(&key_path).map_err(|error| unreadable(&key_path, &error))?;
        let key = KeyPair::from_pem(&key).map_err(|error| unreadable(&key_path, &error))?;
        let issuer =
            Issuer::from_ca_cert_pem(&pem, key).map_err(|error| unreadable(path, &error))?;
        return Ok((pem, issuer, true));
    }
    let key = (form.generate)().map_err(fault)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(fault)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Postern private CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = OffsetDateTime::from(output::now());
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(3650);
    let certificate = params.self_signed(&key).map_err(fault)?;
    write(&key_path, &key.serialize_pem(), 0o600, false)?;
    write(path, &certificate.pem(), 0o644, false)?;
    Ok((certificate.pem(), Issuer::new(params, key), false))
}

/// Creates the file with its mode from the start: a key is never readable by others, not even for a moment.
pub(super) fn write(path: &Path, text: &str, mode: u32, replace: bool) -> Result<(), CommandError> {
    if replace {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(cannot(path, &error));
            }
            _ => {}
        }
    }
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            // Whatever the umask: a certificate is for everybody.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())
        })
        .map_err(|error| cannot(path, &error))
}

pub(super) fn cannot(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new(
        Exit::CannotCreate,
        format_args!("cannot write {}: {error}", path.display()),
    )
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> CommandError {
    CommandError::new(
        Exit::NoInput,
        format_args!("cannot read {}: {error}", path.display()),
    )
}

fn fault(error: rcgen::Error) -> CommandError {
    CommandError::new(Exit::Software, error)
}
