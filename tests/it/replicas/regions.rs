//! Regions with a Redis each that read each other's streams.

use promptkeep::config::PeerConfig;

use super::*;

/// A region's Redis, and the network through which other regions reach it.
pub struct Region {
    name: &'static str,
    redis: RedisServer,
    peer_network: Proxy,
}

impl Region {
    pub async fn new(name: &'static str) -> Self {
        let redis = RedisServer::start().await;
        let peer_network = Proxy::in_front_of(redis.port).await;
        Self { name, redis, peer_network }
    }

    fn as_peer(&self) -> PeerConfig {
        let url = vec![self.peer_network.url()];
        PeerConfig { region: self.name.to_owned(), url, ..PeerConfig::default() }
    }

    async fn replica(&self, upstream: &FakeUpstream, peers: &[&Self]) -> (TestServer, Client) {
        replica(self.config(upstream, peers)).await
    }

    /// A replica that learns.
    pub async fn learning_replica(&self, upstream: &FakeUpstream, peers: &[&Self]) -> (TestServer, Client) {
        replica(learning(self.config(upstream, peers))).await
    }

    fn config(&self, upstream: &FakeUpstream, peers: &[&Self]) -> Config {
        let mut config = with_store(self.redis.store(), semantic_config(&[upstream]));
        // Tests cut regions off, so a request must not wait long for one.
        config.store.timeout = StoreConfig::default().timeout;
        config.server.region = self.name.to_owned();
        config.store.peers = peers.iter().map(|peer| peer.as_peer()).collect();
        config
    }
}

async fn complete_in(client: &mut Client, namespace: &str, text: &str) {
    let prompt = Prompt { namespace: namespace.to_owned(), ..prompt(text) };
    client.complete(CompleteRequest { prompt: Some(prompt), cache: None }).await.unwrap();
}

async fn outcome_in(client: &Client, namespace: &str, text: &str) -> Outcome {
    let prompt = Prompt { namespace: namespace.to_owned(), ..prompt(text) };
    let request = LookupRequest { prompt: Some(prompt), cache: None };
    client.clone().lookup(request).await.unwrap().into_inner().outcome()
}

#[tokio::test]
async fn entries_and_invalidations_of_one_region_reach_the_others() {
    let upstream = FakeUpstream::start().await;
    let (eu, us) = (Region::new("eu").await, Region::new("us").await);
    let (_eu, mut in_eu) = eu.replica(&upstream, &[&us]).await;
    // Stored before the other region listens.
    complete(&mut in_eu, "Early?").await;
    let (server_us, mut in_us) = us.replica(&upstream, &[&eu]).await;
    wait_for(&in_us, "Early?", Outcome::Exact).await;
    complete(&mut in_eu, RESET).await;
    wait_for(&in_us, PARAPHRASE, Outcome::Semantic).await;
    complete(&mut in_us, "And back?").await;
    wait_for(&in_eu, "And back?", Outcome::Exact).await;
    in_us.invalidate(whole_namespace("default")).await.unwrap();
    for text in ["Early?", RESET, "And back?"] {
        wait_for(&in_eu, text, Outcome::Miss).await;
        assert!(lookup_is(&in_us, text, Outcome::Miss).await);
    }
    // An entry stored after the invalidation stays.
    complete(&mut in_eu, "After?").await;
    wait_for(&in_us, "After?", Outcome::Exact).await;
    let (_, metrics) = server_us.get("/metrics").await;
    for region in ["eu", "us"] {
        let lag = format!("promptkeep_replication_lag_seconds{{peer=\"{region}\"}} 0.0");
        assert!(metrics.contains(&lag), "{metrics}");
    }
}

#[tokio::test]
async fn the_lag_behind_an_unreachable_region_grows_even_if_it_was_never_reached() {
    let upstream = FakeUpstream::start().await;
    let (eu, us) = (Region::new("eu").await, Region::new("us").await);
    us.peer_network.set(Network::Cut);
    let (server, _client) = eu.replica(&upstream, &[&us]).await;
    let is_up_to_date = async || {
        let lag = metric::<f64>(&server, "promptkeep_replication_lag_seconds{peer=\"us\"}").await?;
        Some(lag == 0.0)
    };
    until(async || is_up_to_date().await == Some(false)).await;
    us.peer_network.set(Network::Up);
    until(async || is_up_to_date().await == Some(true)).await;
    us.peer_network.set(Network::Cut);
    until(async || is_up_to_date().await == Some(false)).await;
}

#[tokio::test]
async fn a_partition_loses_no_entry_and_serves_no_invalidated_one() {
    let upstream = FakeUpstream::start().await;
    let (eu, us) = (Region::new("eu").await, Region::new("us").await);
    let (_eu, mut in_eu) = eu.replica(&upstream, &[&us]).await;
    let (_us, mut in_us) = us.replica(&upstream, &[&eu]).await;
    complete_in(&mut in_eu, "before", "Known?").await;
    until(async || outcome_in(&in_us, "before", "Known?").await == Outcome::Exact).await;
    for region in [&eu, &us] {
        region.peer_network.set(Network::Cut);
    }
    in_us.invalidate(whole_namespace("docs")).await.unwrap();
    in_us.invalidate(whole_namespace("before")).await.unwrap();
    // Answered in the region that has not received the invalidation.
    complete_in(&mut in_eu, "docs", "Stale?").await;
    complete_in(&mut in_eu, "other", "From eu?").await;
    complete_in(&mut in_us, "other", "From us?").await;
    assert_eq!(
        outcome_in(&in_eu, "before", "Known?").await,
        Outcome::Exact,
        "it still serves its own entries"
    );
    for region in [&eu, &us] {
        region.peer_network.set(Network::Up);
    }
    until(async || outcome_in(&in_us, "other", "From eu?").await == Outcome::Exact).await;
    assert_eq!(outcome_in(&in_us, "docs", "Stale?").await, Outcome::Miss);
    assert_eq!(outcome_in(&in_us, "before", "Known?").await, Outcome::Miss);
    until(async || outcome_in(&in_eu, "other", "From us?").await == Outcome::Exact).await;
    until(async || outcome_in(&in_eu, "docs", "Stale?").await == Outcome::Miss).await;
    until(async || outcome_in(&in_eu, "before", "Known?").await == Outcome::Miss).await;
    // A replica that starts later agrees.
    let (_again, again) = us.replica(&upstream, &[&eu]).await;
    assert_eq!(outcome_in(&again, "docs", "Stale?").await, Outcome::Miss);
    assert_eq!(outcome_in(&again, "before", "Known?").await, Outcome::Miss);
    assert_eq!(outcome_in(&again, "other", "From eu?").await, Outcome::Exact);
}

/// Another replica of the region continues where the first had stopped reading.
#[tokio::test]
async fn another_replica_takes_over_when_the_reading_one_stops() {
    let upstream = FakeUpstream::start().await;
    let (eu, us) = (Region::new("eu").await, Region::new("us").await);
    let (_eu, mut in_eu) = eu.replica(&upstream, &[]).await;
    let (reader, in_us) = us.replica(&upstream, &[&eu]).await;
    complete(&mut in_eu, "First?").await;
    wait_for(&in_us, "First?", Outcome::Exact).await;
    let (_next, next) = us.replica(&upstream, &[&eu]).await;
    wait_for(&next, "First?", Outcome::Exact).await;
    reader.stop().await;
    complete(&mut in_eu, "Second?").await;
    wait_for(&next, "Second?", Outcome::Exact).await;
}

/// Once the regions agree, the streams of each hold every event once.
#[tokio::test]
async fn events_do_not_circulate_between_regions() {
    let upstream = FakeUpstream::start().await;
    let regions = [Region::new("a").await, Region::new("b").await, Region::new("c").await];
    let [a, b, c] = &regions;
    let (_a, mut in_a) = a.replica(&upstream, &[b, c]).await;
    let (_b, in_b) = b.replica(&upstream, &[a, c]).await;
    let (_c, mut in_c) = c.replica(&upstream, &[a, b]).await;
    for n in 0..5 {
        complete(&mut in_a, &format!("{n}?")).await;
    }
    in_a.invalidate(whole_namespace("nowhere")).await.unwrap();
    for client in [&in_b, &in_c] {
        wait_for(client, "4?", Outcome::Exact).await;
    }
    // Gives circulating events the time of one more round trip.
    complete(&mut in_c, "Last?").await;
    for client in [&in_a, &in_b] {
        wait_for(client, "Last?", Outcome::Exact).await;
    }
    for region in &regions {
        let mut events = String::new();
        for stream in region.redis.keys("*:changes").await {
            events +=
                &format!("{:?}", region.redis.command::<redis::Value>(&format!("XRANGE {stream} - +")).await);
        }
        assert_eq!(events.matches("stored").count(), 6, "{events}");
        let log: redis::Value = region.redis.command("XRANGE promptkeep:invalidations - +").await;
        assert_eq!(format!("{log:?}").matches("nowhere").count(), 1);
        assert_eq!(region.redis.keys("*:e:*").await.len(), 6);
    }
    assert_eq!(upstream.calls(), 6);
}
