//! What goes wrong with a request, as OpenAI's API says it.

use esolm::Error;
use hyper::StatusCode;
use serde_json::{Value, json};

/// Longest message in characters: it may quote a request.
const LONGEST: usize = 1000;

/// Why a request gets no answer.
#[derive(Debug, Clone)]
pub struct Failure {
    pub status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl Failure {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(LONGEST) {
            message.truncate(end);
            message.push_str("..");
        }
        Self { status, message, kind, param: None, code: None }
    }

    /// A request that is wrong.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A parameter that is wrong.
    pub fn parameter(name: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(name), ..Self::wrong(format!("'{name}' {}", message.into())) }
    }

    /// A prompt that leaves no room for an answer.
    pub fn too_long(tokens: usize, most: usize) -> Self {
        let message =
            format!("the prompt has {tokens} tokens; the context has {most}, the answer's included");
        Self { code: Some("context_length_exceeded"), ..Self::wrong(message) }
    }

    /// A gap that does not fit, with the tokens that stand around it.
    pub fn too_long_gap(given: usize, gap: usize, most: usize) -> Self {
        let message = format!(
            "'max_tokens' of {gap} between prompt and suffix of {given} tokens; the context has {most} in all"
        );
        Self { code: Some("context_length_exceeded"), ..Self::wrong(message) }
    }

    pub fn unauthorized() -> Self {
        let message = "the API key is missing or wrong (header 'Authorization: Bearer KEY')";
        let own = Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message);
        Self { code: Some("invalid_api_key"), ..own }
    }

    pub fn other_site() -> Self {
        let message = "requests from pages of other sites are refused where no key is asked for (--api-key)";
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message)
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", format!("there is no {what}"))
    }

    pub fn other_model(given: &str, own: &str) -> Self {
        let what = format!("model '{given}'; this server has '{own}'");
        Self { code: Some("model_not_found"), param: Some("model"), ..Self::not_found(&what) }
    }

    pub fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "this path takes another method")
    }

    pub fn content_type() -> Self {
        let message = "the body is to be 'Content-Type: application/json'";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message)
    }

    pub fn too_large(most: usize) -> Self {
        let message = format!("the body has more than {most} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    pub fn slow_body() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "the body did not come in time")
    }

    /// A request for more texts than may ever wait.
    pub fn too_many_texts(texts: usize, most: usize) -> Self {
        Self::wrong(format!("the request is for {texts} texts; at most {most} can wait and be written here"))
    }

    pub fn busy() -> Self {
        Self::too_many("too many requests wait; try again later")
    }

    /// Clients send too much at once.
    pub fn too_many_bodies() -> Self {
        Self::too_many("too much of other requests is in memory; try again later")
    }

    /// Clients leave too much of their answers where it is.
    pub fn unread() -> Self {
        Self::too_many("too much of other answers has not been taken yet; try again later")
    }

    fn too_many(message: &str) -> Self {
        let own = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some("rate_limit_exceeded"), ..own }
    }

    pub fn out_of_time() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", "the answer was not complete in time")
    }

    pub fn ending() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "the server is ending")
    }

    /// As JSON.
    pub fn body(&self) -> Value {
        let Self { message, kind, param, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidArgument(_) | Error::Unsupported(_) | Error::Tokenizer { .. } => {
                Self::wrong(error.to_string())
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", error.to_string()),
        }
    }
}
