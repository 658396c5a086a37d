//! A thousand prompts at once, on which verification must cost no answer.

use std::collections::BTreeMap;

use promptkeep::grpc::proto::{CompleteRequest, CompleteResponse, Outcome};

use super::{
    ANSWER, PARAPHRASE, RESET,
    setup::{Setup, approved_by, stored, unkept, verdict},
};
use crate::common::{
    fake_upstream::Gate,
    test_server::{spawn_complete, text},
};

const PROMPTS: usize = 1000;
/// Calls on one connection: servers limit them.
const CALLS_PER_CONNECTION: usize = 100;

/// Sends all requests at once and returns their answers in order, all of which must succeed.
async fn complete_all(
    setup: &Setup,
    requests: impl IntoIterator<Item = CompleteRequest>,
    meanwhile: impl AsyncFnOnce(),
) -> Vec<CompleteResponse> {
    let mut client = setup.client.clone();
    let mut callers = Vec::new();
    for (n, request) in requests.into_iter().enumerate() {
        if n.is_multiple_of(CALLS_PER_CONNECTION) {
            client = setup.server.client().await;
        }
        callers.push(spawn_complete(&client, request));
    }
    meanwhile().await;
    let mut replies = Vec::new();
    for caller in callers {
        replies.push(caller.await.unwrap().expect("an answer"));
    }
    replies
}

/// Namespaces of their own: a thousand misses of one would teach it.
fn namespace(n: usize) -> String {
    format!("namespace-{n}")
}

fn outcomes(replies: &[CompleteResponse]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    replies
        .iter()
        .for_each(|reply| *counts.entry(format!("{:?} {}", reply.outcome(), reply.reason)).or_default() += 1);
    counts
}

#[tokio::test]
async fn identical_prompts_share_one_verification() {
    let gate = Gate::new();
    let setup = Setup::filled(|_| {}).await;
    setup.verifier.script([verdict("1").hold(&gate)]);
    let replies = complete_all(&setup, vec![unkept(PARAPHRASE); PROMPTS], async || {
        setup.server.wait_for_requests(PROMPTS).await;
        gate.open();
    });
    let replies = replies.await;
    assert!(replies.iter().all(|reply| approved_by(reply) == "verified"), "{:?}", outcomes(&replies));
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (1, 1));
}

#[tokio::test]
async fn different_prompts_are_all_answered_although_few_are_verified() {
    const VERIFIED_MAX: usize = 8;
    let gate = Gate::new();
    let setup = Setup::start(|config| {
        config.cache.verify.max_in_flight = VERIFIED_MAX;
        config.embedding.queue = PROMPTS;
        config.cache.learning.max_namespaces = 2 * PROMPTS;
    });
    let setup = setup.await;
    setup.verifier.always(verdict("1").hold(&gate));
    for n in 0..PROMPTS {
        let mut request = stored(None, RESET, ANSWER);
        request.prompt.as_mut().unwrap().namespace = namespace(n);
        setup.client.clone().store(request).await.unwrap();
    }
    let requests = (0..PROMPTS).map(|n| {
        let mut request = unkept(PARAPHRASE);
        request.prompt.as_mut().unwrap().namespace = namespace(n);
        request
    });
    let skipped = (PROMPTS - VERIFIED_MAX) as f64;
    let replies = complete_all(&setup, requests, async || {
        // The verifier replies only when all others go on without it.
        setup.wait_for_verdicts("skipped", skipped).await;
        gate.open();
    });
    let replies = replies.await;
    let count = |outcome| replies.iter().filter(|reply| reply.outcome() == outcome).count();
    assert_eq!(count(Outcome::Semantic), VERIFIED_MAX, "{:?}", outcomes(&replies));
    assert_eq!(count(Outcome::Upstream), PROMPTS - VERIFIED_MAX, "{:?}", outcomes(&replies));
    assert_eq!(setup.verifier.calls(), VERIFIED_MAX);
    assert_eq!(setup.verdicts("skipped").await, skipped);
    assert!(replies.into_iter().all(|reply| text(reply) == ANSWER));
}
