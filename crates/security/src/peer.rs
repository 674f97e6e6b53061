//! Who stands at the other end of a Unix socket.
//!
//! The door reads the peer's credentials from the kernel and asks here. Invariant: only the same
//! user and root pass, and the text for everybody else names both users.

use tinkerbell_core::code::{Fault, exit};

/// Checks that a peer may speak to the daemon.
///
/// # Errors
/// TB-POLICY-001 when the peer is another user than the daemon's and not root.
pub fn check_peer(uid: u32, own_uid: u32) -> Result<(), Fault> {
    if uid == own_uid || uid == 0 {
        return Ok(());
    }
    let message = format!("user {uid} may not use the daemon of user {own_uid}");
    Err(Fault::new("TB-POLICY-001", exit::NO_AUTH, message)
        .hint("start a daemon of your own: leave TINKERBELL_HOME and XDG_RUNTIME_DIR at your own directories"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_user_and_root_pass() {
        for (uid, own, passes) in [(1000, 1000, true), (0, 1000, true), (0, 0, true), (1000, 0, false), (1001, 1000, false)] {
            assert_eq!(check_peer(uid, own).is_ok(), passes, "{uid} → {own}");
        }
    }
}
