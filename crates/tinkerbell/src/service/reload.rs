//! Reading the configuration again when its files change.
//!
//! Directories are watched, not files, because editors replace files by renaming. Invariant: whatever
//! happens to the watch, the files are still read at each submission and on SIGHUP.

use super::Manager;
use crate::config::Sources;
use crate::wire::House;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A change is read once nothing has changed for this long; an editor makes several of one.
const QUIET: Duration = Duration::from_millis(150);
/// Who never stops changing files is read after so many of them.
const MOST: u32 = 20;

/// Reads the configuration again, and tells the service manager.
pub fn reload(house: &House, manager: Manager, line: &str) {
    manager.reloading();
    // A mistake was logged, and shows in the status.
    let _rejected = house.reload().is_err();
    manager.ready(line);
}

/// Follows the directories of the configuration for as long as it is polled.
pub async fn follow(house: Arc<House>, manager: Manager, line: impl Fn() -> String) {
    let (told, mut changes) = mpsc::channel(1);
    let mut changed = false;
    loop {
        // Held over the wait: dropping it ends the watch. It is made anew after each change, because
        // a directory may have come that was not there before.
        let watcher = match watch(house.live.sources(), told.clone()) {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::warn!(%error, "the configuration's directories can not be watched; SIGHUP reads the files again");
                return;
            }
        };
        // Only now: what changed before there was a watch, at the start too, is read here, and what
        // changes from here on is heard.
        if changed {
            reload(&house, manager, &line());
        } else {
            let _rejected = house.reload().is_err();
        }
        if changes.recv().await.is_none() {
            return;
        }
        for _ in 0..MOST {
            if tokio::time::timeout(QUIET, changes.recv()).await.is_err() {
                break;
            }
        }
        changed = true;
        drop(watcher);
    }
}

fn watch(sources: &Sources, told: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let dirs: Vec<PathBuf> = [sources.user.parent().map(Path::to_owned), Some(sources.system.clone()), Some(sources.system.join("conf.d"))]
        .into_iter()
        .flatten()
        .collect();
    let there: BTreeSet<PathBuf> = dirs.iter().filter_map(|dir| dir.ancestors().find(|dir| dir.is_dir()).map(Path::to_owned)).collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| concerns(&event, &dirs)) {
            // One word that is not heard yet says all that a second would.
            let _full = told.try_send(()).is_err();
        }
    })?;
    for dir in there {
        watcher.watch(&dir, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Whether a file of the configuration changed, or a directory on the way to one. Reading is no change.
fn concerns(event: &Event, dirs: &[PathBuf]) -> bool {
    let is_file = |path: &Path| path.extension().is_some_and(|ending| ending == "toml");
    let is_on_the_way = |path: &Path| dirs.iter().any(|dir| dir.starts_with(path));
    !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(|path| is_file(path) || is_on_the_way(path))
}
