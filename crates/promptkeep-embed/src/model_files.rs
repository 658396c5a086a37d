//! The model's files: where they lie, whether they are the right bytes, and how they get there. Knows
//! nothing of what is in them.

mod pull;

use std::{
    env,
    ffi::OsString,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

pub use pull::pull;

/// Name of the model, and of its folder.
pub const MODEL: &str = "all-MiniLM-L6-v2";

/// The files that are needed, as published in the model's repository.
const WEIGHTS: ModelFile = ModelFile {
    name: "model.safetensors",
    sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
};
const VOCABULARY: ModelFile = ModelFile {
    name: "vocab.txt",
    sha256: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
};

/// A file and the checksum of its only right content.
#[derive(Clone, Copy, Debug)]
struct ModelFile {
    name: &'static str,
    /// Lower-case hexadecimal.
    sha256: &'static str,
}

/// Checked contents.
pub struct ModelBytes {
    /// `model.safetensors`
    pub weights: Vec<u8>,
    /// `vocab.txt`
    pub vocabulary: String,
}

/// Why the model is not there. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("no folder for the embedding model: set embedding.model_dir, XDG_CACHE_HOME or HOME")]
    NoFolder,
    #[error("{} is missing: `promptkeep model pull` gets it; {}", path.display(), by_hand(path))]
    Missing { path: PathBuf },
    #[error("{}: wrong checksum, so it is damaged or another model's: `promptkeep model pull` replaces it", path.display())]
    Checksum { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// Every source failed; `causes` has a line for each.
    #[error("could not get the embedding model\n{causes}without network access: {}", by_hand(&folder.join(WEIGHTS.name)))]
    Download { folder: PathBuf, causes: String },
}

/// What a person without network access has to do.
fn by_hand(path: &Path) -> String {
    let folder = path.parent().unwrap_or(path).display();
    format!(
        "put {} and {} of huggingface.co/sentence-transformers/{MODEL} into {folder}, or name a folder that \
         has them in embedding.model_dir",
        WEIGHTS.name, VOCABULARY.name
    )
}

/// The folder of the model: `model_dir`, or the one in the user's cache.
///
/// # Errors
/// When there is neither.
pub fn folder(model_dir: Option<&Path>) -> Result<PathBuf, ModelError> {
    if let Some(dir) = model_dir {
        return Ok(dir.to_owned());
    }
    let cache = cache_folder(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"));
    Ok(cache.ok_or(ModelError::NoFolder)?.join("promptkeep/models").join(MODEL))
}

/// The XDG rule: a relative path in the variable counts as none.
fn cache_folder(xdg_cache_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    xdg_cache_home.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".cache")))
}

/// Whether all files are in `folder`; their content is not looked at.
pub fn present(folder: &Path) -> bool {
    [WEIGHTS, VOCABULARY].iter().all(|file| folder.join(file.name).is_file())
}

/// Reads and checks the files. Blocks for about a tenth of a second.
///
/// # Errors
/// When a file is missing, unreadable or not the right one.
pub fn read(folder: &Path) -> Result<ModelBytes, ModelError> {
    let weights = WEIGHTS.read(folder)?;
    let vocabulary = String::from_utf8(VOCABULARY.read(folder)?)
        .map_err(|_| ModelError::Checksum { path: folder.join(VOCABULARY.name) })?;
    Ok(ModelBytes { weights, vocabulary })
}

// === impl ModelFile ===

impl ModelFile {
    fn read(self, folder: &Path) -> Result<Vec<u8>, ModelError> {
        let path = folder.join(self.name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ModelError::Missing { path }),
            Err(source) => return Err(ModelError::Io { path, source }),
        };
        if hex(&Sha256::digest(&bytes)) == self.sha256 {
            Ok(bytes)
        } else {
            Err(ModelError::Checksum { path })
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
    }
    text
}

#[cfg(test)]
mod tests;
