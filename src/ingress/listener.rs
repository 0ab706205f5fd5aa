//! Where connections come from: a TCP port, a Unix socket, or a socket that systemd opened for us.
//!
//! A socket that was handed over outlives this process: it is closed here and never shut down, and its
//! queue of connections is the successor's. So a restart refuses nobody.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// Connections that wait to be accepted; the kernel has a limit of its own.
const BACKLOG: i32 = 4096;
/// Who may connect to a Unix socket of ours: its owner and its group.
const UNIX_MODE: u32 = 0o660;

/// A connection, of either kind.
pub(super) type Socket = Either<TcpStream, UnixStream>;

/// Where to listen. Written as `192.0.2.1:25`, `[::]:25`, `unix:/run/lazaret/lmtp.sock`, or `systemd:NAME`
/// for a socket of that name (`FileDescriptorName=`) that systemd hands over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address; `[::]` takes IPv4 too.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
    /// The name of a socket that was handed over.
    Inherited(String),
}

/// A text that is no [`ListenAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address with a port such as [::]:25, unix:/PATH or systemd:NAME")]
pub struct ListenAddressError;

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_absolute = Path::new(path).is_absolute();
            return is_absolute.then(|| ListenAddress::Unix(path.into())).ok_or(ListenAddressError);
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            return (!name.is_empty())
                .then(|| ListenAddress::Inherited(name.to_owned()))
                .ok_or(ListenAddressError);
        }
        text.parse().map(ListenAddress::Tcp).map_err(|_| ListenAddressError)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "{address}"),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenAddress::Inherited(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// A socket that connections come from.
#[derive(Debug)]
pub struct Listener(Either<TcpListener, UnixListener>);

impl Listener {
    /// Opens an address: takes the socket that was handed over for it, by name or by address, or binds one.
    /// Must be called within a runtime.
    ///
    /// A Unix socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// The error of the system; `AddrInUse` where somebody listens already, `NotFound` where no socket of
    /// that name was handed over.
    pub fn open(address: &ListenAddress, inherited: &mut Inherited) -> io::Result<Self> {
        if let Some(socket) = inherited.find(address) {
            return Listener::try_from(socket);
        }
        match address {
            ListenAddress::Tcp(address) => bind_tcp(*address),
            ListenAddress::Unix(path) => bind_unix(path),
            ListenAddress::Inherited(_) => {
                Err(io::Error::new(io::ErrorKind::NotFound, "no socket of that name was handed over"))
            }
        }
    }

    /// Returns where it listens, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// The error of the system; `Unsupported` for a Unix socket without a path.
    pub fn address(&self) -> io::Result<ListenAddress> {
        match &self.0 {
            Either::Left(listener) => Ok(ListenAddress::Tcp(listener.local_addr()?)),
            Either::Right(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or(io::ErrorKind::Unsupported)?;
                Ok(ListenAddress::Unix(path.to_owned()))
            }
        }
    }

    /// Waits for a connection and says who its peer is; nobody, for a Unix socket. An IPv4 peer of an IPv6
    /// socket has its IPv4 address. Nothing is lost when the future is dropped.
    pub async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match &self.0 {
            Either::Left(listener) => {
                let (stream, peer) = listener.accept().await?;
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                Ok((Either::Left(stream), Some(peer)))
            }
            Either::Right(listener) => Ok((Either::Right(listener.accept().await?.0), None)),
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Listener(Either::Left(listener))
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Listener(Either::Right(listener))
    }
}

impl TryFrom<InheritedSocket> for Listener {
    type Error = io::Error;

    fn try_from(socket: InheritedSocket) -> io::Result<Self> {
        match socket {
            InheritedSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Ok(TcpListener::from_std(listener)?.into())
            }
            InheritedSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Ok(UnixListener::from_std(listener)?.into())
            }
        }
    }
}

/// Stands for the peer of a Unix socket, which has no IP address: it is on this machine.
pub(super) const LOCAL_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart is not kept waiting by the connections of the last run.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into())?.into())
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let is_left_over = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_left_over {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(UNIX_MODE))?;
    Ok(listener.into())
}

#[derive(Debug)]
enum InheritedSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl InheritedSocket {
    fn listens_at(&self, address: &ListenAddress) -> bool {
        match (self, address) {
            (InheritedSocket::Tcp(listener), ListenAddress::Tcp(address)) => {
                listener.local_addr().is_ok_and(|own| own == *address)
            }
            (InheritedSocket::Unix(listener), ListenAddress::Unix(path)) => {
                listener.local_addr().is_ok_and(|own| own.as_pathname() == Some(path))
            }
            _ => false,
        }
    }
}

/// The sockets that were handed over and that nobody has taken yet, with their names.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(String, InheritedSocket)>,
}

impl Inherited {
    /// Takes the sockets that systemd handed over (sd_listen_fds(3): `LISTEN_FDS`, `LISTEN_FDNAMES`,
    /// `LISTEN_PID`), once a process: it takes the variables out of the environment, so it is called before
    /// there are other threads. What is no listening socket is reported and left alone.
    pub fn take() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut handed_over = ListenFd::from_env();
        let mut sockets = Vec::new();
        for (index, name) in numbered(&names, handed_over.len()) {
            let socket = match handed_over.take_tcp_listener(index) {
                Ok(listener) => Ok(listener.map(InheritedSocket::Tcp)),
                Err(_) => {
                    handed_over.take_unix_listener(index).map(|listener| listener.map(InheritedSocket::Unix))
                }
            };
            match socket {
                Ok(Some(socket)) => sockets.push((name.to_owned(), socket)),
                Ok(None) => {}
                Err(error) => tracing::warn!(index, %error, "what was handed over is no stream socket"),
            }
        }
        Inherited { sockets }
    }

    /// Returns the names of those that nobody has taken; worth a warning, because their connections wait
    /// for ever.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().map(|(name, _)| name.as_str())
    }

    fn find(&mut self, address: &ListenAddress) -> Option<InheritedSocket> {
        let index = self.sockets.iter().position(|(name, socket)| match address {
            ListenAddress::Inherited(wanted) => name == wanted,
            address => socket.listens_at(address),
        })?;
        Some(self.sockets.remove(index).1)
    }
}

/// Pairs each index with its name, out of names that colons part; missing ones are `unknown`, as in
/// sd_listen_fds_with_names(3).
fn numbered(names: &str, count: usize) -> impl Iterator<Item = (usize, &str)> {
    let names = names.split(':').map(|name| if name.is_empty() { "unknown" } else { name });
    (0..count).zip(names.chain(std::iter::repeat("unknown")))
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
