//! Layers, origins and mistakes, as a reader of the messages sees them.

use super::load::merge;
use super::options::{KEYS, PROJECT_KEYS};
use super::*;
use crate::environment::Environment;

fn file(name: &str, text: &str) -> Layer {
    Layer { name: name.to_owned(), text: text.to_owned(), is_file: true }
}

fn check_mistake(text: &str, wanted: &str) {
    let fault = merge(&[file("c.toml", text)], false).unwrap_err();
    let shown = format!("{}\n{}", fault.message, fault.hints.join("\n"));
    assert!(shown.contains(wanted), "{text} gave: {shown}");
    assert_eq!(fault.exit, 78);
}

#[test]
fn mistakes_are_shown_where_they_are() {
    check_mistake("modle = \"a/b\"", "c.toml:1:1: there is no key `modle`");
    check_mistake("modle = \"a/b\"", "did you mean `model`?");
    check_mistake("[sandbox]\nlevel = \"ful\"", "c.toml:2:9");
    check_mistake("[sandbox]\nlevl = \"full\"", "c.toml:2:1: there is no key `sandbox.levl`");
    check_mistake("[providers.local]\nwire = \"openai\"\nbase-url = \"http://x\"", "did you mean `providers.local.base_url`?");
    check_mistake("model = ", "c.toml:1:");
    check_mistake("[limits]\nmax_steps = \"many\"", "c.toml:2:13");
    check_mistake("[sandbox]\nlevel = { deep = 1 }", "c.toml:2");
}

#[test]
fn later_layers_win_key_by_key_and_origins_tell() {
    let loaded = merge(
        &[
            file("low.toml", "model = \"a/b\"\n[sandbox]\nlevel = \"full\"\nread = [\"/opt\"]\n"),
            file("high.toml", "[sandbox]\nlevel = \"landlock\"\n"),
            Layer { name: "TINKERBELL_LIMITS__MAX_STEPS".into(), text: "limits.max_steps = 7".into(), is_file: false },
        ],
        false,
    )
    .unwrap();
    assert_eq!(loaded.config.sandbox.level, options::Level::Landlock);
    assert_eq!(loaded.config.sandbox.read, [std::path::PathBuf::from("/opt")]);
    assert_eq!(loaded.config.limits.max_steps, Some(7));
    let origin = &loaded.origins["sandbox.level"];
    assert_eq!((origin.place.as_str(), origin.over.as_slice()), ("high.toml:2", &["low.toml:3".to_owned()][..]));
    assert_eq!(loaded.origins["limits.max_steps"].place, "TINKERBELL_LIMITS__MAX_STEPS");
}

#[test]
fn variables_and_options_become_layers() {
    let dir = tempfile::tempdir().unwrap();
    let sources =
        Sources { system: dir.path().join("etc"), user: dir.path().join("none.toml"), set: vec!["model=a/b".into()], lenient: false };
    let env = Environment::of(&[("TINKERBELL_SANDBOX__LEVEL", "landlock"), ("TINKERBELL_HOME", "/x")]);
    let loaded = load(&sources, &env).unwrap();
    assert_eq!(loaded.config.model.as_deref(), Some("a/b"));
    assert_eq!(loaded.config.sandbox.level, options::Level::Landlock);
    let bad = Sources { set: vec!["model".into()], ..sources };
    assert_eq!(load(&bad, &env).unwrap_err().exit, 2);
}

#[test]
fn lenient_reading_only_warns_of_unknown_keys() {
    let loaded = merge(&[file("c.toml", "modle = 1")], true).unwrap();
    assert_eq!(loaded.warnings, ["c.toml: there is no key `modle`"]);
}

#[test]
fn a_project_may_only_tighten() {
    let parse = |text: &str| project::parse(file(".tinkerbell/config.toml", text));
    assert_eq!(parse("[verify]\ncommand = \"make test\"").unwrap().config.verify.command.as_deref(), Some("make test"));
    for text in [
        "model = \"evil/x\"",
        "[sandbox]\nlevel = \"none\"",
        "[providers.openai]\nbase_url = \"http://evil\"",
        "[workspace]\nignored = \"keep\"",
    ] {
        let fault = parse(text).unwrap_err();
        assert_eq!((fault.code.0, fault.exit), ("TB-CONFIG-006", 78), "{text}");
    }
}

/// A repository's file is anybody's bytes: whatever they are, they are understood, and set nothing but what a
/// project may set, or they are refused with a place.
#[test]
fn any_bytes_of_a_project_are_understood_or_refused() {
    let seeds = [
        "[verify]\ncommand = \"make test\"\n",
        "[limits]\nmax_steps = 3\nmax_cost_usd = 0.5\n",
        "a.b.'c' = [{x = 1}, 2e3]\n",
        "[[x]]\n[x.y]\n",
    ];
    let bytes: Vec<&[u8]> = seeds.iter().map(|seed| seed.as_bytes()).collect();
    tinkerbell_testkit::hammer::hammer(&bytes, 5_000, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        match project::parse(file("p.toml", text)) {
            Ok(_) => {
                let table: toml::Table = text.parse().unwrap();
                let allowed = |section: &str| PROJECT_KEYS.iter().any(|key| key.split('.').next() == Some(section));
                assert!(table.iter().all(|(section, value)| allowed(section) || value.as_table().is_some_and(toml::Table::is_empty)));
            }
            Err(fault) => assert!(fault.code.0.starts_with("TB-CONFIG-") && fault.message.contains("p.toml"), "{fault:?}"),
        }
    });
}

#[test]
fn every_key_is_read_by_a_type() {
    for key in &KEYS {
        let path = key.path.replace('*', "name");
        // `version` is for people and later releases.
        if path == "version" {
            continue;
        }
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        let leaf = path.split('.').rfind(|part| *part != "name").unwrap();
        assert!(schema.to_string().contains(&format!("\"{leaf}\"")), "{path} is in no type");
        assert!(!key.meaning.is_empty());
    }
    assert!(PROJECT_KEYS.iter().all(|path| KEYS.iter().any(|key| key.path == *path)));
}

#[test]
fn limits_come_from_the_request_then_the_file_then_the_defaults() {
    let asked = Caps { steps: Some(3), ..Caps::default() };
    let mut config = Config::default();
    config.limits.budget = Some("1usd".into());
    let caps_of = |config: &Config, priced| caps(config, &asked, priced, "a/b").unwrap();
    assert_eq!(caps_of(&config, true).nano_usd, Some(1_000_000_000));
    assert_eq!((caps_of(&config, true).steps, caps_of(&config, true).tokens), (Some(3), None));
    assert_eq!((caps_of(&config, false).nano_usd, caps_of(&config, false).tokens), (None, Some(TOKENS)));
    let money = Caps { nano_usd: Some(1), ..Caps::default() };
    assert_eq!(caps(&config, &money, false, "a/b").unwrap_err().code.0, "TB-CONFIG-005");
    config.limits.max_wall_time = Some("soon".into());
    assert_eq!(caps(&config, &asked, true, "a/b").unwrap_err().code.0, "TB-CONFIG-004");
}

#[test]
fn limits_of_commands_come_from_the_request_then_the_file_and_are_the_hosts_by_default() {
    let mut config = Config::default();
    let asked = Caps { cpu_ms: Some(7), ..Caps::default() };
    let none = caps(&config, &Caps::default(), true, "a/b").unwrap();
    assert_eq!((none.cpu_ms, none.disk_bytes, none.processes, none.memory_bytes), (None, None, None, None));
    config.limits.max_cpu = Some("2h".into());
    config.limits.max_disk = Some("5GiB".into());
    config.limits.max_processes = Some(9);
    config.limits.max_memory = Some("1GiB".into());
    let found = caps(&config, &asked, true, "a/b").unwrap();
    assert_eq!((found.cpu_ms, found.disk_bytes, found.processes, found.memory_bytes), (Some(7), Some(5 << 30), Some(9), Some(1 << 30)));
    assert_eq!(caps(&config, &Caps::default(), true, "a/b").unwrap().cpu_ms, Some(7_200_000));
    config.limits.max_disk = Some("much".into());
    assert_eq!(caps(&config, &asked, true, "a/b").unwrap_err().code.0, "TB-CONFIG-004");
    let limits = sandbox_limits(&config, 1_000 << 20).unwrap();
    assert_eq!((limits.memory_bytes, limits.processes, limits.disk_bytes), (Some(786_432_000), Some(4_096), Some(20 << 30)));
    for (memory, processes) in [("0%", 9), ("101%", 9), ("1MiB", 9), ("lots", 9), ("1GiB", 1)] {
        config.sandbox.memory = Some(memory.into());
        config.sandbox.processes = Some(processes);
        assert_eq!(sandbox_limits(&config, 1 << 34).unwrap_err().code.0, "TB-CONFIG-004", "{memory} {processes}");
    }
}

#[test]
fn durations_are_read_as_people_write_them() {
    for (text, ms) in [("90s", 90_000), ("15m", 900_000), ("4h", 14_400_000), ("30", 30_000), ("1d", 86_400_000)] {
        assert_eq!(duration_ms(text), Ok(ms), "{text}");
    }
    for text in ["", "h", "-1s", "4 hours", "99999999999999999999h"] {
        assert!(duration_ms(text).is_err(), "{text}");
    }
}
