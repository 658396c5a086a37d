//! The step that asks a cheap model which of the kept answers fit a new prompt: before a paraphrase is served, where the
//! learner says that it pays (`cache.verify.mode = "before"`), or afterwards, to learn from the verdicts. Without a
//! verdict in time the request goes on as if there were no verifier.

mod spend;
mod verdicts;

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use self::{
    spend::Spend,
    verdicts::{KnownVerdicts, Pair},
};
use super::{
    AdmittedRequest, Recording,
    semantic::{Decision, Pending, Verdicts},
};
use crate::{
    config::VerifyMode,
    decide::{
        Policy,
        learner::{ASKED_MAX, Price},
    },
    embed::Embedding,
    entry::Entry,
    learn::{Compared, Learning, ScoredCandidates},
    model::{Attempt, FittingSet, VerifierReply},
    prompt::{Completion, Prompt, prefix},
    upstream::{KeptAnswer, TimeLimit, Upstreams, VerificationQuestion, Verifier, cut_answer},
};

/// A verification may take this multiple of `cache.verify.timeout`. Nobody waits for a late verdict, but it teaches.
const LATE: u32 = 4;

/// Expected tokens of a reply.
const REPLY_TOKENS: u64 = 2;

/// Bytes of the system prompt and earlier turns that a verifier is shown.
const CONTEXT_BYTES_MAX: usize = 2000;

/// Asks verifiers, within their limits of money, rate and time.
pub(super) struct Verification {
    pub learning: Arc<Learning>,
    pub upstreams: Upstreams,
    pub recording: Arc<Recording>,
    pub tasks: TaskTracker,
    known: KnownVerdicts,
    spend: Spend,
    in_flight: Arc<AtomicUsize>,
}

/// Who judges an answer, and what is asked of it.
struct Call {
    request: Arc<AdmittedRequest>,
    near: ScoredCandidates,
    /// Indices of candidates, most probable first.
    asked: Vec<usize>,
    verifier: Verifier,
}

/// The model that gets a prompt, as far as it is known.
#[derive(Clone, Copy)]
pub(super) enum Routed<'a> {
    /// Id of the model that has answered.
    To(&'a str),
    /// The router's choice by the prompt and its embedding.
    By(Option<&'a Embedding>),
}

/// One verification in flight.
struct InFlight(Arc<AtomicUsize>);

impl Verification {
    pub(super) fn new(
        learning: Arc<Learning>,
        upstreams: Upstreams,
        recording: Arc<Recording>,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            learning,
            upstreams,
            recording,
            tasks,
            known: KnownVerdicts::new(),
            spend: Spend::default(),
            in_flight: Arc::default(),
        }
    }

    /// What asking about these candidates before serving costs, as shares of what a hit on the best of them saves.
    /// `None` where nothing may be asked.
    pub(super) fn price(
        &self,
        request: &AdmittedRequest,
        near: &ScoredCandidates,
        embedding: &Embedding,
    ) -> Option<Price> {
        let best = near.best().filter(|best| is_verifiable(request, near, *best))?;
        let (verifier, mode) = self.verifier(request, Routed::By(Some(embedding)))?;
        if mode != VerifyMode::Before {
            return None;
        }
        let config = &request.settings.cache.verify;
        let saved = self.recording.price_at_route(request, near.candidates[best].entry.completion.usage);
        let asked: Vec<usize> = verifiable(request, near).take(ASKED_MAX).collect();
        let whole = self.usd(request, near, &asked, &verifier);
        let first = self.usd(request, near, &[best], &verifier);
        let further = (whole - first) / (asked.len().max(2) - 1) as f64;
        let call = first + config.usd_per_second * self.spend.seconds();
        let share = |usd: f64| (usd.max(0.0) / saved) as f32;
        (saved > 0.0).then(|| Price { call: share(call), further: share(further) })
    }

    /// Whether a verifier said before that the answer of `entry` does not fit this prompt.
    pub(super) fn has_rejected(&self, request: &AdmittedRequest, entry: &Entry) -> bool {
        self.known.is_rejected(pair(request, entry))
    }

    /// Decides by what a verifier says.
    pub(super) async fn decide(
        self: &Arc<Self>,
        request: &Arc<AdmittedRequest>,
        pending: Pending,
    ) -> Decision {
        let config = &request.settings.cache.verify;
        if pending.bounds.shadow {
            // Nobody waits for what is not served.
            return pending.postpone();
        }
        let verdicts = self.ask(request, &pending.near, &pending.asked, &pending.embedding).await;
        pending.decide(verdicts.as_ref(), config.audit_rate)
    }

    /// Mode `shadow`: decides, after the answer, what would have been served by what a verifier says.
    pub(super) async fn decide_postponed(
        self: &Arc<Self>,
        request: &Arc<AdmittedRequest>,
        routed: Routed<'_>,
        mut near: ScoredCandidates,
    ) -> ScoredCandidates {
        let asked = std::mem::take(&mut near.pending);
        let (Policy::Bounded(bounds), false) = (request.policy(), asked.is_empty()) else { return near };
        let Some((verifier, _)) = self.verifier(request, routed) else { return near };
        let call = Call { request: Arc::clone(request), near: near.clone(), asked, verifier };
        let late = Instant::now() + LATE * request.settings.cache.verify.timeout;
        if let Some(Verdicts { of, by }) = Arc::clone(self).settle(call, late).await {
            near.set_verdicts(&of, &by);
            near.decide_audit(&bounds);
        }
        near
    }

    /// Asks which of the candidates `asked` fit, and waits for `cache.verify.timeout` within the caller's deadline. `None`
    /// if there is no verdict by then.
    async fn ask(
        self: &Arc<Self>,
        request: &Arc<AdmittedRequest>,
        near: &ScoredCandidates,
        asked: &[usize],
        embedding: &Embedding,
    ) -> Option<Verdicts> {
        let (verifier, _) = self.verifier(request, Routed::By(Some(embedding)))?;
        let asked: Vec<usize> =
            asked.iter().copied().filter(|index| is_verifiable(request, near, *index)).collect();
        let now = Instant::now();
        // Half of the time is left for a model.
        let remaining = request.deadline.saturating_duration_since(now) / 2;
        let limit = now + request.settings.cache.verify.timeout.min(remaining);
        let call = Call { request: Arc::clone(request), near: near.clone(), asked, verifier };
        let asking = self.tasks.spawn(Arc::clone(self).settle(call, limit));
        let Ok(settled) = timeout_at(limit, asking).await else {
            request.set_verified(VerifierReply::TimedOut);
            return None;
        };
        settled.ok()?
    }

    /// Has a model judge what a comparison of answers judged: an audited hit, or, with mode `background`, all candidates of a
    /// miss. A hit that a verifier approved is reviewed by a better model, if the routed one is better.
    pub(super) async fn label(
        &self,
        request: &Arc<AdmittedRequest>,
        routed: Routed<'_>,
        completion: &Completion,
        compared: &mut Compared,
    ) {
        let near = compared.near();
        let known = self.verifier(request, routed).filter(|_| completion.tool_calls.is_none());
        let Some((verifier, mode)) = known else { return };
        let audited = near.audited();
        let is_review = audited.is_some_and(|audited| near.is_verified(audited));
        let asked: Vec<usize> = match audited {
            Some(audited) => vec![audited],
            None if mode == VerifyMode::Background => near.unverified().take(ASKED_MAX).collect(),
            None => Vec::new(),
        };
        let asked: Vec<usize> =
            asked.into_iter().filter(|index| is_verifiable(request, near, *index)).collect();
        let judge = if is_review { self.better_than(&verifier, request, routed) } else { Some(verifier) };
        let Some(verifier) = judge.filter(|_| !asked.is_empty()) else { return };
        let call = Call { request: Arc::clone(request), near: near.clone(), asked, verifier };
        if audited.is_some() {
            compared.expect_verdict();
        }
        for (index, fits) in self.label_call(call).await {
            if is_review {
                compared.set_reviewed(index, fits);
            } else {
                compared.set_verified(index, fits);
            }
        }
    }

    /// The routed model, if it is better than this verifier.
    fn better_than(
        &self,
        verifier: &Verifier,
        request: &AdmittedRequest,
        routed: Routed<'_>,
    ) -> Option<Verifier> {
        self.upstreams.better_verifier(verifier, &self.routed_model(request, routed)?)
    }

    /// Id of the model that gets the prompt.
    fn routed_model(&self, request: &AdmittedRequest, routed: Routed<'_>) -> Option<String> {
        match routed {
            Routed::To(model) => Some(model.to_owned()),
            Routed::By(embedding) => {
                self.upstreams.route(&request.prompt, embedding).map(|route| route.model)
            }
        }
    }

    /// The verifier for this request, and when to ask it; `None` where none may be asked. With mode `auto` it is one whose
    /// provider serves the routed model too, so that no provider sees prompts that it would not see anyway.
    fn verifier(&self, request: &AdmittedRequest, routed: Routed<'_>) -> Option<(Verifier, VerifyMode)> {
        let config = &request.settings.cache.verify;
        let configured = request.settings.cache.verify_mode(&request.prompt.namespace);
        if request.cache.verify == Some(false) || configured == VerifyMode::Off {
            return None;
        }
        if configured == VerifyMode::Auto {
            let model = self.routed_model(request, routed)?;
            let verifier = self.upstreams.verifier_beside(&config.model, &model)?;
            return Some((verifier, VerifyMode::Before));
        }
        let is_wanted_before = request.cache.verify == Some(true);
        let mode = if is_wanted_before { VerifyMode::Before } else { configured };
        Some((self.upstreams.verifier(&config.model)?, mode))
    }

    /// Asks about what was not asked before, learns what it says, and counts the call as late after `limit`.
    async fn settle(self: Arc<Self>, mut call: Call, limit: Instant) -> Option<Verdicts> {
        let mut of = call.take_known(&self.known);
        let (request, by) = (Arc::clone(&call.request), call.verifier.id().to_owned());
        if !call.asked.is_empty() {
            let ask = async {
                // While another request's call hung, this one may have gone on.
                if Instant::now() > limit {
                    return None;
                }
                let reply = self.reply(&call).await;
                let in_time = Instant::now() <= limit;
                let counted = if in_time { reply } else { VerifierReply::TimedOut };
                request.set_verified(counted);
                self.recording.verification(&request, counted);
                let VerifierReply::Fits(fitting) = reply else { return None };
                self.learn(&call.near, &call.verdicts(fitting));
                Some(fitting)
            };
            let fitting = self.known.join_or(&by, &call.pairs(), ask).await;
            of.extend(fitting.map(|fitting| call.verdicts(fitting)).into_iter().flatten());
        }
        if of.is_empty() {
            return None;
        }
        call.remember(&self.known, &of);
        request.set_verified(VerifierReply::Fits(fitting(&of)));
        Some(Verdicts { of, by })
    }

    /// Learns from verdicts. A fit that they make due, and the snapshot after it, are nothing to wait for.
    fn learn(&self, near: &ScoredCandidates, verdicts: &[(usize, bool)]) {
        self.learning.learn_verdicts(near, verdicts);
        let (learning, namespace) = (Arc::clone(&self.learning), Arc::clone(near.namespace()));
        self.tasks.spawn(async move { learning.fit_if_due(&namespace).await });
    }

    /// Asks about what was not asked before, after the answer.
    async fn label_call(&self, mut call: Call) -> Vec<(usize, bool)> {
        let mut of = call.take_known(&self.known);
        if !call.asked.is_empty() {
            let reply = self.reply(&call).await;
            self.recording.verification(&call.request, reply);
            if let VerifierReply::Fits(fitting) = reply {
                of.extend(call.verdicts(fitting));
            }
        }
        call.remember(&self.known, &of);
        of
    }

    /// What the verifier says.
    async fn reply(&self, call: &Call) -> VerifierReply {
        let Call { request, near, asked, verifier } = call;
        let config = &request.settings.cache.verify;
        let Some(_in_flight) = InFlight::enter(&self.in_flight, config.max_in_flight) else {
            return VerifierReply::Skipped;
        };
        let without_cache = self.recording.usd_without_cache();
        if request.tenant.check_budget(SystemTime::now()).is_err()
            || !self.spend.allows(config, without_cache, Instant::now())
        {
            return VerifierReply::Skipped;
        }
        let (count, spend) = (self.recording.verification_listener(request), self.spend.clone());
        let on_attempt = move |attempt: &Attempt| {
            count(attempt);
            if attempt.result.is_call() {
                spend.add(attempt.usage.cost_usd, attempt.elapsed);
            }
        };
        let limit = TimeLimit { timeout: config.timeout * LATE, deadline: None };
        let started = Instant::now();
        let texts = Texts::of(request, near, asked);
        let kept = texts.kept();
        let reply = self.upstreams.verify(verifier, texts.question(&kept), limit, Arc::new(on_attempt)).await;
        request.trace.step("verify", started.into_std());
        reply
    }

    /// Expected cost of a call in US dollars.
    fn usd(
        &self,
        request: &AdmittedRequest,
        near: &ScoredCandidates,
        asked: &[usize],
        verifier: &Verifier,
    ) -> f64 {
        let texts = Texts::of(request, near, asked);
        let kept = texts.kept();
        verifier.usd(texts.question(&kept).tokens(), REPLY_TOKENS)
    }
}

impl Call {
    fn pair(&self, index: usize) -> Pair {
        pair(&self.request, &self.near.candidates[index].entry)
    }

    /// Pairs that are asked about.
    fn pairs(&self) -> Vec<Pair> {
        self.asked.iter().map(|index| self.pair(*index)).collect()
    }

    /// Takes the candidates whose verdicts are known out of those that are asked about.
    fn take_known(&mut self, known: &KnownVerdicts) -> Vec<(usize, bool)> {
        let of = |index: usize| known.of(self.verifier.id(), self.pair(index));
        let verdicts: Vec<_> = self.asked.iter().filter_map(|index| Some((*index, of(*index)?))).collect();
        self.asked.retain(|index| !verdicts.iter().any(|(known, _)| known == index));
        verdicts
    }

    fn remember(&self, known: &KnownVerdicts, verdicts: &[(usize, bool)]) {
        for (index, fits) in verdicts {
            known.insert(self.verifier.id(), self.pair(*index), *fits);
        }
    }

    fn verdicts(&self, fitting: FittingSet) -> Vec<(usize, bool)> {
        self.asked.iter().enumerate().map(|(nth, index)| (*index, fitting.contains(nth))).collect()
    }
}

fn pair(request: &AdmittedRequest, entry: &Entry) -> Pair {
    Pair::of(&request.key, entry, request.settings.cache.verify.max_answer_bytes)
}

/// The candidates that fit, in the order of these verdicts.
fn fitting(verdicts: &[(usize, bool)]) -> FittingSet {
    verdicts.iter().enumerate().filter(|(_, (_, fits))| *fits).map(|(nth, _)| nth).collect()
}

impl InFlight {
    fn enter(count: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let in_flight = Self(Arc::clone(count));
        (count.fetch_add(1, Ordering::Relaxed) < max).then_some(in_flight)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The texts of a verification.
struct Texts<'a> {
    instructions: &'a str,
    new_question: &'a str,
    /// Questions and answers.
    kept: Vec<(&'a str, Cow<'a, str>)>,
    context: Option<String>,
}

impl<'a> Texts<'a> {
    fn of(request: &'a AdmittedRequest, near: &'a ScoredCandidates, asked: &[usize]) -> Self {
        let config = &request.settings.cache.verify;
        let kept = |index: &usize| {
            let entry = &near.candidates[*index].entry;
            let answer = cut_answer(&entry.completion.content, config.max_answer_bytes);
            (entry.text.as_deref().unwrap_or_default(), answer)
        };
        Self {
            instructions: config.instructions(),
            new_question: request.prompt.fuzzy_text().unwrap_or_default(),
            kept: asked.iter().map(kept).collect(),
            context: context(&request.prompt),
        }
    }

    fn kept(&self) -> Vec<KeptAnswer<'_>> {
        self.kept.iter().map(|(question, answer)| KeptAnswer { question, answer }).collect()
    }

    fn question<'q>(&'q self, kept: &'q [KeptAnswer<'q>]) -> VerificationQuestion<'q> {
        let Self { instructions, new_question, context, .. } = self;
        VerificationQuestion { instructions, new_question, kept, context: context.as_deref() }
    }
}

/// The system prompt and the earlier turns, which the new question and the kept ones share; cut, since they are the same
/// for all.
fn context(prompt: &Prompt) -> Option<String> {
    let (_last, earlier) = prompt.messages.split_last()?;
    let mut context = String::new();
    for message in earlier {
        let role = message.role.as_str();
        context.extend([role, ": ", message.content.as_str(), "\n"]);
        if context.len() >= CONTEXT_BYTES_MAX {
            break;
        }
    }
    (!context.is_empty()).then(|| prefix(&context, CONTEXT_BYTES_MAX).to_owned())
}

fn verifiable(request: &AdmittedRequest, near: &ScoredCandidates) -> impl Iterator<Item = usize> {
    (0..near.candidates.len()).filter(|index| is_verifiable(request, near, *index))
}

/// Whether a verifier may be asked about a candidate. Function calls do something, so they are not left to its judgement.
/// Questions are shown whole or not at all: long ones often differ in their last line.
fn is_verifiable(request: &AdmittedRequest, near: &ScoredCandidates, index: usize) -> bool {
    let max = request.settings.cache.verify.max_question_bytes;
    let entry = &near.candidates[index].entry;
    let is_short = |text: Option<&str>| text.is_some_and(|text| text.len() <= max);
    entry.completion.tool_calls.is_none()
        && is_short(request.prompt.fuzzy_text())
        && is_short(entry.text.as_deref())
}
