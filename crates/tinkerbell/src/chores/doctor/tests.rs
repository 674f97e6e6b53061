//! The report as people and programs see it, from plain values; and the quick parts on a bare home.

use super::super::bench::Bench;
use super::report::{Finding, Group};
use super::*;
use expect_test::expect;
use tinkerbell_executor::{Check, LevelChoice, WorkspaceChoice};

fn report() -> Report {
    Report {
        groups: vec![
            Group { name: "Daemon", findings: vec![Finding::good("daemon", "not running"), Finding::good("socket", "/home/me/run/s")] },
            Group {
                name: "Models",
                findings: vec![
                    Finding::look("local", "refused, key was sk-1234", "start that server"),
                    Finding::bad("choice", "no model\nprovider", "export ANTHROPIC_API_KEY=KEY")
                        .with(vec!["looked at /home/me/x".to_owned()]),
                ],
            },
        ],
    }
}

fn drawn(report: &Report, is_ascii: bool) -> String {
    report.lines(&Style { is_ascii, is_verbose: false, paint: &|_, text| text.to_owned() }).join("\n")
}

#[test]
fn findings_are_grouped_and_each_fault_has_its_repair() {
    let clean = report()
        .redacted(&[("LOCAL_KEY".to_owned(), tinkerbell_secret::Secret::shared("sk-1234"))], Some(std::path::Path::new("/home/me")));
    expect![[r#"
        Daemon
          ✓ daemon  not running
          ✓ socket  ~/run/s
        Models
          ⚠ local   refused, key was (LOCAL_KEY)
                    fix: start that server
          ✗ choice  no model provider
                    looked at ~/x
                    fix: export ANTHROPIC_API_KEY=KEY
        2 ✓   1 ⚠   1 ✗"#]]
    .assert_eq(&drawn(&clean, false));
    assert!(drawn(&clean, true).is_ascii());
    assert_eq!(clean.exit(), 1);
    let json = clean.as_json();
    assert_eq!((json["ok"].as_bool(), json["groups"][1]["findings"][1]["status"].as_str()), (Some(false), Some("error")));
    assert_eq!(json["counts"]["ok"].as_u64(), Some(2));
}

#[test]
fn a_report_holds_a_secret_in_no_form() {
    let report =
        Report { groups: vec![Group { name: "Models", findings: vec![Finding::look("a", "c2VjcmV0LXZhbHVlLTE= secret-value-1", "x")] }] };
    let secrets = [("KEY".to_owned(), tinkerbell_secret::Secret::shared("secret-value-1"))];
    let text = drawn(&report.redacted(&secrets, None), false);
    assert!(text.contains("[secret KEY]") && !text.contains("c2VjcmV0") && !text.contains("secret-value"), "{text}");
}

#[test]
fn the_level_of_a_task_follows_from_the_checks() {
    let check = |passed| Check { name: "write outside".into(), passed, text: "EPERM".into() };
    let probed = |full, landlock| tinkerbell_executor::Report {
        version: 1,
        key: "k".into(),
        full: vec![check(full)],
        landlock: vec![check(landlock)],
        overlay: vec![check(full)],
    };
    for (full, landlock, choice, wanted, exit) in [
        (true, true, LevelChoice::Auto, "level full", 0),
        (false, true, LevelChoice::Auto, "level landlock", 0),
        (false, false, LevelChoice::Auto, "TB-SANDBOX-001", 1),
        (false, true, LevelChoice::Full, "TB-SANDBOX-002", 1),
        (false, false, LevelChoice::None, "level none", 0),
    ] {
        let findings = sandbox::judged(&probed(full, landlock), (choice, WorkspaceChoice::Auto));
        let report = Report { groups: vec![Group { name: "Sandbox", findings }] };
        let text = drawn(&report, true);
        assert!(text.contains(wanted), "{text}");
        assert_eq!(report.exit(), exit, "{text}");
        assert_eq!(text.contains("the check to a layer"), wanted == "level full", "{text}");
    }
    for (full, workspace, wanted, exit) in [
        (true, WorkspaceChoice::Overlay, "to layers", 0),
        (true, WorkspaceChoice::Direct, "commands write  directly to the worktree", 0),
        (false, WorkspaceChoice::Overlay, "TB-SANDBOX-004", 1),
    ] {
        let findings = sandbox::judged(&probed(full, true), (LevelChoice::Auto, workspace));
        let report = Report { groups: vec![Group { name: "Sandbox", findings }] };
        let text = drawn(&report, true);
        assert!(text.contains(wanted), "{text}");
        assert_eq!(report.exit(), exit, "{text}");
    }
}

#[tokio::test]
async fn a_bare_home_is_in_order_and_a_broken_one_is_told() {
    let bench = Bench::new();
    let shop = bench.shop();
    let quick = |loaded| Report {
        groups: vec![installation::places(&shop), installation::journal(&shop), installation::configuration(&shop, &loaded)],
    };
    let report = quick(config::load(shop.sources, shop.env));
    assert_eq!(report.exit(), 0, "{}", drawn(&report, true));
    let daemon = Report { groups: vec![installation::daemon(&shop).await] };
    assert!(drawn(&daemon, true).contains("+ daemon   not running"), "{}", drawn(&daemon, true));
    bench.write("home/config.toml", "[providers.x]\nheaders = { key = \"secret\" }\nwyre = \"openai\"\n");
    bench.write("home/data", "a file in the way");
    let text = drawn(&quick(config::load(shop.sources, shop.env)), true);
    assert!(text.contains("x data") && text.contains("is not a directory"), "{text}");
    assert!(text.contains("x layers") && text.contains("TB-CONFIG-002") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn the_choice_of_a_model_is_told_without_asking_anybody() {
    let mut bench = Bench::new();
    let text = |group| drawn(&Report { groups: vec![group] }, true);
    let none = text(models::look(&bench.shop(), &crate::config::Config::default(), true).await);
    assert!(none.contains("! choice"), "{none}");
    bench.env = crate::environment::Environment::of(&[("OPENAI_API_KEY", "sk-secret-1")]);
    let hosted = text(models::look(&bench.shop(), &crate::config::Config::default(), true).await);
    assert!(
        hosted.contains("+ choice  a task gets openai/") && hosted.contains("OPENAI_API_KEY") && !hosted.contains("sk-secret"),
        "{hosted}"
    );
    bench.write(
        "home/config.toml",
        "model = \"far/m\"\n[providers.far]\nwire = \"openai\"\nbase_url = \"https://h.example/v1\"\napi_key_env = \"FAR_KEY\"\n",
    );
    let config = config::load(&bench.sources, &bench.env).unwrap().config;
    let keyless = text(models::look(&bench.shop(), &config, true).await);
    assert!(keyless.contains("x choice") && keyless.contains("fix: export FAR_KEY=KEY"), "{keyless}");
}
