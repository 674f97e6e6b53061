//! What happens when a defect of ours panics: a short message, a report file, exit code 70.
//!
//! The report holds the panic and the version, never the environment, nor a known secret. Invariant: the hook itself
//! does not panic.

use std::borrow::Cow;
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use tinkerbell_core::code::exit;
use tinkerbell_secret::Known;

/// What must not stand in a report; the hook is a global thing, and so is this.
static KNOWN: OnceLock<Arc<Known>> = OnceLock::new();

/// Takes known secrets out of reports from now on.
pub fn know(known: Arc<Known>) {
    // The first one stays: a process has one.
    let _first_one_stays = KNOWN.set(known).is_err();
}

/// Replaces the standard hook.
pub fn install() {
    std::panic::set_hook(Box::new(|info| {
        let report = report(info);
        let path = std::env::temp_dir().join(format!("tinkerbell-panic-{}.txt", std::process::id()));
        let kept = std::fs::write(&path, &report).is_ok();
        let place = if kept { path.display().to_string() } else { "(it could not be written)".to_owned() };
        // Nothing can be done about a closed stderr in a panic.
        writeln!(std::io::stderr(), "error[TB-BUG-001]: a defect of tinkerbell\n{report}  report: {place}\n  tasks are safe: they continue when a daemon starts again").ok();
        // Worker threads of a runtime catch panics of tasks; the process goes on without that task
        // only where no invariant can be torn, which we can not know here.
        std::process::exit(i32::from(exit::INTERNAL));
    }));
}

fn report(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("no text");
    let text = KNOWN.get().map_or(Cow::Borrowed(text), |known| known.redact_leaving(text));
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    format!("  tinkerbell {} on {} {}\n  {text}\n  at {place}\n", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH)
}
