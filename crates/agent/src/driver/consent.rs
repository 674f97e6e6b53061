//! Consent: what a person must agree to before a call, beyond the guard's word.
//!
//! The tool says what; the answer is the person's, bound to a digest, and the tool remembers it.
//! Invariant: a call is made only after its tool has nothing left to ask for.

use super::stage::{Stage, broken};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{Answer, Attempt, Question, QuestionKind, Stall};
use tinkerbell_core::event::Call;
use tinkerbell_core::port::Tool;
use tinkerbell_core::words::Seq;

/// Most questions of one call: a tool whose subject changes faster than people answer is given up.
const QUESTIONS: u32 = 64;

/// Asks for what the call still needs; gives the answer that was no, if there was one and the tool has
/// nothing to go on with.
pub async fn refused(stage: &Stage, seq: Seq, call: &Call, tool: &dyn Tool) -> Result<Option<Answer>, Stall> {
    let context = || stage.context(seq, if stage.resumed { Attempt::Recover } else { Attempt::First });
    for _ in 0..QUESTIONS {
        let Some(wanted) = tool.consent(context()?, call.args.clone()).await? else { return Ok(None) };
        let digest = wanted.digest.clone();
        let asked = Question {
            seq,
            kind: QuestionKind::Approval,
            title: stage.clean_own(&wanted.title),
            body: stage.clean_own(&wanted.body),
            digest: wanted.digest,
            lasts_ms: stage.options.question_lasts_ms,
            ..Question::default()
        };
        let answer = stage.effects.person(asked).await?;
        tool.consented(context()?, digest, answer.yes).await?;
        if !answer.yes && !wanted.optional {
            return Ok(Some(answer));
        }
    }
    let what = format!("`{}` asks for more than {QUESTIONS} approvals in one call", call.tool);
    Err(broken(Fault::new("TB-AGENT-008", exit::FAILED, what)))
}
