//! Readers: one function per kind of value, with its unit and limits. A reader returns the value of a node, or a
//! message that says which values are valid.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    ApiKeyHash, HedgeAfter,
    tree::{Node, Value},
};
use crate::model::Tier;

/// Result of a reader. The error completes the sentence "the value …".
pub(super) type Read<T> = Result<T, String>;

/// Longest duration: 3650 days, so that adding one to a clock cannot overflow.
const DURATION_MAX: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// Largest count. A larger one is a typing mistake, and would overflow the semaphores and channels that it sizes.
const COUNT_MAX: u64 = 1_000_000_000_000;
/// Requests per second. A rate outside makes the interval between two requests too short or too long to count in
/// nanoseconds.
const RATES: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

pub(super) fn text(node: &Node) -> Read<String> {
    match &node.value {
        Value::Text(text) | Value::Raw(text) => Ok(text.clone()),
        _ => Err("must be a string".to_owned()),
    }
}

/// A string that is not blank.
pub(super) fn name(node: &Node) -> Read<String> {
    let text = text(node)?;
    if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(text) }
}

pub(super) fn path(node: &Node) -> Read<PathBuf> {
    name(node).map(PathBuf::from)
}

pub(super) fn flag(node: &Node) -> Read<bool> {
    match &node.value {
        Value::Flag(flag) => Ok(*flag),
        Value::Raw(text) if text == "true" => Ok(true),
        Value::Raw(text) if text == "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

pub(super) fn address(node: &Node) -> Read<SocketAddr> {
    let wanted = |text| format!("`{text}` is not an address and port such as 127.0.0.1:50051 or [::1]:50051");
    let text = text(node)?;
    text.parse().map_err(|_| wanted(text))
}

/// A whole number, at least one.
pub(super) fn count<T: TryFrom<u64>>(node: &Node) -> Read<T> {
    whole(node, 1, COUNT_MAX)
}

pub(super) fn count_or_zero<T: TryFrom<u64>>(node: &Node) -> Read<T> {
    whole(node, 0, COUNT_MAX)
}

/// A whole number from one to `most`.
pub(super) fn count_to<T: TryFrom<u64>>(most: u64) -> impl Fn(&Node) -> Read<T> {
    move |node| whole(node, 1, most)
}

fn whole<T: TryFrom<u64>>(node: &Node, least: u64, most: u64) -> Read<T> {
    let number = match &node.value {
        Value::Integer(n) => u64::try_from(*n).ok(),
        Value::Raw(text) => text.parse().ok(),
        _ => None,
    };
    let in_range = number.filter(|n| (least..=most).contains(n));
    let read = in_range.and_then(|n| T::try_from(n).ok());
    read.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

fn number(node: &Node) -> Option<f64> {
    match &node.value {
        Value::Integer(n) => Some(*n as f64),
        Value::Float(x) => Some(*x),
        Value::Raw(text) => text.parse().ok(),
        _ => None,
    }
}

/// A fraction from 0 to 1.
pub(super) fn share(node: &Node) -> Read<f32> {
    ratio(node).map(|x| x as f32)
}

/// A fraction from 0 to 1, in double precision.
pub(super) fn ratio(node: &Node) -> Read<f64> {
    let share = number(node).filter(|x| (0.0..=1.0).contains(x));
    share.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

/// `"p95"`, `"off"` or a duration.
pub(super) fn hedge_after(node: &Node) -> Read<HedgeAfter> {
    match text(node).as_deref() {
        Ok("p95") => Ok(HedgeAfter::Learned),
        Ok("off") => Ok(HedgeAfter::Never),
        _ => duration(node).map(HedgeAfter::Fixed).map_err(|message| format!("{message}, or p95 or off")),
    }
}

/// US dollars.
pub(super) fn money(node: &Node) -> Read<f64> {
    let money = number(node).filter(|usd| usd.is_finite() && *usd >= 0.0);
    money.ok_or_else(|| "must be a non-negative number of US dollars".to_owned())
}

/// Requests per second.
pub(super) fn rate(node: &Node) -> Read<f64> {
    let rate = number(node).filter(|rate| RATES.contains(rate));
    rate.ok_or_else(|| "must be a number of requests per second from 0.000001 to 1000000".to_owned())
}

/// A positive duration such as `24h`, `1m30s` or `500ms`.
pub(super) fn duration(node: &Node) -> Read<Duration> {
    let duration = duration_or_zero(node)?;
    if duration.is_zero() { Err("must be greater than zero".to_owned()) } else { Ok(duration) }
}

pub(super) fn duration_or_zero(node: &Node) -> Read<Duration> {
    let wanted = "must be a duration with units, such as \"24h\", \"1m30s\" or \"500ms\"";
    let duration = text(node).ok().and_then(|text| parse_duration(&text)).ok_or(wanted)?;
    if duration > DURATION_MAX { Err("must be at most 3650d".to_owned()) } else { Ok(duration) }
}

/// Parses amounts with units. Units are in descending order, each at most once.
fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let mut total: u64 = 0;
    let mut units = UNITS.as_slice();
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (amount, unit, after) = amount_and_unit(rest)?;
        let position = units.iter().position(|(name, _)| *name == unit)?;
        total = total.checked_add(amount.checked_mul(units[position].1)?)?;
        units = &units[position + 1..];
        rest = after;
    }
    Some(Duration::from_millis(total))
}

/// Splits `1m30s` into 1, `m` and `30s`.
fn amount_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (amount, rest) = text.split_at(digits);
    let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    Some((amount.parse().ok()?, unit, rest))
}

/// A size in bytes such as `1GiB`, `512MB` or `4096`.
pub(super) fn size<T: TryFrom<u64>>(node: &Node) -> Read<T> {
    let bytes = match &node.value {
        Value::Integer(n) => u64::try_from(*n).ok(),
        Value::Text(text) | Value::Raw(text) => parse_size(text),
        _ => None,
    };
    let bytes = bytes.filter(|bytes| *bytes > 0).and_then(|bytes| T::try_from(bytes).ok());
    bytes.ok_or_else(|| "must be a size such as \"1GiB\", \"512MB\" or 4096 (bytes)".to_owned())
}

fn parse_size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u32, u64); 9] = [
        ("", 0, 1000),
        ("kb", 1, 1000),
        ("mb", 2, 1000),
        ("gb", 3, 1000),
        ("tb", 4, 1000),
        ("kib", 1, 1024),
        ("mib", 2, 1024),
        ("gib", 3, 1024),
        ("tib", 4, 1024),
    ];
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (amount, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, power, base) = UNITS.iter().find(|(name, ..)| *name == unit)?;
    amount.parse::<u64>().ok()?.checked_mul(base.pow(*power))
}

/// A SHA-256 in hex. The message does not repeat the value, which may be the key itself.
pub(super) fn key_hash(node: &Node) -> Read<ApiKeyHash> {
    let hash = text(node).ok().and_then(|text| ApiKeyHash::parse(&text));
    hash.ok_or_else(|| "must be the SHA-256 of the API key, 64 hex digits".to_owned())
}

/// Name of an environment variable. The message does not repeat the value, which may be the key itself.
pub(super) fn variable(node: &Node) -> Read<String> {
    let text = text(node)?;
    let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_name = is_name && !text.starts_with(|c: char| c.is_ascii_digit());
    if is_name {
        Ok(text)
    } else {
        Err("must name an environment variable that holds the API key".to_owned())
    }
}

/// An API root, returned without its final slash. The message does not repeat the value, which may hold
/// credentials.
pub(super) fn url(node: &Node) -> Read<String> {
    let text = text(node)?;
    if text.is_empty() {
        return Ok(text);
    }
    let url = reqwest::Url::parse(&text).map_err(|cause| format!("is not a URL: {cause}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold credentials; name a variable in api_key_env".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must be an API root, without ? or #".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A table of strings.
pub(super) fn text_map(node: &Node) -> Read<BTreeMap<String, String>> {
    let wanted = "must be a table of strings";
    let Value::Table(table) = &node.value else { return Err(wanted.to_owned()) };
    let pair =
        |(name, node): (&String, &Node)| Ok((name.clone(), text(node).map_err(|_| wanted.to_owned())?));
    table.iter().map(pair).collect()
}

/// Redis nodes: a list, or a string with commas. The message does not repeat the value, which may hold a
/// password.
pub(super) fn redis_nodes(node: &Node) -> Read<Vec<String>> {
    let nodes = match &node.value {
        Value::Text(text) => list(redis_node)(&Node { value: Value::Raw(text.clone()), ..node.clone() })?,
        _ => list(redis_node)(node)?,
    };
    if nodes.is_empty() { Err("must name at least one node".to_owned()) } else { Ok(nodes) }
}

fn redis_node(node: &Node) -> Read<String> {
    let text = text(node)?;
    let url = reqwest::Url::parse(&text).map_err(|cause| format!("is not a URL: {cause}"))?;
    if !matches!(url.scheme(), "redis" | "rediss" | "redis+unix" | "unix") {
        return Err("must begin with redis://, rediss:// or redis+unix://".to_owned());
    }
    if url.password().is_some() {
        return Err("must not hold a password; name a variable in password_env".to_owned());
    }
    Ok(text)
}

/// A key prefix. Braces are refused because they would determine the cluster slot of every key.
pub(super) fn key_prefix(node: &Node) -> Read<String> {
    let text = name(node)?;
    if text.contains(['{', '}']) { Err("must not contain { or }".to_owned()) } else { Ok(text) }
}

/// One of a closed set of names.
pub(super) fn choice<T: Copy>(names: &'static [(&'static str, T)]) -> impl Fn(&Node) -> Read<T> {
    move |node| {
        let known = || names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let text = text(node).map_err(|_| format!("must be one of {}", known()))?;
        let found = names.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| format!("`{text}` is not one of {}", known()))
    }
}

pub(super) fn tier(node: &Node) -> Read<Tier> {
    let known = || Tier::ALL.map(Tier::as_str).join(", ");
    let text = text(node).map_err(|_| format!("must be one of {}", known()))?;
    Tier::parse(&text).ok_or_else(|| format!("`{text}` is not one of {}", known()))
}

/// A value that may be left out. An empty variable leaves it out too.
pub(super) fn optional<T>(read: impl Fn(&Node) -> Read<T>) -> impl Fn(&Node) -> Read<Option<T>> {
    move |node| match &node.value {
        Value::Raw(text) if text.is_empty() => Ok(None),
        _ => read(node).map(Some),
    }
}

/// A list. In a variable, its items are separated by commas.
pub(super) fn list<T>(read: impl Fn(&Node) -> Read<T>) -> impl Fn(&Node) -> Read<Vec<T>> {
    move |node| match &node.value {
        Value::List(items) => read_all(items, &read),
        Value::Raw(text) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let item = |item: &str| Node { value: Value::Raw(item.to_owned()), ..node.clone() };
            read_all(&items.map(item).collect::<Vec<_>>(), &read)
        }
        _ => Err("must be a list".to_owned()),
    }
}

/// All values, or the messages of all malformed items.
fn read_all<T>(items: &[Node], read: impl Fn(&Node) -> Read<T>) -> Read<Vec<T>> {
    let mut values = Vec::new();
    let mut wrong = Vec::new();
    for item in items {
        match read(item) {
            Ok(value) => values.push(value),
            Err(message) => wrong.push(message),
        }
    }
    if wrong.is_empty() { Ok(values) } else { Err(wrong.join("; ")) }
}
