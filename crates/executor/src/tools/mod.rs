//! The command tools: `exec`, `exec_send`, `exec_wait`.
