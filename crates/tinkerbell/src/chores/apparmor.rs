//! `sandbox apparmor`: the profile with which this program may make user namespaces.
//!
//! Hosts with `kernel.apparmor_restrict_unprivileged_userns=1` (Ubuntu since 23.10) let only programs with
//! a profile of their own have capabilities in new user namespaces. The profile allows that and confines
//! nothing. Invariant: it names paths exactly, so that no other program gains anything by it.

use std::path::Path;
use tinkerbell_cli::Output;
use tinkerbell_core::code::{Fault, exit};

/// The one line that puts the profile of this very program in place.
pub const INSTALL: &str =
    "tinkerbell sandbox apparmor | sudo tee /etc/apparmor.d/tinkerbell >/dev/null && sudo apparmor_parser -r /etc/apparmor.d/tinkerbell";

/// Prints the profile for the binary that runs, and how to install it.
///
/// # Errors
/// `TB-LIMIT-001` when the binary has no path that a profile can name.
pub fn show(out: &Output) -> Result<u8, Fault> {
    let exe = std::env::current_exe().and_then(|exe| exe.canonicalize());
    let fault = |why: String| Fault::new("TB-LIMIT-001", exit::FAILED, format!("no AppArmor profile can be written: {why}"));
    let exe = exe.map_err(|error| fault(error.to_string()))?;
    let text = profile(&exe).ok_or_else(|| fault("the path of this program is no plain text".to_owned()))?;
    out.data(text.trim_end());
    out.talk(&format!("to install it:\n  {INSTALL}\nthen `tinkerbell doctor` shows whether level full works"));
    Ok(exit::DONE)
}

/// The profile for the program at a path; `None` for a path that it can not name.
#[must_use]
pub fn profile(path: &Path) -> Option<String> {
    let attached = literal(path)?;
    Some(format!(
        "# Lets Tinkerbell make the user namespaces of its sandbox, where the host allows that by profile only.\n\
         # It confines nothing: commands are fenced by the sandbox itself.\n\
         abi <abi/4.0>,\n\
         include <tunables/global>\n\n\
         profile tinkerbell \"{attached}\" flags=(unconfined) {{\n  userns,\n\n  include if exists <local/tinkerbell>\n}}\n"
    ))
}

/// The path as a profile spells it: signs of patterns stand for themselves.
fn literal(path: &Path) -> Option<String> {
    let text = path.to_str().filter(|text| path.is_absolute() && !text.chars().any(char::is_control))?;
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        if "\\\"*?[]{}^,@#".contains(sign) {
            out.push('\\');
        }
        out.push(sign);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packaged_profile_is_what_is_printed() {
        let packaged = include_str!("../../../../packaging/apparmor/tinkerbell");
        assert_eq!(profile(Path::new("/usr/bin/tinkerbell")).unwrap(), packaged);
        assert!(packaged.contains("  userns,\n") && packaged.contains("profile tinkerbell \"/usr/bin/tinkerbell\""));
    }

    #[test]
    fn a_path_names_itself_and_nothing_else() {
        let of = |path: &str| profile(Path::new(path));
        assert!(of("/opt/a b/t*{x}").unwrap().contains("\"/opt/a b/t\\*\\{x\\}\" flags"));
        assert_eq!((of("relative"), of("/new\nline"), of("")), (None, None, None));
    }

    /// The parser of this host takes it, where there is one that knows user namespaces.
    #[test]
    fn the_parser_takes_the_profile() {
        if !std::path::Path::new("/etc/apparmor.d/abi/4.0").exists() {
            eprintln!("skipped: there is no AppArmor 4, the first with rules for user namespaces");
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), profile(Path::new("/opt/a b/t[1]")).unwrap()).unwrap();
        match std::process::Command::new("apparmor_parser").args(["--skip-kernel-load", "--skip-cache"]).arg(file.path()).output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("skipped: there is no apparmor_parser ({error})"),
        }
    }
}
