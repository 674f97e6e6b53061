//! The commands against a server with an engine in memory, as a script sees them: data, talk,
//! exit code.

use super::*;
use crate::args::parse;
use crate::house::Surroundings;
use expect_test::{Expect, expect};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tinkerbell_api::server::{Daemon, DaemonStatus, ServerState, serve};
use tinkerbell_api::socket;
use tinkerbell_api::wire::{HaltView, UpgradeRequest, UpgradeView};
use tinkerbell_core::clock::{Clock, Stamp};
use tinkerbell_core::event::{self, Action, Event, Observation, Placed, Submitted};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::port::{self, Difference, ListQuery, Listed, Listing, Runtime, Seen, Submission};
use tinkerbell_core::words::{BlobRef, Lsn, TaskId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const TASK: TaskId = TaskId(0x7f3a_2c00_0000_0000_0000_0000_0000_0001);

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A stdout that takes nothing.
struct Closed(std::io::ErrorKind);

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Fake {
    log: watch::Sender<Vec<Placed>>,
    /// What happens after a submission or an answer.
    script: Mutex<Vec<Vec<Event>>>,
    commands: Mutex<Vec<String>>,
    upgrade: Mutex<Option<(String, u32)>>,
    stop: CancellationToken,
}

impl Fake {
    fn happen(&self, events: Vec<Event>) {
        self.log.send_modify(|log| {
            for event in events {
                let lsn = Lsn(log.len() as u64 + 1);
                log.push(Placed { lsn, at_ms: 1_795_166_043_120 + lsn.0, task: TASK, event });
            }
        });
    }
    fn go_on(&self) {
        let mut script = self.script.lock().unwrap();
        if !script.is_empty() {
            let next = script.remove(0);
            drop(script);
            self.happen(next);
        }
    }
    fn task(&self) -> Option<Task> {
        let log = self.log.borrow();
        let first = log.first()?;
        let Event::Submitted(submitted) = &first.event else { return None };
        let mut task = Task::new(TASK, first.lsn, first.at_ms, submitted.clone());
        log.iter().skip(1).for_each(|placed| task.apply(placed));
        Some(task)
    }
}

impl Clock for Fake {
    fn now(&self) -> Stamp {
        Stamp::default()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl Daemon for Fake {
    fn status(&self) -> DaemonStatus {
        // The upgrade takes two looks to its end.
        let upgrade = self.upgrade.lock().unwrap().as_mut().map(|(state, asked)| {
            *asked += 1;
            let state = if *asked > 1 { state.clone() } else { "draining".to_owned() };
            let why = if state == "taken-back" { "it ended before it served".to_owned() } else { String::new() };
            UpgradeView {
                state,
                from_pid: 4711,
                from_version: "0.1.0".into(),
                binary: "/bin/tinkerbell".into(),
                why,
                gap_ms: 50,
                ..UpgradeView::default()
            }
        });
        DaemonStatus {
            pid: 4711,
            version: "0.1.0".into(),
            uptime_ms: 61_000,
            lsn: 3,
            data_dir: "/d".into(),
            set: vec!["limits.max_steps=50".into()],
            upgrade,
            ..DaemonStatus::default()
        }
    }
    fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
    fn alive(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
    fn upgrade(&self, request: UpgradeRequest) -> BoxFuture<'_, Result<UpgradeView, Fault>> {
        let end = match request.health_ms {
            1_000 => "taken-back",
            _ => "done",
        };
        *self.upgrade.lock().unwrap() = Some((end.to_owned(), 0));
        let (version, binary) = ("0.2.0".to_owned(), request.binary);
        Box::pin(async move {
            Ok(UpgradeView { state: "looked".into(), from_pid: 4711, version, records: 7, binary, ..UpgradeView::default() })
        })
    }
    fn halt(&self) -> BoxFuture<'_, HaltView> {
        Box::pin(async { HaltView::default() })
    }
    fn reload(&self) -> Result<String, Fault> {
        Ok("for the next task: model".to_owned())
    }
    fn stop(&self) {
        self.stop.cancel();
    }
    fn environment(&self, _: Vec<tinkerbell_secret::Named>) {}
}

impl Runtime for Fake {
    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<(TaskId, Lsn), Fault>> {
        let no_input = submission.no_input;
        let submitted = Submitted { goal: submission.goal, model: "local/qwen".into(), no_input, ..Submitted::default() };
        self.happen(vec![Event::Submitted(submitted)]);
        self.go_on();
        Box::pin(async { Ok((TASK, Lsn(1))) })
    }
    fn command(&self, _: TaskId, command: port::Command) -> BoxFuture<'_, Result<String, Fault>> {
        let text = format!("{command:?}");
        self.commands.lock().unwrap().push(text.clone());
        self.go_on();
        Box::pin(async { Ok(text) })
    }
    fn get<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Listed, Fault>> {
        let found = self.task().filter(|task| task.id.to_string().starts_with(prefix)).map(|task| Listed { task, digits: 1 });
        let none = || Fault::new("TB-TASK-001", exit::USAGE, format!("no task begins with `{prefix}`")).hint("tinkerbell ps -a");
        let found = found.ok_or_else(none);
        Box::pin(async move { found })
    }
    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, Fault>> {
        let tasks: Vec<Listed> = self.task().into_iter().map(|task| Listed { task, digits: 1 }).collect();
        let (total, open) = (tasks.len() as u64, tasks.iter().filter(|found| found.task.is_open()).count() as u64);
        let kept = tasks.into_iter().filter(|found| !query.open || found.task.is_open());
        let page = Listing { tasks: kept.take(query.limit).collect(), before: None, total, open };
        Box::pin(async move { Ok(page) })
    }
    fn watch(&self, _: Option<TaskId>, after: Lsn) -> BoxStream<'static, Result<Seen, Fault>> {
        let past: Vec<Placed> = self.log.borrow().iter().filter(|placed| placed.lsn > after).cloned().collect();
        let seen = past.last().map_or(after, |placed| placed.lsn);
        let changes = self.log.subscribe();
        let fresh = stream::unfold((changes, seen), |(mut changes, mut seen)| async move {
            changes.changed().await.ok()?;
            let new: Vec<Placed> = changes.borrow_and_update().iter().filter(|placed| placed.lsn > seen).cloned().collect();
            seen = new.last().map_or(seen, |placed| placed.lsn);
            Some((stream::iter(new), (changes, seen)))
        });
        let past = stream::iter(past).map(|placed| Seen::Event(Arc::new(placed))).chain(stream::once(async move { Seen::CaughtUp(seen) }));
        Box::pin(past.chain(fresh.flatten().map(|placed| Seen::Event(Arc::new(placed)))).map(Ok))
    }
    fn diff(&self, _: TaskId, _: Option<u32>, _: Option<u32>) -> BoxFuture<'_, Result<Difference, Fault>> {
        Box::pin(async { Ok(Difference { files: changes(), text: "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\x1b\n".into() }) })
    }
    fn blob(&self, _: BlobRef) -> BoxFuture<'_, Result<bytes::Bytes, Fault>> {
        Box::pin(async { Ok(bytes::Bytes::from_static(b"whole\noutput\n")) })
    }
}

struct Roof {
    engine: Arc<Fake>,
    dir: tempfile::TempDir,
    chores: Mutex<Vec<Chore>>,
}

impl Roof {
    fn new(script: Vec<Vec<Event>>) -> Arc<Self> {
        let engine = Fake {
            log: watch::channel(Vec::new()).0,
            script: Mutex::new(script),
            commands: Mutex::default(),
            upgrade: Mutex::default(),
            stop: CancellationToken::new(),
        };
        Arc::new(Self { engine: Arc::new(engine), dir: tempfile::tempdir().unwrap(), chores: Mutex::default() })
    }
    fn path(&self) -> PathBuf {
        self.dir.path().join("run/s")
    }
    async fn start(&self) {
        let listener = socket::bind(&self.path()).await.unwrap();
        let engine = &self.engine;
        let state = ServerState::new(engine.clone(), engine.clone(), engine.clone(), engine.stop.clone());
        tokio::spawn(serve(listener, state));
    }
}

impl House for Roof {
    fn connect(&self, autostart: bool) -> BoxFuture<'_, Result<Client, Fault>> {
        Box::pin(async move {
            match Client::connect(self.path()).await {
                Err(fault) if autostart && fault.code.0 == "TB-API-001" => {
                    self.start().await;
                    Client::connect(self.path()).await
                }
                connected => connected,
            }
        })
    }
    fn surroundings(&self) -> Surroundings {
        Surroundings {
            cwd: Some(self.dir.path().to_owned()),
            exe: "/bin/tinkerbell".into(),
            env: [("PATH".to_owned(), "/bin".to_owned())].into(),
            key: "k1".into(),
            notify: Default::default(),
        }
    }
    fn chore(&self, chore: Chore, _: Arc<Output>) -> BoxFuture<'_, Result<u8, Fault>> {
        self.chores.lock().unwrap().push(chore);
        Box::pin(async { Ok(7) })
    }
}

fn changes() -> Vec<event::FileChange> {
    vec![event::FileChange { path: "src/parse.rs".into(), kind: "changed".into(), plus: 3, minus: 1 }]
}

fn intent(seq: u32, action: Action) -> Event {
    Event::Intent(event::Intent { seq, class: 1, action: Some(action), yolo: false })
}

fn observed(seq: u32, observation: Observation) -> Event {
    Event::Observed(event::Observed { seq, observation: Some(observation) })
}

fn exec(seq: u32, number: i32, text: &str) -> Vec<Event> {
    let call = event::Call { call_id: "c".into(), tool: "exec".into(), args: r#"{"cmd":"make test"}"#.into(), step: 1 };
    let full = BlobRef { key_id: 1, hash: [1; 32], size_bytes: 3 }.to_bytes();
    let summary = format!("exec make test → exit {number} in 0.4 s");
    let seen = event::ResultSeen { text: text.into(), status: "exited".into(), number, summary, full, ..event::ResultSeen::default() };
    vec![intent(seq, Action::Call(call)), observed(seq, Observation::Result(seen))]
}

fn reply(seq: u32, text: &str) -> Vec<Event> {
    let part = event::Part { kind: event::PartKind::Text as i32, text: text.into(), ..event::Part::default() };
    let said = event::Reply { parts: vec![part], nano_usd: Some(0), ..event::Reply::default() };
    vec![intent(seq, Action::Ask(event::Ask { step: 1, ..event::Ask::default() })), observed(seq, Observation::Reply(said))]
}

fn finished(status: &str, exit: u32, text: &str) -> Event {
    Event::Finished(event::Finished {
        status: status.into(),
        exit,
        text: text.into(),
        files: changes(),
        commits: 1,
        ..event::Finished::default()
    })
}

fn asked() -> Vec<Event> {
    let body = "+be \x1b[31mbold\n".to_owned();
    let asked = event::ApprovalAsked {
        id: 1,
        seq: 4,
        kind: 1,
        title: "edit AGENTS.md (protected)".into(),
        body,
        digest: "d".into(),
        ..event::ApprovalAsked::default()
    };
    vec![
        Event::ApprovalAsked(asked),
        Event::Paused(event::Paused { why: "person".into(), text: "edit AGENTS.md".into(), ..Default::default() }),
    ]
}

fn story() -> Vec<Event> {
    let mut events = reply(1, "I run the tests.\nThen I fix them.");
    events.extend(exec(2, 2, "ok 1\nnot ok 2 \x1b]0;evil\x07"));
    let plan = vec![event::PlanStep { text: "accept CRLF".into(), status: "active".into() }];
    events.push(observed(3, Observation::Result(event::ResultSeen { status: "done".into(), plan, ..Default::default() })));
    events.push(observed(4, Observation::Verdict(event::Verdict { passed: true, wall_ms: 300, ..Default::default() })));
    events.push(finished("verified", 0, "CRLF is accepted."));
    events
}

/// Runs lines one after the other against one house.
async fn play(roof: &Arc<Roof>, lines: &[&str]) -> String {
    let mut shown = String::new();
    for line in lines {
        let (data, talk) = (Sink::default(), Sink::default());
        let out = Arc::new(Output::plain(Box::new(data.clone()), Box::new(talk.clone())));
        let argv = std::iter::once("tinkerbell").chain(line.split(' ')).map(Into::into);
        let args = parse(argv).expect("a line that is read");
        let house: Arc<dyn House> = roof.clone();
        let code = tokio::time::timeout(Duration::from_secs(20), run_on(args, house, out)).await.expect("in time");
        let place = roof.dir.path().display().to_string();
        let indent =
            |text: String, sign: &str| text.lines().map(|line| format!("{sign}{line}\n")).collect::<String>().replace(&place, "DIR");
        shown += &format!("$ {line}  → {code}\n{}{}", indent(data.text(), "1 "), indent(talk.text(), "2 "));
    }
    shown
}

async fn check(script: Vec<Vec<Event>>, lines: &[&str], expected: Expect) -> Arc<Roof> {
    let roof = Roof::new(script);
    expected.assert_eq(&play(&roof, lines).await);
    roof
}

#[tokio::test]
async fn a_run_prints_its_words_to_stdout_and_its_story_to_stderr() {
    check(
        vec![story()],
        &["run fix it"],
        expect![[r#"
        $ run fix it  → 0
        1 CRLF is accepted.
        2 task 7f3a2c
        2 · fix it  (local/qwen)
        2 ◆ I run the tests.
        2 ✗ exec make test → exit 2 in 0.4 s
        2     ok 1
        2     not ok 2 \x1b]0;evil\x07
        2 · plan
        2     [>] accept CRLF
        2 ✓ verification passed in 0.3 s
        2 ✓ done, verified · 1 file changed, +3 -1 · 0 in / 0 out tokens · cost $0.00
        2     M src/parse.rs  +3 -1
        2 ↩ undo: tinkerbell undo 7f3a2c
        2   diff: tinkerbell diff 7f3a2c
        2   land: tinkerbell land 7f3a2c --squash
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_run_as_json_ends_with_its_result() {
    let roof = Roof::new(vec![story()]);
    let shown = play(&roof, &["run --json x"]).await;
    let data: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("1 ")).collect();
    assert!(data.iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{shown}");
    assert!(data.first().unwrap().contains(r#""type":"task.started""#), "{shown}");
    assert!(data.last().unwrap().contains(r#""type":"result""#), "{shown}");
}

#[tokio::test]
async fn a_background_run_prints_its_id_alone() {
    check(
        vec![],
        &["run --bg x", "-q run --bg --json x"],
        expect![[r#"
            $ run --bg x  → 0
            1 7f3a2c00000000000000000000000001
            2 follow it: tinkerbell attach 7f3a2c
            $ -q run --bg --json x  → 0
            1 {"task":"7f3a2c00000000000000000000000001"}
            2 follow it: tinkerbell attach 7f3a2c
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_run_that_nobody_can_answer_leaves_its_task_paused() {
    check(
        vec![
            asked(),
            vec![Event::ApprovalGiven(event::ApprovalGiven { id: 1, yes: true, ..Default::default() }), finished("unverified", 0, "")],
        ],
        &[
            "run x",
            "inbox",
            "inbox -o name",
            "wait 7f3 --no-input",
            "ps",
            "approve 7f3a2c/2",
            "approve 7f3a2c/1",
            "wait 7f3a2c",
            "approve 7f3a2c",
        ],
        expect![[r#"
            $ run x  → 4
            2 task 7f3a2c
            2 · x  (local/qwen)
            2 ? edit AGENTS.md (protected)
            2     +be \x1b[31mbold
            2     ! contains control characters: U+001B
            2 ‖ waits for you: edit AGENTS.md
            2 error[TB-CLI-003]: task 7f3a2c waits for you: edit AGENTS.md
            2   tinkerbell approve 7f3a2c/1
            2   tinkerbell deny 7f3a2c/1
            2   tinkerbell attach 7f3a2c
            2   tinkerbell explain TB-CLI-003              (exit code 4)
            $ inbox  → 0
            1 ID        ASKED              KIND      QUESTION
            1 7f3a2c/1  2026-11-20 09:14Z  approval  ! edit AGENTS.md (protected)
            2 tinkerbell inspect TASK shows a question whole; tinkerbell approve ID, tinkerbell deny ID answer it
            $ inbox -o name  → 0
            1 7f3a2c/1
            $ wait 7f3 --no-input  → 4
            2 error[TB-CLI-003]: task 7f3a2c waits for you: edit AGENTS.md
            2   tinkerbell approve 7f3a2c/1
            2   tinkerbell deny 7f3a2c/1
            2   tinkerbell attach 7f3a2c
            2   tinkerbell explain TB-CLI-003              (exit code 4)
            $ ps  → 0
            1 TASK    STATUS     PRIORITY  UPDATED            STEPS  COST   CPU  DISK  MODEL       GOAL
            1 7f3a2c  needs-you  normal    2026-11-20 09:14Z  0      $0.00  -    -     local/qwen  x
            $ approve 7f3a2c/2  → 2
            2 error[TB-CLI-008]: task 7f3a2c has no such open question
            2   tinkerbell inbox
            2   tinkerbell explain TB-CLI-008              (exit code 2)
            $ approve 7f3a2c/1  → 0
            1 Answer(Given { id: 1, yes: true, text: "", uid: 0, digest: "d", scope: "once" })
            $ wait 7f3a2c  → 0
            $ approve 7f3a2c  → 2
            2 error[TB-CLI-008]: task 7f3a2c has no such open question
            2   tinkerbell inbox
            2   tinkerbell explain TB-CLI-008              (exit code 2)
        "#]],
    )
    .await;
    let roof = Roof::new(vec![asked()]);
    let shown = play(&roof, &["run --json x"]).await;
    assert!(shown.contains(r#""exit_code":4"#) && shown.starts_with("$ run --json x  → 4"), "{shown}");
}

#[tokio::test]
async fn other_halts_have_their_codes() {
    let halt =
        |why: &str| vec![Event::Paused(event::Paused { why: why.into(), text: "needs key OPENAI_API_KEY".into(), ..Default::default() })];
    for (why, code) in [("budget", 5), ("key", 77), ("disk", 69)] {
        let roof = Roof::new(vec![halt(why)]);
        let shown = play(&roof, &["run x"]).await;
        assert!(shown.starts_with(&format!("$ run x  → {code}")), "{why}: {shown}");
        assert!(shown.contains("tinkerbell resume 7f3a2c"), "{shown}");
    }
}

#[tokio::test]
async fn results_give_their_exit_codes() {
    for (status, exit, code) in [("gate-failed", 3, 3), ("failed", 1, 1), ("cancelled", 6, 6), ("unverified", 0, 0)] {
        let roof = Roof::new(vec![vec![finished(status, exit, "because")]]);
        let shown = play(&roof, &["run x", "wait 7f3a2c", "attach 7f3a2c"]).await;
        assert_eq!(shown.matches(&format!("→ {code}")).count(), 3, "{shown}");
    }
}

#[tokio::test]
async fn looking_at_a_task_shows_it() {
    check(
        vec![story()],
        &[
            "run --bg x",
            "ps -a",
            "ps",
            "ps -a -o name",
            "inspect 7f3a2c",
            "logs 7f3a2c",
            "logs --full 7f3a2c",
            "op log 7f3a2c",
            "diff 7f3a2c",
            "diff --stat 7f3a2c",
        ],
        expect![[r#"
            $ run --bg x  → 0
            1 7f3a2c00000000000000000000000001
            2 follow it: tinkerbell attach 7f3a2c
            $ ps -a  → 0
            1 TASK    STATUS    PRIORITY  UPDATED            STEPS  COST   CPU  DISK  MODEL       GOAL
            1 7f3a2c  verified  normal    2026-11-20 09:14Z  1      $0.00  -    -     local/qwen  x
            $ ps  → 0
            1 TASK  STATUS  PRIORITY  UPDATED  STEPS  COST  CPU  DISK  MODEL  GOAL
            2 no open task; 1 have ended: tinkerbell ps -a
            $ ps -a -o name  → 0
            1 7f3a2c00000000000000000000000001
            $ inspect 7f3a2c  → 0
            1 task       7f3a2c00000000000000000000000001
            1 status     verified
            1 goal       x
            1 model      local/qwen
            1 priority   normal
            1 created    2026-11-20T09:14:03.121Z
            1 updated    2026-11-20T09:14:03.128Z
            1 steps      1
            1 tokens     0
            1 cost       $0.00
            1 directory  
            1 plan
            1   [active] accept CRLF
            1 changed
            1   M src/parse.rs  +3 -1
            1   1 file changed, +3 -1
            1 result
            1   CRLF is accepted.
            $ logs 7f3a2c  → 0
            1 09:14:03 · x  (local/qwen)
            1 09:14:03 ◆ I run the tests.
            1              Then I fix them.
            1 09:14:03 ✗ exec make test → exit 2 in 0.4 s
            1              ok 1
            1              not ok 2 \x1b]0;evil\x07
            1 09:14:03 · plan
            1              [>] accept CRLF
            1 09:14:03 ✓ verification passed in 0.3 s
            1 09:14:03 ✓ done, verified · 1 file changed, +3 -1 · 0 in / 0 out tokens · cost $0.00
            1              M src/parse.rs  +3 -1
            $ logs --full 7f3a2c  → 0
            1 09:14:03 · x  (local/qwen)
            1 09:14:03 ◆ I run the tests.
            1              Then I fix them.
            1 09:14:03 ✗ exec make test → exit 2 in 0.4 s
            1              whole
            1              output
            1 09:14:03 · plan
            1              [>] accept CRLF
            1 09:14:03 ✓ verification passed in 0.3 s
            1 09:14:03 ✓ done, verified · 1 file changed, +3 -1 · 0 in / 0 out tokens · cost $0.00
            1              M src/parse.rs  +3 -1
            $ op log 7f3a2c  → 0
            1 OP  TIME  KIND  IN FORCE  FILES  COMMIT  SUMMARY
            2 back to any of them: tinkerbell restore 7f3a2c OP
            $ diff 7f3a2c  → 0
            1 --- a/x
            1 +++ b/x
            1 @@ -1 +1 @@
            1 -a
            1 +b
            $ diff --stat 7f3a2c  → 0
            1 M src/parse.rs  +3 -1
            1 1 file changed, +3 -1
        "#]],
    )
    .await;
}

#[tokio::test]
async fn changing_a_task_says_how_to_take_it_back() {
    check(
        vec![],
        &[
            "run --bg x",
            "undo 7f3",
            "undo 7f3 --all",
            "redo 7f3",
            "restore 7f3 2",
            "land 7f3 --squash -m done",
            "pause 7f3",
            "unpause 7f3",
            "stop 7f3 zzz",
            "rm 7f3",
            "resume 7f3 --budget 5usd",
            "tell 7f3 keep LF",
            "inbox",
        ],
        expect![[r#"
            $ run --bg x  → 0
            1 7f3a2c00000000000000000000000001
            2 follow it: tinkerbell attach 7f3a2c
            $ undo 7f3  → 0
            1 Undo { all: false }
            2 ↩ redo: tinkerbell redo 7f3a2c
            $ undo 7f3 --all  → 0
            1 Undo { all: true }
            2 ↩ redo: tinkerbell redo 7f3a2c
            $ redo 7f3  → 0
            1 Redo
            2 ↩ undo: tinkerbell undo 7f3a2c
            $ restore 7f3 2  → 0
            1 Restore { op: 2 }
            2 ↩ undo: tinkerbell undo 7f3a2c
            $ land 7f3 --squash -m done  → 0
            1 Land { branch: None, message: "done" }
            2 ↩ undo: tinkerbell undo 7f3a2c
            $ pause 7f3  → 0
            1 Pause
            $ unpause 7f3  → 0
            1 Resume(None)
            $ stop 7f3 zzz  → 2
            1 Cancel
            2 error[TB-TASK-001]: no task begins with `zzz`
            2   tinkerbell ps -a
            2   tinkerbell explain TB-TASK-001             (exit code 2)
            $ rm 7f3  → 0
            1 Remove { force: false }
            $ resume 7f3 --budget 5usd  → 0
            1 Resume(Some(Caps { nano_usd: Some(5000000000), steps: None, tokens: None, wall_ms: None, cpu_ms: None, disk_bytes: None, processes: None, memory_bytes: None }))
            $ tell 7f3 keep LF  → 0
            1 Tell("keep LF")
            $ inbox  → 0
            2 nothing waits for you
        "#]],
    )
    .await;
}

#[tokio::test]
async fn an_upgrade_is_followed_to_its_end() {
    check(
        vec![],
        &["inbox", "daemon reload", "daemon upgrade --dry-run", "daemon upgrade", "daemon upgrade --health 1s"],
        expect![[r#"
            $ inbox  → 0
            2 nothing waits for you
            $ daemon reload  → 0
            2 for the next task: model
            $ daemon upgrade --dry-run  → 0
            2 /bin/tinkerbell (release 0.2.0) can read all 7 records
            $ daemon upgrade  → 0
            2 /bin/tinkerbell (release 0.2.0) can read all 7 records
            2 upgrade: waiting for model calls to end
            2 process 4711 gave its place to process 4711; upgraded from 0.1.0 in 50 ms; commands: 0 run on, 0 have ended, 0 unknown; model calls carried on: 0
            $ daemon upgrade --health 1s  → 1
            2 /bin/tinkerbell (release 0.2.0) can read all 7 records
            2 upgrade: waiting for model calls to end
            2 error[TB-DAEMON-014]: the new binary did not serve, and the old one took over again: it ended before it served
            2   tinkerbell daemon logs   has what the new binary said
            2   tinkerbell explain TB-DAEMON-014           (exit code 1)
        "#]],
    )
    .await;
}

#[tokio::test]
async fn the_daemon_is_shown_and_stopped_but_not_started() {
    check(
        vec![],
        &["daemon status", "daemon stop", "inbox", "daemon status", "daemon stop", "daemon stop"],
        expect![[r#"
            $ daemon status  → 69
            2 error[TB-API-001]: the daemon can not be reached at DIR/run/s: no socket is there
            2   tinkerbell daemon start
            2   tinkerbell explain TB-API-001              (exit code 69)
            $ daemon stop  → 0
            2 no daemon runs
            $ inbox  → 0
            2 nothing waits for you
            $ daemon status  → 0
            1 daemon 0.1.0 runs as process 4711 for 61 s, ready
            1 tasks 0 (0 open); clients 1, commands 0
            1 journal: newest record 3, 0 B, room 
            1 memory 0 B
            1 data /d
            1 started with limits.max_steps=50
            $ daemon stop  → 0
            2 stopped
            $ daemon stop  → 0
            2 no daemon runs
        "#]],
    )
    .await;
}

#[tokio::test]
async fn bad_input_is_refused_with_what_to_do() {
    check(
        vec![],
        &["inspect zz", "run --cd none x", "explain TB-API-999", "explain x", "approve a/b", "diff ../../etc"],
        expect![[r#"
            $ inspect zz  → 2
            2 error[TB-TASK-001]: no task begins with `zz`
            2   tinkerbell ps -a
            2   tinkerbell explain TB-TASK-001             (exit code 2)
            $ run --cd none x  → 2
            2 error[TB-CLI-001]: the directory DIR/none can not be used: No such file or directory (os error 2)
            2   tinkerbell explain TB-CLI-001              (exit code 2)
            $ explain TB-API-999  → 2
            2 error[TB-CLI-007]: there is no error code `TB-API-999`
            2   known are TB-API-001, TB-API-002, TB-API-003, TB-API-004, TB-API-005, TB-API-006, TB-API-007, TB-API-008, TB-API-009, TB-API-010, TB-API-011, TB-API-012, TB-API-013, TB-API-014
            2   tinkerbell explain TB-CLI-007              (exit code 2)
            $ explain x  → 2
            2 error[TB-CLI-007]: there is no error code `x`
            2   codes look like TB-ROUTER-001 and stand in brackets after `error`
            2   tinkerbell explain TB-CLI-007              (exit code 2)
            $ approve a/b  → 2
            2 error[TB-CLI-008]: `a/b` is not TASK or TASK/NUMBER
            2   tinkerbell inbox
            2   tinkerbell explain TB-CLI-008              (exit code 2)
            $ diff ../../etc  → 2
            2 error[TB-TASK-001]: no task begins with `../../etc`
            2   tinkerbell ps -a
            2   tinkerbell explain TB-TASK-001             (exit code 2)
        "#]],
    )
    .await;
}

#[tokio::test]
async fn chores_go_to_the_roof() {
    let roof = Roof::new(vec![]);
    let shown = play(&roof, &["doctor --json", "init", "config show --origin", "wal dump --from 3", "demo --fast", "daemon start"]).await;
    assert_eq!(shown.matches("→ 7").count(), 6, "{shown}");
    assert_eq!(roof.chores.lock().unwrap().first(), Some(&Chore::Doctor { json: true, offline: false }));
}

#[tokio::test]
async fn a_closed_stdout_is_no_panic_and_ends_the_command() {
    let roof = Roof::new(vec![story()]);
    let lines = ["run --json x", "logs 7f3a2c", "ps -a", "completion bash"];
    for (kind, code) in [(std::io::ErrorKind::BrokenPipe, 0), (std::io::ErrorKind::StorageFull, 1)] {
        for line in lines {
            let out = Arc::new(Output::plain(Box::new(Closed(kind)), Box::new(Sink::default())));
            let args = parse(std::iter::once("tinkerbell").chain(line.split(' ')).map(Into::into)).unwrap();
            let house: Arc<dyn House> = roof.clone();
            let ended = tokio::time::timeout(Duration::from_secs(20), run_on(args, house, out)).await.expect("in time");
            assert_eq!(ended, code, "{line} {kind}");
        }
    }
}

/// What a task's events add up to for a watcher.
#[test]
fn a_task_stands_as_its_newest_events_say() {
    use super::watch::Standing;
    use tinkerbell_api::wire::{self, Facts};
    let tell = Event::Signal(event::Signal { kind: "tell".into(), text: "more".into(), caps: None });
    let given = Event::ApprovalGiven(event::ApprovalGiven { id: 1, yes: true, ..Default::default() });
    let undo = intent(1_000_000_001, Action::Op(event::Op::default()));
    let go = intent(9, Action::Ask(event::Ask::default()));
    for (events, ended, halted) in [
        (asked(), false, true),
        ([asked(), vec![given]].concat(), false, false),
        ([asked(), vec![undo.clone()]].concat(), false, true),
        (vec![finished("failed", 1, "")], true, false),
        (vec![finished("failed", 1, ""), undo], true, false),
        (vec![finished("failed", 1, ""), tell], false, false),
        (vec![finished("failed", 1, ""), go], false, false),
    ] {
        let mut standing = Standing::default();
        for (at, event) in events.into_iter().enumerate() {
            let placed = Placed { lsn: Lsn(at as u64 + 1), at_ms: 0, task: TASK, event };
            wire::envelope(&placed, &Facts::default()).iter().for_each(|envelope| standing.absorb(envelope));
        }
        assert!(standing.ended().is_none() && standing.halt().is_none(), "nothing is decided before all was seen");
        standing.is_caught_up = true;
        assert_eq!((standing.ended().is_some(), standing.halt().is_some()), (ended, halted), "{standing:?}");
    }
}

#[tokio::test]
async fn a_lost_daemon_is_started_again_and_the_run_goes_on() {
    let roof = Roof::new(vec![]);
    let (data, talk) = (Sink::default(), Sink::default());
    let out = Arc::new(Output::plain(Box::new(data.clone()), Box::new(talk.clone())));
    let args = parse(["tinkerbell", "run", "x"].map(Into::into)).unwrap();
    let house: Arc<dyn House> = roof.clone();
    let running = tokio::spawn(run_on(args, house, out));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while roof.engine.log.receiver_count() == 0 && tokio::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    // The first server ends; a second one, with a fresh stop, is started by the command line.
    let second = Fake {
        log: watch::channel(roof.engine.log.borrow().clone()).0,
        script: Mutex::default(),
        commands: Mutex::default(),
        upgrade: Mutex::default(),
        stop: CancellationToken::new(),
    };
    let second = Arc::new(second);
    second.happen(vec![finished("unverified", 0, "went on")]);
    roof.engine.stop.cancel();
    while socket::connect(&roof.path()).await.is_ok() && tokio::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    if let Ok(listener) = socket::bind(&roof.path()).await {
        tokio::spawn(serve(listener, ServerState::new(second.clone(), second.clone(), second.clone(), second.stop.clone())));
    }
    let code = tokio::time::timeout(Duration::from_secs(20), running).await.expect("in time").unwrap();
    assert_eq!((code, data.text().as_str()), (0, "went on\n"), "{}", talk.text());
}
