//! Everything that can be wrong with a call, with its status, its code and its text.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use lazyfox_store::StoreError;

use crate::json::Object;

/// What handlers return.
pub(super) type ApiResult<T> = Result<T, ApiError>;

/// What is wrong, for programs. Each has a page in docs/errors/.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each code has a page in docs/errors/")]
pub enum Code {
    InvalidJson,
    MissingInput,
    InvalidPolicy,
    InvalidWebhook,
    InvalidS3Config,
    InvalidQuery,
    InvalidIdempotencyKey,
    InvalidWorker,
    IdempotencyConflict,
    PayloadTooLarge,
    Unauthorized,
    Forbidden,
    EndpointNotFound,
    JobNotFound,
    DeliveryNotFound,
    NotRetryable,
    NotRedeliverable,
    RouteNotFound,
    MethodNotAllowed,
    WorkerRefused,
    TooManyListeners,
    InvalidSettings,
    InvalidConfig,
    ShuttingDown,
    StoreUnavailable,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::InvalidJson,
        Self::MissingInput,
        Self::InvalidPolicy,
        Self::InvalidWebhook,
        Self::InvalidS3Config,
        Self::InvalidQuery,
        Self::InvalidIdempotencyKey,
        Self::InvalidWorker,
        Self::IdempotencyConflict,
        Self::PayloadTooLarge,
        Self::Unauthorized,
        Self::Forbidden,
        Self::EndpointNotFound,
        Self::JobNotFound,
        Self::DeliveryNotFound,
        Self::NotRetryable,
        Self::NotRedeliverable,
        Self::RouteNotFound,
        Self::MethodNotAllowed,
        Self::WorkerRefused,
        Self::TooManyListeners,
        Self::InvalidSettings,
        Self::InvalidConfig,
        Self::ShuttingDown,
        Self::StoreUnavailable,
    ];

    /// As `code` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::MissingInput => "missing_input",
            Self::InvalidPolicy => "invalid_policy",
            Self::InvalidWebhook => "invalid_webhook",
            Self::InvalidS3Config => "invalid_s3_config",
            Self::InvalidQuery => "invalid_query",
            Self::InvalidIdempotencyKey => "invalid_idempotency_key",
            Self::InvalidWorker => "invalid_worker",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::EndpointNotFound => "endpoint_not_found",
            Self::JobNotFound => "job_not_found",
            Self::DeliveryNotFound => "delivery_not_found",
            Self::NotRetryable => "not_retryable",
            Self::NotRedeliverable => "not_redeliverable",
            Self::RouteNotFound => "route_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::WorkerRefused => "worker_refused",
            Self::TooManyListeners => "too_many_listeners",
            Self::InvalidSettings => "invalid_settings",
            Self::InvalidConfig => "invalid_config",
            Self::ShuttingDown => "shutting_down",
            Self::StoreUnavailable => "store_unavailable",
        }
    }

    /// Its HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidJson
            | Self::MissingInput
            | Self::InvalidPolicy
            | Self::InvalidWebhook
            | Self::InvalidS3Config
            | Self::InvalidQuery
            | Self::InvalidIdempotencyKey
            | Self::InvalidSettings
            | Self::InvalidWorker
            | Self::NotRetryable => StatusCode::BAD_REQUEST,
            // The call is fine; the file that it is about is not.
            Self::IdempotencyConflict | Self::NotRedeliverable | Self::InvalidConfig => {
                StatusCode::CONFLICT
            }
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::EndpointNotFound
            | Self::JobNotFound
            | Self::DeliveryNotFound
            | Self::RouteNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            // The only refusal after which a worker's SDK pauses before it asks again.
            Self::WorkerRefused | Self::TooManyListeners => StatusCode::TOO_MANY_REQUESTS,
            Self::ShuttingDown | Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn retry_after_s(self) -> Option<u32> {
        match self {
            Self::WorkerRefused | Self::TooManyListeners => Some(5),
            Self::ShuttingDown => Some(2),
            Self::StoreUnavailable => Some(1),
            Self::InvalidJson
            | Self::MissingInput
            | Self::InvalidPolicy
            | Self::InvalidWebhook
            | Self::InvalidS3Config
            | Self::InvalidQuery
            | Self::InvalidIdempotencyKey
            | Self::InvalidWorker
            | Self::IdempotencyConflict
            | Self::PayloadTooLarge
            | Self::Unauthorized
            | Self::Forbidden
            | Self::EndpointNotFound
            | Self::JobNotFound
            | Self::DeliveryNotFound
            | Self::NotRetryable
            | Self::NotRedeliverable
            | Self::InvalidSettings
            | Self::InvalidConfig
            | Self::RouteNotFound
            | Self::MethodNotAllowed => None,
        }
    }
}

/// A call that cannot be answered as asked.
#[derive(Debug)]
pub(super) struct ApiError {
    code: Code,
    message: String,
    limit: Option<usize>,
}

impl ApiError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            limit: None,
        }
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("body exceeds {limit} bytes");
        Self {
            limit: Some(limit),
            ..Self::new(Code::PayloadTooLarge, message)
        }
    }

    pub(super) fn no_job() -> Self {
        Self::new(Code::JobNotFound, "job not found or expired")
    }

    /// Whether it is the caller who is in the way.
    pub(super) fn is_refusal(&self) -> bool {
        self.code.status().is_client_error()
    }

    pub(super) fn closing() -> Self {
        Self::new(
            Code::ShuttingDown,
            "the server is shutting down, try again in a moment",
        )
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        match &e {
            StoreError::Unavailable(why) => {
                tracing::error!(error = %why, "the store is unavailable");
                Self::new(
                    Code::StoreUnavailable,
                    format!("{e}; nothing was changed, try again"),
                )
            }
            StoreError::Unknown(why) => {
                tracing::error!(error = %why, "the store did not say whether something happened");
                Self::new(
                    Code::StoreUnavailable,
                    format!(
                        "{e}; it may have happened: look, or try again with the same \
                         Idempotency-Key"
                    ),
                )
            }
            StoreError::Corrupt(_) | StoreError::Open(_) => {
                tracing::error!(
                    error = %e,
                    "the store cannot be read; stop the server, keep a copy of its data directory, \
                     and see docs/operating.md, \"When the store does not open\""
                );
                let message = "the server cannot read its store; its log says what to do";
                Self::new(Code::StoreUnavailable, message)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let mut body = Object::new();
        body.string("error", &self.message);
        body.string("code", self.code.as_str());
        if let Some(limit) = self.limit {
            body.number("limit", limit);
        }
        let mut response = body.into_response();
        *response.status_mut() = self.code.status();
        if let Some(seconds) = self.code.retry_after_s() {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn every_code_has_its_page() {
        let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
        for code in Code::ALL {
            let page = format!("{pages}/{}.md", code.as_str());
            let text = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{page}: {e}"));
            let title = format!("# {} ({})", code.as_str(), code.status().as_u16());
            assert!(text.starts_with(&title), "{page} should begin with {title}");
        }
        let count = std::fs::read_dir(pages).unwrap().count();
        assert_eq!(
            count,
            Code::ALL.len() + 1,
            "a page for each code, and README.md"
        );
    }
}
