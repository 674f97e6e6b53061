//! The driver against fakes of all ports, with crashes at every await.

mod desk;
mod world;

use desk::{Desk, Ended};
use tinkerbell_core::event::{Event, Finished, Observation, Observed, Op};
use tinkerbell_core::port::Effects as _;
use tinkerbell_secret::{OF_REPOSITORY, Secret};
use world::World;

/// Runs a task to its end or to where it waits.
async fn run(world: &World) -> (Desk, Ended) {
    let desk = Desk::new(world.submitted());
    let ended = desk.drive(&world.runner(), None).await;
    (desk, ended)
}

fn finished(ended: Ended) -> Finished {
    match ended {
        Ended::Done(finished) => finished,
        other => panic!("the task did not end: {other:?}"),
    }
}

const FIX: &[&str] = &[r#"exec {"cmd":"make"}"#, r#"edit {"path":"a.rs","to":"fixed"}"#, "say all good"];

#[tokio::test]
async fn a_task_is_done_committed_and_verified() {
    let world = World::new(FIX).verify("make test");
    let (desk, ended) = run(&world).await;
    let finished = finished(ended);
    assert_eq!((finished.status.as_str(), finished.exit, finished.text.as_str()), ("verified", 0, "all good"));
    assert_eq!((finished.files.len(), finished.commits), (1, 1));
    let messages = world.commits();
    let lsn = desk.lsn_of("commit");
    let trailers = format!("edit did\n\nTask: {:032x}\nStep: 2\nLsn: {lsn}\nModel: m-served\nCost: $0.", 5);
    assert!(messages.len() == 1 && messages[0].starts_with(&trailers), "{messages:?}");
    assert_eq!(desk.count(|event| matches!(event, Event::OpDone(op) if op.kind == "tool")), 1);
    assert!(desk.task().spent.0 > 0 && desk.task().held.is_empty());
}

#[tokio::test]
async fn a_failing_gate_goes_back_to_the_model() {
    let world = World::new(&["say done", r#"edit {"path":"a.rs","to":"fixed"}"#, "say really done"]).verify("make test");
    let (_, ended) = run(&world).await;
    assert_eq!(finished(ended).status, "verified");
    let requests = world.requests();
    let last = format!("{:?}", requests[1].messages.last());
    assert!(last.contains("`make test` failed with exit 1") && last.contains("The task is not done"), "{last}");
    let world = World::new(&["say done"; 4]).verify("make test");
    let ended = finished(run(&world).await.1);
    assert_eq!((ended.status.as_str(), ended.exit), ("gate-failed", 3));
}

#[tokio::test]
async fn what_the_gate_changes_is_put_back() {
    let world = World::new(FIX).verify("make test && touch");
    let (desk, ended) = run(&world).await;
    assert_eq!(finished(ended).status, "verified");
    assert_eq!(world.content(), "fixed");
    assert!(desk.results().iter().all(|text| !text.contains("touched")));
}

#[tokio::test]
async fn a_repeating_model_is_stopped_by_the_fifth_call() {
    let world = World::new(&[r#"exec {"cmd":"make"}"#; 50]);
    let (_, ended) = run(&world).await;
    let finished = finished(ended);
    assert_eq!((finished.exit, finished.code.as_str()), (1, "TB-AGENT-001"));
    assert_eq!(world.executions().len(), 4);
}

#[tokio::test]
async fn bad_calls_are_results_that_say_what_is_wrong() {
    for (call, expected) in [
        ("fly {}", "there is no tool `fly`; the tools are: exec, edit, plan, ask"),
        ("exec {oops", "no valid JSON"),
        ("exec []", "must be a JSON object"),
        (r#"exec {"cmd":"forbidden"}"#, "refused by policy: never"),
        (r#"plan {"steps":[]}"#, "1 to 50 steps"),
        (r#"plan {"steps":[{"text":"a","status":"done"}]}"#, "plan recorded"),
        (r#"exec {"cmd":"leak"}"#, "[secret K]"),
    ] {
        let world = World::new(&[call, "say ok"]);
        let (desk, ended) = run(&world).await;
        assert_eq!(finished(ended).exit, 0, "{call}");
        let results = desk.results();
        assert!(results[0].contains(expected), "{call}: {results:?}");
    }
}

#[tokio::test]
async fn protected_files_are_put_back_unless_the_call_was_to_change_them() {
    for (call, put_back) in [
        (r#"exec {"cmd":"at landlock"}"#, true),
        (r#"exec {"cmd":"at full"}"#, true),
        (r#"exec {"cmd":"ls"}"#, true),
        (r#"edit {"path":"a.rs","to":"x"}"#, true),
        (r#"edit {"path":"AGENTS.md","to":"x"}"#, false),
    ] {
        let (desk, _) = run(&World::new(&[call, "say ok"])).await;
        assert_eq!(desk.results()[0].contains("were put back: AGENTS.md"), put_back, "{call}");
    }
}

#[tokio::test]
async fn a_person_decides_and_the_model_learns_it() {
    for (yes, expected, ran) in [(true, "exit 0", 1), (false, "The user denied this and said: no way", 0)] {
        let world = World::new(&[r#"exec {"cmd":"danger"}"#, "say ok"]);
        let (desk, ended) = run(&world).await;
        assert!(matches!(ended, Ended::Person(1)), "{ended:?}");
        assert_eq!(world.executions().len(), 0, "nothing runs before the answer");
        let asked = desk.task().approvals[&1].asked.clone();
        assert_eq!((asked.body.as_str(), asked.digest.as_str()), ("danger", "d1gest"));
        desk.answer(1, yes, if yes { "" } else { "no way" });
        assert_eq!(finished(desk.drive(&world.runner(), None).await).exit, 0);
        assert!(desk.results()[0].contains(expected), "{:?}", desk.results());
        assert_eq!(world.executions().len(), ran);
    }
}

/// Whoever writes a repository's git configuration chooses what is known of it, but not what a person sees of
/// what they approve. The user's own values are shown to nobody.
#[tokio::test]
async fn what_is_approved_is_shown_without_holes_of_the_repositorys_choice() {
    let world = World::new(FIX).verify("danger --strict the-users-key");
    let named = |name: &str, value: &str| (name.to_owned(), Secret::shared(value));
    world.known.learn([named("KEY", "the-users-key"), named(OF_REPOSITORY, "--strict")]);
    let (desk, ended) = run(&world).await;
    let Ended::Person(seq) = ended else { panic!("{ended:?}") };
    let asked = desk.task().approvals[&seq].asked.clone();
    assert_eq!((asked.title.as_str(), asked.body.as_str()), ("verify: dangerous", "danger --strict [secret KEY]"));
}

#[tokio::test]
async fn a_question_of_the_model_gets_its_answer() {
    let world = World::new(&[r#"ask {"question":"Which?","options":["a","b"]}"#, "say ok"]);
    let (desk, ended) = run(&world).await;
    assert!(matches!(ended, Ended::Person(1)));
    assert_eq!(desk.task().approvals[&1].asked.options, ["a", "b"]);
    desk.answer(1, true, "b");
    assert_eq!(finished(desk.drive(&world.runner(), None).await).exit, 0);
    assert_eq!(desk.results(), ["The user answers: b"]);
}

#[tokio::test]
async fn a_lost_command_is_for_a_person_to_decide() {
    let world = World::new(&[r#"exec {"cmd":"lose"}"#, "say ok"]);
    let (desk, ended) = run(&world).await;
    assert!(matches!(ended, Ended::Person(1)), "{ended:?}");
    desk.answer(1, true, "");
    assert_eq!(finished(desk.drive(&world.runner(), None).await).exit, 0);
    assert!(desk.results()[0].contains("The user allows to run it again"), "{:?}", desk.results());
}

#[tokio::test]
async fn a_provider_that_is_down_or_without_key_stalls_the_task() {
    let world = World::new(&["down", "say ok"]);
    let (desk, ended) = run(&world).await;
    assert!(matches!(&ended, Ended::Broken(fault) if fault.retryable), "{ended:?}");
    world.skip();
    assert_eq!(finished(desk.drive(&world.runner(), None).await).text, "ok\n\nNot verified: no verification command was given or found.");
    let (_, ended) = run(&World::new(&["nokey"])).await;
    assert!(matches!(&ended, Ended::Key(name) if name == "P_KEY"), "{ended:?}");
}

#[tokio::test]
async fn a_crash_at_any_await_changes_nothing_in_the_end() {
    let calm = World::new(FIX).verify("make test");
    let (calm_desk, _) = run(&calm).await;
    for polls in 1..200 {
        let world = World::new(FIX).verify("make test");
        let desk = Desk::new(world.submitted());
        let first = desk.drive(&world.runner(), Some(polls)).await;
        let crashed = matches!(first, Ended::Crashed);
        let ended = if crashed { desk.drive(&world.runner(), None).await } else { first };
        let finished = finished(ended);
        assert_eq!((finished.status.as_str(), finished.text.as_str()), ("verified", "all good"), "crash after {polls} polls");
        assert_eq!(world.executions(), calm.executions(), "commands run once, crash after {polls} polls");
        assert_eq!(desk.trace(), calm_desk.trace(), "crash after {polls} polls");
        // A repeated try may add records, so only the number in the journal differs.
        assert_eq!(without_lsn(&world), without_lsn(&calm), "the same commits, crash after {polls} polls");
        if !crashed {
            assert!(polls > 20, "there were only {polls} awaits");
            return;
        }
    }
    panic!("the task takes more awaits than were tried");
}

fn without_lsn(world: &World) -> Vec<String> {
    let strip = |message: String| message.lines().filter(|line| !line.starts_with("Lsn:")).collect::<Vec<_>>().join("\n");
    world.commits().into_iter().map(strip).collect()
}

#[tokio::test]
async fn undo_and_redo_move_tree_and_branch() {
    let world = World::new(FIX).verify("make test");
    let (desk, _) = run(&world).await;
    let tip = world.tip();
    for (redo, content) in [(false, "broken"), (true, "fixed")] {
        let op = if redo { desk.redo() } else { desk.undo() };
        let observed = desk.operate(&world.runner(), op).await;
        assert_eq!(world.content(), content, "{observed:?}");
        assert_ne!(world.tip(), tip);
    }
    let kinds: Vec<String> = desk.task().ops.entries().iter().map(|entry| entry.done.kind.clone()).collect();
    assert_eq!(kinds, ["tool", "undo", "redo"]);
}

#[tokio::test]
async fn landing_is_an_operation_unless_both_sides_edited() {
    let world = World::new(FIX).verify("make test");
    let (desk, _) = run(&world).await;
    let land = Op { kind: "land".to_owned(), cost_micros: 1_234_567, time_s: 9, ..Op::default() };
    let text = operated(desk.operate(&world.runner(), land.clone()).await);
    assert!(text.starts_with("landed on main: ") && text.ends_with("; hooks were not run"), "{text}");
    let message = world.commits().pop().unwrap();
    assert!(message.starts_with("repair it\n\nTask: ") && message.ends_with("Model: m-served\nCost: $1.234567\n"), "{message}");
    let unland = desk.undo();
    assert_eq!(unland.kind, "unland");
    let text = operated(desk.operate(&world.runner(), unland).await);
    assert!(text.starts_with("taken back from main"), "{text}");
    world.conflict();
    let before = desk.task().ops.entries().len();
    let text = operated(desk.operate(&world.runner(), land).await);
    assert_eq!(text, "nothing changed: edited on both sides: a.rs");
    assert_eq!(desk.task().ops.entries().len(), before);
}

fn operated(observed: Observed) -> String {
    match observed.observation {
        Some(Observation::Operated(operated)) => operated.text,
        other => panic!("not an operation: {other:?}"),
    }
}

#[tokio::test]
async fn a_request_that_is_too_long_is_made_smaller() {
    let world = World::new(&[r#"exec {"cmd":"long"}"#, r#"exec {"cmd":"long"}"#, r#"exec {"cmd":"ls"}"#, "say ok"]).window(5_000);
    let (_, ended) = run(&world).await;
    assert_eq!(finished(ended).exit, 0);
    let world = World::new(&["say ok"]).window(300);
    let (_, ended) = run(&world).await;
    assert!(matches!(&ended, Ended::Broken(fault) if fault.code.0 == "TB-AGENT-003"), "{ended:?}");
}

#[tokio::test]
async fn a_change_of_tests_alone_is_verified_with_a_remark() {
    let world = World::new(FIX).verify("make test").changing("tests/a.rs");
    let finished = finished(run(&world).await.1);
    assert_eq!(finished.status, "verified");
    assert!(finished.text.contains("only tests or build settings"), "{}", finished.text);
}

#[tokio::test]
async fn the_prefix_of_all_requests_is_stable_whatever_the_order_of_tools() {
    let (one, two) = (World::new(FIX), World::new(FIX).shuffled());
    run(&one).await;
    run(&two).await;
    let (requests, shuffled) = (one.requests(), two.requests());
    assert_eq!(requests.len(), 3);
    for (index, (a, b)) in requests.iter().zip(&shuffled).enumerate() {
        assert_eq!((&a.system, &a.tools, &a.messages), (&b.system, &b.tools, &b.messages), "request {index}");
        assert_eq!((&a.system, &a.tools), (&requests[0].system, &requests[0].tools));
    }
    for (earlier, later) in requests.iter().zip(requests.iter().skip(1)) {
        assert!(later.messages.starts_with(&earlier.messages));
    }
    assert!(requests[0].system.len() < 4_096, "{}", requests[0].system.len());
}
