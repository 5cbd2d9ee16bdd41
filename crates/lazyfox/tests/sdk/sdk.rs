//! Where the SDKs, the handlers and the client scripts are.

use std::path::{Path, PathBuf};

/// The version that the client and fault tests use: the latest stable one.
pub(crate) const LATEST: &str = "1.12.0";

/// The folder that `cargo xtask setup` fills.
pub(crate) fn dir() -> PathBuf {
    let given = std::env::var_os("LAZYFOX_TEST_SDK_DIR").map(PathBuf::from);
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sdk");
    given
        .unwrap_or(usual)
        .canonicalize()
        .expect("the SDKs are not installed: run `cargo xtask setup`")
}

/// The interpreter that has this version of the Python SDK.
pub(crate) fn python(version: &str) -> String {
    // Not canonicalised: the link itself tells Python which environment it belongs to.
    text(&dir().join(format!("py-{version}/bin/python")))
}

/// The folder of the JavaScript SDK.
pub(crate) fn js() -> String {
    text(&dir().join("js"))
}

/// A file of this test, such as `handlers/sync_handler.py`.
pub(crate) fn file(name: &str) -> String {
    text(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/sdk")
            .join(name),
    )
}

fn text(path: &Path) -> String {
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask setup`",
        path.display()
    );
    path.to_str()
        .expect("the checkout's path is UTF-8")
        .to_owned()
}
