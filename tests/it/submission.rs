//! Who the client is: signed in with an account or at the next hop, over TLS, behind a proxy or a relay.

use std::net::SocketAddr;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::next_hop::{greet, submit};
use crate::parts::{Gateway, free_port, printed, run, scratch};
use crate::scripted::{Nature, ScriptedHop};
use crate::secure::{Ca, Lines, set_private};

const PASSWORD: &str = "correct horse battery";

fn plain(name: &str, password: &str) -> String {
    STANDARD.encode(format!("\0{name}\0{password}"))
}

/// Connects, starts TLS, and says EHLO once more; gives the reply to that too.
fn greet_over_tls(ca: &Ca, to: SocketAddr, name: &str) -> (Lines, String) {
    let mut client = greet(to, "EHLO client.example");
    client.expect("STARTTLS", "220");
    let mut client = client.start_tls(&ca.client(), name).unwrap();
    let hello = client.expect("EHLO client.example", "250");
    (client, hello)
}

#[test]
fn mail_is_handed_in_with_an_account_over_tls_alone() {
    let folder = scratch();
    let ca = Ca::new(folder.path());
    let (usual, of_kit) = (ScriptedHop::start(Nature::default()), ScriptedHop::start(Nature::default()));
    let provider = ScriptedHop::start(Nature {
        tls: Some(ca.issue("127.0.0.1").server()),
        plain_response: Some(plain("example.org", "the provider's word")),
        ..Nature::default()
    });
    let login = folder.path().join("provider.login");
    std::fs::write(&login, "example.org\nthe provider's word\n").unwrap();
    set_private(&login);
    let keys = format!(
        "{}tls.roots = \"{}\"\noutbound.tls = \"required\"\noutbound.auth = \"accounts\"\noutbound.networks = []\n\
         outbound.next_hop = \"smtp://{}\"\noutbound.route = [\n\
         {{ sender_domains = [\"news.example\"], next_hops = [{{ to = \"smtp://{}\", tls = \"verified\", \
         login_file = \"{}\" }}] }},\n\
         {{ accounts = [\"kit\"], next_hops = [\"smtp://{}\"] }}]\n",
        ca.issue("mail.example.org").as_setting(),
        ca.file().display(),
        usual.address,
        provider.address,
        login.display(),
        of_kit.address
    );
    let gateway = Gateway::start(folder.path(), &keys);
    std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
    for account in ["kit", "lee"] {
        let arguments =
            ["--config", "lazaret.toml", "accounts", "add", account, "--password-file", "password"];
        let senders = ["--sender", "@example.org", "--sender", "@news.example"];
        let output = run(folder.path(), &[&arguments[..], &senders].concat());
        assert!(output.status.success(), "{}", printed(&output));
    }

    let mut clear = Lines::connect(gateway.outbound);
    clear.reply();
    let hello = clear.expect("EHLO client.example", "250");
    assert!(hello.contains("STARTTLS") && !hello.contains("AUTH"), "{hello}");
    clear.expect("MAIL FROM:<kit@example.org>", "530 5.7.0 ");
    clear.expect(&format!("AUTH PLAIN {}", plain("kit", PASSWORD)), "530 5.7.0 ");

    let (mut client, hello) = greet_over_tls(&ca, gateway.outbound, "mail.example.org");
    assert!(hello.contains("AUTH SCRAM-SHA-256 PLAIN LOGIN"), "{hello}");
    client.expect("MAIL FROM:<kit@example.org>", "530 5.7.0 ");
    client.expect(&format!("AUTH PLAIN {}", plain("kit", "incorrect horse")), "535 5.7.8 ");
    client.expect(&format!("AUTH PLAIN {}", plain("kit", PASSWORD)), "235 2.7.0 ");
    client.expect("MAIL FROM:<kit@elsewhere.example>", "553 5.7.1 ");
    submit(&mut client, "MAIL FROM:<kit@example.org>", &["friend@far.example"], "by account");
    assert!(client.reply().starts_with("250 "));
    let taken = of_kit.taken().pop().unwrap();
    assert!(taken.text.replace("\r\n ", " ").contains(" with ESMTPSA id "), "{}", taken.text);

    let (mut client, _) = greet_over_tls(&ca, gateway.outbound, "mail.example.org");
    client.expect("AUTH LOGIN", "334 ");
    client.expect(&STANDARD.encode("LEE"), "334 ");
    client.expect(&STANDARD.encode(PASSWORD), "235 2.7.0 ");
    submit(&mut client, "MAIL FROM:<lee@example.org>", &["friend@far.example"], "the usual way");
    assert!(client.reply().starts_with("250 "));
    assert_eq!(usual.taken().len(), 1);
    submit(&mut client, "MAIL FROM:<lee@news.example>", &["friend@far.example"], "by domain");
    assert!(client.reply().starts_with("250 "));
    let taken = provider.taken().pop().unwrap();
    assert!(taken.is_secure && taken.is_signed_in);
    assert_eq!((usual.taken().len(), of_kit.taken().len()), (1, 1));
    let log = gateway.log();
    assert!(!log.contains("kit@") && !log.contains("lee@") && !log.contains(PASSWORD), "{log}");
    assert!(gateway.stop().success());
}

#[test]
fn a_password_is_passed_on_to_a_next_hop_that_knows_it() {
    let folder = scratch();
    let ca = Ca::new(folder.path());
    let hop = ScriptedHop::start(Nature {
        tls: Some(ca.issue("127.0.0.1").server()),
        plain_response: Some(plain("kit", PASSWORD)),
        ..Nature::default()
    });
    let keys = format!(
        "{}tls.roots = \"{}\"\noutbound.tls = \"required\"\noutbound.auth = \"next_hop\"\noutbound.networks = []\n\
         outbound.next_hop = \"smtp://{}\"\noutbound.next_hop_tls = \"verified\"\n",
        ca.issue("mail.example.org").as_setting(),
        ca.file().display(),
        hop.address
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let (mut client, hello) = greet_over_tls(&ca, gateway.outbound, "mail.example.org");
    assert!(hello.contains("AUTH PLAIN LOGIN"), "{hello}");
    client.expect(&format!("AUTH PLAIN {}", plain("kit", "incorrect horse")), "535 5.7.8 ");
    client.expect("MAIL FROM:<kit@example.org>", "530 5.7.0 ");
    client.expect(&format!("AUTH PLAIN {}", plain("kit", PASSWORD)), "235 2.7.0 ");
    submit(&mut client, "MAIL FROM:<kit@example.org>", &["friend@far.example"], "signed in there");
    assert!(client.reply().starts_with("250 "));
    let taken = hop.taken().pop().unwrap();
    assert!(taken.is_secure && taken.is_signed_in);
    assert!(gateway.stop().success());
}

#[test]
fn the_client_is_the_one_that_a_trusted_peer_speaks_for() {
    let folder = scratch();
    let hop = ScriptedHop::start(Nature {
        offers: vec!["XFORWARD NAME ADDR PROTO HELO".to_owned()],
        ..Nature::default()
    });
    let proxied = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let keys = format!(
        "inbound.domains = [\"example.org\"]\ninbound.next_hop = \"smtp://{}\"\n\
         inbound.listener = [{{ listen = \"{proxied}\", proxy_protocol = true }}]\n\
         smtp.proxy_networks = [\"127.0.0.1\"]\nsmtp.xclient_networks = [\"127.0.0.1\"]\n\
         smtp.xforward_networks = [\"127.0.0.1\"]\n",
        hop.address
    );
    let gateway = Gateway::start(folder.path(), &keys);

    let mut by_proxy = Lines::connect(proxied);
    by_proxy.send("PROXY TCP4 203.0.113.1 127.0.0.1 4444 25\r\n").unwrap();
    assert!(by_proxy.reply().starts_with("220 "));
    by_proxy.expect("EHLO client.example", "250");

    let mut by_xclient = greet(gateway.inbound, "EHLO relay.example");
    by_xclient.expect("XCLIENT ADDR=203.0.113.2 NAME=mx.sender.example", "220");
    by_xclient.expect("EHLO client.example", "250");

    let mut by_xforward = greet(gateway.inbound, "EHLO relay.example");
    by_xforward.expect("XFORWARD ADDR=203.0.113.3 NAME=mx.sender.example HELO=client.example", "250");

    for (mut client, address) in
        [(by_proxy, "203.0.113.1"), (by_xclient, "203.0.113.2"), (by_xforward, "203.0.113.3")]
    {
        submit(&mut client, "MAIL FROM:<ann@sender.example>", &["alice@example.org"], address);
        assert!(client.reply().starts_with("250 "));
        let taken = hop.taken().pop().unwrap();
        let received = taken.text.replace("\r\n ", " ");
        assert!(received.starts_with("Received: from client.example ("), "{received}");
        assert!(received.contains(&format!("[{address}]) by ")), "{received}");
        let told = format!("ADDR={address} PROTO=ESMTP HELO=client.example");
        assert!(hop.commands().iter().any(|command| command.ends_with(&told)), "{:?}", hop.commands());
        let client = format!("client={address} ");
        gateway.logged(&client, 1);
    }

    // Where no proxy is, there is no header.
    let mut stranger = Lines::connect(gateway.inbound);
    assert!(stranger.reply().starts_with("220 "));
    stranger.expect("PROXY TCP4 203.0.113.1 127.0.0.1 4444 25", "5");
    assert!(gateway.stop().success());
}

#[test]
fn a_new_certificate_is_shown_after_a_reload_and_an_open_session_goes_on() {
    let folder = scratch();
    let ca = Ca::new(folder.path());
    let hop = ScriptedHop::start(Nature::default());
    let identity = ca.issue("mx.example.org");
    let keys = format!(
        "{}inbound.tls = \"offered\"\ninbound.domains = [\"example.org\"]\ninbound.next_hop = \"smtp://{}\"\n",
        identity.as_setting(),
        hop.address
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let (mut open, hello) = greet_over_tls(&ca, gateway.inbound, "mx.example.org");
    assert!(!hello.contains("STARTTLS"), "{hello}");

    let renewed = ca.issue("renewed.example.org");
    std::fs::copy(&renewed.chain, &identity.chain).unwrap();
    std::fs::copy(&renewed.key, &identity.key).unwrap();
    let pid = gateway.pid().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    gateway.logged("the configuration was reloaded", 1);
    let (mut new, _) = greet_over_tls(&ca, gateway.inbound, "renewed.example.org");
    for (client, subject) in [(&mut open, "under the old one"), (&mut new, "under the new one")] {
        submit(client, "MAIL FROM:<ann@sender.example>", &["alice@example.org"], subject);
        assert!(client.reply().starts_with("250 "));
        let taken = hop.taken().pop().unwrap();
        assert!(taken.text.replace("\r\n ", " ").contains(" with ESMTPS id "), "{}", taken.text);
    }
    assert_eq!(hop.taken().len(), 2);
    let mut stale = greet(gateway.inbound, "EHLO client.example");
    stale.expect("STARTTLS", "220");
    assert!(stale.start_tls(&ca.client(), "mx.example.org").is_err());
    assert!(gateway.stop().success());
}
