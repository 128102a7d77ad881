//! What the shell tells the process about: counted there, never waited for here.

use crate::base::ids::CoreId;
use crate::exchange::ledger::Ledger;

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
}
