//! The value under an entry's key: a version byte; the position in the log of invalidations up to which the writer had
//! applied them, 16 bytes big-endian; then the entry as the codec encodes it.

use promptkeep_core::codec::Reader;

use super::log::Position;
use crate::{
    entry::Entry,
    store::codec::{self, CodecError},
};

/// First byte. A later version is skipped, like a later version of the codec.
const VERSION: u8 = 1;

/// Version and position.
const HEADER: usize = 17;

/// Length of the prefix that distinguishes two writes of an entry: header, and version and checksum of the codec.
pub const FINGERPRINT: usize = HEADER + 9;

/// Encodes an entry, whose writer had applied the invalidations up to `seen`.
pub fn encode(entry: &Entry, seen: Position) -> Vec<u8> {
    let entry = codec::encode(entry);
    let mut bytes = Vec::with_capacity(HEADER + entry.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&seen.to_bytes());
    bytes.extend_from_slice(&entry);
    bytes
}

/// Decodes an entry and the position that its writer had seen.
pub fn decode(bytes: &[u8]) -> Result<(Entry, Position), CodecError> {
    decode_with(bytes, codec::decode)
}

/// Decodes an entry without its vector, and the position that its writer had seen.
pub fn decode_answer(bytes: &[u8]) -> Result<(Entry, Position), CodecError> {
    decode_with(bytes, codec::decode_answer)
}

fn decode_with(
    bytes: &[u8],
    decode: fn(&[u8]) -> Result<Entry, CodecError>,
) -> Result<(Entry, Position), CodecError> {
    let mut from = Reader::new(bytes);
    let version = from.byte()?;
    if version > VERSION {
        return Err(CodecError::Newer(version));
    }
    let position = Position::from_bytes(from.array()?);
    Ok((decode(from.rest())?, position))
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
    fn the_first_version_is_still_read() {
        let (entry, seen) = decode(&first_version()).unwrap();
        assert_eq!(seen, Position { ms: 5, n: 7 });
        assert_eq!(Ok(&entry), codec::decode(ENTRY).as_ref());
        let again = encode(&entry, seen);
        assert_eq!(again[..HEADER], first_version()[..HEADER]);
        assert_eq!(decode(&again), Ok((entry, seen)));
    }

    #[test]
    fn a_later_version_is_distinguished_from_damage() {
        let later = [[VERSION + 1].as_slice(), &first_version()[1..]].concat();
        assert_eq!(decode(&later), Err(CodecError::Newer(VERSION + 1)));
        for length in 0..first_version().len() {
            assert!(matches!(decode(&first_version()[..length]), Err(CodecError::Damaged(_))), "{length}");
        }
    }
}
