//! Webhooks and the death of the server: each end that is to be reported is, and a receiver can tell what
//! it has already.

use rustix::process::Signal;
use serde_json::Value;

use crate::http::request;
use crate::process;
use crate::receiver::{Receiver, TlsReceiver};
use crate::server::{DEADLINE, Home, Server};

/// One delivery at a time to a host, and a second between tries.
const CONFIG: &str = "
[server]
auth = \"none\"
webhook_allow = [\"127.0.0.0/8\"]
webhooks_per_host = 1
[defaults]
webhook = { tries = 50, pause_s = 1 }
[endpoints.e]
";

/// Submits a job with a webhook and lets a worker finish it.
fn finished(home: &Home, server: &Server<'_>, url: &str) -> String {
    let body = format!("{{\"input\":1,\"webhook\":\"{url}\"}}");
    let answer = server.json("POST", "e/run", &body);
    let job = answer["id"].as_str().expect("an id").to_owned();
    let take = "/v2/e/job-take/w1?&job_in_progress=0";
    let taken = request(home.port(), "GET", take, &[], "").expect("an answer");
    assert_eq!(taken.json()["id"], job);
    let done = format!("e/job-done/w1/{job}?&isStream=false");
    server.call("POST", &done, "{\"output\":1}");
    job
}

fn kill(mut server: Server<'_>) {
    process::signal(server.pid(), Signal::KILL);
    server.gone();
}

/// The deliveries of a job, when they have this state.
fn settled(server: &Server<'_>, job: &str, state: &str) -> Value {
    let started = std::time::Instant::now();
    loop {
        let list = server.json("GET", &format!("e/deliveries?job={job}"), "");
        let delivery = &list["deliveries"][0];
        if delivery["state"] == state {
            return delivery.clone();
        }
        assert!(started.elapsed() < DEADLINE, "{job}: {delivery}");
        std::thread::yield_now();
    }
}

#[test]
fn a_kill_between_the_post_and_its_record_sends_it_again_under_the_same_id() {
    let home = Home::new(CONFIG);
    let receiver = Receiver::open();
    let server = home.serve();
    let job = finished(&home, &server, &receiver.url());
    let (first, unanswered) = receiver.accept();
    // The receiver has it, and the server never hears of that.
    kill(server);
    unanswered.answer(200);
    let mut server = home.serve();
    let (second, unanswered) = receiver.accept();
    assert_eq!(second, first);
    assert_eq!(first.id, format!("{job}_1"));
    unanswered.answer(200);
    let delivery = settled(&server, &job, "delivered");
    let tries = delivery["tries"].as_array().expect("a list");
    assert_eq!(tries.len(), 1, "what was not noted was no try: {delivery}");
    assert!(server.stop().success());
}

#[test]
fn a_kill_between_the_end_and_the_post_delivers_after_the_restart() {
    let home = Home::new(CONFIG);
    let receiver = Receiver::open();
    let server = home.serve();
    let first = finished(&home, &server, &receiver.url());
    let (held, unanswered) = receiver.accept();
    // The only place is taken, so this one's end is on disk and its POST is not under way.
    let second = finished(&home, &server, &receiver.url());
    kill(server);
    drop(unanswered);
    let mut server = home.serve();
    let (again, unanswered) = receiver.accept();
    assert_eq!(again, held);
    unanswered.answer(200);
    let (next, unanswered) = receiver.accept();
    assert_eq!(next.json()["id"], second);
    unanswered.answer(204);
    settled(&server, &first, "delivered");
    settled(&server, &second, "delivered");
    assert!(server.stop().success());
}

#[test]
fn a_restart_goes_on_with_the_tries_that_are_left() {
    let home = Home::new(&CONFIG.replace("tries = 50", "tries = 3"));
    let receiver = Receiver::open();
    let server = home.serve();
    let job = finished(&home, &server, &receiver.url());
    receiver.accept().1.answer(500);
    settled(&server, &job, "pending");
    let tries = |delivery: &Value| delivery["tries"].as_array().map(Vec::len);
    while tries(&settled(&server, &job, "pending")) != Some(1) {}
    kill(server);
    let mut server = home.serve();
    receiver.accept().1.answer(500);
    receiver.accept().1.answer(500);
    let delivery = settled(&server, &job, "failed");
    assert_eq!(tries(&delivery), Some(3));
    assert!(server.stop().success());
}

/// A receiver that a private authority vouches for.
#[test]
fn a_certificate_that_the_system_trusts_is_good() {
    let home = Home::new(CONFIG);
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
    let certified = certified.expect("a certificate");
    let authorities = home.path().join("authorities.pem");
    std::fs::write(&authorities, certified.cert.pem()).expect("a file");
    let receiver = TlsReceiver::open(&certified);
    let mut command = home.lazyfox(&["serve", "--listen", &format!("127.0.0.1:{}", home.port())]);
    command.env("SSL_CERT_FILE", &authorities);
    let log = std::fs::File::create(home.path().join("server.log")).expect("a log");
    let mut server = home.wait_for(&mut command, log);
    let job = finished(&home, &server, &receiver.url());
    assert_eq!(receiver.take().json()["id"], job);
    settled(&server, &job, "delivered");
    assert!(server.stop().success());
}

/// What the server's memory holds of its own and of files.
fn resident_bytes(server: &Server<'_>) -> u64 {
    let path = format!("/proc/{}/status", server.pid());
    let status = std::fs::read_to_string(path).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("a number of kB") * 1024
}

const DEAD: usize = 10_000;

/// Ten thousand deliveries that nobody takes cost what their place in line costs, and no more.
#[test]
fn ten_thousand_deliveries_to_a_dead_host_leave_memory_flat() {
    let home = Home::new(&CONFIG.replace("pause_s = 1", "pause_s = 60, on_cancel = true"));
    let mut server = home.serve();
    let dead = Receiver::open().url();
    let mut memory = Vec::new();
    // The first round fills the caches, which have an end.
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let body = format!("{{\"input\":1,\"webhook\":\"{dead}\"}}");
                    for _ in 0..DEAD / 4 {
                        server.json("POST", "e/run", &body);
                    }
                });
            }
        });
        let purged = server.json("POST", "e/purge-queue", "");
        assert_eq!(purged["removed"], DEAD);
        let newest = server.json("GET", "e/deliveries?limit=1", "");
        let newest = newest["deliveries"][0]["job"].as_str().expect("an id");
        // Nobody tries it any more, because nobody was there.
        let started = std::time::Instant::now();
        let list = format!("e/deliveries?job={newest}");
        while !server.json("GET", &list, "")["deliveries"][0]["hold"].is_string() {
            assert!(started.elapsed() < DEADLINE, "the host is called for ever");
        }
        memory.push(resident_bytes(&server));
    }
    let growth = memory[1].saturating_sub(memory[0]);
    let each = growth / DEAD as u64;
    eprintln!("{memory:?}: {each} bytes for each delivery");
    assert!(each < 1_000, "{each} bytes for each delivery that waits");
    assert!(server.stop().success());
}
