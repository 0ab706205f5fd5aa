//! Listeners on loopback ports and in private folders, and a process that inherits its sockets.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;

fn tcp() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn addresses_are_read_as_they_are_written() {
    for text in ["192.0.2.1:25", "[::]:25", "unix:/run/lazaret/lmtp.sock", "systemd:inbound"] {
        assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
    }
    for text in ["", "192.0.2.1", "mx.example:25", "unix:", "unix:lmtp.sock", "systemd:", "/run/x", "[::]"] {
        assert_eq!(text.parse::<ListenAddress>(), Err(ListenAddressError), "{text}");
    }
}

#[test]
fn handed_over_sockets_are_numbered_like_their_names() {
    let pairs = |names, count| numbered(names, count).map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(pairs("inbound:outbound", 2), ["inbound", "outbound"]);
    assert_eq!(pairs("inbound", 2), ["inbound", "unknown"]);
    assert_eq!(pairs("", 1), ["unknown"]);
    assert_eq!(pairs("a:b:c", 1), ["a"]);
}

#[tokio::test]
async fn a_handed_over_socket_is_found_by_name_or_by_address_and_once() {
    let (named, addressed) = (tcp(), tcp());
    let [named_at, at] = [&named, &addressed].map(|l| ListenAddress::Tcp(l.local_addr().unwrap()));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("lmtp.sock");
    let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut inherited = Inherited {
        sockets: vec![
            ("inbound".to_owned(), InheritedSocket::Tcp(named)),
            ("unknown".to_owned(), InheritedSocket::Tcp(addressed)),
            ("unknown".to_owned(), InheritedSocket::Unix(unix)),
        ],
    };
    let by_name = ListenAddress::Inherited("inbound".to_owned());
    assert_eq!(Listener::open(&by_name, &mut inherited).unwrap().address().unwrap(), named_at);
    assert_eq!(Listener::open(&at, &mut inherited).unwrap().address().unwrap(), at);
    let unix = ListenAddress::Unix(path);
    assert_eq!(Listener::open(&unix, &mut inherited).unwrap().address().unwrap(), unix);
    assert_eq!(inherited.names().count(), 0);
    assert_eq!(Listener::open(&by_name, &mut inherited).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error_and_a_left_over_unix_socket_is_not() {
    let taken = tcp();
    let address = ListenAddress::Tcp(taken.local_addr().unwrap());
    let open = |address: &ListenAddress| Listener::open(address, &mut Inherited::default());
    assert_eq!(open(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);

    let folder = TempDir::new().unwrap();
    let address = ListenAddress::Unix(folder.path().join("lmtp.sock"));
    let first = open(&address).unwrap();
    assert_eq!(open(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(first);
    let second = open(&address).unwrap();
    let mode = std::fs::metadata(folder.path().join("lmtp.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, UNIX_MODE);
    drop(second);

    let file = folder.path().join("a.txt");
    std::fs::write(&file, "mine").unwrap();
    assert_eq!(open(&ListenAddress::Unix(file.clone())).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
}

#[tokio::test]
async fn the_unspecified_ipv6_address_takes_ipv4_under_its_own_name() {
    let any: ListenAddress = "[::]:0".parse().unwrap();
    let listener = match Listener::open(&any, &mut Inherited::default()) {
        Ok(listener) => listener,
        // A machine without IPv6 has no such address.
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(97), "{error}");
            return;
        }
    };
    let ListenAddress::Tcp(address) = listener.address().unwrap() else { panic!("not TCP") };
    let _client = TcpStream::connect(("127.0.0.1", address.port())).await.unwrap();
    let (_, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.unwrap().ip(), "127.0.0.1".parse::<IpAddr>().unwrap());
}

/// The variable that makes [`a_process_takes_the_sockets_that_it_inherits`] the process that inherits.
const HEIR: &str = "LAZARET_TEST_HEIR";

/// Runs this test again in a process that starts as systemd starts one: its socket is descriptor 3. A
/// connection that was made before that process ran is served by it.
#[test]
fn a_process_takes_the_sockets_that_it_inherits() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Ok(expected) = std::env::var(HEIR) {
        let mut inherited = Inherited::take();
        assert_eq!(inherited.names().collect::<Vec<_>>(), ["inbound"]);
        runtime.block_on(async {
            let address: ListenAddress = expected.parse().unwrap();
            let listener = Listener::open(&address, &mut inherited).unwrap();
            let (_socket, peer) = listener.accept().await.unwrap();
            assert!(peer.is_some());
        });
        assert_eq!(Inherited::take().names().count(), 0);
        return;
    }
    let listener = tcp();
    let address = listener.local_addr().unwrap();
    let mut waiting = std::net::TcpStream::connect(address).unwrap();
    let heir = Command::new("sh")
        .args(["-c", r#"exec 3<&0 </dev/null; LISTEN_PID=$$; export LISTEN_PID; exec "$@""#, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "ingress::listener::tests::a_process_takes_the_sockets_that_it_inherits"])
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "inbound")
        .env(HEIR, address.to_string())
        .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())))
        .output()
        .unwrap();
    assert!(heir.status.success(), "{}", String::from_utf8_lossy(&heir.stdout));
    assert!(String::from_utf8_lossy(&heir.stdout).contains("1 passed"));
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut waiting, &mut rest).unwrap();
    // The process is gone, and the socket listens for the next one.
    assert!(std::net::TcpStream::connect(address).is_ok());
}
