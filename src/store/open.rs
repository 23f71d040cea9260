//! Opening a directory: options with their reasons, the format check, and what can be wrong with a directory.

use std::cell::Cell;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

use fjall::config::{CompressionPolicy, PinningPolicy, RestartIntervalPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, LsmError};

use super::journal;
use super::manifest;
use super::rows::{self, FORMAT, Tag};
use super::tables::Tables;

/// Lies in a directory whose store is still being made.
const UNFINISHED: &str = "unfinished";

const MIB: u64 = 1024 * 1024;

/// The least that the database takes. A restart replays what the journals hold, so the smallest bound gives the
/// fastest start.
const JOURNAL_BYTES_MAX: u64 = 64 * MIB;
/// Blocks of tables in memory. More belongs to the page cache, which the kernel can take back; rows that are read again
/// and again are kept beside it.
const CACHE_BYTES: u64 = 16 * MIB;
/// One flushes, one compacts.
const WORKERS: usize = 2;
/// Open tables. Each costs a descriptor and keeps its index in memory.
const OPEN_FILES_MAX: usize = 256;
/// Entries wait in memory up to this size (and again while they are flushed).
const DATA_MEMTABLE_BYTES: u64 = 24 * MIB;
/// A write in the index is a fraction of an entry.
const SEQ_MEMTABLE_BYTES: u64 = 4 * MIB;
/// Some 60 chunks.
const BLOB_MEMTABLE_BYTES: u64 = 16 * MIB;
/// Fraction of a file of chunks that may be garbage when it is compacted.
const BLOB_GARBAGE_MAX: f32 = 0.5;
/// A few rows, overwritten at every commit.
const META_MEMTABLE_BYTES: u64 = 2 * MIB;

/// Why a directory was not opened. Nothing in it was changed, except where a crash left work undone.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A later release wrote it.
    #[error(
        "the data directory {} has format {found}, this version of starling reads up to {FORMAT}: \
         start a newer version, or give this node an empty directory", path.display()
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Its files contradict one another, or are no store's at all.
    #[error(
        "the data directory {} is damaged ({why}): move it away and join again with an empty one, \
         the other nodes still have the data", path.display()
    )]
    Corrupt {
        /// The directory.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// Another process has it open.
    #[error("the data directory {} is in use by another process: stop that one first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The process may not have files as large as the store's.
    #[error(
        "the data directory {} can't be opened: its files are up to {} MiB long, and the limit of this process is \
         lower; raise it with `ulimit -f`", path.display(), JOURNAL_BYTES_MAX / MIB
    )]
    FileSizeLimit {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("the data directory {} can't be opened: {error}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What it said.
        #[source]
        error: io::Error,
    },
}

pub(super) fn open(path: &Path) -> Result<Tables, OpenError> {
    let io_error = |error| OpenError::Io { path: path.into(), error };
    let is_new = create_directory(path).and_then(|()| begin(path)).map_err(io_error)?;
    if let Some(list) = manifest::find_damaged(path).map_err(io_error)? {
        return Err(corrupt(path, format!("{} is not what was written", list.display())));
    }
    // The database trusts its own files: some damage makes it panic rather than return an error.
    let tables = quietly(|| open_tables(path)).unwrap_or_else(|| Err(corrupt(path, "its files can't be read")))?;
    if is_new {
        fs::remove_file(path.join(UNFINISHED)).and_then(|()| sync(path)).map_err(io_error)?;
    }
    Ok(tables)
}

/// What `work` gives; `None` if it panics, of which nobody is told.
fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    thread_local!(static IS_QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                usual(panic);
            }
        }));
    });
    IS_QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_QUIET.set(false);
    result.ok()
}

/// Whether a new store is to be made. What an earlier attempt has left that was cut short, by a crash or a full disk,
/// goes: the database would neither read it nor write over it, and nobody was told that anything was in it.
fn begin(path: &Path) -> io::Result<bool> {
    let mark = path.join(UNFINISHED);
    if mark.try_exists()? {
        for entry in fs::read_dir(path)? {
            let entry = entry?.path();
            match entry.is_dir() {
                true => fs::remove_dir_all(entry)?,
                false if entry != mark => fs::remove_file(entry)?,
                false => {}
            }
        }
    } else if fs::read_dir(path)?.next().is_some() {
        return Ok(false);
    } else {
        fs::File::create_new(&mark)?;
    }
    sync(path)?;
    Ok(true)
}

fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

fn open_database(path: &Path) -> fjall::Result<Database> {
    Database::builder(path)
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .cache_size(CACHE_BYTES)
        .worker_threads(WORKERS)
        .max_cached_files(Some(OPEN_FILES_MAX))
        .journal_compression(CompressionType::None)
        .open()
}

fn open_tables(path: &Path) -> Result<Tables, OpenError> {
    let fail = |error| explain(path, error);
    let db = match open_database(path) {
        Err(torn @ fjall::Error::JournalRecovery(_)) => match journal::cut_torn_tail(path) {
            Ok(Some(bytes)) => {
                // What was acknowledged was synced first, unless the configured durability says otherwise; what was
                // lost and had reached a peer comes back from there.
                tracing::warn!(bytes, "the end of the journal was torn by a loss of power and has been cut off");
                open_database(path)
            }
            Ok(None) => Err(torn),
            Err(error) => Err(error.into()),
        },
        opened => opened,
    }
    .map_err(fail)?;
    let small = |bytes| move || KeyspaceCreateOptions::default().max_memtable_size(bytes);
    // What is sealed does not compress: trying costs time. The keys of `seq` do.
    let sealed = |bytes| move || small(bytes)().data_block_compression_policy(CompressionPolicy::disabled());
    // Point reads of entries look through fewer rows of a block than with the usual 10 and 16, and find all filters and
    // indexes in memory: a few bytes a row.
    let entries = || {
        sealed(DATA_MEMTABLE_BYTES)()
            .data_block_restart_interval_policy(RestartIntervalPolicy::new([4]))
            .filter_block_pinning_policy(PinningPolicy::all(true))
            .index_block_pinning_policy(PinningPolicy::all(true))
    };
    // Chunks lie beside the tree, or every compaction would copy them. A compaction copies what lives in a file of which
    // half is garbage; by default it would do so for the oldest quarter of such files only, and of three for none.
    let separation = KvSeparationOptions::default()
        .compression(CompressionType::None)
        .staleness_threshold(BLOB_GARBAGE_MAX)
        .age_cutoff(1.0);
    let apart = || sealed(BLOB_MEMTABLE_BYTES)().with_kv_separation(Some(separation));
    let meta = db.keyspace("meta", small(META_MEMTABLE_BYTES)).map_err(fail)?;
    let data = db.keyspace("data", entries).map_err(fail)?;
    let seq = db.keyspace("seq", small(SEQ_MEMTABLE_BYTES)).map_err(fail)?;
    let blob = db.keyspace("blob", apart).map_err(fail)?;

    let format_key = Tag::Format.key(b"");
    match meta.get(&format_key).map_err(fail)? {
        Some(row) => match rows::decode_meta::<u32>(&row) {
            Ok(FORMAT) => {}
            // From now on: an earlier release would not find what this one writes.
            Ok(1) => say_format(&db, &meta).map_err(fail)?,
            Ok(found) if found > FORMAT => return Err(OpenError::NewerFormat { path: path.into(), found }),
            _ => return Err(corrupt(path, "its format is unknown")),
        },
        None if data.is_empty().map_err(fail)? && meta.is_empty().map_err(fail)? => {
            say_format(&db, &meta).map_err(fail)?;
        }
        None => return Err(corrupt(path, "it doesn't say which format it has")),
    }
    Ok(Tables::new(path.into(), db, [data, seq, blob, meta]))
}

fn say_format(db: &Database, meta: &Keyspace) -> fjall::Result<()> {
    let mut batch = db.batch().durability(Some(fjall::PersistMode::SyncAll));
    batch.insert(meta, Tag::Format.key(b""), rows::encode_meta(&FORMAT));
    batch.commit()
}

/// Values and metadata lie in it: nobody else's business.
fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

fn corrupt(path: &Path, why: impl Into<String>) -> OpenError {
    OpenError::Corrupt { path: path.into(), why: why.into() }
}

fn explain(path: &Path, error: fjall::Error) -> OpenError {
    match error {
        fjall::Error::Locked => OpenError::InUse { path: path.into() },
        // A file that ends too early, is missing where another names it, or should be read before its beginning, is damage;
        // all else is the file system's.
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::NotFound
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput => corrupt(path, error.to_string()),
            io::ErrorKind::FileTooLarge => OpenError::FileSizeLimit { path: path.into() },
            _ => OpenError::Io { path: path.into(), error },
        },
        other => corrupt(path, format!("{other:?}")),
    }
}
