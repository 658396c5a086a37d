//! The operator's page at `/`: its files, which are in the binary, and the numbers that it shows, once or as
//! events. Everything else that it needs to know is the ledger's.

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
use super::{Door, Failure, reply};
use crate::{config::Config, error::Error, feedback::RequestId};

/// Between two events. Numbers that move oftener cannot be read.
const EVENT_EVERY: Duration = Duration::from_secs(2);

/// Pages that are told at once; more are asked to come again.
const VIEWERS_MAX: usize = 64;

/// The page and its scripts come from here and nowhere else, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// What the page's routes need beside the door.
pub struct Dashboard {
    access: Access,
    region: String,
    viewers: Arc<Semaphore>,
    /// Ends the streams of events, which would hold a shutdown up.
    stop: CancellationToken,
}

/// What the wrong-hit button sends.
#[derive(Debug, Deserialize)]
struct WrongHit {
    /// As the page was told it.
    hit: String,
}

pub(super) fn routes() -> Router<Door> {
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
    // Another binary may answer next time.
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text)
}

/// The numbers once.
async fn snapshot(
    State(door): State<Door>,
    Path(range): Path<Range>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    door.dashboard.access.check(&door, &headers)?;
    let json = look(door, range).await;
    Ok(([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], json).into_response())
}

/// The numbers now and every two seconds.
async fn events(
    State(door): State<Door>,
    Path(range): Path<Range>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    door.dashboard.access.check(&door, &headers)?;
    let place = Arc::clone(&door.dashboard.viewers).try_acquire_owned();
    let full = |_| Error::Exhausted { limit: "dashboard viewers", retry_after: EVENT_EVERY };
    let place = place.map_err(full)?;
    let stop = door.dashboard.stop.clone();
    let events = looks(door, range, place).take_until(stop.cancelled_owned());
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    // nginx would gather the events otherwise.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

fn looks(
    door: Door,
    range: Range,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut ticks = interval(EVENT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let next = move |(mut ticks, place): (Interval, OwnedSemaphorePermit)| {
        let door = door.clone();
        async move {
            ticks.tick().await;
            let event = Event::default().data(look(door, range).await);
            Some((Ok(event), (ticks, place)))
        }
    };
    stream::unfold((ticks, place), next)
}

/// Adding a day of minutes up takes milliseconds, so it leaves the async threads.
async fn look(door: Door, range: Range) -> String {
    let look = move || serde_json::to_string(&Snapshot::take(&door, range)).unwrap_or_default();
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

/// The wrong-hit button: the feedback that the caller itself would give.
async fn wrong_hit(State(door): State<Door>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    door.dashboard.access.check_change(&door, &headers)?;
    let WrongHit { hit } = door.json::<WrongHit>(body).await?;
    let id = RequestId::parse(&hit).ok_or_else(|| Error::invalid("hit", "is no id of a hit"))?;
    let recorded = door.pipeline.feedback.report_wrong_hit(id).await?;
    Ok(reply::json(&json!({ "recorded": recorded })))
}

// === impl Dashboard ===

impl Dashboard {
    /// As `[dashboard]` says. Its streams end with `stop`.
    pub fn new(config: &Config, stop: CancellationToken) -> Self {
        Self {
            access: Access::new(config.dashboard.api_key_sha256),
            region: config.server.region.clone(),
            viewers: Arc::new(Semaphore::new(VIEWERS_MAX)),
            stop,
        }
    }
}
