//! Large work in shares, one for each core.
//!
//! Only for work whose result does not depend on who does it: a simulation gets the same as a daemon.
//! Invariant: what a thread that could not be started, or that ended early, leaves is done by the caller.

/// Work below this size is done by the caller alone: a thread would cost more than it saves.
const ALONE_BYTES: usize = 4 << 20;
/// Most shares; more cores wait for memory instead of working.
const MOST: usize = 4;

/// Into how many shares work on so many bytes is cut.
pub(crate) fn shares(bytes: usize) -> usize {
    if bytes < ALONE_BYTES {
        return 1;
    }
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST))
}

/// Does `work` for each part, the first one in this thread; gives the results in order.
pub(crate) fn each<P: Send, T: Send>(parts: Vec<P>, work: &(dyn Fn(&mut P) -> T + Sync)) -> Vec<T> {
    let cells: Vec<std::sync::Mutex<P>> = parts.into_iter().map(std::sync::Mutex::new).collect();
    let act = |cell: &std::sync::Mutex<P>| work(&mut crate::flush::lock(cell));
    std::thread::scope(|scope| {
        let others: Vec<_> =
            cells.iter().skip(1).map(|cell| (cell, std::thread::Builder::new().spawn_scoped(scope, || act(cell)).ok())).collect();
        let first = cells.first().map(act);
        let rest = others.into_iter().map(|(cell, thread)| thread.and_then(|thread| thread.join().ok()).unwrap_or_else(|| act(cell)));
        first.into_iter().chain(rest).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        assert_eq!(each((0..7).collect(), &|n| *n * 2), [0, 2, 4, 6, 8, 10, 12]);
        assert!(each(Vec::<u8>::new(), &|n| *n).is_empty());
        assert_eq!(shares(100), 1);
    }
}
