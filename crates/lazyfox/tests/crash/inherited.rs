//! A socket that outlives the server: what is posted while no server is there waits for the next one.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use crate::http::request;
use crate::server::{DEADLINE, Home};

/// A server on an inherited socket, ended with the test.
struct Heir(Child);

impl Heir {
    /// Starts one as a service manager does: the socket as descriptor 3, and two variables.
    fn start(home: &Home, socket: &TcpListener) -> Self {
        let socket = socket.try_clone().expect("a socket can be duplicated");
        let mut child = Command::new("sh")
            .arg("-c")
            .arg("LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve 3<&0 0</dev/null")
            .arg(env!("CARGO_BIN_EXE_lazyfox"))
            .current_dir(home.path())
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let stdout = child.stdout.take().expect("its output is a pipe");
        let heir = Self(child);
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line.starts_with("ready on ")),
            "the server ended before it was ready"
        );
        heir
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_result_posted_while_the_server_is_away_is_kept_by_the_next_one() {
    let home = Home::new("[server]\nauth = \"none\"\n[endpoints.e]\n");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = socket.local_addr().expect("it is bound").port();

    let first = Heir::start(&home, &socket);
    let submitted = request(port, "POST", "/v2/e/run", &[], "{\"input\":1}").expect("an answer");
    let job = submitted.json()["id"].as_str().expect("an id").to_owned();
    let taken = request(port, "GET", "/v2/e/job-take/w1?", &[], "").expect("an answer");
    assert_eq!(taken.json()["id"], job);
    drop(first);

    let mut post = TcpStream::connect(("127.0.0.1", port)).expect("the socket is still open");
    post.set_read_timeout(Some(DEADLINE))
        .expect("a timeout can be set");
    let body = "{\"output\":\"late\"}";
    write!(
        post,
        "POST /v2/e/job-done/w1/{job}?&isStream=false HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("the kernel takes it");

    let _second = Heir::start(&home, &socket);
    let mut answer = String::new();
    post.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let status = request(port, "GET", &format!("/v2/e/status/{job}"), &[], "").expect("an answer");
    assert_eq!(status.json()["status"], "COMPLETED");
    assert_eq!(status.json()["output"], "late");
}
