//! The cache-aside endpoints in LangCache's shape.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Response, post, request, tenant};
use crate::common::test_server::{TestServer, exact_config, semantic_config};

async fn set(server: &TestServer, cache: &str, prompt: &str, attributes: &Value) -> String {
    let body = json!({ "prompt": prompt, "response": "Open Settings.", "attributes": attributes });
    let response = Response::to(post(server, &format!("/v1/caches/{cache}/entries"), &body)).await;
    assert_eq!(response.status, 201, "{}", response.text);
    response.json()["entryId"].as_str().unwrap().to_owned()
}

async fn search(server: &TestServer, cache: &str, body: &Value) -> Vec<Value> {
    let response = Response::to(post(server, &format!("/v1/caches/{cache}/entries/search"), body)).await;
    assert_eq!(response.status, 200, "{}", response.text);
    response.json()["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_set_entry_is_found_exactly_and_semantically() {
    let server = TestServer::start(semantic_config(&[])).await;
    let id = set(&server, "support", "How do I reset my password?", &json!({})).await;
    let exact = search(&server, "support", &json!({ "prompt": "How do I reset my password?" })).await;
    let expected = json!({
        "id": id, "prompt": "How do I reset my password?", "response": "Open Settings.", "attributes": {},
        "similarity": 1.0, "searchStrategy": "exact",
    });
    assert_eq!(exact, [expected]);
    let paraphrase = json!({ "prompt": "How can I reset my password?", "similarityThreshold": 0.9 });
    let found = search(&server, "support", &paraphrase).await;
    assert_eq!((&found[0]["id"], &found[0]["searchStrategy"]), (&json!(id), &json!("semantic")));
    let strict = json!({ "prompt": "How can I reset my password?", "similarityThreshold": 0.999 });
    assert_eq!(search(&server, "support", &strict).await, [] as [Value; 0]);
    let only_exact = json!({ "prompt": "How can I reset my password?", "searchStrategies": ["exact"] });
    assert_eq!(search(&server, "support", &only_exact).await, [] as [Value; 0]);
    assert_eq!(search(&server, "other", &paraphrase).await, [] as [Value; 0]);
}

#[tokio::test]
async fn attributes_separate_entries_and_select_them_for_deletion() {
    let server = TestServer::start(exact_config(&[])).await;
    let (de, en) = (json!({ "lang": "de", "app": "x" }), json!({ "lang": "en", "app": "x" }));
    set(&server, "c", "Hours?", &de).await;
    set(&server, "c", "Hours?", &en).await;
    let found = async |attributes: &Value| {
        search(&server, "c", &json!({ "prompt": "Hours?", "attributes": attributes })).await.len()
    };
    assert_eq!((found(&de).await, found(&en).await, found(&json!({})).await), (1, 1, 0));
    let delete = |attributes: Value| {
        let body = json!({ "attributes": attributes });
        Response::to(request(&server, Method::DELETE, "/v1/caches/c/entries").json(&body))
    };
    assert_eq!(delete(json!({ "lang": "de", "app": "y" })).await.json(), json!({ "deletedEntriesCount": 0 }));
    assert_eq!(delete(de.clone()).await.json(), json!({ "deletedEntriesCount": 1 }));
    assert_eq!((found(&de).await, found(&en).await), (0, 1));
    assert_eq!(delete(json!({ "app": "x" })).await.json(), json!({ "deletedEntriesCount": 1 }));
    assert_eq!(delete(json!({})).await.status, 400);
}

#[tokio::test]
async fn entries_are_deleted_by_id_and_by_flush() {
    let server = TestServer::start(exact_config(&[])).await;
    let id = set(&server, "c", "One?", &json!({})).await;
    let delete = |cache: &str| {
        Response::to(request(&server, Method::DELETE, &format!("/v1/caches/{cache}/entries/{id}")))
    };
    assert_eq!(delete("another").await.status, 404);
    assert_eq!(delete("c").await.status, 204);
    let again = delete("c").await;
    assert_eq!((again.status, &again.json()["type"]), (404, &json!("/errors/resource-not-found")));
    set(&server, "c", "Two?", &json!({})).await;
    assert_eq!(Response::to(request(&server, Method::POST, "/v1/caches/c/flush")).await.status, 204);
    assert!(search(&server, "c", &json!({ "prompt": "Two?" })).await.is_empty());
}

#[tokio::test]
async fn problems_name_the_field_and_tenants_do_not_share_entries() {
    let mut config = exact_config(&[]);
    config.tenants = vec![tenant("a", "key-a"), tenant("b", "key-b")];
    let server = TestServer::start(config).await;
    let path = "/v1/caches/c/entries";
    let body = json!({ "prompt": "Q?", "response": "A." });
    let stored = Response::to(post(&server, path, &body).bearer_auth("key-a")).await;
    assert_eq!(stored.status, 201);
    let other_tenant =
        post(&server, "/v1/caches/c/entries/search", &json!({ "prompt": "Q?" })).bearer_auth("key-b");
    assert_eq!(Response::to(other_tenant).await.json(), json!({ "data": [] }));
    let anonymous = Response::to(post(&server, path, &body)).await;
    assert_eq!((anonymous.status, &anonymous.json()["type"]), (401, &json!("/errors/authentication-failed")));
    let wrong = json!({ "prompt": "Q?", "similarityThreshold": 7 });
    let wrong = Response::to(post(&server, "/v1/caches/c/entries/search", &wrong).bearer_auth("key-a")).await;
    assert_eq!((wrong.status, &wrong.json()["fields"][0]["field"]), (400, &json!("similarityThreshold")));
}

/// Serde quotes the value in a type error, and the value may be a prompt.
#[tokio::test]
async fn a_value_of_the_wrong_type_is_not_quoted() {
    let server = TestServer::start(exact_config(&[])).await;
    let body = json!({ "prompt": "Q?", "response": "A.", "attributes": "a secret text" });
    let wrong = Response::to(post(&server, "/v1/caches/c/entries", &body)).await;
    assert_eq!(wrong.status, 400);
    assert!(!wrong.text.contains("secret"), "{}", wrong.text);
}
