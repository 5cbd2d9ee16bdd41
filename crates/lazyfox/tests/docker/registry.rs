//! A registry with one image, on this machine: with an account, slow, or one that holds its layer back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::image;

/// A slow registry takes so long for each of so many parts of a layer.
const SLOW_PARTS: usize = 20;
const SLOW_PART: Duration = Duration::from_millis(100);

/// How it gives its layer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Fast,
    Slow,
    /// Half of it, the rest when the test says so.
    Held,
}

struct Image {
    manifest: String,
    config: String,
    layer: Bytes,
}

struct Inner {
    image: std::sync::Mutex<Arc<Image>>,
    account: Option<String>,
    pace: Pace,
    layers_given: AtomicUsize,
    manifests_given: AtomicUsize,
    open: watch::Sender<bool>,
    begun: mpsc::UnboundedSender<()>,
    over: mpsc::UnboundedSender<()>,
}

/// The registry.
pub(crate) struct Registry {
    inner: Arc<Inner>,
    port: u16,
    /// One for each giving of a layer that has begun.
    pub(crate) begun: mpsc::UnboundedReceiver<()>,
    /// One for each giving of a layer that is over, to its end or not.
    pub(crate) over: mpsc::UnboundedReceiver<()>,
}

impl Registry {
    /// An image whose command is this shell script, for everybody or for `USER:PASSWORD`.
    pub(crate) async fn start(script: &str, account: Option<&str>, pace: Pace) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (begins, begun) = mpsc::unbounded_channel();
        let (ends, over) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            image: std::sync::Mutex::new(Arc::new(image(script))),
            account: account.map(str::to_owned),
            pace,
            layers_given: AtomicUsize::new(0),
            manifests_given: AtomicUsize::new(0),
            open: watch::Sender::new(false),
            begun: begins,
            over: ends,
        });
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            inner,
            port,
            begun,
            over,
        }
    }

    /// The image's name.
    pub(crate) fn image(&self) -> String {
        format!("127.0.0.1:{}/team/job:1", self.port)
    }

    /// Moves the tag to another image.
    pub(crate) fn move_tag(&self, script: &str) {
        *self.inner.image.lock().expect("nobody panics with it") = Arc::new(image(script));
    }

    /// Gives the rest of what is held.
    pub(crate) fn let_go(&self) {
        self.inner.open.send_replace(true);
    }

    pub(crate) fn layers_given(&self) -> usize {
        self.inner.layers_given.load(Ordering::SeqCst)
    }

    /// Every pull asks for one, whatever the engine has.
    pub(crate) fn manifests_given(&self) -> usize {
        self.inner.manifests_given.load(Ordering::SeqCst)
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn image(script: &str) -> Image {
    let layer = Bytes::from(image::small_archive());
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/sh", "-c", script], "Env": ["OF_IMAGE=1", "NO_PROXY=a.example"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = config.to_string();
    let kind = "application/vnd.docker";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": format!("{kind}.distribution.manifest.v2+json"),
        "config": {
            "mediaType": format!("{kind}.container.image.v1+json"),
            "size": config.len(),
            "digest": digest(config.as_bytes()),
        },
        "layers": [{
            "mediaType": format!("{kind}.image.rootfs.diff.tar.gzip"),
            "size": layer.len(),
            "digest": digest(&layer),
        }],
    });
    Image {
        manifest: manifest.to_string(),
        config,
        layer,
    }
}

async fn answer(State(registry): State<Arc<Inner>>, request: Request) -> Response {
    if let Some(account) = &registry.account {
        let expected = base64::engine::general_purpose::STANDARD.encode(account);
        let given = request.headers().get("authorization");
        if given.is_none_or(|it| it.as_bytes() != format!("Basic {expected}").as_bytes()) {
            let realm = [("www-authenticate", "Basic realm=\"test\"")];
            return (StatusCode::UNAUTHORIZED, realm).into_response();
        }
    }
    let path = request.uri().path();
    let image = Arc::clone(&registry.image.lock().expect("nobody panics with it"));
    if path == "/v2/" {
        return "{}".into_response();
    }
    if path.contains("/manifests/") {
        registry.manifests_given.fetch_add(1, Ordering::SeqCst);
        let digest = digest(image.manifest.as_bytes());
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let headers = [
            ("content-type", kind),
            ("docker-content-digest", digest.as_str()),
        ];
        return (headers, image.manifest.clone()).into_response();
    }
    if path.ends_with(&digest(image.config.as_bytes())) {
        return image.config.clone().into_response();
    }
    if path.ends_with(&digest(&image.layer)) {
        return layer(registry, &image);
    }
    StatusCode::NOT_FOUND.into_response()
}

/// Says that a layer is given no further, however that came.
struct Giving(Arc<Inner>);

impl Drop for Giving {
    fn drop(&mut self) {
        let _ = self.0.over.send(());
    }
}

fn layer(registry: Arc<Inner>, image: &Image) -> Response {
    registry.layers_given.fetch_add(1, Ordering::SeqCst);
    let _ = registry.begun.send(());
    let parts = match registry.pace {
        Pace::Fast => 1,
        Pace::Slow => SLOW_PARTS,
        Pace::Held => 2,
    };
    let part = image.layer.len().div_ceil(parts);
    let pace = registry.pace;
    let all = image.layer.clone();
    let length = all.len().to_string();
    let begin = (Giving(registry), all, tokio::time::interval(SLOW_PART));
    let body = stream::unfold(begin, move |(giving, mut rest, mut ticks)| async move {
        if rest.is_empty() {
            return None;
        }
        match pace {
            Pace::Fast => {}
            Pace::Slow => {
                ticks.tick().await;
            }
            Pace::Held if rest.len() > part => {}
            Pace::Held => {
                let mut open = giving.0.open.subscribe();
                let _ = open.wait_for(|open| *open).await;
            }
        }
        let piece = rest.split_to(part.min(rest.len()));
        Some((Ok::<_, std::io::Error>(piece), (giving, rest, ticks)))
    });
    ([("content-length", length)], Body::from_stream(body)).into_response()
}
