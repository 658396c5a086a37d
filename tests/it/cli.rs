//! Commands of the real binary.

use std::{fs, process::Output};

use promptkeep::grpc::proto::{
    CacheControl, CompleteRequest, InvalidateRequest, LookupRequest, Outcome, Prompt,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    process::{Process, promptkeep, run},
    raw,
    test_server::{Client, TestServer, complete, exact_config, look, prompt, until},
};

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn parse(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[tokio::test]
async fn check_config_reports_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("promptkeep.toml");
    let path = file.to_str().unwrap();
    fs::write(&file, "[cache]\nttl = \"1h\"\n").unwrap();
    let good = run(promptkeep(&["check-config", path])).await;
    assert!(good.status.success(), "{good:?}");
    fs::write(&file, "[cache]\nttl = \"soon\"\n[sever]\n").unwrap();
    let bad = run(promptkeep(&["check-config", path])).await;
    assert_eq!(bad.status.code(), Some(1));
    for expected in ["promptkeep.toml:2: cache.ttl", "promptkeep.toml:3: sever"] {
        assert!(stdout(&bad).contains(expected), "{bad:?}");
    }
    let bad = run(promptkeep(&["check-config", "--json", path])).await;
    assert_eq!((bad.status.code(), &parse(&bad)["ok"]), (Some(1), &json!(false)));
}

#[tokio::test]
async fn check_config_warns_of_models_without_a_price_of_cached_input() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("promptkeep.toml");
    let path = file.to_str().unwrap();
    let model = |id: &str, prices: &str| {
        format!(
            "{{ id = \"{id}\", provider = \"p\", tier = \"hot\", {prices}, output_usd_per_mtok = 1, context_window = 9 }},\n"
        )
    };
    let models = [
        model("silent", "input_usd_per_mtok = 1"),
        model("priced", "input_usd_per_mtok = 1, cached_input_usd_per_mtok = 0.5"),
        model("free", "input_usd_per_mtok = 0"),
    ];
    let providers = "providers = [{ name = \"p\", base_url = \"http://localhost:9/v1\" }]";
    fs::write(&file, format!("{providers}\nmodels = [\n{}]\n", models.concat())).unwrap();
    let checked = run(promptkeep(&["check-config", path])).await;
    assert!(checked.status.success(), "{checked:?}");
    let warnings: Vec<_> = stdout(&checked).lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 1, "{checked:?}");
    assert!(
        warnings[0].contains("promptkeep.toml:3: models[0].cached_input_usd_per_mtok: is missing"),
        "{warnings:?}"
    );
    let json = parse(&run(promptkeep(&["check-config", "--json", path])).await);
    assert_eq!((&json["ok"], &json["warnings"][0]["line"]), (&json!(true), &json!(3)));
}

#[tokio::test]
async fn a_wrong_command_line_is_a_usage_error() {
    for arguments in [&["sreve"][..], &["serve", "--prot", "1"], &[], &["check-config"]] {
        let output = run(promptkeep(arguments)).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("Usage"), "{output:?}");
    }
}

#[tokio::test]
async fn model_path_and_model_pull_print_the_configured_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for file in ["model.safetensors", "vocab.txt"] {
        fs::write(folder.path().join(file), b"here already").unwrap();
    }
    for command in ["path", "pull"] {
        let mut command = promptkeep(&["model", command]);
        command.env("PROMPTKEEP_EMBEDDING__MODEL_DIR", path);
        let output = run(command).await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(stdout(&output).trim_end(), path);
    }
    let mut command = promptkeep(&["model", "path"]);
    command.env("XDG_CACHE_HOME", path);
    let output = run(command).await;
    assert!(stdout(&output).starts_with(path), "{output:?}");
}

#[tokio::test]
async fn stats_prints_the_numbers_of_a_running_server() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = TestServer::with_client(exact_config(&[&upstream])).await;
    for _ in 0..3 {
        complete(&mut client, "A?").await;
    }
    let address = format!("http://{}", server.grpc);
    let output = run(promptkeep(&["stats", "--json", "--server", &address])).await;
    assert!(output.status.success(), "{output:?}");
    let stats = parse(&output);
    assert_eq!((&stats["requests"]["exact"], &stats["requests"]["upstream"]), (&json!(2), &json!(1)));
    assert_eq!((&stats["entries"], &stats["store_errors"]), (&json!(1), &json!(0)));
    assert!(stats["saved_usd"].as_f64().unwrap() > stats["cost_usd"].as_f64().unwrap());
    let (cold, latency) = (&stats["models"][0], &stats["latency"]["exact"]);
    assert_eq!((&cold["model"], &cold["calls"]), (&json!("model-cold"), &json!(1)));
    assert_eq!((&latency["count"], &stats["wait"]["count"]), (&json!(2), &json!(3)));
    assert_eq!((&stats["slo_p99_seconds"], &stats["late_answers"]), (&json!(2.0), &json!(0)));
    let output = run(promptkeep(&["stats", "--server", &address])).await;
    assert!(stdout(&output).contains("requests 3") && stdout(&output).contains("model-cold"), "{output:?}");
    let unreachable = run(promptkeep(&["stats", "--server", "127.0.0.1:1"])).await;
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(stderr(&unreachable).contains("no server answers at 127.0.0.1:1"), "{unreachable:?}");
    let wrong_port = run(promptkeep(&["stats", "--server", &server.http.to_string()])).await;
    assert!(stderr(&wrong_port).contains("is it the HTTP port?"), "{wrong_port:?}");
}

#[tokio::test]
async fn health_sets_the_exit_code() {
    let server = TestServer::start(exact_config(&[])).await;
    let output = run(promptkeep(&["health", "--server", &server.grpc.to_string()])).await;
    assert!(output.status.success() && stdout(&output) == "SERVING\n", "{output:?}");
    let unreachable = run(promptkeep(&["health", "--server", "http://127.0.0.1:1"])).await;
    assert_eq!(unreachable.status.code(), Some(1));
}

#[tokio::test]
async fn demo_replays_and_reports() {
    let output = run(promptkeep(&["demo", "--requests", "30", "--exit", "--json"])).await;
    assert!(output.status.success(), "{output:?}");
    let report = parse(&output);
    assert_eq!((&report["requests"], &report["failures"]), (&json!(30), &json!([])));
    let outcomes = report["outcomes"].as_array().unwrap();
    let counted: u64 = outcomes.iter().map(|line| line["requests"].as_u64().unwrap()).sum();
    assert_eq!(counted, 30);
    let verifier = &report["verifier"];
    assert_eq!(verifier["stated_errors"], json!({"false_yes": 0.02, "false_no": 0.05}), "{verifier}");
    let [verdicts, pairs] = [&verifier["verdicts"], &verifier["pairs"]];
    let calls = ["yes", "no"].map(|verdict| verdicts[verdict].as_u64().unwrap()).iter().sum::<u64>();
    let judged = ["different", "same"].map(|label| pairs[label].as_u64().unwrap()).iter().sum::<u64>();
    assert!(judged >= calls, "{verifier}");
    for verdict in ["nonsense", "unavailable", "timeout"] {
        assert_eq!(verdicts[verdict], 0, "{verifier}");
    }
    assert!(stderr(&output).is_empty(), "no progress bar without a terminal: {}", stderr(&output));
}

const TRAFFIC: &str = r#"{"prompt": "How do I reset my password?", "answer": "Open the settings.", "usage": {"prompt_tokens": 1000, "completion_tokens": 500}}
{"messages": [{"role": "user", "content": "How do I reset my password?"}], "at": "09:00", "answer": "Open the settings."}
{"prompt": "how do i reset my password", "namespace": "default", "answer": "Open the settings."}
{"prompt": "How do I reset my password?", "namespace": "shop", "model": "small", "answer": "Ask the shop."}

{"prompt": "How do I reset my password?", "n": 2}
"#;

const PRICES: &str = r#"
providers = [{ name = "p", base_url = "http://127.0.0.1:1/v1", api_key_env = "NEVER_SET" }]
models = [{ id = "small", provider = "p", tier = "cold", input_usd_per_mtok = 1.0, output_usd_per_mtok = 2.0, context_window = 8000 }]
"#;

#[tokio::test]
async fn replay_reports_what_recorded_traffic_would_have_cost() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (traffic, prices, rows) = (path("traffic.jsonl"), path("promptkeep.toml"), path("rows.jsonl"));
    fs::write(&traffic, TRAFFIC).unwrap();
    fs::write(&prices, PRICES).unwrap();
    let output = run(promptkeep(&["replay", &traffic, "--json", "--config", &prices, "--out", &rows])).await;
    assert!(output.status.success(), "{output:?}");
    let report = parse(&output);
    assert_eq!(
        report["outcomes"],
        json!({"upstream": 2, "exact": 1, "semantic": 1, "bypass": 1}),
        "{report}"
    );
    assert_eq!((&report["hit_ratio"], &report["without_answer"]), (&json!(0.4), &json!(0)));
    assert_eq!(report["namespaces"]["default"], json!({"requests": 4, "exact": 1, "semantic": 1}));
    let usd = |key: &str| report["money"][key].as_f64().unwrap();
    // A call of 1000 + 500 tokens costs 0.002; the shop's call is estimated from a few words.
    assert!(usd("without_cache_usd") > 0.006 && usd("without_cache_usd") < 0.0061, "{report}");
    // The semantic hit is the first one, so it is audited by a call.
    assert!((usd("saved_usd") - (usd("without_cache_usd") - usd("with_cache_usd"))).abs() < 1e-9);
    assert!(usd("saved_usd") > 0.001, "{report}");
    let rows = fs::read_to_string(&rows).unwrap();
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    let matches: Vec<_> = rows.iter().map(|row| (row["line"].as_u64().unwrap(), &row["match"])).collect();
    let first = json!(1);
    assert_eq!(matches[..3], [(1, &Value::Null), (2, &first), (3, &first)], "{rows:?}");
    assert_eq!(matches[4].0, 6, "a blank line is counted");
    // Without a catalog there are no prices, and every model name is accepted.
    let output = run(promptkeep(&["replay", &traffic])).await;
    assert!(output.status.success() && stdout(&output).contains("No prices"), "{output:?}");
    assert!(stderr(&output).is_empty(), "no progress bar without a terminal: {}", stderr(&output));
}

#[tokio::test]
async fn replay_names_the_line_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (traffic, prices) = (path("traffic.jsonl"), path("promptkeep.toml"));
    fs::write(&prices, PRICES).unwrap();
    for (lines, expected) in [
        ("{\"prompt\": \"A?\"}\n{\"prompt\": \n", "traffic.jsonl:2: "),
        ("{\"prompt\": \"A?\", \"model\": \"large\"}", "traffic.jsonl:1: model: large is no model"),
        ("{\"text\": \"A?\"}", "traffic.jsonl:1: needs a prompt"),
        ("\n", "traffic.jsonl: has no rows"),
    ] {
        fs::write(&traffic, lines).unwrap();
        let output = run(promptkeep(&["replay", &traffic, "--config", &prices])).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains(expected), "{output:?}");
    }
}

#[tokio::test]
async fn replay_of_prompts_alone_does_not_score_placeholder_answers() {
    let folder = tempfile::tempdir().unwrap();
    let traffic = folder.path().join("traffic.jsonl");
    let prompts: String =
        TRAFFIC.lines().take(3).map(|line| line.replace("\"answer\"", "\"said\"") + "\n").collect();
    fs::write(&traffic, prompts).unwrap();
    let output = run(promptkeep(&["replay", "--json", traffic.to_str().unwrap()])).await;
    let report = parse(&output);
    assert_eq!(report["outcomes"], json!({"upstream": 1, "exact": 1, "semantic": 1}), "{report}");
    // The semantic hit was audited, but the audit measures nothing.
    assert_eq!((&report["checks"], &report["wrong_hits"]), (&json!(1), &Value::Null), "{report}");
    assert_eq!((&report["without_answer"], &report["without_tokens"]), (&json!(3), &json!(2)));
}

fn pair(new_question: &str, same: bool) -> String {
    let pair = json!({
        "question": "How do I save?", "answer": "Press Save.", "new_question": new_question, "same": same,
    });
    format!("{pair}\n")
}

/// Pairs that ask the same, then pairs that differ, with a bad line between.
fn pairs() -> String {
    let same: String = (0..20).map(|n| pair(&format!("How can I save {n}?"), true)).collect();
    let different: String = (0..22).map(|n| pair(&format!("How do I print {n}?"), false)).collect();
    format!("{same}{{\"question\": \"How?\"}}\n{different}")
}

fn verifier_config(upstream: &FakeUpstream) -> String {
    let models = r#"[{ id = "small", provider = "p", tier = "economy", input_usd_per_mtok = 1.0,
        output_usd_per_mtok = 2.0, context_window = 8000 },
        { id = "large", provider = "unset", tier = "hot", input_usd_per_mtok = 1.0,
        output_usd_per_mtok = 2.0, context_window = 8000 }]"#
        .replace("\n        ", " ");
    let url = upstream.base_url();
    format!(
        "providers = [{{ name = \"p\", base_url = \"{url}\" }}, {{ name = \"unset\", base_url = \"{url}\", \
         api_key_env = \"NEVER_SET\" }}]\nmodels = {models}\n[cache.verify]\ntimeout = \"20s\"\n"
    )
}

/// A model that errs at known rates: 2 of 20 pairs that ask the same, 1 of 20 that differ; two more have no verdict.
#[tokio::test]
async fn tune_measures_how_often_the_verifier_errs() {
    let (upstream, folder) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (labelled, config, rows) = (path("pairs.jsonl"), path("promptkeep.toml"), path("rows.jsonl"));
    fs::write(&labelled, pairs()).unwrap();
    fs::write(&config, verifier_config(&upstream)).unwrap();
    let says = Reply::text;
    let mut replies = vec![says("1"); 20];
    replies[3] = says("0");
    replies[7] = says("0");
    replies.extend(vec![says("0"); 20]);
    replies[30] = says("1");
    replies.extend([says("Neither, I think."), Reply::status(503)]);
    upstream.script(replies);
    let arguments = ["tune", &labelled, "--verify", "--config", &config, "--concurrency", "1"];
    let output = run(promptkeep(&[&arguments[..], &["--json", "--out", &rows]].concat())).await;
    assert!(output.status.success(), "{output:?}");
    let report = parse(&output);
    assert_eq!((&report["model"], &report["provider"]), (&json!("small"), &json!("p")));
    assert_eq!(
        (&report["pairs"], &report["calls"], &report["verdicts"]),
        (&json!(42), &json!(42), &json!(40))
    );
    let rate = |key: &str| (report[key]["wrong"].as_u64().unwrap(), report[key]["of"].as_u64().unwrap());
    assert_eq!((rate("false_no"), rate("false_yes")), ((2, 20), (1, 20)), "{report}");
    let high = report["false_yes"]["high"].as_f64().unwrap();
    assert!((high - 0.236).abs() < 0.001, "{report}");
    assert_eq!((&report["nonsense"], &report["unavailable"]), (&json!(1), &json!(1)));
    assert_eq!(report["bad_lines"][0]["line"], 21);
    // Forty replies of 10 + 1 tokens and one of 10 + 3; the failed call costs nothing.
    let usd = report["cost_usd"].as_f64().unwrap();
    assert!((usd - (40.0 * 12e-6 + 16e-6)).abs() < 1e-9, "{usd}");
    let budgets = &report["budgets"];
    let needed = |key: &str| budgets[key].as_f64().unwrap();
    assert!(needed("probability_with_yes") < needed("probability_with_yes_cautious"), "{budgets}");
    assert!(needed("probability_with_yes_cautious") < needed("probability_unverified"), "{budgets}");
    let rows = fs::read_to_string(&rows).unwrap();
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!((&rows[3]["line"], &rows[3]["says"]), (&json!(4), &json!("no")));
    assert_eq!((&rows[41]["line"], &rows[41]["says"]), (&json!(43), &json!("unavailable")));
    assert!(stderr(&output).is_empty(), "no progress bar without a terminal: {}", stderr(&output));
    // The call is the server's: its instructions, and one JSON object.
    let request = &upstream.requests()[0].body;
    let [system, user] = ["0", "1"].map(|n| request["messages"][n.parse::<usize>().unwrap()].clone());
    assert!(system["content"].as_str().unwrap().starts_with("You check a cache"), "{request}");
    let asked: Value = serde_json::from_str(user["content"].as_str().unwrap()).unwrap();
    let kept = json!([{"question": "How do I save?", "answer": "Press Save."}]);
    assert_eq!(asked, json!({"new_question": "How can I save 0?", "kept": kept}));

    upstream.always(says("1"));
    let output = run(promptkeep(&arguments)).await;
    let text = stdout(&output);
    for expected in
        ["false yes  100.0 %", "22 of 22 pairs that differ", "1 bad lines", "line 21: ", "max_wrong_hits"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
}

#[tokio::test]
async fn tune_asks_about_several_kept_answers_at_once() {
    let (upstream, folder) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (labelled, config) = (path("pairs.jsonl"), path("promptkeep.toml"));
    let one = [true, false, true, false, true].map(|same| pair("How can I save?", same)).concat();
    fs::write(&labelled, one + &pair("Saving?", true)).unwrap();
    fs::write(&config, verifier_config(&upstream)).unwrap();
    upstream.script([Reply::text("1,3,4"), Reply::text("1"), Reply::text("0")]);
    let arguments = ["tune", &labelled, "--verify", "--config", &config, "--json"];
    let output = run(promptkeep(&[&arguments[..], &["--concurrency", "1", "--batch", "4"]].concat())).await;
    let report = parse(&output);
    let rate = |key: &str| (report[key]["wrong"].as_u64().unwrap(), report[key]["of"].as_u64().unwrap());
    assert_eq!(
        (&report["calls"], rate("false_yes"), rate("false_no")),
        (&json!(3), (1, 2), (1, 4)),
        "{report}"
    );
}

#[tokio::test]
async fn tune_exits_with_1_without_a_verdict() {
    let (upstream, folder) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (labelled, config) = (path("pairs.jsonl"), path("promptkeep.toml"));
    fs::write(&labelled, pair("How can I save?", true)).unwrap();
    fs::write(&config, verifier_config(&upstream)).unwrap();
    upstream.always(Reply::status(401));
    let output = run(promptkeep(&["tune", &labelled, "--verify", "--config", &config])).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stdout(&output).contains("without a verdict: unavailable 1"), "{output:?}");
    for (text, arguments, code, expected) in [
        (pair("A?", true), &["--config", "none.toml"][..], 1, "none.toml: cannot be read"),
        (pair("A?", true), &[], 1, "the catalog has no `economy`"),
        ("{}\n".to_owned(), &["--config", &config], 1, "has no pairs; line 1: missing field"),
        (pair("A?", true), &["--config", &config, "--batch", "5"], 2, "5 is not in 1..=4"),
        (pair("A?", true), &["--verifier", "0.1,0.1"], 2, "cannot be used with"),
    ] {
        fs::write(&labelled, text).unwrap();
        let output = run(promptkeep(&[&["tune", &labelled, "--verify"], arguments].concat())).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(stderr(&output).contains(expected), "{output:?}");
    }
}

fn with_models(upstream: &FakeUpstream, models: &[&str]) -> String {
    let line = |id: &&str| {
        format!(
            "{{ id = \"{id}\", provider = \"p\", tier = \"cold\", input_usd_per_mtok = 1.0, \
             output_usd_per_mtok = 1.0, context_window = 8000 }},\n"
        )
    };
    let models: String = models.iter().map(line).collect();
    let url = upstream.base_url();
    format!("providers = [{{ name = \"p\", base_url = \"{url}\" }}]\nmodels = [\n{models}]\n")
}

fn ask_model(model: &str, text: &str) -> CompleteRequest {
    CompleteRequest { prompt: Some(Prompt { model: model.to_owned(), ..prompt(text) }), cache: None }
}

#[tokio::test]
async fn sighup_reloads_the_catalog_and_a_bad_file_keeps_the_old_one() {
    let (upstream, folder) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("promptkeep.toml");
    let exact = "[cache]\nmode = \"exact\"\n[store]\nkind = \"memory\"\n";
    fs::write(&file, with_models(&upstream, &["one"]) + exact).unwrap();
    let server = Process::serve(promptkeep(&["serve", "--config", file.to_str().unwrap()])).await;
    let mut client = server.client().await;
    client.complete(ask_model("one", "A?")).await.unwrap();
    let unknown = client.complete(ask_model("two", "A?")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);

    fs::write(&file, with_models(&upstream, &["one", "two"]) + exact).unwrap();
    server.signal("HUP");
    let (server, _) = server.wait_for_log("configuration reloaded").await;
    client.complete(ask_model("two", "A?")).await.expect("the new model is in the catalog");
    let hit = client.complete(ask_model("one", "A?")).await.unwrap().into_inner();
    assert_eq!(hit.outcome(), Outcome::Exact, "the cache is unchanged");

    fs::write(&file, "models = [ nonsense\n").unwrap();
    server.signal("HUP");
    let (server, line) = server.wait_for_log("configuration not reloaded").await;
    assert!(line.contains("promptkeep.toml:1"), "{line}");
    client.complete(ask_model("two", "B?")).await.expect("the old configuration stays in force");

    // Settings that need a restart are named at every reload and stay unchanged.
    let other = "[cache]\nmode = \"static\"\nmax_entries = 7\n[store]\nkind = \"embedded\"\n";
    fs::write(&file, with_models(&upstream, &["one"]) + other).unwrap();
    let mut server = server;
    for _ in 0..2 {
        server.signal("HUP");
        let (again, line) = server.wait_for_log("need a restart").await;
        server = again;
        for key in ["store", "cache.mode", "cache.max_entries"] {
            assert!(line.contains(&format!("\"{key}\"")), "{line}");
        }
    }
    let (succeeded, log) = server.stop().await;
    assert!(succeeded, "{log}");
}

#[tokio::test]
async fn sigterm_stops_the_server_cleanly_and_keeps_its_answers() {
    let (upstream, folder) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("promptkeep.toml");
    fs::write(&file, with_models(&upstream, &["one"]) + "[cache]\nmode = \"exact\"\n").unwrap();
    let serve = || {
        let mut command = promptkeep(&["serve", "--config", file.to_str().unwrap()]);
        command.env("PROMPTKEEP_STORE__PATH", folder.path().join("data"));
        Process::serve(command)
    };
    let server = serve().await;
    complete(&mut server.client().await, "A?").await;
    let (succeeded, log) = server.stop().await;
    assert!(succeeded, "{log}");
    assert!(!log.contains('\u{1b}'), "no colours without a terminal: {log:?}");
    let server = serve().await;
    let mut client = server.client().await;
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Exact);
}

/// Prompts, answers and other text of callers must reach neither the log, at any level, nor metric labels.
#[tokio::test]
async fn text_of_callers_is_never_logged() {
    const MARKER: &str = "xyzzyplugh";
    let (upstream, folder) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("promptkeep.toml");
    fs::write(&file, with_models(&upstream, &["one"])).unwrap();
    let mut command = promptkeep(&["serve", "--config", file.to_str().unwrap()]);
    command.env("PROMPTKEEP_STORE__PATH", folder.path().join("data")).env("RUST_LOG", "promptkeep=trace");
    let server = Process::serve(command).await;
    let mut client = server.client().await;
    let marked = |n: &str| {
        let mut prompt = prompt(&format!("{n}: what does {MARKER} mean?"));
        prompt.namespace = format!("space-{MARKER}");
        prompt.vary.insert("who".to_owned(), MARKER.to_owned());
        CompleteRequest {
            prompt: Some(prompt),
            cache: Some(CacheControl { tags: vec![MARKER.to_owned()], ..CacheControl::default() }),
        }
    };
    let chat = |stream: bool| {
        json!({ "model": "auto", "user": MARKER, "stream": stream,
            "messages": [{ "role": "user", "content": format!("Again, what is {MARKER}?") }] })
    };
    for stream in [false, true] {
        assert_eq!(raw::post(server.http, "/v1/chat/completions", &chat(stream)).await, 200);
    }
    let wrong = json!({ "model": "auto", "messages": MARKER });
    assert_eq!(raw::post(server.http, "/v1/chat/completions", &wrong).await, 400);
    let set = json!({ "prompt": MARKER, "response": MARKER });
    assert_eq!(raw::post(server.http, &format!("/v1/caches/{MARKER}/entries"), &set).await, 201);
    let echo = json!({ "error": { "message": format!("I do not like {MARKER}") } });
    upstream.script([
        Reply::text(&format!("It means {MARKER}.")),
        Reply::status(500),
        Reply::status(500),
        Reply::status(500),
        Reply::text(&format!("{MARKER} is {MARKER}")).close_after(3),
        Reply::json(&echo),
        Reply::raw("text/event-stream", format!("data: {{\"{MARKER}\n\n")),
    ]);
    client.complete(marked("one")).await.unwrap();
    client.complete(marked("one")).await.unwrap();
    for n in ["two", "three", "four", "five", "six"] {
        let _ = client.complete(marked(n)).await;
        if let Ok(stream) = client.complete_stream(marked(n)).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(_)) = stream.message().await {}
        }
    }
    let bad = Prompt { tools_json: MARKER.to_owned(), ..prompt(MARKER) };
    let refused = client.complete(CompleteRequest { prompt: Some(bad), cache: None }).await.unwrap_err();
    assert!(!format!("{refused:?}").contains(MARKER));
    client.complete(ask_model(MARKER, MARKER)).await.unwrap_err();
    let lookup = LookupRequest { prompt: marked("one").prompt, cache: None };
    client.explain(lookup).await.unwrap();
    let removal = InvalidateRequest { tag: MARKER.to_owned(), ..InvalidateRequest::default() };
    client.invalidate(removal).await.unwrap();
    let (_, page) = raw::page(server.http, "/metrics").await;
    assert!(page.contains("promptkeep_requests_total") && !page.contains(MARKER), "{page}");
    let (succeeded, log) = server.stop().await;
    assert!(succeeded);
    assert!(log.contains("inference_ok") && log.contains("DEBUG"), "the log has every level: {log}");
    for line in log.lines() {
        assert!(!line.contains(MARKER), "{line}");
    }
}

#[tokio::test]
async fn a_server_out_of_file_descriptors_logs_it_and_recovers() {
    let mut shell = std::process::Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_promptkeep");
    shell.args(["-c", &format!("ulimit -n 40; exec {binary} serve")]);
    for (name, value) in promptkeep(&[]).get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.env("PROMPTKEEP_CACHE__MODE", "exact").env("PROMPTKEEP_STORE__KIND", "memory");
    let server = Process::serve(shell).await;
    let mut connections = Vec::new();
    for _ in 0..80 {
        connections.extend(tokio::net::TcpStream::connect(server.grpc).await);
    }
    let (server, _) = server.wait_for_log("accept failed").await;
    drop(connections);
    let address = server.grpc;
    until(async || match Client::connect(format!("http://{address}")).await {
        Ok(mut client) => client.lookup(look("A?")).await.is_ok(),
        Err(_) => false,
    })
    .await;
    let (_, log) = server.stop().await;
    let complaints = log.lines().filter(|line| line.contains("accept failed")).count();
    assert!(complaints < 1000, "the accept loop spins: {complaints} complaints");
}
