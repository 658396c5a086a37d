//! Answers a decoded prompt in the dialect of its API: whole, streamed, or from the cache alone.

use axum::response::Response;

use super::{
    Api,
    failure::Failure,
    reply::{self, Answered, Facts},
    sse::{self, Dialect},
};
use crate::{
    pipeline::{Request, RequestId},
    telemetry::metrics::Rpc,
};

/// How the caller wants its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub is_streamed: bool,
    /// `cache-control: only-if-cached`
    pub only_if_cached: bool,
}

/// Answers `request`. A caller that leaves drops the answer, and with it the model call unless other requests wait
/// for it.
pub(super) async fn answer<D: Dialect>(
    api: &Api,
    request: Request,
    delivery: Delivery,
    options: D::Options,
) -> Result<Response, Failure> {
    if delivery.only_if_cached {
        return from_cache::<D>(api, request, delivery.is_streamed, options).await;
    }
    if delivery.is_streamed {
        let answer = api.pipeline.complete(Rpc::CompleteStream, request).await?;
        return sse::reply(answer, zero_hit_usage(api), |started| D::new(options, started)).await;
    }
    let reply = api.pipeline.complete(Rpc::Complete, request).await?.whole().await?;
    let facts = Facts::of_reply(&reply);
    let answer =
        Answered { facts: &facts, completion: reply.completion(), zero_hit_usage: zero_hit_usage(api) };
    Ok(reply::whole(&facts, &D::whole(&options, reply.id, &answer)))
}

async fn from_cache<D: Dialect>(
    api: &Api,
    request: Request,
    is_streamed: bool,
    options: D::Options,
) -> Result<Response, Failure> {
    let (_, Ok(hit)) = api.pipeline.lookup(request).await? else { return Err(Failure::not_cached()) };
    let facts = Facts::of_hit(&hit);
    let answer =
        Answered { facts: &facts, completion: &hit.entry.completion, zero_hit_usage: zero_hit_usage(api) };
    // The reply names no request, so feedback cannot use this id.
    let id = RequestId::random();
    if is_streamed {
        let dialect = D::new(options, &reply::started(&hit, id));
        return Ok(sse::replay(&answer, dialect));
    }
    Ok(reply::whole(&facts, &D::whole(&options, id, &answer)))
}

fn zero_hit_usage(api: &Api) -> bool {
    api.pipeline.settings().cache.zero_hit_usage
}
