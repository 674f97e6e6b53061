//! What a target begins with: golden files and seeds, cut into inputs.
//!
//! Invariant: what earlier passes found stays, findings included.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

use crate::shell;

/// The directory of the target's inputs, with the files of the tree among them.
pub fn corpus(dir: &Path, name: &str, seeds: &[&str]) -> Result<PathBuf> {
    let corpus = dir.join("corpus").join(name);
    fs::create_dir_all(&corpus)?;
    let mut files = Vec::new();
    seeds.iter().try_for_each(|seed| gather(&shell::root().join(seed), &mut files))?;
    let read = |file: &PathBuf| Ok(pieces(file, fs::read(file).with_context(|| file.display().to_string())?));
    let inputs = files.iter().map(read).collect::<Result<Vec<_>>>()?;
    for (at, input) in inputs.concat().into_iter().enumerate() {
        fs::write(corpus.join(format!("golden-{at:03}")), input)?;
    }
    Ok(corpus)
}

fn gather(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut below = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    below.sort();
    below.iter().try_for_each(|path| gather(path, files))
}

/// What a file holds: itself, or one input for each line.
fn pieces(path: &Path, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines = || text.lines().map(|line| line.as_bytes().to_vec()).collect();
    match path.extension().and_then(|kind| kind.to_str()) {
        Some("txt") if path.ends_with("hosts.txt") => lines(),
        Some("txt") => text.lines().filter_map(hex).collect(),
        Some("jsonl") => lines(),
        _ => vec![bytes],
    }
}

/// The last word of a line, where it is hexadecimal.
fn hex(line: &str) -> Option<Vec<u8>> {
    let word = line.split_whitespace().next_back()?;
    (0..word.len()).step_by(2).map(|at| u8::from_str_radix(word.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_files_become_inputs() {
        assert_eq!(hex("17 submitted 08ff"), Some(vec![8, 255]));
        assert_eq!((hex(""), hex("1 xyz"), hex("1 080")), (None, None, None));
        assert_eq!(pieces(Path::new("a.txt"), b"1 a 01\nno\n".to_vec()), [[1]]);
        assert_eq!(pieces(Path::new("b/hosts.txt"), b"a.b\n".to_vec()), [b"a.b".to_vec()]);
        assert_eq!(pieces(Path::new("a.jsonl"), b"{}\n[]\n".to_vec()), [b"{}".to_vec(), b"[]".to_vec()]);
        assert_eq!(pieces(Path::new("a.wal"), b"x".to_vec()), [b"x".to_vec()]);
    }
}
