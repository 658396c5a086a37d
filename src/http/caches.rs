//! A cache-aside pair over REST, in the shape of the LangCache service, so that its clients work with
//! another base URL. A cache of theirs is a namespace of ours.
//!
//! Two things differ. Attributes are part of the key here: an entry answers searches with the same
//! attributes, not with some of them. And a threshold can only tighten the server's own.

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
use super::{Door, caller::Caller};
use crate::{
    entry::{EntryId, Selector},
    error::Error,
    model::Usage,
    outcome::Outcome,
    pipeline::{Hit, Request},
    prompt::{Completion, FinishReason, Message, Prompt, Role},
};

/// What entries and searches are told apart by, beside the prompt.
type Attributes = BTreeMap<String, String>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Search {
    prompt: String,
    /// Normalised cosine: 0 for opposite texts, 1 for the same.
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

/// At most one entry: the one that `Lookup` would answer with.
pub(super) async fn search(
    State(door): State<Door>,
    Path(cache): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = door.caller(&headers)?;
    let search: Search = door.json(body).await?;
    let mut request = request(caller, cache, search.prompt, &search.attributes);
    request.cache.min_similarity = search.similarity_threshold.map(cosine).transpose()?;
    // An exact repeat is the nearest of all, so it also answers a semantic search.
    request.cache.exact_only |=
        search.search_strategies.is_some_and(|list| !list.contains(&Strategy::Semantic));
    let prompt = request.prompt.messages[0].content.clone();
    let (_, looked_up) = door.pipeline.lookup(request).await?;
    let found = looked_up.ok().map(|hit| entry(&hit, prompt, &search.attributes));
    Ok(Json(json!({ "data": found.as_slice() })).into_response())
}

/// Durable when it is answered.
pub(super) async fn store(
    State(door): State<Door>,
    Path(cache): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = door.caller(&headers)?;
    let set: Set = door.json(body).await?;
    if set.response.is_empty() {
        return Err(Error::invalid("response", "must not be empty").into());
    }
    let mut request = request(caller, cache, set.prompt, &set.attributes);
    request.cache.ttl = set.ttl_millis.map(Duration::from_millis);
    request.cache.tags.extend(tags(&set.attributes));
    let id = door.pipeline.entries.store(request, completion(set.response)).await?;
    Ok((StatusCode::CREATED, Json(json!({ "entryId": id.to_string() }))).into_response())
}

pub(super) async fn remove(
    State(door): State<Door>,
    Path((cache, entry)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let caller = door.caller(&headers)?;
    let id = EntryId::parse(&entry).ok_or(Error::NotFound("this entry"))?;
    match invalidate(&door, &caller, Selector { id: Some(id), ..in_cache(cache) }).await? {
        0 => Err(Error::NotFound("this entry").into()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Entries that have all of the attributes, and maybe others.
pub(super) async fn remove_by_attributes(
    State(door): State<Door>,
    Path(cache): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = door.caller(&headers)?;
    let Delete { attributes } = door.json(body).await?;
    if attributes.is_empty() {
        return Err(Error::invalid("attributes", "must not be empty; flush removes everything").into());
    }
    let selector = Selector { tags: tags(&attributes).collect(), ..in_cache(cache) };
    let count = invalidate(&door, &caller, selector).await?;
    Ok(Json(json!({ "deletedEntriesCount": count })).into_response())
}

pub(super) async fn flush(
    State(door): State<Door>,
    Path(cache): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let caller = door.caller(&headers)?;
    invalidate(&door, &caller, in_cache(cache)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn invalidate(door: &Door, caller: &Caller, selector: Selector) -> Result<u64, Error> {
    door.pipeline.entries.invalidate(&caller.tenant, selector, false, caller.deadline).await
}

fn in_cache(namespace: String) -> Selector {
    Selector { namespace: Some(namespace), ..Selector::default() }
}

fn request(caller: Caller, cache: String, prompt: String, attributes: &Attributes) -> Request {
    let message =
        Message { role: Role::User, content: prompt, name: None, tool_call_id: None, tool_calls: None };
    let prompt = Prompt { messages: vec![message], ..Prompt::routed_as(String::new()) };
    let caller = Caller { namespace: cache, vary: attributes.clone(), ..caller };
    caller.request(prompt)
}

/// The service's scale on ours.
fn cosine(normalised: f32) -> Result<f32, Error> {
    if !(0.0..=1.0).contains(&normalised) {
        return Err(Error::invalid("similarityThreshold", "must be from 0 to 1"));
    }
    // Below that everything matches anyhow, as far as the server's own limit goes.
    Ok((2.0 * normalised - 1.0).max(0.0))
}

fn entry(hit: &Hit, asked: String, attributes: &Attributes) -> Value {
    let strategy = if hit.outcome == Outcome::Exact { "exact" } else { "semantic" };
    json!({
        "id": hit.entry.id().to_string(),
        "prompt": hit.entry.text.clone().unwrap_or(asked),
        "response": hit.entry.completion.content,
        "attributes": attributes,
        "similarity": f32::midpoint(1.0, hit.similarity),
        "searchStrategy": strategy,
    })
}

fn tags(attributes: &Attributes) -> impl Iterator<Item = String> {
    attributes.iter().map(|(name, value)| format!("{name}={value}"))
}

/// Which model wrote it, and for how much, the service does not ask.
fn completion(content: String) -> Completion {
    Completion {
        content,
        tool_calls: None,
        finish_reason: FinishReason::Stop,
        model: String::new(),
        tier: String::new(),
        usage: Usage { estimated: true, ..Usage::default() },
    }
}
