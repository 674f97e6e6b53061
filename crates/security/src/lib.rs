//! Who may do what: peer identity, the policy table, approvals, redaction.
