//! Bad requests and failed starts: the error names the field, key or path.

use std::{collections::HashMap, path::Path, process::Output};

use promptkeep::grpc::proto::{
    CacheControl, CompleteRequest, GetStatsRequest, LookupRequest, Message, Prompt,
};
use prost::Message as _;
use prost_types::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::common::{
    fake_upstream::FakeUpstream,
    process::{Process, promptkeep, run},
    raw,
    test_server::{Client, TestServer, ask, ask_with, exact_config, look, message, prompt},
};

async fn server() -> (FakeUpstream, TestServer, Client) {
    let upstream = FakeUpstream::start().await;
    let (server, client) = TestServer::with_client(exact_config(&[&upstream])).await;
    (upstream, server, client)
}

/// Returns the field that the details of an error name.
fn bad_field(refused: &Status) -> String {
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let details = refused.get_details_bad_request().expect("details");
    let violation = &details.field_violations[0];
    assert_eq!(refused.message(), format!("{}: {}", violation.field, violation.description));
    violation.field.clone()
}

fn turns(messages: &[(&str, &str)]) -> Prompt {
    Prompt {
        messages: messages.iter().map(|(role, content)| message(role, content)).collect(),
        ..Prompt::default()
    }
}

/// Invalid prompts, each with its invalid field.
fn bad_prompts() -> Vec<(Prompt, &'static str)> {
    let good = || prompt("A?");
    let with = |message: Message| Prompt { messages: vec![message], ..Prompt::default() };
    vec![
        (Prompt::default(), "prompt.messages"),
        (turns(&[("system", "Be brief."), ("assistant", "Yes.")]), "prompt.messages"),
        (turns(&[("user", "A?"), ("robot", "B")]), "prompt.messages[1].role"),
        (turns(&[("", "A?")]), "prompt.messages[0].role"),
        (turns(&[("User", "A?")]), "prompt.messages[0].role"),
        (
            with(Message { tool_calls_json: "{}".to_owned(), ..message("user", "A?") }),
            "prompt.messages[0].tool_calls_json",
        ),
        (Prompt { temperature: Some(-0.1), ..good() }, "prompt.temperature"),
        (Prompt { temperature: Some(2.1), ..good() }, "prompt.temperature"),
        (Prompt { temperature: Some(f32::NAN), ..good() }, "prompt.temperature"),
        (Prompt { temperature: Some(f32::INFINITY), ..good() }, "prompt.temperature"),
        (Prompt { top_p: Some(0.0), ..good() }, "prompt.top_p"),
        (Prompt { top_p: Some(1.5), ..good() }, "prompt.top_p"),
        (Prompt { top_p: Some(f32::NAN), ..good() }, "prompt.top_p"),
        (Prompt { max_tokens: Some(0), ..good() }, "prompt.max_tokens"),
        (Prompt { tools_json: "[{".to_owned(), ..good() }, "prompt.tools_json"),
        (Prompt { tools_json: "{}".to_owned(), ..good() }, "prompt.tools_json"),
        (Prompt { tools_json: "[".repeat(10_000), ..good() }, "prompt.tools_json"),
        (Prompt { tool_choice_json: "7".to_owned(), ..good() }, "prompt.tool_choice_json"),
        (Prompt { response_format_json: "\"json\"".to_owned(), ..good() }, "prompt.response_format_json"),
        (Prompt { namespace: "n".repeat(257), ..good() }, "prompt.namespace"),
        (prompt(&"x".repeat(5 << 20)), "prompt"),
    ]
}

#[tokio::test]
async fn every_call_names_the_field_of_a_bad_prompt() {
    let (upstream, _server, mut client) = server().await;
    for (prompt, expected) in bad_prompts() {
        let request = CompleteRequest { prompt: Some(prompt.clone()), cache: None };
        assert_eq!(bad_field(&client.complete(request.clone()).await.unwrap_err()), expected);
        assert_eq!(bad_field(&client.complete_stream(request).await.unwrap_err()), expected);
        let lookup = LookupRequest { prompt: Some(prompt), cache: None };
        assert_eq!(bad_field(&client.lookup(lookup.clone()).await.unwrap_err()), expected);
        assert_eq!(bad_field(&client.explain(lookup).await.unwrap_err()), expected);
    }
    let none = CompleteRequest { prompt: None, cache: None };
    assert_eq!(bad_field(&client.complete(none).await.unwrap_err()), "prompt");
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn a_bad_directive_is_named() {
    let (_upstream, _server, mut client) = server().await;
    let good = CacheControl::default;
    let negative = Some(Duration { seconds: -1, nanos: 0 });
    for (cache, expected) in [
        (CacheControl { min_similarity: Some(1.1), ..good() }, "cache.min_similarity"),
        (CacheControl { min_similarity: Some(f32::NAN), ..good() }, "cache.min_similarity"),
        (CacheControl { max_error_rate: Some(-0.1), ..good() }, "cache.max_error_rate"),
        (CacheControl { ttl: Some(Duration::default()), ..good() }, "cache.ttl"),
        (CacheControl { ttl: negative, ..good() }, "cache.ttl"),
        (CacheControl { max_age: negative, ..good() }, "cache.max_age"),
        (CacheControl { tags: vec![String::new()], ..good() }, "cache.tags"),
        (CacheControl { tags: vec!["t".repeat(1025)], ..good() }, "cache.tags"),
        (CacheControl { tags: vec!["t".to_owned(); 65], ..good() }, "cache.tags"),
    ] {
        assert_eq!(bad_field(&client.complete(ask_with("A?", cache)).await.unwrap_err()), expected);
    }
    let too_long =
        GetStatsRequest { window: Some(Duration { seconds: 90_000, nanos: 0 }), ..Default::default() };
    assert_eq!(bad_field(&client.get_stats(too_long).await.unwrap_err()), "window");
}

#[tokio::test]
async fn an_unknown_model_is_named_when_it_would_be_called() {
    let (upstream, _server, mut client) = server().await;
    let unknown = Prompt { model: "gpt-99".to_owned(), ..prompt("A?") };
    let request = CompleteRequest { prompt: Some(unknown), cache: None };
    assert_eq!(bad_field(&client.complete(request.clone()).await.unwrap_err()), "prompt.model");
    let mut events = client.complete_stream(request).await.unwrap().into_inner();
    assert_eq!(bad_field(&events.message().await.unwrap_err()), "prompt.model");
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn an_oversized_message_is_rejected_unread() {
    let (_upstream, _server, mut client) = server().await;
    let refused = client.complete(ask(&"x".repeat(20 << 20))).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    client.complete(ask("A?")).await.expect("the connection still works");
}

/// tonic's own codec answered `INTERNAL`, as if the server were at fault.
#[tokio::test]
async fn invalid_utf8_is_the_callers_fault_and_named() {
    let (_upstream, server, _client) = server().await;
    let vary = HashMap::from([("locale".to_owned(), "XX".to_owned())]);
    let request = CompleteRequest { prompt: Some(Prompt { vary, ..prompt("A?") }), cache: None };
    let mut bytes = request.encode_to_vec();
    let at = bytes.windows(2).position(|pair| pair == b"XX").unwrap();
    bytes[at] = 0xff;
    for rpc in ["Complete", "CompleteStream", "Lookup", "Explain", "Store"] {
        let refused = raw::call(server.grpc, rpc, &bytes, None).await;
        assert_eq!(refused.code, Code::InvalidArgument, "{rpc}: {}", refused.message);
        assert!(refused.message.starts_with("prompt.vary:"), "{rpc}: {}", refused.message);
    }
}

#[tokio::test]
async fn bytes_that_do_not_decode_are_the_callers_fault() {
    let (_upstream, server, _client) = server().await;
    for junk in [&b"\x0a\xff"[..], b"hello", &[0x0a; 7]] {
        let refused = raw::call(server.grpc, "Complete", junk, None).await;
        assert_eq!(refused.code, Code::InvalidArgument, "{}", refused.message);
    }
}

// === Failed starts ===

/// Runs a command that must fail, and returns its standard error.
async fn failure(command: std::process::Command) -> String {
    let Output { status, stdout, stderr } = run(command).await;
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout.len()), (Some(1), 0), "{stderr}");
    assert!(stderr.contains("promptkeep: "), "{stderr}");
    stderr
}

/// Builds a `serve` command with this configuration and a data folder of its own.
fn serve(folder: &Path, toml: &str) -> std::process::Command {
    let file = folder.join("promptkeep.toml");
    std::fs::write(&file, toml).unwrap();
    let mut command = promptkeep(&["serve", "--config", file.to_str().unwrap()]);
    command.env("PROMPTKEEP_STORE__PATH", folder.join("data"));
    command
}

const EXACT: &str = "[cache]\nmode = \"exact\"\n";

#[tokio::test]
async fn every_configuration_error_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let stderr = failure(serve(folder.path(), "[cache]\nmode = \"exakt\"\nttll = \"1h\"\n[stroe]\n")).await;
    for expected in
        ["promptkeep.toml:2: cache.mode", "promptkeep.toml:3: cache.ttll", "promptkeep.toml:4: stroe"]
    {
        assert!(stderr.contains(expected), "{stderr}");
    }
    let mut missing = promptkeep(&["serve", "--config", "/no/such/file.toml"]);
    missing.env("PROMPTKEEP_STORE__PATH", folder.path());
    assert!(failure(missing).await.contains("/no/such/file.toml: cannot be read"));
}

#[tokio::test]
async fn a_missing_or_damaged_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("model");
    let config = format!("[embedding]\nmodel_dir = {:?}\n", models.to_str().unwrap());
    std::fs::create_dir(&models).unwrap();
    let stderr = failure(serve(folder.path(), &config)).await;
    assert!(stderr.contains(models.join("model.safetensors").to_str().unwrap()), "{stderr}");
    assert!(stderr.contains("promptkeep model pull"), "the error says what to do: {stderr}");
    std::fs::write(models.join("model.safetensors"), b"damaged").unwrap();
    std::fs::write(models.join("vocab.txt"), b"damaged").unwrap();
    let stderr = failure(serve(folder.path(), &config)).await;
    assert!(stderr.contains("model.safetensors: wrong checksum"), "{stderr}");
}

#[tokio::test]
async fn an_occupied_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for variable in ["PROMPTKEEP_SERVER__GRPC_LISTEN", "PROMPTKEEP_SERVER__HTTP_LISTEN"] {
        let mut command = serve(folder.path(), EXACT);
        command.env(variable, &address);
        let stderr = failure(command).await;
        assert!(stderr.contains(&format!("cannot listen on {address}")), "{stderr}");
    }
}

#[tokio::test]
async fn an_unusable_data_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"in the way").unwrap();
    let mut command = serve(folder.path(), EXACT);
    command.env("PROMPTKEEP_STORE__PATH", file.join("data"));
    let stderr = failure(command).await;
    assert!(stderr.contains("store.path: cannot write to") && stderr.contains("file/data"), "{stderr}");

    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("promptkeep.redb"), b"not a database, but long enough".repeat(1000)).unwrap();
    let stderr = failure(serve(folder.path(), EXACT)).await;
    assert!(stderr.contains("promptkeep.redb is damaged or not a promptkeep store"), "{stderr}");
}

#[tokio::test]
async fn data_of_a_newer_version_is_rejected_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let meta: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("meta");
    let database = redb::Database::create(data.join("promptkeep.redb")).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(meta).unwrap().insert("layout", 99).unwrap();
    write.commit().unwrap();
    drop(database);
    let stderr = failure(serve(folder.path(), EXACT)).await;
    assert!(stderr.contains("promptkeep.redb was written by a newer version"), "{stderr}");
    assert!(stderr.contains("layout 99"), "{stderr}");
}

#[tokio::test]
async fn a_data_folder_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let first = Process::serve(serve(folder.path(), EXACT)).await;
    // Once the server answers, it has opened the store.
    first.client().await.lookup(look("A?")).await.unwrap();
    let stderr = failure(serve(folder.path(), EXACT)).await;
    assert!(stderr.contains("is in use by another process"), "{stderr}");
}
