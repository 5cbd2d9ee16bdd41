//! `webhook-secret`: what receivers check the signatures of webhooks with.

use serde::Deserialize;

use super::args::WebhookSecretArgs;
use super::call::{Request, Server};
use super::console::Console;
use super::failure::{Failure, Outcome};
use super::show::printable;
use super::table::Table;
use super::times::utc;

const HEADER: [&str; 3] = ["ID", "CREATED (UTC)", "VALID UNTIL (UTC)"];
const WIDTHS: [usize; 3] = [12, 19, 0];

/// Lists the secrets or makes a new one.
pub(super) async fn webhook_secret(
    args: &WebhookSecretArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    if args.new {
        make(args, server, console).await
    } else {
        list(&args.endpoint, server, console).await
    }
}

#[derive(Deserialize)]
struct Secrets {
    secrets: Vec<Secret>,
}

/// A secret without itself, which is shown only once.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Secret {
    id: String,
    created_at: i64,
    /// `None` for the one that is in use.
    valid_until: Option<i64>,
}

async fn list(endpoint: &str, server: &Server, console: &mut Console) -> Result<Outcome, Failure> {
    let path = format!("{endpoint}/webhook-secret");
    let reply = server.call(Request::get(path)).await?;
    if console.json {
        console.document(reply.text())?;
        return Ok(Outcome::Fine);
    }
    let Secrets { secrets } = reply.parse()?;
    if secrets.is_empty() {
        console.note(&format!(
            "{endpoint} has no secret yet; make one with lazyfox webhook-secret {endpoint} --new{}",
            server.url_option()
        ));
        return Ok(Outcome::Fine);
    }
    let rows = secrets.iter().map(|it| {
        let end = it.valid_until.map(utc);
        let end = end.unwrap_or_else(|| "replaced".to_owned());
        [printable(&it.id), utc(it.created_at), end]
    });
    Table::new(HEADER, WIDTHS).print(rows, console)?;
    Ok(Outcome::Fine)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    id: String,
    secret: String,
    created_at: i64,
    /// `None` where there was none before.
    previous_until: Option<i64>,
}

async fn make(
    args: &WebhookSecretArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let endpoint = &args.endpoint;
    let overlap = args.overlap.map(|ms| ms.to_string());
    let query: Vec<_> = overlap.iter().map(|ms| ("overlap", ms.as_str())).collect();
    let request = Request {
        query: &query,
        ..Request::post(format!("{endpoint}/webhook-secret"))
    };
    let reply = server.call(request).await?;
    if console.json {
        console.document(reply.text())?;
        return Ok(Outcome::Fine);
    }
    let made: Made = reply.parse()?;
    console.note(&format!(
        "{} signs the webhooks of {endpoint} from now on: receivers check webhook-signature with it",
        printable(&made.id)
    ));
    match made.previous_until {
        Some(until) if until > made.created_at => console.note(&format!(
            "the previous one stays valid until {} UTC; receivers need the new one by then",
            utc(until)
        )),
        Some(_) => console.note("the previous one is worthless at once"),
        None => {}
    }
    console.note("this is the only time it is shown:");
    console.text(&printable(&made.secret))?;
    Ok(Outcome::Fine)
}
