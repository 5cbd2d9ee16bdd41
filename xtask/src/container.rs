//! The file system of the image that the tests run as containers: Debian with Python and the public SDK.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::layout::Layout;
use crate::{python, step, tools};

/// The SDK in the image: one of those that `python.rs` installs.
const SDK_VERSION: &str = "1.12.0";

/// What the image has beside the smallest Debian.
const PACKAGES: &str = "python3,ca-certificates";

/// What no worker reads.
const LEFT_OUT: [&str; 5] = [
    "./var/cache/apt",
    "./var/lib/apt/lists",
    "./usr/share/doc",
    "./usr/share/locale",
    "./usr/share/man",
];

/// Written last: holds what the archive was made of.
const MARKER: &str = ".complete";

const WITHOUT: &str = "or leave the tests with containers out: cargo xtask test --without-docker";

/// Sees to it that an engine can be started.
pub(crate) fn ensure_tools() -> Result<(), String> {
    if !tools::is_root() {
        let why = "the tests start a container engine of their own, which only root can";
        return Err(without(why));
    }
    tools::ensure(&tools::CONTAINERS).map_err(|error| without(&error))
}

fn without(error: &str) -> String {
    format!("{error}\n{WITHOUT}")
}

/// Sees to it that the archive is there. `python` says when the SDK's environment is.
pub(crate) fn ensure(
    layout: &Layout,
    python: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    make(layout, python).map_err(|error| without(&error))
}

fn make(layout: &Layout, python: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let started = Instant::now();
    let home = layout.container();
    let (archive, marker) = (home.join("root.tar"), home.join(MARKER));
    let suite = suite()?;
    let made_of = format!("{suite} {PACKAGES} runpod=={SDK_VERSION}");
    if fs::read_to_string(&marker).is_ok_and(|text| text == made_of) && archive.exists() {
        step::report("the root of the test image is there", started);
        return Ok(());
    }
    fs::create_dir_all(&home)
        .map_err(|error| format!("cannot create {}: {error}", home.display()))?;
    let root = home.join("root");
    clear(&root)?;
    step::run(
        Command::new("debootstrap")
            .arg("--variant=minbase")
            .arg(format!("--include={PACKAGES}"))
            .arg(&suite)
            .arg(&root),
    )?;
    python()?;
    install_sdk(layout, &root)?;
    pack(&root, &archive)?;
    clear(&root)?;
    fs::write(&marker, &made_of)
        .map_err(|error| format!("cannot write {}: {error}", marker.display()))?;
    step::report("made the root of the test image", started);
    Ok(())
}

/// The release of Debian or Ubuntu that this machine runs: its packages can surely be had.
fn suite() -> Result<String, String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = release
        .lines()
        .find_map(|it| it.strip_prefix("VERSION_CODENAME="));
    line.map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| "/etc/os-release names no VERSION_CODENAME: this is no Debian".to_owned())
}

/// Puts the SDK where the image's Python looks for it.
fn install_sdk(layout: &Layout, root: &Path) -> Result<(), String> {
    let program = "import sys; print('%d.%d' % sys.version_info[:2])";
    let version = step::answer(inside(root).args(["python3", "-c", program]))
        .ok_or("the test image's python3 does not run")?;
    let target = root.join(format!("usr/local/lib/python{version}/dist-packages"));
    // By this machine's Python, which may be another version.
    let python = layout.sdk().join(format!("py-{SDK_VERSION}/bin/python"));
    let arguments = [
        "--only-binary=:all:".to_owned(),
        format!("--python-version={version}"),
        format!("--target={}", target.display()),
        format!("runpod=={SDK_VERSION}"),
    ];
    python::Installer::get(layout).install(&python, &arguments)?;
    step::run(inside(root).args(["python3", "-c", "import runpod, runpod.serverless"]))
}

fn inside(root: &Path) -> Command {
    let mut command = Command::new("chroot");
    command
        .arg(root)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root");
    command
}

fn pack(root: &Path, archive: &Path) -> Result<(), String> {
    let unfinished = archive.with_extension("new");
    step::run(
        Command::new("tar")
            .args(["--create", "--one-file-system", "--numeric-owner"])
            .args(LEFT_OUT.map(|path| format!("--exclude={path}")))
            .arg("--file")
            .arg(&unfinished)
            .arg("--directory")
            .arg(root)
            .arg("."),
    )?;
    fs::rename(&unfinished, archive)
        .map_err(|error| format!("cannot write {}: {error}", archive.display()))
}

/// Removes a root, which may be one that an interrupted run left with `/proc` mounted in it.
fn clear(root: &Path) -> Result<(), String> {
    let _ = step::answer(Command::new("umount").arg(root.join("proc")));
    step::run(
        Command::new("rm")
            .args(["-rf", "--one-file-system"])
            .arg(root),
    )
}
