//! TLS in a build without it: there is no profile, so there is no session. Keeps the shell one source
//! for builds that only simulate.

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::net::watch::NoSession;

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
    pub fn end(&mut self) {
        match *self {}
    }
    pub fn why(&self) -> NoSession {
        match *self {}
    }
    pub fn wants_write(&self) -> bool {
        match *self {}
    }
}

/// What clients are spoken to with: nothing, in this build.
pub mod server {
    use super::Session;
    use crate::base::fail::Fault;
    use crate::config::{Problem, Server};

    /// Can't be made in this build.
    #[derive(Clone)]
    pub enum Profile {}

    impl Profile {
        /// None, or refused.
        ///
        /// # Errors
        /// If one is asked for: this build has no TLS.
        pub fn new(
            server: &Server,
            _previous: Option<(&Server, &Profile)>,
        ) -> Result<Option<Profile>, Vec<Problem>> {
            if server.tls.is_empty() {
                return Ok(None);
            }
            Err(vec![Problem {
                line: None,
                path: String::from("server.tls"),
                what: String::from("this build has no TLS"),
                hint: String::from("build it with the feature \"uring\""),
            }])
        }

        /// Never called: there is no profile.
        ///
        /// # Errors
        /// None.
        pub fn session(&self) -> Result<Session, Fault> {
            match *self {}
        }
    }
}
