//! Who may ask for what: every route of the door, by role, in one table.
//!
//! A route that has no line here is served to nobody, so forgetting one is noticed at once. Invariant:
//! what a peer may do follows from its user id alone, as the kernel gave it, never from what it says.

use axum::http::Method;

/// Who stands at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The user whose daemon this is.
    Owner,
    /// The machine's administrator, where that is not the owner.
    Root,
    /// Anybody else, and whoever the kernel does not name.
    Other,
}

/// Every role, for tests.
#[cfg(test)]
pub(super) const ROLES: [Role; 3] = [Role::Owner, Role::Root, Role::Other];

impl Role {
    /// The role of a user id.
    pub(super) const fn of(uid: Option<u32>, owner: u32) -> Self {
        match uid {
            Some(uid) if uid == owner => Self::Owner,
            Some(0) => Self::Root,
            _ => Self::Other,
        }
    }
}

/// A line of the table: route, method, and whether root may use it as well. Everybody else may use none.
type Line = (&'static str, Method, bool);

/// The table. Root may look how the daemon is, and stop it; a user's tasks are the user's own.
pub(super) const RIGHTS: &[Line] = &[
    ("/healthz", Method::GET, true),
    ("/readyz", Method::GET, true),
    ("/version", Method::GET, true),
    ("/v1/daemon", Method::GET, true),
    ("/v1/daemon/stop", Method::POST, true),
    ("/v1/daemon/halt", Method::POST, true),
    ("/v1/daemon/upgrade", Method::POST, false),
    ("/v1/daemon/reload", Method::POST, false),
    ("/v1/env", Method::POST, false),
    ("/v1/tasks", Method::GET, false),
    ("/v1/tasks", Method::POST, false),
    ("/v1/tasks/{prefix}", Method::GET, false),
    ("/v1/tasks/{prefix}/commands", Method::POST, false),
    ("/v1/tasks/{prefix}/diff", Method::GET, false),
    ("/v1/tasks/{prefix}/events", Method::GET, false),
    ("/v1/events", Method::GET, false),
    ("/v1/approvals", Method::GET, false),
    ("/v1/blobs/{blob}", Method::GET, false),
];

/// What the table says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// It may pass.
    Yes,
    /// This role may not.
    No,
    /// There is no such route, or it does not take this method.
    Nowhere,
}

/// Looks a request up. Who may do nothing at all is not told what there is.
pub(super) fn right(role: Role, route: Option<&str>, method: &Method) -> Right {
    // A head is what a read would have begun with.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let line = RIGHTS.iter().find(|(path, known, _)| Some(*path) == route && known == method);
    match (role, line) {
        (Role::Other, _) => Right::No,
        (_, None) => Right::Nowhere,
        (Role::Owner, Some(_)) | (Role::Root, Some((_, _, true))) => Right::Yes,
        (Role::Root, Some((_, _, false))) => Right::No,
    }
}
