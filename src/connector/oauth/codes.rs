//! The codes of a token endpoint: each with what it means for the mail, and what to do about it.
//!
//! What came is read in `answer`; this is the table, as data, so that it can be read beside its source and checked line
//! by line. It knows every code of Microsoft's reference (`learn.microsoft.com/entra/identity-platform/reference-error-codes`, REF
//! below) that an application with a secret, a certificate, a managed identity or a federated token can meet, and those of a refresh
//! token; codes that the reference leaves out stand with the page that has them.

use crate::mail::{cause, outcome::ObstacleKind};

/// Some codes that mean the same.
#[derive(Debug)]
pub(super) struct KnownCode {
    pub(super) codes: &'static [u64],
    /// `Misconfigured`: an administrator must do something; else it passes by itself, `Throttled` later.
    pub(super) kind: ObstacleKind,
    /// What is broken stands first; what to do about it behind it.
    pub(super) remedy: &'static str,
    /// Where the meaning comes from.
    #[cfg_attr(not(test), expect(dead_code, reason = "for whoever checks the table"))]
    pub(super) source: &'static str,
}

const REF: &str = "reference-error-codes";

const fn ours(codes: &'static [u64], source: &'static str, remedy: &'static str) -> KnownCode {
    KnownCode {
        codes,
        kind: ObstacleKind::Misconfigured,
        remedy,
        source,
    }
}

const fn passes(codes: &'static [u64], kind: ObstacleKind, remedy: &'static str) -> KnownCode {
    KnownCode {
        codes,
        kind,
        remedy,
        source: REF,
    }
}

/// By code.
pub(super) fn known(code: u64) -> Option<&'static KnownCode> {
    TABLE.iter().find(|known| known.codes.contains(&code))
}

/// An error word, nothing longer or stranger.
pub(super) fn word(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(64)
        .collect()
}

/// All of it.
pub(super) const TABLE: &[KnownCode] = &[
    // The secret.
    ours(&[7_000_215, 70_002], REF, cause::SECRET_WRONG.text),
    ours(&[7_000_222], REF, cause::SECRET_EXPIRED.text),
    ours(
        &[7_000_216, 7_000_218, 7_000_219, 900_144, 90_014, 50_192],
        REF,
        cause::CREDENTIAL_UNSEEN.text,
    ),
    ours(&[700_025], REF, cause::APP_PUBLIC.text),
    // Published with the words "MSI identity should not use ClientSecretCredential".
    ours(
        &[7_000_232],
        "managed identities",
        "client_id is that of a managed identity, which has no client secret; write managed_identity, or register an application and set client_id and client_secret to its own",
    ),
    // The certificate.
    ours(&[700_027], REF, cause::CERTIFICATE_UNREGISTERED.text),
    // microsoft-identity-web, Constants.cs: the codes after which it loads the certificate anew.
    ours(
        &[1_000_502, 7_000_274],
        "microsoft-identity-web",
        cause::CERTIFICATE_EXPIRED.text,
    ),
    ours(
        &[7_000_214, 7_000_277],
        "microsoft-identity-web",
        "the certificate has been revoked; make a new one, upload it under Certificates & secrets and set certificate and key to it",
    ),
    ours(
        &[700_030, 50_006, 50_017, 50_048, 50_003, 50_032],
        REF,
        cause::CERTIFICATE_UNREGISTERED.text,
    ),
    ours(&[50_012], REF, cause::CERTIFICATE_UNREGISTERED.text),
    ours(&[700_024, 500_133], REF, cause::CLOCK.text),
    ours(
        &[50_013, 50_027, 50_099, 50_120, 900_384, 700_021],
        REF,
        "the assertion is not accepted; check this machine's clock, that certificate and key belong together, and client_id",
    ),
    // The federated token (learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations).
    ours(
        &[70_021, 700_211, 700_212, 700_213, 700_214, 7_002_138],
        "workload-identity-federation",
        cause::FEDERATED_MISMATCH.text,
    ),
    ours(
        &[70_025],
        "workload-identity-federation",
        "the application has no federated credential; add one with issuer, subject and audience of the token of federated_token_file under Certificates & secrets, Federated credentials",
    ),
    // learn.microsoft.com/azure/devops/pipelines/release/troubleshoot-workload-identity; the second also as a missing match.
    ours(
        &[700_223, 700_238, 7_002_381],
        "troubleshoot-workload-identity",
        cause::FEDERATED_MISMATCH.text,
    ),
    // docs.gitlab.com/ci/cloud_services/azure.
    ours(
        &[501_661],
        "docs.gitlab.com/ci/cloud_services/azure",
        "the keys of the federated credential's issuer could not be fetched; its address must answer /.well-known/openid-configuration to anyone",
    ),
    ours(
        &[700_229],
        REF,
        "the token of federated_token_file is of the wrong kind for a federated credential; it must be one issued to an application or a platform, not to a user",
    ),
    // The application.
    ours(&[700_016, 700_011, 70_001], REF, cause::APP_UNKNOWN.text),
    ours(&[7_000_229], REF, cause::APP_NO_PRINCIPAL.text),
    ours(&[7_000_112, 1_000_031], REF, cause::APP_DISABLED.text),
    ours(
        &[7_000_114],
        REF,
        "the application is switched off for this, or may not ask for tokens in this way; correct client_id, and check under Enterprise applications, Properties that it is a registration of your own [app-disabled]",
    ),
    // The tenant.
    ours(
        &[90_002, 50_059, 50_128, 90_019, 900_021, 900_023],
        REF,
        cause::TENANT_UNKNOWN.text,
    ),
    ours(
        &[9_001_023, 50_194, 90_124, 90_130, 9_002_332],
        REF,
        cause::TENANT_COMMON.text,
    ),
    ours(
        &[900_382, 900_432, 90_038, 90_051, 90_043, 1_000_104],
        REF,
        cause::CLOUD_WRONG.text,
    ),
    // learn.microsoft.com/troubleshoot/entra/entra-id/governance/inactive-tenant.
    ours(
        &[5_000_224, 5_000_225],
        "inactive-tenant",
        "the tenant is blocked, or was closed because nobody used it; its administrator must reopen it",
    ),
    ours(
        &[500_021, 500_022, 50_002, 500_212, 500_213],
        REF,
        cause::TENANT_RESTRICTED.text,
    ),
    // Consent and roles.
    ours(
        &[
            65_001, 90_094, 90_095, 90_008, 65_004, 65_002, 90_099, 9_002_341,
        ],
        REF,
        cause::CONSENT_MISSING.text,
    ),
    ours(
        &[500_011, 650_054, 650_056, 650_057, 65_005, 50_001],
        REF,
        cause::RESOURCE_UNKNOWN.text,
    ),
    ours(&[500_014], REF, cause::RESOURCE_OFF.text),
    ours(&[650_052], REF, cause::RESOURCE_OFF.text),
    ours(&[50_105, 501_051], REF, cause::NOT_ASSIGNED.text),
    ours(
        &[
            70_011, 1_002_012, 28_002, 28_003, 700_022, 700_023, 90_009, 901_002,
        ],
        REF,
        cause::SCOPE_WRONG.text,
    ),
    // Policies.
    ours(
        &[
            53_000, 53_001, 53_002, 53_003, 53_004, 53_010, 53_011, 50_005, 50_131, 50_097, 50_129,
            50_155, 50_187, 530_032, 530_033, 530_034, 530_035, 530_036,
        ],
        REF,
        cause::ACCESS_POLICY_ENTRA.text,
    ),
    // The request. What is wrong with it is ours or the URL's.
    ours(
        &[
            90_004, 90_005, 90_023, 9_002_313, 90_100, 90_102, 90_117, 90_121, 900_561, 90_056,
            70_003, 90_010, 90_013, 90_015, 50_029, 50_049, 50_050,
        ],
        REF,
        "the endpoint does not understand the request; check token_url or login_url, tenant_id and client_id, and that no proxy changes what is sent",
    ),
    // The user of a refresh token.
    ours(
        &[
            50_034, 50_020, 50_014, 51_004, 16_000, 16_003, 90_072, 500_208, 50_197, 90_027,
        ],
        REF,
        "the user is not in this tenant; correct tenant_id (\"consumers\" for Outlook.com), and mailbox",
    ),
    ours(
        &[
            50_053, 50_055, 50_056, 50_057, 50_064, 50_126, 50_135, 50_144, 80_012,
        ],
        REF,
        cause::USER_LOCKED.text,
    ),
    ours(
        &[
            50_072, 50_074, 50_076, 50_078, 50_079, 50_125, 50_158, 50_161,
        ],
        REF,
        cause::SECOND_FACTOR.text,
    ),
    ours(
        &[
            50_058, 50_173, 50_089, 50_132, 50_133, 50_085, 50_139, 50_140, 50_143, 54_005, 70_000,
            70_008, 70_043, 700_005, 700_020, 700_081, 700_082, 700_084,
        ],
        REF,
        cause::REFRESH_ENDED.text,
    ),
    // What passes by itself.
    passes(
        &[
            50_000, 50_033, 50_087, 70_012, 90_006, 90_012, 90_024, 90_033, 90_036, 90_090, 90_091,
            90_092, 80_001, 80_002, 80_005, 80_014, 40_008, 40_010, 501_621,
        ],
        ObstacleKind::Down,
        "Entra has an outage; there is nothing to do here",
    ),
    passes(
        &[50_196, 90_055, 50_088, 50_166],
        ObstacleKind::Throttled,
        "too many tokens were asked for; check that nothing else on this machine asks for tokens of this application in a loop",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_stands_once_and_has_a_remedy_and_a_source() {
        let mut seen = HashSet::new();
        for known in TABLE {
            assert!(!known.codes.is_empty() && !known.source.is_empty());
            assert!(
                known.remedy.is_ascii() && known.remedy.len() > 20,
                "{known:?}"
            );
            for code in known.codes {
                assert!(seen.insert(code), "{code} stands twice");
            }
        }
        assert_eq!(known(1).map(|known| known.remedy), None);
    }

    #[test]
    fn the_page_knows_no_code_that_the_table_does_not() {
        let page = include_str!("../../../docs/exchange-online.md");
        let mut count = 0;
        for (at, mark) in page.match_indices("AADSTS") {
            let rest = &page[at + mark.len()..];
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if let Ok(code) = digits.parse() {
                assert!(known(code).is_some(), "AADSTS{code}");
                count += 1;
            }
        }
        assert!(count > 40, "{count}");
    }
}
