//! Damage as it was reported from real sessions, made on purpose.

use super::scan::{Scan, elements, lines};
use super::shape::{Agent, Turn};
use super::*;
use crate::chores::bench::{Bench, Heard};
use serde_json::Value;

fn claude(n: usize) -> String {
    format!(r#"{{"type":"user","sessionId":"s","uuid":"{n}","cwd":"/w","message":{{"role":"user","content":"words {n} {{\"a\":1}}"}}}}"#)
}

fn codex(n: usize) -> String {
    format!(
        r#"{{"timestamp":"2026-05-24T21:27:14.630Z","type":"response_item","payload":{{"type":"reasoning","n":{n},"encrypted_content":"gAAAAABqE20y{n}"}}}}"#
    )
}

fn copilot(n: usize) -> String {
    format!(
        r#"{{"type":"assistant.message","data":{{"content":"words {n}","toolRequests":[]}},"id":"{n}","timestamp":"t","parentId":null}}"#
    )
}

fn owned(value: &Value) -> bool {
    [Agent::Claude, Agent::Codex, Agent::Copilot].iter().any(|agent| agent.owns(value))
}

/// Every byte is a record's, lost, padding, or a comma between elements.
fn adds_up(bytes: &[u8], scan: &Scan) {
    let mut at = 0;
    let mut spans: Vec<(usize, usize)> =
        scan.records.iter().map(|r| (r.from, r.to)).chain(scan.lost.iter().map(|l| (l.from, l.to))).collect();
    spans.sort_unstable();
    for (from, to) in spans {
        assert!(at <= from && from < to && to <= bytes.len());
        assert!(bytes[at..from].iter().all(|b| *b == 0 || b.is_ascii_whitespace()), "{at}..{from}");
        at = to;
    }
    assert!(bytes[at..].iter().all(|b| *b == 0 || b.is_ascii_whitespace()));
}

#[test]
fn a_torn_last_line_costs_only_itself() {
    // claude-code #53821, #59811: cut anywhere in the last of many records.
    for make in [claude, codex, copilot] {
        let text: String = (0..5).map(|n| make(n) + "\n").collect();
        let last = make(5);
        for cut in 0..=last.len() {
            let bytes = [text.as_bytes(), &last.as_bytes()[..cut]].concat();
            let scan = lines(&bytes, &owned);
            adds_up(&bytes, &scan);
            assert_eq!(scan.records.len(), if cut == last.len() { 6 } else { 5 }, "cut at {cut}");
            assert_eq!(scan.lost.len(), usize::from(cut > 0 && cut < last.len()), "cut at {cut}");
        }
    }
}

#[test]
fn nul_bytes_are_passed_over_wherever_they_stand() {
    // copilot-cli #2927: 1,206 of them at the end; claude-code #49876: in the middle.
    for (before, inside, behind) in [(0, 0, 1_206), (0, 700, 0), (512, 0, 4_096), (0, 1, 1)] {
        let nul = |n: usize| "\0".repeat(n);
        let text = format!("{}{}\n{}\n{}\n{}", nul(before), copilot(1), nul(inside), copilot(2), nul(behind));
        let scan = lines(text.as_bytes(), &owned);
        adds_up(text.as_bytes(), &scan);
        assert_eq!((scan.records.len(), scan.lost.len(), scan.nul_bytes), (2, 0, before + inside + behind));
    }
    let text = format!("{}{}\n", copilot(1), "\0".repeat(9));
    assert_eq!(lines(text.as_bytes(), &owned).records.len(), 1);
}

#[test]
fn a_record_behind_a_torn_one_on_the_same_line_is_found() {
    // codex #24425, claude-code #52387, copilot-cli #4098.
    for make in [claude, codex, copilot] {
        let (torn, next, last) = (make(1), make(2), make(3));
        for cut in 1..torn.len() {
            let text = format!("{}{next}\n{last}\n", &torn[..cut]);
            let scan = lines(text.as_bytes(), &owned);
            adds_up(text.as_bytes(), &scan);
            let got: Vec<Value> = scan.records.iter().map(|record| record.value.clone()).collect();
            let expected: Vec<Value> = [&next, &last].iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            assert_eq!(got, expected, "cut at {cut}: {text}");
        }
    }
}

#[test]
fn raw_line_breaks_and_halves_of_pairs_are_mended() {
    // copilot-cli #2649, claude-code #45982.
    let cases = [
        "{\"type\":\"tool.execution_complete\",\"id\":\"1\",\"data\":{\"result\":{\"content\":\"one\ntwo\n\ttwo\"}}}",
        r#"{"type":"user","sessionId":"s","message":{"content":"cut \ud83c here, whole \ud83c\udff7 there"}}"#,
        r#"{"type":"user","sessionId":"s","message":{"content":"low \udff7 \\ud83c \" end"}}"#,
    ];
    for case in cases {
        let text = format!("{}\n{case}\n{}\n", claude(1), claude(2));
        let scan = lines(text.as_bytes(), &owned);
        adds_up(text.as_bytes(), &scan);
        assert_eq!((scan.records.len(), scan.lost.len()), (3, 0), "{case}");
        assert!(scan.records[1].mended.is_some());
    }
    let bytes = [b"{\"type\":\"user\",\"sessionId\":\"s\",\"x\":\"\xff\xfe\"}\n".as_slice(), claude(1).as_bytes()].concat();
    assert_eq!(lines(&bytes, &owned).records.len(), 2);
}

#[test]
fn a_torn_line_swallows_none_of_those_that_follow() {
    for cut in 1..claude(0).len() {
        let text = format!("{}\n{}\nnot json\n{}\n", &claude(0)[..cut], claude(1), claude(2));
        let scan = lines(text.as_bytes(), &owned);
        adds_up(text.as_bytes(), &scan);
        assert_eq!(scan.records.len(), 2, "cut at {cut}");
    }
}

#[test]
fn random_damage_is_accounted_for_and_never_panics() {
    let text: String = (0..40).map(|n| [claude(n), codex(n), copilot(n)].join("\n") + "\n").collect();
    let mut state = 7_u64;
    let mut next = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..300 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..=next(4) {
            let (at, len) = (next(bytes.len()), next(300));
            let end = (at + len).min(bytes.len());
            match next(3) {
                0 => drop(bytes.drain(at..end)),
                1 => bytes[at..end].fill(0),
                _ => bytes.truncate(end.max(1)),
            }
        }
        let scan = lines(&bytes, &owned);
        adds_up(&bytes, &scan);
        let intact = text.lines().filter(|line| String::from_utf8_lossy(&bytes).lines().any(|l| l == *line)).count();
        assert!(scan.records.len() >= intact, "{} of {intact}", scan.records.len());
    }
}

#[test]
fn a_list_of_messages_is_read_up_to_where_it_was_torn() {
    let message = |n: usize| format!(r#"{{"id":"{n}","timestamp":"t","type":"user","content":[{{"text":"words {n}"}}]}}"#);
    let head = r#"{ "sessionId": "g1", "projectHash": "ab", "messages": ["#;
    let whole = format!("{head}{},\n{}]}}", message(1), message(2));
    for cut in head.len()..=whole.len() {
        let bytes = &whole.as_bytes()[..cut];
        let expected = [head.len() + message(1).len(), head.len() + message(1).len() + 2 + message(2).len()];
        assert_eq!(shape::read(bytes).records.len(), expected.iter().filter(|end| **end <= cut).count(), "cut at {cut}");
    }
    assert_eq!(elements(b"", 0).records, []);
}

#[test]
fn transcripts_name_who_spoke() {
    let turns = |agent: Agent, text: &str| agent.turns(&serde_json::from_str(text).unwrap());
    let call = |name: &str, args: &str| Turn::Call(name.into(), args.into());
    assert_eq!(
        turns(Agent::Codex, r#"{"payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}}"#),
        [Turn::User("hi".into())]
    );
    assert_eq!(turns(Agent::Codex, r#"{"payload":{"type":"function_call","name":"shell","arguments":"{}"}}"#), [call("shell", "{}")]);
    assert_eq!(
        turns(
            Agent::Claude,
            r#"{"type":"assistant","message":{"content":[{"type":"text","text":"yes"},{"type":"tool_use","name":"Bash","input":{"c":1}}]}}"#
        ),
        [Turn::Assistant("yes".into()), call("Bash", r#"{"c":1}"#)]
    );
    assert_eq!(
        turns(Agent::Claude, r#"{"type":"user","message":{"content":[{"type":"tool_result","content":"out"}]}}"#),
        [Turn::Result("out".into())]
    );
    assert_eq!(
        turns(Agent::Gemini, r#"{"type":"gemini","content":"ok","toolCalls":[{"name":"ls","args":{},"result":[{"text":"a"}]}]}"#),
        [Turn::Assistant("ok".into()), call("ls", "{}"), Turn::Result("a".into())]
    );
    assert_eq!(turns(Agent::Copilot, r#"{"type":"user.message","data":{"content":"do"}}"#), [Turn::User("do".into())]);
}

#[test]
fn the_command_reports_repairs_and_never_overwrites() {
    let bench = Bench::new();
    let whole: String = (0..3).map(|n| claude(n) + "\n").collect();
    bench.write("s.jsonl", &format!("{whole}{}", &claude(3)[..40]));
    let path = bench.dir.path().join("s.jsonl");
    let wish = Rescue { files: vec![path.clone()], max_bytes: 10_000, ..Rescue::default() };
    let heard = Heard::new();
    assert_eq!(rescue(&bench.shop(), &wish, &heard.out).unwrap(), 0);
    assert!(heard.data().contains("3 whole, 0 of them mended") && heard.data().contains("lost        40 B"), "{}", heard.data());
    assert!(heard.talk().contains("--repair NEW"));

    let to = bench.dir.path().join("new.jsonl");
    let mending = Rescue { repair: Some(to.clone()), ..wish.clone() };
    rescue(&bench.shop(), &mending, &Heard::new().out).unwrap();
    assert_eq!(std::fs::read_to_string(&to).unwrap(), whole);
    assert_eq!(rescue(&bench.shop(), &mending, &Heard::new().out).unwrap_err().code.0, "TB-RESCUE-004");

    let heard = Heard::new();
    rescue(&bench.shop(), &Rescue { transcript: true, ..wish.clone() }, &heard.out).unwrap();
    assert!(heard.data().contains("## User\nwords 2"), "{}", heard.data());
    let heard = Heard::new();
    rescue(&bench.shop(), &Rescue { transcript: true, max_bytes: 40, ..wish }, &heard.out).unwrap();
    assert!(heard.data().contains("2 earlier pieces are left out") && !heard.data().contains("words 1"), "{}", heard.data());
}

#[test]
fn bad_files_are_refused_with_the_way_out() {
    let bench = Bench::new();
    bench.write("empty.jsonl", "");
    bench.write("other.jsonl", "{\"a\":1}\n");
    let code = |name: &str| {
        let wish = Rescue { files: vec![bench.dir.path().join(name)], ..Rescue::default() };
        rescue(&bench.shop(), &wish, &Heard::new().out).unwrap_err().code.0
    };
    assert_eq!(
        (code("empty.jsonl"), code("other.jsonl"), code("missing"), code("home/..")),
        ("TB-RESCUE-002", "TB-RESCUE-002", "TB-RESCUE-001", "TB-RESCUE-001")
    );
}

#[test]
fn sessions_are_found_where_their_agents_keep_them() {
    let mut bench = Bench::new();
    bench.env = crate::environment::Environment::of(&[("HOME", bench.dir.path().to_str().unwrap())]);
    bench.write(".codex/sessions/2026/05/24/rollout-a.jsonl", &format!("{}\n", codex(1)));
    bench.write(".claude/projects/-w/s.jsonl", &format!("{}\n{{\"type\":", claude(1)));
    bench.write(".gemini/tmp/ab/chats/session-1.json", r#"{"sessionId":"g","messages":[]}"#);
    let heard = Heard::new();
    rescue(&bench.shop(), &Rescue::default(), &heard.out).unwrap();
    let told = heard.data();
    assert!(
        told.contains("codex") && told.contains("claude") && told.contains("gemini") && told.contains("damaged, 8 B unreadable"),
        "{told}"
    );
}
