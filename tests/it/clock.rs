//! The system's clock leaps: mail passes as before, and nothing that was kept for a time is lost by it.

use std::path::Path;
use std::process::Command;

use crate::parts::{Client, Gateway, Hop, eventually, message, printed, run, scratch};
use crate::vitals::metric;

/// The file that the preloaded library reads the leap from.
fn leap(folder: &Path, by: &str) {
    std::fs::write(folder.join("leap"), by).unwrap();
}

/// Where Debian's package faketime has its library.
fn library() -> String {
    let listed = Command::new("dpkg").args(["-L", "libfaketime"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let found = listed.lines().find(|line| line.ends_with("/libfaketime.so.1"));
    found.expect("libfaketime is installed by tests/run").to_owned()
}

#[test]
fn a_clock_that_leaps_harms_no_mail() {
    let folder = scratch();
    let hop = Hop::start();
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("test.cf"), "body KEEP_MARKER /keepmarker/\nscore KEEP_MARKER 15\n").unwrap();
    let keys = format!(
        "inbound.next_hop = \"smtp://{}\"\nscan.rules_dir = \"{}\"\nlog = \"warn\"",
        hop.address,
        rules.display()
    );
    leap(folder.path(), "+0");
    let gateway = Gateway::try_start_as(folder.path(), &keys, |mut command| {
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", folder.path().join("leap"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    })
    .unwrap_or_else(|log| panic!("the gateway did not start:\n{log}"));

    let mut client = Client::connect(gateway.inbound).unwrap();
    let mut taken = 0;
    // Back to where it was, forward past every retention and sign-in, back before the first message.
    for (number, by) in ["+0", "+400d", "-400d", "+20y", "-20y", "+0"].into_iter().enumerate() {
        leap(folder.path(), by);
        let mut send = |text: &str| {
            let message = message(&format!("leap.{number}"), text);
            client.send("ann@sender.example", &["alice@example.org"], &message).unwrap()
        };
        let reply = send("nothing special");
        assert!(reply.starts_with("250"), "{by}: {reply}\n{}", gateway.log());
        let reply = send("the keepmarker is here");
        assert!(reply.starts_with("250"), "{by}: {reply}\n{}", gateway.log());
        taken += 1;
        assert_eq!(hop.taken().len(), taken, "{by}");
        let newest = hop.taken().pop().unwrap();
        let year = eventually("a year in the Received field", || {
            let received = newest.split("Received: ").nth(1)?;
            received.split(' ').find_map(|word| word.parse::<i32>().ok().filter(|year| *year > 1990))
        });
        println!("leap {by}: the message is received in {year}");
        assert_eq!(metric(gateway.web, "lazaret_panics_total"), Some(0), "{by}\n{}", gateway.log());
        // The review pages answer, and know nobody.
        let page = crate::web::Browser::new(gateway.web).get("/");
        assert!(!page.body.contains("leap."), "{by}");
    }
    assert!(gateway.stop().success());
    // What was kept while the clock was wrong is there, each once, when it is right again.
    let config = folder.path().join("lazaret.toml");
    let output =
        run(folder.path(), &["--config", config.to_str().unwrap(), "quarantine", "list", "--all", "--json"]);
    let text = printed(&output);
    for number in [0, 5] {
        assert_eq!(text.matches(&format!("leap.{number}\"")).count(), 1, "{text}");
    }
}
