//! Floors and arrows: which crate may know which, and that a crate is named after its folder.
//!
//! The tables here are the machine's copy of "The map" in `ARCHITECTURE.md`. Dev-dependencies are
//! no arrows: tests may lean on `testkit`.

use super::{File, Finding, crate_of};

/// Every crate of the house, with the crates of ours that it may depend on.
/// A new crate is a line here, a line on the map, and an ADR.
const ARROWS: [(&str, &[&str]); 17] = [
    // ground
    ("core", &[]),
    ("secret", &[]),
    // shops: touch the world, never see each other
    ("wal", &["core"]),
    ("blobs", &["core"]),
    ("canvas", &["core"]),
    ("executor", &["core"]),
    ("plugins", &["core"]),
    ("egress", &["core"]),
    ("router", &["core"]),
    ("security", &["core"]),
    // minds: decide, never touch the world directly
    ("agent", &["core"]),
    ("scheduler", &["core"]),
    // doors: the one sideways arrow is cli → api
    ("api", &["core"]),
    ("cli", &["core", "api"]),
    // beside
    ("testkit", &["core"]),
    ("sim", &["core", "wal", "scheduler", "executor", "testkit"]),
    // roof: knows everybody but testkit
    ("tinkerbell", ROOF),
];

const ROOF: &[&str] =
    &["core", "wal", "blobs", "canvas", "executor", "egress", "plugins", "router", "security", "agent", "scheduler", "api", "cli"];

/// The crate beside `core` that everybody but `core` may lean on: a value that must not be shown keeps
/// its type on its whole way.
const SECRET: &str = "secret";

/// A dependency as a manifest names it.
#[derive(Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Package name; renames are followed.
    pub package: String,
    /// Line in the manifest, from 1.
    pub line: usize,
}

/// Where people read the map.
const PAGE: &str = "ARCHITECTURE.md";

/// Checks names and arrows of all crates, and that the map for people names each of them.
pub fn check(files: &[File]) -> Vec<Finding> {
    let page = files.iter().find(|file| file.path == PAGE);
    let unnamed = |name: &str| page.is_some_and(|page| !page.text.contains(&format!("\n| `{name}` |")));
    let mut found = Vec::new();
    for (name, file) in manifests(files) {
        found.extend(check_manifest(name, file));
        if unnamed(name) {
            found.push(Finding::new("arrows", PAGE, 0, format!("the map has no row for crate `{name}`")));
        }
    }
    found
}

/// Returns folder name and manifest of every crate under `crates/`.
pub fn manifests(files: &[File]) -> impl Iterator<Item = (&str, &File)> {
    files.iter().filter_map(|file| {
        let name = crate_of(&file.path)?;
        (file.path == format!("crates/{name}/Cargo.toml")).then_some((name, file))
    })
}

fn check_manifest(name: &str, file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
        let message = format!("crate `{name}` is not on the map; add it to ARCHITECTURE.md and xtask/src/tidy/map.rs");
        return vec![Finding::new("arrows", &file.path, 0, message)];
    };
    let expected = if name == "tinkerbell" { name.to_owned() } else { format!("tinkerbell-{name}") };
    if package_name(&file.text).as_deref() != Some(expected.as_str()) {
        let message = format!("the package in folder `{name}` must be named `{expected}`");
        found.push(Finding::new("folder-is-name", &file.path, 0, message));
    }
    for dependency in dependencies(&file.text) {
        let Some(other) = own_crate(&dependency.package) else { continue };
        let is_ground = other == SECRET && name != "core";
        if !allowed.contains(&other) && !is_ground {
            let message = format!(
                "`{name}` may not depend on `{other}`: arrows point down, shops and minds know only `core`; \
                 move the shared type to `core`"
            );
            found.push(Finding::new("arrows", &file.path, dependency.line, message));
        }
    }
    found
}

fn own_crate(package: &str) -> Option<&str> {
    if package == "tinkerbell" { Some(package) } else { package.strip_prefix("tinkerbell-") }
}

fn package_name(manifest: &str) -> Option<String> {
    let table: toml::Table = manifest.parse().ok()?;
    Some(table.get("package")?.get("name")?.as_str()?.to_owned())
}

/// Lists what a crate is built from: dependencies and build-dependencies on all targets, not
/// dev-dependencies. A manifest that does not parse gives none; cargo reports it better.
pub fn dependencies(manifest: &str) -> Vec<Dependency> {
    let Ok(table) = manifest.parse::<toml::Table>() else { return Vec::new() };
    let mut found = Vec::new();
    collect(&table, manifest, &mut found);
    if let Some(targets) = table.get("target").and_then(toml::Value::as_table) {
        for target in targets.values().filter_map(toml::Value::as_table) {
            collect(target, manifest, &mut found);
        }
    }
    found
}

fn collect(table: &toml::Table, manifest: &str, found: &mut Vec<Dependency>) {
    for section in ["dependencies", "build-dependencies"] {
        let Some(list) = table.get(section).and_then(toml::Value::as_table) else { continue };
        for (key, value) in list {
            let package = value.get("package").and_then(toml::Value::as_str).unwrap_or(key);
            found.push(Dependency { package: package.to_owned(), line: line_of(manifest, key) });
        }
    }
}

fn line_of(manifest: &str, key: &str) -> usize {
    let starts = |line: &str| {
        let rest = line.trim_start().strip_prefix(key);
        rest.is_some_and(|rest| rest.starts_with([' ', '.', '=']))
    };
    manifest.lines().position(starts).map_or(0, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, lines};
    use super::{Dependency, check, dependencies};

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n{rest}")
    }

    #[test]
    fn arrows_point_down_only() {
        let ok = |folder: &str, name: &str, rest: &str| {
            let found = check(&[file(&format!("crates/{folder}/Cargo.toml"), &manifest(name, rest))]);
            assert!(found.is_empty(), "{found:?}");
        };
        ok("wal", "tinkerbell-wal", "[dependencies]\ntinkerbell-core.workspace = true\n");
        ok("cli", "tinkerbell-cli", "[dependencies]\ntinkerbell-api.workspace = true\n");
        ok("agent", "tinkerbell-agent", "[dev-dependencies]\ntinkerbell-testkit.workspace = true\n");
        ok("tinkerbell", "tinkerbell", "[dependencies]\ntinkerbell-wal.workspace = true\n");
        ok("router", "tinkerbell-router", "[dependencies]\ntinkerbell-secret.workspace = true\n");
    }

    #[test]
    fn wrong_arrows_are_found() {
        for (folder, arrow) in
            [("wal", "blobs"), ("agent", "router"), ("api", "scheduler"), ("core", "wal"), ("core", "secret"), ("tinkerbell", "testkit")]
        {
            let name = if folder == "tinkerbell" { folder.to_owned() } else { format!("tinkerbell-{folder}") };
            let text = manifest(&name, &format!("[dependencies]\ntinkerbell-{arrow} = {{ path = \"../{arrow}\" }}\n"));
            let path = format!("crates/{folder}/Cargo.toml");
            assert_eq!(lines(&check(&[file(&path, &text)])), [format!("{path}:4 arrows")]);
        }
    }

    #[test]
    fn crates_carry_the_name_of_their_folder_and_stand_on_the_map() {
        let found = check(&[file("crates/wal/Cargo.toml", &manifest("tinkerbell-log", ""))]);
        assert_eq!(lines(&found), ["crates/wal/Cargo.toml:0 folder-is-name"]);
        let found = check(&[file("crates/misc/Cargo.toml", &manifest("tinkerbell-misc", ""))]);
        assert_eq!(lines(&found), ["crates/misc/Cargo.toml:0 arrows"]);
    }

    #[test]
    fn the_map_for_people_names_every_crate() {
        let page = file("ARCHITECTURE.md", "| crate |\n| `wal` | journal |\n");
        let wal = file("crates/wal/Cargo.toml", &manifest("tinkerbell-wal", ""));
        let blobs = file("crates/blobs/Cargo.toml", &manifest("tinkerbell-blobs", ""));
        assert_eq!(lines(&check(&[page, wal, blobs])), ["ARCHITECTURE.md:0 arrows"]);
    }

    #[test]
    fn all_kinds_of_dependencies_are_read() {
        let text = "[dependencies]\na = \"1\"\nb = { package = \"real\", version = \"1\" }\n\
                    [build-dependencies]\nc.workspace = true\n[dev-dependencies]\nd = \"1\"\n\
                    [target.'cfg(unix)'.dependencies]\ne = \"1\"\n";
        let one = |package: &str, line| Dependency { package: package.to_owned(), line };
        assert_eq!(dependencies(text), [one("a", 2), one("real", 3), one("c", 5), one("e", 9)]);
    }
}
