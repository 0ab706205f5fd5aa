//! A Maildir as next hop.

use super::{mail, message, send};
use crate::relay::{Config, NextHop, Relay};

#[tokio::test]
async fn a_maildir_holds_envelope_and_message_byte_by_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mail");
    let relay = Relay::new(Config::new(NextHop::Maildir { path: path.clone() }, "gw.example"));
    for _ in 0..2 {
        assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 2.0.0 Delivered");
    }
    let files: Vec<_> =
        std::fs::read_dir(path.join("new")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 2);
    let expected = "Return-Path: <a@b.example>\r\nDelivered-To: c@d.example\r\nX-Added: 1\r\n\r\n.dot\r\n";
    for file in files {
        assert_eq!(std::fs::read_to_string(file).unwrap(), expected);
    }
    assert_eq!(std::fs::read_dir(path.join("tmp")).unwrap().count(), 0);
    std::fs::remove_dir_all(&path).unwrap();
    assert_eq!(send(&relay, &mail(), &message()).await, "data Maildir");
    assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 2.0.0 Delivered");
}

#[tokio::test]
async fn a_maildir_that_cannot_be_made_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "in the way").unwrap();
    let relay = Relay::new(Config::new(NextHop::Maildir { path }, "gw.example"));
    assert_eq!(send(&relay, &mail(), &message()).await, "data Maildir");
}
