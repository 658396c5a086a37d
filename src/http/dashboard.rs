//! The operators' dashboard at `/`: its files, embedded in the binary, and its numbers, once or as events. Counts
//! nothing itself.

mod access;
mod chart;
mod snapshot;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderName,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use self::{access::Access, chart::Range, snapshot::Snapshot};
use super::{Api, Failure, reply};
use crate::{config::Config, error::Error, pipeline::RequestId};

/// Pause between two events. Numbers that change faster are hard to read.
const EVENT_EVERY: Duration = Duration::from_secs(2);

/// Maximum number of concurrent event streams; further viewers are told to retry.
const VIEWERS_MAX: usize = 64;

/// Allows the page to load only from this server, and forbids frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// State of the dashboard's routes.
pub struct Dashboard {
    access: Access,
    region: String,
    viewers: Arc<Semaphore>,
    /// Ends the event streams, which would delay a shutdown.
    stop: CancellationToken,
}

/// Body that the wrong-hit button sends.
#[derive(Debug, Deserialize)]
struct WrongHit {
    /// The hit's id in the snapshot.
    hit: String,
}

pub(super) fn routes() -> Router<Api> {
    let html = include_str!("dashboard/page.html");
    let files = [
        ("/", "text/html; charset=utf-8", html),
        ("/dashboard/page.css", "text/css", include_str!("dashboard/page.css")),
        ("/dashboard/page.js", "text/javascript", include_str!("dashboard/page.js")),
        ("/dashboard/charts.js", "text/javascript", include_str!("dashboard/charts.js")),
        ("/dashboard/uplot.css", "text/css", include_str!("dashboard/uplot.css")),
        ("/dashboard/uplot.js", "text/javascript", include_str!("dashboard/uplot.js")),
        ("/dashboard/uplot.LICENSE", "text/plain", include_str!("dashboard/uplot.LICENSE")),
    ];
    let mut router = Router::new();
    for (path, kind, text) in files {
        router = router.route(path, get(async move || file(kind, text)));
    }
    router
        .route("/dashboard/snapshot/{range}", get(snapshot))
        .route("/dashboard/events/{range}", get(events))
        .route("/dashboard/wrong-hit", post(wrong_hit))
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    // Not cached: after an upgrade the files differ.
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text)
}

/// Returns one snapshot.
async fn snapshot(
    State(api): State<Api>,
    Path(range): Path<Range>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    api.dashboard.access.check(&api, &headers)?;
    let json = encode(api, range).await;
    Ok(([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], json).into_response())
}

/// Streams a snapshot now and every two seconds.
async fn events(
    State(api): State<Api>,
    Path(range): Path<Range>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    api.dashboard.access.check(&api, &headers)?;
    let permit = Arc::clone(&api.dashboard.viewers).try_acquire_owned();
    let full = |_| Error::Exhausted { limit: "dashboard viewers", retry_after: EVENT_EVERY };
    let permit = permit.map_err(full)?;
    let stop = api.dashboard.stop.clone();
    let events = snapshots(api, range, permit).take_until(stop.cancelled_owned());
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    // Keeps nginx from buffering the events.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

fn snapshots(
    api: Api,
    range: Range,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut ticks = interval(EVENT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let next = move |(mut ticks, permit): (Interval, OwnedSemaphorePermit)| {
        let api = api.clone();
        async move {
            ticks.tick().await;
            let event = Event::default().data(encode(api, range).await);
            Some((Ok(event), (ticks, permit)))
        }
    };
    stream::unfold((ticks, permit), next)
}

/// A snapshot as JSON. Adding up the minutes of a day takes milliseconds, so it leaves the async threads.
async fn encode(api: Api, range: Range) -> String {
    let encode = move || serde_json::to_string(&Snapshot::take(&api, range)).unwrap_or_default();
    tokio::task::spawn_blocking(encode).await.unwrap_or_default()
}

/// Reports a wrong hit, like feedback from the caller that was served it.
async fn wrong_hit(State(api): State<Api>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    api.dashboard.access.check(&api, &headers)?;
    let WrongHit { hit } = api.json::<WrongHit>(body).await?;
    let id = RequestId::parse(&hit).ok_or_else(|| Error::invalid("hit", "is not the id of a hit"))?;
    let recorded = api.pipeline.feedback.report_wrong_hit(id).await?;
    Ok(reply::json(&json!({ "recorded": recorded })))
}

impl Dashboard {
    /// Applies the `[dashboard]` section. Event streams end with `stop`.
    pub fn new(config: &Config, stop: CancellationToken) -> Self {
        Self {
            access: Access::new(config.dashboard.api_key_sha256),
            region: config.server.region.clone(),
            viewers: Arc::new(Semaphore::new(VIEWERS_MAX)),
            stop,
        }
    }
}
