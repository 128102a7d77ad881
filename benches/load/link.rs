//! A socket without blocking, with bytes that still have to go, over TLS or not.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use rustls::ServerConnection;

/// Where reads land first: one for a thread, since zeroing room for each would cost more than the read.
pub const SCRATCH_BYTES: usize = 64 << 10;

pub struct Link {
    pub socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    out: Vec<u8>,
    sent: usize,
}

impl Link {
    pub fn new(socket: TcpStream, tls: Option<Box<ServerConnection>>) -> Link {
        Link { socket, tls, out: Vec::new(), sent: 0 }
    }

    /// Whether bytes wait for the peer to read.
    pub fn is_stuck(&self) -> bool {
        self.sent < self.out.len() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Appends what is there; false when the peer is gone.
    pub fn read(&mut self, scratch: &mut [u8], into: &mut Vec<u8>) -> bool {
        let Link { socket, tls, .. } = self;
        let Some(tls) = tls else { return drain(socket, scratch, into) };
        loop {
            match tls.read_tls(socket) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
            let Ok(state) = tls.process_new_packets() else { return false };
            let at = into.len();
            into.resize(at + state.plaintext_bytes_to_read(), 0);
            if tls.reader().read_exact(&mut into[at..]).is_err() {
                return false;
            }
        }
        self.flush().is_ok()
    }

    /// Sends at once what the kernel takes, and keeps the rest.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
            return self.flush();
        }
        let mut taken = 0;
        if !self.is_stuck() {
            taken = match self.socket.write(bytes) {
                Ok(taken) => taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
        }
        self.out.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    /// Sends on what was kept.
    pub fn flush(&mut self) -> io::Result<()> {
        let result = match &mut self.tls {
            Some(tls) => flush_tls(tls, &mut self.socket),
            None => flush_plain(&self.out, &mut self.sent, &mut self.socket),
        };
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }
}

fn flush_tls(tls: &mut ServerConnection, socket: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(socket)?;
    }
    Ok(())
}

fn flush_plain(out: &[u8], sent: &mut usize, socket: &mut TcpStream) -> io::Result<()> {
    while *sent < out.len() {
        *sent += socket.write(&out[*sent..])?;
    }
    Ok(())
}

fn drain(socket: &mut TcpStream, scratch: &mut [u8], into: &mut Vec<u8>) -> bool {
    loop {
        match socket.read(scratch) {
            Ok(0) => return false,
            Ok(bytes) => {
                into.extend_from_slice(&scratch[..bytes]);
                // A short read emptied the socket: what comes later wakes anew.
                if bytes < scratch.len() {
                    return true;
                }
            }
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}
