//! A job as the server hands it out.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest id of a job; the server's own have 41 characters.
const ID_BYTES_MAX: usize = 128;

/// One job to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// Fits into a URL, an environment variable and a line of the log.
    pub(super) id: String,
    /// `input` as it came, byte for byte; `null` where there is none.
    pub(super) input: Bytes,
    /// The whole as it came: `id`, `input`, and whatever else belongs to the job.
    pub(super) document: Bytes,
}

#[derive(Deserialize)]
struct Parts<'a> {
    id: String,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// Reads an answer to a call for work: one job, or a list of them.
pub(super) fn jobs(body: &Bytes) -> Result<Vec<Job>, String> {
    let documents: Vec<&RawValue> = if body.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(body)
    } else {
        serde_json::from_slice(body).map(|one| vec![one])
    }
    .map_err(|e| format!("the answer is not JSON: {e}"))?;
    let parsed = documents.into_iter().map(|raw| job(body, raw));
    parsed.collect()
}

fn job(body: &Bytes, raw: &RawValue) -> Result<Job, String> {
    let parts: Parts<'_> =
        serde_json::from_str(raw.get()).map_err(|e| format!("a job cannot be read: {e}"))?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !(1..=ID_BYTES_MAX).contains(&parts.id.len()) || !parts.id.bytes().all(fits) {
        return Err(format!(
            "a job has the id {:?}, it should be 1 to {ID_BYTES_MAX} letters, digits, '-' and '_'",
            parts.id.chars().take(ID_BYTES_MAX).collect::<String>()
        ));
    }
    Ok(Job {
        id: parts.id,
        input: parts.input.map_or_else(
            || Bytes::from_static(b"null"),
            |raw| body.slice_ref(raw.get().as_bytes()),
        ),
        document: body.slice_ref(raw.get().as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_many_byte_for_byte() {
        let one = Bytes::from(r#" {"input": {"n": 1.50},"id":"sync-1","s3Config":{}} "#);
        let parsed = jobs(&one).unwrap();
        assert_eq!(parsed.len(), 1);
        assert_eq!(parsed[0].id, "sync-1");
        assert_eq!(parsed[0].input, r#"{"n": 1.50}"#);
        assert_eq!(parsed[0].document, one.trim_ascii());
        let two = jobs(&Bytes::from(r#"[{"id":"a","input":1},{"id":"b"}]"#)).unwrap();
        let inputs: Vec<_> = two.iter().map(|job| (&*job.id, &job.input[..])).collect();
        assert_eq!(inputs, [("a", &b"1"[..]), ("b", b"null")]);
        assert_eq!(jobs(&Bytes::from("[]")).unwrap(), []);
    }

    #[test]
    fn what_is_no_job_is_an_error_and_no_url() {
        for (body, expected) in [
            ("<html>", "the answer is not JSON"),
            ("null", "a job cannot be read"),
            (r#"[{"id":7,"input":1}]"#, "a job cannot be read"),
            (r#"{"id":"../x","input":1}"#, "a job has the id \"../x\""),
            (r#"{"id":"","input":1}"#, "it should be 1 to 128"),
        ] {
            let error = jobs(&Bytes::from(body)).unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }
}
