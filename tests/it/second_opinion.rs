//! A model that is asked whether a kept answer fits another prompt too.

use promptkeep::{
    config::{Config, Mode},
    grpc::proto::Outcome,
    model::Tier,
};

use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{Client, TestServer, complete, semantic_config, stats, text, until},
};

const RESET: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";
const ANSWER: &str = "Open the settings, choose security, and follow the link that is sent to your address.";
/// The same in other words: comparing words says "different".
const REWORDED: &str =
    "Under preferences there is a page for sign-in; request an e-mail and click what it contains.";

/// A server whose model answers what `answers` says, and whose economy tier is asked of every comparison.
async fn judged(answers: &FakeUpstream, judge: &FakeUpstream) -> (TestServer, Client) {
    let server = TestServer::start(config(answers, judge)).await;
    let client = server.client().await;
    (server, client)
}

fn config(answers: &FakeUpstream, judge: &FakeUpstream) -> Config {
    let mut config = semantic_config(&[answers, judge]);
    config.cache.mode = Mode::Bounded;
    config.models[1].tier = Tier::Economy;
    config.cache.learning.judge_rate = 1.0;
    config
}

async fn until_counted(server: &TestServer, line: &str) {
    until(async || server.get("/metrics").await.1.contains(line)).await;
}

fn judgements(opinion: &str) -> String {
    format!("promptkeep_judgements_total{{opinion=\"{opinion}\"}} 1")
}

#[tokio::test]
async fn what_the_judge_says_counts_more_than_the_words() {
    let (answers, judge) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.script([Reply::text(ANSWER), Reply::text(REWORDED)]);
    judge.always(Reply::text("Yes.").usage(100, 1));
    let (server, mut client) = judged(&answers, &judge).await;
    complete(&mut client, RESET).await;
    assert_eq!(text(complete(&mut client, PARAPHRASE).await), REWORDED);
    until_counted(&server, &judgements("fits")).await;
    until_counted(&server, "promptkeep_labels_total{origin=\"miss\",says=\"same\"} 1").await;
    // Equivalent, so the paraphrase becomes another name of the first question.
    until(async || {
        let hit = complete(&mut client.clone(), PARAPHRASE).await;
        hit.outcome() == Outcome::Exact && text(hit) == ANSWER
    })
    .await;
    let [seen] = &judge.requests()[..] else { panic!("asked once") };
    let asked = seen.body.to_string();
    assert!([RESET, PARAPHRASE, ANSWER].iter().all(|part| asked.contains(part)), "{asked}");
    let spent = stats(&mut client).await.models.into_iter().find(|m| m.model == "model-warm").unwrap();
    assert_eq!(spent.calls, 1, "its call is in the books");
}

#[tokio::test]
async fn what_the_judge_tells_apart_stays_apart() {
    let (answers, judge) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.always(Reply::text(ANSWER));
    judge.always(Reply::text("no"));
    let (server, mut client) = judged(&answers, &judge).await;
    complete(&mut client, RESET).await;
    complete(&mut client, PARAPHRASE).await;
    until_counted(&server, &judgements("differs")).await;
    until_counted(&server, "promptkeep_labels_total{origin=\"miss\",says=\"different\"} 1").await;
    let own = complete(&mut client, PARAPHRASE).await;
    assert_eq!(own.r#match.unwrap().matched_text, PARAPHRASE);
}

#[tokio::test]
async fn a_judge_that_talks_nonsense_is_left_out() {
    let (answers, judge) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.always(Reply::text(ANSWER));
    judge.always(Reply::text("As a language model I think so."));
    let (server, mut client) = judged(&answers, &judge).await;
    complete(&mut client, RESET).await;
    complete(&mut client, PARAPHRASE).await;
    until_counted(&server, &judgements("nonsense")).await;
    until_counted(&server, "promptkeep_labels_total{origin=\"miss\",says=\"same\"} 1").await;
}

#[tokio::test]
async fn a_judge_that_is_down_is_left_out_and_nobody_else_is_asked() {
    let (answers, judge) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.always(Reply::text(ANSWER));
    judge.always(Reply::status(503));
    let (server, mut client) = judged(&answers, &judge).await;
    complete(&mut client, RESET).await;
    complete(&mut client, PARAPHRASE).await;
    until_counted(&server, &judgements("unavailable")).await;
    until_counted(&server, "promptkeep_labels_total{origin=\"miss\",says=\"same\"} 1").await;
    assert_eq!((answers.calls(), judge.calls()), (2, 1));
}

/// Of long questions the judge was shown the beginning, which was the same, and its yes made one of them the other's name.
#[tokio::test]
async fn what_is_too_long_to_show_is_not_judged() {
    let (answers, judge) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.script([Reply::text(&ANSWER.repeat(100)), Reply::text(REWORDED)]);
    judge.always(Reply::text("yes"));
    let (server, mut client) = judged(&answers, &judge).await;
    complete(&mut client, RESET).await;
    complete(&mut client, PARAPHRASE).await;
    until_counted(&server, "promptkeep_labels_total{origin=\"miss\",says=\"different\"} 1").await;
    assert_eq!(judge.calls(), 0);
}

#[tokio::test]
async fn only_a_share_of_the_comparisons_is_judged() {
    let (answers, judge) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.always(Reply::text(ANSWER));
    judge.always(Reply::text("yes"));
    let mut config = config(&answers, &judge);
    config.cache.learning.judge_rate = 0.2;
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    const CITIES: [&str; 30] = [
        "Paris", "London", "Berlin", "Madrid", "Vienna", "Prague", "Dublin", "Lisbon", "Rome", "Athens",
        "Oslo", "Helsinki", "Warsaw", "Budapest", "Brussels", "Zurich", "Milan", "Naples", "Porto",
        "Seville", "Lyon", "Nice", "Hamburg", "Munich", "Krakow", "Ghent", "Bergen", "Turin", "Leeds",
        "York",
    ];
    for city in CITIES {
        complete(&mut client, &format!("Which museum in {city} is the best one?")).await;
    }
    // It ends when everything is learned.
    server.stop().await;
    let asked = judge.calls();
    assert!((1..=14).contains(&asked), "{asked} of 29");
}
