//! One try at one target: opens the stream, watches its progress, and brings the answer home.
//!
//! Never retries. Invariant: it ends, one way or the other, within the try's deadline, and sooner
//! when nothing new comes for the stall limit; heartbeats are not news.

use crate::answer::{self, Raw};
use crate::classify::{Context, Failure, classify, in_stream};
use crate::frames::Ear;
use crate::options::Pacing;
use crate::provider::Target;
use crate::render::{self, Mode};
use futures_util::StreamExt as _;
use genai::Client;
use genai::chat::{ChatStream, ChatStreamEvent};
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::model::{Completion, ModelCall, ModelError, ModelEvent, StopReason};
use tinkerbell_core::money::Usage;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, timeout_at};
use tracing::instrument::{WithDispatch, WithSubscriber as _};
use tracing::subscriber::NoSubscriber;

/// More text than any answer has; a server that never stops is cut off here.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// What the reader of the stream gets.
pub type Item = Result<ModelEvent, ModelError>;

/// A try that gave no answer.
pub struct Lost {
    /// Why.
    pub failure: Failure,
    /// What the provider said that it used.
    pub spent: Usage,
}

/// One try.
pub struct Try<'a> {
    /// The request.
    pub call: &'a ModelCall,
    /// Whom to ask.
    pub target: &'a Target,
    /// How tools are called.
    pub mode: Mode,
    /// With which client.
    pub client: &'a Client,
    /// With which key.
    pub key: Option<&'a str>,
    /// What time it is, for dates in `retry-after`.
    pub wall_ms: u64,
    /// Limits.
    pub pacing: Pacing,
    /// Whether a whole answer is taken as it is.
    pub lenient: bool,
}

impl Try<'_> {
    /// Asks. Pieces of text go to `out` as they come.
    ///
    /// # Errors
    /// Why this try gave no whole answer, and what it used.
    pub async fn run(&self, out: Option<&Sender<Item>>) -> Result<Completion, Lost> {
        let ear = Arc::new(Ear::new(self.target.wire));
        let request = render::request(self.call, self.target, self.mode);
        let options = render::options(self.call, self.target, self.mode).with_raw_frame_sink_arc(ear.clone());
        let service = render::service(self.target, self.key);
        let opened = unheard(self.client.exec_chat_stream(service, request, Some(&options))).await;
        let stream = opened.map_err(|error| Lost { failure: self.failure(&error, &ear), spent: Usage::default() })?.stream;
        let read = self.read(stream, &ear, out).await;
        let raw = read.map_err(|failure| Lost { failure, spent: ear.heard().usage.unwrap_or_default() })?;
        let spent = answer::usage(&raw).unwrap_or_default();
        answer::assemble(raw, self.call, self.target, self.mode, self.lenient).map_err(|failure| Lost { failure, spent })
    }

    async fn read(&self, mut stream: ChatStream, ear: &Ear, out: Option<&Sender<Item>>) -> Result<Raw, Failure> {
        let start = Instant::now();
        let mut raw = Raw::default();
        let mut news = start;
        let mut begun = false;
        loop {
            let patience = if begun { self.call.stall } else { self.first_token() };
            let until = (news + patience).min(start + self.pacing.deadline);
            let Ok(next) = timeout_at(until, unheard(stream.next())).await else {
                return Err(Failure::Broken(format!("nothing new came for {} s", (until - news).as_secs())));
            };
            let event = match next {
                None => break,
                // Gemini's frames for a blocked prompt are none that genai can read.
                Some(Err(_)) if ear.heard().stop == Some(StopReason::Filter) => break,
                Some(event) => event.map_err(|error| self.failure(&error, ear))?,
            };
            let brings_news = is_news(&event);
            let ended = self.take(event, &mut raw, out).await?;
            if ended {
                break;
            }
            if brings_news {
                // Counted from here, so that a slow reader is not taken for a slow model.
                news = Instant::now();
                begun = true;
            }
        }
        raw.heard = ear.heard();
        match &raw.heard.error {
            Some(said) => Err(in_stream(said, self.context())),
            None => Ok(raw),
        }
    }

    /// Takes one event in; true at the end of the stream.
    async fn take(&self, event: ChatStreamEvent, raw: &mut Raw, out: Option<&Sender<Item>>) -> Result<bool, Failure> {
        let piece = match event {
            ChatStreamEvent::Chunk(chunk) => {
                raw.text.push_str(&chunk.content);
                // A bound answer is JSON, which nobody wants to read as it comes.
                (self.mode == Mode::Native).then_some(ModelEvent::Text(chunk.content))
            }
            ChatStreamEvent::ReasoningChunk(chunk) => {
                raw.reasoning.push_str(&chunk.content);
                Some(ModelEvent::Reasoning(chunk.content))
            }
            ChatStreamEvent::End(end) => {
                raw.end = Some(end);
                return Ok(true);
            }
            _ => None,
        };
        if raw.text.len() + raw.reasoning.len() > MOST_BYTES {
            return Err(Failure::Malformed("the answer does not end".to_owned()));
        }
        if let (Some(out), Some(piece)) = (out, piece) {
            // A reader that is gone has dropped this future, too; losing the piece is right.
            drop(out.send(Ok(piece)).await);
        }
        Ok(false)
    }

    fn first_token(&self) -> Duration {
        let longest = self.pacing.first_token.max(self.call.stall);
        if self.target.is_local { self.call.stall.saturating_mul(self.pacing.local_first_token).min(longest) } else { self.call.stall }
    }

    const fn context(&self) -> Context<'_> {
        Context { key: self.key, wall_ms: self.wall_ms }
    }

    fn failure(&self, error: &genai::Error, ear: &Ear) -> Failure {
        classify(error, ear.heard().error.as_ref(), self.context())
    }
}

/// genai logs what a provider said when it fails, and that may hold the prompt or a piece of the
/// key; whatever is worth telling of it is told by us.
fn unheard<F: Future>(work: F) -> WithDispatch<F> {
    work.with_subscriber(NoSubscriber::new())
}

/// Whether an event shows that the model goes on.
const fn is_news(event: &ChatStreamEvent) -> bool {
    !matches!(event, ChatStreamEvent::Heartbeat | ChatStreamEvent::Start)
}
