//! Mode `shadow` asks the verifier after the answer, and reports what would have been served.

use promptkeep::{config::Mode, grpc::proto::Outcome};

use super::{
    ANSWER, RESET,
    setup::{Setup, unkept, verdict},
};
use crate::common::{
    fake_upstream::{Gate, Reply},
    test_server::{stats, text},
};

const CHECKED: &[&str] = &["origin=\"audit\""];

async fn shadowing() -> Setup {
    Setup::filled(|config| config.cache.mode = Mode::Shadow).await
}

#[tokio::test]
async fn nobody_waits_for_the_verifier_and_a_yes_is_a_hit_there_would_have_been() {
    let setup = shadowing().await;
    let gate = Gate::new();
    setup.verifier.script([verdict("1").hold(&gate)]);
    let reply = setup.paraphrase().await;
    assert_eq!((reply.outcome(), reply.reason.as_str()), (Outcome::Upstream, "disabled"));
    assert_eq!(text(reply), ANSWER);
    setup.verifier.wait_for_calls(1).await;
    assert_eq!(setup.verdicts("yes").await, 0.0, "it has not replied yet");
    gate.open();
    setup.wait_for_verdicts("yes", 1.0).await;
    setup.server.wait_for_metric("promptkeep_labels_total", CHECKED, 1.0).await;
    let stats = stats(&mut setup.client.clone()).await;
    assert_eq!(stats.wrong_hits.unwrap().checked, 1);
    assert_eq!(stats.verification.unwrap().hits, 0, "nothing was served");
    assert_eq!(stats.saved_usd, 0.0);
}

#[tokio::test]
async fn a_no_is_no_hit() {
    let setup = shadowing().await;
    setup.verifier.always(verdict("0"));
    assert_eq!(setup.paraphrase().await.outcome(), Outcome::Upstream);
    setup.wait_for_verdicts("no", 1.0).await;
    setup.server.wait_for_requests(0).await;
    assert_eq!(setup.server.metric("promptkeep_labels_total", CHECKED).await, 0.0);
    assert_eq!(stats(&mut setup.client.clone()).await.wrong_hits.unwrap().checked, 0);
}

#[tokio::test]
async fn a_failing_verifier_leaves_the_shadow_as_it_was() {
    let setup = shadowing().await;
    setup.verifier.always(Reply::status(500));
    assert_eq!(setup.paraphrase().await.outcome(), Outcome::Upstream);
    setup.wait_for_verdicts("unavailable", 1.0).await;
    // The comparison of the answers teaches instead.
    setup.server.wait_for_metric("promptkeep_labels_total", &["origin=\"miss\""], 1.0).await;
    assert_eq!(setup.complete(unkept(RESET)).await.outcome(), Outcome::Exact);
}
