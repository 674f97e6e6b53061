//! What a courier costs: the same calls in this process and through one, against a scripted provider.
//!
//! For measurements, by hand: `cargo run -p tinkerbell-router --example courier -- target/debug/tinkerbell`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tinkerbell_core::clock::{Clock, Stamp};
use tinkerbell_core::model::{Message, ModelCall, ModelEvent};
use tinkerbell_core::port::Model as _;
use tinkerbell_core::words::TaskId;
use tinkerbell_router::courier::{CourierHome, CourierOptions};
use tinkerbell_router::options::{Options, Provider, Wire};
use tinkerbell_router::{Environment, Router};
use tinkerbell_testkit::llm::{Scripted, Turn};

struct Real;

impl Clock for Real {
    fn now(&self) -> Stamp {
        #[expect(clippy::disallowed_methods, reason = "an example has no roof to give it a clock")]
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(since.as_millis()).unwrap_or(0);
        Stamp { wall_ms, mono_ms: wall_ms }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Medians of microseconds for a whole call, in words of so many pieces.
async fn median(router: &Router, from: u32, pieces: usize) -> u64 {
    let mut times = Vec::new();
    for seq in from..from + 200 {
        let call = ModelCall {
            task: TaskId(1),
            seq,
            attempt: 0,
            model: "it/m".to_owned(),
            system: "You build.".to_owned(),
            tools: Vec::new(),
            messages: vec![Message::User(format!("{pieces} pieces"))],
            tail: String::new(),
            max_output_tokens: 10_000,
            stall: Duration::from_secs(20),
        };
        let began = tokio::time::Instant::now();
        let mut stream = router.complete(call);
        while let Some(event) = stream.next().await {
            if let ModelEvent::Done(_) = event.expect("an answer") {
                times.push(u64::try_from(began.elapsed().as_micros()).unwrap());
            }
        }
        drop(stream);
        router.settle(TaskId(1), seq).await;
    }
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let binary = std::path::absolute(std::env::args_os().nth(1).ok_or("usage: courier BINARY")?)?;
    let mut out = std::io::stdout();
    for pieces in [1, 1_000] {
        let server = Scripted::start(vec![Turn::text(&"x".repeat(24 * pieces))]).await?;
        let provider = Provider { wire: Some(Wire::Openai), base_url: Some(server.base_url()), ..Provider::default() };
        let options = Options { providers: [("it".to_owned(), provider)].into(), ..Options::default() };
        let env: Environment = Arc::new(|_| None);
        let dir = tempfile::tempdir()?;
        let courier = CourierOptions {
            home: CourierHome { data: dir.path().to_owned(), cache: None, release: "bench".to_owned() },
            command: vec![binary.clone().into(), "__courier".into(), dir.path().into(), dir.path().into()],
            env: Vec::new(),
            log: dir.path().join("log"),
            known: tinkerbell_secret::Known::new(),
        };
        let alone = Router::new(options.clone(), env.clone(), Arc::new(Real));
        let carried = Router::with_courier(options, env, Arc::new(Real), courier);
        // The first call of each makes its client, and starts the courier.
        median(&alone, 0, pieces).await;
        median(&carried, 1_000, pieces).await;
        let (here, there) = (median(&alone, 2_000, pieces).await, median(&carried, 3_000, pieces).await);
        writeln!(out, "{pieces} pieces: {here} µs in this process, {there} µs through the courier (p50 of 200)")?;
        carried.farewell().await;
    }
    Ok(())
}
