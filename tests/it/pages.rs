//! The window's pages in a real browser: `tests/browser` says what is looked at.

use std::path::Path;

use super::harness::{
    gateway::Gateway,
    peers::{command, need, peers},
};

#[test]
#[ignore = "needs Chromium, playwright-core and axe-core, which tests/run installs"]
fn every_page_in_a_browser() {
    look("pages");
}

#[test]
#[ignore = "needs Chromium, playwright-core and axe-core, which tests/run installs"]
fn what_is_watched_in_a_browser() {
    look("watch");
}

#[test]
#[ignore = "needs Chromium, playwright-core and axe-core, which tests/run installs"]
fn a_change_of_the_configuration_in_a_browser() {
    look("changes");
}

/// Runs the tests of that file.
fn look(name: &str) {
    need("node");
    need("chromium");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let output = command("node")
        .args(["--test", "--test-reporter=spec"])
        .arg(tests.join(format!("{name}.test.mjs")))
        .env("POSTERN", Gateway::binary())
        .env("MODULES", peers().join("node_modules/"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
