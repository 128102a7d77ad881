//! From one process to the next without a moment in which nobody listens.
//!
//! Both are started with the same path of a Unix socket. The running one waits there; a new one comes
//! to it when it is ready in every other way. The listeners change hands as descriptors, so connections
//! in their queues wait for whoever accepts next and none is lost. The old process then drains.
//!
//! ```text
//!   new                                  old
//!    | ---- connects --------------------> |  stops its admin listener
//!    | <--- L + descriptor, a listener --- |  S: the service manager's
//!    | <--- E, these were all ------------ |
//!    |  sets up its cores                  |
//!    | ---- R, ready ---------------------> |  stops accepting, drops its duplicates
//!    | <--- D, done ----------------------- |  drains and ends
//!    |  accepts                            |
//! ```
//!
//! A new process that ends before R changes nothing: the old one goes on. Only who may write to the
//! socket's file can ask (0600, and its folder's own permissions). At one time only one hand-over runs.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::admin;
use crate::app::descriptors::{receive, send};
use crate::app::say;
use crate::app::sockets::{Given, Sockets};
use crate::net::beacon::Level;
use crate::net::core::Shared;

/// How long either side waits for a byte of the other: far more than a start takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long cores get to let go of their listeners: they look for it every 50 ms.
const LET_GO: Duration = Duration::from_secs(2);

const LISTENER: u8 = b'L';
const ACTIVATED: u8 = b'S';
const END: u8 = b'E';
const READY: u8 = b'R';
const DONE: u8 = b'D';

/// A running process that was asked for its listeners.
pub struct Predecessor {
    stream: UnixStream,
}

/// Asks the process that waits at `path`. `None`: there is none, or it is about to end.
///
/// # Errors
/// It does not answer, or not as it should.
pub fn ask(path: &Path) -> Result<Option<(Predecessor, Vec<Given>)>, String> {
    let wrong = |error: io::Error| format!("{}: {error}", path.display());
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(wrong(error)),
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(wrong)?;
    let mut given = Vec::new();
    loop {
        match receive(&stream).map_err(wrong)? {
            Some((what @ (LISTENER | ACTIVATED), Some(descriptor))) => {
                given.push(Given::new(descriptor, what == ACTIVATED)?);
            }
            Some((END, None)) => return Ok(Some((Predecessor { stream }, given))),
            Some(_) => return Err(format!("{}: not a firstbyte of this kind", path.display())),
            None => return Ok(None),
        }
    }
}

impl Predecessor {
    /// Tells it to let go; says whether it did.
    pub fn take_over(self) -> bool {
        let told = send(&self.stream, READY, None).is_ok();
        told && matches!(receive(&self.stream), Ok(Some((DONE, None))))
    }
}

/// What a process has to hand over.
pub struct Estate {
    /// To drain by.
    pub shared: Arc<Shared>,
    /// Where clients connect.
    pub sockets: Arc<Sockets>,
    /// The admin listener, if there is one.
    pub admin: Option<Arc<admin::Server>>,
}

/// Waits at `path` for a successor, on a thread of its own, for as long as the process lives.
///
/// # Errors
/// The socket can't be made there, in words.
pub fn wait(path: &Path, estate: Estate) -> Result<(), String> {
    let listener = bind(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let serve = move || {
        for stream in listener.incoming().flatten() {
            if estate.shared.level() > Level::Running {
                return;
            }
            match estate.hand_over(&stream) {
                Ok(true) => {
                    say::log("another process has taken over the listeners");
                    return;
                }
                Ok(false) => say::log("a process asked for the listeners and did not take them"),
                Err(error) => say::log(&format!("the listeners were not handed over: {error}")),
            }
        }
    };
    let thread = std::thread::Builder::new().name(String::from("handover")).spawn(serve);
    thread.map(|_| ()).map_err(|error| format!("the hand-over thread can't be started: {error}"))
}

/// Makes the socket beside its place and moves it there: never open to others, and never absent.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
    fs::rename(&beside, path)?;
    Ok(listener)
}

impl Estate {
    /// One hand-over; says whether it came to its end. If not, all is as it was.
    fn hand_over(&self, stream: &UnixStream) -> io::Result<bool> {
        stream.set_read_timeout(Some(PATIENCE))?;
        // First, so that no answer about this process reaches who asks about the next.
        if let Some(admin) = &self.admin {
            admin.pause();
        }
        let done = match self.offer(stream) {
            // It left before it had read all of this.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ) =>
            {
                Ok(false)
            }
            done => done,
        };
        if !matches!(done, Ok(true))
            && let Some(admin) = &self.admin
        {
            admin.resume();
        }
        done
    }

    fn offer(&self, stream: &UnixStream) -> io::Result<bool> {
        for (listener, kept) in self.sockets.pass_on() {
            let what = if kept { ACTIVATED } else { LISTENER };
            send(stream, what, Some(listener.as_fd()))?;
        }
        if let Some(admin) = &self.admin {
            send(stream, LISTENER, Some(admin.pass_on()?.as_fd()))?;
        }
        send(stream, END, None)?;
        match receive(stream)? {
            Some((READY, None)) => {}
            Some(_) | None => return Ok(false),
        }
        self.shared.hand_on();
        let until = Instant::now() + LET_GO;
        while self.shared.listening() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.sockets.close();
        // It accepts in any case; who has died meanwhile can't be told.
        let _ = send(stream, DONE, None);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt as _;

    use super::*;

    #[test]
    fn the_socket_is_there_at_once_and_for_its_owner_only() {
        let folder = std::env::temp_dir().join(format!("firstbyte-bind-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("handover.sock");
        assert!(ask(&path).unwrap().is_none(), "nobody is there");
        let first = bind(&path).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        // A killed process leaves its file; the next one replaces it.
        drop(first);
        assert!(ask(&path).unwrap().is_none(), "nobody listens");
        let _second = bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
