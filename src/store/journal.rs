//! Mending a journal that a loss of power has torn: pages of the last batches may be on disk without the pages before
//! them. The database cuts such a tail off when it can't be parsed, but refuses to open when only a checksum is wrong.
//!
//! Reads the journal of version 3 of the database's format: batches of `Start`, items, `End` with a checksum.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// After the tag: number of items, sequence number.
const START_LEN: usize = 4 + 8;
/// After the tag: checksum, magic.
const END_LEN: usize = 8 + 4;
/// After the tag: keyspace.
const CLEAR_LEN: usize = 8;
/// After the tag: kind, compression, keyspace, lengths of the key, of the value, and of the value as it lies here.
const ITEM_LEN: usize = 1 + 1 + 8 + 2 + 4 + 4;

/// Cuts the newest journal off before its first batch whose checksum is wrong. Returns how many bytes went, laid-out
/// space included; `None` if there is no such batch. Older journals were synced when they were closed: if one of them
/// is wrong, it is not for want of power.
pub(super) fn cut_torn_tail(directory: &Path) -> io::Result<Option<u64>> {
    let Some(path) = newest_journal(directory)? else { return Ok(None) };
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let Some(torn) = first_torn_batch(&file)? else { return Ok(None) };
    let cut = file.metadata()?.len() - torn;
    file.set_len(torn)?;
    file.sync_all()?;
    Ok(Some(cut))
}

fn newest_journal(directory: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        newest = newest.max(number.map(|number| (number, path)));
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the first batch starts that is complete but for its checksum.
fn first_torn_batch(file: &File) -> io::Result<Option<u64>> {
    let mut journal = Journal { bytes: BufReader::with_capacity(1 << 16, file), position: 0, part: Vec::new() };
    loop {
        let start = journal.position;
        match journal.batch() {
            Ok(Batch::Whole) => {}
            Ok(Batch::Torn) => return Ok(Some(start)),
            Ok(Batch::Unknown) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

enum Batch {
    Whole,
    Torn,
    /// Not a batch: the end, or what the database itself cuts off.
    Unknown,
}

struct Journal<'a> {
    bytes: BufReader<&'a File>,
    position: u64,
    part: Vec<u8>,
}

impl Journal<'_> {
    fn batch(&mut self) -> io::Result<Batch> {
        if self.tag()? != START {
            return Ok(Batch::Unknown);
        }
        self.read(START_LEN)?;
        let mut checksum = Xxh3::new();
        loop {
            match self.tag()? {
                ITEM => {
                    checksum.update(&[ITEM]);
                    self.read(ITEM_LEN)?;
                    checksum.update(&self.part);
                    let lengths = self.part.last_chunk::<10>().copied().unwrap_or_default();
                    let [key_low, key_high, _, _, _, _, value @ ..] = lengths;
                    let key_len = u16::from_le_bytes([key_low, key_high]);
                    for len in [usize::from(key_len), u32::from_le_bytes(value) as usize] {
                        self.read(len)?;
                        checksum.update(&self.part);
                    }
                }
                CLEAR => {
                    checksum.update(&[CLEAR]);
                    self.read(CLEAR_LEN)?;
                    checksum.update(&self.part);
                }
                END => {
                    self.read(END_LEN)?;
                    let expected = self.part.first_chunk().copied().map(u64::from_le_bytes);
                    let is_whole = expected == Some(checksum.digest());
                    return Ok(if is_whole { Batch::Whole } else { Batch::Torn });
                }
                _ => return Ok(Batch::Unknown),
            }
        }
    }

    fn tag(&mut self) -> io::Result<u8> {
        self.read(1)?;
        Ok(self.part.first().copied().unwrap_or_default())
    }

    /// Reads the next `len` bytes into `part`. A length that the file can't hold allocates no more than the file has.
    fn read(&mut self, len: usize) -> io::Result<()> {
        self.part.clear();
        let read = self.bytes.by_ref().take(len as u64).read_to_end(&mut self.part)?;
        self.position += read as u64;
        if read < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
