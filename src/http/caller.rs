//! Reads request headers: the caller's tenant, its deadline, and how the cache may be used.

use std::{collections::BTreeMap, str::FromStr, sync::Arc, time::Duration};

use axum::http::{
    HeaderMap,
    header::{AUTHORIZATION, CACHE_CONTROL},
};
use tokio::time::Instant;

use crate::{
    error::Error,
    pipeline::Request,
    prompt::{CacheControl, Keep, Prompt},
    telemetry::trace::Trace,
    tenant::{Tenant, Tenants, bearer},
};

/// Largest `x-promptkeep-timeout`. The deadline of a longer one may lie beyond what the clock can represent.
const TIMEOUT_MAX: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// The caller of a request, as its headers describe it.
#[derive(Debug)]
pub(super) struct Caller {
    pub tenant: Arc<Tenant>,
    /// `x-promptkeep-namespace`; empty for the default namespace.
    pub namespace: String,
    /// `x-promptkeep-vary: name=value, …`
    pub vary: BTreeMap<String, String>,
    pub cache: CacheControl,
    /// `cache-control: only-if-cached`
    pub only_if_cached: bool,
    /// From `x-promptkeep-timeout`, in seconds.
    pub deadline: Option<Instant>,
    /// `traceparent` and `tracestate`
    pub trace: Trace,
}

impl Caller {
    pub fn read(tenants: &Tenants, headers: &HeaderMap) -> Result<Self, Error> {
        let tenant = tenants.authenticate(text(headers, AUTHORIZATION.as_str())?.and_then(bearer))?;
        let mut caller = Self {
            tenant,
            namespace: text(headers, "x-promptkeep-namespace")?.unwrap_or_default().to_owned(),
            vary: pairs(headers, "x-promptkeep-vary")?,
            cache: cache(headers)?,
            only_if_cached: false,
            deadline: deadline(headers)?,
            trace: Trace::read(|name| headers.get(name).and_then(|value| value.to_str().ok())),
        };
        for value in headers.get_all(CACHE_CONTROL) {
            for directive in value.to_str().unwrap_or_default().split(',') {
                caller.directive(directive.trim())?;
            }
        }
        Ok(caller)
    }

    /// Reads one directive of `cache-control`. Unknown directives are ignored, as HTTP requires.
    fn directive(&mut self, directive: &str) -> Result<(), Error> {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.to_ascii_lowercase().as_str() {
            "no-cache" => self.cache.no_cache = true,
            "no-store" => self.cache.no_store = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => {
                let seconds = value.trim_matches('"').parse();
                let seconds =
                    seconds.map_err(|_| Error::invalid("cache-control", "max-age must be whole seconds"))?;
                self.cache.max_age = Some(Duration::from_secs(seconds));
            }
            _ => {}
        }
        Ok(())
    }

    /// This caller's request for `prompt`.
    pub fn request(self, mut prompt: Prompt) -> Request {
        let Self { tenant, namespace, vary, cache, only_if_cached: _, deadline, trace } = self;
        prompt.namespace = namespace;
        prompt.vary = vary;
        Request { tenant, prompt, cache, deadline, trace }
    }
}

fn cache(headers: &HeaderMap) -> Result<CacheControl, Error> {
    let tags = text(headers, "x-promptkeep-tags")?.unwrap_or_default();
    Ok(CacheControl {
        exact_only: parsed(headers, "x-promptkeep-exact-only")?.unwrap_or_default(),
        min_similarity: parsed(headers, "x-promptkeep-min-similarity")?,
        max_error_rate: parsed(headers, "x-promptkeep-max-error-rate")?,
        ttl: seconds(headers, "x-promptkeep-ttl")?,
        tags: tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        keep: keep(headers)?,
        verify: parsed(headers, "x-promptkeep-verify")?,
        ..CacheControl::default()
    })
}

fn keep(headers: &HeaderMap) -> Result<Option<Keep>, Error> {
    match text(headers, "x-promptkeep-keep")? {
        None => Ok(None),
        Some("all") => Ok(Some(Keep::All)),
        Some("careful") => Ok(Some(Keep::Careful)),
        Some(_) => Err(Error::invalid("x-promptkeep-keep", "must be all or careful")),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Error> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    std::str::from_utf8(value.as_bytes()).map(Some).map_err(|_| Error::invalid(name, "must be UTF-8"))
}

fn parsed<T: FromStr>(headers: &HeaderMap, name: &str) -> Result<Option<T>, Error> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| Error::invalid(name, "cannot be read"))
}

fn seconds(headers: &HeaderMap, name: &str) -> Result<Option<Duration>, Error> {
    let Some(seconds) = parsed::<f64>(headers, name)? else { return Ok(None) };
    Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| Error::invalid(name, "must be seconds"))
}

fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Error> {
    const NAME: &str = "x-promptkeep-timeout";
    let Some(left) = seconds(headers, NAME)? else { return Ok(None) };
    if left > TIMEOUT_MAX {
        return Err(Error::invalid(NAME, format!("must be at most {} seconds", TIMEOUT_MAX.as_secs())));
    }
    Ok(Some(Instant::now() + left))
}

fn pairs(headers: &HeaderMap, name: &str) -> Result<BTreeMap<String, String>, Error> {
    let mut pairs = BTreeMap::new();
    for pair in text(headers, name)?.unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| Error::invalid(name, "must be name=value, …"))?;
        pairs.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(pairs)
}
