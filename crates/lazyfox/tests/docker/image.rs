//! The images of the tests: a shell alone, and Debian with Python and the SDK.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::{Docker, body_stream};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

/// A shell and the libraries that it needs.
pub(crate) const SMALL: &str = "lazyfox-test-small:1";

/// Debian with Python and the public SDK.
pub(crate) const PYTHON: &str = "lazyfox-test-python:1";

/// How much of an archive is sent at once, in bytes.
const CHUNK_BYTES: usize = 1024 * 1024;

/// An archive of this machine's shell and its libraries. No two are the same, or an engine that knows one
/// would not fetch the other.
pub(crate) fn small_archive() -> Vec<u8> {
    let listed = Command::new("ldd")
        .arg("/bin/sh")
        .output()
        .expect("ldd runs");
    let listed = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    let files = libraries
        .chain(["/bin/sh"])
        .map(|path| path.trim_start_matches('/'));
    let own = tempfile::tempdir().expect("a temporary directory");
    let name = own.path().display().to_string();
    fs::write(own.path().join("own"), &name).expect("a file");
    let packed = Command::new("tar")
        // What links lead to, because the directories that they are in are links too.
        .args(["--create", "--dereference", "--directory=/"])
        .args(files)
        .args(["--directory", &name, "own"])
        .output()
        .expect("tar runs");
    assert!(
        packed.status.success(),
        "{}",
        String::from_utf8_lossy(&packed.stderr)
    );
    packed.stdout
}

pub(crate) async fn load_small(docker: &Docker) {
    import(docker, SMALL, std::iter::once(small_archive().into())).await;
}

/// Puts the image with Python on an engine.
pub(crate) async fn load_python(docker: &Docker) {
    let mut file = fs::File::open(python_archive()).expect("the archive can be read");
    let chunks = std::iter::from_fn(move || {
        let mut chunk = Vec::new();
        let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
        (read.expect("the archive can be read") > 0).then(|| Bytes::from(chunk))
    });
    import(docker, PYTHON, chunks).await;
}

/// What `cargo xtask setup` makes.
fn python_archive() -> PathBuf {
    let given = std::env::var_os("LAZYFOX_TEST_CONTAINER_DIR").map(PathBuf::from);
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/container");
    let path = given.unwrap_or(usual).join("root.tar");
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask setup`",
        path.display()
    );
    path
}

async fn import(
    docker: &Docker,
    name: &str,
    archive: impl Iterator<Item = Bytes> + Send + 'static,
) {
    // Podman knows no tag beside the name.
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(name);
    let archive = body_stream(stream::iter(archive));
    let mut steps = docker.create_image(Some(options.build()), Some(archive), None);
    while let Some(step) = steps.next().await {
        step.expect("the image is imported");
    }
}
