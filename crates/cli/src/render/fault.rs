//! Faults for people: code, what, what to do, page.
//!
//! Pure. Invariant: the last line names the page and the exit code.

use super::visible;
use crate::output::Tone;
use tinkerbell_core::code::Fault;

/// A fault as lines for stderr, without a final line feed.
#[must_use]
pub fn fault(fault: &Fault, has_color: bool) -> String {
    let head = Tone::Bad.paint(&format!("error[{}]", fault.code), has_color);
    let message = visible(&fault.message);
    let mut lines = vec![format!("{head}{}", Tone::Strong.paint(&format!(": {message}"), has_color))];
    lines.extend(fault.hints.iter().flat_map(|hint| visible(hint).lines().map(|line| format!("  {line}")).collect::<Vec<_>>()));
    let page = format!("tinkerbell explain {}", fault.code);
    lines.push(Tone::Dim.paint(&format!("  {page:<42} (exit code {})", fault.exit), has_color));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use tinkerbell_core::code::exit;

    #[test]
    fn a_fault_says_what_and_what_to_do() {
        let keyless = Fault::new("TB-ROUTER-001", exit::NO_AUTH, "no model provider is configured")
            .hint("fix one of:\n  export ANTHROPIC_API_KEY=…              use a hosted model")
            .hint("tinkerbell demo");
        expect![[r#"
            error[TB-ROUTER-001]: no model provider is configured
              fix one of:
                export ANTHROPIC_API_KEY=…              use a hosted model
              tinkerbell demo
              tinkerbell explain TB-ROUTER-001           (exit code 77)"#]]
        .assert_eq(&fault(&keyless, false));
        let painted = fault(&Fault::new("TB-CLI-001", 2, "bad \x1b[2J"), true);
        assert!(painted.starts_with("\x1b[1m\x1b[31merror[TB-CLI-001]\x1b[0m"), "{painted:?}");
        assert!(painted.contains("bad \\x1b[2J"));
    }
}
