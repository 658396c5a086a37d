//! The message for each mistake.

use super::*;

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = r#"
[serverr]
grpc_listen = "127.0.0.1:1"

[server]
grpc_listne = "127.0.0.1:1"
http_listen = "localhost"
max_in_flight = 0
max_request = "4 megs"

[dashboard]
show_prompts = "yes"

[cache]
mode = "fuzzy"
ttl = "24"
min_similarity = 92
index = 3

[routing]
fallback = ["cold", "tepid"]
"#;
    assert_eq!(
        problems(text),
        [
            "c.toml:2: serverr: unknown key; did you mean `server`?",
            "c.toml:6: server.grpc_listne: unknown key; did you mean `grpc_listen`?",
            "c.toml:7: server.http_listen: `localhost` is not an address and port such as 127.0.0.1:50051 or [::1]:50051",
            "c.toml:8: server.max_in_flight: must be a whole number from 1 to 1000000000000",
            "c.toml:9: server.max_request: must be a size such as \"1GiB\", \"512MB\" or 4096 (bytes)",
            "c.toml:12: dashboard.show_prompts: must be true or false",
            "c.toml:15: cache.mode: `fuzzy` is not one of exact, static, bounded, shadow",
            "c.toml:16: cache.ttl: must be a duration with units, such as \"24h\", \"1m30s\" or \"500ms\"",
            "c.toml:17: cache.min_similarity: must be a number from 0 to 1",
            "c.toml:18: cache.index: must be a table",
            "c.toml:21: routing.fallback: `tepid` is not one of hot, warm, cold, economy",
        ]
    );
}

#[test]
fn fields_that_the_answer_depends_on_cannot_be_ignored() {
    assert_eq!(
        problems("[cache]\nignore_fields = [\"user\", \"temperature\"]"),
        ["c.toml:2: cache.ignore_fields: the answer depends on `temperature`"]
    );
    assert_eq!(
        problems("[cache]\nignore_fields = [\"user\", \"user\"]"),
        ["c.toml:2: cache.ignore_fields: `user` is listed twice"]
    );
}

#[test]
fn a_providers_key_and_headers_are_checked() {
    let provider = |fields: &str| {
        problems(&format!("providers = [{{ name = \"p\", base_url = \"http://p/v1\", {fields} }}]"))
    };
    for (fields, expected) in [
        ("kind = \"bedrock\"", "providers[0].kind: `bedrock` is not one of openai, azure"),
        ("api_key_env = \"A\", api_key_file = \"b\"", "providers[0].api_key_file: must not be set together"),
        ("headers = { \"x y\" = \"secret\" }", "providers[0].headers: `x y` is not a header"),
        ("headers = { Host = \"secret\" }", "providers[0].headers: `Host` is set by the server"),
        ("headers = [\"secret\"]", "providers[0].headers: must be a table of strings"),
        ("query = { v = 1 }", "providers[0].query: must be a table of strings"),
    ] {
        let problems = provider(fields);
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected} not in {problems:?}");
        assert!(!problems.concat().contains("secret"), "{problems:?}");
    }
}

#[test]
fn syntax_errors_do_not_hide_the_rest() {
    let problems =
        problems("[cache]\nttl = = \"1h\"\nmode = \"static\"\nmode = \"exact\"\n[server]\nregoin = \"x\"");
    let starts = [
        "c.toml:2: ",
        "c.toml:4: duplicate key",
        "c.toml:6: server.regoin: unknown key; did you mean `region`?",
    ];
    for start in starts {
        assert!(problems.iter().any(|line| line.starts_with(start)), "{start} not in {problems:#?}");
    }
}

#[test]
fn names_in_the_catalog_must_exist_and_be_unique() {
    let text = r#"
routing.default = "gpt-5"
routing.fallback = ["cold", "cold"]
providers = [
  { name = "p", base_url = "http://p/v1" },
  { name = "p", base_url = "http://p/v1" },
  { name = "r" },
]
models = [
  { id = "m", provider = "p", tier = "hot", input_usd_per_mtok = 1, output_usd_per_mtok = 1, context_window = 1 },
  { id = "m", provider = "p", tier = "hot", input_usd_per_mtok = 1, output_usd_per_mtok = 1, context_window = 1 },
  { id = "m", provider = "r", tier = "cold", input_usd_per_mtok = 1, output_usd_per_mtok = 1, context_window = 1 },
  { id = "n", provider = "q", tier = "hot", input_usd_per_mtok = 1, output_usd_per_mtok = 1, context_window = 1 },
  { id = "warm", provider = "p", tier = "hot", input_usd_per_mtok = -1, output_usd_per_mtok = 1 },
]
"#;
    assert_eq!(
        problems(text),
        [
            "c.toml:2: routing.default: `gpt-5` is not a model id, a tier or auto",
            "c.toml:3: routing.fallback: lists a tier twice",
            "c.toml:6: providers[1].name: `p` is listed twice",
            "c.toml:7: providers[2].base_url: is missing",
            "c.toml:11: models[1].id: `m` of provider `p` is listed twice",
            "c.toml:12: models[2].tier: `m` has another tier at another provider",
            "c.toml:13: models[3].provider: there is no provider `q`",
            "c.toml:14: models[4].context_window: is missing",
            "c.toml:14: models[4].id: `warm` is reserved for a choice of the router",
            "c.toml:14: models[4].input_usd_per_mtok: must be a non-negative number of US dollars",
        ]
    );
}

#[test]
fn routing_must_name_models_and_tiers_that_exist() {
    let text = r#"
[routing]
classifier = "gpt-5"
hard = "extreme"
[[routing.namespaces]]
namespace = "a"
auto = "gpt-5"
fallback = ["hot", "hot"]
[[routing.namespaces]]
namespace = "a"
auto = "hot"
fallback = []
[[routing.namespaces]]
auto = "hot"
[[cache.namespaces]]
namespace = "a"
stale_while_revalidate = "10"
[[cache.namespaces]]
namespace = "a"
[upstream]
breaker_failures = 11
hedge_after = "soon"
retry_budget = 1.5
[cache.verify]
mode = "before"
model = "gpt-5"
"#;
    assert_eq!(
        problems(text),
        [
            "c.toml:3: routing.classifier: `gpt-5` is neither a model id nor local",
            "c.toml:4: routing.hard: `extreme` is not one of hot, warm, cold, economy",
            "c.toml:7: routing.namespaces[0].auto: `gpt-5` is not a model id, a tier or auto",
            "c.toml:8: routing.namespaces[0].fallback: lists a tier twice",
            "c.toml:10: routing.namespaces[1].namespace: `a` is listed twice",
            "c.toml:12: routing.namespaces[1].fallback: must name at least one tier",
            "c.toml:13: routing.namespaces[2].namespace: is missing",
            "c.toml:17: cache.namespaces[0].stale_while_revalidate: must be a duration with units, such as \"24h\", \"1m30s\" or \"500ms\"",
            "c.toml:19: cache.namespaces[1].namespace: `a` is listed twice",
            "c.toml:21: upstream.breaker_failures: must be a whole number from 1 to 10",
            "c.toml:22: upstream.hedge_after: must be a duration with units, such as \"24h\", \"1m30s\" or \"500ms\", or p95 or off",
            "c.toml:23: upstream.retry_budget: must be a number from 0 to 1",
            "c.toml:26: cache.verify.model: `gpt-5` is neither a model id nor a tier that has a model",
        ]
    );
}

#[test]
fn keys_that_were_replaced_name_the_new_key() {
    let text = r#"
[cache.learning]
judge_rate = 0.1
judge = "economy"
judge_timeout = "1s"
max_judgements = 3
"#;
    let env = [("PROMPTKEEP_CACHE__LEARNING__JUDGE_RATE", "0.1")];
    assert_eq!(
        problems(text),
        [
            "c.toml:3: cache.learning.judge_rate: was replaced by cache.verify.mode",
            "c.toml:4: cache.learning.judge: was replaced by cache.verify.model",
            "c.toml:5: cache.learning.judge_timeout: was replaced by cache.verify.timeout",
            "c.toml:6: cache.learning.max_judgements: was replaced by cache.verify.max_in_flight",
        ]
    );
    assert_eq!(
        read_with("", &env, RequiredSecrets::All).1,
        [
            "PROMPTKEEP_CACHE__LEARNING__JUDGE_RATE: cache.learning.judge_rate: was replaced by cache.verify.mode"
        ]
    );
}

#[test]
fn a_verifier_that_must_be_asked_has_to_exist() {
    let missing = |line: usize| {
        [format!(
            "c.toml:{line}: cache.verify.model: `economy` is neither a model id nor a tier that has a model"
        )]
    };
    for mode in ["before", "background"] {
        assert_eq!(problems(&format!("[cache.verify]\nmode = \"{mode}\"")), missing(1));
        let own = format!("[[cache.namespaces]]\nnamespace = \"a\"\nverify = \"{mode}\"");
        assert_eq!(problems(&own), missing(1));
    }
    for mode in ["auto", "off"] {
        assert_eq!(problems(&format!("[cache.verify]\nmode = \"{mode}\"\nmodel = \"gpt-5\"")), [""; 0]);
    }
}

#[test]
fn limits_of_verification_are_finite_and_not_negative() {
    let text = r#"
[cache.verify]
mode = "always"
timeout = "0s"
race = 1
max_share_of_spend = 1.5
start_usd = -0.01
max_per_minute = 0
max_in_flight = 0
usd_per_second = inf
max_answer_bytes = 0
audit_rate = nan
"#;
    assert_eq!(
        problems(text),
        [
            "c.toml:3: cache.verify.mode: `always` is not one of auto, before, background, off",
            "c.toml:4: cache.verify.timeout: must be greater than zero",
            "c.toml:5: cache.verify.race: must be true or false",
            "c.toml:6: cache.verify.max_share_of_spend: must be a number from 0 to 1",
            "c.toml:7: cache.verify.start_usd: must be a non-negative number of US dollars",
            "c.toml:8: cache.verify.max_per_minute: must be a whole number from 1 to 1000000000000",
            "c.toml:9: cache.verify.max_in_flight: must be a whole number from 1 to 1000000000000",
            "c.toml:10: cache.verify.usd_per_second: must be a non-negative number of US dollars",
            "c.toml:11: cache.verify.max_answer_bytes: must be a size such as \"1GiB\", \"512MB\" or 4096 (bytes)",
            "c.toml:12: cache.verify.audit_rate: must be a number from 0 to 1",
        ]
    );
}

#[test]
fn a_prompt_file_must_hold_instructions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("verify.md");
    let text = format!("[cache.verify]\nprompt_file = \"{}\"", path.display());
    let message = || problems(&text).concat();
    let start = format!("c.toml:2: cache.verify.prompt_file: {}", path.display());
    assert!(message().starts_with(&format!("{start} cannot be read: ")), "{}", message());
    assert_eq!(read_with(&text, &[], RequiredSecrets::None).1, [""; 0], "it may be on another machine");
    for (bytes, expected) in [
        (b" \n".to_vec(), "is empty"),
        (b"<!-- version 2 -->\n".to_vec(), "is empty"),
        (b"\xff\xfe".to_vec(), "is not UTF-8"),
        (vec![b'x'; 16 * 1024 + 1], "is larger than 16384 bytes"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(message(), format!("{start} {expected}"));
        assert_eq!(read_with(&text, &[], RequiredSecrets::None).1.len(), 1, "it is checked where it exists");
    }
}

#[test]
fn tenants_must_have_unique_names_and_keys() {
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let text = format!(
        r#"
tenants = [
  {{ name = "a", api_key_sha256 = "{hash}" }},
  {{ name = "a", api_key_sha256 = "sk-secret" }},
  {{ name = "b" }},
  {{ name = "c", api_key_sha256 = "{hash}", rate_limit = 0 }},
  {{ name = "d", api_key_sha256 = "{hash}", api_key_env = "D" }},
  {{ name = "e", api_key_env = "sk-secret", shared_namespaces = [""] }},
  {{ name = " ", api_key_env = "F" }},
]
"#
    );
    assert_eq!(
        problems(&text),
        [
            "c.toml:4: tenants[1].api_key_sha256: must be the SHA-256 of the API key, 64 hex digits",
            "c.toml:4: tenants[1].name: `a` is listed twice",
            "c.toml:5: tenants[2].api_key_sha256: is missing; set it or api_key_env",
            "c.toml:6: tenants[3].api_key_sha256: is also the API key of another tenant",
            "c.toml:6: tenants[3].rate_limit: must be a number of requests per second from 0.000001 to 1000000",
            "c.toml:7: tenants[4].api_key_env: must not be set together with api_key_sha256",
            "c.toml:7: tenants[4].api_key_sha256: is also the API key of another tenant",
            "c.toml:8: tenants[5].api_key_env: must name an environment variable that holds the API key",
            "c.toml:8: tenants[5].shared_namespaces: must not be empty",
            "c.toml:9: tenants[6].api_key_env: the environment variable F is not set",
            "c.toml:9: tenants[6].name: must not be empty",
        ]
    );
}

#[test]
fn problems_name_the_variable() {
    let env = [
        ("PROMPTKEEP_CACHE__TTL", "soon"),
        ("PROMPTKEEP_CACHE__INDEX__KNID", "scan"),
        ("PROMPTKEEP_SERVERR__PORT", "1"),
        ("PROMPTKEEP_SERVERR__REGION", "eu"),
        ("PROMPTKEEP_SERVER_REGION", "eu"),
        ("PROMPTKEEP_MODELS", "gpt-4o"),
    ];
    assert_eq!(
        read_with("cache.ttl = \"1h\"", &env, RequiredSecrets::All).1,
        [
            "PROMPTKEEP_CACHE__INDEX__KNID: cache.index.knid: unknown key; did you mean `kind`?",
            "PROMPTKEEP_CACHE__TTL: cache.ttl: must be a duration with units, such as \"24h\", \"1m30s\" or \"500ms\"",
            "PROMPTKEEP_MODELS: models: must be a list of tables",
            "PROMPTKEEP_SERVERR__PORT: serverr.port: unknown key; did you mean `server`?",
            "PROMPTKEEP_SERVERR__REGION: serverr.region: unknown key; did you mean `server`?",
            "PROMPTKEEP_SERVER_REGION: server.region: ignored; did you mean PROMPTKEEP_SERVER__REGION?",
        ]
    );
}

/// In TOML everything after a header belongs to it, which surprises people who write their catalog last.
#[test]
fn a_catalog_below_a_section_is_explained() {
    assert_eq!(
        problems(
            "[upstream]\ntimeout = \"9s\"\nmodels = []\n[[tenants]]\nname = \"a\"\napi_key = \"sk-secret\""
        ),
        [
            "c.toml:3: upstream.models: unknown key; `models` belongs at the top of the file, before the first [section]",
            "c.toml:4: tenants[0].api_key_sha256: is missing; set it or api_key_env",
            "c.toml:6: tenants[0].api_key: unknown key; secrets come from the environment: name a variable in api_key_env",
        ]
    );
}

#[test]
fn an_embedder_over_http_needs_its_url_and_dimensions() {
    assert_eq!(
        problems("[embedding]\nkind = \"openai\"\nmodel = \"e\"\nbase_url = \"ftp://user:sk-secret@host\""),
        [
            "c.toml:1: embedding.dimensions: is required when embedding.kind is openai",
            "c.toml:4: embedding.base_url: must begin with http:// or https://",
        ]
    );
}

#[test]
fn urls_hold_no_credentials() {
    let message = |url: &str| {
        let text = format!("providers = [{{ name = \"p\", base_url = \"{url}\" }}]");
        problems(&text).pop().unwrap_or_default()
    };
    assert_eq!(message("https://host:1/v1"), "");
    for bad in ["https://sk-secret@host/v1", "https://host/v1?key=sk-secret", "sk-secret", "https://"] {
        let message = message(bad);
        assert!(message.starts_with("c.toml:1: providers[0].base_url: "), "{bad}: {message}");
        assert!(!message.contains("sk-secret"), "{message}");
    }
}

#[test]
fn malformed_durations_are_refused() {
    let bad =
        ["", "0s", "5", "s", "1s1s", "1s1m", "1.5h", "-1s", "99999999999999999999s", "3651d", "1 h", "1y"];
    for text in bad {
        assert_eq!(problems(&format!("upstream.timeout = \"{text}\"")).len(), 1, "{text}");
    }
}

#[test]
fn malformed_sizes_are_refused() {
    for text in
        ["\"\"", "\"GiB\"", "\"1 GiB of it\"", "\"1.5GiB\"", "\"99999999999TiB\"", "-1", "0", "1.0", "true"]
    {
        assert_eq!(problems(&format!("cache.max_memory = {text}")).len(), 1, "{text}");
    }
}

#[test]
fn grpc_and_http_need_different_ports() {
    assert_eq!(
        problems("[server]\nhttp_listen = \"127.0.0.1:50051\""),
        ["c.toml:2: server.http_listen: must differ from server.grpc_listen"]
    );
    assert_eq!(problems("[server]\nhttp_listen = \"127.0.0.1:0\"\ngrpc_listen = \"127.0.0.1:0\""), [""; 0]);
}

#[test]
fn redis_urls_hold_no_passwords_and_regions_are_unique() {
    let text = r#"
[store]
kind = "redis"
url = ["redis://:hunter2@a:6379", "http://b", "c"]
key_prefix = "{one}"

[[store.peers]]
region = "local"
url = "redis://d,redis://e"

[[store.peers]]
region = "eu"
"#;
    let problems = problems(text);
    assert_eq!(
        problems,
        [
            "c.toml:4: store.url: must not hold a password; name a variable in password_env; must begin with redis://, rediss:// or redis+unix://; is not a URL: relative URL without a base",
            "c.toml:5: store.key_prefix: must not contain { or }",
            "c.toml:8: store.peers[0].region: `local` is this region, or is listed twice",
            "c.toml:11: store.peers[1].url: is missing",
        ]
    );
    assert!(!problems.concat().contains("hunter2"));
}

/// A `ca_file` without TLS was once ignored without a word, so connections were in plain text.
#[test]
fn a_ca_file_needs_a_url_with_tls() {
    let store = |url: &str| format!("[store]\nkind = \"redis\"\nca_file = \"ca.pem\"\nurl = \"{url}\"\n");
    assert_eq!(
        problems(&store("redis://a")),
        ["c.toml:3: store.ca_file: has no effect: no url of the store or of a peer begins with rediss://"]
    );
    assert_eq!(problems(&store("rediss://a")), [""; 0]);
    let peer = "[[store.peers]]\nregion = \"eu\"\nurl = \"rediss://b\"\n";
    assert_eq!(problems(&(store("redis://a") + peer)), [""; 0]);
}

/// A server on a public address without tenants answered everyone who reached it, and paid for it; only a line in the
/// log said so.
#[test]
fn an_open_server_beyond_loopback_is_refused_unless_it_is_allowed() {
    let listen = "[server]\nhttp_listen = \"0.0.0.0:8080\"\ngrpc_listen = \"[::]:50051\"\n";
    let found = problems(listen);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("c.toml:2: server.http_listen: is beyond loopback"), "{found:?}");
    assert!(found[1].starts_with("c.toml:3: server.grpc_listen: is beyond loopback"), "{found:?}");
    assert!(found.iter().all(|problem| problem.ends_with("configure tenants, or set server.allow_open")));
    good(&format!("{listen}allow_open = true\n"));
    let tenant = format!("[[tenants]]\nname = \"a\"\napi_key_sha256 = \"{}\"\n", "0".repeat(64));
    good(&format!("{listen}{tenant}"));
    good("[server]\nhttp_listen = \"127.0.0.2:8080\"\ngrpc_listen = \"[::1]:50051\"\n");
}
