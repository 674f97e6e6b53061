//! The two tools' plans: what guard and recovery are told of a call.

use super::*;
use crate::bench::NoSandbox;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tinkerbell_testkit::fake;

fn desks() -> Arc<Desks> {
    let server = Server {
        name: "files".into(),
        command: vec!["/bin/none".into()],
        env: Vec::new(),
        network: None,
        reads: true,
        writes: false,
        read: Vec::new(),
        tools: None,
        read_only: BTreeSet::from(["read".to_owned()]),
        timeout: Duration::from_secs(1),
        fault: None,
    };
    let places = (PathBuf::from("/nowhere/homes"), PathBuf::from("/nowhere/mcp"));
    Desks::new(Arc::new(NoSandbox), Arc::new(fake::FakeClock::default()), places, Arc::new(move || vec![server.clone()]))
}

#[test]
fn a_call_is_planned_by_the_operators_word_alone() {
    let tool = Use(desks());
    for (args, class, name) in [
        (r#"{"tool":"files.read"}"#, EffectClass::Adoptable(Fallback::Pure), "files.read"),
        (r#"{"tool":"files.write","args":{"a":1}}"#, EffectClass::Adoptable(Fallback::Unsafe), "files.write"),
        (r#"{"tool":"files.read.more"}"#, EffectClass::Adoptable(Fallback::Unsafe), "files.read.more"),
        (r#"{"tool":"other.read"}"#, EffectClass::Pure, ""),
        (r#"{"tool":"read"}"#, EffectClass::Pure, ""),
        (r#"{"tool":"files.read","more":1}"#, EffectClass::Pure, ""),
        ("[]", EffectClass::Pure, ""),
    ] {
        let plan = tool.plan(args);
        assert_eq!((plan.class, plan.mcp.map(|mcp| mcp.name()).unwrap_or_default().as_str()), (class, name), "{args}");
    }
    assert_eq!(Search(desks()).plan("{}").mcp, None);
}

#[test]
fn both_tools_have_valid_schemas() {
    for tool in all(&desks()) {
        let schema: serde_json::Value = serde_json::from_str(tool.spec().schema).unwrap();
        assert_eq!(schema["additionalProperties"], serde_json::Value::Bool(false), "{}", tool.spec().name);
    }
}
