//! How the data directory of an evicted node becomes another node's: it is let in anew with a token, and starts with an
//! empty store. What the directory held before is kept beside, under `former`, until an operator removes it.
//!
//! The new node's files are made under `next`, whole; then one after another changes places with its former. Whatever is
//! cut short goes on at the next start.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::clock::MachineClock;
use super::membership::{CLUSTER, IDENTITY, KEYRING, Membership, Newcomer};
use super::start::{STORE, StartError};
use crate::config::Config;
use crate::datadir::{DataDir, write_private};
use crate::net::{self, JoinError, JoinToken};
use crate::replica::{NamespaceId, NodeId};

/// The new node's files, until they are in place.
const NEXT: &str = "next";
/// Former nodes of this directory, by their ids; within [`NEXT`], the id of the one that makes room, written last.
const FORMER: &str = "former";
/// What a node is made of, in the order in which it changes places.
const PARTS: [&str; 4] = [STORE, IDENTITY, KEYRING, CLUSTER];

/// Whether the node that made the token that was given, and that can still be used, holds this one for evicted.
pub(super) async fn is_evicted(config: &Config, membership: &Membership, clock: MachineClock) -> bool {
    let Some(token) = token_of(config, membership) else { return false };
    if clock.wall().as_secs() > token.expires_secs {
        return false;
    }
    net::is_turned_away_by(token.issuer, &token.addresses, &membership.identity, &wall(clock)).await
}

/// The token that was given, if it is one of this node's cluster.
fn token_of(config: &Config, membership: &Membership) -> Option<JoinToken> {
    let token: JoinToken = config.join.as_ref()?.expose().parse().ok()?;
    (token.authority_fingerprint == membership.authority.fingerprint()).then_some(token)
}

fn wall(clock: MachineClock) -> net::WallClock {
    Arc::new(move || clock.wall())
}

/// Joins anew with the token that was given, as another node, and has this directory be its. The store must be closed.
/// After an error the directory is what it was.
pub(super) async fn rejoin(
    config: &Config,
    data: &DataDir,
    clock: MachineClock,
    evicted: Membership,
) -> Result<Membership, StartError> {
    let Some(token) = &config.join else { return Ok(evicted) };
    let parsed: JoinToken = token.expose().parse().map_err(JoinError::InvalidToken)?;
    if parsed.authority_fingerprint != evicted.authority.fingerprint() {
        return Err(JoinError::WrongCluster.into());
    }
    let (next, node) = (data.join(NEXT), evicted.identity.node_id());
    make(&next)?;
    // Values that only this node has may be sealed with keys that only this node has. Not the cluster's: the others have
    // changed it, perhaps because of this node.
    let carried = evicted.keyring.secrets().into_iter().filter(|secret| secret.owner != NamespaceId::CLUSTER).collect();
    let source = evicted.keyring.source().clone();
    if !next.join(CLUSTER).exists() {
        Newcomer { config, directory: &next, source, carried, clock }.enter().await?;
    }
    make(&next.join(STORE))?;
    write_private(&next.join(FORMER), node.to_string().as_bytes())?;
    drop(evicted);
    take_places(data)?;
    tracing::warn!(former = %node, "this node was evicted: it has joined anew, as another node");
    Membership::load(config, data, clock)
}

/// Has the new node's files take their places, if they are whole. To be called at every start, before anything is read.
pub(super) fn take_places(data: &DataDir) -> Result<(), StartError> {
    let next = data.join(NEXT);
    let Ok(former) = fs::read_to_string(next.join(FORMER)) else { return Ok(()) };
    let former: NodeId = former.trim().parse().map_err(|_| {
        StartError::Cluster(format!("{} is damaged: it should hold a node id", next.join(FORMER).display()))
    })?;
    let kept = data.join(FORMER).join(former.to_string());
    make(&kept)?;
    for part in PARTS {
        let (new, place) = (next.join(part), data.join(part));
        if !new.exists() {
            continue;
        }
        // As long as the new one is there, what is in its place is the former one.
        if place.exists() {
            change(&place, &kept.join(part))?;
        }
        change(&new, &place)?;
    }
    fs::remove_dir_all(&next).map_err(|cause| StartError::Io { path: next, cause })
}

/// Whether a new node is about to take its place: this directory is no new one.
pub(super) fn is_halfway(data: &DataDir) -> bool {
    data.join(NEXT).join(FORMER).exists()
}

/// Former nodes of this directory, with the places where what they held is kept.
pub(super) fn formers(data: &DataDir) -> Vec<(NodeId, PathBuf)> {
    let entries = fs::read_dir(data.join(FORMER)).into_iter().flatten().flatten();
    let mut formers: Vec<_> =
        entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect();
    formers.sort();
    formers
}

fn make(directory: &Path) -> Result<(), StartError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|cause| StartError::Io { path: directory.to_owned(), cause })
}

/// Renames, and has that on disk before anything else is renamed.
fn change(from: &Path, to: &Path) -> Result<(), StartError> {
    let sync = |path: &Path| path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all());
    let changed = || -> io::Result<()> {
        fs::rename(from, to)?;
        sync(to)?;
        sync(from)
    };
    changed().map_err(|cause| StartError::Io { path: to.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory whose next node is whole, with `done` renames behind it.
    fn halfway(done: usize) -> (tempfile::TempDir, DataDir) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = DataDir::open(&directory.path().join("data")).expect("a data directory");
        make(&data.join(NEXT)).expect("a directory");
        for part in PARTS {
            fs::write(data.join(part), "former").expect("written");
            fs::write(data.join(NEXT).join(part), "next").expect("written");
        }
        let former = NodeId(7).to_string();
        let kept = data.join(FORMER).join(&former);
        make(&kept).expect("a directory");
        let steps = PARTS.into_iter().flat_map(|part| {
            let (place, new) = (data.join(part), data.join(NEXT).join(part));
            [(place.clone(), kept.join(part)), (new, place)]
        });
        for (from, to) in steps.take(done) {
            change(&from, &to).expect("renamed");
        }
        fs::write(data.join(NEXT).join(FORMER), former).expect("written");
        (directory, data)
    }

    #[test]
    fn what_is_cut_short_between_any_two_renames_goes_on() {
        for done in 0..=2 * PARTS.len() {
            let (_directory, data) = halfway(done);
            take_places(&data).expect("it goes on");
            for part in PARTS {
                let read = |path: PathBuf| fs::read_to_string(path).expect("it is there");
                assert_eq!(read(data.join(part)), "next", "{done}: {part}");
                assert_eq!(read(data.join(FORMER).join(NodeId(7).to_string()).join(part)), "former", "{done}: {part}");
            }
            assert!(!data.join(NEXT).exists());
            assert_eq!(formers(&data).len(), 1);
            take_places(&data).expect("there is nothing left to do");
        }
    }

    #[test]
    fn what_is_not_whole_takes_no_place() {
        let (_directory, data) = halfway(0);
        fs::remove_file(data.join(NEXT).join(FORMER)).expect("it was there");
        take_places(&data).expect("nothing to do");
        assert_eq!(fs::read_to_string(data.join(STORE)).expect("it is there"), "former");
    }
}
