//! Many clients that take their time, or come and go: the others keep their pace, and nothing stays behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::parts::{Client, Gateway, Hop, eventually, message, scratch};
use crate::vitals::{allow_descriptors, begin_peak, descriptors, memory_kib, metric, sessions};

/// Clients that send a byte a second: half of them commands, half of them a message.
const SLOW_CLIENTS: usize = 2_000;
const PACE: Duration = Duration::from_secs(1);
/// Bytes that each of them sends while the good client works.
const SLOW_BYTES: usize = 12;
/// Transactions of the good client, each on a connection of its own.
const GOOD: usize = 300;
/// Connects in a burst.
const CONNECTS: usize = 10_000;
/// Connects that wait for their greeting at a time. More would overflow the queue of the smallest system,
/// which then forgets clients that believe they are connected.
const AT_A_TIME: usize = 100;
/// Memory that a slow session may take, and descriptors that may come and go, in all.
const SESSION_KIB: u64 = 64;
const SPARE_DESCRIPTORS: usize = 16;
/// Open files that a test of this size needs, in each process.
const OPEN_FILES: usize = 6_000;

/// The keys that let so many in; one source is all of them.
fn roomy(hop: &Hop) -> String {
    format!(
        "inbound.next_hop = \"smtp://{}\"\nlog = \"error\"\nsmtp.max_connections = 3000\n\
         smtp.max_connections_per_ip = 3000\nsmtp.max_connections_per_network = 3000",
        hop.address
    )
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn send_one(to: SocketAddr, name: &str) -> String {
    let mut client = Client::connect(to).unwrap();
    let reply = client.send("ann@sender.example", &["alice@example.org"], &message(name, "text")).unwrap();
    client.command("QUIT").unwrap();
    reply
}

#[test]
fn two_thousand_slow_clients_leave_a_good_one_its_pace() {
    allow_descriptors(std::process::id(), OPEN_FILES);
    let folder = scratch();
    let hop = Hop::start();
    let gateway = Gateway::start(folder.path(), &roomy(&hop));
    allow_descriptors(gateway.pid(), OPEN_FILES);
    assert!(send_one(gateway.inbound, "first").starts_with("250"));
    eventually("the first session to end", || (sessions(gateway.web)? == 0).then_some(()));
    let open = descriptors(gateway.pid());
    let resident = begin_peak(gateway.pid()).unwrap();

    let runtime = runtime();
    let (started, done) = (Arc::new(AtomicUsize::new(0)), watch::channel(false).0);
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let slow: Vec<_> = (0..SLOW_CLIENTS)
        .map(|number| {
            let (started, places) = (Arc::clone(&started), Arc::clone(&places));
            let mut done = done.subscribe();
            let address = gateway.inbound;
            runtime.spawn(async move {
                let place = places.acquire_owned().await.unwrap();
                let mut stream = TcpStream::connect(address).await.unwrap();
                let has_message = number % 2 == 0;
                begin(&mut stream, has_message).await;
                drop(place);
                started.fetch_add(1, Ordering::SeqCst);
                let mut sent = 0;
                let mut pace = tokio::time::interval(PACE);
                loop {
                    tokio::select! {
                        _ = pace.tick() => {
                            // No byte of it ends a line.
                            stream.write_all(b"x").await.unwrap();
                            sent += 1;
                        }
                        _ = done.changed() => break,
                    }
                }
                // The gateway has said nothing and has not closed.
                let mut byte = [0u8; 1];
                let is_open = stream
                    .try_read(&mut byte)
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
                (sent, is_open)
            })
        })
        .collect();
    eventually("the slow clients to begin", || {
        (started.load(Ordering::SeqCst) == SLOW_CLIENTS).then_some(())
    });

    let began = Instant::now();
    let mut times = Vec::new();
    while times.len() < GOOD || began.elapsed() < PACE * u32::try_from(SLOW_BYTES).unwrap() {
        let started = Instant::now();
        let reply = send_one(gateway.inbound, &format!("good.{}", times.len()));
        times.push(started.elapsed());
        assert!(reply.starts_with("250"), "{reply}");
    }
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let grown_kib = memory_kib(gateway.pid(), "VmHWM:").saturating_sub(resident);
    println!(
        "{} transactions beside {SLOW_CLIENTS} slow clients: p50 {:?}, p99 {:?}, longest {:?}; {grown_kib} KiB more",
        times.len(),
        at(50),
        at(99),
        at(100),
    );
    assert_eq!(hop.taken().len(), times.len() + 1);
    assert!(grown_kib < SESSION_KIB * u64::try_from(SLOW_CLIENTS).unwrap(), "{grown_kib} KiB");
    done.send(true).unwrap();
    for client in slow {
        let (sent, is_open) = runtime.block_on(client).unwrap();
        assert!(is_open && sent >= SLOW_BYTES - 1, "a slow client got {sent} bytes out; open: {is_open}");
    }
    drop(runtime);
    eventually("the sessions to end", || (sessions(gateway.web)? == 0).then_some(()));
    eventually("the descriptors to come back", || {
        (descriptors(gateway.pid()) <= open + SPARE_DESCRIPTORS).then_some(())
    });
}

/// Says what comes before the slow part, as quickly as others do.
async fn begin(stream: &mut TcpStream, has_message: bool) {
    read_reply(stream).await;
    if !has_message {
        return;
    }
    for command in
        ["EHLO slow.example", "MAIL FROM:<slow@sender.example>", "RCPT TO:<alice@example.org>", "DATA"]
    {
        stream.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
        read_reply(stream).await;
    }
}

async fn read_reply(stream: &mut TcpStream) {
    let mut reply = Vec::new();
    loop {
        let mut buffer = [0u8; 1024];
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&reply));
        reply.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&reply);
        let is_whole =
            text.ends_with("\r\n") && text.lines().last().is_some_and(|line| line.as_bytes()[3] != b'-');
        if is_whole {
            assert!(text.starts_with(['2', '3']), "{text}");
            return;
        }
    }
}

#[test]
fn ten_thousand_connects_leave_no_descriptor_behind() {
    allow_descriptors(std::process::id(), OPEN_FILES);
    let folder = scratch();
    let hop = Hop::start();
    // Fewer may come in than come, so that some are turned away.
    let keys = roomy(&hop).replace("smtp.max_connections = 3000", "smtp.max_connections = 200");
    let gateway = Gateway::start(folder.path(), &keys);
    allow_descriptors(gateway.pid(), OPEN_FILES);
    assert!(send_one(gateway.inbound, "before").starts_with("250"));
    eventually("the first session to end", || (sessions(gateway.web)? == 0).then_some(()));
    let open = descriptors(gateway.pid());
    let resident = begin_peak(gateway.pid()).unwrap();

    let began = Instant::now();
    let runtime = runtime();
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let address = gateway.inbound;
    let clients: Vec<_> = (0..CONNECTS)
        .map(|_| {
            let places = Arc::clone(&places);
            runtime.spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut greeting = [0u8; 512];
                let read = stream.read(&mut greeting).await.unwrap_or(0);
                String::from_utf8_lossy(&greeting[..read]).get(..3).unwrap_or_default().to_owned()
            })
        })
        .collect();
    let (mut greeted, mut turned_away) = (0, 0);
    for client in clients {
        match runtime.block_on(client).unwrap().as_str() {
            "220" => greeted += 1,
            "421" => turned_away += 1,
            // Turned away so fast that the reply was lost with the connection.
            "" => turned_away += 1,
            other => panic!("greeted with {other:?}"),
        }
    }
    let elapsed = began.elapsed();
    // A good client comes in, after the burst as before it.
    eventually("the sessions to end", || (sessions(gateway.web)? == 0).then_some(()));
    assert!(send_one(gateway.inbound, "after").starts_with("250"));
    eventually("the descriptors to come back", || {
        (descriptors(gateway.pid()) <= open + SPARE_DESCRIPTORS).then_some(())
    });
    let grown_kib = memory_kib(gateway.pid(), "VmHWM:").saturating_sub(resident);
    println!(
        "{CONNECTS} connects in {elapsed:?}: {greeted} greeted, {turned_away} turned away; {} descriptors, {open} before; \
         {grown_kib} KiB more at the most",
        descriptors(gateway.pid())
    );
    assert!(greeted > 0);
    assert!(grown_kib < SESSION_KIB * 1024, "{grown_kib} KiB");
    assert_eq!(metric(gateway.web, "lazaret_panics_total"), Some(0));
}
