//! Bodies that are counted as they pass, and end when nothing comes for long.
//!
//! Invariant: a byte beyond the budget of its rule is never passed on.

use crate::gate::{Gate, over_budget};
use crate::record::Record;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// Longest time without a byte.
const IDLE: Duration = Duration::from_secs(600);

/// What goes wrong with a body.
pub type Wrong = Box<dyn std::error::Error + Send + Sync>;
/// A body of any kind.
pub type Body = BoxBody<Bytes, Wrong>;

/// A body of one text.
pub fn text(text: &str) -> Body {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed()
}

/// A body that is counted.
pub struct Counted {
    body: Incoming,
    record: Arc<Record>,
    budget: Option<(Arc<Gate>, usize)>,
    idle: Pin<Box<Sleep>>,
}

impl Counted {
    /// From the command, within the budget of a rule.
    pub fn up(body: Incoming, record: Arc<Record>, gate: Arc<Gate>, rule: usize) -> Self {
        Self { body, record, budget: Some((gate, rule)), idle: Box::pin(sleep(IDLE)) }
    }

    /// To the command.
    pub fn down(body: Incoming, record: Arc<Record>) -> Self {
        Self { body, record, budget: None, idle: Box::pin(sleep(IDLE)) }
    }

    /// As one of any kind.
    pub fn boxed(self) -> Body {
        BoxBody::new(self)
    }

    fn count(&self, bytes: u64) -> Result<(), Wrong> {
        let Some((gate, rule)) = &self.budget else {
            self.record.down(bytes);
            return Ok(());
        };
        if gate.spend(*rule, bytes) {
            self.record.up(bytes);
            return Ok(());
        }
        let refusal = over_budget(gate.rule_id(*rule));
        self.record.refuse(&refusal.why);
        Err(refusal.into())
    }
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = Wrong;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Wrong>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => match self.idle.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Some(Err("nothing came for too long".into()))),
                Poll::Pending => Poll::Pending,
            },
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.as_mut().reset(Instant::now() + IDLE);
                // Trailers are headers that nobody judged.
                let Ok(data) = frame.into_data() else { return Poll::Ready(None) };
                Poll::Ready(Some(self.count(data.len() as u64).map(|()| Frame::data(data))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
