//! Bodies that nobody would write on purpose, the same ones in every run.

use crate::server::TestServer;

tests!(memory: crate::server::Setup::memory();
    mutated_bodies_never_break_the_server,
);

/// A generator of numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, end: usize) -> usize {
        // Knuth's constants; the high bits are the good ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % end.max(1) as u64).expect("below a usize")
    }
}

fn mutated(dice: &mut Dice, body: &[u8]) -> Vec<u8> {
    const TOKENS: [&[u8]; 12] = [
        b"null", b"{", b"}", b"[", b"]", b"\"", b"\\u0000", b"1e999", b"\xff", b"\0", b",", b"\\",
    ];
    let mut body = body.to_vec();
    for _ in 0..=dice.roll(2) {
        let at = dice.roll(body.len());
        match dice.roll(5) {
            0 => body.truncate(at),
            1 => body.insert(at, u8::try_from(dice.roll(256)).expect("a byte")),
            2 if !body.is_empty() => body[at] ^= 1 << dice.roll(8),
            3 if !body.is_empty() => {
                let end = at + dice.roll(body.len() - at);
                let piece = body[at..end].to_vec();
                body.splice(at..at, piece);
            }
            _ => {
                let token = TOKENS[dice.roll(TOKENS.len())];
                body.splice(at..at, token.iter().copied());
            }
        }
    }
    body
}

async fn mutated_bodies_never_break_the_server(s: &TestServer) {
    let good = br#"{"input":{"a":[1,2.5,"\u00e9\n"],"b":null},"webhook":"http://127.0.0.1:2/x","policy":{"executionTimeout":60000,"ttl":60000,"lowPriority":true},"s3Config":{"accessId":"i","accessSecret":"s","bucketName":"b","endpointUrl":"u"}}"#;
    let reports: [&[u8]; 4] = [
        br#"{"output":{"echo":[1,NaN]},"stopPod":false}"#,
        br#"{"error":{"code":7},"output":"x"}"#,
        br#"{"status":"IN_PROGRESS","output":{"pct":1}}"#,
        br#"{"output":[]}"#,
    ];
    let mut dice = Dice(20_240_229);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..400 {
        let body = mutated(&mut dice, good);
        let reply = s.post("/v2/ep/run", &body).await;
        let shown = String::from_utf8_lossy(&body);
        match reply.status {
            200 => accepted += 1,
            400 => refused += 1,
            other => panic!("round {round}: {other} {} for {shown}", reply.text()),
        }
        let error = reply.json();
        assert!(
            error["status"] == "IN_QUEUE" || error["code"].is_string(),
            "{error}"
        );
        if reply.status != 200 {
            continue;
        }
        // A worker can read what was accepted, and whatever it answers ends or leaves the job.
        let worker = s.worker(&format!("w{round}"));
        let id = id_in(&worker.take_saying("").await.text());
        for report in reports {
            worker.chunk(&id, mutated(&mut dice, report)).await;
            worker.done(&id, mutated(&mut dice, report)).await;
        }
        s.status(&id).await;
        s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
    }
    assert!(
        accepted > 20 && refused > 100,
        "{accepted} accepted, {refused} refused"
    );
    let id = s.run(good).await;
    assert_eq!(id_in(&s.worker("last").take_saying("").await.text()), id);
}

/// Inputs that came through may be no JSON to every parser, so the id is cut out.
fn id_in(handout: &str) -> String {
    handout
        .split('"')
        .nth(3)
        .expect("a job begins with its id")
        .to_owned()
}
