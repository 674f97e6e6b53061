//! The file tools on real directories.

use super::*;
use bytes::Bytes;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::{Attempt, EffectClass, Fence};
use tinkerbell_core::tool::{Sink, ToolContext, ToolStatus, output_name};
use tinkerbell_core::words::{BlobRef, Owner, TaskId, Workspace};

#[derive(Default)]
struct Blobs(Mutex<HashMap<BlobRef, Bytes>>);

impl BlobStore for Blobs {
    fn put(&self, _: Owner, content: Bytes) -> BoxFuture<'_, Result<BlobRef, Fault>> {
        let blob = BlobRef { key_id: 1, hash: *blake3::hash(&content).as_bytes(), size_bytes: content.len() as u64 };
        self.0.lock().unwrap().insert(blob, content);
        Box::pin(async move { Ok(blob) })
    }
    fn get(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>> {
        let found = self.0.lock().unwrap().get(&blob).cloned();
        Box::pin(async move { found.ok_or_else(|| Fault::new("TB-BLOBS-001", 1, "no such blob")) })
    }
    fn list(&self, _: Owner) -> BoxFuture<'_, Result<Vec<BlobRef>, Fault>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn forget(&self, _: Owner) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

/// A workspace with the tools over it.
struct Desk {
    dir: tempfile::TempDir,
    tools: Vec<Arc<dyn Tool>>,
    blobs: Arc<Blobs>,
    ctx: ToolContext,
    runtime: tokio::runtime::Runtime,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tree", "git", "outside"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let task = TaskId(7);
        let workspace = Workspace {
            task,
            repo: dir.path().join("repo"),
            tree: dir.path().join("tree"),
            git_dir: dir.path().join("git"),
            common_dir: dir.path().join("git"),
            branch: "refs/heads/tinkerbell/7".to_owned(),
            base: "0".repeat(40).parse().unwrap(),
        };
        let fence = Fence { epoch: 1, generation: 1 };
        let ctx = ToolContext {
            task,
            seq: 1,
            workspace,
            fence,
            attempt: Attempt::First,
            max_output_tokens: 10_000,
            env: Vec::new(),
            live: Sink::default(),
            limits: tinkerbell_core::port::Limits::default(),
            approved: None,
        };
        let blobs = Arc::new(Blobs::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { dir, tools: all(blobs.clone()), blobs, ctx, runtime }
    }

    fn tree(&self) -> &Path {
        &self.ctx.workspace.tree
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.tree().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn get(&self, path: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.tree().join(path)).unwrap()).into_owned()
    }

    fn outcome(&self, tool: &str, args: &serde_json::Value) -> ToolOutcome {
        let tool = self.tools.iter().find(|t| t.spec().name == tool).unwrap();
        self.runtime.block_on(tool.call(self.ctx.clone(), args.to_string())).unwrap()
    }

    /// Calls a tool; a failure's text gets a `!` in front.
    fn call(&self, tool: &str, args: serde_json::Value) -> String {
        let outcome = self.outcome(tool, &args);
        match outcome.status {
            ToolStatus::Done => outcome.text,
            _ => format!("!{}", outcome.text),
        }
    }

    fn read(&self, path: &str) -> String {
        self.call("read", serde_json::json!({"path": path}))
    }

    fn edit(&self, path: &str, old: &str, new: &str) -> String {
        self.call("edit", serde_json::json!({"path": path, "old": old, "new": new}))
    }

    fn patch(&self, body: &str) -> String {
        self.call("apply_patch", serde_json::json!({"patch": format!("*** Begin Patch\n{body}\n*** End Patch")}))
    }

    /// Everything that stands in the tree.
    fn names(&self) -> Vec<String> {
        let mut all: Vec<String> = ignore::WalkBuilder::new(self.tree())
            .standard_filters(false)
            .build()
            .map(|e| e.unwrap().path().strip_prefix(self.tree()).unwrap().to_string_lossy().into_owned())
            .filter(|p| !p.is_empty())
            .collect();
        all.sort();
        all
    }
}

/// All parts, separated by `|`, stand in the text.
#[track_caller]
fn has(text: &str, parts: &str) {
    parts.split('|').for_each(|p| assert!(text.contains(p), "{p:?} is not in: {text}"));
}

#[test]
fn specs_are_small_and_refuse_unknown_keys() {
    let desk = Desk::new();
    let names: Vec<&str> = desk.tools.iter().map(|t| t.spec().name).collect();
    assert_eq!(names, ["read", "search", "edit", "write", "apply_patch"]);
    for tool in &desk.tools {
        let spec = tool.spec();
        let limit = if spec.name == "apply_patch" { 1_400 } else { 900 };
        assert!(spec.description.len() + spec.schema.len() <= limit, "{} is too long", spec.name);
        let schema: serde_json::Value = serde_json::from_str(spec.schema).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        has(&desk.call(spec.name, serde_json::json!({"nonsense": 1})), "!|unknown argument `nonsense`; known: ");
    }
}

#[test]
fn plans_name_what_would_be_written() {
    let desk = Desk::new();
    let plan = |at: usize, args: serde_json::Value| desk.tools[at].plan(&args.to_string());
    assert_eq!(plan(0, serde_json::json!({"path": "a"})).class, EffectClass::Pure);
    assert_eq!(plan(2, serde_json::json!({"path": "./a//b", "old": "x", "new": "y"})).writes, ["a/b"]);
    let patch = "*** Begin Patch\n*** Update File: a\n*** Move to: b\n*** Delete File: c\n*** Add File: d\n+x\n*** End Patch";
    let got = plan(4, serde_json::json!({ "patch": patch }));
    assert_eq!((got.class, got.writes, got.deletes), (EffectClass::Verifiable, ["a", "b", "c", "d"].map(str::to_owned).to_vec(), 1));
    assert_eq!(plan(4, serde_json::json!({"patch": "nonsense"})).writes, Vec::<String>::new());
}

#[test]
fn read_numbers_lines_and_says_how_to_go_on() {
    let mut desk = Desk::new();
    desk.put("a.txt", "one\ntwo\nthree\n").put("crlf", "\u{feff}x\r\ny").put("empty", "").put("bin", b"a\0b").put("latin", b"caf\xe9\n");
    desk.put("long", format!("{}\n", "y".repeat(3_000))).put("many", "line\n".repeat(5_000)).put("d/e", "x").put("d/.git/config", "secret");
    has(&desk.read("a.txt"), "a.txt, hash |, lines 1–3 of 3\n1\tone\n2\ttwo\n3\tthree\n");
    let absolute = desk.tree().join("a.txt");
    has(&desk.read(absolute.to_str().unwrap()), "a.txt, hash |1\tone");
    has(
        &desk.call("read", serde_json::json!({"path": "a.txt", "start": 2, "lines": 1})),
        "lines 2–2 of 3\n2\ttwo\n… 1 more lines; go on with start=3",
    );
    has(&desk.call("read", serde_json::json!({"path": "a.txt", "start": 9})), "!|has only 3 lines; start is 9");
    has(&desk.read("crlf"), "CRLF line ends, byte order mark, no newline at the end|1\tx\n2\ty\n");
    has(&desk.read("empty"), "empty");
    has(&desk.read("bin"), "!bin is a binary file of 3 bytes");
    has(&desk.read("latin"), "not UTF-8 from byte 3|caf\u{fffd}");
    has(&desk.read("long"), "… [1000 more characters]");
    has(&desk.read("many"), "lines 1–2000 of 5000|go on with start=2001");
    has(&desk.read("d"), "d is a directory with 1 names:\ne");
    has(&desk.read("none"), "!none does not exist|search");
    desk.ctx.max_output_tokens = 100;
    let short = desk.read("many");
    has(&short, "go on with start=");
    assert!(short.len() < 460, "{}", short.len());
}

#[test]
fn kept_outputs_are_read_and_searched_by_name() {
    let desk = Desk::new();
    let blob = desk
        .runtime
        .block_on(desk.blobs.put(tinkerbell_testkit::contract::blobs::OWNER, Bytes::from_static(b"ok\nerror: x\n\xff\n")))
        .unwrap();
    let name = output_name(&blob);
    has(&desk.read(&name), "lines 1–3 of 3\n1\tok\n2\terror: x\n");
    has(&desk.call("search", serde_json::json!({"pattern": "^err", "path": name})), "1 match in 1 file\nblob:|2\terror: x");
    has(&desk.read("blob:xyz"), "!`blob:xyz` is no output name");
}

#[test]
fn nothing_outside_the_tree_is_reached() {
    let desk = Desk::new();
    let outside = desk.dir.path().join("outside");
    fs::write(outside.join("secret"), "secret\n").unwrap();
    desk.put("a", "text\n").put(".git", "gitdir: x\n").put("real/f", "inner\n");
    symlink(outside.join("secret"), desk.tree().join("link")).unwrap();
    symlink(&outside, desk.tree().join("dir")).unwrap();
    symlink("../outside", desk.tree().join("up")).unwrap();
    symlink(".git", desk.tree().join("innocent")).unwrap();
    symlink("real", desk.tree().join("inside")).unwrap();
    symlink("loop", desk.tree().join("loop")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, desk.tree().join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    for path in [
        "link",
        "dir/secret",
        "up/secret",
        "../outside/secret",
        "/etc/hostname",
        ".git",
        "innocent",
        "loop",
        "pipe",
        "a/b",
        "real/../../outside/secret",
    ] {
        let text = desk.read(path);
        assert!(text.starts_with('!') && !text.contains("secret\n"), "{path}: {text}");
        for text in [desk.edit(path, "secret", "x"), desk.call("write", serde_json::json!({"path": path, "content": "x"}))] {
            has(&text, "!nothing changed: ");
        }
        has(&desk.patch(&format!("*** Delete File: {path}")), "!nothing changed: ");
    }
    for path in ["dir/new", "up/new", "inside/new", "real/.git/new"] {
        has(&desk.call("write", serde_json::json!({"path": path, "content": "x"})), "!nothing changed: ");
    }
    // A link that stays inside is followed for reading, but edits use the target's own path.
    has(&desk.read("inside/f"), "inner");
    has(&desk.edit("inside/f", "inner", "x"), "!|symbolic link");
    let found = desk.call("search", serde_json::json!({"pattern": "secret|gitdir"}));
    has(&found, "no match");
    has(&desk.call("search", serde_json::json!({"pattern": "secret", "path": "dir"})), "!");
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn edits_keep_mode_line_ends_and_other_links() {
    let desk = Desk::new();
    desk.put("run.sh", "#!/bin/sh\r\necho one\r\nexit");
    fs::set_permissions(desk.tree().join("run.sh"), fs::Permissions::from_mode(0o751)).unwrap();
    let other = desk.dir.path().join("outside/hard");
    fs::hard_link(desk.tree().join("run.sh"), &other).unwrap();
    desk.read("run.sh");
    let text = desk.edit("run.sh", "echo one\nexit", "echo two\nexit");
    has(&text, "edited run.sh, hash |--- a/run.sh\n+++ b/run.sh|+echo two");
    assert_eq!(desk.get("run.sh"), "#!/bin/sh\r\necho two\r\nexit");
    assert_eq!(fs::metadata(desk.tree().join("run.sh")).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(fs::read_to_string(&other).unwrap(), "#!/bin/sh\r\necho one\r\nexit", "the other name of a hard link is not ours");
    has(&desk.patch("*** Update File: run.sh\n*** Move to: bin/go.sh\n@@\n-echo two\n+echo three"), "moved run.sh to bin/go.sh");
    assert_eq!(fs::metadata(desk.tree().join("bin/go.sh")).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(desk.names(), ["bin", "bin/go.sh"]);
}

#[test]
fn reads_come_before_edits() {
    let mut desk = Desk::new();
    desk.put("a", "one\ntwo\n");
    has(&desk.edit("a", "two", "2"), "!nothing changed: a was not read in this task. Your edit would do this; send it again|-two\n+2");
    has(&desk.edit("a", "two", "2"), "edited a");
    // The tool's own result counts as read; somebody else's change does not.
    has(&desk.edit("a", "2", "zwei"), "edited a");
    desk.put("a", "one\nzwei\nthree\n");
    has(&desk.edit("a", "zwei", "due"), "!nothing changed: a changed after you read it|+three");
    has(&desk.edit("a", "zwei", "due"), "edited a");
    assert_eq!(desk.get("a"), "one\ndue\nthree\n");
    // After a restart nothing is known: a unique match is enough.
    desk.tools = all(desk.blobs.clone());
    desk.ctx.fence.generation = 2;
    has(&desk.edit("a", "due", "2"), "edited a");
    desk.put("a", "changed\n");
    has(&desk.edit("a", "changed", "2"), "!changed after you read it".trim_start_matches('!'));
}

#[test]
fn whole_files_are_replaced_by_hash_only() {
    let desk = Desk::new();
    has(&desk.call("write", serde_json::json!({"path": "n/e/w", "content": "x\n"})), "created n/e/w, 1 lines, hash ");
    has(&desk.call("write", serde_json::json!({"path": "n/e/w", "content": "y\n"})), "!nothing changed: n/e/w exists|replaces");
    has(
        &desk.call("write", serde_json::json!({"path": "n/e/w", "content": "y\n", "replaces": "0123456789ab"})),
        "!|has hash |, not 0123456789ab",
    );
    let shown = desk.read("n/e/w");
    let hash = shown.split("hash ").nth(1).unwrap().split(',').next().unwrap();
    has(&desk.call("write", serde_json::json!({"path": "n/e/w", "content": "y\n", "replaces": hash})), "edited n/e/w|-x\n+y");
    has(
        &desk.call("write", serde_json::json!({"path": "z", "content": "y\n", "replaces": hash})),
        "!nothing changed: z does not exist; leave `replaces` out",
    );
    assert_eq!(desk.get("n/e/w"), "y\n");
}

#[test]
fn several_files_change_together_or_not_at_all() {
    let desk = Desk::new();
    desk.put("a", "one\n").put("b", "two\n").put("latin", b"caf\xe9\n");
    ["a", "b", "latin"].iter().for_each(|p| drop(desk.read(p)));
    has(&desk.patch("*** Update File: a\n@@\n-one\n+1\n*** Update File: b\n@@\n-zwei\n+2"), "!nothing changed: the hunk not found in b");
    has(&desk.patch("*** Update File: a\n@@\n-one\n+1\n*** Update File: latin\n@@\n-x\n+y"), "!|latin is not UTF-8");
    // This one fails only once the tree is being written: `a/x` can not stand below the file `a`.
    has(
        &desk.patch("*** Add File: new/deep/f\n+x\n*** Update File: b\n@@\n-two\n+2\n*** Add File: a/x\n+x"),
        "!nothing changed: a/x can not be written",
    );
    assert_eq!((desk.get("a"), desk.get("b")), ("one\n".to_owned(), "two\n".to_owned()));
    assert_eq!(desk.names(), ["a", "b", "latin"]);
    has(
        &desk.patch("*** Update File: a\n@@\n-one\n+1\n*** Delete File: latin\n*** Add File: c/d\n+x"),
        "edited a|deleted latin|created c/d",
    );
    assert_eq!((desk.get("a"), desk.get("c/d")), ("1\n".to_owned(), "x\n".to_owned()));
    assert_eq!(desk.names(), ["a", "b", "c", "c/d"]);
}

#[test]
fn a_change_between_reading_and_writing_is_not_overwritten() {
    use crate::edit::Change;
    let desk = Desk::new();
    desk.put("a", "one\n").put("b", "theirs\n").put("gone", "theirs\n");
    let tree = tree::Tree::open(desk.tree()).unwrap();
    let change = |path: &str, before: Option<&str>, after: Option<&str>| Change {
        path: path.to_owned(),
        before: before.map(|t| t.as_bytes().to_vec()),
        after: after.map(|t| t.as_bytes().to_vec()),
        moved_from: None,
        levels: Vec::new(),
    };
    let cases = [
        change("b", Some("two\n"), Some("2\n")),
        change("b", None, Some("2\n")),
        change("gone", Some("x\n"), None),
        change("never", Some("x\n"), Some("y\n")),
    ];
    for second in cases {
        let all = [change("a", Some("one\n"), Some("1\n")), change("x/y", None, Some("new\n")), second];
        let failure = commit::commit(&tree, &all, "t").unwrap_err();
        has(&failure.to_string(), "changed while it was being edited");
        assert_eq!((desk.get("a"), desk.get("b"), desk.get("gone")), ("one\n".to_owned(), "theirs\n".to_owned(), "theirs\n".to_owned()));
        assert_eq!(desk.names(), ["a", "b", "gone"]);
    }
}

#[test]
fn recovery_finds_out_what_was_done() {
    const BODY: &str = "*** Update File: a\n@@\n one\n+more\n*** Delete File: b\n*** Add File: c\n+x";
    let done = |desk: &Desk| {
        assert_eq!((desk.get("a"), desk.get("c")), ("one\nmore\n".to_owned(), "x\n".to_owned()));
        assert_eq!(desk.names(), ["a", "c"]);
    };
    let fresh = || {
        let mut desk = Desk::new();
        desk.put("a", "one\n").put("b", "two\n");
        desk.ctx.fence.generation = 2;
        desk
    };
    // Nothing had begun: done now. Then again: seen as done, though the hunk would match once more.
    let mut desk = fresh();
    desk.ctx.attempt = Attempt::Recover;
    has(&desk.patch(BODY), "edited a");
    done(&desk);
    has(&desk.patch(BODY), "done before the runtime was restarted:\na is as asked, hash |b is gone as asked");
    done(&desk);
    // Cut off after each rename: put together again from what lies there.
    for cut in 0..=3 {
        let mut desk = fresh();
        desk.patch(BODY);
        let partial = |n: usize| desk.tree().join(format!(".tinkerbell~partial-{}-1-{n}", desk.ctx.task.short(8)));
        let (a, b, c) = (desk.tree().join("a"), desk.tree().join("b"), desk.tree().join("c"));
        if cut < 1 {
            fs::write(&a, "one\n").unwrap();
            fs::write(partial(0), "one\nmore\n").unwrap();
        } else {
            fs::write(partial(0), "one\n").unwrap();
        }
        fs::write(if cut < 2 { b } else { partial(1) }, "two\n").unwrap();
        if cut < 3 {
            fs::rename(c, partial(2)).unwrap();
        }
        desk.ctx.attempt = Attempt::Recover;
        desk.tools = all(desk.blobs.clone());
        has(&desk.patch(BODY), if cut == 3 { "done before" } else { "edited a" });
        done(&desk);
    }
}

#[test]
fn search_groups_cuts_and_respects_gitignore() {
    let desk = Desk::new();
    desk.put(".gitignore", "target/\n*.log\n").put("src/a.rs", "fn main() {}\nlet x = main;\n").put("src/b.py", "main()\n");
    desk.put("target/out.rs", "fn main() {}\n").put("x.log", "main\n").put("bin", b"\0main\n").put(".github/ci.yml", "main: 1\n");
    let search = |args: serde_json::Value| desk.call("search", args);
    let all = search(serde_json::json!({"pattern": "main"}));
    assert_eq!(all, "4 matches in 3 files\n.github/ci.yml\n1\tmain: 1\nsrc/a.rs\n1\tfn main() {}\n2\tlet x = main;\nsrc/b.py\n1\tmain()\n");
    has(&search(serde_json::json!({"pattern": "main", "glob": "*.rs"})), "2 matches in 1 file\nsrc/a.rs");
    has(&search(serde_json::json!({"pattern": "main", "glob": "!*.rs"})), "2 matches in 2 files");
    has(&search(serde_json::json!({"pattern": "main", "path": "src"})), "3 matches in 2 files");
    has(&search(serde_json::json!({"pattern": "main", "path": "src/b.py"})), "1 match in 1 file");
    has(&search(serde_json::json!({"pattern": "main", "path": "target"})), "1 match in 1 file\ntarget/out.rs");
    has(
        &search(serde_json::json!({"pattern": "main("})),
        "`main(` is no regular expression (unclosed group at character 5); searched for it as plain text.\n2 matches",
    );
    has(&search(serde_json::json!({"pattern": "a[z"})), "(unclosed character class at character 2)");
    has(&search(serde_json::json!({"pattern": "*x"})), "(repetition operator missing expression at character 1)");
    has(&search(serde_json::json!({"pattern": "nowhere"})), "no match in ");
    has(&search(serde_json::json!({"pattern": "x", "path": "nope"})), "!nope does not exist");
    has(&search(serde_json::json!({"pattern": "a\nb"})), "!|single lines");
    has(&search(serde_json::json!({"pattern": ""})), "!|`pattern` is empty");
    has(&search(serde_json::json!({"pattern": "x", "glob": "a[z-"})), "!|is no glob");
    for n in 0..20 {
        desk.put(&format!("many/{n:02}"), "needle\n".repeat(30));
    }
    desk.put("wide", format!("{}needle{}\n", "a".repeat(500), "b".repeat(900)));
    let many = search(serde_json::json!({"pattern": "needle"}));
    has(&many, "601 matches in 21 files|… 10 more in this file|… 11 more files left out");
    has(&search(serde_json::json!({"pattern": "needle", "path": "wide"})), "1\t…aaa|needlebbb|b…");
}

/// A command can put a pipe, a device or a link in the place of an ignore file; reading it would wait for ever.
#[test]
fn search_reads_no_ignore_file_that_is_none_and_no_slow_pattern_stops_it() {
    let desk = Desk::new();
    let slow = "**/a/".repeat(40);
    let deep = "a/".repeat(50);
    desk.put("x.txt", "needle\n").put(".gitignore", format!("{slow}z\n")).put(&format!("{deep}y.txt"), "needle\n");
    for (dir, target) in [("zero", "/dev/zero"), ("out", "../../outside/patterns")] {
        desk.put(&format!("{dir}/f.txt"), "needle\n");
        symlink(target, desk.tree().join(dir).join(".gitignore")).unwrap();
    }
    desk.put("pipe/f.txt", "needle\n");
    let pipe = desk.tree().join("pipe/.gitignore");
    rustix::fs::mknodat(rustix::fs::CWD, pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
    fs::write(desk.dir.path().join("outside/patterns"), "*.txt\n").unwrap();
    has(&desk.call("search", serde_json::json!({"pattern": "needle"})), "5 matches in 5 files");
    has(&desk.call("search", serde_json::json!({"pattern": "needle", "path": "pipe"})), "1 match in 1 file");
}

/// What was approved is compared with the very bytes that are edited: somebody may change the file between the
/// runtime's own look and this call.
#[test]
fn an_approved_edit_is_made_of_the_bytes_that_were_approved() {
    let mut desk = Desk::new();
    // A task that was leased before: what it has read is not known, so an unread file is no refusal.
    desk.ctx.fence.generation = 2;
    let edit = serde_json::json!({"path": "a", "old": "one", "new": "1"});
    let patch = serde_json::json!({"patch": "*** Begin Patch\n*** Update File: a\n@@\n-one\n+1\n*** End Patch"});
    for (name, args) in [("edit", edit), ("apply_patch", patch)] {
        for attempt in [Attempt::First, Attempt::Recover] {
            desk.tools = all(desk.blobs.clone());
            desk.ctx = ToolContext { approved: None, attempt, seq: desk.ctx.seq + 1, ..desk.ctx.clone() };
            let approve = |desk: &Desk| {
                let tool = desk.tools.iter().find(|tool| tool.spec().name == name).unwrap();
                let bound = desk.runtime.block_on(tool.bind(&desk.ctx, &args.to_string())).unwrap();
                let said = vec![("action".to_owned(), name.to_owned())];
                let facts = said.into_iter().chain(bound.facts).collect();
                Some(tinkerbell_core::approval::Approved { facts, ..Default::default() })
            };
            for swapped in ["one\nevil\n", "evil\none\n", "one"] {
                desk.put("a", "one\n");
                desk.ctx.approved = approve(&desk);
                desk.put("a", swapped);
                has(&desk.call(name, args.clone()), "!|nothing changed: a changed after this edit was approved");
                assert_eq!(desk.get("a"), swapped, "{name}");
            }
            desk.put("a", "one\n");
            desk.ctx.approved = approve(&desk);
            assert!(!desk.call(name, args.clone()).starts_with('!'), "{name}");
            assert_eq!(desk.get("a"), "1\n");
        }
    }
}
