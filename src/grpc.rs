//! The gRPC server: decodes, checks, calls the pipeline, encodes. Holds no cache or upstream logic.

pub mod codec;
mod decode;
mod encode;
mod limited;
mod stats;
mod status;

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::{
    Extensions, Request, Response, Status,
    metadata::MetadataMap,
    service::{Interceptor, interceptor::InterceptedService},
};

pub use self::limited::Limited;
use self::proto::prompt_cache_server::{PromptCache, PromptCacheServer};
use crate::{
    error::Error,
    pipeline::{self, AnswerStream, Pipeline},
    telemetry::{metrics::Rpc, trace::Trace},
    tenant::{Tenant, bearer},
};

/// The generated types. Only this module and the clients in `cli` and `demo` name them.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated from the proto")]
pub mod proto {
    tonic::include_proto!("promptkeep.v1");

    /// The compiled proto, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/promptkeep.binpb"));
}

/// Part of the caller's deadline that is reserved for the reply. At the deadline tonic cancels the call, and its
/// status would not say what the call was waiting for.
const REPLY_MARGIN: Duration = Duration::from_millis(5);

/// The service that tonic runs.
pub type Service = InterceptedService<PromptCacheServer<Api>, Authenticator>;

/// Reads the metadata of a call before its message arrives: the caller's deadline counts from then, and a caller
/// without a valid key is refused without reading its message.
#[derive(Clone)]
pub struct Authenticator {
    pipeline: Arc<Pipeline>,
}

/// The handlers of the calls.
#[derive(Clone)]
pub struct Api {
    pipeline: Arc<Pipeline>,
    /// Largest request, in bytes.
    max_request: usize,
}

/// The caller, from the call's metadata.
#[derive(Clone)]
struct Caller {
    tenant: Arc<Tenant>,
    deadline: Option<Instant>,
    trace: Trace,
}

/// The service on top of `pipeline`. Requests above `max_request` bytes are refused.
pub fn service(pipeline: Arc<Pipeline>, max_request: usize) -> Service {
    // Somewhat larger ones are read too, so that the error can name the key to change.
    let readable = max_request.saturating_mul(2);
    let authenticator = Authenticator { pipeline: Arc::clone(&pipeline) };
    let service = PromptCacheServer::new(Api { pipeline, max_request })
        .max_decoding_message_size(readable)
        .max_encoding_message_size(usize::MAX);
    InterceptedService::new(service, authenticator)
}

/// Server reflection, for clients such as grpcurl.
pub fn reflection()
-> tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection> {
    reflection_builder().build_v1().expect("our build made the descriptors")
}

/// Server reflection in its previous version, for clients such as grpcio's own.
pub fn reflection_v1alpha() -> tonic_reflection::server::v1alpha::ServerReflectionServer<
    impl tonic_reflection::server::v1alpha::ServerReflection,
> {
    reflection_builder().build_v1alpha().expect("our build made the descriptors")
}

fn reflection_builder() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

impl Interceptor for Authenticator {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata();
        let deadline = timeout(metadata).map(|left| Instant::now() + left.saturating_sub(REPLY_MARGIN));
        let key = text(metadata, "authorization").and_then(bearer);
        let tenant = self.pipeline.settings().tenants.authenticate(key);
        let tenant = tenant.map_err(|error| status::of(&error))?;
        let trace = Trace::read(|name| text(metadata, name));
        request.extensions_mut().insert(Caller { tenant, deadline, trace });
        Ok(request)
    }
}

impl Caller {
    fn of(extensions: &Extensions) -> Result<Self, Error> {
        extensions.get().cloned().ok_or_else(|| Error::internal("the authenticator did not run"))
    }
}

impl Api {
    fn request(
        &self,
        extensions: &Extensions,
        prompt: Option<proto::Prompt>,
        cache: Option<proto::CacheControl>,
    ) -> Result<pipeline::Request, Error> {
        let Caller { tenant, deadline, trace } = Caller::of(extensions)?;
        decode::check_size("prompt", prompt.as_ref(), self.max_request)?;
        let prompt = decode::prompt("prompt", prompt)?;
        Ok(pipeline::Request { tenant, prompt, cache: decode::cache_control(cache)?, deadline, trace })
    }
}

type ChunkStream = Pin<Box<dyn Stream<Item = Result<proto::CompleteChunk, Status>> + Send>>;

#[tonic::async_trait]
impl PromptCache for Api {
    async fn lookup(
        &self,
        request: Request<proto::LookupRequest>,
    ) -> Result<Response<proto::LookupResponse>, Status> {
        let (_, extensions, proto::LookupRequest { prompt, cache }) = request.into_parts();
        reply(async {
            let (id, found) = self.pipeline.lookup(self.request(&extensions, prompt, cache)?).await?;
            Ok(encode::lookup(id, &found))
        })
        .await
    }

    async fn complete(
        &self,
        request: Request<proto::CompleteRequest>,
    ) -> Result<Response<proto::CompleteResponse>, Status> {
        let (_, extensions, proto::CompleteRequest { prompt, cache }) = request.into_parts();
        reply(async {
            let request = self.request(&extensions, prompt, cache)?;
            let whole = self.pipeline.complete(Rpc::Complete, request).await?.whole().await?;
            Ok(encode::reply(&whole))
        })
        .await
    }

    type CompleteStreamStream = ChunkStream;

    async fn complete_stream(
        &self,
        request: Request<proto::CompleteRequest>,
    ) -> Result<Response<ChunkStream>, Status> {
        let (_, extensions, proto::CompleteRequest { prompt, cache }) = request.into_parts();
        reply(async {
            let request = self.request(&extensions, prompt, cache)?;
            let answer = self.pipeline.complete(Rpc::CompleteStream, request).await?;
            Ok(Box::pin(chunks(answer)) as ChunkStream)
        })
        .await
    }

    async fn store(
        &self,
        request: Request<proto::StoreRequest>,
    ) -> Result<Response<proto::StoreResponse>, Status> {
        let (_, extensions, proto::StoreRequest { prompt, completion, cache }) = request.into_parts();
        reply(async {
            let request = self.request(&extensions, prompt, cache)?;
            decode::check_size("completion", completion.as_ref(), self.max_request)?;
            let id = self.pipeline.entries.store(request, decode::completion(completion)?).await?;
            Ok(proto::StoreResponse { entry_id: id.to_string() })
        })
        .await
    }

    async fn invalidate(
        &self,
        request: Request<proto::InvalidateRequest>,
    ) -> Result<Response<proto::InvalidateResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        reply(async {
            let Caller { tenant, deadline, trace: _ } = Caller::of(&extensions)?;
            decode::check_size("prompt", request.prompt.as_ref(), self.max_request)?;
            let dry_run = request.dry_run;
            let selector = match decode::selector(request)? {
                (selector, Some(prompt)) => self.pipeline.entries.select_prompt(&tenant, prompt, selector)?,
                (selector, None) => selector,
            };
            let entries = self.pipeline.entries.invalidate(&tenant, selector, dry_run, deadline).await?;
            Ok(proto::InvalidateResponse { entries })
        })
        .await
    }

    async fn feedback(
        &self,
        request: Request<proto::FeedbackRequest>,
    ) -> Result<Response<proto::FeedbackResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        reply(async {
            let Caller { tenant, deadline, trace: _ } = Caller::of(&extensions)?;
            let (subjects, verdict) = decode::feedback(&request)?;
            let recorded = self.pipeline.feedback.give(&tenant, &subjects, verdict, deadline).await?;
            Ok(proto::FeedbackResponse { recorded })
        })
        .await
    }

    async fn explain(
        &self,
        request: Request<proto::LookupRequest>,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        let (_, extensions, proto::LookupRequest { prompt, cache }) = request.into_parts();
        reply(async {
            let explanation = self.pipeline.explain(self.request(&extensions, prompt, cache)?).await?;
            Ok(encode::explanation(explanation))
        })
        .await
    }

    async fn get_stats(
        &self,
        request: Request<proto::GetStatsRequest>,
    ) -> Result<Response<proto::GetStatsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        reply(async {
            let Caller { tenant, .. } = Caller::of(&extensions)?;
            let (window, namespace) = decode::stats_request(request)?;
            Ok(self.pipeline.statistics.of_tenant(&tenant, window, namespace.as_deref()).into())
        })
        .await
    }
}

/// Converts a handler's result for tonic.
async fn reply<T>(handler: impl Future<Output = Result<T, Error>>) -> Result<Response<T>, Status> {
    handler.await.map(Response::new).map_err(|error| status::of(&error))
}

/// The answer as a stream of messages, which ends after an error.
fn chunks(answer: AnswerStream) -> impl Stream<Item = Result<proto::CompleteChunk, Status>> {
    let next = |mut answer: AnswerStream| async move {
        let chunk = answer.next().await.transpose()?;
        Some((chunk.map(encode::chunk).map_err(|error| status::of(&error)), answer))
    };
    futures_util::stream::unfold(answer, next)
}

fn text<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name)?.to_str().ok()
}

/// The caller's remaining time: `grpc-timeout`, up to eight digits and a unit.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let value = text(metadata, "grpc-timeout")?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let n = digits.parse::<u32>().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(u64::from(n) * 3600)),
        "M" => Some(Duration::from_secs(u64::from(n) * 60)),
        "S" => Some(Duration::from_secs(n.into())),
        "m" => Some(Duration::from_millis(n.into())),
        "u" => Some(Duration::from_micros(n.into())),
        "n" => Some(Duration::from_nanos(n.into())),
        _ => None,
    }
}
