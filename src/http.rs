//! The HTTP server: the OpenAI dialect, cache-aside REST calls, and the operators' pages. Decodes, checks, calls the
//! pipeline, encodes; holds no cache or upstream logic.

mod answer;
mod browser;
mod caches;
mod caller;
mod chat;
mod dashboard;
mod embeddings;
mod failure;
mod forward;
mod health;
mod models;
mod reply;
mod responses;
mod sse;

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    http::HeaderMap,
    middleware::from_fn_with_state,
    routing::{delete, get, post},
};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

pub use self::browser::Hosts;
pub(crate) use self::chat::prompt_of_chat;
pub use self::dashboard::Dashboard;
use self::{caller::Caller, failure::Failure};
use crate::{
    body::BodyError, cache::Cache, error::Error, pipeline::Pipeline, telemetry::metrics::Metrics,
    upstream::Upstreams,
};

/// State shared by all handlers.
#[derive(Clone)]
pub struct Api {
    pub pipeline: Arc<Pipeline>,
    /// For the list of models and the dashboard.
    pub upstreams: Upstreams,
    pub cache: Arc<Cache>,
    pub metrics: Arc<Metrics>,
    /// Largest request, in bytes.
    pub max_request: usize,
    pub dashboard: Arc<Dashboard>,
    pub hosts: Arc<Hosts>,
}

/// Every route of the HTTP port.
pub fn router(api: Api) -> Router {
    Router::new()
        .merge(dashboard::routes())
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/responses", post(responses::create))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models::list))
        // Model ids may contain slashes.
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/caches/{cache}/entries/search", post(caches::search))
        .route("/v1/caches/{cache}/entries", post(caches::store).delete(caches::remove_by_attributes))
        .route("/v1/caches/{cache}/entries/{entry}", delete(caches::remove))
        .route("/v1/caches/{cache}/flush", post(caches::flush))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(async || Failure::from(Error::NotFound("path")))
        .method_not_allowed_fallback(async || Failure::wrong_method())
        .layer(from_fn_with_state(api.clone(), browser::check))
        .with_state(api)
}

impl Api {
    /// The caller, from the request's headers.
    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Error> {
        Caller::read(&self.pipeline.settings().tenants, headers)
    }

    /// The body as JSON.
    async fn json<T: DeserializeOwned>(&self, body: Body) -> Result<T, Error> {
        let bytes = self.bytes(body).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            // serde's message about a wrong type quotes the value, which may be a prompt.
            let problem = if error.is_data() { "does not have the expected fields" } else { "is not JSON" };
            Error::invalid("body", format!("{problem}, at line {line} column {column}"))
        })
    }

    async fn bytes(&self, body: Body) -> Result<Bytes, Error> {
        let mut read = Vec::new();
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(body_error)?;
            if read.len() + part.len() > self.max_request {
                return Err(Error::TooLarge { max: self.max_request });
            }
            read.extend_from_slice(&part);
        }
        Ok(read.into())
    }
}

/// The error of a body that could not be read to its end.
fn body_error(error: axum::Error) -> Error {
    let error = error.into_inner().downcast::<BodyError>();
    error.map_or(BodyError::Broken, |error| *error).into()
}
