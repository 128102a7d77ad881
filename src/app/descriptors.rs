//! Open sockets that come from another process: handed over through a Unix socket, or at the start by the
//! service manager. The one file of the process that makes descriptors out of numbers.
//!
//! A message is one byte that says what it is, and at most one descriptor beside it (SCM_RIGHTS, unix(7)).
//! The control message is written and read by its bytes: its layout is the kernel's interface.
//!
//! ```text
//! | length of all: usize | SOL_SOCKET: i32 | SCM_RIGHTS: i32 | descriptor: i32 | padding |
//! ```

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use socket2::{MaybeUninitSlice, MsgHdr, MsgHdrMut, SockRef};

const WORD: usize = size_of::<usize>();
/// A control message with one descriptor: its header and the number.
const USED: usize = WORD + 4 + 4 + 4;
/// The same with its padding.
const SPACE: usize = USED.next_multiple_of(WORD);
/// The first descriptor that a service manager passes (sd_listen_fds(3)).
const FIRST: RawFd = 3;
/// More listeners than a gateway has addresses: what is above is a mistake in the environment.
const INHERITED_MAX: RawFd = 256;

/// Sends a byte, with a descriptor or without.
///
/// # Errors
/// The kernel's; the other side has closed.
pub fn send(to: &UnixStream, what: u8, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut control = [0_u8; SPACE];
    let byte = [what];
    let slices = [IoSlice::new(&byte)];
    let mut message = MsgHdr::new().with_buffers(&slices);
    if let Some(descriptor) = descriptor {
        control[..WORD].copy_from_slice(&USED.to_ne_bytes());
        control[WORD..WORD + 4].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        control[WORD + 4..WORD + 8].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
        control[WORD + 8..USED].copy_from_slice(&descriptor.as_raw_fd().to_ne_bytes());
        message = message.with_control(&control);
    }
    loop {
        match SockRef::from(to).sendmsg(&message, libc::MSG_NOSIGNAL) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent.map(|_| ()),
        }
    }
}

/// Receives a byte and the descriptor beside it, if there is one. `None`: the other side has closed.
///
/// # Errors
/// The kernel's; the read time-out of the stream has passed.
#[allow(unsafe_code)]
pub fn receive(from: &UnixStream) -> io::Result<Option<(u8, Option<OwnedFd>)>> {
    let mut byte = [MaybeUninit::new(0_u8)];
    let mut control = [MaybeUninit::new(0_u8); SPACE];
    let (count, filled) = loop {
        let mut slices = [MaybeUninitSlice::new(&mut byte)];
        let mut message = MsgHdrMut::new().with_buffers(&mut slices).with_control(&mut control);
        match SockRef::from(from).recvmsg(&mut message, libc::MSG_CMSG_CLOEXEC) {
            Ok(count) => break (count, message.control_len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    if count == 0 {
        return Ok(None);
    }
    // SAFETY: both arrays were made of initialised bytes, and the kernel only writes such.
    let (byte, control) = unsafe { (byte[0].assume_init(), control.map(|b| b.assume_init())) };
    if filled < USED {
        return Ok(Some((byte, None)));
    }
    let word = |at: usize| control[at..at + 4].try_into().map(i32::from_ne_bytes).unwrap_or(-1);
    if (word(WORD), word(WORD + 4)) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
        return Ok(Some((byte, None)));
    }
    let number = word(WORD + 8);
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows its number.
    let descriptor = (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) });
    Ok(Some((byte, descriptor)))
}

/// What a service manager passes by LISTEN_PID and LISTEN_FDS. To be called once, at the start.
///
/// # Errors
/// The variables are meant for this process and make no sense, in words.
#[allow(unsafe_code)]
pub fn inherited() -> Result<Vec<OwnedFd>, String> {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<i32>().map_err(|_| format!("{name} is not a number")))
    };
    let (Some(process), Some(count)) = (number("LISTEN_PID"), number("LISTEN_FDS")) else {
        return Ok(Vec::new());
    };
    if i64::from(process?) != i64::from(std::process::id()) {
        // Meant for whoever started us.
        return Ok(Vec::new());
    }
    let count = count?;
    if !(0..=INHERITED_MAX).contains(&count) {
        return Err(format!("LISTEN_FDS is {count}"));
    }
    let mut list = Vec::new();
    for number in FIRST..FIRST + count {
        // A descriptor that is not open must not be taken: it would be somebody else's later.
        if !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists() {
            return Err(format!("LISTEN_FDS is {count}, and descriptor {number} is not open"));
        }
        // SAFETY: it is open, and passed to this process for it to own; nothing took it before.
        list.push(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_listener_lives_on_behind_another_descriptor() {
        let (here, there) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // In the queue before the listener changes hands.
        let mut client = TcpStream::connect(addr).unwrap();
        send(&here, b'L', Some(listener.as_fd())).unwrap();
        send(&here, b'E', None).unwrap();
        drop((listener, here));
        let (what, descriptor) = receive(&there).unwrap().unwrap();
        let heir = TcpListener::from(descriptor.unwrap());
        assert_eq!((what, heir.local_addr().unwrap()), (b'L', addr));
        assert!(matches!(receive(&there), Ok(Some((b'E', None)))));
        assert!(receive(&there).unwrap().is_none());
        heir.accept().unwrap().0.write_all(b"hi").unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hi");
    }
}
