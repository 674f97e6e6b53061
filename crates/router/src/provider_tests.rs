//! Rules of resolving names; see `provider`.

use super::*;
use crate::options::Model;
use std::collections::BTreeMap;
use std::sync::Arc;

fn env(pairs: &'static [(&'static str, &'static str)]) -> Environment {
    Arc::new(move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| tinkerbell_secret::Secret::shared(*value)))
}

fn local(wire: Wire, url: &str) -> Options {
    let provider = Provider { wire: Some(wire), base_url: Some(url.to_owned()), ..Provider::default() };
    Options { providers: BTreeMap::from([("local".to_owned(), provider)]), ..Options::default() }
}

#[test]
fn addresses_get_their_version_and_slash() {
    for (wire, url, base, host) in [
        (Wire::Openai, "http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/", "127.0.0.1:8080"),
        (Wire::Openai, "http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1/", "127.0.0.1:8080"),
        (Wire::Openai, "https://x.example/api/v9//", "https://x.example/api/v9/", "x.example"),
        (Wire::Anthropic, "https://proxy.example", "https://proxy.example/v1/", "proxy.example"),
        (Wire::Gemini, "https://g.example/", "https://g.example/v1beta/", "g.example"),
        (Wire::Ollama, "0.0.0.0:11500", "http://127.0.0.1:11500/v1/", "127.0.0.1:11500"),
        (Wire::Ollama, ":11500", "http://127.0.0.1:11500/v1/", "127.0.0.1:11500"),
        (Wire::Ollama, "gpu-box", "http://gpu-box:11434/v1/", "gpu-box:11434"),
        (Wire::Openai, "http://[::1]:9", "http://[::1]:9/v1/", "[::1]:9"),
    ] {
        let target = resolve("local/m", &local(wire, url), &env(&[])).unwrap();
        assert_eq!((target.base_url.as_str(), target.host.as_str()), (base, host), "{url}");
        let free = target.card.price == Some(Price::default());
        assert_eq!(free, target.is_local, "{url}");
    }
    for url in ["", "not an address", "ftp://x/", "http://"] {
        assert_eq!(resolve("local/m", &local(Wire::Openai, url), &env(&[])).unwrap_err().code.0, "TB-ROUTER-011", "{url}");
    }
}

#[test]
fn openai_speaks_responses_only_at_home() {
    let none = Options::default();
    let home = resolve("openai/gpt-5", &none, &env(&[])).unwrap();
    assert_eq!((home.wire, home.needs_key, home.card.price.is_some()), (Wire::OpenaiResponses, true, true));
    let away = resolve("openai/gpt-5", &none, &env(&[("OPENAI_BASE_URL", "https://other.example/v1")])).unwrap();
    assert_eq!((away.wire, away.needs_key, away.card.price), (Wire::Openai, true, None));
    let near = resolve("openai/gpt-5", &none, &env(&[("OPENAI_BASE_URL", "http://localhost:1234/v1")])).unwrap();
    assert_eq!((near.wire, near.needs_key, near.card.price), (Wire::Openai, false, Some(Price::default())));
}

#[test]
fn wrong_names_get_a_suggestion() {
    for (name, hint) in [
        ("antropic/claude-sonnet-5", "did you mean `anthropic/claude-sonnet-5`?"),
        ("gpt-5", "did you mean `openai/gpt-5`?"),
        ("loca/qwen", "did you mean `local/qwen`?"),
        ("qwen", "known providers"),
        ("local/", "known providers"),
    ] {
        let fault = resolve(name, &local(Wire::Openai, "http://127.0.0.1:1/"), &env(&[])).unwrap_err();
        assert_eq!(fault.code.0, "TB-ROUTER-002");
        assert!(fault.hints.iter().any(|line| line.contains(hint)), "{name}: {:?}", fault.hints);
    }
}

#[test]
fn configuration_overrides_the_table() {
    let model = Model {
        context_tokens: Some(9_000),
        input_usd_per_mtok: Some(0.5),
        output_usd_per_mtok: Some(2.0),
        tools: Some(Tools::JsonSchema),
        ..Model::default()
    };
    let mut options = local(Wire::Openai, "http://127.0.0.1:1/");
    options.models.insert("local/qwen/coder".to_owned(), model);
    let target = resolve("local/qwen/coder", &options, &env(&[])).unwrap();
    assert_eq!((target.model.as_str(), target.card.context_tokens, target.card.tools), ("qwen/coder", 9_000, ToolMode::JsonSchema));
    let price = target.card.price.unwrap();
    assert_eq!((price.input_pico, price.cached_pico, price.output_pico), (500_000, 500_000, 2_000_000));
}

#[test]
fn names_that_a_wire_would_mangle_are_refused() {
    let fault = resolve("anthropic/claude-opus-5-high", &Options::default(), &env(&[])).unwrap_err();
    assert_eq!(fault.code.0, "TB-ROUTER-011");
    assert!(resolve("openai/some-model-high", &Options::default(), &env(&[])).is_ok());
}

#[test]
fn a_key_may_be_a_configured_secret_and_never_stands_in_the_file() {
    let mut options = local(Wire::Openai, "https://h.example/");
    let with = |options: &mut Options, key: &str| options.providers.values_mut().for_each(|own| own.api_key = Some(key.to_owned()));
    with(&mut options, "secret:mine");
    let target = resolve("local/m", &options, &env(&[])).unwrap();
    assert_eq!((target.keys, target.needs_key), (vec!["secret:mine".to_owned()], true));
    with(&mut options, "sk-the-key-itself");
    let fault = resolve("local/m", &options, &env(&[])).unwrap_err();
    assert_eq!(fault.code.0, "TB-SECRET-003");
    assert!(!format!("{fault:?}").contains("sk-the-key-itself"));
}
