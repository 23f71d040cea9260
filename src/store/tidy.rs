//! Tidying the index of dots: rows that tell of nothing but writes which have been overwritten go, and those of which half
//! does are written anew, on a thread of its own that nobody waits for.
//!
//! What it is told of is a hint of where to look: what is held it reads itself. Where hints are lost, rows stay for longer.
//! It looks everywhere once after each start.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use fjall::{OwnedWriteBatch, PersistMode, Readable, Snapshot};

use super::index::{self, Block};
use super::tables::{Held, Tables, failed};
use crate::replica::{Dot, StoreError};

/// Hints that are handed over at once.
const HINTS: usize = 4096;
/// Hints that are kept while the thread is busy. Beyond it they are lost.
const HINTS_MAX: usize = 65_536;
/// Overwritten writes at which it goes through the blocks that they are of, at least.
const OUTLIVED: usize = 256 * 1024;
/// Blocks that are looked at in one view of the store: for as long, what is overwritten can't be reclaimed.
const BLOCKS_AT_ONCE: usize = 64;
/// How long after a start it begins to look everywhere, and how long it rests after so many blocks.
const FIRST_REST: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_millis(100);

/// The owner's end. The thread ends when this is dropped.
pub(super) struct Tidying {
    hints: Vec<Dot>,
    sender: Option<SyncSender<Vec<Dot>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tidying {
    pub(super) fn start(tables: Arc<Tables>) -> io::Result<Self> {
        let (sender, hints) = sync_channel(1);
        let stop = Arc::<AtomicBool>::default();
        let tidier = Tidier::new(tables, stop.clone());
        let thread = thread::Builder::new().name("tidy".into()).spawn(move || tidier.run(&hints))?;
        Ok(Self { hints: Vec::new(), sender: Some(sender), stop, thread: Some(thread) })
    }

    /// These writes are held no more, as is committed.
    pub(super) fn outlived(&mut self, dots: Vec<Dot>) {
        if self.hints.len() + dots.len() <= HINTS_MAX {
            self.hints.extend(dots);
        }
        if self.hints.len() >= HINTS
            && let Some(sender) = &self.sender
            && let Err(TrySendError::Full(hints)) = sender.try_send(mem::take(&mut self.hints))
        {
            self.hints = hints;
        }
    }
}

impl Drop for Tidying {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's.
struct Tidier {
    tables: Arc<Tables>,
    stop: Arc<AtomicBool>,
    /// Blocks with writes that have been overwritten.
    touched: BTreeSet<Block>,
    /// How many, since it last went through them.
    outlived: usize,
    /// Writes that were held in the blocks that it then went through.
    held: usize,
}

/// What became of a block.
struct Tidied {
    /// Writes of it that are held.
    held: usize,
    /// Whether others are still told of.
    has_outlived: bool,
}

impl Tidier {
    fn new(tables: Arc<Tables>, stop: Arc<AtomicBool>) -> Self {
        Self { tables, stop, touched: BTreeSet::new(), outlived: 0, held: 0 }
    }

    fn run(mut self, hints: &Receiver<Vec<Dot>>) {
        if let Err(error) = self.work(hints) {
            tracing::warn!(%error, "the index of writes is not tidied any more before the next start");
        }
    }

    /// Until nobody is left who could tell it anything.
    fn work(&mut self, hints: &Receiver<Vec<Dot>>) -> Result<(), StoreError> {
        // Where it is on its way through all of the index. It takes a step each time, however often it is told something.
        let (mut place, mut rest) = (Some(Bound::Unbounded), FIRST_REST);
        loop {
            let heard = match place {
                Some(_) => hints.recv_timeout(rest),
                None => hints.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match heard {
                Ok(dots) => self.hear(&dots),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if let Some(from) = place.take() {
                (place, rest) = (self.go_on(from)?, REST);
            }
            if self.is_due() {
                self.go_through_touched(hints)?;
            }
        }
    }

    fn hear(&mut self, dots: &[Dot]) {
        self.outlived += dots.len();
        self.touched.extend(dots.iter().map(|dot| Block::of(*dot)));
    }

    /// As many have been overwritten as are met on the way for nothing: looking costs no more than it is worth. What was found
    /// and removed must not count, or it would come by ever more rarely.
    fn is_due(&self) -> bool {
        self.outlived >= OUTLIVED.max(self.held)
    }

    fn go_through_touched(&mut self, hints: &Receiver<Vec<Dot>>) -> Result<(), StoreError> {
        (self.outlived, self.held) = (0, 0);
        let blocks: Vec<_> = mem::take(&mut self.touched).into_iter().collect();
        for some in blocks.chunks(BLOCKS_AT_ONCE) {
            self.held += self.tidy(some)?;
            match hints.try_recv() {
                Ok(dots) => self.hear(&dots),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Looks at the blocks that come next in the index: where to go on, if there are more.
    fn go_on(&mut self, from: Bound<Vec<u8>>) -> Result<Option<Bound<Vec<u8>>>, StoreError> {
        let (mut blocks, mut after) = (Vec::new(), from);
        while blocks.len() < BLOCKS_AT_ONCE {
            let Some(row) = self.tables.seq.range::<Vec<u8>, _>((after.clone(), Bound::Unbounded)).next() else {
                break;
            };
            let key = row.key().map_err(failed)?;
            after = Bound::Excluded(match index::first_of(&key) {
                Ok(dot) => {
                    blocks.push(Block::of(dot));
                    Block::of(dot).last()
                }
                Err(_) => key.to_vec(),
            });
        }
        self.tidy(&blocks)?;
        Ok((blocks.len() == BLOCKS_AT_ONCE).then_some(after))
    }

    /// Looks at some blocks. How many of their writes are held.
    fn tidy(&mut self, blocks: &[Block]) -> Result<usize, StoreError> {
        // One moment: rows and entries of one commit are both in it, or neither.
        let snapshot = self.tables.db.snapshot();
        let (mut batch, mut held) = (self.tables.db.batch(), 0);
        for block in blocks {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(held);
            }
            let tidied = tidy(&self.tables, &snapshot, *block, &mut batch)?;
            held += tidied.held;
            if tidied.has_outlived {
                self.touched.insert(*block);
            }
        }
        commit(&self.tables, batch)?;
        Ok(held)
    }
}

fn commit(tables: &Tables, batch: OwnedWriteBatch) -> Result<(), StoreError> {
    if batch.is_empty() {
        return Ok(());
    }
    tables.check()?;
    let written = tables.wait_for_flushes().and_then(|()| batch.durability(Some(PersistMode::Buffer)).commit());
    written.map_err(|error| tables.fail(failed(error)))
}

/// What is to be done about the rows of a block, as a view of the store shows them.
///
/// It may be done at any later time: these rows have keys that no other row will ever have, and a write that is put again
/// gets another row.
fn tidy(tables: &Tables, snapshot: &Snapshot, block: Block, batch: &mut OwnedWriteBatch) -> Result<Tidied, StoreError> {
    let (mut rows, mut held, mut told) = (Vec::new(), BTreeMap::new(), 0);
    for row in snapshot.range(&tables.seq, block.first()..=block.last()) {
        let (row, value) = row.into_inner().map_err(failed)?;
        // One that can't be read is left for those that look for what it tells of, who say so.
        let Ok(writes) = index::decode(&row, &Bytes::from(value)) else { continue };
        told += writes.len();
        for (dot, key) in writes {
            if !held.contains_key(&dot) && may_be_held(tables, snapshot, dot, key.as_bytes())? {
                held.insert(dot, key.as_bytes().clone());
            }
        }
        rows.push(row);
    }
    let is_worth_it = held.len() * 2 <= told;
    if is_worth_it {
        rows.into_iter().for_each(|row| batch.remove(&tables.seq, row));
        index::encode(&held, &tables.row_numbers, |row, value| batch.insert(&tables.seq, row, value));
    }
    Ok(Tidied { held: held.len(), has_outlived: !is_worth_it && held.len() < told })
}

/// Whether a key holds that write; also if that can't be told, for what is damaged is found through its row.
fn may_be_held(tables: &Tables, snapshot: &Snapshot, dot: Dot, key: &[u8]) -> Result<bool, StoreError> {
    Ok(match tables.held(key, snapshot.get(&tables.data, key))? {
        Held::Entry(entry) => entry.dot == dot,
        Held::Nothing => false,
        Held::Damaged => true,
    })
}

/// Looks at everything, and returns once it is done.
#[cfg(test)]
pub(super) fn tidy_all(tables: &Arc<Tables>) {
    let mut tidier = Tidier::new(tables.clone(), Arc::default());
    let mut place = Some(Bound::Unbounded);
    while let Some(from) = place {
        place = tidier.go_on(from).expect("it reads and writes");
    }
}

/// Goes through what the thread is told of, time after time. After each, how many must be overwritten before the next.
#[cfg(test)]
pub(super) fn tidy_told(tables: &Arc<Tables>, outlived: impl IntoIterator<Item = Vec<Dot>>) -> Vec<usize> {
    let mut tidier = Tidier::new(tables.clone(), Arc::default());
    let (_sender, hints) = sync_channel(1);
    let times = outlived.into_iter().map(|dots| {
        tidier.hear(&dots);
        tidier.go_through_touched(&hints).expect("it reads and writes");
        tidier.held
    });
    times.collect()
}
