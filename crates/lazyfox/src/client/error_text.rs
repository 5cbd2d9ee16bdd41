//! Errors of handlers made readable. Workers pack type, message and traceback of an exception as
//! JSON into one string; a person wants the message first and the traceback with its line breaks.

use serde::Deserialize;

/// An error in its parts.
pub(super) struct ErrorText {
    /// Type and message, or the whole text when it has no parts.
    pub(super) message: String,
    pub(super) traceback: Option<String>,
}

#[derive(Deserialize)]
struct Packed {
    error_type: Option<String>,
    error_message: Option<String>,
    error_traceback: Option<String>,
}

impl ErrorText {
    pub(super) fn parse(text: &str) -> Self {
        let packed = match serde_json::from_str::<Packed>(text) {
            Ok(packed) if packed.error_message.is_some() || packed.error_traceback.is_some() => {
                packed
            }
            Ok(_) | Err(_) => {
                return Self {
                    message: text.to_owned(),
                    traceback: None,
                };
            }
        };
        let message = packed.error_message.unwrap_or_default();
        let message = match packed.error_type.as_deref().map(class_name) {
            Some(class) if !class.is_empty() && message.is_empty() => class.to_owned(),
            Some(class) if !class.is_empty() => format!("{class}: {message}"),
            Some(_) | None => message,
        };
        let traceback = packed
            .error_traceback
            .filter(|text| !text.trim().is_empty());
        Self { message, traceback }
    }

    /// What fits into a table's cell.
    pub(super) fn first_line(&self) -> &str {
        self.message.trim_start().lines().next().unwrap_or_default()
    }
}

/// Python prints the type of an exception as `<class 'ValueError'>`.
fn class_name(text: &str) -> &str {
    text.strip_prefix("<class '")
        .and_then(|rest| rest.strip_suffix("'>"))
        .unwrap_or(text)
}
