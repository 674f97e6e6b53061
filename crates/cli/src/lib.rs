//! The door for people: commands, rendering, manners.
//!
//! Speaks to the daemon through `api`'s client; what only the roof can do comes in as a [`House`].
//! Invariant: stdout carries data and nothing else, and no text of a model or a command reaches a
//! terminal unescaped.

mod args;
mod command;
mod house;
mod notify;
mod output;
mod pages;
mod prompt;
mod render;
mod units;

pub use args::{Args, Command, ConfigCommand, DaemonCommand, KeysCommand, Manners, McpAdd, McpCommand, WalCommand, parse};
pub use command::{offline, run};
pub use house::{Chore, Granting, House, Rescue, Surroundings, TrustWish};
pub use notify::{Call, Notify};
pub use output::{Output, Tone};
pub use render::fault::fault as render_fault;
pub use render::visible;
