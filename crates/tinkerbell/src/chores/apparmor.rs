//! `sandbox apparmor`: the profile with which this program may make user namespaces, and how it is put in force.
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

/// Where packages put the profile, and [`INSTALL`] does.
const PLACE: &str = "/etc/apparmor.d/tinkerbell";
/// What switches that profile off: `aa-disable`, and packages on hosts whose AppArmor can not read it.
const OFF: &str = "/etc/apparmor.d/disable/tinkerbell";
/// Under which profile this very process runs.
const HELD: [&str; 2] = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];

/// Reads a file of the host; `None` where it is not there.
pub type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Whether this process was started under the profile.
pub fn is_held(read: Read<'_>) -> bool {
    let told = HELD.iter().find_map(|name| read(name)).unwrap_or_default();
    told.trim_end_matches(['\0', '\n']).split(" (").next() == Some("tinkerbell")
}

/// The line to type that puts the profile of the program at `exe` in force on this host.
pub fn remedy(read: Read<'_>, exe: &Path) -> String {
    let load = format!("sudo apparmor_parser -r -T -W {PLACE}");
    let attached = literal(exe).map(|path| format!("profile tinkerbell \"{path}\" "));
    match (read(PLACE), attached) {
        (Some(text), Some(attached)) if text.contains(&attached) && read(OFF).is_some() => format!("sudo rm {OFF} && {load}"),
        (Some(text), Some(attached)) if text.contains(&attached) => load,
        (Some(_), _) => format!("{INSTALL}  # in place of the profile there, which is another program's"),
        (None, _) => INSTALL.to_owned(),
    }
}

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

    #[test]
    fn the_way_to_the_profile_begins_with_what_is_there() {
        let packaged = profile(Path::new("/usr/bin/tinkerbell")).unwrap();
        let load = "sudo apparmor_parser -r -T -W /etc/apparmor.d/tinkerbell";
        for (exe, has_file, is_off, way) in [
            ("/usr/bin/tinkerbell", false, false, INSTALL.to_owned()),
            ("/usr/bin/tinkerbell", true, false, load.to_owned()),
            ("/usr/bin/tinkerbell", true, true, format!("sudo rm /etc/apparmor.d/disable/tinkerbell && {load}")),
            ("/opt/tinkerbell", true, false, format!("{INSTALL}  # in place of the profile there, which is another program's")),
            ("/opt/tinkerbell", false, false, INSTALL.to_owned()),
        ] {
            let read = |name: &str| match name {
                PLACE => has_file.then(|| packaged.clone()),
                OFF => is_off.then(String::new),
                _ => None,
            };
            assert_eq!(remedy(&read, Path::new(exe)), way, "{exe} {has_file} {is_off}");
        }
    }

    #[test]
    fn a_process_knows_whether_the_profile_holds_it() {
        for (text, held) in [
            ("tinkerbell (unconfined)\n", true),
            ("tinkerbell (enforce)\n", true),
            ("tinkerbell\0", true),
            ("tinkerbell//child (unconfined)", false),
            ("tinkerbells (unconfined)", false),
            ("unconfined\n", false),
        ] {
            for place in HELD {
                assert_eq!(is_held(&|name: &str| (name == place).then(|| text.to_owned())), held, "{text} {place}");
            }
        }
        assert!(!is_held(&|_: &str| None));
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
