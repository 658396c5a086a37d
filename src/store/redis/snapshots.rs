//! Learner snapshots in Redis: each value is the version, then the bytes.

use redis::cmd;

use super::{
    core::{BACKGROUND_TIMEOUT, Core},
    link::Fault,
};
use crate::store::{Snapshot, SnapshotVersion};

/// See [`Store::snapshot`](crate::store::Store::snapshot).
pub async fn get(core: &Core, name: &str) -> Result<Option<Snapshot>, Fault> {
    let command = cmd("GET").arg(core.keys.snapshot(name)).clone();
    let value: Option<Vec<u8>> = core.link.call_within(core.link.timeout, &command).await?;
    let snapshot = |value: &[u8]| {
        let (version, bytes) = value.split_first_chunk()?;
        Some(Snapshot { version: *version, bytes: bytes.to_vec() })
    };
    Ok(value.as_deref().and_then(snapshot))
}

/// See [`Store::put_snapshot`](crate::store::Store::put_snapshot).
pub async fn put(
    core: &Core,
    name: &str,
    snapshot: &Snapshot,
    replaces: Option<SnapshotVersion>,
) -> Result<bool, Fault> {
    let value = [snapshot.version.as_slice(), &snapshot.bytes].concat();
    let replaces = replaces.as_ref().map_or(&[] as &[u8], |version| version.as_slice());
    let keys = [core.keys.snapshot(name)];
    let arguments = [value.as_slice(), replaces];
    let put: u64 = core.link.run(BACKGROUND_TIMEOUT, &core.put_snapshot, &keys, &arguments).await?;
    Ok(put > 0)
}
