//! Lists come in pages: asks for one after the other until there is enough, or nothing more.

use super::call::{Reply, Request, Server};
use super::console::Console;
use super::failure::Failure;

/// The most a server hands out in one answer.
const PAGE: u64 = 100;

/// How much of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    AtMost(u64),
    All,
}

/// The way through one list.
pub(super) struct Pages<'a> {
    server: &'a Server,
    path: String,
    filters: Vec<(&'a str, &'a str)>,
    left: u64,
    cursor: Option<String>,
    is_over: bool,
}

impl<'a> Pages<'a> {
    pub(super) fn new(
        server: &'a Server,
        path: String,
        filters: Vec<(&'a str, &'a str)>,
        wanted: Wanted,
    ) -> Self {
        Self {
            server,
            path,
            filters,
            left: match wanted {
                Wanted::AtMost(limit) => limit,
                Wanted::All => u64::MAX,
            },
            cursor: None,
            is_over: false,
        }
    }

    /// The next answer; `None` when the list or what was wanted of it is over.
    pub(super) async fn next(&mut self) -> Result<Option<Reply>, Failure> {
        if self.is_over {
            return Ok(None);
        }
        let limit = self.left.min(PAGE).to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(&self.filters);
        query.extend(self.cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let request = Request {
            query: &query,
            ..Request::get(self.path.clone())
        };
        self.server.call(request).await.map(Some)
    }

    /// Takes over what the answer held: so many rows, and where the list goes on.
    pub(super) fn go_on(&mut self, rows: usize, next: Option<&str>, console: &mut Console) {
        self.left = self.left.saturating_sub(rows as u64);
        let next = next.filter(|next| !next.is_empty() && self.cursor.as_deref() != Some(next));
        self.is_over = self.left == 0 || next.is_none();
        if self.left == 0 && next.is_some() && console.err_is_terminal && !console.json {
            console.note("there are more: ask with a higher --limit, or --all");
        }
        self.cursor = next.map(str::to_owned);
    }
}
