//! Append-only journal: segments, checksums, hash chain, recovery.
