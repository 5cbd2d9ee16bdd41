//! Several servers on one database: which of them starts the workers of an endpoint.
//!
//! `managed` starts processes that do nothing; the test speaks for them. Charges last for seconds of real
//! time, so nothing here waits for one to end: it is moved to another server in the database, or given
//! back.

use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::GUARD;
use crate::server::{Setup, TestServer, id_of};

const MANAGED: &str = "[endpoints.managed]\ncommand = [\"sleep\", \"600\"]\nworkers_max = 1\n\
                       idle_timeout_s = 600\ninit_timeout_s = 600\n";

/// Servers that share a database.
struct Several {
    url: String,
    servers: Vec<TestServer>,
    /// Where their common key is.
    key: TempDir,
}

impl Several {
    /// The first is in charge.
    async fn start(count: usize) -> Self {
        let mut several = Self {
            url: lazyfox_testing::shared().database(),
            servers: Vec::new(),
            key: tempfile::tempdir().expect("a temporary folder"),
        };
        for _ in 0..count {
            let setup = several.setup().others(MANAGED);
            several.servers.push(setup.start().await);
        }
        several
    }

    fn setup(&self) -> Setup {
        let key = self.key.path().join("server.key");
        Setup::database(&self.url).server(&format!("key_file = {key:?}"))
    }

    fn pair(&self) -> (&TestServer, &TestServer) {
        (&self.servers[0], &self.servers[1])
    }

    /// As if the charge had ended, and this server had been the first to ask for it.
    fn move_charge_to(&self, server: &TestServer) {
        let sql = format!(
            "UPDATE lazyfox.charges SET term = term + 1,
                 server = (SELECT server FROM lazyfox.servers WHERE url = '{}')
             WHERE endpoint = 'managed'",
            server.url()
        );
        lazyfox_testing::shared().psql(&self.url, &sql);
    }

    async fn stop(self) {
        for server in self.servers {
            server.stop().await;
        }
    }
}

async fn submit(s: &TestServer) -> String {
    id_of(&s.post("/v2/managed/run", r#"{"input":1}"#).await.ok())
}

async fn workers(s: &TestServer) -> Value {
    s.get("/v2/managed/workers").await.ok()
}

/// Waits until a document is so. What servers do on their timers they do as soon as they are woken.
async fn until_shown(
    several: &Several,
    s: &TestServer,
    target: &str,
    so: impl Fn(&Value) -> bool,
) -> Value {
    let started = Instant::now();
    loop {
        for server in &several.servers {
            server.app().wakes.charge.notify_one();
            server.app().wakes.scale.notify_one();
        }
        // Whoever starts workers, there are never more than one.
        let managed = |s: &TestServer| s.app().fleet.all_managed().len();
        let all: usize = several.servers.iter().map(managed).sum();
        assert!(all <= 1, "{all} workers");
        let shown = s.get(target).await.ok();
        if so(&shown) {
            return shown;
        }
        assert!(started.elapsed() < GUARD, "it stays so: {shown}");
    }
}

async fn until_workers(several: &Several, s: &TestServer, so: impl Fn(&Value) -> bool) -> Value {
    until_shown(several, s, "/v2/managed/workers", so).await
}

/// The worker that a server has started by now.
async fn started(several: &Several, s: &TestServer) -> String {
    let shown = until_workers(several, s, |it| it["summary"]["initializing"] == 1).await;
    id_of(&shown["workers"][0])
}

#[tokio::test]
async fn one_server_starts_workers_and_the_others_say_so() {
    let several = Several::start(2).await;
    let (a, b) = several.pair();
    let job = submit(b).await;
    let name = started(&several, a).await;
    let shown = workers(a).await;
    assert_eq!(shown["charge"]["here"], true, "{shown}");
    assert_eq!(shown["endpointVersion"], 1);

    let shown = until_workers(&several, b, |it| it["summary"]["elsewhere"] == 1).await;
    let worker = &shown["workers"][0];
    assert_eq!(worker["id"], name);
    assert_eq!(worker["status"], "ELSEWHERE");
    assert_eq!(shown["summary"]["total"], 1);
    assert_eq!(shown["charge"]["here"], false);
    assert_eq!(shown["charge"]["url"], a.url());
    assert_eq!(shown.get("endpointVersion"), None, "{shown}");
    assert!(!b.app().could_start(&"managed".parse().expect("a name")));

    let told = b.get(format!("/v2/managed/why/{job}")).await.ok();
    assert_eq!(told["code"], "elsewhere", "{told}");
    let text = told["text"].as_str().expect("a text");
    assert!(
        text.contains(&a.url()) && text.contains("1 worker"),
        "{text}"
    );
    let scaler = b.get("/v2/managed/scaler").await.ok();
    assert_eq!(scaler["charge"]["here"], false, "{scaler}");
    assert_eq!(scaler["decisions"], json!([]));
    let health = b.get("/v2/managed/health").await.ok();
    assert_eq!(health["workers"]["elsewhere"], 1, "{health}");
    several.stop().await;
}

#[tokio::test]
async fn who_is_not_in_charge_any_more_lets_its_workers_finish_and_the_maximum_holds() {
    let several = Several::start(2).await;
    let (a, b) = several.pair();
    let job = submit(a).await;
    let name = started(&several, a).await;
    let worker = a.worker(&name).on("managed");
    assert_eq!(id_of(&worker.take().await), job);

    several.move_charge_to(b);
    submit(b).await;
    let scaler = until_shown(&several, b, "/v2/managed/scaler", |it| {
        it["code"] == "at_maximum"
    });
    let scaler = scaler.await;
    assert_eq!(scaler["decisions"][0]["inputs"]["elsewhere"], 1, "{scaler}");
    let shown = until_workers(&several, a, |it| it["workers"][0]["note"].is_string()).await;
    let worker_shown = &shown["workers"][0];
    assert_eq!(
        worker_shown["note"],
        "another server is in charge of managed now"
    );
    assert_eq!(worker_shown["status"], "RUNNING");

    worker.done(&job, r#"{"output":1}"#).await;
    until_workers(&several, a, |it| it["stopped"][0]["id"] == *name).await;
    let next = started(&several, b).await;
    assert_ne!(next, name);
    several.stop().await;
}

#[tokio::test]
async fn who_is_refused_starts_nothing() {
    let several = Several::start(1).await;
    let a = &several.servers[0];
    // It does not know yet that it is over.
    lazyfox_testing::shared().psql(
        &several.url,
        "UPDATE lazyfox.charges SET term = term + 1, server = 'another'",
    );
    submit(a).await;
    let refused = |it: &Value| it["charge"]["here"] == false;
    until_workers(&several, a, refused).await;
    assert_eq!(workers(a).await["workers"], json!([]));
    several.stop().await;
}

#[tokio::test]
async fn who_stops_hands_over() {
    let mut several = Several::start(2).await;
    let (a, b) = several.pair();
    submit(b).await;
    let name = started(&several, a).await;
    until_workers(&several, b, |it| it["summary"]["elsewhere"] == 1).await;
    several.servers.remove(0).stop().await;
    let b = &several.servers[0];
    let next = started(&several, b).await;
    assert_ne!(next, name);
    several.stop().await;
}

#[tokio::test]
async fn a_server_that_is_started_again_has_its_charges_at_once() {
    let mut several = Several::start(2).await;
    let (a, b) = several.pair();
    let term = a.app().charge.term(&"managed".parse().expect("a name"));
    assert_eq!(term, Some(1));
    // It was killed, and nobody heard of it.
    let sql = "CREATE TABLE public.charges_then AS SELECT * FROM lazyfox.charges;
               CREATE TABLE public.servers_then AS SELECT * FROM lazyfox.servers";
    lazyfox_testing::shared().psql(&several.url, sql);
    assert_eq!(
        b.app().charge.term(&"managed".parse().expect("a name")),
        None
    );
    several.servers.pop().expect("two servers").stop().await;
    let setup = several.servers.remove(0).stop().await;
    let sql = "DELETE FROM lazyfox.charges; INSERT INTO lazyfox.charges SELECT * FROM public.charges_then;
               UPDATE lazyfox.charges SET until = until + 600000;
               INSERT INTO lazyfox.servers SELECT * FROM public.servers_then";
    lazyfox_testing::shared().psql(&several.url, sql);
    let a = setup.start().await;
    let term = a.app().charge.term(&"managed".parse().expect("a name"));
    assert_eq!(term, Some(2));
    several.servers.push(a);
    several.stop().await;
}

#[tokio::test]
async fn without_the_database_workers_stay_and_none_is_started() {
    let postgres = lazyfox_testing::shared();
    let proxy = lazyfox_testing::Proxy::start(postgres.address());
    let url = postgres.database();
    let setup = Setup::database(&proxy.through(&url)).others(MANAGED);
    let mut several = Several {
        url,
        servers: vec![setup.start().await],
        key: tempfile::tempdir().expect("a temporary folder"),
    };
    let a = &several.servers[0];
    submit(a).await;
    started(&several, a).await;
    proxy.cut();
    let managed = "managed".parse().expect("a name");
    let begun = Instant::now();
    while a.app().charge.term(&managed).is_some() {
        assert!(begun.elapsed() < GUARD, "it believes that it is in charge");
        a.app().wakes.scale.notify_one();
        tokio::task::yield_now().await;
    }
    assert_eq!(a.app().fleet.all_managed().len(), 1);
    assert_eq!(a.app().charge.who(&managed), lazyfox::charge::Who::Nobody);
    proxy.restore();
    until_workers(&several, a, |it| it["charge"]["here"] == true).await;
    let shown = workers(a).await;
    assert_eq!(shown["summary"]["initializing"], 1, "{shown}");
    several.servers.remove(0).stop().await;
}
