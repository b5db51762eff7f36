//! The window's pages in a real browser: `tests/browser` says what is looked at.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
};

use super::harness::{
    gateway::Gateway,
    peers::{command, need, peers},
    postgres::Postgres,
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

#[test]
#[ignore = "needs PostgreSQL, and Chromium, playwright-core and axe-core, which tests/run installs"]
fn several_gateways_in_a_browser() {
    let server = Postgres::start("");
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = door.local_addr().unwrap().to_string();
    let database = [
        ("DATABASE_PORT", server.port.to_string()),
        ("DATABASE_KEEPER", at),
    ];
    std::thread::spawn(move || keep(server, &door));
    look_with("gateways", &database);
}

/// Does to the database what a test says that has no hands for it: `stop`, `start`, or a statement.
fn keep(mut server: Postgres, door: &TcpListener) {
    let mut serve = |mut said: TcpStream| -> std::io::Result<()> {
        let mut line = String::new();
        BufReader::new(&said).read_line(&mut line)?;
        match line.trim() {
            "stop" => server.stop(),
            "start" => server.start_again(),
            sql => drop(server.sql("postern", sql)),
        }
        said.write_all(b"done\n")
    };
    for said in door.incoming() {
        serve(said.unwrap()).unwrap();
    }
}

/// Runs the tests of that file.
fn look(name: &str) {
    look_with(name, &[]);
}

/// The same, with more in the environment.
fn look_with(name: &str, env: &[(&str, String)]) {
    need("node");
    need("chromium");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let output = command("node")
        .args(["--test", "--test-reporter=spec"])
        .arg(tests.join(format!("{name}.test.mjs")))
        .env("POSTERN", Gateway::binary())
        .envs(env.iter().map(|(name, value)| (name, value)))
        .env("MODULES", peers().join("node_modules/"))
        .output()
        .unwrap();
    // How long each took is of use, too.
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success());
}
