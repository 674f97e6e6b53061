//! The public JSON: events, views, requests, problems. Version 1.
//!
//! Data and conversions only; nothing here does I/O. Readers skip event types they do not know,
//! the server refuses request fields it does not know. Invariant: a published field never changes
//! its name or meaning; `tests/golden/v1` holds one example of each.

pub mod event;
mod from;
#[doc(hidden)]
pub mod fuzz;
pub mod problem;
pub mod request;
pub mod service;
pub mod view;

pub use event::{
    ApprovalRequested, ApprovalResolved, Body, Caps, Connection, Delta, Envelope, Fact, FileChange, Granted, Halt, ItemCompleted, ItemKind,
    ItemStarted, ItemUpdated, Offer, Operation, PlanStep, PlanUpdated, ResultBody, ResultError, TaskStarted, ToolUse, Usage, YoloView,
};
pub use from::{Facts, envelope, live, millis, task_view, timestamp};
pub(crate) use from::{asked, files};
pub use problem::Problem;
pub use request::{CommandRequest, EnvironmentRequest, SubmitRequest, YoloRequest};
pub use service::{HaltView, UpgradeRequest, UpgradeView};
pub use view::{ApprovalView, DaemonView, DiffView, OpView, PausedView, Said, Submitted, TaskList, TaskView, VersionView};

/// The version of everything in this module.
pub const VERSION: u32 = 1;

/// The JSON Schemas of all resources by name, for publication.
#[must_use]
pub fn schemas() -> serde_json::Value {
    let schemas = [
        ("event", schemars::schema_for!(Envelope)),
        ("task", schemars::schema_for!(TaskView)),
        ("submit", schemars::schema_for!(SubmitRequest)),
        ("command", schemars::schema_for!(CommandRequest)),
        ("problem", schemars::schema_for!(Problem)),
        ("daemon", schemars::schema_for!(DaemonView)),
        ("upgrade", schemars::schema_for!(UpgradeRequest)),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema.to_value())).collect()
}
