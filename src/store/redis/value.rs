//! What lies under an entry's key: which invalidations its writer knew, then the entry as the codec wrote it.
//!
//! Version byte, then position in the log of invalidations (16 bytes, big-endian), then the entry.

use super::log::Position;
use crate::{
    entry::Entry,
    store::codec::{self, CodecError},
};

/// First byte. A later version is skipped as a later entry codec is.
const VERSION: u8 = 1;

/// Version and position.
const HEADER: usize = 17;

/// Bytes that tell one writing of an entry from another: header, and version and checksum of the codec.
pub const FINGERPRINT: usize = HEADER + 9;

/// The bytes of `entry`, whose writer had applied the invalidations up to `seen`.
pub fn encode(entry: &Entry, seen: Position) -> Vec<u8> {
    let entry = codec::encode(entry);
    let mut bytes = Vec::with_capacity(HEADER + entry.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&seen.to_bytes());
    bytes.extend_from_slice(&entry);
    bytes
}

/// The entry, and the invalidations that its writer knew.
///
/// # Errors
/// [`CodecError`], as the codec's.
pub fn decode(bytes: &[u8]) -> Result<(Entry, Position), CodecError> {
    decode_with(bytes, codec::decode)
}

/// The same, the entry without its vector.
///
/// # Errors
/// [`CodecError`], as the codec's.
pub fn decode_answer(bytes: &[u8]) -> Result<(Entry, Position), CodecError> {
    decode_with(bytes, codec::decode_answer)
}

fn decode_with(
    bytes: &[u8],
    decode: fn(&[u8]) -> Result<Entry, CodecError>,
) -> Result<(Entry, Position), CodecError> {
    let Some((&version, rest)) = bytes.split_first() else { return Err(CodecError::Damaged("empty")) };
    if version > VERSION {
        return Err(CodecError::Newer(version));
    }
    let (position, entry) = rest.split_first_chunk().ok_or(CodecError::Damaged("header"))?;
    Ok((decode(entry)?, Position::from_bytes(*position)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry as the first version of the codec wrote it, pinned in the codec's own tests.
    const ENTRY: &[u8] = include_bytes!("../codec/testdata/entry-v1.bin");

    fn first_version() -> Vec<u8> {
        let header = [1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 7];
        [header.as_slice(), ENTRY].concat()
    }

    #[test]
    fn what_the_first_version_wrote_is_read() {
        let (entry, seen) = decode(&first_version()).unwrap();
        assert_eq!(seen, Position { ms: 5, n: 7 });
        assert_eq!(Ok(&entry), codec::decode(ENTRY).as_ref());
        let again = encode(&entry, seen);
        assert_eq!(again[..HEADER], first_version()[..HEADER]);
        assert_eq!(decode(&again), Ok((entry, seen)));
    }

    #[test]
    fn later_versions_and_junk_are_told_apart() {
        let later = [[VERSION + 1].as_slice(), &first_version()[1..]].concat();
        assert_eq!(decode(&later), Err(CodecError::Newer(VERSION + 1)));
        for length in 0..first_version().len() {
            assert!(matches!(decode(&first_version()[..length]), Err(CodecError::Damaged(_))), "{length}");
        }
    }
}
