//! Scenarios of the turn, played against scripted observations; every yield is checked to be the
//! same when the turn is saved and loaded in between.

use super::*;
use std::collections::VecDeque;
use tinkerbell_core::clock::Stamp;
use tinkerbell_core::event::{Call, Committed, Failed, Made, Part, PartKind, Reply, ResultSeen, Verdict};

/// What calls give.
type Results = Box<dyn FnMut(&str, &str, u32) -> (&'static str, String, bool)>;

/// What the world answers.
#[derive(Default)]
struct World {
    verify: &'static str,
    origin: &'static str,
    replies: VecDeque<Reply>,
    verdicts: VecDeque<i32>,
    /// What a call gives: `(tool, args, number of the call)` → status, text, whether the tree changes.
    results: Option<Results>,
    plan: Vec<PlanStep>,
    small: bool,
    goal: &'static str,
    unheard_at: Option<u32>,
    told: u32,
    trees: u32,
    calls: u32,
}

fn tree(n: u32) -> String {
    format!("{n:040x}")
}

fn says(text: &str) -> Reply {
    reply(vec![part(PartKind::Text, "", text)], "end")
}

fn calls(tools: &[(&str, &str)]) -> Reply {
    reply(tools.iter().map(|(tool, args)| part(PartKind::Call, tool, args)).collect(), "calls")
}

fn part(kind: PartKind, tool: &str, text: &str) -> Part {
    Part { kind: kind as i32, text: text.to_owned(), call_id: format!("id-{tool}"), tool: tool.to_owned() }
}

fn reply(parts: Vec<Part>, stop: &str) -> Reply {
    let made = Some(Made { served: "m-1".to_owned(), ..Made::default() });
    Reply { parts, made, stop: stop.to_owned(), ..Reply::default() }
}

impl World {
    fn answer(&mut self, action: &Action, turn: &Turn) -> Observation {
        match action {
            Action::Prepare(_) => Observation::Prepared(Prepared {
                checkpoint: tree(0),
                base: tree(0xb),
                verify: self.verify.to_owned(),
                verify_origin: self.origin.to_owned(),
                ..Prepared::default()
            }),
            Action::Ask(_) => Observation::Reply(self.replies.pop_front().unwrap_or_else(|| says("done"))),
            Action::Call(call) => Observation::Result(self.result(call, turn)),
            Action::Verify(_) => match self.verdicts.pop_front().unwrap_or(0) {
                -99 => Observation::Failed(Failed { retryable: true, ..Failed::default() }),
                exit => Observation::Verdict(Verdict { passed: exit == 0, exit, ..Verdict::default() }),
            },
            Action::Commit(commit) => Observation::Committed(Committed { commit: format!("{:0>40}", &commit.tree[30..]) }),
            Action::Op(_) => unreachable!("a turn yields no operations"),
        }
    }

    fn result(&mut self, call: &Call, turn: &Turn) -> ResultSeen {
        self.calls += 1;
        let played = self.results.as_mut().map(|play| play(&call.tool, &call.args, self.calls));
        let (status, text, changes) = played.unwrap_or_else(|| ("done", "ok".to_owned(), call.tool == "edit"));
        let before = turn.tree().to_owned();
        if changes {
            self.trees += 1;
        }
        let after = if changes { tree(self.trees) } else { before.clone() };
        ResultSeen { text, status: status.to_owned(), summary: format!("{} did", call.tool), before, after, ..ResultSeen::default() }
    }
}

/// Plays until the turn is done; gives the trace of its yields.
fn play(mut world: World) -> (String, Turn) {
    let mut turn = Turn::new();
    let mut trace = Vec::new();
    let mut wake = Wake::Started;
    let mut tells = std::mem::take(&mut world.told);
    for lsn in 1..400 {
        let facts = Facts {
            small: world.small,
            goal: world.goal.to_owned(),
            plan: world.plan.clone(),
            unheard: world.unheard_at == Some(turn.state.step),
            max_output_tokens: 1_000,
            ..Facts::default()
        };
        let input = Input { event: wake, lsn: Lsn(lsn * 10), now: Stamp { wall_ms: lsn * 1_000, mono_ms: 0 }, entropy: 7 };
        let yielded = step_twice(&mut turn, &facts, input);
        match yielded {
            Yielded::Intent { seq, action, .. } => {
                trace.push(format!("{}{seq}{}", name(&action), detail(&action)));
                wake = Wake::Observed(world.answer(&action, &turn));
            }
            Yielded::Done(finished) => {
                trace.push(format!("{} {}", finished.status, finished.exit));
                if tells == 0 {
                    return (trace.join(" · "), turn);
                }
                tells -= 1;
                wake = Wake::Told;
            }
        }
    }
    panic!("the turn does not end: {}", trace.join(" · "));
}

/// Resumes the turn and a loaded copy of it; both must agree in yield and state, and yield again.
fn step_twice(turn: &mut Turn, facts: &Facts, input: Input) -> Yielded {
    let mut copy = Turn::load(&turn.save()).unwrap();
    turn.learn(facts.clone());
    copy.learn(facts.clone());
    let (one, two) = (turn.resume(input.clone()), copy.resume(input.clone()));
    assert_eq!(one, two, "a loaded turn yields the same");
    assert_eq!(turn.save(), copy.save(), "and has the same state");
    let mut again = Turn::load(&turn.save()).unwrap();
    again.learn(facts.clone());
    let resumed = again.resume(Input { event: Wake::Resumed, lsn: Lsn(9_999), now: Stamp { wall_ms: 77, mono_ms: 1 }, entropy: 0 });
    assert_eq!(one, resumed, "after a crash it yields the very same");
    one
}

fn detail(action: &Action) -> String {
    match action {
        Action::Ask(ask) if !ask.tail.is_empty() => format!("[{}]", ask.tail.trim()),
        Action::Call(call) => format!(" {}", call.tool),
        Action::Verify(verify) => format!(" round {}", verify.round),
        Action::Commit(commit) => format!(" {:?}", commit.subject),
        _ => String::new(),
    }
}

#[test]
fn a_task_goes_from_prepare_to_verified() {
    let world = World {
        verify: "make test",
        origin: "given",
        replies: [calls(&[("read", "{}")]), calls(&[("edit", "{}")]), says("fixed")].into(),
        verdicts: [1, 0].into(),
        ..World::default()
    };
    assert_eq!(
        play(world).0,
        "prepare1 · ask2 · call3 read · ask4 · verify5 round 0 · call6 edit · commit7 \"edit did\" · ask8 · verify9 round 1 · verified 0"
    );
}

#[test]
fn without_a_gate_or_a_change_the_result_is_unverified() {
    assert_eq!(play(World::default()).0, "prepare1 · ask2 · unverified 0");
    let guessed = World { verify: "cargo test", origin: "Cargo.toml", ..World::default() };
    assert_eq!(play(guessed).0, "prepare1 · ask2 · unverified 0");
    let given = World { verify: "cargo test", origin: "given", ..World::default() };
    assert_eq!(play(given).0, "prepare1 · ask2 · verify3 round 1 · verified 0");
    let missing =
        World { verify: "x", origin: "Makefile", replies: [calls(&[("edit", "{}")])].into(), verdicts: [127].into(), ..World::default() };
    assert_eq!(play(missing).0, "prepare1 · ask2 · verify3 round 0 · call4 edit · commit5 \"edit did\" · ask6 · unverified 0");
}

#[test]
fn a_small_model_sees_the_check_first_and_is_urged_once() {
    let small = |replies| World { small: true, verify: "t", origin: "Makefile", replies, verdicts: [1, 0].into(), ..World::default() };
    let (trace, _) = play(small([says("I fixed it"), calls(&[("edit", "{}")])].into()));
    assert!(trace.starts_with("prepare1 · verify2 round 0 · ask3 · ask4[No file was changed so far."), "{trace}");
    assert!(trace.ends_with("call5 edit · commit6 \"edit did\" · verify7 round 0 · ask8 · verify9 round 1 · verified 0"), "{trace}");
    let (trace, _) = play(small([says("42"), says("42")].into()));
    assert!(trace.ends_with("unverified 0") && trace.matches("· ask").count() == 2, "{trace}");
}

/// The runtime's reads count neither as calls of the model nor as failures.
#[test]
fn a_small_model_is_shown_the_files_that_its_task_names() {
    let missing: Results = Box::new(|_, _, _| ("failed", "no such file".to_owned(), false));
    for (small, results, start) in [
        (true, None, "prepare1 · verify2 round 0 · call3 read · call4 read · ask5 · ask6[No file"),
        (true, Some(missing), "prepare1 · verify2 round 0 · call3 read · call4 read · ask5 · ask6[No file"),
        (false, None, "prepare1 · ask2 · "),
    ] {
        let world = World {
            small,
            results,
            goal: "repair src/a.py and b2.sh",
            verify: "t",
            origin: "given",
            verdicts: [1].into(),
            ..World::default()
        };
        let (trace, turn) = play(world);
        assert!(trace.starts_with(start), "{trace}");
        assert_eq!((turn.state.failing, turn.state.requests.len()), (0, 0));
    }
}

#[test]
fn a_failing_gate_has_three_rounds() {
    let failing =
        |verdicts: &[i32]| World { verify: "t", origin: "given", verdicts: verdicts.iter().copied().collect(), ..World::default() };
    assert_eq!(
        play(failing(&[1, 1, 1])).0,
        "prepare1 · ask2 · verify3 round 1 · ask4 · verify5 round 2 · ask6 · verify7 round 3 · gate-failed 3"
    );
    assert_eq!(play(failing(&[1, 0])).0, "prepare1 · ask2 · verify3 round 1 · ask4 · verify5 round 2 · verified 0");
    let lost = play(failing(&[-99, -99, 0])).0;
    assert_eq!(lost, "prepare1 · ask2 · verify3 round 1 · verify4 round 1 · verify5 round 1 · verified 0");
    let gone = play(failing(&[-99, -99, -99])).0;
    assert_eq!(gone, "prepare1 · ask2 · verify3 round 1 · verify4 round 1 · verify5 round 1 · unverified 0");
}

fn repeating(times: usize, tools: &'static [(&'static str, &'static str)]) -> VecDeque<Reply> {
    (0..times).flat_map(|_| tools.iter().map(|call| calls(&[*call]))).collect()
}

fn executed(trace: &str) -> usize {
    trace.matches("· call").count()
}

#[test]
fn the_fifth_identical_call_is_not_run() {
    let world = World {
        replies: repeating(50, &[("exec", r#"{"cmd":"make"}"#)]),
        results: Some(Box::new(|_, _, n| ("exited", format!("error in 0.{n}s"), false))),
        ..World::default()
    };
    let (trace, turn) = play(world);
    assert_eq!(executed(&trace), 4, "{trace}");
    assert!(trace.ends_with("failed 1") && trace.contains("3 times with the same outcome"), "{trace}");
    let done = turn.state.done.unwrap();
    assert!(done.text.contains(r#"`exec {"cmd":"make"}`"#) && done.text.contains("exec did"), "{}", done.text);
    assert_eq!(done.code, "TB-AGENT-001");
}

#[test]
fn cycles_of_two_and_three_are_stopped_in_the_fifth_round() {
    for (tools, run) in [(&[("read", "{}"), ("exec", "{}")][..], 8), (&[("read", "{}"), ("exec", "{}"), ("search", "{}")][..], 12)] {
        let tools: &'static [(&str, &str)] = Box::leak(tools.to_vec().into_boxed_slice());
        let (trace, _) = play(World { replies: repeating(20, tools), ..World::default() });
        assert!(trace.ends_with("failed 1"), "{trace}");
        assert_eq!(executed(&trace), run, "{trace}");
    }
}

#[test]
fn any_difference_resets_the_loop_guard() {
    let differing: [(&str, Results); 4] = [
        ("a counter moves", Box::new(|_, _, n| ("exited", format!("{n} files left"), false))),
        ("the tree moves", Box::new(|_, _, _| ("exited", String::new(), true))),
        ("every fourth differs", Box::new(|_, _, n| ("exited", (if n % 4 == 0 { "b" } else { "a" }).to_owned(), false))),
        ("waiting for a unit", Box::new(|_, _, _| ("running", String::new(), false))),
    ];
    for (what, results) in differing {
        let tool: &'static [(&str, &str)] =
            if what.starts_with("waiting") { &[("exec_wait", r#"{"unit":"u1"}"#)] } else { &[("exec", "{}")] };
        let (trace, _) = play(World { replies: repeating(15, tool), results: Some(results), ..World::default() });
        assert!(trace.ends_with("unverified 0") && executed(&trace) == 15, "{what}: {trace}");
    }
}

#[test]
fn malformed_empty_and_failing_answers_end_after_a_demand() {
    let fails = |tools, results: &'static str| World {
        replies: repeating(30, tools),
        results: Some(Box::new(move |_, _, n| ("failed", format!("{results} {n}"), false))),
        ..World::default()
    };
    let (trace, _) = play(fails(&[("exec", "{not json")], "bad"));
    assert!(trace.contains("3 malformed calls in a row. Stop and change") && trace.ends_with("failed 1"), "{trace}");
    assert_eq!(executed(&trace), 6);
    let (trace, _) = play(fails(&[("no_such_tool", "{}")], "unknown"));
    assert_eq!(executed(&trace), 6, "{trace}");
    let (trace, _) = play(fails(&[("edit", "{}")], "not found"));
    assert!(trace.contains("5 calls of `edit` failed in a row. Stop and change"), "{trace}");
    assert_eq!(executed(&trace), 10, "{trace}");
    let empty = World { replies: (0..9).map(|_| says(" ")).collect(), ..World::default() };
    let (trace, _) = play(empty);
    assert_eq!(trace.matches("· ask").count(), 4, "{trace}");
    assert!(trace.contains("was empty") && trace.ends_with("failed 1"), "{trace}");
    let one = World { replies: [says("")].into(), ..World::default() };
    assert!(play(one).0.ends_with("unverified 0"));
}

#[test]
fn calls_of_a_cut_answer_do_not_run() {
    let cut = reply(vec![part(PartKind::Call, "exec", "{}")], "length");
    let (trace, _) = play(World { replies: [cut].into(), ..World::default() });
    assert!(executed(&trace) == 0 && trace.contains("its calls were not run"), "{trace}");
    let (trace, _) = play(World { replies: (0..9).map(|_| reply(Vec::new(), "length")).collect(), ..World::default() });
    assert_eq!(trace.matches("· ask").count(), 6, "{trace}");
}

#[test]
fn several_calls_of_one_answer_run_in_order() {
    let world = World { replies: [calls(&[("read", "{}"), ("edit", "{}"), ("search", "{}")])].into(), ..World::default() };
    assert_eq!(play(world).0, "prepare1 · ask2 · call3 read · call4 edit · commit5 \"edit did\" · call6 search · ask7 · unverified 0");
}

#[test]
fn the_active_step_of_the_plan_names_the_commit() {
    let plan = vec![PlanStep { text: "make it so ".repeat(10), status: "active".to_owned() }];
    let (trace, _) = play(World { replies: [calls(&[("edit", "{}")])].into(), plan, ..World::default() });
    let subject = trace.split('"').nth(1).unwrap();
    assert!(subject.starts_with("make it so") && subject.chars().count() == 72, "{subject}");
}

#[test]
fn a_user_who_speaks_is_heard_before_the_end() {
    let world = World { replies: [says("done"), says("done again")].into(), unheard_at: Some(1), ..World::default() };
    assert_eq!(play(world).0, "prepare1 · ask2 · ask3 · unverified 0");
    let world = World { told: 1, ..World::default() };
    assert_eq!(play(world).0, "prepare1 · ask2 · unverified 0 · ask3 · unverified 0");
}

#[test]
fn a_background_unit_shows_in_the_tail_until_it_ends() {
    let world = World {
        replies: [calls(&[("exec", "{}")]), calls(&[("exec_wait", r#"{"unit":"u3"}"#)])].into(),
        results: Some(Box::new(|tool, _, _| (if tool == "exec" { "running" } else { "exited" }, String::new(), false))),
        ..World::default()
    };
    assert_eq!(
        play(world).0,
        "prepare1 · ask2 · call3 exec · ask4[Running in the background: u3. Use exec_wait.] · call5 exec_wait · ask6 · unverified 0"
    );
}

#[test]
fn what_the_user_took_back_is_not_committed() {
    let mut turn = Turn::new();
    let input = |event| Input { event, lsn: Lsn(1), now: Stamp::default(), entropy: 0 };
    let mut world = World { replies: [calls(&[("edit", "{}")])].into(), ..World::default() };
    let mut wake = Wake::Started;
    for _ in 0..3 {
        turn.learn(Facts::default());
        let Yielded::Intent { action, .. } = turn.resume(input(wake)) else { panic!("ended") };
        wake = Wake::Observed(world.answer(&action, &turn));
    }
    let moved = Some((tree(77), tree(0xc)));
    turn.learn(Facts { ops: 1, moved, ..Facts::default() });
    let Yielded::Intent { action, .. } = turn.resume(input(wake)) else { panic!("ended") };
    assert!(matches!(action, Action::Ask(_)), "{action:?}");
    assert_eq!((turn.tree(), turn.state.tip.as_str()), (tree(77).as_str(), tree(0xc).as_str()));
}

#[test]
fn a_failed_preparation_ends_the_task_with_its_code() {
    let mut turn = Turn::new();
    let input = |event| Input { event, lsn: Lsn(1), now: Stamp::default(), entropy: 0 };
    turn.resume(input(Wake::Started));
    let failed = Failed { code: "TB-CANVAS-001".to_owned(), exit: 78, message: "no repository".to_owned(), ..Failed::default() };
    let Yielded::Done(finished) = turn.resume(input(Wake::Observed(Observation::Failed(failed)))) else { panic!("goes on") };
    assert_eq!((finished.exit, finished.code.as_str()), (78, "TB-CANVAS-001"));
    assert!(matches!(turn.resume(input(Wake::Told)), Yielded::Intent { action: Action::Prepare(_), .. }), "a word tries again");
}

#[test]
fn the_tail_speaks_of_the_scarcest_limit_in_coarse_words() {
    for (spent, steps, expected) in [
        (0, 0, ""),
        (40, 0, ""),
        (51, 0, "Less than half of the money"),
        (51, 80, "Less than a quarter of the steps"),
        (95, 0, "Less than a tenth of the money"),
    ] {
        let mut turn = Turn::new();
        turn.state.step = steps + 1;
        let caps = Caps { nano_usd: Some(100), steps: Some(100), ..Caps::default() };
        turn.learn(Facts { caps, spent: NanoUsd(spent), ..Facts::default() });
        let tail = turn.tail();
        assert!(tail.starts_with(expected) && tail.is_empty() == expected.is_empty(), "{spent} {steps}: {tail}");
    }
}

#[test]
fn a_typical_state_is_small() {
    let mut sizes = Vec::new();
    let world = World {
        verify: "cargo test",
        origin: "given",
        replies: repeating(8, &[("exec", r#"{"cmd":"cargo test -p core"}"#)]),
        ..World::default()
    };
    let (_, turn) = play(World { results: Some(Box::new(|_, _, n| ("exited", n.to_string(), false))), ..world });
    sizes.push(turn.save().len());
    assert!(sizes.iter().all(|size| *size <= 512), "{sizes:?}");
}

#[test]
fn damaged_and_newer_states_are_refused() {
    let newer = State { version: 2, ..State::default() }.encode_to_vec();
    assert_eq!(Turn::load(&newer), Err(LoadError::Newer { found: 2, known: 1 }));
    for bytes in [&[][..], &[0xff; 7][..]] {
        assert!(matches!(Turn::load(bytes), Err(LoadError::Damaged(_))));
    }
}

/// The state that version 1 wrote, in a file that stays for ever.
#[test]
fn the_golden_state_of_version_1_is_readable() {
    let call = Call { call_id: "c1".to_owned(), tool: "edit".to_owned(), args: "{}".to_owned(), step: 3 };
    let state = State {
        version: 1,
        seq: 7,
        step: 3,
        pending: Some(Intent { seq: 7, class: 7, action: Some(Action::Call(call.clone())), yolo: false }),
        queue: vec![call],
        verify: "make test".to_owned(),
        verify_origin: "Makefile".to_owned(),
        rounds: 1,
        baseline: true,
        tree: tree(1),
        tip: tree(2),
        base: tree(3),
        model: "m".to_owned(),
        requests: vec![1, 2],
        outcomes: vec![3, 4],
        malformed: 1,
        empties: 2,
        failing_tool: "edit".to_owned(),
        failing: 3,
        units: vec![4, 5],
        nudges: vec!["look".to_owned()],
        ops_seen: 6,
        done: None,
        lost_checks: 1,
        evidence: "exit 1".to_owned(),
        urged: false,
        checked: String::new(),
        slow_check: false,
        shown: false,
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1/state.bin");
    if std::env::var_os("TINKERBELL_BLESS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1")).unwrap();
        std::fs::write(path, state.encode_to_vec()).unwrap();
    }
    let golden = std::fs::read(path).unwrap();
    assert_eq!(Turn::load(&golden).unwrap().state, state);
    assert_eq!(state.encode_to_vec(), golden);
}
