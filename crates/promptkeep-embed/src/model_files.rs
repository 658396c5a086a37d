//! The model's files: their directory, checksums and download. Knows nothing of their contents.

mod pull;

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

pub use pull::pull;

/// Name of the model and of its directory.
const MODEL: &str = "all-MiniLM-L6-v2";

/// The model's weights, as published in its repository.
const WEIGHTS: ModelFile = ModelFile {
    name: "model.safetensors",
    sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
};
/// The model's vocabulary, as published in its repository.
const VOCABULARY: ModelFile = ModelFile {
    name: "vocab.txt",
    sha256: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
};

/// A file and its checksum.
#[derive(Clone, Copy, Debug)]
struct ModelFile {
    name: &'static str,
    /// SHA-256 in lower-case hexadecimal.
    sha256: &'static str,
}

/// Contents of the model's files, whose checksums are right.
pub struct ModelBytes {
    /// Contents of `model.safetensors`.
    pub weights: Vec<u8>,
    /// Contents of `vocab.txt`.
    pub vocabulary: String,
}

/// Why the model's files cannot be used. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Neither a directory is configured nor the user has a cache directory.
    #[error("no folder for the embedding model: set embedding.model_dir, XDG_CACHE_HOME or HOME")]
    NoFolder,
    /// A file is missing.
    #[error("{} is missing: `promptkeep model pull` downloads it; {}", path.display(), by_hand(path))]
    Missing { path: PathBuf },
    /// A file has other contents than this model's.
    #[error("{}: wrong checksum, the file is damaged or from another model: `promptkeep model pull` replaces it", path.display())]
    Checksum { path: PathBuf },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// All sources failed; `causes` has a line for each.
    #[error("could not download the embedding model\n{causes}without network access: {}", by_hand(&folder.join(WEIGHTS.name)))]
    Download { folder: PathBuf, causes: String },
}

/// Returns the instructions for a machine without network access.
fn by_hand(path: &Path) -> String {
    let folder = path.parent().unwrap_or(path).display();
    format!(
        "put {} and {} of huggingface.co/sentence-transformers/{MODEL} into {folder}, or set embedding.model_dir to \
         a folder that has them",
        WEIGHTS.name, VOCABULARY.name
    )
}

/// Returns the directory of the model's files: `model_dir`, or the default in the user's cache directory.
///
/// # Errors
/// [`ModelError::NoFolder`] when there is neither.
pub fn folder(model_dir: Option<&Path>) -> Result<PathBuf, ModelError> {
    if let Some(dir) = model_dir {
        return Ok(dir.to_owned());
    }
    let cache = cache_folder(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"));
    Ok(cache.ok_or(ModelError::NoFolder)?.join("promptkeep/models").join(MODEL))
}

/// Returns the user's cache directory by the XDG rules: a relative path in the variable is ignored.
fn cache_folder(xdg_cache_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    xdg_cache_home.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".cache")))
}

/// Whether all files are in `folder`. Does not check their contents.
pub fn present(folder: &Path) -> bool {
    [WEIGHTS, VOCABULARY].iter().all(|file| folder.join(file.name).is_file())
}

/// Reads the files and verifies their checksums. Blocks for about a tenth of a second.
///
/// # Errors
/// When a file is missing, unreadable or has a wrong checksum.
pub fn read(folder: &Path) -> Result<ModelBytes, ModelError> {
    let weights = WEIGHTS.read(folder)?;
    let vocabulary = String::from_utf8(VOCABULARY.read(folder)?)
        .map_err(|_| ModelError::Checksum { path: folder.join(VOCABULARY.name) })?;
    Ok(ModelBytes { weights, vocabulary })
}

impl ModelFile {
    fn read(self, folder: &Path) -> Result<Vec<u8>, ModelError> {
        let path = folder.join(self.name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ModelError::Missing { path }),
            Err(source) => return Err(ModelError::Io { path, source }),
        };
        if format!("{:x}", Sha256::digest(&bytes)) == self.sha256 {
            Ok(bytes)
        } else {
            Err(ModelError::Checksum { path })
        }
    }
}

#[cfg(test)]
mod tests;
