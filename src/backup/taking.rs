//! A node's end of a backup: a view of the store that stands still, read piece by piece, from whichever piece the other
//! end still lacks.

use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use super::BackupError;
use super::file::{Frame, Header, Piece};
use crate::keyring::{ClusterKey, PieceKey, PieceName};
use crate::node::Belongings;
use crate::replica::StoreError;
use crate::store::{Dump, Place};

/// Bytes of rows in one piece, about.
const PIECE_BYTES: usize = 512 << 10;
/// Places that are remembered to go on from, a few hundred bytes each. Beyond it every other one is forgotten: what
/// follows one that is kept is read again to find it.
const PLACES_MAX: usize = 4096;

/// A backup that is being taken. Shared by those who send it.
pub struct Taking {
    header: Header,
    lock: ClusterKey,
    belongings: Zeroizing<Vec<u8>>,
    dump: Dump,
    places: Mutex<Places>,
}

/// Where the pieces of rows begin whose number is a multiple of `stride`.
struct Places {
    stride: u64,
    known: Vec<Place>,
}

impl Taking {
    /// Begins: `dump` is of the moment that the backup is of, and was taken before the belongings were looked at, so
    /// that every key that its rows need is among them.
    pub fn begin(number: [u8; 16], lock: ClusterKey, dump: Dump, belongings: Belongings) -> Self {
        let header = Header { key: lock.id(), backup: number };
        let piece = Piece::Belongings(Box::new(belongings));
        let belongings = Zeroizing::new(postcard::to_stdvec(&piece).expect("plain data always serializes"));
        let places = Mutex::new(Places { stride: 1, known: vec![Place::default()] });
        Self { header, lock, belongings, dump, places }
    }

    /// The backup's own random number.
    pub fn number(&self) -> [u8; 16] {
        self.header.backup
    }

    /// What follows the first `held` pieces; before them all, the header.
    pub fn pieces(self: &Arc<Self>, held: u64) -> Result<Pieces, BackupError> {
        let key = PieceKey::of(&self.lock)?;
        Ok(Pieces { taking: Arc::clone(self), key, next: held, place: None, is_over: false })
    }

    /// Where the rows of a piece begin; `None` if there are none so far behind.
    fn place(&self, rows: u64) -> Result<Option<Place>, StoreError> {
        let (mut at, mut place) = {
            let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            let known = usize::try_from(rows / places.stride).unwrap_or(usize::MAX).min(places.known.len() - 1);
            (known as u64 * places.stride, places.known[known].clone())
        };
        while at < rows {
            if self.dump.next(&mut place, PIECE_BYTES)?.is_none() {
                return Ok(None);
            }
            at += 1;
        }
        Ok(Some(place))
    }

    fn remember(&self, rows: u64, place: &Place) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if rows == places.known.len() as u64 * places.stride {
            places.known.push(place.clone());
        }
        if places.known.len() > PLACES_MAX {
            let every_other = places.known.iter().step_by(2).cloned().collect();
            places.known = every_other;
            places.stride *= 2;
        }
    }
}

/// Pieces on their way out.
pub struct Pieces {
    taking: Arc<Taking>,
    key: PieceKey,
    /// The number of the next one.
    next: u64,
    place: Option<Place>,
    is_over: bool,
}

/// Each item is the next bytes for the file. Reads the disk.
impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.is_over {
            return None;
        }
        let mut bytes = match self.next {
            0 => Vec::from(self.taking.header.encode()),
            _ => Vec::new(),
        };
        let frame = self.frame().unwrap_or_else(|why| Frame::Failed(why.to_string()));
        self.is_over = !matches!(frame, Frame::Piece { is_last: false, .. });
        self.next += 1;
        bytes.extend_from_slice(&frame.encode());
        Some(bytes)
    }
}

impl Pieces {
    fn frame(&mut self) -> Result<Frame, StoreError> {
        if self.next == 0 {
            return self.sealed(&self.taking.belongings, false);
        }
        let rows = self.next - 1;
        let place = match self.place.take() {
            Some(place) => Some(place),
            None => self.taking.place(rows)?,
        };
        let mut place = place.ok_or_else(|| StoreError("there are not that many pieces: begin anew".into()))?;
        let found = self.taking.dump.next(&mut place, PIECE_BYTES)?;
        let (piece, is_last) = found.map_or((Piece::End, true), |rows| (Piece::Rows(rows), false));
        self.taking.remember(rows + 1, &place);
        self.place = Some(place);
        let plain = postcard::to_stdvec(&piece).expect("plain data always serializes");
        self.sealed(&plain, is_last)
    }

    fn sealed(&self, plain: &[u8], is_last: bool) -> Result<Frame, StoreError> {
        let name = PieceName { backup: self.taking.header.backup, number: self.next, is_last };
        let sealed = self.key.seal(name, plain).map_err(|error| StoreError(error.to_string()))?;
        Ok(Frame::Piece { sealed: sealed.into(), is_last })
    }
}
