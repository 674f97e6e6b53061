//! Spools hold no known secret, whatever a command prints and however it cuts it.

use crate::both;
use crate::house::*;
use std::path::{Path, PathBuf};
use tinkerbell_core::port::{Level, Sandbox};
use tinkerbell_secret::Secret;

const VALUE: &str = "canary/of+the\"keeper";

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn holds(path: &Path, text: &str) -> bool {
    std::fs::read(path).unwrap_or_default().windows(text.len()).any(|window| window == text.as_bytes())
}

both!(a_spool_holds_no_known_secret, house, {
    house.options.known.learn([("KEY".to_owned(), Secret::shared(VALUE))]);
    std::fs::write(house.tree().join("leak"), VALUE).unwrap();
    // Whole; sign by sign over both pipes; at the very end, without a line end; and half of it.
    let print = "cat leak; echo; cat leak >&2; echo >&2; base64 -w0 leak; echo; \
                 i=1; while [ $i -le 20 ]; do cut -b $i leak | tr -d '\\n'; i=$((i+1)); done; echo; printf 'canary/of'; sleep 0.05; echo .; \
                 printf 'x'; cat leak; printf 'canary/of'";
    let (output, ended) = house.run(1, print).await;
    assert_eq!(ended.code, Some(0));
    assert_eq!(output.matches("[secret KEY]").count(), 5, "{output}");
    assert!(output.contains("\ncanary/of.\n") && output.ends_with("x[secret KEY]canary/of"), "{output}");
    assert_eq!(ended.output_bytes, output.len() as u64, "bytes are counted as they are kept");
    for path in files(&house.options.runs_dir) {
        assert!(!holds(&path, VALUE) && !holds(&path, "Y2FuYXJ5L29mK3"), "{}", path.display());
    }
});

both!(a_prompt_is_not_held_back, house, {
    house.options.known.learn([("KEY".to_owned(), Secret::shared(VALUE))]);
    let unit = house.start(1, "printf 'name? '; read name; printf 'can you? '; read answer; echo $name $answer").await;
    line(unit.as_ref(), "name? ").await;
    unit.stdin(1, "me\n".into()).await.unwrap();
    line(unit.as_ref(), "can you? ").await;
    unit.stdin(2, "canary\n".into()).await.unwrap();
    end(unit.as_ref()).await;
    assert_eq!(text(unit.as_ref()).await, "name? can you? me canary\n");
});

both!(a_keeper_is_closed_to_others_and_dumps_no_core, house, {
    let unit = house.start(1, "echo begin; sleep 30").await;
    line(unit.as_ref(), "begin").await;
    let started = std::fs::read(house.options.runs_dir.join(house.spec(1, "").run.to_string()).join("started")).unwrap();
    let keeper = serde_json::from_slice::<tinkerbell_executor::format::Started>(&started).unwrap().keeper.pid;
    let limits = std::fs::read_to_string(format!("/proc/{keeper}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    if !rustix::process::geteuid().is_root() {
        assert!(std::fs::read(format!("/proc/{keeper}/environ")).is_err());
        assert!(std::fs::File::open(format!("/proc/{keeper}/mem")).is_err());
    }
    house.sandbox.stop(house.spec(1, "").run.task).await.unwrap();
});
