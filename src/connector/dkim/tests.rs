//! Which keys sign when, which files are keys, and the records they are published by.

use std::time::Duration;

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn day(count: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * (20_000 + count)
}

fn key(domain: &str, selector: &str, from: Option<u32>, until: Option<u32>) -> DkimKey {
    DkimKey {
        domain: Domain::parse(domain).unwrap(),
        selector: selector.to_owned(),
        key: None,
        from: from.map(day),
        until: until.map(day),
    }
}

#[test]
fn the_domain_itself_goes_before_the_nearest_above_it() {
    let keys = [
        key("example", "top", None, None),
        key("corp.example", "rsa", None, None),
        key("corp.example", "ed", None, None),
        key("corp.example", "next", Some(5), None),
        key("old.corp.example", "old", None, Some(3)),
        key("new.corp.example", "new", Some(2), Some(4)),
    ];
    let signing = |domain: &str, on: u32| {
        let domain = Domain::parse(domain).unwrap();
        let found = signing(&keys, &domain, day(on));
        let found: Vec<&str> = found.iter().map(|key| key.selector.as_str()).collect();
        found.join(" ")
    };
    for (domain, on, expected) in [
        ("corp.example", 0, "rsa ed"),
        ("CORP.example", 4, "rsa ed"),
        ("corp.example", 5, "rsa ed next"),
        ("a.b.corp.example", 0, "rsa ed"),
        ("xcorp.example", 0, "top"),
        ("example", 0, "top"),
        ("example.net", 0, ""),
        ("net", 0, ""),
        ("[192.0.2.1]", 0, ""),
        // One whose day is not today is as one that is not there.
        ("old.corp.example", 2, "old"),
        ("old.corp.example", 3, "rsa ed"),
        ("new.corp.example", 1, "rsa ed"),
        ("new.corp.example", 2, "new"),
        ("x.new.corp.example", 3, "new"),
        ("new.corp.example", 4, "rsa ed"),
    ] {
        assert_eq!(signing(domain, on), expected, "{domain} on {on}");
    }
}

#[test]
fn when_the_dates_run_out() {
    let out = |dates: &[(Option<u32>, Option<u32>)], on: u32| {
        let keys: Vec<DkimKey> = dates
            .iter()
            .map(|(from, until)| key("corp.example", "s", *from, *until))
            .collect();
        runs_out(&keys, &Domain::parse("corp.example").unwrap(), day(on))
    };
    for (dates, on, expected) in [
        (&[][..], 5, None),
        (&[(None, None)], 5, None),
        (&[(None, Some(9))], 5, Some(9)),
        (&[(None, Some(9)), (None, None)], 5, None),
        // Two that overlap, two that touch, two with a day between them.
        (&[(None, Some(9)), (Some(8), Some(20))], 5, Some(20)),
        (&[(None, Some(9)), (Some(9), Some(20))], 5, Some(20)),
        (&[(None, Some(9)), (Some(8), None)], 5, None),
        (&[(None, Some(9)), (Some(10), Some(20))], 5, Some(9)),
        // None signs: since when.
        (&[(None, Some(9))], 9, Some(9)),
        (&[(None, Some(3)), (Some(4), Some(9))], 12, Some(9)),
        (&[(None, Some(9)), (Some(20), None)], 12, Some(9)),
        // None has begun.
        (&[(Some(20), None)], 12, None),
        (&[(Some(20), Some(30))], 12, None),
    ] {
        assert_eq!(out(dates, on), expected.map(day), "{dates:?} on {on}");
    }
}

#[test]
fn where_a_domain_has_no_key_any_more_those_above_it_sign() {
    let sub = |until| key("erp.corp.example", "sub", None, until);
    for (keys, domain, on, expected) in [
        (
            vec![sub(Some(9)), key("corp.example", "s", None, None)],
            "erp.corp.example",
            12,
            None,
        ),
        (
            vec![sub(Some(9)), key("example", "s", Some(9), Some(20))],
            "erp.corp.example",
            5,
            Some(20),
        ),
        (
            vec![sub(Some(9)), key("corp.example", "s", Some(10), None)],
            "erp.corp.example",
            5,
            Some(9),
        ),
        (
            vec![sub(Some(9)), key("corp.example", "s", None, Some(11))],
            "erp.corp.example",
            12,
            Some(11),
        ),
        // Not the other way round, and not those of a neighbour.
        (
            vec![sub(None), key("corp.example", "s", None, Some(11))],
            "corp.example",
            12,
            Some(11),
        ),
        (
            vec![sub(Some(9)), key("p.example", "s", None, None)],
            "erp.corp.example",
            5,
            Some(9),
        ),
    ] {
        let domain = Domain::parse(domain).unwrap();
        assert_eq!(
            runs_out(&keys, &domain, day(on)),
            expected.map(day),
            "{domain} on {on}"
        );
    }
}

#[test]
fn what_is_made_is_read_again_and_signs_what_its_record_verifies() {
    use aws_lc_rs::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    for (is_ed25519, algorithm, kind) in [
        (false, "rsa-sha256", "v=DKIM1; k=rsa; p=MIIB"),
        (true, "ed25519-sha256", "v=DKIM1; k=ed25519; p="),
    ] {
        let (made, text) = DkimPair::generate(is_ed25519).unwrap();
        let read = DkimPair::read(&text).unwrap();
        assert_eq!(read.algorithm(), algorithm);
        let record = read.record().unwrap();
        assert_eq!(made.record().unwrap(), record);
        assert!(record.starts_with(kind), "{record}");
        assert!(!format!("{read:?}").contains("PRIVATE"));
        let signature = made.sign(b"octets").unwrap();
        let public = STANDARD
            .decode(record.rsplit_once("p=").unwrap().1)
            .unwrap();
        if is_ed25519 {
            let hash = digest::digest(&digest::SHA256, b"octets");
            let key = UnparsedPublicKey::new(&ED25519, &public);
            assert_eq!(public.len(), 32);
            assert!(key.verify(hash.as_ref(), &signature).is_ok());
        } else {
            let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public);
            assert!(key.verify(b"octets", &signature).is_ok());
        }
    }
}

#[test]
fn a_record_is_cut_into_strings() {
    let name = "p2026._domainkey.corp.example";
    let line = zone_line(name, "v=DKIM1; k=ed25519; p=AAAA");
    assert_eq!(
        line,
        "p2026._domainkey.corp.example. IN TXT \"v=DKIM1; k=ed25519; p=AAAA\""
    );
    let record = "x".repeat(STRING * 2 + 1);
    let line = zone_line(name, &record);
    let strings: Vec<usize> = line.split('"').skip(1).step_by(2).map(str::len).collect();
    assert_eq!(strings, [255, 255, 1]);
    assert_eq!(
        line.matches('x').count() - name.matches('x').count(),
        record.len()
    );
}

#[test]
fn what_is_no_key_is_said() {
    let curve = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (text, expected) in [
        ("", DkimKeyFault::NoPem),
        ("hunter2", DkimKeyFault::NoPem),
        (
            "-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n",
            DkimKeyFault::NoPem,
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            DkimKeyFault::Kind,
        ),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            DkimKeyFault::Passphrase,
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
            DkimKeyFault::Passphrase,
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
            DkimKeyFault::OldForm,
        ),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            DkimKeyFault::NoPem,
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            DkimKeyFault::NoPem,
        ),
        (
            include_str!("../../../tests/fixture/rsa-1024.key"),
            DkimKeyFault::Short,
        ),
        (&curve, DkimKeyFault::Kind),
    ] {
        let found = DkimPair::read(&Secret::new(text)).map(|pair| pair.algorithm());
        assert_eq!(found, Err(expected), "{text}");
        assert!(!expected.remedy().is_empty());
    }
}
