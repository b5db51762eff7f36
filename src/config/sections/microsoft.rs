//! Who asks Microsoft for tokens, and where: the keys that graph and the `oauth` table of smtp share.
//!
//! A credential is written and checked in the same way in both. It asks for no token.

use std::time::SystemTime;

use super::{
    azure,
    cloud::{self, Cloud, Web},
    context::Context,
    files,
    secret::{self, Given},
    token::{Reach, only_one_credential, token_url},
};
use crate::{
    config::{
        file::read_bounded,
        settings::Secrets,
        table::{At, Table},
        values::{self, Fault, fault, is_plain, plain},
    },
    connector::{
        keypair::{Validity, ValidityNow},
        oauth::{Grant, RotationSettings, Settings},
        services,
    },
    mail::cause,
};

/// The metadata service of Azure's machines; its address is the same everywhere and never left.
const METADATA: &str = "http://169.254.169.254";

/// What the token is for.
#[derive(Clone, Copy)]
pub(super) enum For<'a> {
    /// `type = "graph"`, at this Graph where it is not the cloud's.
    Graph(Option<&'a str>),
    /// XOAUTH2 at this host, where it is known.
    Smtp(Option<&'a str>),
}

/// The keys that graph and `provider = "microsoft"` share.
pub(super) fn read(
    context: Context<'_>,
    table: &Table<'_>,
    reach: Reach<'_>,
    cloud: Cloud,
    what_for: For<'_>,
) -> Option<Settings> {
    let is_smtp = matches!(what_for, For::Smtp(_));
    let token_url = if is_smtp { token_url(table) } else { None };
    let login_url = cloud::login_url(table);
    let is_identity = table.has("managed_identity");
    let is_delegated = is_smtp && table.has("refresh_token");
    let tenant = table.parsed("tenant_id", |text| tenant(text, is_delegated));
    if !is_identity && !table.has("token_url") {
        table.requires(
            "tenant_id",
            "tenant_id = \"…\", the directory (tenant) ID of the application's page",
        );
    }
    if let (Some(span), true) = (table.place("login_url"), table.has("token_url")) {
        context.error(&span, fault!("`token_url` already says `login_url`"));
    }
    let scope = scope(table, cloud, what_for, is_delegated);
    let grant = grant(context, table, is_smtp);
    let secret_ends = secret_ends(table);
    let rotation = rotation(context, table, reach, cloud, what_for, scope.as_deref());
    let http = reach.http(context, table);

    let span = ["token_url", "login_url", "cloud"]
        .into_iter()
        .find_map(|key| table.place(key))
        .unwrap_or_else(|| table.span.clone());
    let login = login_url.map(|at| at.value);
    let hosting = is_identity
        .then(|| azure::endpoint(context, table))
        .flatten();
    let token_url = if let Some(At { value, .. }) = token_url {
        value
    } else if let Some(hosting) = hosting {
        hosting
    } else if is_identity {
        let base = login.unwrap_or(Web {
            url: METADATA.to_owned(),
            host: METADATA.trim_start_matches("http://").to_owned(),
        });
        Web {
            url: format!("{}/metadata/identity/oauth2/token", base.url),
            ..base
        }
    } else {
        let base = login.or_else(|| cloud::web(cloud.login()).ok())?;
        Web {
            url: format!("{}/{}/oauth2/v2.0/token", base.url, tenant?.value),
            ..base
        }
    };
    reach.outbound.check(context, &span, &token_url.host);
    let (grant, mut scope) = (grant?, scope?);
    if let Grant::ManagedIdentity { .. } = grant {
        // The metadata service is asked for a resource: the scope without its last word.
        let resource = scope.strip_suffix(".default").unwrap_or(&scope);
        scope = resource.to_owned();
    }
    Some(Settings {
        token_url: token_url.url,
        scope,
        grant,
        secret_ends,
        rotation,
        http,
    })
}

/// Exactly one credential.
fn grant(context: Context<'_>, table: &Table<'_>, is_smtp: bool) -> Option<Grant> {
    let client_id = table.parsed("client_id", guid);
    let client_secret = secret::read(context, table, "client_secret");
    let certificate = files::shown_pair(
        context,
        table,
        "certificate",
        "key",
        if table.flag("rotate") {
            "`postern credentials` says whether another one has taken its place; if not, make a new one with `postern setup exchange --renew`, and name it here"
        } else {
            "make a new one, upload it under Certificates & secrets, and name it here"
        },
    );
    let federated = federated(context, table);
    let basic = table.choice("client_auth", ["post", "basic"]) == "basic";
    let refresh_token = if is_smtp {
        secret::read(context, table, "refresh_token")
    } else {
        None
    };

    let all = [
        "refresh_token",
        "managed_identity",
        "client_secret",
        "certificate",
        "federated_token_file",
    ];
    // A refresh token may need the secret of the application it was given to.
    let is_delegated = is_smtp && table.has("refresh_token");
    let given: Vec<_> = all
        .into_iter()
        .filter(|key| table.has(key))
        .filter(|key| is_smtp || *key != "refresh_token")
        .filter(|key| !is_delegated || *key != "client_secret")
        .collect();
    only_one_credential(table, &given);
    let Some(kind) = given.first().copied() else {
        if !table.has("key") {
            context.error(&table.span, fault!("there is no credential to ask for tokens with";
                "add client_secret = {{ … }}, or certificate and key, or managed_identity = true, or federated_token_file"));
        }
        return None;
    };
    doubt_secret(context, table, client_secret.as_ref());
    if kind == "managed_identity" {
        return managed_identity(context, table);
    }
    table.requires(
        "client_id",
        "client_id = \"…\", the application (client) ID of the application's page",
    );
    let client_id = client_id?.value;
    Some(match kind {
        "client_secret" => Grant::ClientSecret {
            client_id,
            client_secret: client_secret?.secret,
            basic,
        },
        "certificate" => {
            let (certificate, key) = certificate?;
            Grant::Certificate {
                client_id,
                certificate,
                key,
            }
        }
        "federated_token_file" => Grant::Federated {
            client_id,
            file: federated?,
        },
        _ => Grant::RefreshToken {
            client_id,
            client_secret: client_secret.map(|given| given.secret),
            refresh_token: refresh_token?.secret,
        },
    })
}

/// Of a machine in Azure, in its hosting, or with the agent of Azure Arc.
fn managed_identity(context: Context<'_>, table: &Table<'_>) -> Option<Grant> {
    for key in ["client_id", "tenant_id"] {
        if let Some(span) = table.place(key) {
            context.error(
                &span,
                fault!("a managed identity needs no `{key}`";
                    "a user-assigned identity is written managed_identity = \"CLIENT ID\""),
            );
        }
    }
    let At { value, span } = table.true_or_text("managed_identity")?;
    let client_id = value.map(guid).transpose();
    match client_id {
        Ok(client_id) => Some(Grant::ManagedIdentity {
            client_id,
            host: azure::host(context, table),
        }),
        Err(fault) => {
            context.error(&span, fault);
            None
        }
    }
}

/// What is said of a secret, or of how it is sent, and cannot be meant.
fn doubt_secret(context: Context<'_>, table: &Table<'_>, client_secret: Option<&Given>) {
    if let (Some(span), false) = (table.place("client_auth"), table.has("client_secret")) {
        context.error(
            &span,
            fault!("`client_auth` says how a `client_secret` is sent, and there is none"),
        );
    }
    if let Some(given) =
        client_secret.filter(|given| given.known && guid(given.secret.reveal()).is_ok())
    {
        context.warning(
            &given.span,
            fault!("this looks like the ID of the client secret, not like its value";
                "the portal shows the value once, when the secret is made; the ID does not log in (AADSTS7000215)")
            .of(cause::SECRET_ID),
        );
    }
}

/// `rotate` and `rotate_retire`.
fn rotation(
    context: Context<'_>,
    table: &Table<'_>,
    reach: Reach<'_>,
    cloud: Cloud,
    what_for: For<'_>,
    scope: Option<&str>,
) -> Option<RotationSettings> {
    let (is_on, retire) = (table.flag("rotate"), table.duration("rotate_retire"));
    let given = match what_for {
        For::Graph(graph) => graph.map(str::to_owned),
        For::Smtp(_) => cloud::graph_url(table).map(|given| given.value.url),
    };
    if !is_on {
        for key in ["rotate_retire", "graph_url"] {
            let is_its_own = key == "rotate_retire" || matches!(what_for, For::Smtp(_));
            if table.has(key) && is_its_own && !table.has("rotate") {
                table.error(
                    key,
                    fault!("`{key}` is about `rotate`, which is off"; "write rotate = true, or remove `{key}`"),
                );
            }
        }
        return None;
    }
    if !table.has("certificate") {
        table.error(
            "rotate",
            fault!("`rotate` replaces a certificate, and there is none";
                "name certificate and key; a client secret cannot be replaced without the right to change the application"),
        );
        return None;
    }
    let graph_url = given.unwrap_or_else(|| cloud.graph().to_owned());
    if let (For::Smtp(_), Ok(web)) = (what_for, cloud::web(&graph_url)) {
        let span = table.place_or_header("rotate");
        reach.outbound.check(context, &span, &web.host);
    }
    let graph_scope = match (what_for, scope) {
        (For::Graph(_), Some(scope)) => scope.to_owned(),
        _ => format!("{}/.default", cloud.graph()),
    };
    Some(RotationSettings {
        retire,
        graph_url,
        graph_scope,
    })
}

/// `client_secret_expires`.
fn secret_ends(table: &Table<'_>) -> Option<SystemTime> {
    let At { value, .. } = table.day("client_secret_expires")?;
    if !table.has("client_secret") {
        table.error(
            "client_secret_expires",
            fault!("`client_secret_expires` says when a `client_secret` ends, and there is none";
                "remove it; of a certificate the end is known"),
        );
    }
    let (validity, now) = (Validity::until(value), SystemTime::now());
    if let Some(said) = validity.said(now) {
        let fault = Fault::new(
            format!("the client secret {said}"),
            "make a new one under Certificates & secrets, put its Value in the place of the old one, and its day here",
        );
        let fault = match validity.standing(now) {
            ValidityNow::Expired => fault.of(cause::SECRET_EXPIRED),
            _ => fault,
        };
        table.warning("client_secret_expires", fault);
    }
    Some(value)
}

/// Written, or that of the cloud.
fn scope(table: &Table<'_>, cloud: Cloud, what_for: For<'_>, is_delegated: bool) -> Option<String> {
    let given = table.parsed("scope", |text| {
        let is_url = cloud::web(text.split(' ').next().unwrap_or_default()).is_ok();
        if !is_url || !text.chars().all(is_plain) {
            return Err(fault!("this is not a scope"; "write it as in \"https://graph.microsoft.com/.default\""));
        }
        // An application gets what it was granted, all at once, for one resource (AADSTS70011).
        if !is_delegated && (text.contains(' ') || !text.ends_with("/.default")) {
            return Err(fault!("an application's scope is one resource followed by \"/.default\"";
                "write it as in \"https://graph.microsoft.com/.default\""));
        }
        Ok(text.to_owned())
    });
    if table.has("scope") {
        return given.map(|given| given.value);
    }
    let host = match what_for {
        For::Graph(_) => {
            // A Graph elsewhere may be for this cloud all the same: `scope` says when it is not.
            return Some(format!("{}/.default", cloud.graph()));
        }
        For::Smtp(host) => host,
    };
    if is_delegated && cloud == Cloud::Global {
        return Some("https://outlook.office.com/SMTP.Send offline_access".to_owned());
    }
    if host.is_some_and(services::is_high_volume) {
        return Some("https://outlook.office.com/.default".to_owned());
    }
    if host.is_some_and(services::is_communication) && !is_delegated {
        return Some("https://communication.azure.com/.default".to_owned());
    }
    if let Some(scope) = cloud.smtp_scope().filter(|_| !is_delegated) {
        return Some(scope.to_owned());
    }
    table.error(
        "cloud",
        fault!("the scope of SMTP in the cloud \"{}\" is not documented", cloud.name();
            "add scope = \"…\" as Microsoft's support names it"),
    );
    None
}

/// A directory: its id or one of its domains.
fn tenant(text: &str, is_delegated: bool) -> Result<String, Fault> {
    let form = "write the directory (tenant) ID of the application's page, or a domain such as \"corp.onmicrosoft.com\"";
    if let "common" | "organizations" | "consumers" = text {
        if is_delegated {
            return Ok(text.to_owned());
        }
        // AADSTS9001023.
        return Err(Fault::new(
            format!("an application logs in to one tenant, not to \"{text}\""),
            form,
        )
        .of(cause::TENANT_COMMON));
    }
    if let Ok(id) = guid(text) {
        return Ok(id);
    }
    values::domain(text)
        .ok()
        .map(|domain| domain.to_string())
        .filter(|domain| domain.contains('.'))
        .ok_or_else(|| Fault::new(format!("\"{}\" is not a tenant", plain(text)), form))
}

/// `8-4-4-4-12` hexadecimal digits. The text is not shown: it may be a secret in the wrong place.
fn guid(text: &str) -> Result<String, Fault> {
    let lengths = [8, 4, 4, 4, 12];
    let is_guid = text.split('-').count() == lengths.len()
        && text.split('-').zip(lengths).all(|(part, length)| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit())
        });
    if is_guid {
        return Ok(text.to_ascii_lowercase());
    }
    Err(fault!("this is not a client id";
        "it has the form 00000000-0000-0000-0000-000000000000: the application (client) ID of the application's page"))
}

/// The token file of a workload identity; the platform puts it there and changes it.
fn federated(context: Context<'_>, table: &Table<'_>) -> Option<std::path::PathBuf> {
    let At { value, span } = table.parsed("federated_token_file", files::path)?;
    let path = context.path(&value);
    if context.secrets != Secrets::Ignore
        && let Some(why) = read_bounded(&path, 1 << 20).map_or_else(
            |why| Some(format!("cannot be read: {why}")),
            |text| text.trim_ascii().is_empty().then(|| "is empty".to_owned()),
        )
    {
        // The platform may put it there later: until then mail waits.
        let shown = plain(&path.to_string_lossy());
        let fault = fault!("{shown} {}", plain(&why); "the platform's projection puts the token there and renews it; until then no mail leaves");
        context.warning(&span, fault.of(cause::FEDERATED_FILE));
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "11111111-2222-3333-4444-55555555abCD";

    #[test]
    fn tenants() {
        fn check(text: &str, is_delegated: bool, expected: bool) {
            assert_eq!(tenant(text, is_delegated).is_ok(), expected, "{text}");
        }
        check(ID, false, true);
        check("corp.onmicrosoft.com", false, true);
        check("common", false, false);
        check("consumers", false, false);
        check("consumers", true, true);
        for text in ["", "…", "corp", "corp.example/x", "a b.example", "../x"] {
            check(text, false, false);
        }
    }

    #[test]
    fn client_ids() {
        assert_eq!(guid(ID).unwrap(), ID.to_lowercase());
        for text in [
            "",
            "…",
            "{11111111-2222-3333-4444-555555555555}",
            "11111111222233334444555555555555",
            "11111111-2222-3333-4444-55555555555g",
            "11111111-2222-3333-4444-555555555555-",
            "hunter2~secret",
        ] {
            let fault = guid(text).unwrap_err();
            assert!(!fault.message.contains("hunter2"));
        }
    }
}
