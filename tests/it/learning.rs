//! Who teaches, and who learns from it: persons, traps, folders.

use std::fs;
use std::path::Path;

use crate::parts::{Client, Gateway, eventually, is_nightly, maildir, message, printed, run, scratch};
use crate::vitals::metric;

/// Teaches an installation newsletters as wanted and lotteries as not.
fn teach_all(folder: &Path) {
    for (label, words) in
        [("ham", "newsletter garden roses spring offers"), ("spam", "casino winner jackpot bonus")]
    {
        fs::create_dir(folder.join(label)).unwrap();
        for number in 0..30 {
            let text = message(&format!("{label} {number}"), &format!("{words} {number} {words}"));
            fs::write(folder.join(label).join(format!("{number}.eml")), text).unwrap();
        }
        let output = run(folder, &["learn", &format!("--{label}"), label]);
        assert!(printed(&output).contains("30 learned"), "{}", printed(&output));
    }
}

/// Starts a gateway over the same data folder as the commands have without a configuration.
fn start(folder: &Path, keys: &str) -> Gateway {
    let data = folder.join("lazaret-data");
    Gateway::start(folder, &format!("data_dir = \"{}\"\n{keys}", data.display()))
}

fn deliver(gateway: &Gateway, to: &[&str], words: &str) -> String {
    Client::connect(gateway.inbound).unwrap().send("sender@example.net", to, &message("news", words)).unwrap()
}

fn status(folder: &Path) -> String {
    let status = printed(&run(folder, &["learn", "status"]));
    status.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_person_who_does_not_want_what_others_want_gets_no_more_of_it_and_others_do() {
    let folder = scratch();
    teach_all(folder.path());
    fs::create_dir(folder.path().join("unwanted")).unwrap();
    for number in 0..20 {
        let words = "newsletter garden roses spring offers";
        let text = message(&format!("ham {}", 100 + number), &format!("{words} {number} {words}"));
        fs::write(folder.path().join("unwanted").join(format!("{number}.eml")), text).unwrap();
    }
    let output = run(folder.path(), &["learn", "--spam", "--person", "ann@example.org", "unwanted"]);
    assert!(printed(&output).contains("20 learned"), "{}", printed(&output));
    let said = status(folder.path());
    assert!(said.contains("spam lessons, person, in the layer of a person 20"), "{said}");
    let gateway = start(folder.path(), "");
    let words = "newsletter garden roses spring offers for you newsletter garden roses spring offers";
    // The log of lessons is folded while it serves already.
    eventually("the model", || {
        deliver(&gateway, &["carl@example.org"], words);
        gateway.log().contains("BAYES_HAM").then_some(())
    });
    let before = maildir(&folder.path().join("lazaret-data/maildir/inbound")).len();
    let reply = deliver(&gateway, &["ann@example.org", "bob@example.org"], words);
    assert!(reply.starts_with("250"), "{reply}");
    let kept = printed(&run(folder.path(), &["quarantine", "list"]));
    assert_eq!(kept.matches("ann@example.org").count(), 1, "{kept} {}", gateway.log());
    assert!(kept.contains("ann@example.org") && !kept.contains("bob@example.org"), "{kept}");
    let delivered = maildir(&folder.path().join("lazaret-data/maildir/inbound"));
    assert_eq!(delivered.len(), before + 1);
    // What Ann taught goes with Ann.
    let forgotten = printed(&run(folder.path(), &["learn", "forget", "--person", "ann@example.org"]));
    assert!(forgotten.contains("lessons forgotten: 20"), "{forgotten}");
    eventually("the gateway to follow", || {
        deliver(&gateway, &["ann@example.org"], words);
        (maildir(&folder.path().join("lazaret-data/maildir/inbound")).len() > delivered.len()).then_some(())
    });
}

#[test]
fn what_is_sent_to_a_trap_is_kept_and_learned() {
    let folder = scratch();
    teach_all(folder.path());
    let keys = "learn.traps = [\"Old.Address@example.org\"]";
    let gateway = start(folder.path(), keys);
    let reply =
        deliver(&gateway, &["old.address@example.org"], "a quite new kind of pills, never seen before");
    assert!(reply.starts_with("250"), "{reply}");
    let kept = printed(&run(folder.path(), &["quarantine", "list"]));
    assert!(kept.contains("-> old.address@example.org"), "{kept}");
    for number in 0..11 {
        let text = message(&format!("offer {number}"), &format!("pills of kind {number}, never seen before"));
        let mut client = Client::connect(gateway.inbound).unwrap();
        assert!(
            client.send("x@example.net", &["old.address@example.org"], &text).unwrap().starts_with("250")
        );
    }
    eventually("the lessons", || status(folder.path()).contains("spam lessons, trap 12").then_some(()));
    // Its other recipients are spared too.
    deliver(&gateway, &["bob@example.org", "old.address@example.org"], "another new kind of pills entirely");
    let kept = printed(&run(folder.path(), &["quarantine", "list"]));
    assert_eq!(kept.matches("old.address@example.org").count(), 13, "{kept}");
    assert!(kept.contains("-> bob@example.org"), "{kept}");
    assert!(maildir(&folder.path().join("lazaret-data/maildir/inbound")).is_empty());
}

#[test]
fn what_people_put_into_their_folders_is_learned() {
    let folder = scratch();
    teach_all(folder.path());
    for name in ["ham", "spam"] {
        for part in ["new", "cur", "tmp"] {
            fs::create_dir_all(folder.path().join("mail").join(name).join(part)).unwrap();
        }
    }
    let put = |name: &str, text: &str| {
        fs::write(folder.path().join("mail").join(name), message(text, text)).unwrap();
    };
    put("spam/new/1.x", "one thing");
    put("spam/tmp/2.x", "half a thing");
    let mail = folder.path().join("mail");
    let keys = format!(
        "learn.maildir = [{{ ham = \"{0}/ham\", spam = \"{0}/spam\", person = \"ann@example.org\" }}]",
        mail.display()
    );
    let gateway = start(folder.path(), &keys);
    let knows = |what: &str| eventually(what, || status(folder.path()).contains(what).then_some(()));
    knows("spam lessons, person, in the layer of a person 1");
    // Another word about the same message counts, and a client that marks it as read changes nothing.
    fs::rename(mail.join("spam/new/1.x"), mail.join("ham/cur/1.x:2,S")).unwrap();
    knows("ham lessons, person, in the layer of a person 1");
    assert!(!status(folder.path()).contains("spam lessons, person"), "{}", status(folder.path()));
    // What was looked at teaches no more after a restart, also where it was forgotten meanwhile.
    put("spam/cur/3.x:2,", "another thing");
    knows("spam lessons, person, in the layer of a person 1");
    assert!(gateway.stop().success());
    let forgotten = printed(&run(folder.path(), &["learn", "forget", "--person", "ann@example.org"]));
    assert!(forgotten.contains("lessons forgotten: 3"), "{forgotten}");
    let gateway = start(folder.path(), &keys);
    put("ham/new/4.x", "a third thing");
    knows("ham lessons, person, in the layer of a person 1");
    assert!(!status(folder.path()).contains("spam lessons, person"), "{}", status(folder.path()));
    assert!(gateway.stop().success());
}

#[test]
fn who_wrote_to_somebody_knows_them_and_what_is_on_a_list_is_told() {
    let folder = scratch();
    fs::write(folder.path().join("list"), "casino.example\nshop.example\n").unwrap();
    let list = folder.path().join("list");
    // All is kept, to be looked at.
    let keys = format!(
        "inbound.tag = -50.0\ninbound.quarantine = -50.0\n\
         scan.list = [{{ name = \"SHOPS\", file = \"{}\", points = 2.5 }}]",
        list.display()
    );
    let gateway = start(folder.path(), &keys);
    let reply = Client::connect(gateway.outbound).unwrap().send(
        "alice@example.org",
        &["ann@sender.example"],
        &message("question", "How are you?"),
    );
    assert!(reply.unwrap().starts_with("250"));
    deliver(
        &gateway,
        &["alice@example.org"],
        "Well, thank you. See https://www.shop.example/roses for more.",
    );
    deliver(&gateway, &["bob@example.org", "carl@example.net"], "Hello");
    let found = |recipient: &str| -> Vec<Vec<String>> {
        let listed = run(folder.path(), &["quarantine", "list", "--json"]);
        let entries: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        let entries = entries["entries"].as_array().unwrap();
        let told = ["CORRESPONDENT", "CORRESPONDENT_OF_COLLEAGUE", "LIST_SHOPS"];
        let symbols = |entry: &serde_json::Value| -> Vec<String> {
            let symbols = entry["findings"].as_array().unwrap().iter().filter_map(|f| f["symbol"].as_str());
            let mut symbols: Vec<String> =
                symbols.filter(|symbol| told.contains(symbol)).map(str::to_owned).collect();
            symbols.sort();
            symbols
        };
        let own = entries.iter().filter(|entry| entry["recipient"].to_string().contains(recipient));
        own.map(symbols).collect()
    };
    assert_eq!(found("alice@"), [["CORRESPONDENT", "LIST_SHOPS"]]);
    assert_eq!(found("bob@"), [["CORRESPONDENT_OF_COLLEAGUE"]]);
    assert_eq!(found("carl@"), [Vec::<String>::new()]);
    assert!(gateway.stop().success());
    // It is remembered over a restart.
    let gateway = start(folder.path(), &keys);
    deliver(&gateway, &["bob@example.org"], "Hello again");
    assert_eq!(found("bob@"), [["CORRESPONDENT_OF_COLLEAGUE"], ["CORRESPONDENT_OF_COLLEAGUE"]]);
}

#[test]
fn sigkill_while_snapshots_are_written_costs_no_lesson() {
    const LESSONS: usize = 1_010;
    let rounds: u64 = if is_nightly() { 40 } else { 3 };
    let folder = scratch();
    let mut expected = 0;
    for round in 0..rounds {
        let gateway = start(folder.path(), "");
        let mut mbox = String::new();
        for number in 0..LESSONS {
            let text = message(&format!("lesson {round} {number}"), &format!("words of lesson {number}"));
            mbox.push_str(&format!("From a@example.org Mon Nov  2 10:00:00 2026\n{text}\n"));
        }
        fs::write(folder.path().join("lessons"), mbox).unwrap();
        let label = if round % 2 == 0 { "--ham" } else { "--spam" };
        let learned = printed(&run(folder.path(), &["learn", label, "lessons"]));
        assert!(learned.contains("1010 learned"), "{learned}");
        expected += LESSONS;
        // A snapshot is due after a thousand lines. It is killed at some point before, in or after it.
        eventually("the model", || {
            metric(gateway.web, "lazaret_model_lessons")
                .filter(|lessons| *lessons == expected || round % 3 == 2)
        });
        std::thread::sleep(std::time::Duration::from_millis(37 * round % 200));
        gateway.kill();
    }
    let gateway = start(folder.path(), "");
    eventually("the model after the last kill", || {
        metric(gateway.web, "lazaret_model_lessons").filter(|lessons| *lessons == expected)
    });
    assert!(gateway.stop().success());
    let rebuilt = printed(&run(folder.path(), &["learn", "rebuild"]));
    let ham = LESSONS * usize::try_from(rounds - rounds / 2).unwrap();
    assert!(rebuilt.contains(&format!("folded {ham} ham and {} spam", expected - ham)), "{rebuilt}");
}
