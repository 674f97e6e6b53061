//! What a turn costs, against tokio in the same run; and what an urgent task waits under load.
//!
//! Run it with `cargo run --release -p tinkerbell-scheduler --example queue_bench`. Each figure is the
//! median of five rounds. Invariant: nothing here is written to a disk; the journal's own costs are
//! measured in `wal`.

// Measuring wants the real clock, and a bench may stop where it stands.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tinkerbell_core::words::Priority;
use tinkerbell_scheduler::queue::{Key, Queue};
use tokio::sync::oneshot;

/// How long a hog keeps its slot before it gives it back, as a step would.
const STEP: Duration = Duration::from_micros(100);

fn main() {
    println!("turn through the queue (two ready)        {:>8.1} ns", median(|| turns(2, 2_000_000)));
    println!("turn through the queue (10,000 ready)     {:>8.1} ns", median(|| turns(10_000, 2_000_000)));
    println!("tokio yield_now, current thread           {:>8.1} ns", median(|| tokio_yield(2_000_000)));
    println!("join, ready, next, leave                  {:>8.1} ns", median(|| joins(1_000_000)));
    println!("tokio spawn and join, current thread      {:>8.1} ns", median(|| tokio_spawn(300_000)));
    waiting();
    under_load();
}

/// The median of five rounds, nanoseconds.
fn median(mut round: impl FnMut() -> f64) -> f64 {
    let mut all: Vec<f64> = (0..5).map(|_| round()).collect();
    all.sort_by(f64::total_cmp);
    all.get(2).copied().unwrap_or_default()
}

fn per(begun: Instant, count: u64) -> f64 {
    begun.elapsed().as_nanos() as f64 / count as f64
}

/// Each turn charges, puts the running one back, and takes the next.
fn turns(ready: u32, count: u64) -> f64 {
    let mut queue = Queue::new(1);
    for tenant in 0..ready {
        let key = queue.join(tenant % 4, Priority::Normal, &[]);
        queue.ready(key, 0);
    }
    let mut key = queue.next(0).unwrap();
    let begun = Instant::now();
    for turn in 0..count {
        // The price of a small step: a task keeps its quantum for two of them.
        key = queue.turn(black_box(key), 10_000, turn / 100_000).unwrap();
    }
    per(begun, count)
}

/// A million tasks come, all wait, and are served: the whole life of a task in the queue.
fn joins(count: u32) -> f64 {
    let mut queue = Queue::new(1);
    let begun = Instant::now();
    for tenant in 0..count {
        let key = queue.join(tenant % 4, Priority::Normal, &[]);
        queue.ready(key, 0);
    }
    while let Some(key) = queue.next(0) {
        queue.leave(black_box(key));
    }
    per(begun, u64::from(count))
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn tokio_yield(count: u64) -> f64 {
    current_thread().block_on(async move {
        let each = count / 2;
        let begun = Instant::now();
        let other = tokio::spawn(async move {
            for _ in 0..each {
                tokio::task::yield_now().await;
            }
        });
        let own = tokio::spawn(async move {
            for _ in 0..each {
                tokio::task::yield_now().await;
            }
        });
        other.await.unwrap();
        own.await.unwrap();
        per(begun, count)
    })
}

fn tokio_spawn(count: u64) -> f64 {
    current_thread().block_on(async move {
        let begun = Instant::now();
        let mut all = Vec::new();
        for at in 0..count {
            all.push(tokio::spawn(async move { black_box(at) }));
        }
        for one in all {
            black_box(one.await.unwrap());
        }
        per(begun, count)
    })
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// What a million tasks that wait for a slot take.
fn waiting() {
    let before = resident_kib();
    let mut queue = Queue::new(1);
    for tenant in 0..1_000_000_u32 {
        let key = queue.join(tenant % 4, Priority::Normal, &[]);
        queue.ready(key, 0);
    }
    println!("a million ready tasks in the queue        {:>8} KiB", resident_kib().saturating_sub(before));
    black_box(queue);
}

/// The queue, who is to be told, and what each tenant was served in steps.
struct Floor {
    queue: Queue,
    told: Vec<Option<oneshot::Sender<()>>>,
}

impl Floor {
    fn tell(&mut self, key: Key) {
        if let Some(told) = self.told.get_mut(key.index()).and_then(Option::take) {
            // It may have left.
            let _gone = told.send(());
        }
    }

    /// Waits for a turn: the receiver completes when it has come.
    fn wait(&mut self, key: Key) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        if self.told.len() <= key.index() {
            self.told.resize_with(key.index() + 1, || None);
        }
        if let Some(place) = self.told.get_mut(key.index()) {
            *place = Some(tell);
        }
        told
    }
}

/// A hog: steps of pure work, for ever ready.
async fn hog(floor: Arc<Mutex<Floor>>, begun: Instant, (tenant, key): (usize, Key), served: Arc<Vec<AtomicU64>>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let work = Instant::now();
        while work.elapsed() < STEP {
            black_box(());
        }
        if let Some(count) = served.get(tenant) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let wait = {
            let mut floor = floor.lock().unwrap();
            // A tenth of a millisecond costs ten units, as in the engine.
            let next = floor.queue.turn(key, 110, begun.elapsed().as_millis() as u64);
            if next == Some(key) {
                None
            } else {
                let wait = floor.wait(key);
                next.into_iter().for_each(|next| floor.tell(next));
                Some(wait)
            }
        };
        match wait {
            Some(wait) => wait.await.unwrap_or_default(),
            None => tokio::task::yield_now().await,
        }
    }
}

/// One slot per core, each kept by hogs; ten thousand ready tasks of four tenants; and somebody who
/// comes every twenty milliseconds.
fn under_load() {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_all().build().unwrap();
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new((0..4).map(|_| AtomicU64::new(0)).collect::<Vec<_>>()));
    let floor = Arc::new(Mutex::new(Floor { queue: Queue::new(cores), told: Vec::new() }));
    let begun = Instant::now();
    runtime.block_on(async {
        let mut keys = Vec::new();
        for at in 0..10_000_usize {
            let mut floor = floor.lock().unwrap();
            let key = floor.queue.join(u32::try_from(at % 4).unwrap_or(0), Priority::Normal, &[]);
            floor.queue.ready(key, 0);
            keys.push((at % 4, key, floor.wait(key)));
        }
        for (tenant, key, wait) in keys {
            let (floor, served, stop) = (floor.clone(), served.clone(), stop.clone());
            tokio::spawn(async move {
                if wait.await.is_ok() {
                    hog(floor, begun, (tenant, key), served, stop).await;
                }
            });
        }
        {
            let mut floor = floor.lock().unwrap();
            while let Some(key) = floor.queue.next(0) {
                floor.tell(key);
            }
        }
        let mut waits = Vec::new();
        for _ in 0..1_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let asked = Instant::now();
            let (key, wait) = {
                let mut floor = floor.lock().unwrap();
                let key = floor.queue.join(9, Priority::Interactive, &[]);
                let wait = floor.wait(key);
                let now_ms = begun.elapsed().as_millis() as u64;
                floor.queue.ready(key, now_ms);
                while let Some(next) = floor.queue.next(now_ms) {
                    floor.tell(next);
                }
                (key, wait)
            };
            wait.await.unwrap();
            waits.push(asked.elapsed());
            let mut floor = floor.lock().unwrap();
            floor.queue.leave(key);
            while let Some(next) = floor.queue.next(begun.elapsed().as_millis() as u64) {
                floor.tell(next);
            }
        }
        stop.store(true, Ordering::Relaxed);
        waits.sort();
        let at = |part: usize| waits.get(waits.len() * part / 1_000).copied().unwrap_or_default().as_micros();
        println!("urgent wake, {cores} slots, 10,000 ready hogs     p50 {} µs, p99 {} µs, most {} µs", at(500), at(990), at(999));
    });
    let shares: Vec<f64> = served.iter().map(|count| count.load(Ordering::Relaxed) as f64).collect();
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|share| share * share).sum::<f64>());
    println!("Jain index of four tenants                {:>8.4}", sum * sum / (shares.len() as f64 * squares));
    runtime.shutdown_timeout(Duration::from_secs(1));
}
