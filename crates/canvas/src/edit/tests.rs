//! What the engine does to a file `a`, case by case.
//!
//! Each case says the file before, the edit, and either the file after or a part of the refusal.

use super::*;

/// Applies edits to the file `a` (and a directory `d`, a binary `b`, a file `c`).
fn outcome(before: &str, edits: Result<Vec<Edit>, Refusal>) -> Result<String, String> {
    let mut view = View::from([
        ("d".to_owned(), Entry::Directory),
        ("b".to_owned(), Entry::File(b"x\0y".to_vec())),
        ("l".to_owned(), Entry::File(b"caf\xe9\n".to_vec())),
        ("c".to_owned(), Entry::File(b"see\n".to_vec())),
        ("s".to_owned(), Entry::Other("a symbolic link to x".to_owned())),
    ]);
    if before != "<none>" {
        view.insert("a".to_owned(), Entry::File(before.as_bytes().to_vec()));
    }
    let changes = apply(&view, &edits.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let mut told = Vec::new();
    for c in changes {
        let mut line = match &c.after {
            Some(bytes) => format!("{}={}", c.path, String::from_utf8_lossy(bytes)),
            None => format!("{} gone", c.path),
        };
        if let Some(from) = &c.moved_from {
            line.push_str(&format!(" (from {from})"));
        }
        line.extend(c.levels.iter().filter_map(Level::note).map(|n| format!(" [{n}]")));
        told.push(line);
    }
    Ok(told.join("; "))
}

/// `want` is the whole outcome, or after `!` parts of the refusal, separated by `|`.
fn check(before: &str, edits: Result<Vec<Edit>, Refusal>, want: &str) {
    let got = outcome(before, edits.clone());
    match (want.strip_prefix('!'), got) {
        (None, Ok(got)) => assert_eq!(got, want, "{before:?} {edits:?}"),
        (Some(parts), Err(got)) => {
            assert!(got.starts_with("nothing changed: "), "{got}");
            assert!(got.len() < 9_000, "{} bytes", got.len());
            parts.split('|').for_each(|p| assert!(got.contains(p), "{p:?} is not in: {got}\n{edits:?}"));
        }
        (_, got) => panic!("{before:?} {edits:?}\n wanted {want}\n got {got:?}"),
    }
}

fn near(old: &str, new: &str, line: usize) -> Result<Vec<Edit>, Refusal> {
    Ok(vec![Edit::Replace { path: "a".to_owned(), old: old.to_owned(), new: new.to_owned(), near_line: (line > 0).then_some(line) }])
}

fn edit(old: &str, new: &str) -> Result<Vec<Edit>, Refusal> {
    near(old, new, 0)
}

fn write(path: &str, content: &str, over: bool) -> Result<Vec<Edit>, Refusal> {
    Ok(vec![Edit::Write { path: path.to_owned(), content: content.to_owned(), over }])
}

/// A patch without its first and last line.
fn patch(body: &str) -> Result<Vec<Edit>, Refusal> {
    parse(&format!("*** Begin Patch\n{body}\n*** End Patch\n"))
}

/// A patch of the file `a`.
fn hunks(body: &str) -> Result<Vec<Edit>, Refusal> {
    patch(&format!("*** Update File: a\n{body}"))
}

#[test]
fn replacements_match_once_or_are_refused() {
    check("one\ntwo\n", edit("two", "2"), "a=one\n2\n");
    check("one two one\n", edit("two ", ""), "a=one one\n");
    check("a\nb\nc\n", edit("a\nb\n", "x\n"), "a=x\nc\n");
    check("a\nb\nc\n", edit("b\n", ""), "a=a\nc\n");
    check("a\nb", edit("b", "c"), "a=a\nc");
    check("a\r\nb\r\nc\r\n", edit("a\nb", "x\ny\nz"), "a=x\r\ny\r\nz\r\nc\r\n");
    check("a\r\nb\r\n", edit("a\r\nb", "a\r\nB"), "a=a\r\nB\r\n");
    check("a\nb\r\nc\n", edit("b", "B"), "a=a\nB\r\nc\n");
    check("a\nb\r\nc\n", edit("b\nc", "b2\nc2"), "a=a\nb2\r\nc2\n");
    check("\u{feff}a\r\nb", edit("a", "A"), "a=\u{feff}A\r\nb");
    check("a\n", edit("a\n", "a\nb"), "a=a\nb");
    check("ä“ö”\n", edit("ö", "o"), "a=ä“o”\n");
    // the ladder
    check("a  \nb\nc\n", edit("a\nb", "a\nB"), "a=a  \nB\nc\n [matched but for spaces at line ends]");
    check("a\nb", edit("b\n", "c\n"), "a=a\nc");
}

#[test]
fn replacement_levels() {
    check(
        "f:\n    a()\n      b()\n",
        edit("a()\n  b()\n", "a()\n  c()\n"),
        "a=f:\n    a()\n      c()\n [matched with 4 spaces more indentation than sent]",
    );
    check("f:\n\ta\n\n\tb\n", edit("a\n\nb\n", "a\n\n\tc\n"), "a=f:\n\ta\n\n\t\tc\n [matched with tab more indentation than sent]");
    check("a\nb\n", edit("  a\n  b", "  a\n  c"), "a=a\nc\n [matched with 2 spaces less indentation than sent]");
    check("a\nb\n", edit("  a\n  b", "  a\nc"), "!too little indentation");
    check("say “hi” – now\n", edit("say \"hi\" - now", "say bye"), "a=say bye\n [matched but for typographic quotes, dashes or spaces]");
    check("a\u{a0}b\n", edit("a b", "c"), "a=c\n [matched but for typographic quotes, dashes or spaces]");
    check(
        "\tx = 1\n",
        edit("    x = 1\n    y", "z"),
        "!the old text not found in a|Closest: line 1; differs at line 1: tab where you sent 4 spaces|1\t\tx = 1",
    );
    check("    a\n  b\n", edit("a\nb", "c"), "!not found");
    check("  a\n  a\n", edit("\ta", "b"), "!not found|2 spaces where you sent tab");
}

#[test]
fn replacement_refusals_tell_the_next_move() {
    check("x\ny\nx\n", edit("x", "z"), "!the old text matches 2 times in a: lines 1, 3|near_line");
    check("aaa\n", edit("aa", "b"), "!matches 2 times");
    check(&"x\n".repeat(40), edit("x", "z"), "!40 times|1, 2, 3|…");
    check("x\ny\nx\n", near("x", "z", 3), "a=x\ny\nz\n");
    check("x\ny\nx\n", near("x", "z", 1), "a=z\ny\nx\n");
    check("x\ny\nx\n", near("x", "z", 2), "!matches 2 times");
    check("x \ny\nx \n", near("x\n", "z\n", 9), "a=x \ny\nz\n [matched but for spaces at line ends]");
    check(
        "fn a() {}\nfn b() {}\n",
        edit("fn c() {}", "x"),
        "!not found|Closest: line 1; differs at line 1: \"a() {}\" where you sent \"c() {}\"",
    );
    check("one\n", edit("quite different text", "x"), "!No line of it is there: you sent \"quite different text\"|1\tone");
    check(
        "int c;\nif (isspace(c)) {\n",
        edit("if (!isspace(c))", "x"),
        "!Closest: line 2; differs at line 2: \"isspace(c)) {\" where you sent \"!isspace(c))\"",
    );
    check("", edit("x", "y"), "!The file is empty");
    check("a\nb\n", edit("a\nb\nc\n", "x"), "!the file ends at line 2 where you sent \"c\"");
    check("a\n", edit("a", "a"), "!the same as the text");
    check("a\n", edit("", "b"), "!the old text is empty|write");
    check("a\n", edit("a", "b\n// ... rest of the code ...\n"), "!line 2|omission|full lines");
    check("a\n// ... existing code\n", edit("a", "b\n// ... existing code"), "a=b\n// ... existing code\n// ... existing code\n");
    check("<none>", edit("a", "b"), "!a does not exist|search");
    let other = |path: &str| Ok(vec![Edit::Replace { path: path.to_owned(), old: "x".to_owned(), new: "z".to_owned(), near_line: None }]);
    check("", other("b"), "!b is binary");
    check("", other("l"), "!l is not UTF-8 (from byte 3 on)");
    check("", other("d"), "!d is a directory");
    check("", other("s"), "!s is a symbolic link to x");
    let long = format!("{}\n", "y".repeat(5_000)).repeat(200);
    check(&long, edit(&format!("{}z", "y".repeat(5_000)), "q"), "!not found|…");
}

#[test]
fn whole_files_replace_only_what_is_named() {
    check("<none>", write("a", "x\n", false), "a=x\n");
    check("<none>", write("a", "", false), "a=");
    check("old\n", write("a", "x\n", false), "!a exists|edit");
    check("old\n", write("a", "x\n", true), "a=x\n");
    check("\u{feff}old\r\n", write("a", "x\ny\n", true), "a=\u{feff}x\r\ny\r\n");
    check("old\n", write("a", "old\n", true), "!the same");
    check("<none>", write("a", "x\n# ... existing code ...\n", false), "!omission");
    check("# ... existing code ...\n", write("a", "x\n# ... existing code ...\n", true), "a=x\n# ... existing code ...\n");
    check("", write("d", "x", true), "!d is a directory");
    check("", write("b", "x", true), "b=x");
}

#[test]
fn patches_find_their_places() {
    check("a\nb\nc\n", hunks("@@\n a\n-b\n+B\n c"), "a=a\nB\nc\n");
    check("a\nb\nc\n", hunks(" a\n-b\n+B"), "a=a\nB\nc\n");
    check("a\nb\nc", hunks("@@\n b\n-c\n+d"), "a=a\nb\nd");
    check("a\nb", hunks("@@\n b\n+c"), "a=a\nb\nc");
    check("a\r\nb \r\n", hunks("@@\n a\n b\n+c"), "a=a\r\nb \r\nc\r\n [matched but for spaces at line ends]");
    check("a\r\nb\r\n", hunks("@@\r\n-a\r\n+x\r"), "a=x\r\nb\r\n");
    check("1\n2\n3\n4\n5\n", hunks("@@\n-2\n+two\n@@\n-4\n+four"), "a=1\ntwo\n3\nfour\n5\n");
    check("1\n2\n3\n4\n5\n", hunks("@@\n-4\n+four\n@@\n-2\n+two"), "a=1\ntwo\n3\nfour\n5\n");
    check("x\ny\nx\n", hunks("@@\n y\n@@\n-x"), "!patch line|no line that begins with");
    check("x\ny\nx\n", hunks("@@\n-x\n+z"), "!the hunk matches 2 times in a: lines 1, 3");
    check("x\ny\nx\n", hunks("@@\n-y\n+Y\n@@\n-x\n+z"), "a=x\nY\nz\n");
    check("x\ny\nx\n", hunks("@@\n-x\n+z\n*** End of File"), "a=x\ny\nz\n");
    check("x\ny\n", hunks("@@\n+z\n*** End of File"), "a=x\ny\nz\n");
    check("x\ny\n", hunks("@@\n+z"), "a=x\ny\nz\n");
    check("", hunks("@@\n+z"), "a=z\n");
    check("a\n", hunks("@@\n-a"), "a=");
    check("a\n\nb\n", hunks("@@\n a\n\n-b\n+c\n\n"), "a=a\n\nc\n");
    check("f:\n    a\n    b\n", hunks("@@\n a\n-b\n+c"), "a=f:\n    a\n    c\n [matched with 4 spaces more indentation than sent]");
    check("a\nb\n", hunks("@@ -1,2 +1,2 @@\n a\n-b\n+c"), "a=a\nc\n");
    check("x\ny\nx\ny\n", hunks("@@ -3,1 +3,1 @@\n-x\n+z"), "a=x\ny\nz\ny\n");
}

#[test]
fn anchors_choose_among_matches() {
    let two = "fn a() {\n    x\n}\n\nfn b() {\n    x\n}\n";
    check(two, hunks("@@\n-    x\n+    y"), "!matches 2 times in a: lines 2, 6|@@");
    check(two, hunks("@@ fn b() {\n-    x\n+    y"), "a=fn a() {\n    x\n}\n\nfn b() {\n    y\n}\n");
    check(two, hunks("@@ fn a()\n-    x\n+    y"), "a=fn a() {\n    y\n}\n\nfn b() {\n    x\n}\n");
    check(two, hunks("@@ fn a() {\n+    first"), "a=fn a() {\n    first\n    x\n}\n\nfn b() {\n    x\n}\n");
    check(two, hunks("@@ fn c() {\n+    first"), "!Its anchor is not there");
    check(two, hunks("@@ fn c() {\n-    x\n+    y"), "!matches 2 times");
    check(two, hunks("@@ fn\n+    first"), "!matches 2 times in a: lines 1, 5");
    let nested = "class A:\n  def f:\n    x\n  def g:\n    x\nclass B:\n  def f:\n    x\n";
    check(
        nested,
        hunks("@@ class B:\n@@ def f:\n-    x\n+    y"),
        "a=class A:\n  def f:\n    x\n  def g:\n    x\nclass B:\n  def f:\n    y\n",
    );
    check(
        nested,
        hunks("@@ class A:\n@@ def f:\n-    x\n+    y"),
        "a=class A:\n  def f:\n    y\n  def g:\n    x\nclass B:\n  def f:\n    x\n",
    );
    check(nested, hunks("@@ class A:\n-    x\n+    y"), "!matches 2 times in a: lines 3, 5");
    check(nested, hunks("@@ def f:\n-    x\n+    y"), "!matches 2 times in a: lines 3, 8");
}

#[test]
fn patches_are_all_or_nothing() {
    check("a\n", patch("*** Update File: a\n@@\n-a\n+b\n*** Update File: c\n@@\n-sea\n+see"), "!hunk not found in c");
    check("a\n", patch("*** Update File: a\n@@\n-a\n+b\n*** Update File: c\n@@\n-see\n+saw"), "a=b\n; c=saw\n");
    check("a\n", patch("*** Add File: n/x\n+1\n+\n+2\n*** Delete File: c"), "c gone; n/x=1\n\n2\n");
    check("a\n", patch("*** Add File: c\n+1"), "!c exists|Update File");
    check("a\n", patch("*** Delete File: c\n*** Add File: c\n+1"), "c=1\n");
    check("a\n", patch("*** Add File: n\n+1\n*** Update File: n\n@@\n-1\n+2"), "n=2\n");
    check("a\n", patch("*** Update File: a\n@@\n-a\n+b\n*** Update File: a\n@@\n-b\n+c"), "a=c\n");
    check("a\n", patch("*** Update File: a\n*** Move to: z"), "a gone; z=a\n (from a)");
    check("a\n", patch("*** Update File: a\n*** Move to: z\n@@\n-a\n+b"), "a gone; z=b\n (from a)");
    check("a\n", patch("*** Update File: a\n*** Move to: c\n@@\n-a\n+b"), "!c exists|free");
    check("a\n", patch("*** Update File: a\n*** Move to: a\n@@\n-a\n+b"), "a=b\n");
    check("a\n", patch("*** Delete File: z"), "!z does not exist");
    check("a\n", patch("*** Delete File: d"), "!d is a directory");
    check("a\n", patch("*** Delete File: b"), "b gone");
    check("a\n", patch("*** Update File: z\n@@\n-a\n+b"), "!z does not exist|Add File");
    check("a\nb\n", hunks("@@\n-a\n+a"), "!the same");
    check("a\nb\nc\n", hunks("@@\n-a\n+x\n@@\n-zz\n+y"), "!hunk 2 of 2 not found in a");
    check("a\n", hunks("@@\n-a\n+// ... rest of the code ..."), "!omission");
}

#[test]
fn malformed_patches_name_the_line() {
    check("a\n", parse(""), "!patch line 1: a patch starts with `*** Begin Patch`");
    check("a\n", parse("--- a/a\n+++ b/a\n@@ -1 +1 @@\n-a\n+b\n"), "!patch line 1|unified diffs");
    check("a\n", parse("*** Begin Patch\n*** Update File: a\n@@\n-a\n+b\n"), "!ends without `*** End Patch`|cut off");
    check("a\n", parse("*** Update File: a\n@@\n-a\n+b\n*** End Patch"), "a=b\n");
    check("a\n", parse("```diff\n*** Begin Patch\n*** Update File: a\n@@\n-a\n+b\n*** End Patch\n```\n"), "a=b\n");
    check("a\n", parse("apply_patch <<'EOF'\n*** Begin Patch\n*** Update File: a\n@@\n-a\n+b\n*** End Patch\nEOF\n"), "a=b\n");
    check("a\n", parse("*** Begin Patch\n*** End Patch\n"), "!no file in it");
    check("a\n", parse("*** Begin Patch\n*** End Patch\nx"), "!text after");
    check("a\n", hunks("@@\n-a\nb"), "!patch line 5: \"b\" must begin with");
    check("a\n", patch("*** Update File:\n@@\n-a"), "!patch line 2: the path is missing");
    check("a\n", patch("*** Update File: a"), "!patch line 2: the file has no hunk");
    check("a\n", patch("*** Add File: n\nx"), "!patch line 3: each line of an added file begins with `+`");
    check("a\n", patch("hello"), "!patch line 2: \"hello\" is not expected");
    check("a\n", hunks("@@\n a"), "!no line that begins with `-` or `+`");
    check("a\nb\n", hunks("@@\n-a\n*** End of File\n-b"), "!a further hunk begins with `@@`");
}
