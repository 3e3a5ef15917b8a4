//! The open connections of a process on this machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The state `ESTABLISHED` of `/proc/net/tcp`.
const ESTABLISHED: &str = "01";

/// The ports of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// The port of the process.
    pub local: u16,
    /// The port of the peer.
    pub remote: u16,
}

/// The established TCP connections of a process. Connections that the process has not accepted yet do not count.
///
/// # Errors
/// If there is no such process, or it belongs to another user.
pub fn connections(process: u32) -> std::io::Result<Vec<Connection>> {
    let process = format!("/proc/{process}");
    let mut sockets = BTreeSet::new();
    for file in fs::read_dir(Path::new(&process).join("fd"))? {
        // The process may have closed the file meanwhile.
        let Ok(link) = fs::read_link(file?.path()) else { continue };
        let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'));
        sockets.extend(inode.map(str::to_owned));
    }
    let mut connections = Vec::new();
    for family in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("{process}/net/{family}"))?;
        for row in table.lines().skip(1) {
            let row: Vec<&str> = row.split_whitespace().collect();
            let [_, local, remote, state, _, _, _, _, _, inode, ..] = row[..] else { continue };
            let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
            if state == ESTABLISHED
                && sockets.contains(inode)
                && let (Some(local), Some(remote)) = (port(local), port(remote))
            {
                connections.push(Connection { local, remote });
            }
        }
    }
    Ok(connections)
}
