//! Rules of an administrator: checked, imported, changed while the gateway runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::parts::{Client, Gateway, Hop, message, printed, run, scratch};

/// Writes files below a folder.
fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

const SET: [(&str, &str); 4] = [
    ("stock/10_settings.cf", "report_safe 1\nwhitelist_from *@a.example\ninclude parts/more.inc\n"),
    (
        "stock/20_rules.cf",
        "body TEST_WORD /flamingo/i\nscore TEST_WORD 0 0 2.5 0\nbody TEST_NONE eval:no_such()\n",
    ),
    ("stock/parts/more.inc", "header TEST_SUBJECT Subject =~ /parrot/\ndescribe TEST_SUBJECT caf\u{e9}\n"),
    ("stock/README", "no rules"),
];

#[test]
fn a_folder_of_rules_is_imported_whole_or_not_at_all() {
    let folder = scratch();
    write(folder.path(), &SET);
    fs::write(folder.path().join("lazaret.toml"), "scan.rules_dir = \"mine\"\n").unwrap();
    let import = |words: &[&str]| {
        let arguments = [&["--config", "lazaret.toml", "rules", "import", "stock"], words].concat();
        run(folder.path(), &arguments)
    };
    // A folder that is configured has to be there.
    fs::create_dir(folder.path().join("mine")).unwrap();
    let output = import(&["--dry-run"]);
    assert!(output.status.success(), "{}", printed(&output));
    assert!(!folder.path().join("mine/20_rules.cf").exists());

    let output = import(&[]);
    let text = printed(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("TEST_NONE") && text.contains("no_such()"), "{text}");
    assert!(text.contains("report_safe (1)"), "{text}");
    for (name, _) in &SET[..3] {
        assert!(folder.path().join(name.replace("stock", "mine")).is_file(), "{name}");
    }
    assert!(!folder.path().join("mine/README").exists());

    let output = import(&[]);
    assert!(!output.status.success() && printed(&output).contains("--replace"), "{}", printed(&output));
    write(folder.path(), &[("stock/30_broken.cf", "body TEST_BROKEN /(/\nfrobnicate\n")]);
    let output = import(&["--replace"]);
    let text = printed(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("30_broken.cf:1:") && text.contains("30_broken.cf:2:"), "{text}");
    assert!(!folder.path().join("mine/30_broken.cf").exists());
    assert!(folder.path().join("mine/20_rules.cf").is_file());

    write(folder.path(), &[("stock/30_broken.cf", "body TEST_WHOLE /x/\n")]);
    assert!(import(&["--replace"]).status.success());
    assert!(folder.path().join("mine/30_broken.cf").is_file());
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{names:?}");
}

#[test]
fn what_lies_outside_of_the_folder_is_not_included() {
    let folder = scratch();
    write(
        folder.path(),
        &[
            ("secret.cf", "body TEST_SECRET /x/\n"),
            ("stock/a.cf", "include ../secret.cf\ninclude /etc/hostname\ninclude link.inc\n"),
        ],
    );
    std::os::unix::fs::symlink(folder.path().join("secret.cf"), folder.path().join("stock/link.inc"))
        .unwrap();
    let output = run(folder.path(), &["rules", "check", "stock"]);
    let text = printed(&output);
    assert!(!output.status.success(), "{text}");
    for line in 1..=3 {
        assert!(text.contains(&format!("stock/a.cf:{line}: ")), "{text}");
    }
    assert!(text.contains("0 rules"), "{text}");
}

#[test]
fn rules_are_listed_explained_and_tried() {
    let folder = scratch();
    write(folder.path(), &SET);
    write(folder.path(), &[("one.eml", &message("A parrot", "Pink FLAMINGO."))]);
    let lazaret = |words: &[&str]| {
        let output = run(folder.path(), words);
        assert!(output.status.success(), "{words:?}: {}", printed(&output));
        printed(&output)
    };
    let text = lazaret(&["rules", "list", "--rules", "stock"]);
    assert!(text.contains("TEST_WORD") && text.contains("caf\u{e9}"), "{text}");
    let text = lazaret(&["rules", "explain", "TEST_WORD", "--rules", "stock"]);
    assert!(text.contains("stock/20_rules.cf:1") && text.contains("flamingo"), "{text}");
    let text = lazaret(&["rules", "test", "one.eml", "--rules", "stock"]);
    assert!(text.contains("TEST_WORD") && text.contains("FLAMINGO"), "{text}");
    let json = run(folder.path(), &["rules", "check", "--json", "stock"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["rules"], 3);
    assert_eq!(json["unsupported"][0]["function"], "no_such");
    assert_eq!(json["ignored"]["report_safe"], 1);
}

#[test]
fn a_reload_takes_good_rules_and_keeps_the_old_ones_before_broken_ones() {
    let folder = scratch();
    let hop = Hop::start();
    let rule = |points: &str| format!("body TEST_WORD /flamingo/i\nscore TEST_WORD {points}\n");
    write(folder.path(), &[("mine/a.cf", &rule("100"))]);
    let keys = format!(
        "inbound.domains = [\"example.org\"]\ninbound.next_hop = \"smtp://{}\"\nscan.rules_dir = {:?}\n",
        hop.address,
        folder.path().join("mine"),
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let send = |subject: &str| {
        let mut client = Client::connect(gateway.inbound).unwrap();
        client.send("ann@sender.example", &["alice@example.org"], &message(subject, "A flamingo.")).unwrap()
    };
    let reload = |text: &str, times: usize| {
        assert!(Command::new("kill").args(["-HUP", &gateway.pid().to_string()]).status().unwrap().success());
        gateway.logged(text, times);
    };
    assert!(send("first").starts_with("5"), "{}", gateway.log());

    write(folder.path(), &[("mine/b.cf", "score TEST_WORD 0\nbody TEST_BROKEN /(/\n")]);
    reload("the configuration was not reloaded", 1);
    gateway.logged("b.cf:2: ", 1);
    assert!(send("second").starts_with("5"));

    write(folder.path(), &[("mine/b.cf", "score TEST_WORD 0\n")]);
    reload("the configuration was reloaded", 1);
    assert!(send("third").starts_with("250"));
    assert_eq!(hop.taken().len(), 1);
    assert!(gateway.stop().success());
}

#[test]
fn a_gateway_with_broken_rules_does_not_start() {
    let folder = scratch();
    write(folder.path(), &[("mine/a.cf", "frobnicate\nbody TEST_BROKEN /(/\n")]);
    let keys = format!("scan.rules_dir = {:?}\n", folder.path().join("mine"));
    let Err(log) = Gateway::try_start(folder.path(), &keys) else { panic!("it started") };
    assert!(log.contains("a.cf:1: ") && log.contains("a.cf:2: "), "{log}");
}
