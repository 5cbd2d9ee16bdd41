//! JSON as bytes: objects written field by field, so that payloads pass through untouched.

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use axum::response::IntoResponse;
use bytes::Bytes;

/// A JSON object under construction.
pub(crate) struct Object {
    text: Vec<u8>,
}

impl Object {
    pub(crate) fn new() -> Self {
        Self { text: vec![b'{'] }
    }

    /// One that will hold a payload of this size.
    pub(crate) fn with_payload(bytes: usize) -> Self {
        let mut text = Vec::with_capacity(bytes + 512);
        text.push(b'{');
        Self { text }
    }

    fn name(&mut self, name: &str) {
        if self.text.len() > 1 {
            self.text.push(b',');
        }
        self.text.push(b'"');
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":");
    }

    pub(crate) fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        serde_json::to_writer(&mut self.text, value).expect("a string can be written to memory");
    }

    pub(crate) fn number(&mut self, name: &str, value: impl whole::Number) {
        self.name(name);
        value.write(&mut self.text);
    }

    pub(crate) fn bool(&mut self, name: &str, value: bool) {
        self.raw(name, if value { b"true" } else { b"false" });
    }

    /// A field whose value is JSON already.
    pub(crate) fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.text.extend_from_slice(json);
    }

    /// The same for a name that somebody else chose.
    pub(crate) fn escaped(&mut self, name: &str, json: &[u8]) {
        if self.text.len() > 1 {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, name).expect("a string can be written to memory");
        self.text.push(b':');
        self.text.extend_from_slice(json);
    }

    pub(crate) fn into_bytes(mut self) -> Bytes {
        self.text.push(b'}');
        self.text.into()
    }
}

impl IntoResponse for Object {
    fn into_response(self) -> Response<Body> {
        respond(Body::from(self.into_bytes()))
    }
}

/// A 200 with a JSON body.
pub(crate) fn respond(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Whole numbers, as the wire wants them.
pub(crate) mod whole {
    use std::io::Write as _;

    pub(crate) trait Number {
        fn write(self, to: &mut Vec<u8>);
    }

    macro_rules! numbers {
        ($($type:ty),*) => {$(
            impl Number for $type {
                fn write(self, to: &mut Vec<u8>) {
                    write!(to, "{self}").expect("memory can be written to");
                }
            }
        )*};
    }

    numbers!(u32, u64, i64, usize);
}

/// Joins JSON documents to an array.
pub(crate) fn array(items: impl IntoIterator<Item = Bytes>) -> Vec<u8> {
    let mut text = vec![b'['];
    for item in items {
        if text.len() > 1 {
            text.push(b',');
        }
        text.extend_from_slice(&item);
    }
    text.push(b']');
    text
}

/// Makes JSON of what Python's encoder writes for numbers that JSON does not have: `NaN`,
/// `Infinity` and `-Infinity` outside of strings become `null`. `None` when there is none of them.
pub(crate) fn without_nan(text: &[u8]) -> Option<Vec<u8>> {
    let mut clean = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    let mut found = false;
    while let Some(&byte) = rest.first() {
        let mut take = 1;
        if in_string {
            match byte {
                b'\\' => take = 2.min(rest.len()),
                b'"' => in_string = false,
                _ => {}
            }
        } else if byte == b'"' {
            in_string = true;
        } else if let Some(word) = [&b"NaN"[..], b"Infinity", b"-Infinity"]
            .into_iter()
            .find(|word| rest.starts_with(word))
        {
            clean.extend_from_slice(b"null");
            rest = &rest[word.len()..];
            found = true;
            continue;
        }
        clean.extend_from_slice(&rest[..take]);
        rest = &rest[take..];
    }
    found.then_some(clean)
}

/// The deepest nesting of a JSON text, counted without recursion.
pub(crate) fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            bytes.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_keep_payloads_as_they_came() {
        let mut object = Object::new();
        object.string("a", "q\"\n\u{1}é");
        object.number("n", 7_u64);
        object.raw("raw", b"{ \"x\" : 1e999 }");
        assert_eq!(
            object.into_bytes(),
            "{\"a\":\"q\\\"\\n\\u0001é\",\"n\":7,\"raw\":{ \"x\" : 1e999 }}".as_bytes()
        );
    }

    #[test]
    fn pythons_numbers_become_null_outside_of_strings_only() {
        let text = br#"{"v": NaN, "i": [Infinity, -Infinity], "s": "NaN \" Infinity", "n": -1}"#;
        let clean = without_nan(text).unwrap();
        let expected = br#"{"v": null, "i": [null, null], "s": "NaN \" Infinity", "n": -1}"#;
        assert_eq!(clean, expected);
        assert_eq!(without_nan(br#"{"s": "NaN"}"#), None);
        assert_eq!(without_nan(b"\"open \\"), None);
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert_eq!(depth(b"1"), 0);
        assert_eq!(depth(br#"{"a":[{"b":"[[[\"[["}]}"#), 3);
        assert_eq!(depth("[".repeat(10_000).as_bytes()), 10_000);
    }
}
