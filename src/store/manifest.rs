//! Whether the database's lists of its files are what was written. It keeps a checksum of each list in use and does not
//! look at it: a flipped digit would be a table less, in silence, or an older state of one keyspace among newer ones.
//!
//! Reads version 3 of the database's format: in each keyspace's directory `current` names the list in use (8 bytes,
//! little-endian), then comes the XXH3-128 of that file (16), then the kind of checksum (1).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

const CURRENT: &str = "current";
const CURRENT_LEN: usize = 8 + 16 + 1;
/// The kind of checksum that is known.
const XXH3: u8 = 0;

/// The first list below a store's directory that is not what was written.
pub(super) fn find_damaged(directory: &Path) -> io::Result<Option<PathBuf>> {
    let keyspaces = match fs::read_dir(directory.join("keyspaces")) {
        Ok(keyspaces) => keyspaces,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for keyspace in keyspaces {
        let keyspace = keyspace?.path();
        let current = match fs::read(keyspace.join(CURRENT)) {
            Ok(current) => current,
            // One that was just being made: the database knows what to do.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(error),
        };
        let Some((list, sum)) = parse(&current) else { return Ok(Some(keyspace.join(CURRENT))) };
        let list = keyspace.join(format!("v{list}"));
        match fs::read(&list) {
            Ok(bytes) if xxh3_128(&bytes) == sum => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(Some(list)),
        }
    }
    Ok(None)
}

fn parse(current: &[u8]) -> Option<(u64, u128)> {
    let current: &[u8; CURRENT_LEN] = current.try_into().ok()?;
    let (list, rest) = current.split_first_chunk()?;
    let (sum, kind) = rest.split_first_chunk()?;
    (kind == [XXH3]).then(|| (u64::from_le_bytes(*list), u128::from_le_bytes(*sum)))
}
