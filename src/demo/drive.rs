//! Sends the traffic to a server as its applications would: at their own pace, whether or not earlier
//! answers have come, some streamed and some whole.

use std::time::Duration;

use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    demo::{
        progress::Progress,
        record::{Matched, Measured, Record, Replayed},
        report::block_starts,
        traffic::{Request, Traffic, concierge},
    },
    grpc::proto::{
        self, CompleteRequest, CompleteResponse, GetStatsRequest, complete_chunk::Event,
        prompt_cache_client::PromptCacheClient,
    },
    model::Usage,
    outcome::Outcome,
};

/// Mean rate of arrivals, per second: they take a little over a minute, and a reader can follow them.
const ARRIVALS_PER_SECOND: f64 = 5.5;

/// The concierge's guests come faster: what is worth a look there is not the single question.
const CONCIERGE_PER_SECOND: f64 = 36.0;

/// Longest pause between two arrivals, so that nobody thinks that the demo hangs.
const GAP_MAX: Duration = Duration::from_millis(800);

/// Requests under way at once; arrivals beyond wait.
const IN_FLIGHT_MAX: usize = 32;

/// What a caller would wait for an answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Fixes the arrival times, so that two runs are alike.
const SEED: u64 = 7;

type Client = PromptCacheClient<Channel>;

/// A replay under way.
struct Replay<'a> {
    traffic: &'a Traffic,
    progress: &'a mut Progress,
    under_way: JoinSet<Record>,
    replayed: Replayed,
}

/// One call and the caller's clock.
#[derive(Clone, Copy)]
struct Call {
    index: usize,
    /// Since the beginning of the replay.
    started: Duration,
    latency: Duration,
}

/// What a caller learns from one call.
struct Reply {
    response: CompleteResponse,
    first_token: Option<Duration>,
}

/// Replays `traffic`.
pub async fn replay(
    endpoint: String,
    traffic: &Traffic,
    progress: &mut Progress,
) -> Result<Replayed, tonic::transport::Error> {
    let client = PromptCacheClient::connect(endpoint).await?;
    let mut replay = Replay { traffic, progress, under_way: JoinSet::new(), replayed: Replayed::default() };
    let block_starts = block_starts(traffic);
    let begin = Instant::now();
    for (index, arrival) in arrivals(traffic.requests()).into_iter().enumerate() {
        replay.collect_until(begin + arrival).await;
        replay.await_free_place().await;
        if block_starts.contains(&index) {
            replay.measure(&client).await;
        }
        replay.under_way.spawn(send(client.clone(), index, traffic.requests()[index].clone(), begin));
    }
    replay.collect_all().await;
    replay.measure(&client).await;
    Ok(replay.replayed)
}

// === impl Replay ===

impl Replay<'_> {
    async fn collect_until(&mut self, arrival: Instant) {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(arrival) => return,
                Some(done) = self.under_way.join_next() => self.keep(done),
            }
        }
    }

    async fn await_free_place(&mut self) {
        while self.under_way.len() >= IN_FLIGHT_MAX {
            if let Some(done) = self.under_way.join_next().await {
                self.keep(done);
            }
        }
    }

    async fn collect_all(&mut self) {
        while let Some(done) = self.under_way.join_next().await {
            self.keep(done);
        }
        self.replayed.records.sort_by_key(|record| record.index);
    }

    /// Asks the server what it knows of its own hits for the concierge.
    async fn measure(&mut self, client: &Client) {
        let of = GetStatsRequest { window: None, namespace: concierge::NAMESPACE.to_owned() };
        let stats = client.clone().get_stats(of).await;
        let wrong_hits = stats.ok().and_then(|stats| stats.into_inner().wrong_hits);
        self.replayed.measured.push(wrong_hits.map(Measured::from));
    }

    fn keep(&mut self, done: Result<Record, JoinError>) {
        let record = done.expect("a call neither panics nor is aborted");
        self.progress.record(self.traffic, &record);
        self.replayed.records.push(record);
    }
}

/// When each request arrives, since the beginning: exponential gaps, none before a request that comes
/// together with the one before it.
fn arrivals(requests: &[Request]) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut now = Duration::ZERO;
    let mut arrive = |request: &Request| {
        let is_fast = request.namespace == concierge::NAMESPACE;
        let rate = if is_fast { CONCIERGE_PER_SECOND } else { ARRIVALS_PER_SECOND };
        let gap = Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
        now += if request.together { Duration::ZERO } else { gap.min(GAP_MAX) };
        now
    };
    requests.iter().map(&mut arrive).collect()
}

/// Chat windows stream, classifiers do not; and now and then the same question is asked whole, which
/// must hit what was kept from a stream.
fn is_streamed(index: usize, request: &Request) -> bool {
    request.namespace != "triage" && !index.is_multiple_of(5)
}

async fn send(mut client: Client, index: usize, request: Request, begin: Instant) -> Record {
    let started = Instant::now();
    let message = to_wire(&request);
    let reply = if is_streamed(index, &request) {
        stream(&mut client, message, started).await
    } else {
        unary(&mut client, message).await
    };
    let call = Call { index, started: started - begin, latency: started.elapsed() };
    match reply {
        Ok(reply) => reply.into_record(call),
        Err(status) => call.failed(status.code()),
    }
}

fn to_wire(request: &Request) -> tonic::Request<CompleteRequest> {
    let message = |(role, content): (&str, &str)| proto::Message {
        role: role.to_owned(),
        content: content.to_owned(),
        ..proto::Message::default()
    };
    let prompt = proto::Prompt {
        namespace: request.namespace.clone(),
        model: request.model.clone(),
        messages: request.messages().map(message).collect(),
        ..proto::Prompt::default()
    };
    let mut call = tonic::Request::new(CompleteRequest { prompt: Some(prompt), cache: None });
    call.set_timeout(DEADLINE);
    call
}

async fn unary(client: &mut Client, call: tonic::Request<CompleteRequest>) -> Result<Reply, Status> {
    let response = client.complete(call).await?.into_inner();
    Ok(Reply { response, first_token: None })
}

async fn stream(
    client: &mut Client,
    call: tonic::Request<CompleteRequest>,
    started: Instant,
) -> Result<Reply, Status> {
    let mut chunks = client.complete_stream(call).await?.into_inner();
    let mut content = String::new();
    let mut first_token = None;
    let mut end = None;
    while let Some(chunk) = chunks.message().await? {
        match chunk.event {
            Some(Event::Delta(text)) => {
                first_token.get_or_insert_with(|| started.elapsed());
                content.push_str(&text);
            }
            Some(Event::Finished(finished)) => end = Some(finished),
            Some(Event::Started(_) | Event::ToolCallsDeltaJson(_)) | None => {}
        }
    }
    // A stream that closed without saying so leaves a reply without an outcome.
    Ok(Reply { response: whole(content, end.unwrap_or_default()), first_token })
}

/// The unary form of a streamed reply.
fn whole(content: String, end: proto::Finished) -> CompleteResponse {
    CompleteResponse {
        outcome: end.outcome,
        completion: Some(proto::Completion {
            content,
            tool_calls_json: String::new(),
            finish_reason: end.finish_reason,
            model: end.model,
            tier: end.tier,
            usage: end.usage,
        }),
        r#match: end.r#match,
        reason: end.reason,
        attempts: end.attempts,
        saved_usd: end.saved_usd,
        request_id: end.request_id,
    }
}

// === impl Call ===

impl Call {
    fn failed(self, code: Code) -> Record {
        let reply = Reply { response: CompleteResponse::default(), first_token: None };
        Record { reason: format!("{code:?}"), ..reply.into_record(self) }
    }
}

// === impl Reply ===

impl Reply {
    /// A reply without an outcome becomes an error: the server broke its contract.
    fn into_record(self, call: Call) -> Record {
        let Self { response, first_token } = self;
        let Call { index, started, latency } = call;
        let outcome = to_outcome(response.outcome());
        let completion = response.completion.unwrap_or_default();
        Record {
            index,
            outcome,
            reason: response.reason,
            started,
            latency,
            first_token,
            matched: response.r#match.filter(|m| !m.matched_text.is_empty()).map(Matched::from),
            content: completion.content,
            usage: completion.usage.map(to_usage).unwrap_or_default(),
            saved_usd: response.saved_usd,
            model: completion.model,
        }
    }
}

const fn to_outcome(outcome: proto::Outcome) -> Outcome {
    match outcome {
        proto::Outcome::Exact => Outcome::Exact,
        proto::Outcome::Semantic => Outcome::Semantic,
        proto::Outcome::Coalesced => Outcome::Coalesced,
        proto::Outcome::Upstream => Outcome::Upstream,
        proto::Outcome::Bypass => Outcome::Bypass,
        proto::Outcome::Miss => Outcome::Miss,
        proto::Outcome::Unspecified => Outcome::Error,
    }
}

impl From<proto::Match> for Matched {
    fn from(wire: proto::Match) -> Self {
        Self { text: wire.matched_text, similarity: wire.similarity }
    }
}

impl From<proto::WrongHits> for Measured {
    fn from(wire: proto::WrongHits) -> Self {
        let proto::WrongHits { rate, low, high, checked } = wire;
        Self { rate, low, high, checked }
    }
}

/// The caller's reading of a usage block.
fn to_usage(wire: proto::Usage) -> Usage {
    let proto::Usage { prompt_tokens, completion_tokens, cost_usd, estimated } = wire;
    Usage { prompt_tokens, completion_tokens, cost_usd, estimated }
}
