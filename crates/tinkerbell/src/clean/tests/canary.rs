//! The canary matrix in memory: what is asked of providers, logged, recorded of clients, and told.
//!
//! Each run has values and forms of its own; by turns it leaves at another place.
//! `TINKERBELL_CANARY_RUNS` says how many runs. Invariant: a run without a leak in it proves nothing, so
//! the leak must be found before it is looked for.

use super::super::*;
use std::collections::BTreeMap;
use tinkerbell_core::event::Part;
use tinkerbell_core::port::Given;
use tinkerbell_secret::Secret;
use tinkerbell_testkit::canary::{CHANNELS, FORMS, Run, SAME};
use tracing_subscriber::fmt::MakeWriter as _;

/// A place at which words leave or come to rest, and what of a text arrives there.
type Sink = (&'static str, fn(&str, &Arc<Known>) -> Vec<u8>);

const SINKS: [Sink; 12] = [
    ("system prompt", |text, known| asked(ModelCall { system: text.to_owned(), ..call() }, known)),
    ("end of a prompt", |text, known| asked(ModelCall { tail: text.to_owned(), ..call() }, known)),
    ("words of the user", |text, known| asked(ModelCall { messages: vec![Message::User(text.to_owned())], ..call() }, known)),
    ("result of a tool", |text, known| {
        let result = Message::Tool { call_id: "1".to_owned(), tool: "exec".to_owned(), text: text.to_owned() };
        asked(ModelCall { messages: vec![result], ..call() }, known)
    }),
    ("words of a model", |text, known| said(text, PartKind::Text, known)),
    ("thoughts of a model", |text, known| said(text, PartKind::Reasoning, known)),
    ("arguments of a call", |text, known| said(text, PartKind::Call, known)),
    ("log", |text, known| {
        let log = CleanLog::new(Vec::new(), known.clone());
        log.make_writer().write_all(text.as_bytes()).unwrap();
        log.inner.into_inner().unwrap()
    }),
    ("goal", |text, known| clean_submission(Submission { goal: text.to_owned(), ..Submission::default() }, known).unwrap().goal.into()),
    ("check", |text, known| {
        let own = Known::new();
        own.learn(known.values().into_iter().map(|(_, value)| ("OWN".to_owned(), value)));
        let refused = clean_submission(Submission { verify: Some(text.to_owned()), ..Submission::default() }, &own);
        // It is refused, not changed: what arrives is the words of the refusal.
        refused.map_or_else(|fault| format!("[secret {}] {}", fault.message, fault.hints.concat()), |task| task.verify.unwrap()).into()
    }),
    ("words to a task", |text, known| {
        let given = Given { text: text.to_owned(), ..Given::default() };
        let words = |command| match clean_command(command, known) {
            Command::Tell(text) | Command::Answer(Given { text, .. }) => text,
            _ => String::new(),
        };
        format!("{}\n{}", words(Command::Tell(text.to_owned())), words(Command::Answer(given))).into()
    }),
    ("error", |text, known| {
        let fault = clean_fault(Fault::new("TB-BUG-001", 70, text.to_owned()).hint(text), known);
        format!("{}{}", fault.message, fault.hints.concat()).into()
    }),
];

/// What a provider reads of a call.
fn asked(mut call: ModelCall, known: &Arc<Known>) -> Vec<u8> {
    clean_call(&mut call, known);
    let mut text = format!("{}\n{}", call.system, call.tail);
    for message in call.messages {
        match message {
            Message::User(words) | Message::Tool { text: words, .. } => text.push_str(&words),
            Message::Assistant { parts, .. } => parts.iter().for_each(|part| text.push_str(&part.text)),
        }
    }
    text.into()
}

fn said(text: &str, kind: PartKind, known: &Arc<Known>) -> Vec<u8> {
    let part = Part { kind: kind as i32, text: text.to_owned(), ..Part::default() };
    asked(ModelCall { messages: vec![Message::Assistant { parts: vec![part], made: None }], ..call() }, known)
}

/// A call without words.
fn call() -> ModelCall {
    ModelCall {
        task: TaskId(1),
        seq: 1,
        attempt: 0,
        model: "local/m".to_owned(),
        system: String::new(),
        tools: Vec::new(),
        messages: Vec::new(),
        tail: String::new(),
        max_output_tokens: 1,
        stall: std::time::Duration::from_secs(1),
    }
}

fn runs() -> usize {
    std::env::var("TINKERBELL_CANARY_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

#[test]
fn no_canary_leaves_in_words() {
    let mut cells: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    let mut known = Known::new();
    for number in 0..runs() {
        let run = Run::of(number);
        assert!(run.found_in(run.text.as_bytes()).is_some(), "{number}: nothing to find");
        if number % SAME == 0 {
            known = Known::new();
        }
        known.learn(run.values.iter().map(|(name, value)| (name.clone(), Secret::shared(value))));
        let (sink, leave) = SINKS[number / (CHANNELS.len() * FORMS.len()) % SINKS.len()];
        let left = leave(&run.text, &known);
        if let Some(found) = run.found_in(&left) {
            panic!("run {number}, {sink}: {found} in\n{}\nfrom\n{}", String::from_utf8_lossy(&left), run.text);
        }
        assert!(String::from_utf8_lossy(&left).contains("[secret "), "{number}, {sink}: something arrives");
        run.leaks.iter().for_each(|(channel, form, _)| *cells.entry((channel, form, sink)).or_default() += 1);
    }
    let all = CHANNELS.len() * FORMS.len() * SINKS.len();
    eprintln!("{} runs, {} leaks, {} of {all} cells of channel, form and sink", runs(), cells.values().sum::<usize>(), cells.len());
    assert!(runs() < all || cells.len() == all, "{} of {all}", cells.len());
}
