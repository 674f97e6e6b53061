//! The failures a user can meet here, with their codes and what to do.
//!
//! Texts only. Invariant: no text here is ever built from a key, a header or a prompt.

use tinkerbell_core::code::{Fault, exit};

/// No provider is configured or found; the lines say what was looked for.
pub fn no_provider(looked_for: &str) -> Fault {
    Fault::new("TB-ROUTER-001", exit::NO_AUTH, "no model provider is configured")
        .hint(format!("looked for: {looked_for}"))
        .hint("export ANTHROPIC_API_KEY=…              use a hosted model")
        .hint("ollama serve && ollama pull <model>     use a local model, free")
        .hint("tinkerbell demo                         see it work without any model")
}

/// A name that is no `provider/model`, or whose provider nobody knows.
pub fn unknown_provider(model: &str, known: &[String], near: Option<&str>) -> Fault {
    let fault = Fault::new("TB-ROUTER-002", exit::CONFIG, format!("`{model}` names no known provider"));
    let fault = match near {
        Some(near) => fault.hint(format!("did you mean `{near}`?")),
        None => fault,
    };
    fault.hint(format!("known providers: {}", known.join(", "))).hint("add one as [providers.NAME] with `wire` and `base_url`")
}

/// The provider does not have the model.
pub fn unknown_model(model: &str, host: &str, detail: &str) -> Fault {
    Fault::new("TB-ROUTER-003", exit::CONFIG, format!("{host} has no model `{model}`{}", tail(detail)))
        .hint("check the name after the first `/`; the provider's own list has the exact spelling")
}

/// The provider refused the key.
pub fn key_refused(host: &str, status: u16, key_env: Option<&str>) -> Fault {
    let which = key_env.map(|name| format!(" of {name}")).unwrap_or_default();
    let fault = Fault::new("TB-ROUTER-004", exit::NO_AUTH, format!("{host} refused the key{which} ({status})"));
    match key_env {
        Some(name) => fault.hint(format!("set {name} to a valid key of this provider, then `tinkerbell resume`")),
        None => fault.hint("this provider wants a key: set `api_key_env` under [providers.NAME]"),
    }
}

/// A key stands where a secret's name belongs; the key is not repeated.
pub fn key_in_configuration(provider: &str) -> Fault {
    let message =
        format!("`api_key` of provider `{provider}` must name a secret, as `secret:NAME`; a key does not belong into the configuration");
    Fault::new("TB-SECRET-003", exit::CONFIG, message)
        .hint("[secrets.NAME] file = \"/path\", a file of mode 600 that holds the key")
        .hint("or name a variable: `api_key_env` under [providers.NAME]")
}

/// The provider refused the request itself.
pub fn request_refused(host: &str, status: u16, detail: &str) -> Fault {
    Fault::new("TB-ROUTER-005", exit::FAILED, format!("{host} refused the request ({status}){}", tail(detail)))
        .hint("the model may lack a feature that was asked for: try `tools = \"json-schema\"` under [models.\"provider/model\"]")
}

/// The account's quota is spent, or the provider asks for more patience than we have.
pub fn quota(host: &str, wait: &str) -> Fault {
    Fault::new("TB-ROUTER-006", exit::UNAVAILABLE, format!("the quota at {host} is spent{}", tail(wait)))
        .hint("raise the limit at the provider, or choose another model with `-m`; the task asks again by itself, and at once after `tinkerbell resume`")
        .transient()
}

/// The provider could not be reached.
pub fn unreachable(host: &str, tries: u32, detail: &str) -> Fault {
    Fault::new("TB-ROUTER-007", exit::UNAVAILABLE, format!("{host} can not be reached after {tries} tries{}", tail(detail)))
        .hint("check that the server runs and that `base_url` is right")
        .transient()
}

/// The provider sent answers that can not be used.
pub fn broken(host: &str, tries: u32, detail: &str) -> Fault {
    Fault::new("TB-ROUTER-008", exit::UNAVAILABLE, format!("{host} gave no usable answer in {tries} tries{}", tail(detail)))
        .hint("the last reason is above; a model without tool calls wants `tools = \"json-schema\"`")
        .transient()
}

/// The provider is overloaded or limits the rate.
pub fn overloaded(host: &str, tries: u32, (status, detail): (u16, &str)) -> Fault {
    Fault::new(
        "TB-ROUTER-009",
        exit::UNAVAILABLE,
        format!("{host} is overloaded or limits the rate ({status}) after {tries} tries{}", tail(detail)),
    )
    .hint("the task asks again by itself; at once with `tinkerbell resume`; or choose another model with `-m`")
    .transient()
}

/// A replay has no turn left, or its recording can not be read.
pub fn replay(detail: impl Into<String>) -> Fault {
    Fault::new("TB-ROUTER-010", exit::CONFIG, detail).hint("record more turns, or correct `path` under [providers.NAME]")
}

/// A provider's or model's configuration that can not work.
pub fn configuration(detail: impl Into<String>, hint: &str) -> Fault {
    Fault::new("TB-ROUTER-011", exit::CONFIG, detail).hint(hint)
}

/// The HTTP client could not be made.
pub fn no_client(detail: &str) -> Fault {
    Fault::new("TB-ROUTER-012", exit::CONFIG, format!("no secure connections can be made{}", tail(detail)))
        .hint("install the system's CA certificates (package ca-certificates), or set SSL_CERT_FILE to a bundle")
}

/// The process that speaks to providers says nothing, or nothing that can be used.
pub fn courier_mute(detail: &str) -> Fault {
    Fault::new("TB-ROUTER-020", exit::UNAVAILABLE, format!("the courier gives no answer{}", tail(detail)))
        .hint("`tinkerbell resume TASK` goes on; what it has of the answer is kept")
        .hint("`tinkerbell doctor` shows the courier")
        .transient()
}

/// The answer can not be written down as it comes.
pub fn spool(detail: &str) -> Fault {
    Fault::new("TB-ROUTER-022", exit::UNAVAILABLE, format!("the model's answer can not be kept on disk{}", tail(detail)))
        .hint("make room in the data directory, then `tinkerbell resume TASK`")
        .transient()
}

fn tail(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}
