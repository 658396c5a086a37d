//! A server with a scripted model, and a scripted verifier that is cheap enough to be asked.

use promptkeep::{
    config::{Config, VerifyMode},
    grpc::proto::{
        CacheControl, CompleteRequest, CompleteResponse, Completion, ExplainResponse, LookupRequest,
        LookupResponse, StoreRequest, Usage,
    },
};
use tonic::IntoRequest;

use super::{ANSWER, PARAPHRASE, RESET, config};
use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{Client, TestServer, ask, ask_with, complete, look, prompt},
};

/// Input and output tokens of an answer, and its cost at $1 and $10 per million.
pub(super) const ANSWERED: (u64, u64) = (500, 300);
pub(super) const ANSWER_USD: f64 = 0.0035;
/// Input and output tokens of a verification, and its cost at $0.10 and $0.40 per million.
const VERIFIED: (u64, u64) = (900, 1);
pub(super) const VERDICT_USD: f64 = 0.000_090_4;

/// Id of the model that verifies.
pub(super) const VERIFIER: &str = "model-warm";

/// A running server and its providers.
pub(super) struct Setup {
    pub answers: FakeUpstream,
    pub verifier: FakeUpstream,
    pub config: Config,
    pub server: TestServer,
    pub client: Client,
}

impl Setup {
    /// Starts a server that asks before it serves and makes no calls but answers and verifications; the model answers
    /// [`ANSWER`], and the verifier approves the first kept answer.
    pub async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let (answers, verifier) = (FakeUpstream::start().await, FakeUpstream::start().await);
        answers.always(answer(ANSWER));
        verifier.always(verdict("1"));
        let mut config = asking(&answers, &verifier);
        change(&mut config);
        let (server, client) = TestServer::with_client(config.clone()).await;
        Self { answers, verifier, config, server, client }
    }

    /// [`Self::start`], and caches the answer to [`RESET`].
    pub async fn filled(change: impl FnOnce(&mut Config)) -> Self {
        let setup = Self::start(change).await;
        complete(&mut setup.client.clone(), RESET).await;
        setup
    }

    pub async fn complete(&self, request: impl IntoRequest<CompleteRequest>) -> CompleteResponse {
        self.client.clone().complete(request).await.expect("an answer").into_inner()
    }

    /// Asks [`PARAPHRASE`], whose answer is not kept, so that it can be asked again.
    pub async fn paraphrase(&self) -> CompleteResponse {
        self.complete(unkept(PARAPHRASE)).await
    }

    pub async fn lookup(&self, request: LookupRequest) -> LookupResponse {
        self.client.clone().lookup(request).await.expect("a lookup").into_inner()
    }

    pub async fn explain(&self, text: &str) -> ExplainResponse {
        self.explain_request(look(text)).await
    }

    pub async fn explain_request(&self, request: LookupRequest) -> ExplainResponse {
        self.client.clone().explain(request).await.expect("an explanation").into_inner()
    }

    /// Number of verifications that ended with this verdict.
    pub async fn verdicts(&self, verdict: &str) -> f64 {
        let label = format!("verdict=\"{verdict}\"");
        self.server.metric("promptkeep_verifications_total", &[&label]).await
    }

    /// Waits until this many verifications have ended with this verdict.
    pub async fn wait_for_verdicts(&self, verdict: &str, count: f64) {
        let label = format!("verdict=\"{verdict}\"");
        self.server.wait_for_metric("promptkeep_verifications_total", &[&label], count).await;
    }
}

/// The configuration of [`Setup::start`].
pub(super) fn asking(answers: &FakeUpstream, verifier: &FakeUpstream) -> Config {
    let mut config = config(answers, verifier);
    config.cache.audit_rate = 0.0;
    config.cache.verify.mode = VerifyMode::Before;
    config.cache.verify.audit_rate = 0.0;
    config.cache.verify.usd_per_second = 0.0;
    config.models[1].input_usd_per_mtok = 0.1;
    config.models[1].output_usd_per_mtok = 0.4;
    config
}

/// An answer that costs [`ANSWER_USD`].
pub(super) fn answer(text: &str) -> Reply {
    metered(text, ANSWERED)
}

/// A verifier's reply that costs [`VERDICT_USD`].
pub(super) fn verdict(reply: &str) -> Reply {
    metered(reply, VERIFIED)
}

fn metered(text: &str, (input, output): (u64, u64)) -> Reply {
    Reply::text(text).without("\"usage\"").without("[DONE]").usage(input, output).done()
}

/// A request whose answer is not kept.
pub(super) fn unkept(text: &str) -> CompleteRequest {
    ask_with(text, CacheControl { no_store: true, ..CacheControl::default() })
}

/// [`unkept`] in a scope of its own.
pub(super) fn unkept_in(scope: usize, text: &str) -> CompleteRequest {
    let mut request = unkept(text);
    let prompt = request.prompt.as_mut().expect("set above");
    prompt.vary.insert("scope".to_owned(), scope.to_string());
    request
}

/// [`ask`] in a namespace.
pub(super) fn ask_in(namespace: &str, text: &str) -> CompleteRequest {
    let mut request = ask(text);
    request.prompt.as_mut().expect("set above").namespace = namespace.to_owned();
    request
}

/// Directives that allow or forbid verification for one request.
pub(super) fn verify(allowed: bool) -> CacheControl {
    CacheControl { no_store: true, verify: Some(allowed), ..CacheControl::default() }
}

/// A lookup with these directives.
pub(super) fn look_with(text: &str, cache: CacheControl) -> LookupRequest {
    LookupRequest { cache: Some(cache), ..look(text) }
}

/// An answer to store that costs as much as [`answer`], in the scope of [`unkept_in`] if one is given.
pub(super) fn stored(scope: Option<usize>, text: &str, answer: &str) -> StoreRequest {
    let (prompt_tokens, completion_tokens) = ANSWERED;
    let completion = Completion {
        content: answer.to_owned(),
        finish_reason: "stop".to_owned(),
        usage: Some(Usage { prompt_tokens, completion_tokens, ..Usage::default() }),
        ..Completion::default()
    };
    let mut prompt = prompt(text);
    prompt.vary.extend(scope.map(|scope| ("scope".to_owned(), scope.to_string())));
    StoreRequest { prompt: Some(prompt), completion: Some(completion), cache: None }
}

/// Why a hit was served; empty unless it is a semantic one.
pub(super) fn approved_by(reply: &CompleteResponse) -> &str {
    reply.r#match.as_ref().map_or("", |matched| matched.approved_by.as_str())
}

/// Compares sums of US dollars.
pub(super) fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-9
}
