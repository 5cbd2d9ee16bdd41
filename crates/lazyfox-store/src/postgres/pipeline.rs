//! Statements that are sent one after the other without waiting for answers: one round trip for all.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use deadpool_postgres::Client;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};

use super::connect::{Failure, failed};

type Param<'a> = &'a (dyn ToSql + Sync);
type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<Row>, Error>> + Send + 'a>>;

/// A statement to be sent.
pub(super) enum Asked<'a> {
    /// Text without parameters or rows.
    Batch(&'static str),
    /// A prepared statement.
    Query(Statement, Vec<Param<'a>>),
}

impl<'a> Asked<'a> {
    pub(super) fn batch(sql: &'static str) -> Self {
        Self::Batch(sql)
    }

    pub(super) fn query(statement: Statement, params: Vec<Param<'a>>) -> Self {
        Self::Query(statement, params)
    }
}

/// Sends all and gives the rows of each. Where one fails, its error is given when all are answered: those
/// behind it fail too in the same transaction, and the connection is free again.
pub(super) async fn run(client: &Client, asked: Vec<Asked<'_>>) -> Result<Vec<Vec<Row>>, Failure> {
    let answers = asked.into_iter().map(|asked| -> Answer<'_> {
        match asked {
            Asked::Batch(sql) => Box::pin(async move {
                client.batch_execute(sql).await?;
                Ok(Vec::new())
            }),
            Asked::Query(statement, params) => {
                Box::pin(async move { client.query(&statement, &params).await })
            }
        }
    });
    let results = in_order(answers.collect()).await;
    let results: Result<Vec<_>, Error> = results.into_iter().collect();
    results.map_err(failed)
}

/// Polls all for the first time in their order, which is the order in which they are sent.
async fn in_order<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> Vec<T> {
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut open = false;
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(done) => *result = Some(done),
                    Poll::Pending => open = true,
                }
            }
        }
        if open { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    results.into_iter().flatten().collect()
}
