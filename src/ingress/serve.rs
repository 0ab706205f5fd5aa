//! From a listener to sessions: who is let in, what precedes the greeting, and how all of it ends.
//!
//! Whatever a client can make last (a PROXY header, a TLS handshake) happens in its own task, under a time
//! limit, and counts as a session while it does.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::ingress::connection::{self, serve_connection};
use crate::ingress::listener::{LOCAL_PEER, Listener, Socket};
use crate::ingress::proxy::{self, HeaderError};
use crate::ingress::source::{Caps, Counted, Full, Place};
use crate::ingress::{Config, Memory, Service, Sessions, TlsMode};
use crate::mail::{EnhancedCode, Reply, Tls};
use crate::metrics::Counter;

/// Pause after a failed accept: the process is out of descriptors, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `shutdown` is true or its sender is gone, then waits for the sessions: each
/// ends at its next command boundary with 421, a message that is being read or decided is finished first,
/// and what is left after [`Config::shutdown_grace`] is cut off.
///
/// A connection keeps the configuration that it began with; those after it get the newest one. `memory` is
/// what messages in flight may take, `sessions` counts those that are open; listeners share both.
pub async fn serve<S: Service>(
    listener: impl Into<Listener>,
    config: watch::Receiver<Arc<Config>>,
    memory: Memory,
    sessions: Sessions,
    service: Arc<S>,
    mut shutdown: watch::Receiver<bool>,
) {
    let listener = listener.into();
    let mut tasks = JoinSet::new();
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = tasks.join_next() => {
                count_panic(&ended);
                continue;
            }
            () = connection::stopped(&mut shutdown) => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            // That connection is gone, and says nothing of the next one.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                Counter::AcceptErrors.increment(&config.borrow().labels());
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(%error, "accepting connections fails");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        is_failing = false;
        while let Some(ended) = tasks.try_join_next() {
            count_panic(&ended);
        }
        let config = Arc::clone(&config.borrow());
        let Some(counted) = sessions.arrive(config.max_sessions) else {
            turn_away(socket, &config, Refusal::Sessions);
            continue;
        };
        let arrival = Arrival {
            config,
            sessions: sessions.clone(),
            _counted: counted,
            memory: memory.clone(),
            service: Arc::clone(&service),
            shutdown: shutdown.clone(),
        };
        tasks.spawn(arrival.serve(socket, peer));
    }
    drop(listener);
    let grace = config.borrow().shutdown_grace;
    let drained = async {
        while let Some(ended) = tasks.join_next().await {
            count_panic(&ended);
        }
    };
    if timeout(grace, drained).await.is_err() {
        tasks.shutdown().await;
    }
}

/// A connection on its way to its session.
struct Arrival<S> {
    config: Arc<Config>,
    sessions: Sessions,
    _counted: Counted,
    memory: Memory,
    service: Arc<S>,
    shutdown: watch::Receiver<bool>,
}

impl<S: Service> Arrival<S> {
    /// Serves a connection to its end. `peer` is `None` on a Unix socket.
    async fn serve(self, mut socket: Socket, peer: Option<SocketAddr>) {
        let mut shutdown = self.shutdown.clone();
        let admitted = tokio::select! {
            admitted = self.admit(&mut socket, peer) => admitted,
            () = connection::stopped(&mut shutdown) => return,
        };
        let (client, _place) = match admitted {
            Ok(admitted) => admitted,
            Err(Some(refusal)) => return turn_away(socket, &self.config, refusal),
            Err(None) => return,
        };
        Counter::Connections.increment(&self.config.labels());
        if let Either::Left(stream) = &socket
            && stream.set_nodelay(true).is_err()
        {
            return;
        }
        let Arrival { config, memory, service, .. } = &self;
        let served = if config.tls_mode == TlsMode::Implicit {
            let encrypted = tokio::select! {
                encrypted = self.encrypt(socket) => encrypted,
                () = connection::stopped(&mut shutdown) => return,
            };
            let Some((stream, tls)) = encrypted else { return };
            let handler = service.connect(client);
            serve_connection(stream, client, Some(tls), config, memory, handler, shutdown).await
        } else {
            let handler = service.connect(client);
            serve_connection(socket, client, None, config, memory, handler, shutdown).await
        };
        if let Err(error) = served {
            tracing::debug!(kind = ?error.kind(), "connection lost");
        }
    }

    /// Finds out whom the connection is from, and takes its place among the sessions of its source. The
    /// error is why it is refused, or nothing for a peer that left.
    async fn admit(
        &self,
        socket: &mut Socket,
        peer: Option<SocketAddr>,
    ) -> Result<(SocketAddr, Option<Place>), Option<Refusal>> {
        let own = peer.unwrap_or(LOCAL_PEER);
        let named = if self.config.expects_proxy_header(own.ip()) {
            match timeout(self.config.tls_timeout, proxy::read_header(socket)).await {
                Ok(Ok(client)) => client.map(canonical),
                Ok(Err(HeaderError::Lost(_))) => return Err(None),
                Ok(Err(HeaderError::Malformed(_))) | Err(_) => return Err(Some(Refusal::ProxyHeader)),
            }
        } else {
            None
        };
        // All peers of a Unix socket have one address, which is nobody's source.
        let place = match named.or(peer) {
            Some(client) => Some(self.enter(client.ip()).map_err(Some)?),
            None => None,
        };
        Ok((named.unwrap_or(own), place))
    }

    fn enter(&self, client: IpAddr) -> Result<Place, Refusal> {
        let caps = Caps {
            per_source: self.config.max_sessions_per_source,
            per_network: self.config.max_sessions_per_network,
        };
        self.sessions.enter(client, caps).map_err(|full| match full {
            Full::Source => Refusal::Source,
            Full::Network => Refusal::Network,
        })
    }

    /// Does the handshake that precedes the greeting; `None` where there is no session then.
    async fn encrypt(&self, socket: Socket) -> Option<(TlsStream<Socket>, Tls)> {
        let acceptor = self.config.tls.as_ref()?;
        match timeout(self.config.tls_timeout, acceptor.accept(socket)).await {
            Ok(Ok(encrypted)) => Some(encrypted),
            Ok(Err(error)) => {
                tracing::debug!(kind = ?error.kind(), "a TLS handshake failed");
                None
            }
            Err(_) => None,
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Why a connection has no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Sessions,
    Source,
    Network,
    ProxyHeader,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Refusal::Sessions => "sessions",
            Refusal::Source => "source",
            Refusal::Network => "network",
            Refusal::ProxyHeader => "proxy_header",
        }
    }

    /// What the client is told. Whoever cannot write a PROXY header is not told anything: what it takes us
    /// for is unknown.
    fn reply(self) -> Option<Reply> {
        match self {
            Refusal::Sessions => Some(Reply::new(421, EnhancedCode(4, 3, 2), "Too many connections")),
            Refusal::Source => {
                Some(Reply::new(421, EnhancedCode(4, 7, 0), "Too many connections from your address"))
            }
            Refusal::Network => {
                Some(Reply::new(421, EnhancedCode(4, 7, 0), "Too many connections from your network"))
            }
            Refusal::ProxyHeader => None,
        }
    }
}

/// Refuses a connection. Its reply is sent without waiting: a client that does not take it at once does
/// without, and so does one that expects a TLS handshake.
fn turn_away(socket: Socket, config: &Config, refusal: Refusal) {
    let [direction] = config.labels();
    Counter::ConnectionsRefused.increment(&[direction, ("reason", refusal.as_str())]);
    let Some(reply) = refusal.reply().filter(|_| config.tls_mode != TlsMode::Implicit) else { return };
    let wire = reply.to_wire();
    let written = match socket {
        Either::Left(stream) => TcpStream::into_std(stream).and_then(|mut s| s.write_all(wire.as_bytes())),
        Either::Right(stream) => UnixStream::into_std(stream).and_then(|mut s| s.write_all(wire.as_bytes())),
    };
    if let Err(error) = written {
        tracing::debug!(kind = ?error.kind(), "connection lost while it was turned away");
    }
}

fn count_panic(ended: &Result<(), JoinError>) {
    if ended.as_ref().is_err_and(JoinError::is_panic) {
        Counter::Panics.increment(&[]);
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
