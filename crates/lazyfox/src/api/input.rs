//! What a client submits, from bytes to parts that cannot be wrong.

use std::collections::BTreeMap;

use bytes::Bytes;
use lazyfox_core::limits;
use lazyfox_core::policy::Asked;
use lazyfox_store::Webhook;
use serde::Deserialize;
use serde_json::Number;
use serde_json::value::RawValue;

use super::error::{ApiError, ApiResult, Code};
use crate::json;
use crate::webhooks::target::{BadTarget, Rules, Target};

/// A submission's parts. Every other top-level key was dropped.
#[derive(Debug)]
pub(super) struct Submission {
    /// `input` as it came, byte for byte.
    pub(super) input: Bytes,
    pub(super) webhook: Option<Webhook>,
    pub(super) asked: Asked,
    /// `s3Config` as it came.
    pub(super) s3_config: Option<Bytes>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    webhook: Option<&'a RawValue>,
    /// In the public SDKs' types, undocumented: an alias.
    #[serde(borrow, rename = "webhookV2")]
    webhook_v2: Option<&'a RawValue>,
    #[serde(borrow)]
    policy: Option<&'a RawValue>,
    #[serde(borrow, rename = "s3Config")]
    s3_config: Option<&'a RawValue>,
}

impl Submission {
    /// Reads a request body.
    pub(super) fn parse(body: &Bytes, rules: &Rules) -> ApiResult<Self> {
        let invalid = |message: String| ApiError::new(Code::InvalidJson, message);
        let text = std::str::from_utf8(body).map_err(|e| {
            let (line, column) = position(&body[..e.valid_up_to()]);
            invalid(format!(
                "the body is not UTF-8 at line {line} column {column}"
            ))
        })?;
        match text
            .trim_start_matches([' ', '\t', '\r', '\n'])
            .as_bytes()
            .first()
        {
            Some(b'{') => {}
            None => {
                return Err(invalid(
                    "the body is empty, it should be a JSON object".to_owned(),
                ));
            }
            // Other things may be broken JSON; the parser says where.
            Some(_) => {
                serde_json::from_str::<&RawValue>(text).map_err(|e| invalid(syntax(&e)))?;
                return Err(invalid(
                    "the body should be a JSON object with \"input\"".to_owned(),
                ));
            }
        }
        let depth = json::depth(text.as_bytes());
        if depth > limits::JSON_DEPTH {
            return Err(invalid(format!(
                "the body is nested {depth} levels deep, allowed are {}; workers cannot decode more",
                limits::JSON_DEPTH
            )));
        }
        let parts: Body<'_> = serde_json::from_str(text).map_err(|e| invalid(syntax(&e)))?;
        let Some(input) = parts.input else {
            let message = "input is required and must not be null";
            return Err(ApiError::new(Code::MissingInput, message));
        };
        Ok(Self {
            input: body.slice_ref(input.get().as_bytes()),
            webhook: parts
                .webhook
                .or(parts.webhook_v2)
                .map(|raw| webhook(raw, rules))
                .transpose()?,
            asked: parts.policy.map(policy).transpose()?.unwrap_or_default(),
            s3_config: parts
                .s3_config
                .map(|raw| s3_config(raw).map(|()| body.slice_ref(raw.get().as_bytes())))
                .transpose()?,
        })
    }
}

fn syntax(e: &serde_json::Error) -> String {
    format!("the body is not valid JSON: {e}")
}

/// Line and column, counted from 1, of the byte after these.
fn position(before: &[u8]) -> (usize, usize) {
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = before
        .iter()
        .rev()
        .take_while(|&&byte| byte != b'\n')
        .count()
        + 1;
    (line, column)
}

/// A value for an error message, cut to a readable length.
fn shown(raw: &RawValue) -> String {
    let text = raw.get();
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

fn webhook(raw: &RawValue, rules: &Rules) -> ApiResult<Webhook> {
    let refused = |why: BadTarget| {
        let message = format!("webhook is {}, {why}", shown(raw));
        ApiError::new(Code::InvalidWebhook, message)
    };
    let text: Result<String, _> = serde_json::from_str(raw.get());
    let url = text.map_err(|_| refused(BadTarget::NotHttp))?;
    let target = Target::parse(&url, rules).map_err(refused)?;
    let host = target.host().to_owned();
    Ok(Webhook { url, host })
}

/// The fields of an object, each as it came: numbers that no machine type holds and texts that are no
/// Unicode are the field's own fault, and are named with it.
fn fields(raw: &RawValue) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

fn policy(raw: &RawValue) -> ApiResult<Asked> {
    let refused = |message: String| ApiError::new(Code::InvalidPolicy, message);
    let Some(fields) = fields(raw) else {
        return Err(refused(format!(
            "policy is {}, it should be an object",
            shown(raw)
        )));
    };
    let given = |name: &str| fields.get(name).filter(|raw| raw.get() != "null");
    let ms = |name: &str| match given(name) {
        None => Ok(None),
        Some(raw) => whole(raw).map(Some).ok_or_else(|| {
            refused(format!(
                "policy.{name} is {}, it should be a whole number of milliseconds",
                shown(raw)
            ))
        }),
    };
    let low_priority = match given("lowPriority").map(|raw| raw.get()) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            let value = given("lowPriority").map_or_else(String::new, |raw| shown(raw));
            let message = format!("policy.lowPriority is {value}, it should be true or false");
            return Err(refused(message));
        }
    };
    Ok(Asked {
        execution_timeout_ms: ms("executionTimeout")?,
        ttl_ms: ms("ttl")?,
        low_priority,
    })
}

/// A whole number; `600000.0` is one too, since some languages print them so.
fn whole(raw: &RawValue) -> Option<i64> {
    let number: Number = serde_json::from_str(raw.get()).ok()?;
    if let Some(whole) = number.as_i64() {
        return Some(whole);
    }
    let float = number.as_f64()?;
    // Everything beyond is out of any range; the nearest whole number says so as well.
    (float.fract() == 0.0).then_some(float as i64)
}

fn s3_config(raw: &RawValue) -> ApiResult<()> {
    let refused = |message: String| ApiError::new(Code::InvalidS3Config, message);
    // The value is a secret: no message shows any of it.
    if raw.get().len() > limits::S3_CONFIG_BYTES {
        return Err(refused(format!(
            "s3Config is {} bytes long, allowed are {}",
            raw.get().len(),
            limits::S3_CONFIG_BYTES
        )));
    }
    let Some(fields) = fields(raw) else {
        return Err(refused("s3Config should be an object".to_owned()));
    };
    for name in ["accessId", "accessSecret", "bucketName", "endpointUrl"] {
        let text = fields
            .get(name)
            .map(|raw| serde_json::from_str::<String>(raw.get()));
        match text {
            Some(Ok(text)) if !text.is_empty() => {}
            Some(Ok(_)) | None => {
                return Err(refused(format!("s3Config.{name} is missing or empty")));
            }
            Some(Err(_)) => return Err(refused(format!("s3Config.{name} should be a string"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
