//! The API key of a provider: from the environment, or from a file that may be renewed at any time.

use std::{
    env,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};

use crate::config::{ProviderConfig, ProviderKind};

/// Maximum size of a file with an API key; tokens of identity providers have a few kilobytes.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// How a provider knows this server.
pub(super) struct Credentials {
    kind: ProviderKind,
    key: Key,
}

enum Key {
    None,
    Fixed(HeaderValue),
    File {
        path: PathBuf,
        /// The last readable key, for the moment in which the file is being replaced. The mutex is held for a copy.
        last: Mutex<HeaderValue>,
    },
}

impl Credentials {
    /// # Errors
    /// A sentence that names the key of the configuration and never holds the API key.
    pub fn of(config: &ProviderConfig) -> Result<Self, String> {
        let ProviderConfig { kind, api_key_env, api_key_file, .. } = config;
        let key = if !api_key_env.is_empty() {
            let key = env::var(api_key_env).map_err(|_| format!("{api_key_env} is not set"))?;
            let value =
                header_value(*kind, &key).ok_or_else(|| format!("{api_key_env} holds no valid API key"))?;
            Key::Fixed(value)
        } else if api_key_file.as_os_str().is_empty() {
            Key::None
        } else {
            let file = api_key_file.display();
            let text = read(api_key_file).ok_or_else(|| format!("api_key_file: {file} cannot be read"))?;
            let value = header_value(*kind, &text)
                .ok_or_else(|| format!("api_key_file: {file} holds no valid API key"))?;
            Key::File { path: api_key_file.clone(), last: Mutex::new(value) }
        };
        Ok(Self { kind: *kind, key })
    }

    /// The header with the API key, if there is one. Reads the file, which takes microseconds, so that a renewed key is
    /// used at once.
    pub fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let value = match &self.key {
            Key::None => return None,
            Key::Fixed(value) => value.clone(),
            Key::File { path, last } => {
                let renewed = read(path).and_then(|key| header_value(self.kind, &key));
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(renewed) = renewed {
                    *last = renewed;
                }
                last.clone()
            }
        };
        let name = match self.kind {
            ProviderKind::Openai => AUTHORIZATION,
            ProviderKind::Azure => HeaderName::from_static("api-key"),
        };
        Some((name, value))
    }
}

fn read(path: &Path) -> Option<String> {
    let mut key = String::new();
    File::open(path).ok()?.take(KEY_BYTES_MAX).read_to_string(&mut key).ok()?;
    Some(key)
}

/// The header's value; `None` for an empty key or one that no header can hold.
fn header_value(kind: ProviderKind, key: &str) -> Option<HeaderValue> {
    let key = key.trim();
    let text = match kind {
        ProviderKind::Openai => format!("Bearer {key}"),
        ProviderKind::Azure => key.to_owned(),
    };
    let mut value = HeaderValue::try_from(text).ok().filter(|_| !key.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}
