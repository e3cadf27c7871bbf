//! The kernel's data about the other end of a connection on this machine.
//!
//! A connection that waits in a listener's backlog has no inode at the listener's end; it gets one when it is accepted.

use crate::BorrowedHandle;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::io;
use std::net::{IpAddr, SocketAddr};

// linux/sock_diag.h, linux/unix_diag.h, linux/netlink.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;
const UDIAG_SHOW_MEMINFO: u32 = 0x20;
const UNIX_DIAG_MEMINFO: u16 = 5;
const SK_MEMINFO_RCVBUF: usize = 1;
const SK_MEMINFO_WMEM_ALLOC: usize = 2;
const SK_MEMINFO_SNDBUF: usize = 3;
const AF_UNIX: u8 = 1;
const NETLINK_HEAD: usize = 16;
const UNIX_DIAG_MSG: usize = 16;
const ATTRIBUTE_HEAD: usize = 4;

/// Returns the inode of the other end of a local socket; 0 until a listener has accepted it. `None`: the kernel does
/// not report it.
pub fn peer_inode(client: BorrowedHandle<'_>) -> io::Result<Option<u32>> {
    let inode = rustix::fs::fstat(client)?.st_ino as u32;
    Ok(attribute(inode, UDIAG_SHOW_PEER, UNIX_DIAG_PEER)?.and_then(|value| u32_at(&value, 0)))
}

/// A socket's memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The size of its receive buffer.
    pub receive_buffer: u32,
    /// The bytes that were sent from it and not received.
    pub sent: u32,
    /// How many bytes that may be before a sender has to wait.
    pub most: u32,
}

/// Returns the memory of the other end of a local socket. `None`: the kernel does not report it.
pub fn peer_memory(socket: BorrowedHandle<'_>) -> io::Result<Option<Memory>> {
    let Some(peer) = peer_inode(socket)?.filter(|inode| *inode != 0) else { return Ok(None) };
    let Some(memory) = attribute(peer, UDIAG_SHOW_MEMINFO, UNIX_DIAG_MEMINFO)? else { return Ok(None) };
    let word = |place| u32_at(&memory, place);
    let sizes = (word(SK_MEMINFO_RCVBUF), word(SK_MEMINFO_WMEM_ALLOC), word(SK_MEMINFO_SNDBUF));
    let (Some(receive_buffer), Some(sent), Some(most)) = sizes else { return Ok(None) };
    Ok(Some(Memory { receive_buffer, sent, most }))
}

/// Returns the kernel's attribute `kind` of the local socket with that inode.
fn attribute(inode: u32, show: u32, kind: u16) -> io::Result<Option<Vec<u8>>> {
    let diag = crate::own::arrived(rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?);
    let mut request = Vec::with_capacity(40);
    request.extend(40u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]); // sequence number and port
    request.extend([AF_UNIX, 0, 0, 0]); // family, protocol, padding
    request.extend(u32::MAX.to_ne_bytes()); // sockets in any state
    request.extend(inode.to_ne_bytes());
    request.extend(show.to_ne_bytes());
    request.extend([0xff; 8]); // any cookie
    rustix::net::send(&diag, &request, SendFlags::empty())?;
    let mut answer = [0; 1024];
    // The kernel has answered by now.
    let (got, _) = rustix::net::recv(&diag, &mut answer[..], RecvFlags::DONTWAIT)?;
    let answer = &answer[..got];
    if u16_at(answer, 4) != Some(SOCK_DIAG_BY_FAMILY) {
        return Err(Errno::NOTSUP.into());
    }
    let mut rest = answer.get(NETLINK_HEAD + UNIX_DIAG_MSG..).unwrap_or_default();
    while let (Some(len), Some(found)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        if found == kind {
            return Ok(rest.get(ATTRIBUTE_HEAD..usize::from(len)).map(<[u8]>::to_vec));
        }
        rest = rest.get(usize::from(len).next_multiple_of(4).max(ATTRIBUTE_HEAD)..).unwrap_or_default();
    }
    Ok(None)
}

fn u16_at(bytes: &[u8], place: usize) -> Option<u16> {
    bytes.get(place..).and_then(<[u8]>::first_chunk).map(|chunk| u16::from_ne_bytes(*chunk))
}

/// Returns word number `place`.
fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    bytes.get(4 * place..).and_then(<[u8]>::first_chunk).map(|chunk| u32::from_ne_bytes(*chunk))
}

/// Returns the inode of the end of a TCP connection that has the address `local`, from a table in the form of
/// `/proc/net/tcp`; 0 until a listener has accepted it. `None`: it is not in the table.
pub fn tcp_inode(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let (local, remote) = (in_table(local), in_table(remote));
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        (fields.next()? == local && fields.next()? == remote).then(|| fields.nth(6)?.parse().ok())?
    })
}

fn in_table(address: SocketAddr) -> String {
    let words = |bytes: &[u8]| bytes.chunks_exact(4).map(|word| format!("{:08X}", word_of(word))).collect::<String>();
    let host = match address.ip() {
        IpAddr::V4(ip) => words(&ip.octets()),
        IpAddr::V6(ip) => words(&ip.octets()),
    };
    format!("{host}:{:04X}", address.port())
}

fn word_of(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use crate::AsHandle;
    use crate::socket::is_taken;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_client_detects_whether_it_was_accepted() {
        let path = std::env::temp_dir().join(format!("maniple-test-taken-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        assert_eq!(is_taken(client.as_handle()), Some(false));
        let _taken = listener.accept().unwrap();
        assert_eq!(is_taken(client.as_handle()), Some(true));
        std::fs::remove_file(path).unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert_eq!(is_taken(client.as_handle()), Some(false));
            let _taken = listener.accept().unwrap();
            assert_eq!(is_taken(client.as_handle()), Some(true));
        }
    }
}
