//! Handing in results. One that was worked for is not given up because the server is away for a while.

use bytes::Bytes;

use super::output::Report;
use super::pause::{Pause, Trouble};
use super::server::Server;
use crate::clock::Clock;

/// How long a result is kept for a server that does not take it: longer than leases commonly are, after
/// which the job is somebody else's anyway.
const KEEP_MS: u64 = 10 * 60_000;
/// The answer of whatever stands between when a result is too large for it; it will never be less so.
const TOO_LARGE: u16 = 413;

/// Hands in a result, again and again until the server has it or nobody can want it any more.
pub(super) async fn hand_in(server: &Server, clock: &Clock, job: &str, report: Report) {
    let until = clock.now().plus_ms(KEEP_MS);
    let mut pause = Pause::new();
    let mut body = report.body;
    let mut failed_once = false;
    loop {
        let trouble = match server.done(job, body.clone()).await {
            Ok(()) if failed_once => {
                tracing::info!(job.id = job, "the server has the result now");
                return;
            }
            Ok(()) => return,
            Err(trouble) => trouble,
        };
        if !failed_once {
            tracing::warn!(
                job.id = job, why = %trouble.text, "cannot hand in a result; trying again"
            );
        }
        failed_once = true;
        if let Some(smaller) = instead_of(&body, &trouble) {
            body = smaller;
            continue;
        }
        if clock.now() >= until {
            tracing::error!(
                job.id = job, why = %trouble.text,
                "gave up handing in a result after {} min", KEEP_MS / 60_000
            );
            return;
        }
        pause.wait(clock, &trouble).await;
    }
}

/// An error in place of a result that can never get through.
fn instead_of(body: &Bytes, trouble: &Trouble) -> Option<Bytes> {
    let bytes = body.len();
    let error = format!(
        "the result of {bytes} bytes was refused on its way: {}",
        trouble.text
    );
    let report = Report::failed(&error);
    // If not even that gets through, it is asked again like anything else.
    (trouble.status == Some(TOO_LARGE) && report.body.len() < bytes).then_some(report.body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::scripted::{Answer, Scripted, json, refused};
    use crate::worker::settings::tests::{environment, read};

    /// Hands in a result to a server that answers like this, while time flies.
    async fn handed_in(answers: Vec<Answer>, result: &str) -> Vec<(String, String)> {
        let scripted = Scripted::start(answers).await;
        let settings = read(&environment(&scripted.url)).unwrap();
        let server = Server::new(settings).unwrap();
        let clock = Clock::manual(lazyfox_core::time::Timestamp::from_ms(0));
        let body = Bytes::from(result.to_owned());
        let report = Report {
            body,
            refresh: false,
        };
        let handed_in = hand_in(&server, &clock, "j", report);
        let flies = async {
            loop {
                clock.advance(1_000);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = handed_in => {}
            () = flies => {}
        }
        let requests = scripted.requests().into_iter();
        requests.map(|seen| (seen.line, seen.body)).collect()
    }

    #[tokio::test]
    async fn a_result_survives_a_server_that_is_away_or_in_trouble() {
        let answers = vec![
            refused(503, "busy"),
            Answer::hang_up(),
            refused(429, "{}"),
            refused(404, "<html>no such backend</html>"),
            json("{}"),
        ];
        let requests = handed_in(answers, "{\"output\":1}").await;
        let expected = "POST /v2/fox/job-done/w/j?gpu=&isStream=false HTTP/1.1";
        assert_eq!(requests.len(), 5);
        for (line, body) in requests {
            assert_eq!((&*line, &*body), (expected, "{\"output\":1}"));
        }
    }

    #[tokio::test]
    async fn what_is_too_large_for_the_way_becomes_an_error() {
        let long = format!("{{\"output\":\"{}\"}}", "x".repeat(1_000));
        let requests = handed_in(vec![refused(413, "too large"), json("{}")], &long).await;
        assert_eq!(requests[0].1, long);
        let error = &requests[1].1;
        assert!(
            error.starts_with(
                "{\"error\":\"the result of 1013 bytes was refused on its way: HTTP 413"
            ),
            "{error}"
        );
        assert_eq!(requests.len(), 2);
    }

    #[tokio::test]
    async fn a_result_that_nobody_takes_is_given_up_in_the_end() {
        let answers = (0..10_000).map(|_| refused(503, "")).collect();
        let requests = handed_in(answers, "{}").await;
        // How many there were depends on how fast time flew.
        assert!((2..10_000).contains(&requests.len()), "{}", requests.len());
    }
}
