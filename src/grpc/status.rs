//! Turns an [`Error`] into a gRPC status. The only place that makes a status, so that causes, addresses and prompts
//! stay out of it.

use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use super::proto;
use crate::error::Error;

/// The status that reports `error`, with details that client libraries can act on. Logs an internal error's cause.
#[expect(clippy::disallowed_methods, reason = "the only place that makes a status")]
pub(super) fn of(error: &Error) -> Status {
    error.log();
    let (code, message, details) = (code(error), error.to_string(), details(error));
    if details.is_empty() {
        return Status::new(code, message);
    }
    let encoded = pb::Status { code: code.into(), message: message.clone(), details }.encode_to_vec();
    Status::with_details(code, message, encoded.into())
}

fn code(error: &Error) -> Code {
    match error {
        Error::InvalidArgument { .. } | Error::TooLarge { .. } => Code::InvalidArgument,
        Error::Unauthenticated => Code::Unauthenticated,
        Error::Exhausted { .. } => Code::ResourceExhausted,
        Error::NoUpstream => Code::FailedPrecondition,
        Error::NotFound(_) => Code::NotFound,
        Error::DeadlineExceeded { .. } | Error::SlowRequest => Code::DeadlineExceeded,
        Error::Unavailable { .. } | Error::StoreUnavailable => Code::Unavailable,
        Error::Refused { status, .. } => refused(*status),
        Error::Internal { .. } => Code::Internal,
    }
}

/// The code for a provider's HTTP status.
fn refused(status: u16) -> Code {
    match status {
        // The provider refused our key or account, which the caller cannot change.
        401..=403 => Code::FailedPrecondition,
        404 => Code::NotFound,
        429 => Code::ResourceExhausted,
        _ => Code::InvalidArgument,
    }
}

fn details(error: &Error) -> Vec<Any> {
    match error {
        Error::InvalidArgument { field, message } => vec![bad_request(field, message)],
        Error::Exhausted { retry_after, .. } => vec![retry_info(*retry_after)],
        failed => failed.attempts().iter().map(attempt).collect(),
    }
}

fn bad_request(field: &str, message: &str) -> Any {
    let violation = pb::bad_request::FieldViolation {
        field: field.to_owned(),
        description: message.to_owned(),
        ..Default::default()
    };
    any("google.rpc.BadRequest", &pb::BadRequest { field_violations: vec![violation] })
}

fn retry_info(retry_after: Duration) -> Any {
    let retry_delay = prost_types::Duration::try_from(retry_after).ok();
    any("google.rpc.RetryInfo", &pb::RetryInfo { retry_delay })
}

fn attempt(attempt: &crate::model::Attempt) -> Any {
    any("promptkeep.v1.Attempt", &proto::Attempt::from(attempt))
}

fn any(name: &str, message: &impl prost::Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}
