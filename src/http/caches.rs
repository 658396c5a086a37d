//! Cache-aside REST API, compatible with the LangCache service so that its clients work with another base URL. Their
//! cache is a namespace here.
//!
//! It differs in two points. Attributes are part of the key: an entry answers only searches with equal attributes, not
//! with a subset of them. And a threshold can only tighten the server's own.

mod problem;

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use self::problem::Problem;
use super::{Api, caller::Caller};
use crate::{
    entry::{EntryId, Selector},
    error::Error,
    model::Usage,
    outcome::Outcome,
    pipeline::{Hit, Request},
    prompt::{Completion, Message, Prompt, Role},
};

/// Part of the key, beside the prompt.
type Attributes = BTreeMap<String, String>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Search {
    prompt: String,
    /// Normalised cosine: 0 for opposite texts, 1 for equal ones.
    similarity_threshold: Option<f32>,
    search_strategies: Option<Vec<Strategy>>,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Strategy {
    Exact,
    Semantic,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Set {
    prompt: String,
    response: String,
    #[serde(default)]
    attributes: Attributes,
    ttl_millis: Option<u64>,
}

#[derive(Deserialize)]
struct Delete {
    attributes: Attributes,
}

/// Returns at most one entry: the one that `Lookup` would answer with.
pub(super) async fn search(
    State(api): State<Api>,
    Path(cache): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = api.caller(&headers)?;
    let search: Search = api.json(body).await?;
    let mut request = request(caller, cache, search.prompt, &search.attributes);
    request.cache.min_similarity = search.similarity_threshold.map(cosine).transpose()?;
    // An exact repeat has the highest similarity, so it also answers a semantic search.
    request.cache.exact_only |=
        search.search_strategies.is_some_and(|list| !list.contains(&Strategy::Semantic));
    let prompt = request.prompt.messages[0].content.clone();
    let (_, looked_up) = api.pipeline.lookup(request).await?;
    let found = looked_up.ok().map(|hit| entry(&hit, prompt, &search.attributes));
    Ok(Json(json!({ "data": found.as_slice() })).into_response())
}

/// Stores an answer; the reply means that it is durable.
pub(super) async fn store(
    State(api): State<Api>,
    Path(cache): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = api.caller(&headers)?;
    let set: Set = api.json(body).await?;
    if set.response.is_empty() {
        return Err(Error::invalid("response", "must not be empty").into());
    }
    let mut request = request(caller, cache, set.prompt, &set.attributes);
    request.cache.ttl = set.ttl_millis.map(Duration::from_millis);
    request.cache.tags.extend(tags(&set.attributes));
    let id = api.pipeline.entries.store(request, completion(set.response)).await?;
    Ok((StatusCode::CREATED, Json(json!({ "entryId": id.to_string() }))).into_response())
}

pub(super) async fn remove(
    State(api): State<Api>,
    Path((cache, entry)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let caller = api.caller(&headers)?;
    let id = EntryId::parse(&entry).ok_or(Error::NotFound("this entry"))?;
    match invalidate(&api, &caller, Selector { id: Some(id), ..in_cache(cache) }).await? {
        0 => Err(Error::NotFound("this entry").into()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Removes the entries that have all of the attributes, with or without others.
pub(super) async fn remove_by_attributes(
    State(api): State<Api>,
    Path(cache): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = api.caller(&headers)?;
    let Delete { attributes } = api.json(body).await?;
    if attributes.is_empty() {
        return Err(Error::invalid("attributes", "must not be empty; flush removes everything").into());
    }
    let selector = Selector { tags: tags(&attributes).collect(), ..in_cache(cache) };
    let count = invalidate(&api, &caller, selector).await?;
    Ok(Json(json!({ "deletedEntriesCount": count })).into_response())
}

pub(super) async fn flush(
    State(api): State<Api>,
    Path(cache): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let caller = api.caller(&headers)?;
    invalidate(&api, &caller, in_cache(cache)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn invalidate(api: &Api, caller: &Caller, selector: Selector) -> Result<u64, Error> {
    api.pipeline.entries.invalidate(&caller.tenant, selector, false, caller.deadline).await
}

fn in_cache(namespace: String) -> Selector {
    Selector { namespace: Some(namespace), ..Selector::default() }
}

fn request(caller: Caller, cache: String, prompt: String, attributes: &Attributes) -> Request {
    let message = Message::new(Role::User, prompt);
    let prompt = Prompt { messages: vec![message], ..Prompt::default() };
    let caller = Caller { namespace: cache, vary: attributes.clone(), ..caller };
    caller.request(prompt)
}

/// Converts the service's scale into cosine similarity.
fn cosine(normalised: f32) -> Result<f32, Error> {
    if !(0.0..=1.0).contains(&normalised) {
        return Err(Error::invalid("similarityThreshold", "must be from 0 to 1"));
    }
    // A lower bound below 0 has no effect beside the server's own threshold.
    Ok((2.0 * normalised - 1.0).max(0.0))
}

fn entry(hit: &Hit, prompt: String, attributes: &Attributes) -> Value {
    let strategy = if hit.outcome == Outcome::Exact { "exact" } else { "semantic" };
    json!({
        "id": hit.entry.id().to_string(),
        "prompt": hit.entry.text.clone().unwrap_or(prompt),
        "response": hit.entry.completion.content,
        "attributes": attributes,
        "similarity": f32::midpoint(1.0, hit.similarity),
        "searchStrategy": strategy,
    })
}

fn tags(attributes: &Attributes) -> impl Iterator<Item = String> {
    attributes.iter().map(|(name, value)| format!("{name}={value}"))
}

/// A completion without model and cost, which the service's clients do not send.
fn completion(content: String) -> Completion {
    let usage = Usage { estimated: true, ..Usage::default() };
    Completion { content, usage, ..Completion::default() }
}
