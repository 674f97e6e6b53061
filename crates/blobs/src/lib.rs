//! Content-addressed bytes on disk.
