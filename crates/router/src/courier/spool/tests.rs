//! What a spool keeps, gives back, and never holds.

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tinkerbell_core::event::{Made, Part};
use tinkerbell_core::model::{Completion, StopReason};
use tinkerbell_core::words::TaskId;
use tinkerbell_secret::{Named, Secret};

const ID: CallId = CallId { task: TaskId(0x2a), seq: 7, attempt: 0 };
const SECRET: &str = "sk-canary-1234567890";

fn knows(secrets: &[(&str, &str)]) -> Arc<Redactor> {
    let named: Vec<Named> = secrets.iter().map(|(name, value)| ((*name).to_owned(), Secret::shared(*value))).collect();
    Arc::new(Redactor::new(&named))
}

struct Shelf {
    dir: tempfile::TempDir,
    spools: Spools,
}

impl Shelf {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spools = Spools::new(dir.path().join("calls"));
        Self { dir, spools }
    }

    fn pen(&self) -> Pen {
        let head = Head { version: VERSION, id: ID.to_string(), input_tokens: 100, ..Head::default() };
        self.spools.create(ID, &head, knows(&[("KEY", SECRET), ("SMALL", "tiny")])).unwrap()
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("calls").join(ID.to_string()).join("spool")
    }

    fn texts(&self) -> Vec<String> {
        let (_, mut reader) = self.spools.read(ID).unwrap().unwrap();
        let mut all = Vec::new();
        while let Some(event) = reader.event().unwrap() {
            all.push(format!("{:?}", event.kind.unwrap()));
        }
        all
    }
}

fn text(words: &str) -> Item {
    Ok(ModelEvent::Text(words.to_owned()))
}

fn done(words: &str) -> Item {
    Ok(ModelEvent::Done(Box::new(Completion {
        parts: vec![Part { text: words.to_owned(), ..Part::default() }],
        made: Made::default(),
        usage: Usage::default(),
        estimated: false,
        stop: StopReason::End,
        retries: 0,
        lost: Usage::default(),
    })))
}

#[test]
fn a_spool_tells_how_far_its_call_came() {
    let shelf = Shelf::new();
    assert_eq!(shelf.spools.look(ID).unwrap(), Kept::Nothing);
    let mut pen = shelf.pen();
    assert_eq!(shelf.spools.look(ID).unwrap(), Kept::Part);
    pen.write(&text("hello")).unwrap();
    assert_eq!((shelf.spools.look(ID).unwrap(), shelf.spools.list()), (Kept::Part, vec![ID]));
    pen.write(&done("hello")).unwrap();
    assert_eq!(shelf.spools.look(ID).unwrap(), Kept::Whole);
    assert_eq!(std::fs::metadata(shelf.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(shelf.path().parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    shelf.spools.remove(ID);
    shelf.spools.remove(ID);
    assert_eq!((shelf.spools.look(ID).unwrap(), shelf.spools.list()), (Kept::Nothing, vec![]));
}

/// Cut anywhere, a spool is never whole, and never gives what was not written.
#[test]
fn a_spool_cut_at_any_byte_gives_a_beginning() {
    let shelf = Shelf::new();
    let mut pen = shelf.pen();
    for word in ["one ", "two ", "three"] {
        pen.write(&text(word)).unwrap();
    }
    pen.write(&done("one two three")).unwrap();
    let whole = std::fs::read(shelf.path()).unwrap();
    let all = shelf.texts();
    for len in 0..whole.len() {
        std::fs::write(shelf.path(), &whole[..len]).unwrap();
        match shelf.spools.look(ID).unwrap() {
            Kept::Nothing => {}
            Kept::Part => assert!(all.starts_with(&shelf.texts()), "{len}"),
            Kept::Whole => panic!("whole at {len} of {}", whole.len()),
        }
    }
}

#[test]
fn a_secret_is_never_written_however_it_is_cut() {
    for at in 1..SECRET.len() {
        let shelf = Shelf::new();
        let mut pen = shelf.pen();
        let (left, right) = SECRET.split_at(at);
        for piece in ["the key is ", left, right, " and sk", "y is blue, tiny"] {
            pen.write(&text(piece)).unwrap();
        }
        pen.write(&Ok(ModelEvent::Reasoning(left.to_owned()))).unwrap();
        pen.write(&Ok(ModelEvent::Reasoning(right.to_owned()))).unwrap();
        pen.write(&Ok(ModelEvent::Retrying { why: SECRET.to_owned(), wait: Duration::ZERO, spent: Usage::default() })).unwrap();
        pen.write(&done(&format!("it is {SECRET}."))).unwrap();
        let (_, mut reader) = shelf.spools.read(ID).unwrap().unwrap();
        let (mut words, mut thought) = (String::new(), String::new());
        while let Some(event) = reader.event().unwrap() {
            match event.kind.unwrap() {
                Kind::Text(piece) => words.push_str(&piece),
                Kind::Reasoning(piece) => thought.push_str(&piece),
                other => assert!(!format!("{other:?}").contains(SECRET)),
            }
        }
        assert_eq!(words, "the key is [secret KEY] and sky is blue, tiny", "cut at {at}");
        assert_eq!(thought, "[secret KEY]");
    }
}

#[test]
fn what_is_left_of_a_call_counts_what_is_known_and_guesses_the_rest() {
    let shelf = Shelf::new();
    let mut pen = shelf.pen();
    let told = Usage { input: 50, output: 5, ..Usage::default() };
    pen.write(&text("void")).unwrap();
    pen.write(&Ok(ModelEvent::Retrying { why: "x".to_owned(), wait: Duration::ZERO, spent: told })).unwrap();
    pen.write(&text("half of ")).unwrap();
    pen.write(&text("an answer")).unwrap();
    let cut = shelf.spools.cut(ID, true).unwrap();
    assert_eq!((cut.text.as_str(), cut.is_new, cut.estimated), ("half of an answer", true, true));
    assert_eq!((cut.usage.input, cut.usage.output), (150, 5 + 5));
    pen.cancelled().unwrap();
    assert_eq!(shelf.spools.look(ID).unwrap(), Kept::Whole);
    assert!(shelf.spools.cut(ID, false).unwrap().why.contains("stopped"));
}

#[test]
fn what_is_no_spool_of_ours_is_refused() {
    let shelf = Shelf::new();
    drop(shelf.pen());
    std::fs::write(shelf.path(), b"TBCALLS\x02rest").unwrap();
    assert!(shelf.spools.look(ID).is_err());
    let later = Head { version: VERSION + 1, ..Head::default() };
    drop(shelf.spools.create(ID, &later, knows(&[])).unwrap());
    assert!(shelf.spools.look(ID).is_err());
}
