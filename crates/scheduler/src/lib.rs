//! The engine: single writer of the journal, coroutines, leases, budgets, replay.
