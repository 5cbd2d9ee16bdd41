//! Posts webhooks to a program of this machine, in the order in which the server tried them.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::pin::Pin;

use lazyfox_core::limits::{MIB, WEBHOOK_ANSWER_BYTES};
use reqwest::Url;
use serde::Deserialize;

use super::call::{http, http_url, reason};
use super::failure::Failure;
use crate::clock::Clock;

/// How long the program may take: somebody may look at it with a debugger.
const ANSWER_MS: u64 = 30_000;

/// Webhooks that wait for the program, at most: it is slower than the jobs end, and the rest is dropped.
const WAITING: usize = 100;
/// And their bytes, of which one alone may have more.
const WAITING_BYTES: usize = 64 * MIB;

/// Deliveries of which it is known that the program took them. Who has more of them than this within one
/// round of tries may see one twice.
const TAKEN: usize = 10_000;

/// One try of the server, as it sends it to the receiver.
#[derive(Deserialize)]
pub(super) struct Webhook {
    pub(super) id: String,
    /// Counted from 1 within a round; sent again, a delivery begins a new one.
    #[serde(rename = "try")]
    number: u64,
    headers: BTreeMap<String, String>,
    body: String,
}

/// What became of a webhook that was forwarded.
pub(super) struct Forwarded {
    pub(super) id: String,
    pub(super) number: u64,
    pub(super) answer: Result<Answer, String>,
}

/// What the program said.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) duration_ms: u64,
}

/// Too many wait already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The way to the program. Webhooks go one by one, so that it sees them in order and a later try is
/// decided on when the earlier one is over.
pub(super) struct Forwarder<'a> {
    http: reqwest::Client,
    url: Url,
    clock: &'a Clock,
    waiting: VecDeque<Webhook>,
    waiting_bytes: usize,
    current: Option<Pin<Box<dyn Future<Output = Forwarded> + Send + 'a>>>,
    taken: Taken,
}

impl<'a> Forwarder<'a> {
    pub(super) fn new(url: &str, clock: &'a Clock) -> Result<Self, Failure> {
        let url = http_url(url, "--forward")?;
        // A program that is restarted all the time must not be met on an old connection.
        let http = http(&url).pool_max_idle_per_host(0).build();
        let http =
            http.map_err(|error| Failure::Usage(format!("--forward {url}: {}", reason(&error))))?;
        Ok(Self {
            http,
            url,
            clock,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            current: None,
            taken: Taken::new(),
        })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Takes a webhook in, to be forwarded by [`Forwarder::next`].
    pub(super) fn accept(&mut self, webhook: Webhook) -> Result<(), Full> {
        let bytes = self.waiting_bytes + webhook.body.len();
        if self.waiting.len() >= WAITING || (bytes > WAITING_BYTES && !self.waiting.is_empty()) {
            if webhook.number == 1 {
                // What the program took in an earlier round does not count in this one.
                self.taken.remove(&webhook.id);
            }
            return Err(Full);
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(webhook);
        Ok(())
    }

    /// Forwards until one is through. Nothing is lost when this is dropped and called again.
    pub(super) async fn next(&mut self) -> Forwarded {
        let forwarded = loop {
            if let Some(current) = &mut self.current {
                break current.await;
            }
            let webhook = match self.waiting.pop_front() {
                Some(webhook) => webhook,
                None => std::future::pending().await,
            };
            self.waiting_bytes -= webhook.body.len();
            if webhook.number == 1 || !self.taken.contains(&webhook.id) {
                let request = self.request(&webhook);
                self.current = Some(Box::pin(post(request, webhook, self.clock)));
            }
        };
        self.current = None;
        let is_taken = |answer: &Answer| (200..300).contains(&answer.status);
        if forwarded.answer.as_ref().is_ok_and(is_taken) {
            self.taken.insert(&forwarded.id);
        } else {
            self.taken.remove(&forwarded.id);
        }
        forwarded
    }

    /// The request that the server made, as far as it does not concern the connection.
    fn request(&self, webhook: &Webhook) -> reqwest::RequestBuilder {
        let is_forwarded = |name: &str| {
            let name = name.to_ascii_lowercase();
            matches!(name.as_str(), "content-type" | "user-agent") || name.starts_with("webhook-")
        };
        let headers = webhook.headers.iter();
        headers.filter(|(name, _)| is_forwarded(name)).fold(
            self.http.post(self.url.clone()),
            |request, (name, value)| request.header(name, value),
        )
    }
}

async fn post(request: reqwest::RequestBuilder, webhook: Webhook, clock: &Clock) -> Forwarded {
    let began = clock.now();
    let end = began.plus_ms(ANSWER_MS);
    let sent = request.body(webhook.body).send();
    let answer = tokio::select! {
        sent = sent => match sent {
            Ok(response) => {
                let answer = Answer {
                    status: response.status().as_u16(),
                    duration_ms: clock.now().ms_since(began),
                };
                tokio::select! {
                    () = drain(response) => {}
                    () = clock.sleep_until(end) => {}
                }
                Ok(answer)
            }
            Err(error) => Err(reason(&error)),
        },
        () = clock.sleep_until(end) => Err(format!("no answer within {} s", ANSWER_MS / 1000)),
    };
    Forwarded {
        id: webhook.id,
        number: webhook.number,
        answer,
    }
}

/// Reads of an answer what the server would, so that the program can finish it.
async fn drain(mut response: reqwest::Response) {
    let mut bytes = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes += chunk.len();
        if bytes > WEBHOOK_ANSWER_BYTES {
            return;
        }
    }
}

/// The last ids that were taken.
struct Taken {
    ids: HashSet<String>,
    /// In the order of their arrival; ids that were removed since may stand here still.
    order: VecDeque<String>,
}

impl Taken {
    fn new() -> Self {
        Self {
            ids: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    fn insert(&mut self, id: &str) {
        if !self.ids.insert(id.to_owned()) {
            return;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > TAKEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    fn remove(&mut self, id: &str) {
        self.ids.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(id: usize, bytes: usize) -> Webhook {
        Webhook {
            id: id.to_string(),
            number: 1,
            headers: BTreeMap::new(),
            body: "x".repeat(bytes),
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let clock = Clock::system();
        let mut forwarder = Forwarder::new("127.0.0.1:1", &clock).unwrap();
        for n in 0..WAITING {
            assert_eq!(forwarder.accept(webhook(n, 1)), Ok(()));
        }
        // That it was taken in an earlier round does not excuse it from this one's second try.
        forwarder.taken.insert("0");
        assert_eq!(forwarder.accept(webhook(0, 1)), Err(Full));
        assert!(!forwarder.taken.contains("0"));

        let mut forwarder = Forwarder::new("127.0.0.1:1", &clock).unwrap();
        assert_eq!(forwarder.accept(webhook(0, WAITING_BYTES + 1)), Ok(()));
        assert_eq!(forwarder.accept(webhook(1, 1)), Err(Full));
        // Nobody is there, which is an end as well.
        assert!(forwarder.next().await.answer.is_err());
        assert_eq!(forwarder.accept(webhook(1, 1)), Ok(()));
        assert_eq!(forwarder.accept(webhook(2, 1)), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut taken = Taken::new();
        for n in 0..TAKEN + 2 {
            taken.insert(&n.to_string());
            taken.insert(&n.to_string());
        }
        assert!(!taken.contains("1") && taken.contains("2"));
        // One that is taken, refused and taken again and again.
        for _ in 0..TAKEN {
            taken.insert("fox");
            taken.remove("fox");
        }
        assert_eq!(taken.order.len(), TAKEN);
        assert!(taken.ids.len() <= TAKEN && !taken.contains("fox"));
    }
}
