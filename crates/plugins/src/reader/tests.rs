//! Whatever a server writes, a wait ends: by its answer, its time, or a bound.

use super::*;
use crate::bench::Writer;
use tinkerbell_testkit::fake::FakeClock;

async fn wait(unit: Arc<Writer>, clock: &FakeClock, is_adopted: bool) -> Result<Waited, String> {
    let mut reader = Reader::new("s", unit, Arc::new(clock.clone()));
    if is_adopted {
        reader.adopt();
    }
    let end_ms = clock.now().mono_ms + 5_000;
    let mut allowance = if is_adopted { Allowance::history() } else { Allowance::default() };
    // Less than in earnest, because a test makes every byte of it.
    allowance.bytes = 8 << 20;
    let waited = reader.wait(&[7], end_ms, &mut allowance).await.map_err(|error| error.to_string());
    assert!(clock.now().mono_ms <= end_ms + 1_000, "it took longer than its time");
    waited
}

fn answered(text: &str) -> Result<Waited, String> {
    Ok(Waited::Answered(7, Answer::Result(text.to_owned())))
}

#[tokio::test]
async fn an_answer_is_found_among_all_else() {
    for (text, is_over, expected) in [
        ("{\"id\":7,\"result\":{}}\n", false, answered("{}")),
        (
            "hello\n\n{\"jsonrpc\":\"2.0\",\"method\":\"n\"}\n{\"id\":6,\"result\":1}\n {\"result\":[2],\"id\":7} \r\n",
            false,
            answered("[2]"),
        ),
        ("{\"id\":\"7\",\"result\":1}\n", false, Ok(Waited::Late)),
        ("{\"id\":7,\"result\":1", false, Ok(Waited::Late)),
        ("{\"id\":7,\"result\":{}}\n", true, answered("{}")),
        (
            "{\"id\":7,\"error\":{\"code\":-1,\"message\":\"n\\u202eo\"}}\n",
            false,
            Ok(Waited::Answered(7, Answer::Error("n\\u{202e}o (error -1)".into()))),
        ),
        ("{\"id\":7,\"method\":\"ping\"}\n", false, Ok(Waited::Asked(vec![b"{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n".to_vec()]))),
        ("", false, Ok(Waited::Late)),
        ("", true, Ok(Waited::Gone(String::new()))),
        ("hi\n\nlast words", true, Ok(Waited::Gone("hi\nlast words".into()))),
    ] {
        let clock = FakeClock::new();
        assert_eq!(wait(Writer::of(&clock, text, is_over), &clock, false).await, expected, "{text}");
    }
}

#[tokio::test]
async fn what_never_ends_is_bounded() {
    let long = "x".repeat(1_000);
    for (text, expected) in [
        (long.as_str(), "more than 4 MiB"),
        ("noise\n", "lines that are no messages"),
        ("{\"method\":\"n\"}\n", "more than 10000 messages"),
        ("{\"id\":1,\"result\":1}\n", "more than 10000 messages"),
        ("{\"id\":7,\n", "malformed message"),
        ("{\"id\":7,\"id\":7,\"result\":1}\n", "malformed message"),
        ("\n", "more than 64 MiB"),
    ] {
        let clock = FakeClock::new();
        let error = wait(Writer::endless(&clock, text), &clock, false).await.unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let deep = format!("{{\"id\":7,\"result\":{}{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    let clock = FakeClock::new();
    // Skipped without being built; whoever reads the result refuses it.
    assert!(wait(Writer::of(&clock, &deep, false), &clock, false).await.is_ok());
}

#[tokio::test]
async fn a_hole_is_a_fault_unless_it_lies_in_the_past() {
    let text = "lost\n{\"half\":\n{\"id\":7,\"result\":1}\n";
    let clock = FakeClock::new();
    let unit = |kept_from| Arc::new(Writer { kept_from, ..Arc::into_inner(Writer::of(&clock, text, false)).unwrap() });
    assert!(wait(unit(8), &clock, false).await.unwrap_err().contains("more than is kept"));
    assert_eq!(wait(unit(8), &clock, true).await, answered("1"));
}
