//! The operator's dashboard: who may open it, and that its numbers match the ledger.

use promptkeep::tenant::ApiKeyHash;
use reqwest::{
    Method,
    header::{CONTENT_SECURITY_POLICY, HOST},
};

use super::*;
use crate::common::{
    fake_upstream::FakeUpstream,
    test_server::{complete, exact_config, semantic_config, stats},
};

const SNAPSHOT: &str = "/dashboard/snapshot/15m";

async fn get(server: &TestServer, path: &str) -> Response {
    Response::to(request(server, Method::GET, path)).await
}

/// Status of the snapshot when it is requested with this key.
async fn snapshot_status(server: &TestServer, key: &str) -> u16 {
    Response::to(request(server, Method::GET, SNAPSHOT).bearer_auth(key)).await.status
}

#[tokio::test]
async fn the_page_loads_files_from_this_server_only() {
    let server = TestServer::start(exact_config(&[])).await;
    let page = get(&server, "/").await;
    assert_eq!(page.status, 200);
    assert!(
        page.header(CONTENT_SECURITY_POLICY.as_str()).starts_with("default-src 'none'; script-src 'self'")
    );
    let mut files = 0;
    for part in page.text.split(['"']).filter(|part| part.starts_with("/dashboard/")) {
        assert_eq!(get(&server, part).await.status, 200, "{part}");
        files += 1;
    }
    assert_eq!(files, 6, "styles, scripts and a licence");
    assert!(!page.text.contains("://") || page.text.matches("://").count() == 1, "the icon's namespace only");
}

#[tokio::test]
async fn the_snapshot_matches_the_ledger_the_models_and_the_providers() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let mut client = server.client().await;
    for text in ["A?", "A?", "B?"] {
        complete(&mut client, text).await;
    }
    let stats = stats(&mut client).await;
    for range in ["15m", "1h", "24h"] {
        let snapshot = get(&server, &format!("/dashboard/snapshot/{range}")).await.json();
        for window in ["now", "quarter", "hour", "day", "total"] {
            let window = &snapshot["windows"][window];
            assert_eq!(window["requests"]["exact"], 1);
            assert_eq!(window["hit_ratio"], stats.hit_ratio);
            assert_eq!(window["cost_usd"], stats.cost_usd);
            assert_eq!(window["saved_usd"], stats.saved_usd);
            assert_eq!(window["hot_tier_usd"], stats.hot_tier_usd);
        }
        assert_eq!(snapshot["models"][0]["calls"], 2);
        let offer = &snapshot["models"][0]["offers"][0];
        assert_eq!((&offer["breaker"], &offer["is_up"]), (&json!("closed"), &json!(true)));
        assert_eq!(snapshot["namespaces"][0]["name"], "default");
        assert_eq!(snapshot["namespaces"][0]["answered"], 3);
        assert_eq!(snapshot["store"]["index_loaded"], 1.0);
        assert_eq!(snapshot["store"]["replication_lag"], json!({}), "no replica shares the store");
        let rates = snapshot["chart"]["exact"].as_array().unwrap();
        assert!(rates.iter().any(|rate| rate.as_f64().unwrap() > 0.0), "{rates:?}");
    }
    assert_eq!(get(&server, "/dashboard/snapshot/2h").await.status, 400);
}

#[tokio::test]
async fn the_hot_tier_cost_counts_every_answer_once() {
    let upstreams = [FakeUpstream::start().await, FakeUpstream::start().await, FakeUpstream::start().await];
    let mut config = exact_config(&upstreams.each_ref());
    // Ten times the price of the other tiers.
    config.models[2].input_usd_per_mtok *= 10.0;
    config.models[2].output_usd_per_mtok *= 10.0;
    config.routing.default = "model-cold".to_owned();
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    for text in ["A?", "A?", "B?"] {
        complete(&mut client, text).await;
    }
    let stats = stats(&mut client).await;
    let expected = 10.0 * (stats.cost_usd + stats.saved_usd);
    assert!((stats.hot_tier_usd - expected).abs() < 1e-9, "{stats:?}");
    let (_, metrics) = server.get("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("promptkeep_hot_tier_usd_total ")).unwrap();
    assert!((line.parse::<f64>().unwrap() - expected).abs() < 1e-9, "{line}");
}

#[tokio::test]
async fn answers_slower_than_the_latency_objective_are_counted() {
    let upstream = FakeUpstream::start().await;
    let mut config = exact_config(&[&upstream]);
    config.dashboard.slo_p99 = std::time::Duration::from_nanos(1);
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    for text in ["A?", "A?"] {
        complete(&mut client, text).await;
    }
    assert_eq!(stats(&mut client).await.late_answers, 2);
    let (_, metrics) = server.get("/metrics").await;
    assert!(metrics.contains("\npromptkeep_late_answers_total 2\n"), "{metrics}");
    assert!(metrics.contains("\npromptkeep_slo_seconds 1e-9\n"), "{metrics}");
}

#[tokio::test]
async fn without_tenants_the_dashboard_opens_by_address_but_not_by_an_unknown_host_name() {
    let mut config = exact_config(&[]);
    config.server.allowed_hosts = vec!["cache.internal".to_owned()];
    let server = TestServer::start(config).await;
    assert_eq!(get(&server, SNAPSHOT).await.status, 200);
    let by_host_name = request(&server, Method::GET, SNAPSHOT).header(HOST, "cache.internal");
    let refused = Response::to(by_host_name).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("dashboard.api_key_sha256"), "{}", refused.text);
}

#[tokio::test]
async fn with_tenants_only_the_operator_key_opens_the_dashboard() {
    let mut config = exact_config(&[]);
    config.tenants = vec![tenant("shop", "shop-key")];
    let closed = TestServer::start(config.clone()).await;
    for path in [SNAPSHOT, "/dashboard/events/15m"] {
        assert_eq!(get(&closed, path).await.status, 403);
    }
    assert_eq!(snapshot_status(&closed, "shop-key").await, 403);
    config.dashboard.api_key_sha256 = Some(ApiKeyHash::of("operator-key"));
    let server = TestServer::start(config).await;
    assert_eq!(get(&server, SNAPSHOT).await.status, 401);
    assert_eq!(snapshot_status(&server, "shop-key").await, 401);
    assert_eq!(snapshot_status(&server, "operator-key").await, 200);
    let report = json!({ "hit": format!("{:032x}", 7) });
    assert_eq!(Response::to(post(&server, "/dashboard/wrong-hit", &report)).await.status, 401);
    let report = post(&server, "/dashboard/wrong-hit", &report).bearer_auth("operator-key");
    assert_eq!(Response::to(report).await.status, 404, "no such hit was served");
}

#[tokio::test]
async fn a_wrong_hit_is_reported_for_the_tenant_that_received_it() {
    let upstream = FakeUpstream::start().await;
    let mut config = semantic_config(&[&upstream]);
    config.tenants = vec![tenant("shop", "shop-key"), tenant("lab", "lab-key")];
    config.dashboard.api_key_sha256 = Some(ApiKeyHash::of("operator-key"));
    let server = TestServer::start(config).await;
    for (text, outcome) in
        [("How do I reset my password?", "upstream"), ("How can I reset my password?", "semantic")]
    {
        let response = Response::to(chat(&server, &body(text)).bearer_auth("shop-key")).await;
        assert_eq!(response.outcome(), outcome);
    }
    let snapshot = || Response::to(request(&server, Method::GET, SNAPSHOT).bearer_auth("operator-key"));
    let hit = snapshot().await.json()["hits"][0].clone();
    assert_eq!(
        (&hit["tenant"], &hit["verdict"], &hit["asked"]),
        (&json!("shop"), &Value::Null, &Value::Null)
    );
    let report = async |headers: &[(&'static str, &'static str)]| {
        let mut report =
            post(&server, "/dashboard/wrong-hit", &json!({ "hit": hit["id"] })).bearer_auth("operator-key");
        for (name, value) in headers {
            report = report.header(*name, *value);
        }
        Response::to(report).await
    };
    assert_eq!(report(&[("sec-fetch-site", "cross-site")]).await.status, 403, "a script of another page");
    let plain = request(&server, Method::POST, "/dashboard/wrong-hit").bearer_auth("operator-key").body("{}");
    assert_eq!(Response::to(plain).await.status, 415, "a form cannot send JSON");
    assert_eq!(report(&[("sec-fetch-site", "same-origin")]).await.json(), json!({ "recorded": true }));
    assert_eq!(report(&[]).await.json(), json!({ "recorded": false }), "a repeated report changes nothing");
    let after = snapshot().await.json();
    assert_eq!(after["hits"][0]["verdict"], "wrong_hit");
    assert_eq!(after["quality"]["feedback"]["wrong_hit"], 1);
}

#[tokio::test]
async fn an_open_page_does_not_delay_the_shutdown() {
    let server = TestServer::start(exact_config(&[])).await;
    let mut events = request(&server, Method::GET, "/dashboard/events/1h").send().await.unwrap();
    let first = events.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"data: {\"at\":"), "{first:?}");
    let stopping = tokio::spawn(server.stop());
    while events.chunk().await.is_ok_and(|chunk| chunk.is_some()) {}
    stopping.await.unwrap();
}
