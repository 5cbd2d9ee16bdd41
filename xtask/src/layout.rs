//! Where things are in the checkout.

use std::path::{Path, PathBuf};

/// The folders that the chores read and write.
pub(crate) struct Layout {
    root: PathBuf,
    sdk: PathBuf,
    container: PathBuf,
}

impl Layout {
    /// The layout of the workspace that this program was built in.
    pub(crate) fn of_workspace() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        // Virtual environments hold absolute paths, and a path with `..` in it reads badly in logs.
        let root = root.canonicalize().unwrap_or(root);
        let sdk = root.join("target").join("sdk");
        let container = root.join("target").join("container");
        Self {
            root,
            sdk,
            container,
        }
    }

    /// The root of the workspace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the public SDKs are installed: below `target`, so that `cargo clean` takes them too.
    pub(crate) fn sdk(&self) -> &Path {
        &self.sdk
    }

    /// Where the file system of the test image is made.
    pub(crate) fn container(&self) -> PathBuf {
        self.container.clone()
    }

    /// The package that names the JavaScript SDK and everything it depends on.
    pub(crate) fn js_package(&self) -> PathBuf {
        self.root.join("crates/lazyfox/tests/sdk/js")
    }
}
