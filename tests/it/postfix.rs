//! The gateway between two real Postfix daemons, with swaks as the client: the set-up of the README.

use crate::next_hop::{greet, submit};
use crate::parts::{Gateway, Postfix, eventually, free_port, printed, scratch, swaks};
use crate::secure::Ca;

const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";

fn start() -> (tempfile::TempDir, Gateway, Postfix) {
    let folder = scratch();
    let behind = free_port();
    let keys = format!(
        "inbound.next_hop = \"smtp://127.0.0.1:{behind}\"\nhostname = \"gateway.example.org\"\ninbound.domains = [\"example.org\"]"
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let postfix = Postfix::start(behind, gateway.inbound);
    (folder, gateway, postfix)
}

#[test]
fn clean_mail_passes_through_postfix_and_the_gateway_into_the_mailbox() {
    let (_folder, gateway, postfix) = start();
    let output = swaks(
        postfix.front,
        &[
            "--from",
            "ann@sender.example",
            "--to",
            "alice@example.org",
            "--header",
            "Subject: minutes of Tuesday",
            "--header",
            "X-Lazaret-Score: -100",
            "--body",
            "The minutes are in the usual place.\n..and a line that begins with dots.",
        ],
    );
    assert!(output.status.success(), "{}\n{}\n{}", printed(&output), gateway.log(), postfix.log());
    let mail = eventually("the delivery", || postfix.mailbox("alice").pop());
    assert!(mail.contains("Subject: minutes of Tuesday"), "{mail}");
    assert!(mail.contains("\n..and a line that begins with dots."), "{mail}");
    let unfolded = mail.replace("\n ", " ");
    assert!(unfolded.contains("by gateway.example.org (Lazaret) with ESMTP id "), "{mail}");
    assert!(mail.contains("X-Spam-Flag: NO"), "{mail}");
    assert_eq!(mail.matches("X-Lazaret-Score:").count(), 1, "{mail}");
    assert!(!mail.contains("X-Lazaret-Score: -100"), "a forged field came through: {mail}");
}

#[test]
fn the_real_client_is_known_to_the_gateway_and_to_postfix_behind_it() {
    let folder = scratch();
    let ca = Ca::new(folder.path());
    let behind = free_port();
    let keys = format!(
        "{}inbound.tls = \"offered\"\nhostname = \"gateway.example.org\"\ninbound.domains = [\"example.org\"]\n\
         inbound.next_hop = \"smtp://127.0.0.1:{behind}\"\nsmtp.xforward_networks = [\"127.0.0.1\"]\n",
        ca.issue("gateway.example.org").as_setting()
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let postfix = Postfix::start(behind, gateway.inbound);

    // Through the Postfix in front, which says by XFORWARD whose mail it brings.
    let output = swaks(
        postfix.front,
        &["--local-interface", "127.0.0.7", "--from", "ann@sender.example", "--to", "alice@example.org"],
    );
    assert!(output.status.success(), "{}\n{}\n{}", printed(&output), gateway.log(), postfix.log());
    let mail = eventually("the delivery", || postfix.mailbox("alice").pop());
    let received = mail.replace("\n ", " ");
    assert!(
        received.contains("from client.example ([127.0.0.7]) by gateway.example.org (Lazaret) with ESMTP ")
    );
    gateway.logged("client=127.0.0.7 ", 1);
    eventually("the line in Postfix's log", || postfix.log().contains("[127.0.0.7]").then_some(()));
    assert!(postfix.log().contains("orig_client="), "{}", postfix.log());

    // As the MX itself, with STARTTLS: what one of the two hears of the other is the client's own address.
    let mut client = greet(gateway.inbound, "EHLO mx.sender.example");
    client.expect("STARTTLS", "220");
    let mut client = client.start_tls(&ca.client(), "gateway.example.org").unwrap();
    client.expect("EHLO mx.sender.example", "250");
    submit(&mut client, "MAIL FROM:<ann@sender.example>", &["bob@example.org"], "over TLS");
    let reply = client.reply();
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    let mail = eventually("the delivery", || postfix.mailbox("bob").pop());
    let received = mail.replace("\n ", " ");
    assert!(
        received
            .contains("from mx.sender.example ([127.0.0.1]) by gateway.example.org (Lazaret) with ESMTPS ")
    );
}

#[test]
fn the_next_hops_refusals_are_the_clients_replies() {
    let (_folder, gateway, postfix) = start();
    let output = swaks(gateway.inbound, &["--from", "ann@sender.example", "--to", "nobody-here@example.org"]);
    assert!(!output.status.success());
    assert!(printed(&output).contains("550 5.1.1"), "{}", printed(&output));
    let output = swaks(gateway.inbound, &["--from", "ann@sender.example", "--to", "x@elsewhere.example"]);
    assert!(printed(&output).contains("550 5.7.1"), "an open relay: {}", printed(&output));
    let output = swaks(gateway.outbound, &["--from", "ann@example.org", "--to", "x@elsewhere.example"]);
    assert!(output.status.success(), "{}", printed(&output));
    assert!(postfix.mailbox("alice").is_empty());
}

#[test]
fn the_test_string_is_refused_in_the_session_except_for_exempt_recipients() {
    let (_folder, gateway, postfix) = start();
    let output =
        swaks(postfix.front, &["--from", "ann@sender.example", "--to", "alice@example.org", "--body", GTUBE]);
    assert!(!output.status.success());
    assert!(printed(&output).contains("554 5.7.1"), "{}\n{}", printed(&output), gateway.log());
    let output = swaks(
        gateway.inbound,
        &["--from", "ann@sender.example", "--to", "postmaster@example.org", "--body", GTUBE],
    );
    assert!(output.status.success(), "{}", printed(&output));
    let mail = eventually("the delivery", || postfix.mailbox("postmaster").pop());
    assert!(mail.contains("X-Spam-Flag: YES"), "{mail}");
    assert!(postfix.mailbox("alice").is_empty());
}

#[test]
fn kept_mail_is_released_once_as_it_came_and_teaches() {
    let (folder, gateway, postfix) = start();
    let config = folder.path().join("lazaret.toml");
    let config = config.to_str().unwrap();
    // The quarantine threshold is a score; a message between it and the refusal is kept.
    gateway.stop();
    let keys = format!(
        "inbound.next_hop = \"smtp://{}\"\ninbound.tag = -50.0\ninbound.quarantine = -50.0\ninbound.listen = \"127.0.0.1:{}\"",
        postfix.behind,
        free_port()
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let output = swaks(
        gateway.inbound,
        &[
            "--from",
            "ann@sender.example",
            "--to",
            "alice@example.org,bob@example.org",
            "--header",
            "Subject: kept for two",
            "--body",
            "Please look at the contract.",
        ],
    );
    assert!(output.status.success(), "{}\n{}", printed(&output), gateway.log());
    let list = crate::parts::run(folder.path(), &["--config", config, "quarantine", "list", "--json"]);
    let entries: serde_json::Value =
        serde_json::from_slice(&list.stdout).unwrap_or_else(|_| panic!("{}", printed(&list)));
    let entries = entries["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "one entry for each recipient: {}", printed(&list));
    assert!(postfix.mailbox("alice").is_empty() && postfix.mailbox("bob").is_empty());
    let id = entries
        .iter()
        .find(|entry| entry["recipient"] == "alice@example.org")
        .and_then(|entry| entry["id"].as_str())
        .unwrap()
        .to_owned();
    for _ in 0..3 {
        let output = crate::parts::run(folder.path(), &["--config", config, "quarantine", "release", &id]);
        assert!(output.status.success(), "{}", printed(&output));
    }
    let mail = eventually("the release", || postfix.mailbox("alice").pop());
    assert!(mail.contains("Subject: kept for two"), "{mail}");
    assert!(mail.contains("Please look at the contract."), "{mail}");
    eventually("the state to say so", || {
        let output = crate::parts::run(folder.path(), &["--config", config, "quarantine", "show", &id]);
        printed(&output).contains("released").then_some(())
    });
    assert_eq!(postfix.mailbox("alice").len(), 1, "released more than once");
    assert!(postfix.mailbox("bob").is_empty(), "the other recipient's entry is its own");
    assert!(gateway.stop().success());
}

#[test]
fn recipients_that_differ_get_what_each_is_due() {
    let (folder, gateway, postfix) = start();
    gateway.stop();
    let keys = format!(
        "inbound.next_hop = \"smtp://{}\"\ninbound.tag = -50.0\ninbound.quarantine = -50.0",
        postfix.behind
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let output = swaks(
        gateway.inbound,
        &[
            "--from",
            "ann@sender.example",
            "--to",
            "alice@example.org,postmaster@example.org",
            "--body",
            "to both",
        ],
    );
    assert!(output.status.success(), "{}\n{}", printed(&output), gateway.log());
    let mail = eventually("the exempt recipient's copy", || postfix.mailbox("postmaster").pop());
    assert!(mail.contains("X-Spam-Flag: YES"), "{mail}");
    assert!(postfix.mailbox("alice").is_empty());
    let config = folder.path().join("lazaret.toml");
    let list = crate::parts::run(
        folder.path(),
        &["--config", config.to_str().unwrap(), "quarantine", "list", "--json"],
    );
    let entries: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let recipients: Vec<&str> = entries["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["recipient"].as_str())
        .collect();
    assert_eq!(recipients, ["alice@example.org"]);
}
