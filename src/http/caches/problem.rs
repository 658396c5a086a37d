//! Errors of the cache-aside REST API: problem details (RFC 7807).

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{error::Error, http::failure::Failure};

/// An error as the caller sees it.
pub(in crate::http) struct Problem(Failure);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Failure { status, message, param, .. } = &self.0;
        let kind = match *status {
            StatusCode::BAD_REQUEST => "/errors/invalid-data",
            StatusCode::UNAUTHORIZED => "/errors/authentication-failed",
            StatusCode::NOT_FOUND => "/errors/resource-not-found",
            StatusCode::PAYLOAD_TOO_LARGE => "/errors/payload-too-large",
            StatusCode::TOO_MANY_REQUESTS => "/errors/too-many-requests",
            _ => "/errors/unexpected-error",
        };
        let mut body = json!({
            "title": status.canonical_reason().unwrap_or("Error"),
            "type": kind,
            "status": status.as_u16(),
            "detail": message,
        });
        if let Some(field) = param {
            body["fields"] = json!([{ "field": field, "rule": "invalid", "message": message }]);
        }
        self.0.respond_with(&body)
    }
}
