//! TLS in a build without it: there is no profile, so there is no session. Keeps the shell one source
//! for builds that only simulate.

use crate::base::buf::Buf;
use crate::base::fail::Fault;

/// Can't be made in this build.
#[derive(Clone)]
pub enum Profile {}

impl Profile {
    /// Always refused.
    ///
    /// # Errors
    /// Always: this build has no TLS.
    pub fn new(_host: &str, _ca: Option<&[u8]>) -> Result<Profile, String> {
        Err(String::from("this build has no TLS (feature \"uring\" is off)"))
    }

    /// Never called: there is no profile.
    ///
    /// # Errors
    /// None.
    pub fn session(&self) -> Result<Session, Fault> {
        match *self {}
    }
}

/// Can't be made in this build.
pub enum Session {}

#[allow(missing_docs, reason = "the real ones are in tls.rs")]
impl Session {
    pub fn is_handshaking(&self) -> bool {
        match *self {}
    }
    /// # Errors
    /// None.
    pub fn open(&mut self, _cipher: &mut Buf, _plain: &mut Buf) -> Result<bool, Fault> {
        match *self {}
    }
    /// # Errors
    /// None.
    pub fn seal(&mut self, _plain: &Buf, _cipher: &mut Buf) -> Result<(), Fault> {
        match *self {}
    }
    /// # Errors
    /// None.
    pub fn flush(&mut self, _cipher: &mut Buf) -> Result<(), Fault> {
        match *self {}
    }
    pub fn wants_write(&self) -> bool {
        match *self {}
    }
}
