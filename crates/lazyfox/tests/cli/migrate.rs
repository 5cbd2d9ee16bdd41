//! The tables of a database, looked at and made; and keys in it.

use crate::server::{Home, Output};

#[track_caller]
fn said(output: &Output, code: i32, part: &str) {
    assert_eq!(output.code, Some(code), "{output:?}");
    assert!(
        output.stdout.contains(part),
        "{part:?} is not in {output:?}"
    );
}

fn later(url: &str, needs: i32) {
    let sql = format!(
        "INSERT INTO lazyfox.format (number, needs, program) VALUES (100 + {needs}, {needs}, 'x')"
    );
    lazyfox_testing::shared().psql(url, &sql);
}

#[test]
fn check_says_what_would_be_done_and_does_nothing() {
    let home = Home::new("");
    let url = lazyfox_testing::shared().database();
    let run =
        |arguments: &[&str]| home.run(&[&["migrate", "--database-url", &url], arguments].concat());
    for _ in 0..2 {
        said(
            &run(&["--check"]),
            1,
            "no tables; `lazyfox migrate` would make those of format 1",
        );
    }
    said(&run(&[]), 0, "made the tables of format 1");
    said(&run(&[]), 0, "format 1, nothing to do");
    said(&run(&["--check"]), 0, "format 1, nothing to do");

    later(&url, 1);
    for arguments in [&["--check"][..], &[]] {
        said(
            &run(arguments),
            0,
            "format 101 of a later release, which this one can use",
        );
    }
    later(&url, 7);
    let newer = "format 107 of a later release, which programs need to know up to format 7";
    for arguments in [&["--check"][..], &[]] {
        said(&run(arguments), 1, newer);
    }
    lazyfox_testing::shared().psql(&url, "DELETE FROM lazyfox.format WHERE number > 1");
    said(&run(&["--check"]), 0, "nothing to do");
    lazyfox_testing::shared().psql(&url, "UPDATE lazyfox.format SET number = 0");
    said(
        &run(&["--check"]),
        1,
        "format 0; `lazyfox migrate` would bring it to format 1",
    );
}

#[test]
fn a_database_is_named_by_option_or_configuration() {
    let home = Home::new("");
    let url = lazyfox_testing::shared().database();
    let directory = home.run(&["migrate", "--check"]);
    assert_eq!(directory.code, Some(2), "{directory:?}");
    assert!(
        directory.stderr.contains("needs no migrating by hand"),
        "{directory:?}"
    );
    home.configure(&format!(
        "[server]\nstore = \"postgres\"\ndatabase_url = \"{url}\"\n"
    ));
    said(&home.run(&["migrate"]), 0, "made the tables");
    let none = home.run(&["migrate", "--database-url", "postgres://127.0.0.1:1/x"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(2), ""), "{none:?}");
    assert!(none.stderr.contains("127.0.0.1:1 (x)"), "{none:?}");
}

#[test]
fn keys_are_kept_in_the_database() {
    let home = Home::new("");
    let url = lazyfox_testing::shared().database();
    let key = |arguments: &[&str]| home.run(&[&["key"], arguments].concat());
    let none = key(&["list", "--database-url", &url]);
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(
        none.stderr.contains("there is no store in the database at"),
        "{none:?}"
    );
    home.run(&["migrate", "--database-url", &url]);
    let made = key(&[
        "create",
        "web shop",
        "--endpoint",
        "a",
        "--database-url",
        &url,
    ]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let id = made.stderr.split(' ').nth(1).expect("made KEY").to_owned();
    home.configure(&format!(
        "[server]\nstore = \"postgres\"\ndatabase_url = \"{url}\"\n"
    ));
    said(&key(&["list"]), 0, "valid    web shop");
    let mut by_variable = home.lazyfox(&["key", "revoke", &id, "--config", "lazyfox.toml"]);
    by_variable.env("LAZYFOX_DATABASE_URL", &url);
    assert!(by_variable.status().expect("it runs").success());
    said(&key(&["list"]), 0, "revoked  web shop");
    let unknown = key(&["revoke", "key_none"]);
    assert!(
        unknown.stderr.contains("there is no key key_none"),
        "{unknown:?}"
    );
    // --data is another store, whatever the configuration says.
    let data = key(&["list", "--data", "none"]);
    assert!(
        data.stderr.contains("there is no store in none"),
        "{data:?}"
    );
}
