//! Contract suites, simulated clocks and entropy, the scripted model server.

pub mod canary;
pub mod contract;
pub mod fake;
pub mod hammer;
pub mod keys;
pub mod llm;
pub mod memory;
