//! `tinkerbell halt`: sets the kill switch, ends what runs, and says how it went.
//!
//! It needs neither a daemon nor a configuration nor a free disk. Invariant: the mark stands before anything
//! is ended, or the daemon is killed whatever it says.

use super::Shop;
use crate::halt::{self, Ended, Met};
use tinkerbell_cli::Output;
use tinkerbell_core::code::{Fault, exit};

/// Halts all effects.
pub async fn halt(shop: &Shop<'_>, reason: &str, out: &Output) -> Result<u8, Fault> {
    // Where nothing was ever made, the mark must stand before the first daemon comes.
    let made = shop.places.make(rustix::process::getuid().as_raw());
    let set = halt::set(&shop.places.data, shop.env, reason);
    let ended = halt::end(shop.places, set.is_err()).await;
    let mark = set.map_err(|fault| made.err().unwrap_or(fault))?;
    out.talk(&halt::line(&mark));
    out.talk(&told(&ended));
    if ended.left.is_empty() {
        out.talk("nothing begins until: tinkerbell halt --lift");
        return Ok(exit::DONE);
    }
    let what = ended.left.join(", ");
    Err(Fault::new("TB-HALT-002", exit::FAILED, format!("all effects are halted, and still alive after {} ms: {what}", ended.took_ms))
        .hint("run the command again; what survives SIGKILL hangs in the kernel, mostly on a dead disk or network file system"))
}

fn told(ended: &Ended) -> String {
    let daemon = match ended.daemon {
        Met::None => "no daemon ran".to_owned(),
        Met::Still => "the daemon stands still".to_owned(),
        Met::Killed(pid) => format!("the daemon (process {pid}) did not stand still in time and was killed"),
    };
    let courier = if ended.courier { ", the courier was killed" } else { "" };
    format!("{} commands ({} processes) ended, {daemon}{courier}; {} ms", ended.runs, ended.processes, ended.took_ms)
}
