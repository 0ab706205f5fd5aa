//! What the client hears when something around the gateway fails: a 4xx, and nothing is lost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::parts::{Client, Gateway, Hop, lazaret, message, run, scratch};

/// A next hop that answers every connection with the same bytes, then closes.
fn hop_that_says(script: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.write_all(script).ok();
            let mut rest = [0u8; 1024];
            stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).ok();
            while matches!(stream.read(&mut rest), Ok(1..)) {}
        }
    });
    address
}

fn check(next_hop: SocketAddr, expected: &str) {
    let folder = scratch();
    let keys = format!(
        "inbound.next_hop = \"smtp://{next_hop}\"\nrelay.command_timeout = \"2s\"\nrelay.data_timeout = \"2s\""
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let mut client = Client::connect(gateway.inbound).unwrap();
    let reply = client.send("ann@sender.example", &["alice@example.org"], &message("fault", "text")).unwrap();
    assert!(reply.starts_with(expected), "{reply}\n{}", gateway.log());
    // The session goes on, and the gateway lives.
    assert!(client.command("NOOP").unwrap().starts_with("250"));
}

#[test]
fn a_next_hop_that_is_down_gets_the_client_a_4xx() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    check(address, "451 4.4.1");
}

#[test]
fn a_next_hop_that_never_speaks_gets_the_client_a_4xx() {
    check(hop_that_says(b""), "451 4.4");
}

#[test]
fn a_next_hop_that_talks_nonsense_gets_the_client_a_4xx() {
    check(hop_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "451 4.4");
}

#[test]
fn a_next_hop_that_greets_and_leaves_gets_the_client_a_4xx() {
    check(hop_that_says(b"220 hop\r\n250 hop\r\n"), "451 4.4");
}

#[test]
fn a_next_hop_that_leaves_at_the_end_of_data_gets_the_client_a_4xx() {
    // Every reply comes ahead of its command; after 354 nothing more does.
    check(hop_that_says(b"220 hop\r\n"), "451 4.4");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.write_all(b"220 hop\r\n").ok();
            let mut seen = String::new();
            let mut buffer = [0u8; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
                if seen.ends_with("\r\n.\r\n") {
                    break;
                }
                if seen.ends_with("DATA\r\n") {
                    stream.write_all(b"354 go\r\n").ok();
                } else if seen.ends_with("\r\n") && !seen.contains("DATA\r\n") {
                    stream.write_all(b"250 ok\r\n").ok();
                }
            }
        }
    });
    check(address, "451 4.4.2");
}

#[test]
fn a_full_disk_gets_the_client_a_452_and_a_clear_line_in_the_log() {
    let folder = scratch();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let config = folder.path().join("lazaret.toml");
    let hop = Hop::start();
    std::fs::write(
        &config,
        format!(
            "data_dir = \"{}\"\ninbound.listen = \"127.0.0.1:0\"\noutbound.listen = \"127.0.0.1:0\"\nweb.listen = \"127.0.0.1:0\"\n\
             inbound.tag = -50.0\ninbound.quarantine = -50.0\ninbound.next_hop = \"smtp://{}\"\n",
            data.display(),
            hop.address
        ),
    )
    .unwrap();
    // A small file system of its own, in a mount namespace of its own.
    let mut child = Command::new("unshare")
        .args(["-rm", "sh", "-c", "mount -t tmpfs -o size=8m tmpfs \"$1\" && shift && exec \"$@\"", "sh"])
        .arg(&data)
        .arg(env!("CARGO_BIN_EXE_lazaret"))
        .args(["--config", config.to_str().unwrap(), "serve"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut printed = String::new();
    while !printed.contains("\nready\n") {
        let mut buffer = [0u8; 512];
        let read = stdout.read(&mut buffer).unwrap();
        assert!(read > 0, "the gateway did not start: {printed}");
        printed.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    let inbound = printed.lines().find_map(|line| line.strip_prefix("inbound: ")).unwrap();
    let mut client = Client::connect(inbound.parse().unwrap()).unwrap();
    let text = "a line that takes room on the disk\n".repeat(30_000);
    let mut replies = Vec::new();
    for number in 0..12 {
        let message = message(&format!("full.{number}"), &text);
        replies.push(client.send("ann@sender.example", &["alice@example.org"], &message).unwrap());
    }
    // The session, and smaller work, go on.
    assert!(client.command("NOOP").unwrap().starts_with("250"));
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(replies.first().unwrap().starts_with("250"), "{replies:?}\n{log}");
    assert!(replies.last().unwrap().starts_with("452 4.3.1"), "{replies:?}\n{log}");
    assert!(replies.iter().all(|reply| reply.starts_with("250") || reply.starts_with("45")), "{replies:?}");
    assert!(log.contains("transaction failed"), "{log}");
}

#[test]
fn a_data_folder_that_cannot_be_written_is_refused_at_the_start() {
    let folder = scratch();
    std::fs::write(folder.path().join("data"), "this is a file").unwrap();
    let Err(log) = Gateway::try_start(folder.path(), "") else { panic!("it started") };
    assert!(log.contains("data"), "{log}");
}

#[test]
fn a_second_gateway_on_the_same_folder_is_refused() {
    let folder = scratch();
    let gateway = Gateway::start(folder.path(), "");
    let output = run(folder.path(), &["--config", "lazaret.toml", "serve"]);
    assert!(!output.status.success());
    let text = crate::parts::printed(&output);
    assert!(text.contains("another gateway"), "{text}");
    let mut client = Client::connect(gateway.inbound).unwrap();
    assert!(client.command("NOOP").unwrap().starts_with("250"));
}

#[test]
fn a_damaged_state_store_is_set_aside_while_the_gateway_serves() {
    let folder = scratch();
    let gateway = Gateway::start(folder.path(), "");
    assert!(gateway.stop().success());
    let state = folder.path().join("data/state");
    assert!(state.is_dir());
    for entry in std::fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, b"this was a database once").unwrap();
        }
    }
    let gateway = Gateway::start(folder.path(), "");
    let mut client = Client::connect(gateway.inbound).unwrap();
    let reply = client.send("ann@sender.example", &["alice@example.org"], &message("after", "text")).unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    let aside = std::fs::read_dir(folder.path().join("data"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .any(|name| name.starts_with("state.damaged-"));
    assert!(aside, "{}", gateway.log());
    assert!(gateway.log().contains("set aside"), "{}", gateway.log());
    let metrics = crate::web::Browser::new(gateway.web).get("/metrics").body;
    assert!(metrics.contains("lazaret_state_stores_set_aside_total 1"), "{metrics}");
}

#[test]
fn a_message_that_is_no_message_is_still_scanned_and_decided() {
    let folder = scratch();
    let hop = Hop::start();
    let gateway = Gateway::start(folder.path(), &format!("inbound.next_hop = \"smtp://{}\"", hop.address));
    let mut client = Client::connect(gateway.inbound).unwrap();
    for text in ["", "\n", "no header at all", "\u{1}\u{2}: \u{7f}\n\n", ":\n:\n:\n"] {
        let reply = client.send("", &["alice@example.org"], text).unwrap();
        assert!(reply.starts_with("250") || reply.starts_with("554"), "{text:?}: {reply}");
    }
    let gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";
    let reply = client.send("", &["alice@example.org"], gtube).unwrap();
    assert!(reply.starts_with("554 5.7.1"), "a message without a header hides the test string: {reply}");
}

#[test]
fn no_address_reaches_the_log() {
    let folder = scratch();
    let gateway = Gateway::start(folder.path(), "log = \"debug\"");
    let mut client = Client::connect(gateway.inbound).unwrap();
    let text = message("secretsubject", "secretbody");
    client.send("secretsender@secretdomain.example", &["secretrecipient@example.org"], &text).unwrap();
    client.command("MAIL FROM:<secretsender@broken").unwrap();
    client.command("VRFY secretsender").unwrap();
    client.command("QUIT").unwrap();
    let log = crate::parts::eventually("the line of the transaction", || {
        Some(gateway.log()).filter(|log| log.contains("symbols"))
    });
    for secret in ["secretsubject", "secretbody", "secretsender", "secretdomain", "secretrecipient"] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
}

#[test]
fn the_command_line_refuses_what_it_does_not_know() {
    let folder = scratch();
    let output = lazaret(folder.path(), &["frobnicate"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
