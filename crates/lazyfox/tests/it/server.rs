//! A server for one test: started with a standing clock, and at the end stopped and checked for leftovers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use lazyfox::app::App;
use lazyfox::clock::Clock;
use lazyfox::config::Config;
use lazyfox::keyring;
use lazyfox::passes::{expire, prune};
use lazyfox::providers::{Output, Source};
use lazyfox::server::{Server, bind};
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::time::Timestamp;
use lazyfox_store::Access;
use serde_json::Value;
use tempfile::TempDir;

use crate::events::Events;
use crate::http::{Connection, Reply, Request, Transcript, guarded, until};
use crate::worker::Worker;

/// When every test begins.
pub(crate) const START_MS: i64 = 1_800_000_000_000;

/// Makes tests of functions that take a server with this setup, which is an expression within the
/// module that is made.
macro_rules! tests {
    ($module:ident: $setup:expr; $($name:ident),* $(,)?) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $name() {
                    $crate::server::run($setup, super::$name).await;
                }
            )*
        }
    };
}

/// Makes two tests of each function, one for every store.
macro_rules! on_each_store {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $name() {
                    $crate::server::run($crate::server::Setup::memory(), super::$name).await;
                }
            )*
        }
        mod sqlite {
            $(
                #[tokio::test]
                async fn $name() {
                    $crate::server::run($crate::server::Setup::sqlite(), super::$name).await;
                }
            )*
        }
    };
}

/// Runs a test on a server of its own.
pub(crate) async fn run(setup: Setup, test: impl AsyncFnOnce(&TestServer)) {
    let server = setup.start().await;
    test(&server).await;
    server.stop().await;
}

/// What a server is started with. Its data directory and its clock outlive it.
pub(crate) struct Setup {
    dir: TempDir,
    clock: Clock,
    server: String,
    endpoint: String,
    others: String,
}

impl Setup {
    pub(crate) fn memory() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory can be made"),
            clock: Clock::manual(Timestamp::from_ms(START_MS)),
            server: "data = \"data\"\nstore = \"memory\"\nauth = \"none\"\n\
                     webhook_allow = [\"127.0.0.0/8\"]\n"
                .to_owned(),
            endpoint: String::new(),
            others: String::new(),
        }
    }

    pub(crate) fn sqlite() -> Self {
        let mut setup = Self::memory();
        setup.server = setup.server.replace("\"memory\"", "\"sqlite\"");
        setup
    }

    /// On a database that other servers may use too.
    pub(crate) fn database(url: &str) -> Self {
        let mut setup = Self::memory();
        setup.server = setup.server.replace("\"memory\"", "\"postgres\"");
        setup.server(&format!("database_url = {url:?}"))
    }

    /// No webhook goes to this machine.
    pub(crate) fn strict() -> Self {
        Self::memory().with_allowed("[]")
    }

    /// Where webhooks may go that is not public.
    pub(crate) fn with_allowed(mut self, list: &str) -> Self {
        let lines = self.server.lines();
        let others = lines.filter(|line| !line.starts_with("webhook_allow"));
        self.server = others.map(|line| format!("{line}\n")).collect();
        self.server(&format!("webhook_allow = {list}"))
    }

    /// Nobody without a key.
    pub(crate) fn keys(mut self) -> Self {
        self.server = self.server.replace("\"none\"", "\"keys\"");
        self
    }

    /// A line for `[server]`.
    pub(crate) fn server(mut self, line: &str) -> Self {
        self.server.push_str(line);
        self.server.push('\n');
        self
    }

    /// A line for every endpoint.
    pub(crate) fn endpoint(mut self, line: &str) -> Self {
        self.endpoint.push_str(line);
        self.endpoint.push('\n');
        self
    }

    /// Further tables: endpoints of its own.
    pub(crate) fn others(mut self, text: &str) -> Self {
        self.others.push_str(text);
        self.others.push('\n');
        self
    }

    /// These further tables are there no more.
    pub(crate) fn without(mut self, text: &str) -> Self {
        assert!(self.others.contains(text), "{text:?} is not there");
        self.others = self.others.replace(text, "");
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn start(self) -> TestServer {
        let text = format!(
            "[server]\n{}[defaults]\n{}[endpoints.ep]\n[endpoints.other]\n[endpoints.endp01]\n{}",
            self.server, self.endpoint, self.others
        );
        let file = self.dir.path().join("lazyfox.toml");
        std::fs::write(&file, text).expect("a file can be written");
        let config = Config::read(&file).expect("the test's configuration is good");
        let listener = bind("127.0.0.1:0").await.expect("loopback has a free port");
        let started = Server::start(config, listener, self.clock.clone(), Arc::new(Silent)).await;
        let server = started.expect("the server starts");
        TestServer {
            address: server.address(),
            server,
            setup: self,
            transcript: Transcript::default(),
        }
    }
}

/// No test has workers that write anything.
struct Silent;

impl Output for Silent {
    fn line(&self, _: &EndpointId, _: &WorkerId, _: Source, line: &str) {
        panic!("no worker was started, but one wrote {line:?}");
    }
}

/// A running server.
pub(crate) struct TestServer {
    server: Server,
    setup: Setup,
    address: SocketAddr,
    transcript: Transcript,
}

impl TestServer {
    /// What the server's parts share, for what HTTP does not show.
    pub(crate) fn app(&self) -> &Arc<App> {
        &self.server.app
    }

    pub(crate) fn dir(&self) -> &Path {
        self.setup.dir()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn replies(&self) -> Vec<Reply> {
        let transcript = self.transcript.lock();
        transcript.expect("no test panics while it notes").clone()
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.address, Arc::clone(&self.transcript)).await
    }

    /// Sends a request and does not wait for the answer.
    pub(crate) async fn open(&self, request: &Request) -> Connection {
        let mut connection = self.connect().await;
        connection.send(request).await;
        connection
    }

    pub(crate) async fn request(&self, request: Request) -> Reply {
        self.open(&request).await.reply().await
    }

    pub(crate) async fn get(&self, target: impl Into<String>) -> Reply {
        self.request(Request::get(target)).await
    }

    pub(crate) async fn post(&self, target: impl Into<String>, body: impl AsRef<[u8]>) -> Reply {
        self.request(Request::post(target, body)).await
    }

    /// Submits a job to `ep` and returns its id.
    pub(crate) async fn run(&self, body: impl AsRef<[u8]>) -> String {
        let accepted = self.post("/v2/ep/run", body).await.ok();
        id_of(&accepted)
    }

    /// The job object of a job of `ep`.
    pub(crate) async fn status(&self, id: &str) -> Value {
        self.get(format!("/v2/ep/status/{id}")).await.ok()
    }

    /// Checks status and error of a job of `ep`, and returns the whole.
    pub(crate) async fn expect(&self, id: &str, status: &str) -> Value {
        let job = self.status(id).await;
        assert_eq!(job["status"], status, "{job}");
        job
    }

    /// Waits for a status that comes by itself but not before a request is answered.
    pub(crate) async fn reaches(&self, id: &str, status: &str) -> Value {
        guarded(&format!("{id} becomes {status}"), async {
            loop {
                let job = self.status(id).await;
                if job["status"] == status {
                    return job;
                }
            }
        })
        .await
    }

    /// Checks that there is no such job on `ep`.
    pub(crate) async fn expect_gone(&self, id: &str) {
        let reply = self.get(format!("/v2/ep/status/{id}")).await;
        reply.error(404, "job_not_found");
    }

    /// Makes a key for all endpoints.
    pub(crate) async fn key(&self, label: &str, access: Access) -> String {
        let (text, key) = keyring::make(label, access, None, self.app().now());
        let kept = self.app().store.add_key(key).await;
        kept.expect("the store answers");
        text
    }

    /// Listens to an endpoint's deliveries.
    pub(crate) async fn listen(&self, endpoint: &str) -> Events {
        let target = format!("/v2/{endpoint}/deliveries/listen");
        self.listen_with(Request::get(target)).await
    }

    pub(crate) async fn listen_with(&self, request: Request) -> Events {
        Events::open(self.open(&request).await).await
    }

    pub(crate) fn worker(&self, name: &str) -> Worker<'_> {
        Worker::new(self, name)
    }

    /// Moves the clock, and lets what is due by then take effect: the passes that do it run by
    /// themselves too, but when they are through nobody outside can tell.
    pub(crate) async fn advance(&self, ms: u64) {
        self.setup.clock.advance(ms);
        self.let_time_take_effect().await;
    }

    /// Moves the clock as if the machine had slept.
    pub(crate) async fn suspend(&self, ms: u64) {
        self.setup.clock.jump(ms);
        self.let_time_take_effect().await;
    }

    async fn let_time_take_effect(&self) {
        expire::expire_once(self.app(), &expire::Expiry::default())
            .await
            .expect("the store answers");
        prune::prune_once(self.app())
            .await
            .expect("the store answers");
    }

    /// Sets the clock back.
    pub(crate) fn set_back(&self, ms: u64) {
        self.setup.clock.set_back(ms);
    }

    /// Waits for an answer while the clock goes forward and is set back again and again, so that by its
    /// face no time passes.
    pub(crate) async fn while_time_stands(&self, connection: &Connection) {
        until("the wait is over", || {
            self.setup.clock.advance(1_000);
            self.setup.clock.set_back(1_000);
            !connection.is_silent()
        })
        .await;
    }

    /// Waits until so many callers wait for a job.
    pub(crate) async fn watched(&self, id: &str, callers: usize) {
        let id: JobId = id.parse().expect("the server made it");
        let wakes = &self.app().wakes;
        let what = format!("{callers} callers wait for {id}");
        until(&what, || wakes.watchers(id) == callers).await;
    }

    /// Stops it and checks that nothing of it is left: whatever it started holds what its parts share.
    pub(crate) async fn stop(self) -> Setup {
        let app = Arc::downgrade(self.app());
        guarded("the server stops", self.server.stop(std::future::pending())).await;
        until("all that it started has ended", || app.strong_count() == 0).await;
        self.setup
    }

    /// Changes the configuration file, and has the server read it again.
    pub(crate) async fn reconfigure(&self, from: &str, to: &str) -> Reply {
        let file = self.dir().join("lazyfox.toml");
        let text = std::fs::read_to_string(&file).expect("the server was started with it");
        assert!(text.contains(from), "{from:?} is not in {text}");
        std::fs::write(&file, text.replace(from, to)).expect("a file can be written");
        self.post("/admin/reload", "").await
    }

    /// Stops it and starts another one on the same data.
    pub(crate) async fn restart(self) -> Self {
        self.stop().await.start().await
    }
}

/// The id in an answer.
pub(crate) fn id_of(body: &Value) -> String {
    let id = body["id"].as_str();
    id.unwrap_or_else(|| panic!("no id in {body}")).to_owned()
}
