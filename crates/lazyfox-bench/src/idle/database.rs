//! What an idle server asks of its PostgreSQL.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;
use tokio_postgres::Client;

use super::{IdleArgs, SETTLE};
use crate::database::{Cluster, Database};
use crate::meter::Meter;
use crate::report::table;
use crate::server::{Server, Site, tables};

/// Some things happen once a minute.
const SECONDS: u64 = 60;

/// A session that has nothing to do tells its count of transactions after 10 s: until then those
/// of the start would be counted.
const SETTLE_COUNTS: Duration = Duration::from_secs(10);

/// How many statements are shown, and how much of each.
const STATEMENTS_SHOWN: usize = 12;
const STATEMENT_CHARACTERS: usize = 90;

/// Counts of one database so far.
struct Counts {
    transactions: i64,
    /// By statement; none where they are not counted.
    calls: Option<HashMap<String, i64>>,
}

pub(super) async fn measure(site: &Site, args: &IdleArgs, endpoints: &[String]) -> Result<()> {
    let mut cluster = Cluster::open(site, &args.postgres).await?;
    let counts_statements = cluster.count_statements().await?;
    let database = cluster.fresh().await?;
    let servers = site
        .start_over(&database.url, 1, &tables(endpoints))
        .await?;
    sleep(SETTLE + SETTLE_COUNTS).await;
    let before = Counts::read(&cluster.client, &database, counts_statements).await?;
    let meter = Meter::start_over(&servers, cluster.postmaster)?;
    sleep(Duration::from_secs(args.seconds.unwrap_or(SECONDS))).await;
    let spent = meter.read()?;
    let after = Counts::read(&cluster.client, &database, counts_statements).await?;
    let memory = servers[0].memory()?;
    let connections = connections(&cluster.client, &database).await?;
    Server::kill_all(servers).await?;
    cluster.drop(database).await?;

    let seconds = spent.seconds();
    let calls = after.calls_since(&before);
    let statements: i64 = calls.iter().map(|(_, calls)| calls).sum();
    let of_a_core = |cpu_s: f64| match cpu_s.is_nan() {
        true => String::new(),
        false => format!("{:.2}", cpu_s / seconds * 100.0),
    };
    let per_second = |count: i64| format!("{:.2}", count as f64 / seconds);
    let rows = [vec![
        args.endpoints.to_string(),
        match counts_statements {
            true => per_second(statements),
            false => "not counted".to_owned(),
        },
        per_second(after.transactions - before.transactions),
        connections.to_string(),
        of_a_core(spent.server_cpu_s),
        of_a_core(spent.postgres_cpu_s),
        memory.to_string(),
    ]];
    let header = [
        "idle endpoints, postgres",
        "statements/s",
        "transactions/s",
        "connections",
        "server CPU, % of a core",
        "PostgreSQL CPU, %",
        "resident, MB (anonymous)",
    ];
    println!("{}", table(&header, &rows));
    if counts_statements {
        print_statements(&calls, seconds);
    }
    Ok(())
}

fn print_statements(calls: &[(String, i64)], seconds: f64) {
    let rows: Vec<Vec<String>> = calls
        .iter()
        .take(STATEMENTS_SHOWN)
        .map(|(text, calls)| {
            let minutely = *calls as f64 / seconds * 60.0;
            vec![format!("{minutely:.1}"), shortened(text)]
        })
        .collect();
    println!("{}", table(&["times a minute", "statement"], &rows));
}

/// On one line, as Markdown shows it in a table.
fn shortened(statement: &str) -> String {
    let words: Vec<&str> = statement.split_whitespace().collect();
    let text = words.join(" ").replace('|', "\\|");
    let short: String = text.chars().take(STATEMENT_CHARACTERS).collect();
    let more = if short.len() < text.len() { " …" } else { "" };
    format!("`{short}`{more}")
}

impl Counts {
    async fn read(client: &Client, database: &Database, statements: bool) -> Result<Self> {
        let row = client
            .query_one(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1",
                &[&database.name],
            )
            .await?;
        let calls = match statements {
            true => Some(calls(client, database).await?),
            false => None,
        };
        Ok(Self {
            transactions: row.get(0),
            calls,
        })
    }

    /// What was called since then and how often, the most frequent first.
    fn calls_since(&self, before: &Self) -> Vec<(String, i64)> {
        let earlier = |text: &String| before.calls.as_ref()?.get(text).copied();
        let mut since: Vec<(String, i64)> = self
            .calls
            .iter()
            .flatten()
            .map(|(text, calls)| (text.clone(), calls - earlier(text).unwrap_or(0)))
            .filter(|(_, calls)| *calls > 0)
            .collect();
        since.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
        since
    }
}

async fn calls(client: &Client, database: &Database) -> Result<HashMap<String, i64>> {
    let rows = client
        .query(
            "SELECT query, sum(calls)::bigint FROM pg_stat_statements
             JOIN pg_database ON pg_database.oid = dbid WHERE datname = $1 GROUP BY query",
            &[&database.name],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn connections(client: &Client, database: &Database) -> Result<i64> {
    let row = client
        .query_one(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = $1 AND backend_type = 'client backend'",
            &[&database.name],
        )
        .await?;
    Ok(row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(calls: &[(&str, i64)]) -> Counts {
        let calls = calls.iter().map(|(text, n)| ((*text).to_owned(), *n));
        Counts {
            transactions: 0,
            calls: Some(calls.collect()),
        }
    }

    #[test]
    fn only_what_was_called_since_counts() {
        let before = counts(&[("a", 2), ("b", 5)]);
        let after = counts(&[("a", 3), ("b", 5), ("c", 7)]);
        let since = after.calls_since(&before);
        assert_eq!(since, [("c".to_owned(), 7), ("a".to_owned(), 1)]);
    }

    #[test]
    fn statements_are_shown_on_one_line() {
        assert_eq!(shortened("SELECT 1\n   || 2"), "`SELECT 1 \\|\\| 2`");
        let long = shortened(&"é".repeat(100));
        assert_eq!(long, format!("`{}` …", "é".repeat(90)));
    }
}
