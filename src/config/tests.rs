//! Loading a configuration from file and environment.

use std::collections::HashMap;

use super::{
    check::{RequiredSecrets, Secrets},
    load::{Loaded, load_text},
    *,
};

mod example;
mod mistakes;

/// Returns the configuration and its problems, one line each.
fn read_with(text: &str, env: &[(&str, &str)], required: RequiredSecrets) -> (Config, Vec<String>) {
    let env: HashMap<_, _> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let Loaded { config, findings } = load_text("c.toml", text, &Secrets { env: &env, required });
    let errors = ConfigErrors::from_problems(findings.problems);
    let lines = errors.map(|errors| errors.to_string().lines().map(str::to_owned).collect());
    (config, lines.unwrap_or_default())
}

fn read(text: &str) -> (Config, Vec<String>) {
    read_with(text, &[], RequiredSecrets::All)
}

fn problems(text: &str) -> Vec<String> {
    read(text).1
}

/// Returns the configuration. Panics with the problems if there are any.
fn good(text: &str) -> Config {
    let (config, problems) = read(text);
    assert_eq!(problems, [""; 0]);
    config
}

const PROVIDER: &str = r#"providers = [{ name = "p", base_url = "http://localhost:9/v1/" }]"#;

#[test]
fn an_empty_file_means_the_defaults() {
    assert_eq!(good(""), Config::default());
    let loaded = Config::load(None, std::iter::empty()).unwrap();
    assert_eq!(loaded, Config::default());
}

#[test]
fn values_have_units() {
    let config = good(
        r#"
        [server]
        max_request = "512KB"
        shutdown_grace = "0s"
        [cache]
        ttl = "1d2h3m4s5ms"
        max_memory = "2 GiB"
        [upstream]
        timeout = "1m30s"
        max_answer = 4096
        "#,
    );
    assert_eq!(config.server.max_request, 512_000);
    assert_eq!(config.server.shutdown_grace, Duration::ZERO);
    assert_eq!(config.cache.ttl, Duration::from_millis(93_784_005));
    assert_eq!(config.cache.max_memory, 2 << 30);
    assert_eq!(config.upstream.timeout, Duration::from_secs(90));
    assert_eq!(config.upstream.max_answer, 4096);
}

#[test]
fn the_hedge_delay_is_learned_fixed_or_off() {
    let hedge = |text: &str| good(&format!("upstream.hedge_after = \"{text}\"")).upstream.hedge_after;
    assert_eq!(hedge("p95"), HedgeAfter::Learned);
    assert_eq!(hedge("off"), HedgeAfter::Never);
    assert_eq!(hedge("800ms"), HedgeAfter::Fixed(Duration::from_millis(800)));
}

#[test]
fn providers_and_models_are_read() {
    let config = good(&format!(
        r#"
        {PROVIDER}
        models = [{{ id = "m", provider = "p", tier = "economy", input_usd_per_mtok = 1, output_usd_per_mtok = 0.5, context_window = 32_000 }}]
        server.region = "eu"
        routing.default = "m"
        "#
    ));
    let model = ModelConfig {
        served_as: None,
        id: "m".into(),
        provider: "p".into(),
        tier: Tier::Economy,
        input_usd_per_mtok: 1.0,
        output_usd_per_mtok: 0.5,
        context_window: 32_000,
        ..ModelConfig::default()
    };
    let provider = ProviderConfig {
        name: "p".into(),
        base_url: "http://localhost:9/v1".into(),
        api_key_env: String::new(),
        region: "eu".into(),
        ..ProviderConfig::default()
    };
    assert_eq!(config.models, [model]);
    assert_eq!(config.providers, [provider]);
}

#[test]
fn variables_override_the_file() {
    let env = [
        ("PROMPTKEEP_CACHE__INDEX__KIND", "scan"),
        ("PROMPTKEEP_CACHE__MIN_SIMILARITY", "0.8"),
        ("PROMPTKEEP_EMBEDDING__MODEL_DIR", ""),
        ("PROMPTKEEP_ROUTING__FALLBACK", "hot, cold"),
        ("PROMPTKEEP_DASHBOARD__SHOW_PROMPTS", "true"),
        ("PROMPTKEEP_STORE__WRITE_QUEUE", "7"),
        ("PROMPTKEEP_PROVIDERS", r#"[{ name = "q", base_url = "https://q/v1" }]"#),
        ("PROMPTKEEP_GLOBAL_API_KEY", "an API key"),
        ("PROMPTKEEP_SERVICE_HOST", "10.0.0.1"),
        ("PROMPTKEEP_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
        ("HOME", "/root"),
    ];
    let text = "cache = { min_similarity = 0.9, ttl = \"1h\" }\n[embedding]\nmodel_dir = \"m\"";
    let (config, problems) = read_with(text, &env, RequiredSecrets::All);
    assert_eq!(problems, [""; 0]);
    assert_eq!(config.cache.index.kind, IndexKind::Scan);
    assert_eq!(config.cache.min_similarity, 0.8);
    assert_eq!(config.cache.ttl, Duration::from_secs(3600));
    assert_eq!(config.embedding.model_dir, None);
    assert_eq!(config.routing.fallback, [Tier::Hot, Tier::Cold]);
    assert!(config.dashboard.show_prompts);
    assert_eq!(config.store.write_queue, 7);
    assert_eq!(config.providers[0].name, "q");
}

#[test]
fn a_tenants_key_is_a_hash_or_comes_from_a_variable() {
    let text = r#"
        [[tenants]]
        name = "a"
        api_key_sha256 = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"
        [[tenants]]
        name = "b"
        api_key_env = "B_KEY"
    "#;
    let (config, problems) = read_with(text, &[("B_KEY", "xyz\n")], RequiredSecrets::All);
    assert_eq!(problems, [""; 0]);
    assert_eq!(config.tenants[0].api_key_sha256, Some(ApiKeyHash::of("abc")));
    assert_eq!(config.tenants[1].api_key_sha256, Some(ApiKeyHash::of("xyz")));
}

#[test]
fn check_config_does_not_require_api_keys() {
    let text = format!(
        "{}\n[[tenants]]\nname = \"b\"\napi_key_env = \"B_KEY\"",
        PROVIDER.replace("}", ", api_key_env = \"P_KEY\" }")
    );
    assert_eq!(read_with(&text, &[], RequiredSecrets::None).1, [""; 0]);
    assert_eq!(
        problems(&text),
        [
            "c.toml:1: providers[0].api_key_env: the environment variable P_KEY is not set",
            "c.toml:4: tenants[0].api_key_env: the environment variable B_KEY is not set",
        ]
    );
}

/// `replay` and `tune` once required no key, although they call the embeddings API with `embedding.kind = "openai"`.
#[test]
fn replay_requires_only_the_key_of_the_embeddings_api() {
    let text = PROVIDER.replace('}', ", api_key_env = \"P_KEY\" }")
        + r#"
        [embedding]
        kind = "openai"
        base_url = "http://localhost:9/v1"
        model = "m"
        dimensions = 8
        api_key_env = "E_KEY"
    "#;
    assert_eq!(
        read_with(&text, &[], RequiredSecrets::EmbeddingOnly).1,
        ["c.toml:7: embedding.api_key_env: the environment variable E_KEY is not set"]
    );
    assert_eq!(read_with(&text, &[("E_KEY", "k")], RequiredSecrets::EmbeddingOnly).1, [""; 0]);
    let own = text.replace("\"openai\"", "\"minilm\"");
    assert_eq!(read_with(&own, &[], RequiredSecrets::EmbeddingOnly).1, [""; 0], "minilm calls no API");
}

#[test]
fn the_instructions_of_the_verifier_may_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("verify.md");
    let text = format!("[cache.verify]\nprompt_file = \"{}\"", path.display());
    std::fs::write(&path, "\u{feff}<!-- version 7 -->\n\nCompare them.\n").unwrap();
    let first = good(&text);
    assert_eq!(first.cache.verify.instructions(), "Compare them.");
    std::fs::write(&path, "Compare them well.").unwrap();
    let second = good(&text);
    assert_eq!(second.cache.verify.instructions(), "Compare them well.", "a reload reads it again");
    assert_ne!(first, second);
}

#[test]
fn a_namespace_may_verify_in_another_mode() {
    let config = good("[[cache.namespaces]]\nnamespace = 'a'\nverify = 'off'");
    let mode = |namespace| config.cache.verify_mode(namespace);
    assert_eq!((mode("a"), mode("b")), (VerifyMode::Off, VerifyMode::Auto));
}

#[test]
fn secrets_are_masked() {
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let config = good(&format!("[[tenants]]\nname = \"a\"\napi_key_sha256 = \"{hash}\""));
    let debug = format!("{config:?}");
    assert!(debug.contains("****") && !debug.contains("ba78") && !debug.contains("186, 120"), "{debug}");
}

#[test]
fn changes_that_need_a_restart_are_named() {
    let old = Config::default();
    let with = |text| changed_needs_restart(&old, &good(text));
    assert_eq!(with(""), [""; 0]);
    assert_eq!(with("server.region = 'eu'\nstore.kind = 'memory'"), ["server", "store"]);
    assert_eq!(with("embedding.queue = 1"), ["embedding"]);
    assert_eq!(with("routing.classifier_cache = 1"), ["routing.classifier_cache"]);
    assert_eq!(with("cache.verify.mode = 'off'"), [""; 0]);
    assert_eq!(with("cache.ttl = '1h'\nrouting.default = 'hot'\nupstream.timeout = '9s'"), [""; 0]);
}

#[test]
fn a_report_is_text_or_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "[cache]\nttl = 5\n").unwrap();
    let report = check_file(&path, std::iter::empty());
    let file = path.display();
    let text = format!(
        "{file}:2: cache.ttl: must be a duration with units, such as \"24h\", \"1m30s\" or \"500ms\"\n\
         {file}: problems: 1"
    );
    assert_eq!(report.to_string(), text);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["problems"][0]["line"], 2);
    assert_eq!(json["problems"][0]["key"], "cache.ttl");

    std::fs::write(&path, PROVIDER).unwrap();
    let report = check_file(&path, std::iter::empty());
    assert!(report.ok);
    assert_eq!(report.to_string(), format!("{file}: ok: tenants 0, providers 1, models 0"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    let error = Config::load(Some(&missing), std::iter::empty()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}: cannot be read: ", missing.display())), "{error}");
}

#[test]
fn a_caller_can_only_tighten() {
    let policy = |mode, asks: CacheControl| {
        let config = CacheConfig { mode, min_similarity: 0.9, ..CacheConfig::default() };
        config.policy("default", &asks)
    };
    let similar = |min| CacheControl { min_similarity: Some(min), ..Default::default() };
    assert_eq!(policy(Mode::Static, similar(0.5)), Policy::Static { min_similarity: 0.9 });
    assert_eq!(policy(Mode::Static, similar(0.95)), Policy::Static { min_similarity: 0.95 });
    for mode in [Mode::Static, Mode::Bounded, Mode::Shadow] {
        let exact = CacheControl { exact_only: true, ..Default::default() };
        assert_eq!(policy(mode, exact), Policy::Exact);
    }
    let bounded = |max_error_rate| {
        let asks = CacheControl { max_error_rate: Some(max_error_rate), ..Default::default() };
        let Policy::Bounded(bounds) = policy(Mode::Bounded, asks) else { panic!("another mode") };
        bounds.budget.max_error_rate
    };
    assert_eq!((bounded(0.5), bounded(0.001)), (0.01, 0.001));
}
