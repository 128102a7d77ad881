//! What the shell tells the process about: counted there, never waited for here.

use crate::base::ids::CoreId;
use crate::base::tick::Ms;
use crate::exchange::ledger::Ledger;
use crate::net::load::Shed;

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
    /// How late a core's event loop is, now and then.
    fn late(&self, _core: CoreId, _late: Ms) {}
    /// An accept or a dial failed for want of a descriptor; `news`: the one before had one.
    fn no_descriptor(&self, _core: CoreId, _news: bool) {}
    /// None has been missing for a while.
    fn descriptors_again(&self, _core: CoreId) {}
}
