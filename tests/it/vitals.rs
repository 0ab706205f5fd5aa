//! What a running gateway takes: sessions by its own count, memory and descriptors by the system's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

/// Returns the number of open sessions by the gateway's own metrics; `None` when it does not answer.
pub(crate) fn sessions(web: SocketAddr) -> Option<usize> {
    metric(web, "lazaret_sessions")
}

/// Returns the sum of a metric over its labels, 0 where it was never counted; `None` without an answer.
pub(crate) fn metric(web: SocketAddr, name: &str) -> Option<usize> {
    let mut stream = TcpStream::connect(web).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let values = body.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with(' ') || rest.starts_with('{');
        is_it.then(|| rest.rsplit_once(' ')?.1.parse::<usize>().ok()).flatten()
    });
    Some(values.sum())
}

/// Reads a line such as `VmRSS:` of a process's status, in KiB; 0 when the process is gone.
pub(crate) fn memory_kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Begins a new peak of resident memory (`VmHWM:`); returns what is resident now, in KiB.
pub(crate) fn begin_peak(pid: u32) -> std::io::Result<u64> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    Ok(memory_kib(pid, "VmRSS:"))
}

/// Counts the open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Raises the number of descriptors that a process may open, as far as its hard limit lets it.
pub(crate) fn allow_descriptors(pid: u32, number: usize) {
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={number}:")])
        .status()
        .expect("prlimit, of Debian's package util-linux");
    assert!(status.success(), "this test needs a hard limit of {number} open files (ulimit -Hn)");
}
