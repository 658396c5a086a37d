//! Default values, which a start without a file uses.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::*;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            grpc_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)),
            http_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            allow_open: false,
            allowed_hosts: Vec::new(),
            region: "local".to_owned(),
            max_request: 4 * MIB,
            max_in_flight: 4096,
            shutdown_grace: Duration::from_secs(20),
            limits: LimitsConfig::default(),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            kind: StoreKind::Embedded,
            path: "promptkeep-data".into(),
            url: vec!["redis://127.0.0.1:6379".to_owned()],
            password_env: String::new(),
            ca_file: None,
            key_prefix: "promptkeep".to_owned(),
            lease: Duration::from_secs(5),
            peers: Vec::new(),
            write_queue: 10_000,
            timeout: Duration::from_millis(250),
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Bounded,
            min_similarity: 0.95,
            max_error_rate: 0.01,
            max_wrong_hits: 0.05,
            audit_rate: 0.02,
            keep: Keep::Careful,
            careful_ttl: Duration::from_secs(5 * 60),
            ttl: Duration::from_secs(24 * 60 * 60),
            ttl_jitter: 0.1,
            stale_while_revalidate: Duration::ZERO,
            serve_lower_tier: false,
            ignore_fields: [
                "user",
                "metadata",
                "safety_identifier",
                "prompt_cache_key",
                "store",
                "service_tier",
            ]
            .map(str::to_owned)
            .into(),
            zero_hit_usage: false,
            max_memory: 1024 * MIB as u64,
            max_entries: 1_000_000,
            index: IndexConfig::default(),
            learning: LearningConfig::default(),
            verify: VerifyConfig::default(),
            namespaces: Vec::new(),
        }
    }
}

impl Default for LearningConfig {
    fn default() -> Self {
        Self { max_namespaces: 1000, max_comparisons: 64, feedback_per_hour: 20 }
    }
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            default: "auto".to_owned(),
            fallback: vec![Tier::Cold, Tier::Warm, Tier::Hot],
            fallback_named: true,
            easy: Tier::Cold,
            moderate: Tier::Warm,
            hard: Tier::Hot,
            classifier: "local".to_owned(),
            classifier_timeout: Duration::from_secs(1),
            classifier_ttl: Duration::from_secs(60 * 60),
            classifier_cache: 10_000,
            namespaces: Vec::new(),
        }
    }
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(3),
            first_token_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(10),
            retries: 2,
            retry_backoff: Duration::from_millis(200),
            retry_backoff_max: Duration::from_secs(2),
            retry_budget: 0.2,
            hedge_after: HedgeAfter::Learned,
            hedge_budget: 0.05,
            breaker_failures: 5,
            breaker_cooldown: Duration::from_secs(5),
            quarantine: Duration::from_secs(60),
            health_interval: Duration::from_secs(15),
            health_timeout: Duration::from_secs(3),
            max_answer: 8 * MIB,
            finish_abandoned: false,
        }
    }
}

impl Default for DashboardConfig {
    fn default() -> Self {
        Self {
            slo_p99: Duration::from_secs(2),
            show_prompts: false,
            api_key_sha256: None,
            api_key_env: String::new(),
        }
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp_endpoint: String::new(), trace_share: 1.0, log_format: LogFormat::Text }
    }
}

/// An empty model, which loading fills in. Every key except `served_as` is required.
impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            id: String::new(),
            provider: String::new(),
            served_as: None,
            stream: true,
            tier: Tier::Cold,
            input_usd_per_mtok: 0.0,
            output_usd_per_mtok: 0.0,
            cached_input_usd_per_mtok: None,
            cache_write_usd_per_mtok: None,
            context_window: 0,
        }
    }
}
