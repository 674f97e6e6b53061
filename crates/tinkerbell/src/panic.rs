//! What happens when a defect of ours panics: a short message, a report file, exit code 70.
//!
//! The report holds the panic and the version, never the environment, nor a known secret. It is a new file that
//! only its owner may read: in our own directory where that is known, else in that for temporary files, which
//! others may write to. Invariant: the hook itself does not panic, and follows no link that somebody laid.

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tinkerbell_core::code::exit;
use tinkerbell_secret::Known;

/// What must not stand in a report; the hook is a global thing, and so is this.
static KNOWN: OnceLock<Arc<Known>> = OnceLock::new();

/// Where reports go; as above.
static PLACE: OnceLock<PathBuf> = OnceLock::new();

/// Most reports of one process number that are kept.
const MOST_REPORTS: u32 = 100;

/// Takes known secrets out of reports from now on, and puts reports into this directory.
pub fn know(known: Arc<Known>, place: &Path) {
    // The first one stays: a process has one.
    let _first_one_stays = KNOWN.set(known).is_err() || PLACE.set(place.to_owned()).is_err();
}

/// Replaces the standard hook.
pub fn install() {
    std::panic::set_hook(Box::new(|info| {
        let report = report(info);
        let kept = PLACE.get().and_then(|place| keep(place, &report)).or_else(|| keep(&std::env::temp_dir(), &report));
        let place = kept.map_or_else(|| "(it could not be written)".to_owned(), |path| path.display().to_string());
        // Nothing can be done about a closed stderr in a panic.
        writeln!(std::io::stderr(), "error[TB-BUG-001]: a defect of tinkerbell\n{report}  report: {place}\n  tasks are safe: they continue when a daemon starts again").ok();
        // Worker threads of a runtime catch panics of tasks; the process goes on without that task
        // only where no invariant can be torn, which we can not know here.
        std::process::exit(i32::from(exit::INTERNAL));
    }));
}

/// Writes a report into a file that was not there before. A name that is taken, also by a link, is left alone.
fn keep(dir: &Path, report: &str) -> Option<PathBuf> {
    let names = (0..MOST_REPORTS).map(|number| format!("tinkerbell-panic-{}-{number}.txt", std::process::id()));
    for path in names.map(|name| dir.join(name)) {
        let opened = File::options().write(true).create_new(true).mode(0o600).open(&path);
        match opened {
            Ok(mut file) => return file.write_all(report.as_bytes()).ok().map(|()| path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(_) => return None,
        }
    }
    None
}

fn report(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("no text");
    let text = KNOWN.get().map_or(Cow::Borrowed(text), |known| known.redact_leaving(text));
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    format!("  tinkerbell {} on {} {}\n  {text}\n  at {place}\n", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_report_is_a_new_file_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let name = |number: u32| dir.path().join(format!("tinkerbell-panic-{}-{number}.txt", std::process::id()));
        let (victim, missing) = (dir.path().join("victim"), dir.path().join("missing"));
        std::fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, name(0)).unwrap();
        std::os::unix::fs::symlink(&missing, name(1)).unwrap();
        assert_eq!(keep(dir.path(), "text"), Some(name(2)));
        assert_eq!((std::fs::read_to_string(&victim).unwrap().as_str(), missing.exists()), ("mine", false));
        assert_eq!(std::fs::metadata(name(2)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(keep(&missing, "text"), None);
    }
}
