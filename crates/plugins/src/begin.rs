//! The beginning of a conversation: which revision a server speaks.
//!
//! The newer revision has no handshake; a server that does not know it is greeted as before. Invariant:
//! the messages of a beginning have the same numbers after a restart, so that they are not delivered
//! again and their answers are found in the spool.

use crate::desk::millis;
use crate::error::Error;
use crate::reader::{Allowance, Answer, Reader, Waited};
use crate::wire::{Discovered, Era, Initialized, LEGACY, MODERN, Outgoing};
use serde_json::{Value, json};
use std::time::Duration;
use tinkerbell_core::clock::Clock;

const DISCOVER: u64 = 1;
const INITIALIZE: u64 = 2;
const INITIALIZED: u64 = 3;
/// A server that speaks only the older revision may ignore the question for the newer one.
const DISCOVERY: Duration = Duration::from_secs(5);
/// A program may need this long until it answers for the first time.
pub const START: Duration = Duration::from_secs(30);
/// Finds out which revision the server speaks, and begins the conversation.
pub async fn greet(clock: &dyn Clock, reader: &mut Reader) -> Result<(), Error> {
    let begun_ms = clock.now().mono_ms;
    let (ask_ms, end_ms) = (begun_ms.saturating_add(millis(DISCOVERY)), begun_ms.saturating_add(millis(START)));
    let mut allowance = Allowance::default();
    send(reader, DISCOVER, &Outgoing::request(DISCOVER, "server/discover", with_meta(json!({}), Era::Modern))).await?;
    let mut is_asked = false;
    loop {
        let until = if is_asked { end_ms } else { ask_ms };
        match reader.wait(&[DISCOVER, INITIALIZE], until, &mut allowance).await? {
            Waited::Answered(DISCOVER, Answer::Result(found)) if is_modern(&found) => {
                reader.era = Era::Modern;
                return Ok(());
            }
            Waited::Answered(INITIALIZE, Answer::Result(chosen)) => {
                let chosen: Initialized = serde_json::from_str(&chosen).map_err(|error| Error::Broke {
                    name: reader.name.clone(),
                    why: format!("its answer to `initialize` is malformed: {error}"),
                })?;
                tracing::debug!(server = reader.name, version = chosen.version, "an MCP server speaks an older revision");
                reader.era = Era::Legacy;
                return send(reader, INITIALIZED, &Outgoing::notification("notifications/initialized")).await;
            }
            Waited::Answered(INITIALIZE, Answer::Error(why)) => return Err(Error::Refused { name: reader.name.clone(), why }),
            // It does not know the newer revision, or does not answer what it does not know.
            Waited::Answered(..) | Waited::Late if !is_asked => {
                is_asked = true;
                send(reader, INITIALIZE, &Outgoing::request(INITIALIZE, "initialize", greeting())).await?;
            }
            Waited::Answered(..) => {}
            Waited::Late => return Err(Error::Late { name: reader.name.clone(), seconds: START.as_secs() }),
            Waited::Asked(_) => {
                let why = "it asks before the conversation has begun".to_owned();
                return Err(Error::Broke { name: reader.name.clone(), why });
            }
            Waited::Gone(words) => return Err(Error::Ended { name: reader.name.clone(), why: format!("it ended{}", said(&words)) }),
        }
    }
}

/// Sends one message under its number.
pub async fn send(reader: &Reader, number: u64, message: &Outgoing<'_>) -> Result<(), Error> {
    let sent = reader.unit.stdin(number, message.line().into()).await;
    match sent {
        Ok(()) => Ok(()),
        // One that has ended is told of with its last words, by whoever waits for the answer.
        Err(_) if !reader.is_running().await => Ok(()),
        Err(fault) => Err(Error::Broke { name: reader.name.clone(), why: fault.message }),
    }
}

fn is_modern(found: &str) -> bool {
    serde_json::from_str::<Discovered>(found).is_ok_and(|found| found.versions.iter().any(|version| version == MODERN))
}

fn greeting() -> Value {
    json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client() })
}

fn client() -> Value {
    json!({ "name": "tinkerbell", "version": env!("CARGO_PKG_VERSION") })
}

/// The newer revision carries all in each request.
pub fn with_meta(mut params: Value, era: Era) -> Value {
    if let (Era::Modern, Some(map)) = (era, params.as_object_mut()) {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": client(),
        });
        map.insert("_meta".to_owned(), meta);
    }
    params
}

/// A server's last words, as the end of a sentence.
pub fn said(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!("; its last words: {words}") }
}
