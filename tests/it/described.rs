//! The description of the interface (`/openapi.json`), held to what the gateway answers by a program that reads it: schemathesis makes up
//! requests of each kind, right ones and wrong ones, and compares.

use std::process::Command;

use super::{
    harness::{
        browser::At,
        gateway::{Gateway, send},
        peers::{free_port, peers},
        upstream::Upstream,
    },
    window::windowed,
};

/// Everything that it looks at, but for what a description cannot say: which texts are a time, a pattern, an id.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,unsupported_method,allow_header_conformance,ignored_auth,missing_required_header";

#[test]
#[ignore = "needs schemathesis, which tests/run installs"]
fn the_description_is_kept_by_every_answer() {
    let sink = Upstream::start();
    let config = windowed(&sink, "content = \"all\"");
    // What is sent at the window goes in where the file says a listener is.
    let config = config.replace(
        "127.0.0.1:0\"\n\n[allow",
        &format!("127.0.0.1:{}\"\n\n[allow", free_port()),
    );
    let gateway = Gateway::start(&config);
    let window = gateway.window();
    send(&gateway);
    let At::Tcp(address) = &window else { panic!() };
    let output = Command::new(peers().join("schemathesis/bin/schemathesis"))
        .args(["run", &format!("http://{address}/openapi.json")])
        .args(["--header", "Authorization: Bearer secret-of-admin"])
        .args([
            "--checks",
            CHECKS,
            "--seed",
            "1",
            "--max-examples",
            "25",
            "--phases",
            "examples,coverage,fuzzing",
            // It ends with the login, and so not for whoever waits for all of it.
            "--exclude-path",
            "/api/v1/events",
        ])
        .args(["--no-color", "--warnings", "off", "--request-timeout", "30"])
        .current_dir(gateway.dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}
