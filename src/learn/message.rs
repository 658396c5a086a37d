//! Messages between replicas: deltas and rejected pairs of namespaces. They carry numbers, hashes and names, never a text.

use promptkeep_core::codec::{Malformed, Reader};

use super::{
    NamespaceId,
    rejected_pairs::{REJECTED_MAX, RejectedPair, read_pairs, write_pairs},
};
use crate::{
    decide::{learner::Delta, table::Table},
    key::Owner,
};

const MAGIC: &[u8; 8] = b"pkheard\x01";

/// Maximum length of the name of a tenant or namespace.
const NAME_MAX: usize = 64 * 1024;

/// What a namespace has learned and not published yet.
pub(super) struct Unpublished {
    pub rejected: Vec<RejectedPair>,
    pub delta: Option<Delta>,
}

/// What another process learned about a namespace.
#[derive(Debug, PartialEq)]
pub(super) struct Received<'a> {
    pub id: NamespaceId,
    pub rejected: Vec<RejectedPair>,
    /// An encoded [`Delta`]; empty for none, or for one that was made with another table.
    pub delta: &'a [u8],
}

/// An encoded message under construction.
pub(super) struct Message {
    pub bytes: Vec<u8>,
}

impl Message {
    pub fn new(table: &Table) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(table.fingerprint().to_le_bytes());
        Self { bytes }
    }

    pub fn add(&mut self, id: &NamespaceId, unpublished: &Unpublished) {
        let to = &mut self.bytes;
        match &id.owner {
            Owner::Tenant(tenant) => {
                to.push(1);
                put(to, tenant.as_bytes());
            }
            Owner::Shared => to.push(0),
        }
        put(to, id.name.as_bytes());
        write_pairs(to, unpublished.rejected.iter());
        let mut delta = Vec::new();
        unpublished.delta.iter().for_each(|unpublished| unpublished.encode(&mut delta));
        put(to, &delta);
    }
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as u32).to_le_bytes());
    to.extend(bytes);
}

/// Reads a message.
pub(super) fn read<'a>(message: &'a [u8], table: &Table) -> Result<Vec<Received<'a>>, Malformed> {
    let from = &mut Reader::new(message);
    from.expect(MAGIC, "magic")?;
    let has_table = from.u64()? == table.fingerprint();
    let mut all = Vec::new();
    while !from.is_empty() {
        let owner = match from.byte()? {
            0 => Owner::Shared,
            1 => Owner::Tenant(name(from)?),
            _ => return Err(Malformed("owner")),
        };
        let name = name(from)?;
        let rejected = read_pairs(from, REJECTED_MAX)?;
        let length = from.u32()? as usize;
        let delta = from.take(length)?;
        let delta = if has_table { delta } else { &[] };
        all.push(Received { id: NamespaceId { owner, name }, rejected, delta });
    }
    Ok(all)
}

fn name(from: &mut Reader<'_>) -> Result<String, Malformed> {
    let length = from.count(NAME_MAX)?;
    from.utf8(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::CacheKey;

    #[test]
    fn a_message_is_read_as_written() {
        let table = Table::embedded().unwrap();
        let key = |n| CacheKey::from_bytes([n; 32]);
        let ids = [Owner::Shared, Owner::Tenant("acme".to_owned())]
            .map(|owner| NamespaceId { owner, name: "docs".to_owned() });
        let rejected = vec![(key(1), key(2)), (key(3), key(4))];
        let mut message = Message::new(&table);
        message.add(&ids[0], &Unpublished { rejected: rejected.clone(), delta: None });
        message.add(&ids[1], &Unpublished { rejected: Vec::new(), delta: None });
        let received = read(&message.bytes, &table).unwrap();
        assert_eq!(received[0], Received { id: ids[0].clone(), rejected, delta: &[] });
        assert_eq!(received[1], Received { id: ids[1].clone(), rejected: Vec::new(), delta: &[] });
        for length in 0..message.bytes.len() {
            let cut = read(&message.bytes[..length], &table);
            assert!(cut.is_err() || cut.is_ok_and(|received| received.len() < 2), "{length}");
        }
        assert!(read(b"something else", &table).is_err());
    }
}
