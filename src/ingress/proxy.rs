//! Reads the PROXY header of a trusted peer off a stream, and not a byte more.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::smtp::proxy::{self, Malformed, Progress};

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    /// The peer left before the header was whole; health checks do.
    #[error("the peer left before its PROXY header was whole")]
    Lost(#[source] io::Error),
    /// What came is no header.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Reads a header; returns the client that it names, if any. How long it may take is the caller's to say.
///
/// It asks for no more than what must belong to the header, so whatever follows is still in the stream.
pub(super) async fn read_header<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<Option<SocketAddr>, HeaderError> {
    let mut read = Vec::new();
    loop {
        match proxy::parse(&read)? {
            Progress::Done(client) => return Ok(client),
            Progress::More(more) => {
                let more = u64::try_from(more).unwrap_or(1);
                let len = stream.take(more).read_buf(&mut read).await.map_err(HeaderError::Lost)?;
                if len == 0 {
                    return Err(HeaderError::Lost(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
    }
}
