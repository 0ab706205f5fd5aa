//! The milter protocol on the wire: packets read into commands, responses written. Pure.
//!
//! A packet is a length of four bytes, a letter and data; texts in it end with a NUL. What has no form that
//! the protocol knows is [`Malformed`], and nothing is guessed.

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// The version that is spoken; an MTA with an older one is answered in its own.
pub(super) const VERSION: u32 = 6;
/// Most bytes of a packet: libmilter sends a body in pieces of 64 KiB, a field whole.
pub(super) const MAX_PACKET_BYTES: usize = 1 << 20;

/// What we may ask for at the end of a message: add and change fields, take recipients away.
pub(super) const ACTIONS: u32 = 0x01 | 0x08 | 0x10;

/// Steps of the protocol that are left out, or not answered.
pub(super) mod step {
    /// Commands that are not known are not told.
    pub(in super::super) const NO_UNKNOWN: u32 = 0x100;
    /// Fields are not answered one by one.
    pub(in super::super) const NO_REPLY_HEADER: u32 = 0x80;
    /// Nor is the connection,
    pub(in super::super) const NO_REPLY_CONNECT: u32 = 0x1000;
    /// the greeting,
    pub(in super::super) const NO_REPLY_HELO: u32 = 0x2000;
    /// DATA,
    pub(in super::super) const NO_REPLY_DATA: u32 = 0x1_0000;
    /// the end of the header,
    pub(in super::super) const NO_REPLY_END_OF_HEADER: u32 = 0x4_0000;
    /// a piece of the body.
    pub(in super::super) const NO_REPLY_BODY: u32 = 0x8_0000;
    /// The white space behind the colon of a field comes and goes as it is.
    pub(in super::super) const LEADING_SPACE: u32 = 0x10_0000;

    /// What we want of them, where the MTA can do it.
    pub(in super::super) const WANTED: u32 = NO_UNKNOWN
        | NO_REPLY_HEADER
        | NO_REPLY_CONNECT
        | NO_REPLY_HELO
        | NO_REPLY_DATA
        | NO_REPLY_END_OF_HEADER
        | NO_REPLY_BODY
        | LEADING_SPACE;
}

/// A packet that the protocol does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Its length is none, or over the limit.
    #[error("a packet of {0} bytes")]
    Length(usize),
    /// Its letter is not known.
    #[error("a command that is not known")]
    Command,
    /// Its data break off.
    #[error("a command whose data break off")]
    Data,
}

/// What an MTA says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// What it can do.
    Negotiate {
        /// The version.
        version: u32,
        /// What may be done at the end of a message.
        actions: u32,
        /// Which steps may be left out.
        steps: u32,
    },
    /// Facts of the command that comes next: names and values in turn.
    Macros(Vec<(Bytes, Bytes)>),
    /// A client has connected: its name, and its address unless it is on the same machine.
    Connect(Bytes, Option<SocketAddr>),
    /// It has said its name.
    Helo(Bytes),
    /// The words of a MAIL, path first.
    Mail(Vec<Bytes>),
    /// The words of a RCPT, path first.
    Recipient(Vec<Bytes>),
    /// DATA was said.
    Data,
    /// A field: name and value, whose lines end with LF.
    Field(Bytes, Bytes),
    /// The header has ended.
    EndOfHeader,
    /// A piece of the body.
    Body(Bytes),
    /// The message has ended, with a last piece of its body.
    EndOfMessage(Bytes),
    /// The message is given up.
    Abort,
    /// The connection ends.
    Quit,
    /// The client has gone, and another one comes over the same connection.
    NextClient,
    /// A command that the MTA does not know.
    Unknown,
}

/// What an MTA is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Response {
    /// What is used of what was offered.
    Negotiated { version: u32, actions: u32, steps: u32 },
    /// Go on.
    Continue,
    /// The client is to come back.
    Temporary,
    /// Take the message and drop it: somebody else has it.
    Discard,
    /// The client hears this: a code, and a text of one line.
    Reply(String),
    /// A field goes to a place in the header.
    InsertField { at: u32, name: &'static str, value: String },
    /// Of the fields of this name the one of this number, from one on, is removed.
    RemoveField { number: u32, name: Bytes },
    /// A recipient is taken away, written as it came.
    RemoveRecipient(Bytes),
}

/// Takes the next packet off what has come; nothing where it is not whole.
///
/// # Errors
/// [`Malformed`], after which nothing that follows can be read.
pub fn take(input: &mut BytesMut) -> Result<Option<Command>, Malformed> {
    let Some(length) = input.get(..4) else { return Ok(None) };
    let length = length.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    if length == 0 || length > MAX_PACKET_BYTES {
        return Err(Malformed::Length(length));
    }
    if input.len() - 4 < length {
        return Ok(None);
    }
    input.advance(4);
    let mut packet = input.split_to(length).freeze();
    let letter = packet.get_u8();
    parse(letter, packet).map(Some)
}

fn parse(letter: u8, mut data: Bytes) -> Result<Command, Malformed> {
    Ok(match letter {
        b'O' => Command::Negotiate {
            version: data.try_get_u32().map_err(|_| Malformed::Data)?,
            actions: data.try_get_u32().map_err(|_| Malformed::Data)?,
            steps: data.try_get_u32().map_err(|_| Malformed::Data)?,
        },
        b'D' => {
            if !data.has_remaining() {
                return Err(Malformed::Data);
            }
            data.advance(1);
            let mut pairs = Vec::new();
            while data.has_remaining() {
                pairs.push((text(&mut data)?, text(&mut data)?));
            }
            Command::Macros(pairs)
        }
        b'C' => {
            let name = text(&mut data)?;
            Command::Connect(name, address(&mut data)?)
        }
        b'H' => Command::Helo(text(&mut data)?),
        b'M' => Command::Mail(words(data)?),
        b'R' => Command::Recipient(words(data)?),
        b'T' => Command::Data,
        b'L' => Command::Field(text(&mut data)?, text(&mut data)?),
        b'N' => Command::EndOfHeader,
        b'B' => Command::Body(data),
        b'E' => Command::EndOfMessage(data),
        b'A' => Command::Abort,
        b'Q' => Command::Quit,
        b'K' => Command::NextClient,
        b'U' => Command::Unknown,
        _ => return Err(Malformed::Command),
    })
}

/// Takes a text and the NUL behind it.
fn text(data: &mut Bytes) -> Result<Bytes, Malformed> {
    let end = memchr::memchr(0, data).ok_or(Malformed::Data)?;
    let text = data.split_to(end);
    data.advance(1);
    Ok(text)
}

fn words(mut data: Bytes) -> Result<Vec<Bytes>, Malformed> {
    let mut words = vec![text(&mut data)?];
    while data.has_remaining() {
        words.push(text(&mut data)?);
    }
    Ok(words)
}

/// Reads a family, and for IPv4 and IPv6 a port and the address as text.
fn address(data: &mut Bytes) -> Result<Option<SocketAddr>, Malformed> {
    let family = data.try_get_u8().map_err(|_| Malformed::Data)?;
    if !matches!(family, b'4' | b'6') {
        return Ok(None);
    }
    let port = data.try_get_u16().map_err(|_| Malformed::Data)?;
    let written = text(data)?;
    let written = std::str::from_utf8(&written).map_err(|_| Malformed::Data)?;
    // Sendmail puts the tag of an address literal in front.
    let bare = match written.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => written.get(5..).unwrap_or_default(),
        _ => written,
    };
    let ip: IpAddr = bare.parse().map_err(|_| Malformed::Data)?;
    Ok(Some(SocketAddr::new(ip.to_canonical(), port)))
}

impl Response {
    /// Writes the packet.
    pub(super) fn write(&self, out: &mut BytesMut) {
        let mut data = BytesMut::new();
        let mut put = |pieces: &[&[u8]]| {
            for piece in pieces {
                // A NUL would end the text, and what follows it would be read as something else.
                data.extend(piece.iter().filter(|byte| **byte != 0));
                data.put_u8(0);
            }
        };
        let letter = match self {
            Response::Negotiated { version, actions, steps } => {
                for number in [version, actions, steps] {
                    data.put_u32(*number);
                }
                b'O'
            }
            Response::Continue => b'c',
            Response::Temporary => b't',
            Response::Discard => b'd',
            Response::Reply(text) => {
                // MTAs take the text for a format.
                put(&[text.replace('%', "%%").as_bytes()]);
                b'y'
            }
            Response::InsertField { at, name, value } => {
                put(&[name.as_bytes(), value.as_bytes()]);
                data = prefixed(*at, &data);
                b'i'
            }
            Response::RemoveField { number, name } => {
                put(&[name, b""]);
                data = prefixed(*number, &data);
                b'm'
            }
            Response::RemoveRecipient(path) => {
                put(&[path]);
                b'-'
            }
        };
        out.put_u32(u32::try_from(data.len() + 1).unwrap_or(u32::MAX));
        out.put_u8(letter);
        out.extend_from_slice(&data);
    }
}

fn prefixed(number: u32, data: &[u8]) -> BytesMut {
    let mut whole = BytesMut::with_capacity(data.len() + 4);
    whole.put_u32(number);
    whole.extend_from_slice(data);
    whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(data: &[u8]) -> BytesMut {
        let mut packet = BytesMut::new();
        packet.put_u32(u32::try_from(data.len()).unwrap());
        packet.extend_from_slice(data);
        packet
    }

    fn check(data: &[u8], expected: Result<Command, Malformed>) {
        let mut input = packet(data);
        assert_eq!(take(&mut input), expected.map(Some), "{:?}", String::from_utf8_lossy(data));
    }

    #[test]
    fn commands_are_read_or_refused() {
        let text = Bytes::from_static;
        check(
            b"O\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff",
            Ok(Command::Negotiate { version: 6, actions: 0x1ff, steps: 0x1f_ffff }),
        );
        check(b"DMi\0A1\0", Ok(Command::Macros(vec![(text(b"i"), text(b"A1"))])));
        let client = "192.0.2.7:2525".parse().unwrap();
        check(
            b"Cmx.example\x004\x09\xdd192.0.2.7\0",
            Ok(Command::Connect(text(b"mx.example"), Some(client))),
        );
        let client = "[2001:db8::1]:25".parse().unwrap();
        check(b"Cx\x006\0\x19IPv6:2001:db8::1\0", Ok(Command::Connect(text(b"x"), Some(client))));
        check(b"Clocalhost\0U", Ok(Command::Connect(text(b"localhost"), None)));
        check(b"M<a@x>\0SIZE=1\0", Ok(Command::Mail(vec![text(b"<a@x>"), text(b"SIZE=1")])));
        check(b"LSubject\0 a\n b\0", Ok(Command::Field(text(b"Subject"), text(b" a\n b"))));
        check(b"Bx\0y", Ok(Command::Body(text(b"x\0y"))));
        check(b"E", Ok(Command::EndOfMessage(Bytes::new())));
        check(b"O\0\0", Err(Malformed::Data));
        check(b"Cx\x004\0\x19not an address\0", Err(Malformed::Data));
        check(b"LSubject\0 a", Err(Malformed::Data));
        check(b"M", Err(Malformed::Data));
        check(b"D", Err(Malformed::Data));
        check(b"Z", Err(Malformed::Command));
        check(b"", Err(Malformed::Length(0)));
        assert_eq!(take(&mut BytesMut::from(&b"\xff\0\0\0"[..])), Err(Malformed::Length(0xff00_0000)));
    }

    #[test]
    fn responses_are_written_as_the_protocol_has_them() {
        let check = |response: Response, expected: &[u8]| {
            let mut out = BytesMut::new();
            response.write(&mut out);
            assert_eq!(out, packet(expected), "{response:?}");
        };
        check(Response::Continue, b"c");
        check(
            Response::Negotiated { version: 6, actions: 0x19, steps: 0x80 },
            b"O\0\0\0\x06\0\0\0\x19\0\0\0\x80",
        );
        check(Response::Reply("554 5.7.1 100 %".to_owned()), b"y554 5.7.1 100 %%\0");
        check(
            Response::InsertField { at: 1, name: "X-A", value: " b\0c".to_owned() },
            b"i\0\0\0\x01X-A\0 bc\0",
        );
        check(Response::RemoveField { number: 2, name: Bytes::from_static(b"X-A") }, b"m\0\0\0\x02X-A\0\0");
        check(Response::RemoveRecipient(Bytes::from_static(b"<a@x>")), b"-<a@x>\0");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_read_alike(
            packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 0_usize..250,
        ) {
            let stream: Vec<u8> = packets.iter().flat_map(|data| packet(data)).collect();
            let read = |pieces: &[&[u8]]| {
                let (mut input, mut read) = (BytesMut::new(), Vec::new());
                for piece in pieces {
                    input.extend_from_slice(piece);
                    loop {
                        match take(&mut input) {
                            Ok(Some(command)) => read.push(Ok(command)),
                            Ok(None) => break,
                            Err(error) => {
                                read.push(Err(error));
                                return read;
                            }
                        }
                    }
                }
                read
            };
            let (before, after) = stream.split_at(cut.min(stream.len()));
            prop_assert_eq!(read(&[&stream]), read(&[before, after]));
        }
    }
}
