//! The demo: the first thing anybody sees.

use crate::parts::{printed, run, scratch};

#[test]
fn the_demo_accounts_for_every_message_and_ends() {
    let folder = scratch();
    let output = run(folder.path(), &["demo", "--once"]);
    let text = printed(&output);
    assert!(output.status.success(), "{text}");
    for expected in ["phishing", "newsletter", "outbound", "every message is accounted for"] {
        assert!(text.contains(expected), "{expected} is not in: {text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the demo leaves nothing behind");
}
