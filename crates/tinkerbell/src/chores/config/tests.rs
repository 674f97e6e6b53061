//! What `config` prints for small sets of layers.

use super::super::bench::{Bench, Heard};
use super::*;

fn shown(bench: &Bench, origin: bool) -> String {
    let heard = Heard::new();
    let pending = BTreeSet::from(["workspace.ignored".to_owned()]);
    assert_eq!(print(&bench.shop(), (origin, false), &pending, &heard.out), Ok(exit::DONE));
    bench.plain(&heard.data())
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("etc/config.toml", "model = \"low/x\"\n[limits]\nmax_steps = 50\n");
    let user = "model = \"local/q\"\n[providers.local]\nwire = \"openai\"\nbase_url = \"http://me:pw@127.0.0.1:8080/v1\"\nheaders = { x-key = \"secret\" }\n\
        [models.\"local/q\"]\ncontext_tokens = 32768\n";
    bench.write("home/config.toml", user);
    bench.write("work/.git/HEAD", "ref: refs/heads/main\n");
    bench
}

#[test]
fn each_value_is_shown_with_its_place_and_what_it_replaced() {
    let bench = bench();
    bench.write("work/.tinkerbell/config.toml", "[verify]\ncommand = \"make test\"\n[limits]\nmax_steps = 20\nbudget = \"9usd\"\n");
    assert!(!shown(&bench, true).contains("make test"), "a check that nobody trusts is not in force");
    super::super::trust::trust_own(&bench.shop(), &bench.cwd).unwrap();
    let text = shown(&bench, true);
    for line in [
        "model = \"local/q\"                      # /t/home/config.toml:1 (over /t/etc/config.toml:1)",
        "limits.max_steps = 20                  # /t/work/.tinkerbell/config.toml:4 (over /t/etc/config.toml:3)",
        "limits.budget = \"5usd\"                 # built-in",
        "verify.command = \"make test\"           # /t/work/.tinkerbell/config.toml:2",
        "models.\"local/q\".context_tokens = 32768  # /t/home/config.toml:7",
    ] {
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.lines().any(|shown| squeeze(shown) == squeeze(line)), "{line}\nnot in\n{text}");
    }
    assert!(!text.contains("secret") && !text.contains("pw@"), "{text}");
}

#[test]
fn plain_values_are_toml_again() {
    let text = shown(&bench(), false);
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(table["limits"]["max_steps"].as_integer(), Some(50));
    assert!(text.contains("workspace.ignored = \"skip\"  # counts after a restart of the daemon\n"), "{text}");
    assert_eq!(table["models"]["local/q"]["context_tokens"].as_integer(), Some(32_768));
    let heard = Heard::new();
    print(&bench().shop(), (true, true), &BTreeSet::new(), &heard.out).unwrap();
    let json: serde_json::Value = serde_json::from_str(&heard.data()).unwrap();
    assert_eq!((json["limits.max_steps"]["value"].as_u64(), json["sandbox.level"]["origin"].as_str()), (Some(50), Some("built-in")));
}

#[test]
fn the_built_in_values_are_those_that_hold() {
    let mut config = Config::default();
    let caps = |config: &Config, priced| config::caps(config, &Caps::default(), priced, "").unwrap();
    let silent = (caps(&config, true), caps(&config, false));
    let value = |key: &str| BUILT_IN.iter().find(|(known, _)| *known == key).unwrap().1.trim_matches('"').to_owned();
    config.limits.budget = Some(value("limits.budget"));
    config.limits.max_steps = value("limits.max_steps").parse().ok();
    config.limits.max_wall_time = Some(value("limits.max_wall_time"));
    assert_eq!(caps(&config, true), silent.0);
    assert_eq!(silent.1.tokens, value("limits.max_tokens").parse().ok());
    config.sandbox.memory = Some(value("sandbox.memory"));
    config.sandbox.processes = value("sandbox.processes").parse().ok();
    config.sandbox.disk = Some(value("sandbox.disk"));
    assert_eq!(config::sandbox_limits(&config, 1 << 33).unwrap(), config::sandbox_limits(&Config::default(), 1 << 33).unwrap());
}

#[test]
fn every_mistake_is_named() {
    let bench = bench();
    let heard = Heard::new();
    assert_eq!(validate(&bench.shop(), &heard.out), Ok(exit::DONE));
    assert!(heard.data().starts_with("no mistakes in 2 files"), "{}", heard.data());
    bench.write("work/.tinkerbell/config.toml", "model = \"evil/x\"\n");
    bench.write("home/config.toml", "modle = \"x\"\n");
    let fault = validate(&bench.shop(), &heard.out).unwrap_err();
    assert_eq!((fault.code.0, fault.exit), ("TB-CONFIG-002", exit::CONFIG));
    assert!(heard.talk().contains("error[TB-CONFIG-006]"), "{}", heard.talk());
    bench.write("work/.tinkerbell/config.toml", "");
    bench.write("home/config.toml", "model = \"nobody/x\"\n[limits]\nbudget = \"much\"\n");
    assert_eq!(validate(&bench.shop(), &heard.out).unwrap_err().exit, exit::CONFIG);
    assert!(heard.talk().contains("error[TB-CONFIG-004]"), "{}", heard.talk());
}

#[test]
fn schema_and_places_are_printed() {
    let (bench, heard) = (bench(), Heard::new());
    schema(&heard.out).unwrap();
    let value: serde_json::Value = serde_json::from_str(&heard.data()).unwrap();
    assert!(value["properties"]["providers"].is_object());
    let heard = Heard::new();
    path(&bench.shop(), &heard.out).unwrap();
    let text = bench.plain(&heard.data());
    assert!(text.contains("user     /t/home/config.toml\n"), "{text}");
    assert!(text.contains("project  /t/work/.tinkerbell/config.toml  (not there)\n"), "{text}");
}

#[test]
fn names_are_quoted_where_toml_needs_it() {
    for (path, wanted) in [
        ("model", "model"),
        ("models.local/q.tools", "models.\"local/q\".tools"),
        ("models.openai/gpt-4.1.tools", "models.\"openai/gpt-4.1\".tools"),
        ("providers.local.wire", "providers.local.wire"),
        ("providers.local.headers.x-key", "providers.local.headers.x-key"),
    ] {
        assert_eq!(spelled(path), wanted);
    }
}
