//! Which of Postfix' parameters are carried over elsewhere, mean nothing to a relay gateway, or are left out, and why.
//!
//! A table. A parameter that is in none of its rows is named as unknown rather than passed over.

/// What is done with a parameter.
pub(super) enum Handling {
    /// Another file of this folder reads it.
    Known,
    /// Of Postfix' own house; nobody misses it.
    Silent,
    LeftOut(&'static str),
    /// It decides who may send or where mail goes.
    Decides(&'static str),
}

const KNOWN: &str = "myhostname mydomain myorigin mynetworks mynetworks_style inet_interfaces inet_protocols message_size_limit \
    maximal_queue_lifetime bounce_notice_recipient relayhost sender_dependent_relayhost_maps transport_maps \
    default_transport relay_transport smtp_fallback_relay fallback_relay smtp_sasl_auth_enable \
    smtp_sasl_password_maps smtp_sender_dependent_authentication smtp_tls_security_level smtp_use_tls \
    smtp_enforce_tls smtp_tls_wrappermode smtp_tls_CAfile smtp_tls_CApath smtp_tls_cert_file smtp_tls_key_file \
    smtp_helo_name smtpd_tls_cert_file smtpd_tls_key_file smtpd_tls_chain_files smtpd_tls_security_level \
    smtpd_use_tls smtpd_enforce_tls smtpd_tls_wrappermode smtpd_tls_auth_only smtpd_sasl_auth_enable \
    sender_canonical_maps smtp_generic_maps smtpd_client_restrictions smtpd_helo_restrictions \
    smtpd_sender_restrictions smtpd_relay_restrictions smtpd_recipient_restrictions smtpd_data_restrictions \
    smtpd_end_of_data_restrictions parent_domain_matches_subdomains default_database_type compatibility_level \
    config_directory mail_name mydestination relay_domains";

const SILENT: &str = "biff append_dot_mydomain append_at_myorigin readme_directory html_directory manpage_directory sample_directory \
    queue_directory command_directory daemon_directory data_directory meta_directory shlib_directory mail_owner \
    setgid_group sendmail_path newaliases_path mailq_path smtpd_banner debug_peer_level debugger_command \
    unknown_local_recipient_reject_code mail_version alias_database recipient_delimiter mailbox_size_limit \
    smtp_tls_session_cache_database smtpd_tls_session_cache_database smtp_tls_loglevel smtpd_tls_loglevel \
    smtp_tls_note_starttls_offer smtpd_tls_received_header tls_random_source maillog_file syslog_name \
    syslog_facility delay_warning_time mail_spool_directory home_mailbox smtpd_relay_before_recipient_restrictions \
    smtpd_delay_reject multi_instance_enable multi_instance_name multi_instance_group smtp_sasl_security_options \
    smtp_sasl_tls_security_options smtp_sasl_mechanism_filter smtpd_sasl_type smtpd_sasl_path \
    smtpd_sasl_local_domain smtpd_sasl_security_options smtpd_sasl_tls_security_options \
    smtpd_sasl_authenticated_header broken_sasl_auth_clients smtpd_helo_required disable_vrfy_command \
    strict_rfc821_envelopes";

const LOCAL: &str = "local delivery: such mail goes the way of all other mail now";
const ELSEWHERE: &str = "who else may send, or where mail goes, is not decided so in Postern: see [[client]], [[user]] and [[route]]";
const CONTENT: &str = "Postern does not look at content, and asks no other program";

const DECIDES: &[(&str, &str)] = &[
    (
        "virtual_alias_maps",
        "recipients are not rewritten: such mail goes to the address that was written",
    ),
    (
        "virtual_alias_domains",
        "recipients are not rewritten: such mail goes to the address that was written",
    ),
    ("virtual_mailbox_domains", LOCAL),
    ("virtual_mailbox_maps", LOCAL),
    ("virtual_transport", LOCAL),
    ("alias_maps", "aliases of local recipients are not asked"),
    ("local_transport", LOCAL),
    ("local_recipient_maps", LOCAL),
    ("mailbox_transport", LOCAL),
    ("mailbox_command", LOCAL),
    ("fallback_transport", LOCAL),
    ("luser_relay", LOCAL),
    ("relocated_maps", "recipients are not looked up"),
    ("relay_recipient_maps", "recipients are not looked up"),
    (
        "canonical_maps",
        "recipients are not rewritten; what it makes of senders belongs into [[rewrite]]",
    ),
    ("recipient_canonical_maps", "recipients are not rewritten"),
    (
        "masquerade_domains",
        "a rewrite makes one address of a domain",
    ),
    ("always_bcc", "nobody gets a copy of all mail"),
    ("sender_bcc_maps", "nobody gets a copy of mail"),
    ("recipient_bcc_maps", "nobody gets a copy of mail"),
    (
        "defer_transports",
        "mail is not held back by its way out; `postern connector stop` holds it back",
    ),
    ("content_filter", CONTENT),
    ("smtpd_proxy_filter", CONTENT),
    ("smtpd_milters", CONTENT),
    ("non_smtpd_milters", CONTENT),
    ("header_checks", CONTENT),
    ("mime_header_checks", CONTENT),
    ("nested_header_checks", CONTENT),
    ("body_checks", CONTENT),
    ("smtp_header_checks", CONTENT),
    ("smtp_body_checks", CONTENT),
    ("sender_dependent_default_transport_maps", ELSEWHERE),
    (
        "smtpd_sender_login_maps",
        "which user may send as whom belongs into `senders` of each [[user]]",
    ),
    (
        "smtpd_upstream_proxy_protocol",
        "clients come by a proxy: set the listener's proxy protocol and its networks",
    ),
    (
        "postscreen_upstream_proxy_protocol",
        "clients come by a proxy: set the listener's proxy protocol and its networks",
    ),
    ("smtpd_command_filter", ELSEWHERE),
    ("smtpd_reject_unlisted_sender", ELSEWHERE),
    ("postscreen_access_list", ELSEWHERE),
    ("postscreen_denylist_action", ELSEWHERE),
    ("postscreen_blacklist_action", ELSEWHERE),
    ("postscreen_dnsbl_sites", ELSEWHERE),
    ("smtpd_etrn_restrictions", ELSEWHERE),
    ("smtpd_restriction_classes", ELSEWHERE),
    ("permit_mx_backup_networks", ELSEWHERE),
    ("relay_clientcerts", "nobody is known by a certificate"),
    ("smtpd_tls_req_ccert", "nobody is known by a certificate"),
    ("authorized_submit_users", ELSEWHERE),
];

const LEFT_OUT: &[(&str, &str)] = &[
    (
        "smtp_tls_policy_maps",
        "a connector has one `tls`; give each destination a connector of its own",
    ),
    (
        "smtp_bind_address",
        "the system chooses the address that connections leave from",
    ),
    (
        "smtp_bind_address6",
        "the system chooses the address that connections leave from",
    ),
    (
        "notify_classes",
        "bounces are copied to `copy_to`; the rest is what incidents are for",
    ),
];

pub(super) fn handling(name: &str) -> Handling {
    let is_in = |words: &str| words.split_whitespace().any(|known| known == name);
    let row = |table: &[(&str, &'static str)]| {
        table
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, why)| *why)
    };
    if is_in(KNOWN) {
        return Handling::Known;
    }
    if is_in(SILENT) || name.ends_with("_directory") {
        return Handling::Silent;
    }
    if let Some(why) = row(DECIDES) {
        return Handling::Decides(why);
    }
    if let Some(why) = row(LEFT_OUT) {
        return Handling::LeftOut(why);
    }
    if name.ends_with("_restrictions") || name.ends_with("_maps") || name.contains("milter") {
        return Handling::Decides(ELSEWHERE);
    }
    Handling::LeftOut("it has no counterpart here")
}
