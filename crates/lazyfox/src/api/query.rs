//! Query parameters: the few that calls know, the rest ignored.

use axum::http::Uri;
use lazyfox_core::limits;

use super::error::{ApiError, ApiResult, Code};

/// Entries of a page, unless asked otherwise.
const PAGE: u64 = 50;
/// Most entries of a page.
const PAGE_MAX: u64 = 100;

/// The query of a request.
pub(super) struct Params<'a> {
    query: &'a str,
}

impl<'a> Params<'a> {
    pub(super) fn of(uri: &'a Uri) -> Self {
        Self {
            query: uri.query().unwrap_or_default(),
        }
    }

    /// The first value of a parameter, decoded.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let mut pairs = self
            .query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        Some(decode(value))
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> ApiResult<Option<u64>> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.parse::<u64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(ApiError::new(
                Code::InvalidQuery,
                format!("{name} is {text:?}, it should be a whole number"),
            )),
        }
    }

    /// One of a few words: `known` says how they are spelled, `parse` reads them.
    pub(super) fn word<T, const N: usize>(
        &self,
        name: &str,
        parse: fn(&str) -> Option<T>,
        known: [&str; N],
    ) -> ApiResult<Option<T>> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        parse(&text).map(Some).ok_or_else(|| {
            let known = known.join(", ");
            let message = format!("{name} is {text:?}, it should be one of {known}");
            ApiError::new(Code::InvalidQuery, message)
        })
    }

    /// `limit`: how many entries a page of a list has.
    pub(super) fn page(&self) -> ApiResult<usize> {
        let limit = self.number("limit")?.unwrap_or(PAGE);
        if limit == 0 || limit > PAGE_MAX {
            let message = format!("limit is {limit}, allowed are 1 to {PAGE_MAX}");
            return Err(ApiError::new(Code::InvalidQuery, message));
        }
        Ok(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// `wait` in milliseconds: clamped to its range, as the public contract does.
    pub(super) fn wait_ms(&self, default: u64) -> ApiResult<u64> {
        let Some(text) = self.get("wait") else {
            return Ok(default);
        };
        // The only negative or fractional number that makes sense is the nearest in the range.
        match text.parse::<f64>() {
            Ok(ms) if ms.is_finite() => {
                let clamped = ms.clamp(limits::WAIT_MS_MIN as f64, limits::WAIT_MS_MAX as f64);
                Ok(clamped as u64)
            }
            Ok(_) | Err(_) => Err(ApiError::new(
                Code::InvalidQuery,
                format!(
                    "wait is {text:?}, it should be a number of milliseconds, {} to {}",
                    limits::WAIT_MS_MIN,
                    limits::WAIT_MS_MAX
                ),
            )),
        }
    }
}

/// Decodes `%XX` and `+`; what is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let spaces: Vec<u8> = text
        .bytes()
        .map(|byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    String::from_utf8_lossy(&unescaped(&spaces)).into_owned()
}

/// Decodes `%XX`; what is no valid escape stays as it is.
pub(super) fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                bytes.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            Some(_) | None => bytes.push(byte),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(query: &str) -> Uri {
        format!("/x?{query}").parse().unwrap()
    }

    #[test]
    fn values_are_decoded() {
        let uri = uri("gpu=NVIDIA+RTX&job_id=a%2Cb&bad=%zz&flag");
        let params = Params::of(&uri);
        assert_eq!(params.get("gpu").as_deref(), Some("NVIDIA RTX"));
        assert_eq!(params.get("job_id").as_deref(), Some("a,b"));
        assert_eq!(params.get("bad").as_deref(), Some("%zz"));
        assert_eq!(params.get("flag").as_deref(), Some(""));
        assert_eq!(params.get("none"), None);
    }

    #[test]
    fn wait_is_clamped_and_must_be_a_number() {
        let wait = |query: &str| Params::of(&uri(query)).wait_ms(7).map_err(|_| ());
        assert_eq!(wait(""), Ok(7));
        assert_eq!(wait("wait=1"), Ok(1_000));
        assert_eq!(wait("wait=-5"), Ok(1_000));
        assert_eq!(wait("wait=5000"), Ok(5_000));
        assert_eq!(wait("wait=99999999"), Ok(300_000));
        for bad in ["wait=", "wait=soon", "wait=NaN", "wait=inf"] {
            assert_eq!(wait(bad), Err(()), "{bad}");
        }
    }
}
