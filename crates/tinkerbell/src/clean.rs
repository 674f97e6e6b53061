//! The last look before words leave: at providers, at clients, into the journal, into our own log.
//!
//! Wrappers of ports, so that no caller can forget. What the user and the models say is cleaned before
//! the engine sees it, so what is executed is what is recorded. Invariant: no request to a provider and
//! no record made of a client's words holds a value that was known when it was made.

use crate::secrets::Secrets;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{Intended, Stall};
use tinkerbell_core::event::{Observed, Op, PartKind};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::model::{Message, ModelCall, ModelCard, ModelError, ModelEvent};
use tinkerbell_core::port::{
    Command, Difference, Effects, ListQuery, Listed, Listing, Model, Runner, Runtime, Seen, Step, Stepped, Submission,
};
use tinkerbell_core::words::{BlobRef, Lsn, RunId, Seq, TaskId};
use tinkerbell_secret::Known;

/// Models that are asked without secrets.
pub struct CleanModel {
    inner: Arc<dyn Model>,
    secrets: Arc<Secrets>,
}

impl CleanModel {
    /// Around other models.
    #[must_use]
    pub fn new(inner: Arc<dyn Model>, secrets: Arc<Secrets>) -> Arc<Self> {
        Arc::new(Self { inner, secrets })
    }
}

/// Replaces a text where that changes it.
fn put(text: &mut String, clean: impl Fn(&str) -> Cow<'_, str>) {
    let fresh = match clean(text) {
        Cow::Owned(fresh) => fresh,
        Cow::Borrowed(_) => return,
    };
    *text = fresh;
}

/// Everything of a call that a provider reads. Opaque parts are the provider's own words, signed.
fn clean_call(call: &mut ModelCall, known: &Known) {
    let leaving = |text: &mut String| put(text, |text| known.redact_leaving(text));
    leaving(&mut call.system);
    leaving(&mut call.tail);
    for message in &mut call.messages {
        match message {
            Message::User(text) | Message::Tool { text, .. } => leaving(text),
            Message::Assistant { parts, .. } => parts.iter_mut().filter(|part| part.kind != PartKind::Opaque as i32).for_each(|part| {
                // Text, reasoning, or the arguments of a call; and the name that a model made up for a tool.
                leaving(&mut part.text);
                leaving(&mut part.tool);
            }),
        }
    }
}

fn clean_fault(mut fault: Fault, known: &Known) -> Fault {
    put(&mut fault.message, |text| known.redact(text));
    fault.hints.iter_mut().for_each(|hint| put(hint, |text| known.redact(text)));
    fault
}

impl Model for CleanModel {
    fn card(&self, model: &str) -> Result<ModelCard, Fault> {
        self.inner.card(model)
    }

    fn complete(&self, mut call: ModelCall) -> BoxStream<'static, Result<ModelEvent, ModelError>> {
        // A file may have been changed since anybody asked for its value: a command that can read it may
        // have printed the new one.
        self.secrets.store.learn_all();
        let known = self.secrets.known.clone();
        clean_call(&mut call, &known);
        let clean = move |event| match event {
            Ok(ModelEvent::Retrying { mut why, wait, spent }) => {
                put(&mut why, |text| known.redact(text));
                Ok(ModelEvent::Retrying { why, wait, spent })
            }
            Err(ModelError::Fault(fault)) => Err(ModelError::Fault(clean_fault(fault, &known))),
            other => other,
        };
        self.inner.complete(call).map(clean).boxed()
    }

    fn settle(&self, task: TaskId, before: Seq) -> BoxFuture<'_, ()> {
        self.inner.settle(task, before)
    }

    fn sweep(&self, open: Vec<RunId>) -> BoxFuture<'_, ()> {
        self.inner.sweep(open)
    }
}

/// Runs coroutines; what went wrong is told, and so recorded, without secrets.
pub struct CleanRunner {
    inner: Arc<dyn Runner>,
    known: Arc<Known>,
}

impl CleanRunner {
    /// Around a runner.
    #[must_use]
    pub fn new(inner: Arc<dyn Runner>, known: Arc<Known>) -> Arc<Self> {
        Arc::new(Self { inner, known })
    }

    fn stall(&self, stall: Stall) -> Stall {
        match stall {
            Stall::Broken(fault) => Stall::Broken(clean_fault(fault, &self.known)),
            other => other,
        }
    }
}

impl Runner for CleanRunner {
    fn step(&self, step: Step, effects: Arc<dyn Effects>) -> BoxFuture<'_, Result<Stepped, Stall>> {
        Box::pin(async move { self.inner.step(step, effects).await.map_err(|stall| self.stall(stall)) })
    }

    fn operate(&self, task: Task, op: Op, intended: Intended, effects: Arc<dyn Effects>) -> BoxFuture<'_, Result<Observed, Stall>> {
        Box::pin(async move { self.inner.operate(task, op, intended, effects).await.map_err(|stall| self.stall(stall)) })
    }

    fn quiet(&self, task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        self.inner.quiet(task)
    }

    fn sweep(&self, known: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>> {
        self.inner.sweep(known)
    }
}

/// The engine, told nothing that is known to be secret, and telling nothing of it in errors.
pub struct CleanRuntime {
    inner: Arc<dyn Runtime>,
    known: Arc<Known>,
}

impl CleanRuntime {
    /// Around an engine.
    #[must_use]
    pub fn new(inner: Arc<dyn Runtime>, known: Arc<Known>) -> Arc<Self> {
        Arc::new(Self { inner, known })
    }

    fn fault<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| clean_fault(fault, &self.known))
    }
}

/// A submission without secrets. Its check is executed, so nothing of it is ever replaced: a repository's
/// configuration, of which values are learned, could make it another one.
///
/// # Errors
/// `TB-SECRET-005` when the check holds a secret of the user's.
pub fn clean_submission(mut submission: Submission, known: &Known) -> Result<Submission, Fault> {
    put(&mut submission.goal, |text| known.redact(text));
    if submission.verify.as_deref().is_some_and(|check| known.is_own_in(check)) {
        return Err(Fault::new("TB-SECRET-005", exit::USAGE, "the check holds a secret, and would be recorded with it")
            .hint("put the secret into a file or a variable, and let the check read it there"));
    }
    Ok(submission)
}

fn clean_command(mut command: Command, known: &Known) -> Command {
    let text = match &mut command {
        Command::Tell(text) => Some(text),
        Command::Answer(given) => Some(&mut given.text),
        Command::Land { message, .. } => Some(message),
        _ => None,
    };
    if let Some(text) = text {
        put(text, |text| known.redact(text));
    }
    command
}

impl Runtime for CleanRuntime {
    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<(TaskId, Lsn), Fault>> {
        let submission = clean_submission(submission, &self.known);
        Box::pin(async move { self.fault(self.inner.submit(submission?).await) })
    }

    fn command(&self, task: TaskId, command: Command) -> BoxFuture<'_, Result<String, Fault>> {
        let command = clean_command(command, &self.known);
        Box::pin(async move { self.fault(self.inner.command(task, command).await) })
    }

    fn get<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Listed, Fault>> {
        Box::pin(async move { self.fault(self.inner.get(prefix).await) })
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, Fault>> {
        Box::pin(async move { self.fault(self.inner.list(query).await) })
    }

    fn watch(&self, task: Option<TaskId>, after: Lsn) -> BoxStream<'static, Result<Seen, Fault>> {
        let known = self.known.clone();
        self.inner.watch(task, after).map(move |seen| seen.map_err(|fault| clean_fault(fault, &known))).boxed()
    }

    fn diff(&self, task: TaskId, from: Option<u32>, to: Option<u32>) -> BoxFuture<'_, Result<Difference, Fault>> {
        Box::pin(async move { self.fault(self.inner.diff(task, from, to).await) })
    }

    fn blob(&self, blob: BlobRef) -> BoxFuture<'_, Result<bytes::Bytes, Fault>> {
        Box::pin(async move { self.fault(self.inner.blob(blob).await) })
    }
}

/// A log whose lines are cleaned as they are written; each event is one write.
pub struct CleanLog<W> {
    inner: Mutex<W>,
    known: Arc<Known>,
}

impl<W: Write> CleanLog<W> {
    /// Around a file or a pipe.
    pub const fn new(inner: W, known: Arc<Known>) -> Self {
        Self { inner: Mutex::new(inner), known }
    }
}

impl<'a, W: Write + 'a> tracing_subscriber::fmt::MakeWriter<'a> for CleanLog<W> {
    type Writer = CleanLine<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        CleanLine(self)
    }
}

/// One line on its way into the log.
pub struct CleanLine<'a, W>(&'a CleanLog<W>);

impl<W: Write> Write for CleanLine<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let clean = self.0.known.redact_leaving(&String::from_utf8_lossy(bytes)).into_owned();
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner).write_all(clean.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

#[cfg(test)]
mod tests {
    mod canary;

    use super::*;
    use tinkerbell_core::port::Given;
    use tinkerbell_secret::Secret;

    fn known() -> Arc<Known> {
        let known = Known::new();
        known.learn([("KEY".to_owned(), Secret::shared("canary-in-memory"))]);
        known
    }

    #[test]
    fn a_log_line_holds_no_secret() {
        use tracing_subscriber::fmt::MakeWriter as _;
        let log = CleanLog::new(Vec::new(), known());
        log.make_writer().write_all(b"key canary-in-memory and AKIAIOSFODNN7EXAMPLE\n").unwrap();
        assert_eq!(*log.inner.lock().unwrap(), b"key [secret KEY] and [hidden: AWS key]\n");
    }

    #[test]
    fn words_of_a_client_hold_no_secret() {
        let known = known();
        let submission = Submission { goal: "use canary-in-memory".to_owned(), ..Submission::default() };
        assert_eq!(clean_submission(submission, &known).unwrap().goal, "use [secret KEY]");
        let answer = Command::Answer(Given { text: "canary-in-memory".to_owned(), ..Given::default() });
        assert!(matches!(clean_command(answer, &known), Command::Answer(given) if given.text == "[secret KEY]"));
        let fault = Fault::new("TB-BUG-001", 70, "at canary-in-memory").hint("canary-in-memory");
        assert_eq!(clean_fault(fault, &known).hints, ["[secret KEY]"]);
    }

    #[test]
    fn a_check_is_executed_as_it_was_given_or_refused() {
        let known = known();
        known.learn([(tinkerbell_secret::OF_REPOSITORY.to_owned(), Secret::shared("--strict"))]);
        let check = |text: &str| Submission { verify: Some(text.to_owned()), ..Submission::default() };
        let exact = clean_submission(check("/opt/ci/check --strict"), &known).unwrap();
        assert_eq!(exact.verify.as_deref(), Some("/opt/ci/check --strict"), "a repository changes no command");
        let fault = clean_submission(check("test x = canary-in-memory"), &known).unwrap_err();
        assert_eq!((fault.code.0, fault.exit), ("TB-SECRET-005", exit::USAGE));
        assert!(!fault.message.contains("canary") && !fault.hints.concat().contains("canary"));
    }
}
