//! Control groups of one command: the kernel's own counting and walls, where this host lets us make them.
//!
//! Version 2 with delegated controllers, version 1 where its trees are writable, or a version 2 group
//! without controllers, which still counts CPU time and ends all at once. Invariant: a group is used
//! only after the kernel took every value that was written; what it did not take is left to the watch.

use std::path::{Path, PathBuf};
use tinkerbell_core::port::Limits;

/// Tasks of our own stages in a command's groups: `__enter`, `__init` and its thread, one to spare.
pub const STAGES: u64 = 4;
/// What version 1 calls no limit, and everything near it.
const ENDLESS: u64 = 1 << 60;

/// The groups of one command.
#[derive(Debug, Default)]
pub struct Groups {
    /// The version 2 group, with or without controllers.
    pub unified: Option<PathBuf>,
    /// Groups of version 1.
    pub others: Vec<PathBuf>,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
}

/// One mounted tree of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tree {
    /// `""` for version 2, else the controllers of version 1.
    controllers: Vec<String>,
    /// Our own group in it.
    own: PathBuf,
}

/// Trees that this process stands in, of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn trees(mountinfo: &str, cgroup: &str) -> Vec<Tree> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
        let own = |is_ours: &dyn Fn(&str) -> bool| {
            let path = cgroup.lines().find_map(|line| {
                let (names, path) = line.split_once(':')?.1.split_once(':')?;
                is_ours(names).then_some(path)
            })?;
            // In a container the mount may begin at our own group already.
            let path = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
            Some(Path::new(point).join(path.trim_start_matches('/')))
        };
        let tree = match kind {
            "cgroup2" => own(&|names| names.is_empty()).map(|own| Tree { controllers: Vec::new(), own }),
            "cgroup" => {
                let controllers: Vec<String> =
                    options.split(',').filter(|word| matches!(*word, "memory" | "pids" | "cpuacct")).map(str::to_owned).collect();
                let first = controllers.first().cloned();
                first.and_then(|first| own(&|names| names.split(',').any(|name| name == first))).map(|own| Tree { controllers, own })
            }
            _ => None,
        };
        found.extend(tree);
    }
    found
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// The number behind a word, in files of `word number` lines.
fn field(path: &Path, word: &str) -> Option<u64> {
    read(path)?.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Where a version 2 group may be made so that it gets controllers: beside the daemon's own group when
/// the service manager put it below the one that it delegated, else below its own.
fn parent(own: &Path) -> PathBuf {
    let above = own.parent().filter(|_| own.ends_with("daemon"));
    above.filter(|above| is_writable(&above.join("cgroup.subtree_control"))).unwrap_or(own).to_owned()
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

impl Groups {
    /// Makes what this host allows, with the limits written.
    #[must_use]
    pub fn make(run: &str, limits: &Limits) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut groups = Self::default();
        let mut trees = trees(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        // Version 2 first: what it keeps needs no group of version 1.
        trees.sort_by_key(|tree| tree.controllers.len().min(1));
        for tree in trees {
            // Two daemons with data of their own may name a run alike; their keepers differ.
            let name = format!("tinkerbell-{run}-{}", std::process::id());
            if tree.controllers.is_empty() {
                groups.make_unified(&parent(&tree.own).join(name), limits);
            } else {
                groups.make_other(&tree.own.join(name), &tree.controllers, limits);
            }
        }
        groups
    }

    fn make_unified(&mut self, dir: &Path, limits: &Limits) {
        if let Some(parent) = dir.parent() {
            let given = read(&parent.join("cgroup.subtree_control")).unwrap_or_default();
            // Each write takes the kernel's lock over all groups, also one that changes nothing.
            for controller in ["memory", "pids"].into_iter().filter(|name| !given.split_whitespace().any(|word| word == *name)) {
                // Refused where the group is not delegated or holds processes itself: then without.
                std::fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}")).ok();
            }
        }
        if std::fs::create_dir(dir).is_err() {
            return;
        }
        if !dir.join("cgroup.kill").exists() {
            drop(std::fs::remove_dir(dir));
            return;
        }
        self.unified = Some(dir.to_owned());
        self.cpu = dir.join("cpu.stat").exists().then(|| dir.to_owned());
        let put = |name: &str, value: &str| std::fs::write(dir.join(name), value).is_ok();
        if let Some(bytes) = limits.memory_bytes.filter(|bytes| put("memory.max", &bytes.to_string())) {
            put("memory.swap.max", "0");
            put("memory.oom.group", "1");
            self.memory = (number(&dir.join("memory.max")).is_some_and(|max| max <= bytes)).then(|| dir.to_owned());
        }
        if limits.processes.is_some_and(|most| put("pids.max", &most.saturating_add(STAGES).to_string())) {
            self.pids = Some(dir.to_owned());
        }
    }

    fn make_other(&mut self, dir: &Path, controllers: &[String], limits: &Limits) {
        let has = |name: &str| controllers.iter().any(|controller| controller == name);
        let wanted = (has("memory") && limits.memory_bytes.is_some() && self.memory.is_none())
            || (has("pids") && limits.processes.is_some() && self.pids.is_none())
            || (has("cpuacct") && self.cpu.is_none());
        if !wanted || std::fs::create_dir(dir).is_err() {
            return;
        }
        self.others.push(dir.to_owned());
        let put = |name: &str, value: u64| std::fs::write(dir.join(name), value.to_string()).is_ok();
        if let Some(bytes) = limits.memory_bytes.filter(|bytes| has("memory") && put("memory.limit_in_bytes", *bytes)) {
            put("memory.memsw.limit_in_bytes", bytes);
            let took = number(&dir.join("memory.limit_in_bytes")).is_some_and(|max| max <= bytes);
            self.memory = self.memory.take().or_else(|| took.then(|| dir.to_owned()));
        }
        if limits.processes.is_some_and(|most| has("pids") && put("pids.max", most.saturating_add(STAGES))) {
            self.pids = self.pids.take().or_else(|| Some(dir.to_owned()));
        }
        if has("cpuacct") && self.cpu.is_none() {
            self.cpu = Some(dir.to_owned());
        }
    }

    /// Moves the stages in that were not born there; they must hold no command yet. A group that does not take them is
    /// not used.
    pub fn enter(&mut self, pids: &[i32]) {
        let takes = |dir: &Path| {
            let procs = dir.join("cgroup.procs");
            let held = || -> Vec<String> { read(&procs).unwrap_or_default().lines().map(str::to_owned).collect() };
            let before = held();
            let away: Vec<String> = pids.iter().map(i32::to_string).filter(|pid| !before.contains(pid)).collect();
            let is_sent = away.iter().all(|pid| std::fs::write(&procs, pid).is_ok());
            is_sent && (away.is_empty() || away.iter().all(|pid| held().contains(pid)))
        };
        let refused: Vec<PathBuf> = self.dirs().filter(|dir| !takes(dir)).map(Path::to_owned).collect();
        let is_refused = |dir: &Option<PathBuf>| dir.as_ref().is_some_and(|dir| refused.contains(dir));
        for slot in [&mut self.unified, &mut self.memory, &mut self.pids, &mut self.cpu] {
            if is_refused(slot) {
                *slot = None;
            }
        }
        self.others.retain(|dir| !refused.contains(dir));
        for dir in refused {
            // One stage may stand in it; an untidy group harms nobody.
            drop(std::fs::remove_dir(dir));
        }
    }

    fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.unified.iter().chain(&self.others).map(PathBuf::as_path)
    }

    /// Removes what is empty; a group in which something still dies stays, which is only untidy.
    pub fn remove(&self) {
        for dir in self.dirs() {
            std::fs::remove_dir(dir).ok();
        }
    }

    /// Whether the kernel itself keeps the memory limit.
    #[must_use]
    pub const fn has_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether the kernel itself keeps the limit of processes.
    #[must_use]
    pub const fn has_pids(&self) -> bool {
        self.pids.is_some()
    }

    /// CPU time of all that ever ran in the group, in milliseconds.
    #[must_use]
    pub fn cpu_ms(&self) -> Option<u64> {
        let dir = self.cpu.as_ref()?;
        let micros = field(&dir.join("cpu.stat"), "usage_usec");
        micros.map(|us| us / 1_000).or_else(|| number(&dir.join("cpuacct.usage")).map(|ns| ns / 1_000_000))
    }

    /// Most memory at once so far, in bytes; with what the kernel keeps of files for it.
    #[must_use]
    pub fn memory_peak(&self) -> Option<u64> {
        let dir = self.memory.as_ref()?;
        number(&dir.join("memory.peak")).or_else(|| number(&dir.join("memory.max_usage_in_bytes"))).filter(|bytes| *bytes < ENDLESS)
    }

    /// How often the kernel killed for want of memory.
    #[must_use]
    pub fn kills(&self) -> u64 {
        let Some(dir) = &self.memory else { return 0 };
        field(&dir.join("memory.events"), "oom_kill").or_else(|| field(&dir.join("memory.oom_control"), "oom_kill")).unwrap_or(0)
    }

    /// Processes and threads now, our stages left out.
    #[must_use]
    pub fn tasks(&self) -> Option<u64> {
        number(&self.pids.as_ref()?.join("pids.current")).map(|tasks| tasks.saturating_sub(STAGES - 1))
    }

    /// How often the kernel refused a new process.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.pids.as_ref().and_then(|dir| field(&dir.join("pids.events"), "max")).unwrap_or(0)
    }

    /// Every process in it, our stages included; `None` where no group holds them.
    #[must_use]
    pub fn processes(&self) -> Option<Vec<i32>> {
        let dir = self.dirs().next()?;
        Some(read(&dir.join("cgroup.procs"))?.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Holds everything in the group still, or lets it go on, so that a fork bomb can not outrun its end.
    pub fn freeze(&self, still: bool) {
        if let Some(dir) = &self.unified {
            // Where it is refused, rounds of signals do the same.
            std::fs::write(dir.join("cgroup.freeze"), if still { "1" } else { "0" }).ok();
        }
    }

    /// How each limit is kept here, in words; `other` is what walls processes beside a group.
    #[must_use]
    pub fn means(&self, other: &str) -> String {
        let by = |dir: &Option<PathBuf>| match dir {
            Some(dir) if self.unified.as_ref() == Some(dir) => "cgroup2",
            Some(_) => "cgroup1",
            None => "watch",
        };
        format!("memory {}, processes {}{other}, cpu {}, disk watch", by(&self.memory), by(&self.pids), by(&self.cpu))
    }
}

/// Memory that this host or container has, in bytes; 0 where that can not be read.
#[must_use]
pub fn host_memory() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let facts = read("/proc/meminfo");
    let whole = facts.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let mut least = whole.unwrap_or(0).saturating_mul(1_024);
    for tree in trees(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup")) {
        // Each group above binds as well; eight levels are more than any host nests.
        for dir in tree.own.ancestors().take(8) {
            let limit = number(&dir.join("memory.max")).or_else(|| number(&dir.join("memory.limit_in_bytes")));
            least = limit.filter(|limit| *limit > 0).map_or(least, |limit| least.min(limit));
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountinfo: &str, cgroup: &str, wanted: &[(&str, &str)]) {
        let found: Vec<(String, String)> =
            trees(mountinfo, cgroup).into_iter().map(|tree| (tree.controllers.join("+"), tree.own.display().to_string())).collect();
        let wanted: Vec<(String, String)> = wanted.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn trees_of_each_kind_of_host_are_found() {
        // A host with version 2 alone.
        let unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        check(unified, "0::/user.slice/u.service\n", &[("", "/sys/fs/cgroup/user.slice/u.service")]);
        // Both versions, as this is often in virtual machines.
        let hybrid = "35 31 0:32 / /cg/memory rw - cgroup cgroup rw,memory\n33 31 0:30 / /cg/cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n36 31 0:33 / /cg/devices rw - cgroup cgroup rw,devices";
        let own = "4:memory:/a/b\n2:cpu,cpuacct:/\n5:devices:/d\n0::/\n";
        check(hybrid, own, &[("memory", "/cg/memory/a/b"), ("cpuacct", "/cg/cpuacct/"), ("", "/cg/unified/")]);
        // A container, whose mount begins at its own group.
        let inside = "35 31 0:32 /docker/x /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids";
        check(inside, "7:pids:/docker/x\n", &[("pids", "/sys/fs/cgroup/pids/")]);
        check("", "0::/\n", &[]);
        check("29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "", &[]);
    }
}
