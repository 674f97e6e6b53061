//! Files that a command changes through memory, where no time of the file tells of it.

use crate::house::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use tinkerbell_core::port::{Canvas, Kept};

/// Maps each file named and dirties its first page; then writes through the dirty page on each line that it reads.
const WRITER: &str = "
import mmap, sys
files = [open(name, 'r+b') for name in sys.argv[1:]]
maps = [mmap.mmap(file.fileno(), 0) for file in files]
for m in maps: m[0:1] = m[0:1]
print('dirty', flush=True)
for line in sys.stdin:
    for m in maps: m[0:4] = line.strip().encode()
    print('written', flush=True)
";

#[test]
fn what_is_written_through_a_page_that_was_changed_already_is_seen() {
    let house = House::new();
    house.write("a.txt", "good lines\n");
    house.write("sub/AGENTS.md", "good rules\n");
    house.commit_all("start");
    let opened = house.open();
    let tree_dir = &opened.workspace.tree;
    let mut command = Command::new("python3");
    command.args(["-c", WRITER, "a.txt", "sub/AGENTS.md"]).current_dir(tree_dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("skipped: there is no python3");
        return;
    };
    let (mut say, mut hear) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
    assert_eq!(hear.next().unwrap().unwrap(), "dirty");
    // Remembered with the time of that change, as far as they may be.
    let times = |name: &str| std::fs::metadata(tree_dir.join(name)).unwrap().modified().unwrap();
    let (before, first) = (times("a.txt"), house.take(&opened));
    let seen = |from: &_, to: &_| {
        let difference = wait(house.canvas.diff(opened.workspace.clone(), Clone::clone(from), Clone::clone(to), true)).unwrap();
        difference.files.iter().map(|change| change.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(seen(&opened.checkpoint, &first), Vec::<String>::new());
    say.write_all(b"EVIL\n").unwrap();
    assert_eq!(hear.next().unwrap().unwrap(), "written");
    assert_eq!(times("a.txt"), before, "the file's time tells nothing");
    let taken = wait(house.canvas.checkpoint(opened.workspace.clone(), Some(Kept::from(first.clone())))).unwrap();
    assert_eq!(taken.restored, ["sub/AGENTS.md"]);
    assert_eq!(seen(&first, &taken.id), ["a.txt"]);
    drop(say);
    child.wait().unwrap();
}
