//! A gateway that goes on: its configuration changed while it runs, its sockets handed to its successor.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::parts::{Client, Gateway, Hop, eventually, free_port, message, scratch};

/// Replaces a text in the gateway's configuration and asks it to read that again.
fn change(folder: &Path, gateway: &Gateway, from: &str, to: &str) {
    let file = folder.join("lazaret.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&file, text.replace(from, to)).unwrap();
    signal("-HUP", gateway.pid());
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

fn rcpt(client: &mut Client, recipient: &str) -> String {
    let reply = client.command("MAIL FROM:<ann@sender.example>").unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    let reply = client.command(&format!("RCPT TO:<{recipient}>")).unwrap();
    client.command("RSET").unwrap();
    reply
}

#[test]
fn a_changed_list_of_domains_takes_effect_without_dropping_an_open_session() {
    let folder = scratch();
    let hop = Hop::start();
    let keys =
        format!("inbound.domains = [\"example.org\"]\ninbound.next_hop = \"smtp://{}\"\n", hop.address);
    let gateway = Gateway::start(folder.path(), &keys);
    let mut before = Client::connect(gateway.inbound).unwrap();
    assert!(rcpt(&mut before, "bob@example.net").starts_with("550"));

    change(folder.path(), &gateway, "[\"example.org\"]", "[\"example.net\"]");
    gateway.logged("the configuration was reloaded", 1);
    let mut after = Client::connect(gateway.inbound).unwrap();
    assert!(rcpt(&mut after, "bob@example.net").starts_with("250"));
    assert!(rcpt(&mut after, "alice@example.org").starts_with("550"));
    // The open session ends with what it began with.
    assert!(rcpt(&mut before, "alice@example.org").starts_with("250"));
    assert!(rcpt(&mut before, "bob@example.net").starts_with("550"));
    assert!(gateway.stop().success());
}

#[test]
fn a_broken_file_changes_nothing_and_every_problem_is_logged() {
    let folder = scratch();
    let hop = Hop::start();
    let keys =
        format!("inbound.domains = [\"example.org\"]\ninbound.next_hop = \"smtp://{}\"\n", hop.address);
    let gateway = Gateway::start(folder.path(), &keys);
    change(
        folder.path(),
        &gateway,
        "[\"example.org\"]",
        "[\"example.net\"]\nhostnam = \"x\"\nscan.timeout = 3",
    );
    gateway.logged("the configuration was not reloaded", 1);
    for expected in ["hostnam", "scan.timeout", "line=2", "line=3"] {
        gateway.logged(expected, 1);
    }
    let mut client = Client::connect(gateway.inbound).unwrap();
    assert!(rcpt(&mut client, "alice@example.org").starts_with("250"));
    assert!(rcpt(&mut client, "bob@example.net").starts_with("550"));

    // Nor does one that reads well and cannot be carried out: the port is taken.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = format!("\n[[inbound.listener]]\nlisten = \"{}\"\n", taken.local_addr().unwrap());
    let file = folder.path().join("lazaret.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("\nhostnam = \"x\"\nscan.timeout = 3", "");
    std::fs::write(&file, text + &listener).unwrap();
    signal("-HUP", gateway.pid());
    gateway.logged("the configuration was not reloaded", 2);
    let mut client = Client::connect(gateway.inbound).unwrap();
    assert!(rcpt(&mut client, "alice@example.org").starts_with("250"));
    assert!(gateway.stop().success());
}

#[test]
fn an_open_session_ends_with_its_next_hop_and_new_limits_count_it() {
    let folder = scratch();
    let (old, new) = (Hop::start(), Hop::start());
    let keys = format!("inbound.next_hop = \"smtp://{}\"\nsmtp.max_connections_per_ip = 5\n", old.address);
    let gateway = Gateway::start(folder.path(), &keys);
    for line in ["listening", "next hop"] {
        gateway.logged(line, 2);
    }
    let mut before = Client::connect(gateway.inbound).unwrap();
    assert!(before.command("MAIL FROM:<ann@sender.example>").unwrap().starts_with("250"));
    assert!(before.command("RCPT TO:<alice@example.org>").unwrap().starts_with("250"));

    change(folder.path(), &gateway, &old.address.to_string(), &new.address.to_string());
    gateway.logged("the configuration was reloaded", 1);
    assert!(before.command("DATA").unwrap().starts_with("354"));
    let text = message("under way", "text").replace('\n', "\r\n");
    assert!(before.command(&format!("{text}\r\n.")).unwrap().starts_with("250"));
    let send = |client: &mut Client, subject: &str| {
        let sent = client.send("ann@sender.example", &["alice@example.org"], &message(subject, "text"));
        assert!(sent.unwrap().starts_with("250"));
    };
    send(&mut before, "second");
    assert_eq!((old.taken().len(), new.taken().len()), (2, 0));
    let mut after = Client::connect(gateway.inbound).unwrap();
    send(&mut after, "third");
    assert_eq!((old.taken().len(), new.taken().len()), (2, 1));

    // Both sessions are open, and one more is one too many now.
    change(folder.path(), &gateway, "per_ip = 5", "per_ip = 2");
    gateway.logged("the configuration was reloaded", 2);
    let mut greeting = String::new();
    TcpStream::connect(gateway.inbound).unwrap().read_to_string(&mut greeting).unwrap();
    assert!(greeting.starts_with("421"), "{greeting}");
    send(&mut before, "fourth");
    assert_eq!(crate::vitals::metric(gateway.web, "lazaret_reloads_total"), Some(2));
    assert!(gateway.stop().success());
}

#[test]
fn listeners_are_added_and_removed_while_it_runs() {
    let folder = scratch();
    let gateway = Gateway::start(folder.path(), "");
    let further = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let file = folder.path().join("lazaret.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let listener = format!("{before}\n[[inbound.listener]]\nlisten = \"{further}\"\nprotocol = \"lmtp\"\n");
    std::fs::write(&file, listener).unwrap();
    signal("-HUP", gateway.pid());
    gateway.logged("the configuration was reloaded", 1);
    let mut greeting = [0u8; 4];
    TcpStream::connect(further).unwrap().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ");
    Client::connect(gateway.inbound).unwrap();

    std::fs::write(&file, format!("{before}\nmail_from = \"other@example.org\"\n")).unwrap();
    signal("-HUP", gateway.pid());
    gateway.logged("takes effect after a restart", 1);
    eventually("the listener to close", || TcpStream::connect(further).is_err().then_some(()));
    Client::connect(gateway.inbound).unwrap();
    gateway.logged("mail_from", 1);
    assert!(gateway.stop().success());
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let folder = scratch();
    let gateway = Gateway::start(folder.path(), "smtp.shutdown_grace = \"1h\"\n");
    let mut client = Client::connect(gateway.inbound).unwrap();
    client.command("MAIL FROM:<ann@sender.example>").unwrap();
    client.command("RCPT TO:<alice@example.org>").unwrap();
    assert!(client.command("DATA").unwrap().starts_with("354"));
    signal("-TERM", gateway.pid());
    gateway.logged("draining", 1);
    assert_eq!(gateway.stop().code(), Some(1));
}

/// A gateway with the inbound listener of this test, which holds it open as systemd does.
struct Successor {
    child: Child,
}

impl Successor {
    fn start(folder: &Path, listener: &TcpListener) -> Self {
        let socket = OwnedFd::from(listener.try_clone().unwrap());
        // The shell puts the socket where systemd puts it, and becomes the gateway: LISTEN_PID is its own.
        let child = Command::new("sh")
            .args([
                "-c",
                "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=inbound exec \"$@\"",
                "sh",
            ])
            .args([env!("CARGO_BIN_EXE_lazaret"), "--config", "lazaret.toml", "serve"])
            .current_dir(folder)
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Successor { child }
    }

    fn stop(mut self) {
        signal("-TERM", self.child.id());
        let ended = eventually("the gateway to end", || self.child.try_wait().unwrap());
        assert!(ended.success());
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_restart_under_load_refuses_no_connection() {
    let folder = scratch();
    let hop = Hop::start();
    std::fs::write(
        folder.path().join("lazaret.toml"),
        format!(
            "data_dir = \"data\"\nweb.listen = \"127.0.0.1:0\"\noutbound.listen = \"127.0.0.1:0\"\n\
             inbound.listen = \"systemd:inbound\"\ninbound.domains = [\"example.org\"]\n\
             inbound.next_hop = \"smtp://{}\"\n",
            hop.address
        ),
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut gateway = Successor::start(folder.path(), &listener);

    let (is_over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, served) = (Arc::clone(&is_over), Arc::clone(&served));
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    served.fetch_add(one_session(address), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let before = served.load(Ordering::Relaxed);
        eventually("sessions", || (served.load(Ordering::Relaxed) >= before + 20).then_some(()));
        gateway.stop();
        gateway = Successor::start(folder.path(), &listener);
    }
    let before = served.load(Ordering::Relaxed);
    eventually("sessions", || (served.load(Ordering::Relaxed) >= before + 20).then_some(()));
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    gateway.stop();
}

/// Connects, which never fails, and asks for a recipient. Gives 1 if the session was served to its end, and
/// 0 if it was told to come again (421), or was cut off before it had said anything.
fn one_session(address: SocketAddr) -> usize {
    let mut client = match Client::connect(address) {
        Ok(client) => client,
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::ConnectionRefused);
            return 0;
        }
    };
    for command in ["MAIL FROM:<ann@sender.example>", "RCPT TO:<alice@example.org>", "QUIT"] {
        match client.command(command) {
            Ok(reply) if reply.starts_with('2') => {}
            Ok(reply) => {
                assert!(reply.starts_with("421"), "{reply}");
                return 0;
            }
            Err(_) => return 0,
        }
    }
    1
}
