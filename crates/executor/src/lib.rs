//! Commands under keepers in sandboxes; the blocking mains of keeper and sandbox.
