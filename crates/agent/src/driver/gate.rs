//! Gate: whether the verification command may run.
//!
//! The user's own command is authorised by the user; one that the repository brought stands under the
//! policy like a call of the model. Invariant: a command that is not trusted any more, or that policy
//! refuses, does not run, and why is said.

use super::stage::{Stage, broken};
use crate::survey::PROJECT;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{EffectClass, Question, QuestionKind, Stall};
use tinkerbell_core::event::Verify;
use tinkerbell_core::port::{Deed, Grounds, Judgement};
use tinkerbell_core::tool::{ToolCall, ToolPlan};
use tinkerbell_core::words::Seq;

/// What a person would have to decide first.
struct Doubt {
    why: String,
    digest: String,
    /// The policy under which it is asked; an answer is void under another.
    policy: String,
    /// The rules that want a person asked.
    rules: Vec<String>,
    /// What is said when the answer is no.
    refusal: Fault,
}

/// Why the check may not run; `None` when it may. Before the first edit nobody is asked for it: it would
/// only show how things stood.
pub async fn shut(stage: &Stage, seq: Seq, verify: &Verify) -> Result<Option<Fault>, Stall> {
    for doubt in [untrusted(stage, verify)?, judged(stage, verify).await?] {
        let doubt = match doubt {
            Err(fault) => return Ok(Some(fault)),
            Ok(None) => continue,
            Ok(Some(doubt)) => doubt,
        };
        if verify.round == 0 {
            return Ok(Some(doubt.refusal));
        }
        let asked = Question {
            seq,
            kind: QuestionKind::Approval,
            title: format!("verify: {}", doubt.why),
            body: stage.clean_own(&verify.command),
            digest: doubt.digest,
            facts: vec![("policy".to_owned(), doubt.policy)],
            lasts_ms: stage.options.question_lasts_ms,
            rules: doubt.rules,
            ..Question::default()
        };
        if !stage.effects.person(asked).await?.yes {
            return Ok(Some(doubt.refusal));
        }
    }
    Ok(None)
}

type Judged = Result<Option<Doubt>, Fault>;

/// The project's check is trusted by its bytes; that trust may have been taken back since.
fn untrusted(stage: &Stage, verify: &Verify) -> Result<Judged, Stall> {
    let Some(prepared) = stage.task.prepared.as_ref().filter(|prepared| prepared.verify_origin == PROJECT) else { return Ok(Ok(None)) };
    if (stage.options.is_trusted)(&stage.workspace()?.repo, &prepared.trust) {
        return Ok(Ok(None));
    }
    let why = "the project's check is not trusted any more".to_owned();
    let digest = super::call::digest(&["check", &verify.command, &prepared.trust]);
    let refusal = Fault::new("TB-TRUST-004", exit::NEEDS_PERSON, why.clone()).hint("tinkerbell trust");
    Ok(Ok(Some(Doubt { why, digest, policy: String::new(), rules: Vec::new(), refusal })))
}

async fn judged(stage: &Stage, verify: &Verify) -> Result<Judged, Stall> {
    let origin = stage.task.prepared.as_ref().map_or("", |prepared| prepared.verify_origin.as_str());
    let is_users = matches!(origin, "given" | "config");
    let level = stage.house.deps.sandbox.level().await.map_err(broken)?;
    let plan =
        ToolPlan { class: EffectClass::Verifiable, writes: Vec::new(), deletes: 0, command: Some(verify.command.clone()), mcp: None };
    let args = serde_json::json!({ "cmd": verify.command }).to_string();
    let deed = Deed {
        task: stage.task.id,
        call: ToolCall { id: String::new(), name: "verify".to_owned(), args },
        plan,
        level: Some(level),
        workspace: stage.workspace()?,
        grounds: Grounds {
            is_users,
            is_unasked: stage.is_unasked(),
            grants: stage.effects.task().grants(),
            now_ms: stage.house.deps.clock.now().wall_ms,
            ..Grounds::default()
        },
    };
    let refusal = |why: &str| {
        Fault::new("TB-POLICY-006", exit::POLICY, format!("the policy does not let the check run: {why}"))
            .hint(format!("tinkerbell policy explain '{}'", verify.command))
    };
    Ok(match stage.house.deps.guard.judge(&deed) {
        Judgement::Allow | Judgement::Waived { .. } => Ok(None),
        Judgement::Refuse { why } => Err(refusal(&why)),
        Judgement::Ask { why, digest, policy, rules, offer: _ } => Ok(Some(Doubt { refusal: refusal(&why), why, digest, policy, rules })),
    })
}
