//! The client's end of a connection: a socket, and TLS over it from the handshake on.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

/// The files that [`Trust::make`] writes: the gateway's certificate and its key.
pub(super) const CHAIN: &str = "chain.pem";
pub(super) const KEY: &str = "key.pem";
/// The name in the certificate.
const NAME: &str = "gateway.example.org";

/// The one certificate that a client takes for the gateway's.
#[derive(Clone)]
pub(super) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Makes a certificate and its key in a folder.
    pub(super) fn make(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        std::fs::write(folder.join(CHAIN), made.cert.pem()).unwrap();
        let key = folder.join(KEY);
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        Trust(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
    }
}

/// A connection that does not block.
pub(super) struct Line {
    socket: TcpStream,
    tls: Option<ClientConnection>,
}

impl Line {
    pub(super) fn new(socket: TcpStream) -> Self {
        Line { socket, tls: None }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Has a handshake, for the certificate's own name or for the one that is given, until a deadline.
    pub(super) fn shake_hands(
        &mut self,
        trust: &Trust,
        sni: Option<&str>,
        deadline: Instant,
    ) -> io::Result<()> {
        // A name that is none cannot be asked for; another of its length is, and is replaced on the wire.
        let asked = sni.map_or_else(|| NAME.to_owned(), |name| "a".repeat(name.len()));
        let name = ServerName::try_from(asked.clone()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::clone(&trust.0), name).map_err(io::Error::other)?;
        let mut hello = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut hello)?;
        }
        if let Some(sni) = sni {
            let at = hello.windows(asked.len()).position(|bytes| bytes == asked.as_bytes()).unwrap();
            hello[at..at + sni.len()].copy_from_slice(sni.as_bytes());
        }
        self.until(deadline, |line| line.socket.write_all(&hello))?;
        self.until(deadline, |line| {
            while tls.is_handshaking() {
                tls.complete_io(&mut line.socket)?;
            }
            Ok(())
        })?;
        self.tls = Some(tls);
        Ok(())
    }

    fn until(
        &mut self,
        deadline: Instant,
        mut action: impl FnMut(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            match action(self) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                done => return done,
            }
        }
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => Stream::new(tls, &mut self.socket).read(buffer),
            None => self.socket.read(buffer),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => Stream::new(tls, &mut self.socket).write(bytes),
            None => self.socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => Stream::new(tls, &mut self.socket).flush(),
            None => self.socket.flush(),
        }
    }
}
