//! The configuration file as `serve` takes it.

use std::fs;

use crate::server::Home;

#[test]
fn printed_configuration_is_the_shipped_one_and_is_accepted() {
    let home = Home::new("");
    let printed = home.run(&["serve", "--print-config"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    assert_eq!(printed.stdout, include_str!("../../config.default.toml"));

    home.configure(&printed.stdout);
    let mut server = home.serve();
    let said = server.said().join("\n");
    assert!(said.contains("admin key"), "keys are the default: {said}");
    assert!(server.stop().success());
    assert!(home.database().exists());
}

#[test]
fn mistakes_name_their_line_or_their_key() {
    let home = Home::new("");
    let cases = [
        (
            "[endpoints.a]\ncommand = [\"x\"]\nworker_max = 3\n",
            "line 3",
            "worker_max",
        ),
        ("[server]\nlisten = 8000\n", "line 2", "listen"),
        ("[server\n", "line 1", ""),
        (
            "[endpoints.a]\nretries_max = 11\n",
            "endpoints.a",
            "allowed are 0 to 10",
        ),
    ];
    for (config, place, what) in cases {
        home.configure(config);
        let output = home.run(&["serve", "--listen", "127.0.0.1:0"]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(2), ""),
            "{output:?}"
        );
        for part in ["error: ", "lazyfox.toml", place, what] {
            assert!(
                output.stderr.contains(part),
                "{part:?} is not in {}",
                output.stderr
            );
        }
    }
    assert!(
        !home.database().exists(),
        "a store was made for a wrong configuration"
    );
}

#[test]
fn what_cannot_be_served_is_refused_with_a_way_out() {
    let home = Home::new("[server]\nauth = \"none\"\n[endpoints.a]\n");
    let refused = |arguments: &[&str], expected: &str| {
        let output = home.run(&[&["serve"], arguments].concat());
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(2), ""),
            "{output:?}"
        );
        assert!(
            output.stderr.contains(expected),
            "{expected:?} is not in {}",
            output.stderr
        );
    };
    refused(&["--listen", "0.0.0.0:0"], "auth = \"keys\"");
    refused(&["--listen", "nowhere"], "cannot listen on nowhere");
    refused(
        &["--config", "none.toml"],
        "cannot read the configuration none.toml",
    );
    let mut server = home.serve();
    let taken = format!("127.0.0.1:{}", home.port());
    refused(
        &["--listen", &taken],
        "choose another address with --listen",
    );
    assert!(server.stop().success());
    fs::remove_file(home.path().join("lazyfox.toml")).expect("it is there");
    refused(&[], "--print-config");
}
