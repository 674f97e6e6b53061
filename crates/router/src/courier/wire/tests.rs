//! Version 1 of the conversation holds: golden bytes, and orders that come over as they were.

use super::super::convert::{self, Words};
use super::*;
use crate::desk::Order as House;
use crate::options::{Options, Pacing};
use crate::provider::{Environment, resolve};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::event::PartKind;
use tinkerbell_core::model::{Message as Spoke, ModelCall};
use tinkerbell_core::tool::ToolSpec;
use tinkerbell_core::words::TaskId;

fn order() -> House {
    let env: Environment = Arc::new(|_| None);
    let mut target = resolve("anthropic/claude-sonnet-5", &Options::default(), &env).unwrap();
    target.headers = vec![("x-team".into(), "red".into())];
    target.reasoning = Some(crate::options::Reasoning::High);
    // What only the daemon reads does not travel.
    target.needs_key = false;
    target.card.price = None;
    target.card.edits = tinkerbell_core::model::EditStyle::Replace;
    let part = Part { kind: PartKind::Text as i32, text: "I look".into(), ..Part::default() };
    let call = ModelCall {
        task: TaskId(0x2a),
        seq: 7,
        attempt: 1,
        model: "anthropic/claude-sonnet-5".into(),
        system: "You build.".into(),
        tools: vec![ToolSpec { name: "read", description: "Reads.", schema: "{}" }],
        messages: vec![
            Spoke::User("Go.".into()),
            Spoke::Assistant { parts: vec![part], made: Some(Made::default()) },
            Spoke::Tool { call_id: "c".into(), tool: "read".into(), text: "fine".into() },
        ],
        tail: "now".into(),
        max_output_tokens: 1_000,
        stall: Duration::from_secs(60),
    };
    House {
        call,
        target,
        key: Some(tinkerbell_secret::Secret::shared("k")),
        network: vec![("NO_PROXY".into(), tinkerbell_secret::Secret::shared("*"))],
        secrets: vec![("A_KEY".into(), tinkerbell_secret::Secret::shared("k"))],
        pacing: Pacing::default(),
    }
}

fn requests() -> Vec<Request> {
    let hello = Hello { wire: VERSION, release: "0.1.0".into() };
    let attach = Attach { id: "0000000000000000000000000000002a-7-1".into(), from: 3 };
    let all = [
        Wanted::Hello(hello),
        Wanted::Order(Box::new(convert::order(&order()))),
        Wanted::Attach(attach),
        Wanted::Cancel("0000000000000000000000000000002a-7-1".into()),
        Wanted::Leave(Nothing {}),
    ];
    all.into_iter().map(|wanted| Request { wanted: Some(wanted) }).collect()
}

fn replies() -> Vec<Reply> {
    let welcome = Welcome { wire: VERSION, release: "0.1.0".into(), pid: 42, calls: 1 };
    let event = Event::of(super::super::format::Kind::Text("hello".into()));
    let all = [
        Said::Welcome(welcome),
        Said::Event(event),
        Said::Unknown(Nothing {}),
        Said::Alive(Nothing {}),
        Said::Done(Nothing {}),
        Said::Leaving(Nothing {}),
        Said::Refused("no".into()),
    ];
    all.into_iter().map(|said| Reply { said: Some(said) }).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn messages_of_version_1_are_read() {
    let lines: Vec<String> =
        requests().iter().map(|m| hex(&m.encode_to_vec())).chain(replies().iter().map(|m| hex(&m.encode_to_vec()))).collect();
    let golden = include_str!("../../../tests/golden/v1/courier-wire.txt");
    assert_eq!(lines.join("\n"), golden.trim_end(), "what is sent now is the golden form");
    for request in requests() {
        assert_eq!(Request::decode(&request.encode_to_vec()[..]).unwrap(), request);
    }
    for reply in replies() {
        assert_eq!(Reply::decode(&reply.encode_to_vec()[..]).unwrap(), reply);
    }
}

#[test]
fn an_order_comes_over_as_it_was() {
    let sent = order();
    let Ok(read) = convert::read_order(convert::order(&sent), &Words::default()) else { panic!("not read") };
    assert!(read == sent, "{:?}\n{:?}", read.call, read.target);
}

#[test]
fn an_order_that_is_not_understood_is_refused() {
    let whole = convert::order(&order());
    let words = Words::default();
    let refused = |change: &dyn Fn(&mut Order)| {
        let mut order = whole.clone();
        change(&mut order);
        convert::read_order(order, &words).err().unwrap()
    };
    assert!(refused(&|order| order.id = "../x".into()).contains("id"));
    assert!(refused(&|order| order.call = None).contains("call"));
    assert!(refused(&|order| order.pacing = None).contains("limits"));
    assert!(refused(&|order| order.target.as_mut().unwrap().wire = "smoke".into()).contains("smoke"));
    assert!(refused(&|order| order.target.as_mut().unwrap().reasoning = "deep".into()).contains("deep"));
    assert!(refused(&|order| order.call.as_mut().unwrap().messages.push(Message { spoken: None })).contains("kind"));
}
