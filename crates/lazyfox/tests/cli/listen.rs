//! Listening to webhooks: how it ends. The server is played, since it is only to stay connected.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Stdio;

use rustix::process::Signal;

use crate::process;
use crate::server::{DEADLINE, Home};

#[test]
fn ctrl_c_ends_the_listening() {
    let home = Home::new("");
    let server = TcpListener::bind(("127.0.0.1", home.port())).expect("the port is free");
    let mut child = home
        .lazyfox(&["listen", "fox"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let pid = i32::try_from(child.id()).expect("a process id fits");

    assert!(process::readable(&server, DEADLINE), "nobody connects");
    let (mut stream, _) = server.accept().expect("somebody connects");
    let request = BufReader::new(stream.try_clone().expect("a second handle"))
        .lines()
        .map_while(Result::ok)
        .find(|line| line.is_empty());
    assert!(request.is_some(), "a whole request");
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: listening\n\n")
        .expect("the client reads");

    let mut said = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let hello = said.next().expect("a line").expect("text");
    assert!(
        hello.starts_with("listening to the webhooks of fox"),
        "{hello}"
    );
    process::signal(pid, Signal::INT);
    assert!(process::ended(pid, DEADLINE), "it does not end");
    assert_eq!(child.wait().expect("our child").code(), Some(130));
    let last = said.next().expect("a line").expect("text");
    assert_eq!(last, "no longer listening");
}

#[test]
fn nobody_listens_to_a_server_that_is_not_there() {
    let home = Home::new("");
    let output = home.run(&["listen", "fox", "--forward", "127.0.0.1:1/hook"]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(3), ""),
        "{output:?}"
    );
    assert!(output.stderr.contains("cannot reach"), "{output:?}");
}
