//! Regions, each with a Redis of its own, that read each other's streams.

use promptkeep::config::{Mode, PeerConfig};

use super::*;

/// Begins the sample of how far a replica is behind region us.
const LAG_OF_US: &str = "promptkeep_replication_lag_seconds{peer=\"us\"} ";

/// A region with one replica, and the network before its Redis as others see it.
pub struct Region {
    name: &'static str,
    redis: RedisServer,
    seen_by_others: Proxy,
}

impl Region {
    pub async fn new(name: &'static str) -> Self {
        let redis = RedisServer::start().await;
        let seen_by_others = Proxy::before(redis.port).await;
        Self { name, redis, seen_by_others }
    }

    fn as_peer(&self) -> PeerConfig {
        let url = vec![self.seen_by_others.url()];
        PeerConfig { region: self.name.to_owned(), url, ..PeerConfig::default() }
    }

    async fn replica(&self, upstream: &FakeUpstream, peers: &[&Self]) -> (TestServer, Client) {
        replica(self.config(upstream, peers)).await
    }

    /// One that learns.
    pub async fn bounded_replica(&self, upstream: &FakeUpstream, peers: &[&Self]) -> (TestServer, Client) {
        let mut config = self.config(upstream, peers);
        config.cache.mode = Mode::Bounded;
        config.cache.audit_rate = 0.0;
        config.cache.learning.max_comparisons = 1000;
        replica(config).await
    }

    fn config(&self, upstream: &FakeUpstream, peers: &[&Self]) -> Config {
        let mut config = on(self.redis.store(), semantic_config(&[upstream]));
        // What waits for another region should not wait long in a test.
        config.store.timeout = StoreConfig::default().timeout;
        config.server.region = self.name.to_owned();
        config.store.peers = peers.iter().map(|peer| peer.as_peer()).collect();
        config
    }
}

/// A namespace of its own.
async fn buy(client: &mut Client, namespace: &str, text: &str) {
    let prompt = Prompt { namespace: namespace.to_owned(), ..prompt(text) };
    client.complete(CompleteRequest { prompt: Some(prompt), cache: None }).await.unwrap();
}

async fn found(client: &Client, namespace: &str, text: &str) -> Outcome {
    let prompt = Prompt { namespace: namespace.to_owned(), ..prompt(text) };
    let request = promptkeep::grpc::proto::LookupRequest { prompt: Some(prompt), cache: None };
    client.clone().lookup(request).await.unwrap().into_inner().outcome()
}

fn namespace(name: &str) -> InvalidateRequest {
    InvalidateRequest { namespace: name.to_owned(), ..InvalidateRequest::default() }
}

#[tokio::test]
async fn what_one_buys_warms_the_others_and_what_one_invalidates_is_gone_everywhere() {
    let upstream = FakeUpstream::start().await;
    let (eu, us) = (Region::new("eu").await, Region::new("us").await);
    let (_eu, mut in_eu) = eu.replica(&upstream, &[&us]).await;
    // Before the other region listens.
    complete(&mut in_eu, "Early?").await;
    let (server_us, mut in_us) = us.replica(&upstream, &[&eu]).await;
    becomes(&in_us, "Early?", Outcome::Exact).await;
    complete(&mut in_eu, RESET).await;
    becomes(&in_us, RESET_TOO, Outcome::Semantic).await;
    complete(&mut in_us, "And back?").await;
    becomes(&in_eu, "And back?", Outcome::Exact).await;
    in_us.invalidate(everything()).await.unwrap();
    for text in ["Early?", RESET, "And back?"] {
        becomes(&in_eu, text, Outcome::Miss).await;
        assert!(is_hit(&in_us, text, Outcome::Miss).await);
    }
    // What is bought after it is newer.
    complete(&mut in_eu, "After?").await;
    becomes(&in_us, "After?", Outcome::Exact).await;
    let (_, metrics) = server_us.get("/metrics").await;
    for region in ["eu", "us"] {
        let lag = format!("promptkeep_replication_lag_seconds{{peer=\"{region}\"}} 0.0");
        assert!(metrics.contains(&lag), "{metrics}");
    }
}

#[tokio::test]
async fn the_lag_behind_a_region_grows_while_it_is_cut_off_even_for_one_that_never_reached_it() {
    let upstream = FakeUpstream::start().await;
    let (eu, us) = (Region::new("eu").await, Region::new("us").await);
    us.seen_by_others.set(Network::Cut);
    let (server, _client) = eu.replica(&upstream, &[&us]).await;
    let is_in_step = async || {
        let (_, metrics) = server.get("/metrics").await;
        let lag = metrics.lines().find_map(|line| line.strip_prefix(LAG_OF_US))?;
        Some(lag.parse::<f64>().unwrap() == 0.0)
    };
    until(async || is_in_step().await == Some(false)).await;
    us.seen_by_others.set(Network::Whole);
    until(async || is_in_step().await == Some(true)).await;
    us.seen_by_others.set(Network::Cut);
    until(async || is_in_step().await == Some(false)).await;
}

#[tokio::test]
async fn a_partition_loses_nothing_and_serves_nothing_invalidated() {
    let upstream = FakeUpstream::start().await;
    let (eu, us) = (Region::new("eu").await, Region::new("us").await);
    let (_eu, mut in_eu) = eu.replica(&upstream, &[&us]).await;
    let (_us, mut in_us) = us.replica(&upstream, &[&eu]).await;
    buy(&mut in_eu, "before", "Known?").await;
    until(async || found(&in_us, "before", "Known?").await == Outcome::Exact).await;
    for region in [&eu, &us] {
        region.seen_by_others.set(Network::Cut);
    }
    in_us.invalidate(namespace("docs")).await.unwrap();
    in_us.invalidate(namespace("before")).await.unwrap();
    // Bought where nobody has heard of that.
    buy(&mut in_eu, "docs", "Stale?").await;
    buy(&mut in_eu, "other", "From eu?").await;
    buy(&mut in_us, "other", "From us?").await;
    assert_eq!(found(&in_eu, "before", "Known?").await, Outcome::Exact, "it goes on alone");
    for region in [&eu, &us] {
        region.seen_by_others.set(Network::Whole);
    }
    until(async || found(&in_us, "other", "From eu?").await == Outcome::Exact).await;
    assert_eq!(found(&in_us, "docs", "Stale?").await, Outcome::Miss);
    assert_eq!(found(&in_us, "before", "Known?").await, Outcome::Miss);
    until(async || found(&in_eu, "other", "From us?").await == Outcome::Exact).await;
    until(async || found(&in_eu, "docs", "Stale?").await == Outcome::Miss).await;
    until(async || found(&in_eu, "before", "Known?").await == Outcome::Miss).await;
    // The other order of the same: it stays gone over restarts.
    let (_again, again) = us.replica(&upstream, &[&eu]).await;
    assert_eq!(found(&again, "docs", "Stale?").await, Outcome::Miss);
    assert_eq!(found(&again, "before", "Known?").await, Outcome::Miss);
    assert_eq!(found(&again, "other", "From eu?").await, Outcome::Exact);
}

/// Another replica of the region goes on where the first had read.
#[tokio::test]
async fn a_region_goes_on_reading_when_its_reader_ends() {
    let upstream = FakeUpstream::start().await;
    let (eu, us) = (Region::new("eu").await, Region::new("us").await);
    let (_eu, mut in_eu) = eu.replica(&upstream, &[]).await;
    let (reader, in_us) = us.replica(&upstream, &[&eu]).await;
    complete(&mut in_eu, "First?").await;
    becomes(&in_us, "First?", Outcome::Exact).await;
    let (_next, next) = us.replica(&upstream, &[&eu]).await;
    becomes(&next, "First?", Outcome::Exact).await;
    reader.stop().await;
    complete(&mut in_eu, "Second?").await;
    becomes(&next, "Second?", Outcome::Exact).await;
}

/// Each event of each region's streams, once all have told all.
#[tokio::test]
async fn nothing_goes_round_in_circles() {
    let upstream = FakeUpstream::start().await;
    let regions = [Region::new("a").await, Region::new("b").await, Region::new("c").await];
    let [a, b, c] = &regions;
    let (_a, mut in_a) = a.replica(&upstream, &[b, c]).await;
    let (_b, in_b) = b.replica(&upstream, &[a, c]).await;
    let (_c, mut in_c) = c.replica(&upstream, &[a, b]).await;
    for n in 0..5 {
        complete(&mut in_a, &format!("{n}?")).await;
    }
    in_a.invalidate(namespace("nowhere")).await.unwrap();
    for client in [&in_b, &in_c] {
        becomes(client, "4?", Outcome::Exact).await;
    }
    // A round trip of its own for whatever would go on.
    complete(&mut in_c, "Last?").await;
    for client in [&in_a, &in_b] {
        becomes(client, "Last?", Outcome::Exact).await;
    }
    for region in &regions {
        let mut told = String::new();
        for stream in region.redis.keys("*:changes").await {
            told +=
                &format!("{:?}", region.redis.command::<redis::Value>(&format!("XRANGE {stream} - +")).await);
        }
        assert_eq!(told.matches("stored").count(), 6, "{told}");
        let log: redis::Value = region.redis.command("XRANGE promptkeep:invalidations - +").await;
        assert_eq!(format!("{log:?}").matches("nowhere").count(), 1);
        assert_eq!(region.redis.keys("*:e:*").await.len(), 6);
    }
    assert_eq!(upstream.calls(), 6);
}
