//! The gateway as a milter of a real Postfix, with swaks as the client.

use std::path::Path;

use crate::parts::{Gateway, Postfix, eventually, free_port, printed, run, scratch, swaks};

const SPAM: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";
/// A threshold below every score: what is not exempt is kept.
const KEEP_ALL: &str = "inbound.tag = -50.0\ninbound.quarantine = -50.0\n";

/// Starts a gateway with a milter, and a Postfix that asks it.
fn start(folder: &Path, keys: &str) -> (Gateway, Postfix) {
    let (behind, milter) = (free_port(), free_port());
    let keys = format!(
        "{keys}door.milter = \"127.0.0.1:{milter}\"\ninbound.next_hop = \"smtp://127.0.0.1:{behind}\"\n\
         inbound.domains = [\"example.org\"]\n"
    );
    let gateway = Gateway::start(folder, &keys);
    let postfix = Postfix::start_with_milter(behind, &format!("inet:127.0.0.1:{milter}"));
    (gateway, postfix)
}

/// Sends a message through the Postfix in front; says whether it was taken, and the transcript.
fn send(postfix: &Postfix, to: &str, arguments: &[&str]) -> (bool, String) {
    let mut all = vec!["--from", "ann@sender.example", "--to", to];
    all.extend(arguments);
    let output = swaks(postfix.front, &all);
    (output.status.success(), printed(&output))
}

/// The entries of the quarantine.
fn kept(folder: &Path) -> Vec<serde_json::Value> {
    let config = folder.join("lazaret.toml");
    let list = run(folder, &["--config", config.to_str().unwrap(), "quarantine", "list", "--json"]);
    let entries: serde_json::Value =
        serde_json::from_slice(&list.stdout).unwrap_or_else(|_| panic!("{}", printed(&list)));
    entries["entries"].as_array().unwrap().clone()
}

fn recipients(entries: &[serde_json::Value]) -> Vec<&str> {
    let mut recipients: Vec<&str> = entries.iter().filter_map(|entry| entry["recipient"].as_str()).collect();
    recipients.sort_unstable();
    recipients
}

#[test]
fn clean_mail_passes_the_milter_with_our_fields_and_without_forged_ones() {
    let folder = scratch();
    let (gateway, postfix) = start(folder.path(), "inbound.headers = \"full\"\n");
    let forged =
        ["X-Spam-Flag: YES", "Subject: minutes of Tuesday", "x-spam-flag: YES", "X-Lazaret-Score: -100"];
    let mut arguments: Vec<&str> = forged.iter().flat_map(|field| ["--add-header", field]).collect();
    arguments.extend(["--body", "The minutes are in the usual place.\n..and a line that begins with dots."]);
    let (is_taken, transcript) = send(&postfix, "alice@example.org,bob@example.org", &arguments);
    assert!(is_taken, "{transcript}\n{}\n{}", gateway.log(), postfix.log());
    for user in ["alice", "bob"] {
        let mail = eventually("the delivery", || postfix.mailbox(user).pop());
        assert!(mail.contains("\n..and a line that begins with dots."), "{mail}");
        assert!(mail.contains("\nX-Spam-Flag: NO\n") && mail.matches("-Spam-Flag:").count() == 1, "{mail}");
        assert!(
            !mail.contains("x-spam-flag") && !mail.contains("-100"),
            "a forged field came through: {mail}"
        );
        let at = |name: &str| mail.find(name).unwrap_or_else(|| panic!("{name}: {mail}"));
        let order = ["\nX-Lazaret-Id: ", "\nX-Spam-Flag: ", "\nX-Lazaret-Score: ", "\nX-Lazaret-Symbols: "];
        assert!(order.map(at).is_sorted() && at(order[3]) < at("\nSubject: "), "{mail}");
    }
    gateway.logged("outcome=\"passed\"", 1);
    assert!(!gateway.log().contains("example.org\"") && !gateway.log().contains("ann@"), "{}", gateway.log());
    assert!(gateway.stop().success());
}

#[test]
fn what_is_kept_is_delivered_to_nobody_until_it_is_released() {
    let folder = scratch();
    let (gateway, postfix) = start(folder.path(), KEEP_ALL);
    let arguments = ["--header", "Subject: kept", "--body", "Please look at the contract."];
    let (is_taken, transcript) = send(&postfix, "alice@example.org,bob@example.org", &arguments);
    assert!(is_taken, "{transcript}\n{}\n{}", gateway.log(), postfix.log());
    let entries = kept(folder.path());
    assert_eq!(recipients(&entries), ["alice@example.org", "bob@example.org"]);
    assert!(postfix.mailbox("alice").is_empty() && postfix.mailbox("bob").is_empty());
    let id = entries.iter().find(|entry| entry["recipient"] == "alice@example.org").unwrap();
    let config = folder.path().join("lazaret.toml");
    let id = id["id"].as_str().unwrap();
    let release = ["--config", config.to_str().unwrap(), "quarantine", "release", id];
    assert!(run(folder.path(), &release).status.success());
    let mail = eventually("the release", || postfix.mailbox("alice").pop());
    assert!(mail.contains("Subject: kept") && mail.contains("Please look at the contract."), "{mail}");
    assert!(postfix.mailbox("bob").is_empty());
}

#[test]
fn recipients_that_differ_get_what_each_is_due_aliases_too() {
    let folder = scratch();
    let (gateway, postfix) = start(folder.path(), KEEP_ALL);
    let (is_taken, transcript) =
        send(&postfix, "Alice@example.org,sales@example.org,postmaster@example.org", &["--body", "to all"]);
    assert!(is_taken, "{transcript}\n{}\n{}", gateway.log(), postfix.log());
    let mail = eventually("the exempt recipient's copy", || postfix.mailbox("postmaster").pop());
    assert!(mail.contains("to all"), "{mail}");
    assert_eq!(recipients(&kept(folder.path())), ["Alice@example.org", "sales@example.org"]);
    eventually("the end of the message in Postfix's queue", || {
        postfix.log().contains("removed").then_some(())
    });
    assert!(postfix.mailbox("alice").is_empty() && postfix.mailbox("bob").is_empty(), "{}", postfix.log());
}

#[test]
fn refusals_are_postfixs_own_replies_and_a_gateway_that_is_gone_loses_nothing() {
    let folder = scratch();
    let (gateway, postfix) = start(folder.path(), "");
    let (is_taken, transcript) = send(&postfix, "alice@example.org", &["--body", SPAM]);
    assert!(!is_taken && transcript.contains("554 5.7.1 "), "{transcript}\n{}", gateway.log());
    let (_, transcript) = send(&postfix, "nobody-here@example.org", &[]);
    assert!(transcript.contains("550 5.1.1"), "{transcript}");
    assert!(kept(folder.path()).is_empty());
    gateway.stop();
    let (is_taken, transcript) = send(&postfix, "alice@example.org", &["--body", "hello"]);
    assert!(!is_taken && transcript.contains(" 451 4.7.1 "), "{transcript}");
    assert!(postfix.mailbox("alice").is_empty());
}

#[test]
fn a_long_field_of_ours_is_folded_and_comes_through_whole() {
    let folder = scratch();
    let (gateway, postfix) = start(folder.path(), "inbound.headers = \"full\"\n");
    let mail = folder.path().join("mail.eml");
    std::fs::write(
        &mail,
        "From: \"PayPal Security\" <a@evil.example>\nReply-To: b@gmail.com\nSubject: verify your account\n\
         Content-Type: text/html\n\n<a href=\"http://192.0.2.1/login\">http://paypal.com</a> dear customer, your \
         account will be suspended.\n",
    )
    .unwrap();
    let data = format!("@{}", mail.display());
    let (is_taken, transcript) = send(&postfix, "postmaster@example.org", &["--data", &data]);
    assert!(is_taken, "{transcript}\n{}\n{}", gateway.log(), postfix.log());
    let mail = eventually("the delivery", || postfix.mailbox("postmaster").pop());
    let (header, _) = mail.split_once("\n\n").unwrap();
    let unfolded = header.replace("\n ", " ").replace("\n\t", " ");
    let symbols = unfolded.lines().find_map(|line| line.strip_prefix("X-Lazaret-Symbols: ")).unwrap();
    assert!(symbols.len() > 100 && symbols.contains("LINK_BARE_ADDRESS"), "{header}");
    assert!(symbols.split(", ").all(|symbol| !symbol.contains([' ', ','])), "{symbols}");
    assert!(header.lines().all(|line| line.len() <= 100), "{header}");
}
