//! Gathers the error pages into one table, so that `explain` works wherever the binary is alone.
//!
//! Reads `docs/errors` of the repository and nothing else. Invariant: the table is sorted by code.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let out = env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    let pages = root.join("../../docs/errors");
    println!("cargo::rerun-if-changed={}", pages.display());
    fs::write(out.join("pages.rs"), table(&pages)?)
}

fn table(pages: &Path) -> io::Result<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(pages)? {
        let path = entry?.path();
        let code = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if code.starts_with("TB-") && path.extension().is_some_and(|ext| ext == "md") {
            found.push((code, fs::read_to_string(&path)?));
        }
    }
    found.sort();
    let rows: String = found.iter().map(|(code, text)| format!("    ({code:?}, {text:?}),\n")).collect();
    Ok(format!("&[\n{rows}]\n"))
}
