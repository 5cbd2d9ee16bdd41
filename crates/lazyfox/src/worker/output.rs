//! What a job brought forth, from bytes to what is reported.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::{self, Object};

/// The field by which a result asks for a fresh worker, as handlers of the public SDK do.
const REFRESH: &str = "refresh_worker";

/// How a job went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// JSON.
    Completed(Bytes),
    /// For the job's `error`.
    Failed(String),
    /// It was over before it was done; nobody waits for a result.
    Stopped,
    /// This worker can do no more work. What becomes of the job is the server's to decide.
    Broken(String),
}

/// The body of a report.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) body: Bytes,
    /// Whether a fresh worker shall do the next job.
    pub(super) refresh: bool,
}

impl Report {
    /// A job that is done, with its output as JSON.
    pub(super) fn completed(output: &Bytes) -> Self {
        let without = without_refresh(output);
        let refresh = without.is_some();
        let output = without.as_ref().unwrap_or(output);
        let mut report = Object::with_payload(output.len());
        report.raw("output", output);
        if refresh {
            report.raw("stopPod", b"true");
        }
        let body = report.into_bytes();
        Self { body, refresh }
    }

    /// A job that failed.
    pub(super) fn failed(error: &str) -> Self {
        let mut report = Object::new();
        report.string("error", error);
        let body = report.into_bytes();
        let refresh = false;
        Self { body, refresh }
    }
}

/// What a command printed or a server answered, as JSON: JSON stays as it is, other text becomes a string
/// without the line break at its end, and nothing becomes `null`.
pub(super) fn output(bytes: Bytes) -> Outcome {
    let trimmed = bytes.trim_ascii();
    if trimmed.is_empty() {
        return Outcome::Completed(Bytes::from_static(b"null"));
    }
    let is_json = |text: &[u8]| serde_json::from_slice::<&RawValue>(text).is_ok();
    if is_json(trimmed) {
        return Outcome::Completed(bytes.slice_ref(trimmed));
    }
    // What Python's encoder makes of numbers that JSON does not have.
    if let Some(clean) = json::without_nan(trimmed)
        && is_json(&clean)
    {
        return Outcome::Completed(clean.into());
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => {
            let text = text.strip_suffix('\n').unwrap_or(text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            let json = serde_json::to_vec(text).expect("a text can be written to memory");
            Outcome::Completed(json.into())
        }
        Err(e) => Outcome::Failed(format!(
            "the output of {} bytes is neither JSON nor UTF-8 text (byte {}); write other data as base64",
            bytes.len(),
            e.valid_up_to() + 1
        )),
    }
}

/// An object's fields in their order, with their values as they came.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(InOrder).map(Fields)
    }
}

/// The object without its `refresh_worker`, if it has one that is true.
fn without_refresh(output: &Bytes) -> Option<Bytes> {
    // Most outputs are not worth a second look.
    let mentions = output
        .windows(REFRESH.len())
        .any(|window| window == REFRESH.as_bytes());
    if !output.starts_with(b"{") || !mentions {
        return None;
    }
    let Fields(fields) = serde_json::from_slice(output).ok()?;
    let asks = |(name, value): &(Cow<'_, str>, &RawValue)| name == REFRESH && value.get() == "true";
    if !fields.iter().any(asks) {
        return None;
    }
    let mut rest = Object::with_payload(output.len());
    for (name, value) in fields.iter().filter(|(name, _)| name != REFRESH) {
        rest.escaped(name, value.get().as_bytes());
    }
    Some(rest.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_text_becomes_a_string_and_nothing_null() {
        for (printed, expected) in [
            ("{\"n\": 1.50}\n", "{\"n\": 1.50}"),
            (" [1, 2]", "[1, 2]"),
            ("42\n", "42"),
            ("", "null"),
            (" \n\n", "null"),
            ("hello, \"fox\"\r\n", r#""hello, \"fox\"""#),
            ("two\nlines\n\n", r#""two\nlines\n""#),
            ("{\"a\": NaN, \"b\": \"NaN\"}", r#"{"a": null, "b": "NaN"}"#),
            ("{\"a\": 1} {\"b\": 2}", r#""{\"a\": 1} {\"b\": 2}""#),
        ] {
            let found = output(Bytes::from(printed));
            assert_eq!(
                found,
                Outcome::Completed(Bytes::from(expected)),
                "{printed:?}"
            );
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_not_made_into_something_else() {
        let Outcome::Failed(error) = output(Bytes::from_static(b"ab\xff")) else {
            panic!("it is no text");
        };
        assert!(
            error.contains("3 bytes is neither JSON nor UTF-8 text (byte 3)"),
            "{error}"
        );
    }

    #[test]
    fn a_result_can_ask_for_a_fresh_worker() {
        let report = |text: &'static str| Report::completed(&Bytes::from(text));
        let asked = report(r#"{"b": [1,  2], "refresh_worker": true, "\u0061": 1e3}"#);
        assert!(asked.refresh);
        assert_eq!(
            asked.body,
            r#"{"output":{"b":[1,  2],"a":1e3},"stopPod":true}"#
        );
        for other in [
            r#"{"refresh_worker": false}"#,
            r#"{"refresh_worker": 1}"#,
            r#"{"deep": {"refresh_worker": true}}"#,
            r#"["refresh_worker"]"#,
            r#""refresh_worker""#,
        ] {
            let report = report(other);
            assert!(!report.refresh, "{other}");
            assert_eq!(report.body, format!("{{\"output\":{other}}}"));
        }
        let failed = Report::failed("no \"fox\"");
        assert_eq!(failed.body, r#"{"error":"no \"fox\""}"#);
    }
}
