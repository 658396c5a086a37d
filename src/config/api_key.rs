//! Hashes of API keys. The server never keeps a caller's key itself.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// SHA-256 of an API key. Keys are long and random, so a plain hash is enough: unlike passwords, they cannot be
/// found by trying a dictionary.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ApiKeyHash([u8; 32]);

impl ApiKeyHash {
    /// Hashes `key`.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Parses 64 hex digits, as `sha256sum` prints them.
    pub fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// Masks the hash, which would let a reader of the log confirm a guessed key.
impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash(****)")
    }
}
