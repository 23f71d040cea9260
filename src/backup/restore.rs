//! The other end: reading a backup, and making a data directory of it. The directory gets its name only when it is
//! whole, so that one which was cut short is never started.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::BackupError;
use super::file::{Frame, Frames, HEADER_LEN, Header, Piece};
use crate::datadir::DataDir;
use crate::keyring::{ClusterKey, KeySource, PieceKey, PieceName};
use crate::node::{Belongings, MachineClock, STORE, Standing, StartError};
use crate::replica::NodeId;
use crate::store::Filling;

/// Read at a time, in bytes.
const READ_LEN: usize = 256 << 10;

/// What a backup holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// The node that it was taken of.
    pub node: NodeId,
    /// What that one was called.
    pub name: String,
    /// The account of its cluster, 32 hex digits.
    pub account: String,
    /// When it was taken, Unix milliseconds.
    pub taken_ms: u64,
    /// Rows of the store.
    pub rows: u64,
    /// Its pieces.
    pub pieces: u64,
}

/// What came of a backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// What it held.
    pub content: Content,
    /// The node that lives in the directory.
    pub node: NodeId,
    /// Members of the former cluster that are off the new one's roster.
    pub evicted: usize,
}

/// Checks every checksum and every seal of a backup. `progress` is told how many bytes were read.
pub fn check(path: &Path, source: &KeySource, progress: &mut dyn FnMut(u64)) -> Result<Content, BackupError> {
    let mut reading = Reading::open(path, source)?;
    let belongings = reading.belongings()?;
    let mut rows = 0;
    while let Some(some) = reading.rows()? {
        rows += some.len() as u64;
        progress(reading.at);
    }
    Ok(reading.content(&belongings, rows))
}

/// Makes a data directory of a backup.
pub fn restore(
    path: &Path,
    target: &Path,
    source: KeySource,
    standing: Standing,
    clock: MachineClock,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, BackupError> {
    if fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some()) || target.is_file() {
        return Err(BackupError::Occupied(target.to_owned()));
    }
    let mut reading = Reading::open(path, &source)?;
    let belongings = reading.belongings()?;
    let part = unfinished(target);
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |cause| BackupError::Io { action, path, cause }
    };
    match fs::remove_dir_all(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove", &part)(error)),
        _ => {}
    }
    let directory = DataDir::open(&part).map_err(StartError::from)?;
    let mut filling = Filling::begin(&directory.join(STORE))?;
    let mut rows = 0;
    while let Some(some) = reading.rows()? {
        rows += some.len() as u64;
        filling.put(some)?;
        progress(reading.at);
    }
    filling.finish()?;
    let (node, evicted) = belongings.lay_out(&directory, standing, source, reading.lock.clone(), clock)?;
    drop(directory);
    fs::rename(&part, target).map_err(io("make", target))?;
    let above = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(above).and_then(|above| above.sync_all()).map_err(io("make", target))?;
    Ok(Restored { content: reading.content(&belongings, rows), node, evicted })
}

/// What a directory is called until it is whole.
fn unfinished(target: &Path) -> PathBuf {
    let target = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.restoring"))
}

/// A backup that is being read.
struct Reading {
    path: PathBuf,
    file: File,
    frames: Frames,
    header: Header,
    lock: ClusterKey,
    key: PieceKey,
    /// The number of the next piece, and where it begins.
    number: u64,
    at: u64,
    is_over: bool,
}

impl Reading {
    fn open(path: &Path, source: &KeySource) -> Result<Self, BackupError> {
        let io = |cause| BackupError::Io { action: "read", path: path.to_owned(), cause };
        let mut file = File::open(path).map_err(io)?;
        let mut header = Vec::new();
        file.by_ref().take(HEADER_LEN as u64).read_to_end(&mut header).map_err(io)?;
        let header = Header::decode(&header).ok_or_else(|| BackupError::NoBackup(path.to_owned()))?;
        let keys = source.read()?.unwrap_or_default();
        let Some(lock) = keys.iter().find(|key| key.id() == header.key).cloned() else {
            let given = match &keys[..] {
                [] => "is not there".to_owned(),
                keys => format!("gives {}", keys.iter().map(|key| key.id().to_string()).collect::<Vec<_>>().join(", ")),
            };
            let (path, origin) = (path.to_owned(), source.to_string());
            return Err(BackupError::WrongKey { path, wanted: header.key, origin, given });
        };
        let (key, frames) = (PieceKey::of(&lock)?, Frames::default());
        Ok(Self {
            path: path.to_owned(),
            file,
            frames,
            header,
            lock,
            key,
            number: 0,
            at: HEADER_LEN as u64,
            is_over: false,
        })
    }

    fn damaged(&self, why: impl ToString) -> BackupError {
        BackupError::Damaged { path: self.path.clone(), at: self.at, piece: self.number, why: why.to_string() }
    }

    /// The next piece, which must be there.
    fn next(&mut self) -> Result<Piece, BackupError> {
        let io = |cause| BackupError::Io { action: "read", path: self.path.clone(), cause };
        let mut buffer = vec![0; READ_LEN];
        loop {
            match self.frames.cut() {
                Ok(Some((Frame::Piece { sealed, is_last }, len))) => {
                    let name = PieceName { backup: self.header.backup, number: self.number, is_last };
                    let plain = self.key.open(name, &sealed).map_err(|error| self.damaged(error))?;
                    let piece = postcard::from_bytes(&plain)
                        .map_err(|_| self.damaged("it is of a version that this starling can't read"))?;
                    self.number += 1;
                    self.at += len as u64;
                    return Ok(piece);
                }
                Ok(Some((Frame::Failed(why), _))) => return Err(self.damaged(why)),
                Ok(None) => {}
                Err(error) => return Err(self.damaged(error)),
            }
            match self.file.read(&mut buffer) {
                Ok(0) => return Err(BackupError::CutShort { path: self.path.clone(), pieces: self.number }),
                Ok(len) => self.frames.push(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io(error)),
            }
        }
    }

    fn belongings(&mut self) -> Result<Belongings, BackupError> {
        match self.next()? {
            Piece::Belongings(belongings) => Ok(*belongings),
            Piece::Rows(_) | Piece::End => Err(self.damaged("it does not say whose it is")),
        }
    }

    /// The next rows; `None` at the end, of which nothing may follow.
    fn rows(&mut self) -> Result<Option<crate::store::Rows>, BackupError> {
        match self.next()? {
            Piece::Rows(rows) => Ok(Some(rows)),
            Piece::End => {
                self.is_over = true;
                Ok(None)
            }
            Piece::Belongings(_) => Err(self.damaged("it says twice whose it is")),
        }
    }

    fn content(&self, belongings: &Belongings, rows: u64) -> Content {
        debug_assert!(self.is_over);
        Content {
            node: belongings.node,
            name: belongings.name.clone(),
            account: belongings.account().to_owned(),
            taken_ms: belongings.taken_ms,
            rows,
            pieces: self.number,
        }
    }
}
