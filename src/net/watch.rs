//! What the shell tells the process about: counted there, never waited for here.

use crate::base::ids::CoreId;
use crate::base::tick::Ms;
use crate::exchange::ledger::Ledger;
use crate::net::load::Shed;
use crate::route::Table;

/// Why a connection came to no TLS session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoSession {
    /// The client left before there was one.
    Closed,
    /// It took too long.
    Timeout,
    /// It spoke plain HTTP.
    PlainHttp,
    /// No version, cipher or protocol in common.
    Incompatible,
    /// Its certificate was missing or not accepted.
    Certificate,
    /// It refused ours, by an alert.
    Alert,
    /// What it sent was no TLS, or did not verify.
    Malformed,
}

impl NoSession {
    /// Every reason, in the order of its number.
    pub const ALL: [NoSession; 7] = [
        NoSession::Closed,
        NoSession::Timeout,
        NoSession::PlainHttp,
        NoSession::Incompatible,
        NoSession::Certificate,
        NoSession::Alert,
        NoSession::Malformed,
    ];

    /// The stable short name, for the metric.
    pub const fn name(self) -> &'static str {
        match self {
            NoSession::Closed => "closed",
            NoSession::Timeout => "timeout",
            NoSession::PlainHttp => "plain_http",
            NoSession::Incompatible => "incompatible",
            NoSession::Certificate => "certificate",
            NoSession::Alert => "alert",
            NoSession::Malformed => "malformed",
        }
    }
}

/// Implemented by the process's metrics and log. Called on the core, so it must not block, lock for
/// long, or allocate much.
pub trait Watch: Send + Sync + 'static {
    /// A client connection was accepted.
    fn connected(&self, core: CoreId);
    /// A client connection ended.
    fn disconnected(&self, core: CoreId);
    /// A request head was complete.
    fn began(&self, core: CoreId);
    /// An exchange ended; this is its one ledger.
    fn ended(&self, core: CoreId, ledger: Ledger);
    /// A connection attempt to a provider was made (`true`) or a pooled one was used (`false`).
    fn dialed(&self, core: CoreId, fresh: bool);
    /// A connection or request was refused since there is too much.
    fn shed(&self, _core: CoreId, _why: Shed) {}
    /// A client was slower than it may be, with a head or a body.
    fn too_slow(&self, _core: CoreId) {}
    /// A connection came to no TLS session.
    fn no_session(&self, _core: CoreId, _why: NoSession) {}
    /// A snapshot with this table will be in force in a moment. Not on a core.
    fn publishing(&self, _table: &Table) {}
    /// A reload was taken in, or refused. Not on a core.
    fn reloaded(&self, _taken: bool) {}
    /// How late a core's event loop is, and how many requests wait at its gate, now and then.
    fn late(&self, _core: CoreId, _late: Ms, _waiting: usize) {}
    /// An accept or a dial failed for want of a descriptor; `news`: the one before had one.
    fn no_descriptor(&self, _core: CoreId, _news: bool) {}
    /// None has been missing for a while.
    fn descriptors_again(&self, _core: CoreId) {}
}
