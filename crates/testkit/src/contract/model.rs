//! What every `Model` keeps.
//!
//! Knows nothing of wires or keys. Invariant checked above all: a stream ends, and ends with one
//! whole answer or one error, never with both and never with neither.

use futures_util::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::event::PartKind;
use tinkerbell_core::model::{Completion, Message, ModelCall, ModelError, ModelEvent, StopReason};
use tinkerbell_core::port::Model;
use tinkerbell_core::tool::ToolSpec;
use tinkerbell_core::words::{Seq, TaskId};

/// The tool that the model under test must call in its first answer.
pub const TOOL: ToolSpec = ToolSpec {
    name: "read",
    description: "Reads a file.",
    schema: r#"{"type":"object","properties":{"path":{"type":"string"}},"required":["path"],"additionalProperties":false}"#,
};

/// No stream of the suite may take longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs the whole suite. `good` must name a model that answers the first question with a call of
/// [`TOOL`] and the second with words; `bad` one whose every answer fails.
///
/// # Panics
/// When the adapter breaks a promise of the port.
pub async fn suite(model: Arc<dyn Model>, good: &str, bad: &str) {
    cards_name_what_was_asked(&*model, good);
    names_without_a_provider_are_refused(&*model).await;
    an_answer_comes_last_and_whole(&*model, good).await;
    a_known_call_gives_its_answer_again(&*model, good).await;
    a_failure_is_one_error_and_the_end(&*model, bad).await;
    a_dropped_stream_harms_nobody(&*model, good).await;
}

/// A question of an effect; another effect is another call, whatever it asks.
fn question(name: &str, seq: Seq, messages: Vec<Message>) -> ModelCall {
    ModelCall {
        task: TaskId(1),
        seq,
        attempt: 0,
        model: name.to_owned(),
        system: "You build.".to_owned(),
        tools: vec![TOOL],
        messages,
        tail: "now".to_owned(),
        max_output_tokens: 1_000,
        stall: Duration::from_secs(2),
    }
}

fn first(name: &str, seq: Seq) -> ModelCall {
    question(name, seq, vec![Message::User("Look.".to_owned())])
}

async fn all(model: &dyn Model, call: ModelCall) -> Vec<Result<ModelEvent, ModelError>> {
    tokio::time::timeout(DEADLINE, model.complete(call).collect()).await.expect("the stream ends")
}

/// The answer, when there is one; checks that exactly one end comes, and last.
fn end(events: Vec<Result<ModelEvent, ModelError>>) -> Result<Completion, ModelError> {
    let is_end = |event: &Result<ModelEvent, ModelError>| matches!(event, Ok(ModelEvent::Done(_)) | Err(_));
    assert_eq!(events.iter().filter(|event| is_end(event)).count(), 1, "one end, no more and no less");
    match events.into_iter().last().expect("a stream is never empty") {
        Ok(ModelEvent::Done(done)) => Ok(*done),
        Err(error) => Err(error),
        Ok(other) => panic!("{other:?} came after the end"),
    }
}

fn cards_name_what_was_asked(model: &dyn Model, good: &str) {
    let card = model.card(good).expect("a card");
    assert_eq!(card.name, good, "a card names its model");
    assert!(card.max_output_tokens > 0 && card.max_output_tokens <= card.context_tokens, "an answer fits into the window");
}

async fn names_without_a_provider_are_refused(model: &dyn Model) {
    for name in ["", "nobody", "no-such-provider/x"] {
        let refused = model.card(name).expect_err("no card for an unknown name");
        assert!(!refused.hints.is_empty(), "the fault says what to do");
        assert_eq!(end(all(model, first(name, 1)).await), Err(ModelError::Fault(refused)), "asking fails as the card does");
    }
}

async fn an_answer_comes_last_and_whole(model: &dyn Model, good: &str) {
    let done = end(all(model, first(good, 2)).await).expect("an answer");
    assert_eq!(done.stop, StopReason::Calls, "it stops for its calls");
    let calls: Vec<_> = done.parts.iter().filter(|part| part.kind == PartKind::Call as i32).cloned().collect();
    let call = calls.first().expect("a call");
    assert!(call.tool == TOOL.name && !call.call_id.is_empty(), "a call has its tool and an id");
    let args: serde_json::Value = serde_json::from_str(&call.text).expect("arguments are JSON");
    assert!(args.is_object(), "arguments are an object");
    assert!(!done.made.provider.is_empty() && !done.made.asked.is_empty() && !done.made.served.is_empty(), "provenance is told");
    assert_eq!(end(all(model, first(good, 3)).await).expect("an answer").parts.len(), done.parts.len(), "the same past gets the same turn");

    let mut messages = first(good, 4).messages;
    messages.push(Message::Assistant { parts: done.parts, made: Some(done.made) });
    messages.extend(calls.into_iter().map(|call| Message::Tool { call_id: call.call_id, tool: call.tool, text: "fine".to_owned() }));
    let last = end(all(model, question(good, 4, messages)).await).expect("an answer");
    assert_eq!(last.stop, StopReason::End, "words end the turn");
    assert!(last.parts.iter().any(|part| part.kind == PartKind::Text as i32 && !part.text.is_empty()), "and are there");
}

async fn a_known_call_gives_its_answer_again(model: &dyn Model, good: &str) {
    let done = end(all(model, first(good, 5)).await).expect("an answer");
    let again = end(all(model, first(good, 5)).await).expect("an answer");
    assert_eq!((again.parts, again.stop), (done.parts, done.stop), "a call that is known by its id has one answer");
    // What is let go of is asked for anew; what was never kept is no error.
    model.settle(TaskId(1), 6).await;
    model.settle(TaskId(1), 6).await;
    end(all(model, first(good, 5)).await).expect("an answer");
    model.sweep(Vec::new()).await;
    end(all(model, first(good, 5)).await).expect("an answer");
}

async fn a_failure_is_one_error_and_the_end(model: &dyn Model, bad: &str) {
    end(all(model, first(bad, 6)).await).expect_err("an error");
    end(all(model, first(bad, 6)).await).expect_err("and again, when it is asked again");
}

async fn a_dropped_stream_harms_nobody(model: &dyn Model, good: &str) {
    drop(model.complete(first(good, 7)));
    let mut begun = model.complete(first(good, 8));
    let piece = tokio::time::timeout(DEADLINE, begun.next()).await.expect("something comes");
    assert!(piece.is_some(), "a stream is never empty");
    drop(begun);
    end(all(model, first(good, 9)).await).expect("the next question is answered");
}
