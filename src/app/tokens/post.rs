//! One POST and its answer, over sockets that block, on a thread that may.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use crate::base::buf::Buf;
use crate::base::secret::Secret;
use crate::config::BaseUrl;
use crate::net::names::is_off_limits;
use crate::net::tls::{Profile, Session};
use crate::wire::http1::body::Body;
use crate::wire::http1::{emit, head};

/// An answer, whole.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; it may be a secret.
    pub body: Secret,
}

/// Posts a form within `patience`.
///
/// # Errors
/// What went wrong, in words without anything that was sent or received.
pub fn form(url: &BaseUrl, form: &Secret, patience: Duration) -> Result<Answer, String> {
    let profile = if url.tls { Some(Profile::new(&url.host, None)?) } else { None };
    exchange(url, profile.as_ref(), form, patience)
}

fn exchange(
    url: &BaseUrl,
    profile: Option<&Profile>,
    form: &Secret,
    patience: Duration,
) -> Result<Answer, String> {
    let until = Instant::now() + patience;
    let mut request = Buf::new();
    let mut fits = emit::request_line(&mut request, b"POST", [url.path.as_bytes(), path_end(url)]);
    fits &= emit::field(&mut request, b"host", url.authority().as_bytes());
    for (name, value) in [
        (&b"content-type"[..], &b"application/x-www-form-urlencoded"[..]),
        (b"accept", b"application/json"),
        (b"accept-encoding", b"identity"),
        (b"user-agent", crate::llm::provider::USER_AGENT.as_bytes()),
        (b"connection", b"close"),
    ] {
        fits &= emit::field(&mut request, name, value);
    }
    if !fits {
        return Err(String::from("its address can't be sent"));
    }
    emit::content_length(&mut request, form.expose().len() as u64);
    emit::end(&mut request);
    request.extend(form.expose());
    let words = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => String::from("it took too long"),
        _ => error.to_string(),
    };
    let socket = connect(url, until).map_err(words)?;
    let tls = profile.map(Profile::session).transpose().map_err(|fault| fault.text().to_owned())?;
    let mut link = Link { socket, tls, until };
    link.send(&request).map_err(words)?;
    drop(Secret::new(request.into_parts().0));
    link.answer().map_err(words)
}

/// An empty path is a slash on the wire.
fn path_end(url: &BaseUrl) -> &'static [u8] {
    if url.path.is_empty() { b"/" } else { b"" }
}

fn connect(url: &BaseUrl, until: Instant) -> io::Result<TcpStream> {
    let mut addresses: Vec<SocketAddr> = (url.host.as_str(), url.port).to_socket_addrs()?.collect();
    if url.host.parse::<IpAddr>().is_err() {
        addresses.retain(|address| !is_off_limits(address.ip()));
    }
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(until)?) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A connection with a deadline.
struct Link {
    socket: TcpStream,
    tls: Option<Session>,
    until: Instant,
}

impl Link {
    fn send(&mut self, request: &Buf) -> io::Result<()> {
        if self.tls.is_none() {
            return self.write(request);
        }
        while self.flush()? {
            let mut nothing = Buf::new();
            if self.read(&mut nothing)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut cipher = Buf::new();
        if let Some(session) = &mut self.tls {
            session.seal(request, &mut cipher).map_err(|_| tls_failed())?;
        }
        self.write(&cipher)
    }

    /// Writes what TLS itself wants to say; says whether its handshake goes on.
    fn flush(&mut self) -> io::Result<bool> {
        let Some(session) = &mut self.tls else { return Ok(false) };
        let mut cipher = Buf::new();
        session.flush(&mut cipher).map_err(|_| tls_failed())?;
        let goes_on = session.is_handshaking();
        self.write(&cipher)?;
        Ok(goes_on)
    }

    fn write(&mut self, bytes: &Buf) -> io::Result<()> {
        self.socket.set_write_timeout(Some(left(self.until)?))?;
        self.socket.write_all(bytes.as_slice())
    }

    /// Reads once; the count of received bytes, 0 at the end.
    fn read(&mut self, plain: &mut Buf) -> io::Result<usize> {
        let mut chunk = [0; 4096];
        self.socket.set_read_timeout(Some(left(self.until)?))?;
        let count = loop {
            match self.socket.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        match &mut self.tls {
            None => plain.extend(&chunk[..count]),
            Some(session) => {
                let mut cipher = Buf::from_vec(chunk[..count].to_vec());
                session.open(&mut cipher, plain).map_err(|_| tls_failed())?;
            }
        }
        Ok(count)
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let malformed = || io::Error::other("its answer is malformed");
        let mut received = Buf::new();
        let head = loop {
            let parsed = head::parse_response(received.as_slice(), ANSWER_MAX, false);
            match parsed.map_err(|_| malformed())? {
                Some(head) if head.status < 200 => received.consume(head.len),
                Some(head) => break head,
                None if self.read(&mut received)? == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                None => {}
            }
        };
        received.consume(head.len);
        let (mut body, mut whole) = (Body::new(head.framing), Vec::new());
        loop {
            let decoded = body.decode(received.as_mut_slice()).map_err(|_| malformed())?;
            whole.extend_from_slice(&received.as_slice()[..decoded.payload]);
            received.clear();
            if whole.len() > ANSWER_MAX {
                return Err(io::Error::other("its answer is too long"));
            }
            if decoded.done {
                break;
            }
            if self.read(&mut received)? == 0 {
                body.eof().map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
                break;
            }
        }
        Ok(Answer { status: head.status, body: Secret::new(whole) })
    }
}

fn tls_failed() -> io::Error {
    io::Error::other("the TLS handshake failed")
}

/// Bytes of an answer: a token has a few hundred.
const ANSWER_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests;
