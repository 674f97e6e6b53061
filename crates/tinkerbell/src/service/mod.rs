//! The daemon as a service: its lock, its listener, and what it tells the service manager.
//!
//! Nothing of tasks. Invariant: what belongs to the service manager's protocol is read from the
//! environment here and reaches neither commands nor keepers.

mod facts;
mod listen;
mod lock;
mod manager;
mod reload;

pub use facts::{Facts, FactsOf};
pub use listen::listener;
pub use lock::{claim, holder, lock};
pub use manager::{Manager, VARIABLES};
pub use reload::{follow, reload};
