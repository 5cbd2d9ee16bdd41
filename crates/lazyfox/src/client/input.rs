//! From INPUT and options to the request's body, without touching the text of the input.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};

use serde_json::value::{RawValue, to_raw_value};

use super::args::SubmitArgs;
use super::console::Console;
use super::failure::Failure;

/// The values of an object as they stand in its text.
type RawObject = BTreeMap<String, Box<RawValue>>;

/// The body of a submit.
pub(super) fn submit_body(args: &SubmitArgs, console: &mut Console) -> Result<String, Failure> {
    let text = match args.input.as_str() {
        "-" => read_stdin(console)?,
        other => read_argument(other, "INPUT")?,
    };
    let s3_config = match &args.s3_config {
        Some(argument) => {
            let text = read_argument(argument, "--s3-config")?;
            Some(parse(&text, "--s3-config")?)
        }
        None => None,
    };
    let input = parse(&text, "INPUT")?;
    let (mut request, is_whole) = match serde_json::from_str::<RawObject>(input.get()) {
        Ok(request) if request.contains_key("input") => (request, true),
        // Not an object, or one that is itself the input.
        Ok(_) | Err(_) => (
            RawObject::from([("input".to_owned(), input.clone())]),
            false,
        ),
    };
    let changed = add_options(&mut request, args, s3_config)?;
    if is_whole && !changed {
        return Ok(input.get().to_owned());
    }
    Ok(serialize(&request))
}

/// Puts the options beside the input; an option wins over what the text says. Tells whether there
/// was anything to put.
fn add_options(
    request: &mut RawObject,
    args: &SubmitArgs,
    s3_config: Option<Box<RawValue>>,
) -> Result<bool, Failure> {
    let mut changed = false;
    if let Some(url) = &args.webhook {
        request.insert("webhook".to_owned(), raw(url));
        changed = true;
    }
    if let Some(config) = s3_config {
        request.insert("s3Config".to_owned(), config);
        changed = true;
    }
    let mut policy = RawObject::new();
    if let Some(ms) = args.execution_timeout {
        policy.insert("executionTimeout".to_owned(), raw(&ms));
    }
    if let Some(ms) = args.ttl {
        policy.insert("ttl".to_owned(), raw(&ms));
    }
    if args.low_priority {
        policy.insert("lowPriority".to_owned(), raw(&true));
    }
    if policy.is_empty() {
        return Ok(changed);
    }
    if let Some(given) = request.get("policy") {
        let given: RawObject = serde_json::from_str(given.get())
            .map_err(|error| Failure::Usage(format!("\"policy\" in INPUT: {error}")))?;
        for (key, value) in given {
            policy.entry(key).or_insert(value);
        }
    }
    request.insert("policy".to_owned(), raw(&policy));
    Ok(true)
}

fn read_argument(argument: &str, name: &str) -> Result<String, Failure> {
    match argument.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Failure::Usage(format!("{name}: cannot read {path}: {error}"))),
        None => Ok(argument.to_owned()),
    }
}

fn read_stdin(console: &mut Console) -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        console.note("reading the input from the terminal; Ctrl-D ends it");
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::Usage(format!("cannot read INPUT from stdin: {error}")))?;
    Ok(text)
}

/// Checks that the text is JSON, so that a forgotten quote is explained here and not as an HTTP
/// status.
fn parse(text: &str, name: &str) -> Result<Box<RawValue>, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::Usage(format!(
            "{name} is not JSON: {error}\n       plain text needs quotes of its own: '\"text\"'; \
             a file needs an @: @file.json"
        ))
    })
}

fn raw<T: serde::Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    to_raw_value(value).expect("strings, numbers and JSON texts can always be serialised")
}

fn serialize(request: &RawObject) -> String {
    serde_json::to_string(request).expect("JSON texts can always be serialised")
}
