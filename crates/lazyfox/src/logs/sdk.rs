//! The public SDK's own log lines, as it writes them inside a worker:
//! `{"requestId": JOB, "message": TEXT, "level": LEVEL}`.

use std::borrow::Cow;

use serde::Deserialize;

/// One of them.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Said<'a> {
    /// Not there outside of jobs.
    #[serde(rename = "requestId", borrow)]
    pub(crate) job: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) message: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) level: Cow<'a, str>,
}

impl<'a> Said<'a> {
    /// `None` for any other line.
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        // Most lines of most handlers are none, and this is asked of every line that is read.
        let may_be = line.starts_with('{') && line.contains("\"level\"");
        may_be.then(|| serde_json::from_str(line).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sdks_lines_are_its_lines() {
        let line =
            r#"{"requestId": "j\"1", "message": "Loading \u2603", "level": "INFO", "more": 1}"#;
        let said = Said::parse(line).unwrap();
        assert_eq!(said.job.as_deref(), Some("j\"1"));
        assert_eq!((&*said.message, &*said.level), ("Loading ☃", "INFO"));
        let none = r#"{"requestId": null, "message": "up", "level": "DEBUG"}"#;
        assert_eq!(Said::parse(none).unwrap().job, None);
        for other in [
            "plain",
            "",
            "{\"level\"",
            r#"{"message": 1, "level": "INFO"}"#,
            r#"{"message": "no level"}"#,
            r#"["level"]"#,
        ] {
            assert_eq!(Said::parse(other), None, "{other}");
        }
    }
}
