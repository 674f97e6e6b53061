//! The courier's process: this binary in another role, found by its first argument.
//!
//! Everything it does stands in the router; here it gets a session, a log, clock and redaction.
//! Invariant: neither its arguments nor its environment hold a key.

use crate::clean::CleanLog;
use crate::clock::SystemClock;
use crate::environment::Environment;
use crate::places::Places;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use tinkerbell_core::code::exit;
use tinkerbell_router::courier::{self, CourierHome, CourierOptions};
use tinkerbell_secret::Known;

/// The argument that asks for this role.
const ROLE: &str = "__courier";

/// Variables that the courier keeps: what connections need of the system.
const VARIABLES: [&str; 4] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "RUST_LOG", "TZ"];

/// Runs the courier when the arguments (program name first) ask for it, and gives its exit code.
#[must_use]
pub fn early_main(args: &[OsString]) -> Option<u8> {
    let [_, role, data, cache] = args else { return None };
    (role == ROLE).then(|| main(PathBuf::from(data), PathBuf::from(cache)))
}

/// How a daemon starts the courier of its home.
#[must_use]
pub fn options(places: &Places, env: &Environment, known: Arc<Known>) -> CourierOptions {
    // The very binary that runs, also after another release was put in its place.
    let words = ["/proc/self/exe", ROLE].map(OsString::from).into_iter();
    CourierOptions {
        home: home(places.data.clone(), places.cache.clone()),
        command: words.chain([&places.data, &places.cache].map(OsString::from)).collect(),
        env: VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), env.get(name)?.to_owned()))).collect(),
        log: places.state.join("courier.log"),
        known,
    }
}

fn home(data: PathBuf, cache: PathBuf) -> CourierHome {
    CourierHome { data, cache: Some(cache), release: env!("CARGO_PKG_VERSION").to_owned() }
}

fn main(data: PathBuf, cache: PathBuf) -> u8 {
    // What orders brought: taken out of spools, log and reports.
    let known = Known::new();
    crate::panic::install();
    crate::panic::know(known.clone(), &data);
    if let Err(fault) = crate::memory::close() {
        return ended(&fault.message);
    }
    // Failing means that it leads a session already, which is what is wanted.
    let _leads_already = rustix::process::setsid();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber =
        tracing_subscriber::fmt().with_writer(CleanLog::new(std::io::stderr(), known.clone())).with_ansi(false).with_env_filter(filter);
    // There is one subscriber per process, and this is the only place that sets one here.
    let _first_one_stays = subscriber.try_init();
    // One thread: it waits for sockets, and its writes go to the page cache.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return ended(&format!("no runtime: {error}")),
    };
    let served = runtime.block_on(courier::serve(home(data, cache), known, Arc::new(SystemClock), || say(courier::READY)));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match served {
        Ok(true) => exit::DONE,
        Ok(false) => {
            say(courier::TAKEN);
            exit::DONE
        }
        Err(error) => ended(&error.to_string()),
    }
}

fn ended(why: &str) -> u8 {
    tracing::error!(why, "the courier could not go on");
    // Without a log there is nobody left to tell.
    let _nobody = writeln!(std::io::stderr(), "courier: {why}");
    exit::INTERNAL
}

/// Tells the daemon how it went. A daemon that has gone is no reason to stop.
fn say(word: &str) {
    let mut out = std::io::stdout();
    let _starter_gone = writeln!(out, "{word}").and_then(|()| out.flush());
}
