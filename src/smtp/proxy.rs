//! The PROXY protocol, versions 1 and 2 (HAProxy, `doc/proxy-protocol.txt`): a proxy's word on whom it
//! speaks for, before anything else on a connection.
//!
//! Strict, and exact: it never asks for a byte that may belong to what follows the header, because that is
//! a greeting or a TLS handshake. What is not a header to the letter is malformed; nothing is guessed.
//! The extensions of version 2 (TLVs) are passed over unread.

use std::net::{IpAddr, SocketAddr};

/// The longest header of version 1, in bytes; it ends with CR LF.
const V1_MAX_BYTES: usize = 107;
/// The most bytes after the fixed part of version 2, addresses and TLVs together.
const V2_MAX_REST_BYTES: usize = 2048;
const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;

/// How far the reading of a header has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// At least so many more bytes belong to the header; never 0. No more may be read at once.
    More(usize),
    /// The header is whole. The address is the client's; without one the connection is the proxy's own
    /// (LOCAL, UNKNOWN) or that of a client without an IP address.
    Done(Option<SocketAddr>),
}

/// What was read is not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed PROXY header")]
pub struct Malformed;

/// Parses the beginning of a header: all that was read of it so far, and no byte more than was asked for.
///
/// # Errors
/// [`Malformed`], as soon as it cannot become a header.
pub fn parse(read: &[u8]) -> Result<Progress, Malformed> {
    let may_be = |signature: &[u8]| read.iter().zip(signature).all(|(a, b)| a == b);
    match (may_be(V1_SIGNATURE), may_be(V2_SIGNATURE)) {
        (true, true) => Ok(Progress::More("PROXY UNKNOWN\r\n".len())),
        (true, false) => parse_v1(read),
        (false, true) => parse_v2(read),
        (false, false) => Err(Malformed),
    }
}

fn parse_v1(read: &[u8]) -> Result<Progress, Malformed> {
    match memchr::memchr(b'\n', read) {
        Some(end) if end + 1 == read.len() => {
            let line = read.strip_suffix(b"\r\n").ok_or(Malformed)?;
            let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
            parse_line(line).map(Progress::Done)
        }
        Some(_) => Err(Malformed),
        None if read.len() >= V1_MAX_BYTES => Err(Malformed),
        None => {
            let shortest = if read.starts_with(b"PROXY TCP4 ") {
                "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n".len()
            } else if read.starts_with(b"PROXY TCP6 ") {
                "PROXY TCP6 :: :: 1 1\r\n".len()
            } else {
                "PROXY UNKNOWN\r\n".len()
            };
            Ok(Progress::More(shortest.saturating_sub(read.len()).max(1)))
        }
    }
}

fn parse_line(line: &str) -> Result<Option<SocketAddr>, Malformed> {
    // "The receiver must ignore anything presented before the CRLF" after UNKNOWN.
    if line == "PROXY UNKNOWN" || line.starts_with("PROXY UNKNOWN ") {
        return Ok(None);
    }
    let fields: Vec<&str> = line.split(' ').collect();
    let ["PROXY", family, source, destination, source_port, destination_port] = *fields else {
        return Err(Malformed);
    };
    let address = |text: &str| -> Result<IpAddr, Malformed> {
        match family {
            "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| Malformed),
            "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| Malformed),
            _ => Err(Malformed),
        }
    };
    address(destination)?;
    port(destination_port)?;
    Ok(Some(SocketAddr::new(address(source)?, port(source_port)?)))
}

/// Digits alone, and no zero before them: std takes `+25` and `0025` too.
fn port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().map_err(|_| Malformed) } else { Err(Malformed) }
}

fn parse_v2(read: &[u8]) -> Result<Progress, Malformed> {
    let Some((fixed, rest)) = read.split_first_chunk::<V2_FIXED_BYTES>() else {
        return Ok(Progress::More(V2_FIXED_BYTES - read.len()));
    };
    let [.., version_and_command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_MAX_REST_BYTES || rest.len() > length {
        return Err(Malformed);
    }
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed),
    };
    // What the addresses of a stream take; a LOCAL header's are passed over, whatever they are.
    let addresses = match family {
        _ if is_local => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(Malformed),
    };
    if length < addresses {
        return Err(Malformed);
    }
    if rest.len() < length {
        return Ok(Progress::More(length - rest.len()));
    }
    let client = match family {
        _ if is_local => None,
        0x11 => Some(source::<4>(rest)?),
        0x21 => Some(source::<16>(rest)?),
        _ => None,
    };
    Ok(Progress::Done(client))
}

/// The source of an address block: two addresses of `N` bytes, then two ports.
fn source<const N: usize>(block: &[u8]) -> Result<SocketAddr, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let (address, rest) = block.split_first_chunk::<N>().ok_or(Malformed)?;
    let (_destination, ports) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    let (port, _) = ports.split_first_chunk::<2>().ok_or(Malformed)?;
    Ok(SocketAddr::new(IpAddr::from(*address), u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Reads a header as a connection does, at most `at_once` bytes at a time; returns what came of it and
    /// how many bytes were taken, or `None` where the input ends first.
    fn read(input: &[u8], at_once: usize) -> Option<(Result<Option<SocketAddr>, Malformed>, usize)> {
        let mut taken = 0;
        loop {
            match parse(&input[..taken]) {
                Ok(Progress::Done(client)) => return Some((Ok(client), taken)),
                Err(malformed) => return Some((Err(malformed), taken)),
                Ok(Progress::More(more)) => {
                    assert!(more > 0 && taken + more <= V2_FIXED_BYTES + V2_MAX_REST_BYTES);
                    let len = more.min(at_once).min(input.len() - taken);
                    if len == 0 {
                        return None;
                    }
                    taken += len;
                }
            }
        }
    }

    fn check(header: &[u8], expected: Result<Option<&str>, Malformed>) {
        let expected = expected.map(|client| client.map(|text| text.parse().unwrap()));
        let input = [header, b"EHLO c.example\r\n"].concat();
        for at_once in 1..=input.len() {
            let (got, taken) = read(&input, at_once).unwrap();
            assert_eq!(got, expected, "{header:?}, {at_once} bytes at once");
            if got.is_ok() {
                assert_eq!(taken, header.len(), "{header:?}");
            }
        }
        if expected.is_ok() {
            for cut in 0..header.len() {
                assert_eq!(read(&header[..cut], usize::MAX), None, "{header:?} cut at {cut}");
            }
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    const V4_BLOCK: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 1, 0xde, 0xad, 0, 25];

    #[test]
    fn headers_of_version_1() {
        check(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n", Ok(Some("192.0.2.1:56324")));
        check(b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n", Ok(Some("1.1.1.1:1")));
        check(b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", Ok(Some("[2001:db8::1]:0")));
        check(b"PROXY TCP6 :: :: 1 1\r\n", Ok(Some("[::]:1")));
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let line = format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n");
        check(line.as_bytes(), Ok(Some(&format!("[{longest}]:65535"))));
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(b"PROXY UNKNOWN what ever\r\n", Ok(None));
        check(format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n").as_bytes(), Ok(None));
    }

    #[test]
    fn what_is_no_header_of_version_1() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 25 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 25 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 56324 25\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +5632 25\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 05632 25\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 25\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 x\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 56324 25\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 56324 25\r\n",
            "PROXY TCP4 ::1 ::1 56324 25 and so on and on\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 56324 25\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 56324 25\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY X\r\n",
            "PROXY\tTCP4 192.0.2.1 198.51.100.1 56324 25\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.1 56324 25\r\n",
            "EHLO c.example\r\n",
        ] {
            check(line.as_bytes(), Err(Malformed));
        }
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)).as_bytes(), Err(Malformed));
        check(b"PROXY TCP4 192.0.2.1\xff 198.51.100.1 56324 25\r\n", Err(Malformed));
    }

    #[test]
    fn headers_of_version_2() {
        check(&v2(0x21, 0x11, V4_BLOCK), Ok(Some("192.0.2.1:57005")));
        check(&v2(0x21, 0x11, &[V4_BLOCK, &[4, 0, 2, 9, 9]].concat()), Ok(Some("192.0.2.1:57005")));
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1], &[0, 99, 0, 25]].concat();
        check(&v2(0x21, 0x21, &v6), Ok(Some("[2001:db8::1]:99")));
        check(&v2(0x21, 0x31, &[0; 216]), Ok(None));
        check(&v2(0x21, 0x00, &[]), Ok(None));
        check(&v2(0x20, 0x00, &[]), Ok(None));
        check(&v2(0x20, 0x11, V4_BLOCK), Ok(None));
        check(&v2(0x20, 0x99, &[1, 2, 3]), Ok(None));
        check(&v2(0x21, 0x00, &[0; V2_MAX_REST_BYTES]), Ok(None));
    }

    #[test]
    fn what_is_no_header_of_version_2() {
        check(&v2(0x11, 0x11, V4_BLOCK), Err(Malformed));
        check(&v2(0x22, 0x11, V4_BLOCK), Err(Malformed));
        check(&v2(0x21, 0x12, V4_BLOCK), Err(Malformed));
        check(&v2(0x21, 0x11, &V4_BLOCK[..11]), Err(Malformed));
        check(&v2(0x21, 0x21, &[0; 35]), Err(Malformed));
        check(&v2(0x21, 0x31, &[0; 215]), Err(Malformed));
        check(&v2(0x21, 0x00, &[0; V2_MAX_REST_BYTES + 1]), Err(Malformed));
        check(b"\r\n\r\n\0\r\nQUIX\n!\x11\0\0\0\0", Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_and_nothing_panics(
            start in prop::sample::select(vec![&b""[..], b"PROXY TCP4 ", b"PROXY UNKNOWN", V2_SIGNATURE]),
            rest in prop::collection::vec(any::<u8>(), 0..300),
            at_once in 1..40_usize,
        ) {
            let input = [start, &rest].concat();
            let whole = read(&input, usize::MAX).map(|(result, _)| result);
            prop_assert_eq!(read(&input, at_once).map(|(result, _)| result), whole);
            prop_assert_ne!(parse(&input), Ok(Progress::More(0)));
        }

        #[test]
        fn a_client_that_is_written_is_read_back(address: Ipv6Addr, v4: Ipv4Addr, port: u16) {
            let block = [&address.octets()[..], &[0; 16], &port.to_be_bytes(), &[0, 25]].concat();
            let expected = SocketAddr::new(address.into(), port);
            prop_assert_eq!(parse(&v2(0x21, 0x21, &block)), Ok(Progress::Done(Some(expected))));
            let line = format!("PROXY TCP6 {address} ::1 {port} 25\r\n");
            prop_assert_eq!(parse(line.as_bytes()), Ok(Progress::Done(Some(expected))));
            let line = format!("PROXY TCP4 {v4} 127.0.0.1 {port} 25\r\n");
            let expected = SocketAddr::new(v4.into(), port);
            prop_assert_eq!(parse(line.as_bytes()), Ok(Progress::Done(Some(expected))));
        }
    }
}
