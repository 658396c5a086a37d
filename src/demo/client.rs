//! The demo's client: sends each request when its application would, whether or not earlier answers have arrived,
//! some streamed and some unary.

use std::time::Duration;

use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tonic::{Status, transport::Channel};

use crate::{
    demo::{
        exchange::{Exchange, Run},
        learning_curve::block_starts,
        progress::Progress,
        traffic::{Request, Traffic, concierge},
    },
    grpc::proto::{
        self, CompleteRequest, CompleteResponse, Completion, GetStatsRequest, complete_chunk::Event,
        prompt_cache_client::PromptCacheClient,
    },
    telemetry::stats::Stats,
};

/// Mean arrivals per second: the run takes a little over a minute, and a reader can follow it.
const ARRIVALS_PER_SECOND: f64 = 5.5;

/// Faster for the concierge, where the sum of many requests matters and not the single one.
const CONCIERGE_PER_SECOND: f64 = 36.0;

/// Longest pause between two arrivals, so that the demo never seems to hang.
const GAP_MAX: Duration = Duration::from_millis(800);

/// Requests in flight at once; further arrivals wait.
const IN_FLIGHT_MAX: usize = 32;

/// Deadline of each call.
const DEADLINE: Duration = Duration::from_secs(30);

/// Fixes the arrival times, so that runs are comparable.
const SEED: u64 = 7;

type Client = PromptCacheClient<Channel>;

/// A response, and the time to its first token if it was streamed.
type Response = (CompleteResponse, Option<Duration>);

/// A run in progress.
struct Sending<'a> {
    traffic: &'a Traffic,
    progress: &'a mut Progress,
    in_flight: JoinSet<Exchange>,
    run: Run,
}

/// Sends `traffic` to the server at `endpoint` and collects the replies.
pub async fn run(
    endpoint: String,
    traffic: &Traffic,
    progress: &mut Progress,
) -> Result<Run, tonic::transport::Error> {
    let client = PromptCacheClient::connect(endpoint).await?;
    let mut sending = Sending { traffic, progress, in_flight: JoinSet::new(), run: Run::default() };
    let block_starts = block_starts(traffic);
    let begin = Instant::now();
    for (index, arrival) in arrivals(traffic.requests()).into_iter().enumerate() {
        sending.collect_until(begin + arrival).await;
        sending.collect_down_to(IN_FLIGHT_MAX - 1).await;
        if block_starts.contains(&index) {
            sending.measure(&client).await;
        }
        sending.in_flight.spawn(send(client.clone(), index, traffic.requests()[index].clone(), begin));
    }
    sending.collect_down_to(0).await;
    sending.measure(&client).await;
    let mut run = sending.run;
    run.exchanges.sort_by_key(|exchange| exchange.index);
    Ok(run)
}

impl Sending<'_> {
    async fn collect_until(&mut self, arrival: Instant) {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(arrival) => return,
                Some(done) = self.in_flight.join_next() => self.collect(done),
            }
        }
    }

    async fn collect_down_to(&mut self, in_flight: usize) {
        while self.in_flight.len() > in_flight {
            if let Some(done) = self.in_flight.join_next().await {
                self.collect(done);
            }
        }
    }

    fn collect(&mut self, done: Result<Exchange, JoinError>) {
        let exchange = done.expect("a call neither panics nor is aborted");
        self.progress.add(self.traffic, &exchange);
        self.run.exchanges.push(exchange);
    }

    /// Asks the server how often its hits for the concierge were wrong.
    async fn measure(&mut self, client: &Client) {
        let request = GetStatsRequest { window: None, namespace: concierge::NAMESPACE.to_owned() };
        let stats = client.clone().get_stats(request).await;
        self.run.wrong_hits.push(stats.ok().map(|stats| Stats::from(stats.into_inner()).wrong_hits));
    }
}

/// Arrival times since the start: exponential gaps, and none before a request that arrives together with the one
/// before it.
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

/// Chat windows stream and classifiers do not. Every fifth chat call is unary: it must hit entries stored from
/// streams.
fn is_streamed(index: usize, request: &Request) -> bool {
    request.namespace != "triage" && !index.is_multiple_of(5)
}

async fn send(mut client: Client, index: usize, request: Request, begin: Instant) -> Exchange {
    let started = Instant::now();
    let message = message(&request);
    let response = if is_streamed(index, &request) {
        stream(&mut client, message, started).await
    } else {
        client.complete(message).await.map(|response| (response.into_inner(), None))
    };
    let latency = started.elapsed();
    let (response, first_token) = response.unwrap_or_else(|status| {
        (CompleteResponse { reason: format!("{:?}", status.code()), ..CompleteResponse::default() }, None)
    });
    Exchange { started: started - begin, latency, first_token, ..Exchange::new(index, response) }
}

fn message(request: &Request) -> tonic::Request<CompleteRequest> {
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

/// Returns the unary form of a streamed response. A stream that closes without its last event yields no outcome.
async fn stream(
    client: &mut Client,
    message: tonic::Request<CompleteRequest>,
    started: Instant,
) -> Result<Response, Status> {
    let mut chunks = client.complete_stream(message).await?.into_inner();
    let mut content = String::new();
    let mut first_token = None;
    let mut end = proto::Finished::default();
    while let Some(chunk) = chunks.message().await? {
        match chunk.event {
            Some(Event::Delta(text)) => {
                first_token.get_or_insert_with(|| started.elapsed());
                content.push_str(&text);
            }
            Some(Event::Finished(finished)) => end = finished,
            // The simulated models send text only.
            Some(_) | None => {}
        }
    }
    let response = CompleteResponse {
        outcome: end.outcome,
        completion: Some(Completion { content, usage: end.usage, ..Completion::default() }),
        r#match: end.r#match,
        reason: end.reason,
        saved_usd: end.saved_usd,
        ..CompleteResponse::default()
    };
    Ok((response, first_token))
}
