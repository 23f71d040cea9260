//! The items of a file, a JSON array or JSON lines, read in batches of bounded size while earlier ones are at work.
//!
//! Knows nothing of what the items mean.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use tokio::sync::mpsc;

/// Longest line of a file of JSON lines, in bytes: a value of 25 MiB as base64, its key, and its metadata.
const LINE_LEN_MAX: u64 = 40 << 20;
/// Most bytes of a batch, unless a single item has more.
const BATCH_LEN_MAX: usize = 8 << 20;

/// Something that can be read from a file of items.
pub(super) trait Item: DeserializeOwned + Send + 'static {
    /// About how many bytes it takes in a request.
    fn weight(&self) -> usize;
}

/// Some items in a row.
pub(super) struct Batch<T> {
    /// Number of the first one, from 0.
    pub(super) first: u64,
    /// The items, at least one.
    pub(super) items: Vec<T>,
    /// Bytes of the file read so far.
    pub(super) read: u64,
}

/// Why the items end early.
#[derive(Debug, thiserror::Error)]
pub enum ItemsError {
    /// The file can't be opened.
    #[error("can't open {}: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file can't be read on.
    #[error("item {number} can't be read: {reason}")]
    Item {
        /// Number of the item, from 1.
        number: u64,
        /// What is wrong.
        reason: String,
    },
}

/// The items of a file, or of standard input.
pub(super) struct Items<T> {
    batches: mpsc::Receiver<Result<Batch<T>, ItemsError>>,
    /// Bytes of the file, if it is one.
    pub(super) len: Option<u64>,
}

impl<T: Item> Items<T> {
    /// Opens a file, or standard input for `-`, and leaves out the first `skip` items. A batch has at most `count_max`.
    pub(super) fn open(path: &Path, skip: u64, count_max: usize) -> Result<Self, ItemsError> {
        let failed = |cause| ItemsError::Open { path: path.to_owned(), cause };
        let (source, len): (Box<dyn Read + Send>, _) = if path.as_os_str() == "-" {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            (Box::new(file), metadata.is_file().then_some(metadata.len()))
        };
        let (sender, batches) = mpsc::channel(1);
        let read = Arc::new(AtomicU64::new(0));
        let input = BufReader::with_capacity(256 * 1024, Counted { source, read: read.clone() });
        let sink = Sink { sender, read, skip, count_max, number: 0, weight: 0, items: Vec::new() };
        // Not of the runtime: it may wait on standard input for ever, which must not keep the command from ending.
        thread::spawn(move || sink.fill(input));
        Ok(Self { batches, len })
    }

    /// The next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Batch<T>, ItemsError>> {
        self.batches.recv().await
    }
}

/// Counts what was read.
struct Counted<R> {
    source: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(buffer)?;
        self.read.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

/// The reader's end: puts batches together.
struct Sink<T> {
    sender: mpsc::Sender<Result<Batch<T>, ItemsError>>,
    read: Arc<AtomicU64>,
    skip: u64,
    count_max: usize,
    /// Items read so far.
    number: u64,
    weight: usize,
    items: Vec<T>,
}

/// Nobody wants more.
struct Unwanted;

impl<T: Item> Sink<T> {
    fn fill(mut self, mut input: impl BufRead) {
        let filled = match first_byte(&mut input) {
            Ok(Some(b'[')) => self.array(input),
            Ok(Some(_)) => self.lines(input),
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        // Before the failure goes what was good: it is written, and the user told from where to go on.
        if self.flush().is_ok()
            && let Err(reason) = filled
        {
            // The receiver may have gone.
            let _ = self.sender.blocking_send(Err(ItemsError::Item { number: self.number + 1, reason }));
        }
    }

    fn array(&mut self, input: impl Read) -> Result<(), String> {
        let mut json = serde_json::Deserializer::from_reader(input);
        json.deserialize_seq(Each(self)).and_then(|()| json.end()).map_err(|error| error.to_string())
    }

    fn lines(&mut self, mut input: impl BufRead) -> Result<(), String> {
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let len = (&mut input).take(LINE_LEN_MAX + 1).read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
            if len == 0 {
                break;
            }
            if len as u64 > LINE_LEN_MAX {
                return Err(format!("line {number} is longer than {} MiB", LINE_LEN_MAX >> 20));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let item = serde_json::from_slice(line.trim_ascii()).map_err(|error| wrong_line(number, &error))?;
            if self.push(item).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn push(&mut self, item: T) -> Result<(), Unwanted> {
        self.number += 1;
        if self.number <= self.skip {
            return Ok(());
        }
        let weight = item.weight();
        if self.items.len() >= self.count_max || (!self.items.is_empty() && self.weight + weight > BATCH_LEN_MAX) {
            // The item at hand belongs to the next batch.
            self.number -= 1;
            self.flush()?;
            self.number += 1;
        }
        self.weight += weight;
        self.items.push(item);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Unwanted> {
        self.weight = 0;
        let items = std::mem::take(&mut self.items);
        if items.is_empty() {
            return Ok(());
        }
        let first = self.number - items.len() as u64;
        let batch = Batch { first, items, read: self.read.load(Ordering::Relaxed) };
        self.sender.blocking_send(Ok(batch)).map_err(|_| Unwanted)
    }
}

/// The parser counts lines within the line.
fn wrong_line(number: u64, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what);
    format!("line {number}, column {}: {what}", error.column())
}

/// The first byte that is no white space, left where it is.
fn first_byte(input: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        match buffer.iter().position(|byte| !byte.is_ascii_whitespace()) {
            Some(at) => {
                let byte = buffer.get(at).copied();
                input.consume(at);
                return Ok(byte);
            }
            None => {
                let len = buffer.len();
                input.consume(len);
            }
        }
    }
}

/// Hands the elements of an array to the sink one by one.
struct Each<'a, T>(&'a mut Sink<T>);

impl<'de, T: Item> Visitor<'de> for Each<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(item) = seq.next_element_seed(Seed(PhantomData))? {
            if self.0.push(item).is_err() {
                break;
            }
        }
        Ok(())
    }
}

struct Seed<T>(PhantomData<T>);

impl<'de, T: Item> DeserializeSeed<'de> for Seed<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Item for String {
        fn weight(&self) -> usize {
            self.len()
        }
    }

    async fn read(text: &str, skip: u64, count_max: usize) -> (Vec<(u64, Vec<String>)>, Option<String>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut items = Items::<String>::open(file.path(), skip, count_max).unwrap();
        assert_eq!(items.len, Some(text.len() as u64));
        let mut batches = Vec::new();
        while let Some(batch) = items.next().await {
            match batch {
                Ok(batch) => batches.push((batch.first, batch.items)),
                Err(error) => return (batches, Some(error.to_string())),
            }
        }
        (batches, None)
    }

    fn batch(first: u64, items: &[&str]) -> (u64, Vec<String>) {
        (first, items.iter().map(|item| (*item).to_owned()).collect())
    }

    #[tokio::test]
    async fn arrays_and_lines_are_the_same_items() {
        for text in ["[\"a\", \"b\",\n\"c\"]\n", " \n\"a\"\n\"b\"\n\n\"c\"", "\n[ \"a\",\"b\",\"c\" ]"] {
            assert_eq!(read(text, 0, 2).await, (vec![batch(0, &["a", "b"]), batch(2, &["c"])], None), "{text}");
            assert_eq!(read(text, 1, 9).await, (vec![batch(1, &["b", "c"])], None), "{text}");
            assert_eq!(read(text, 3, 9).await, (vec![], None), "{text}");
        }
        for empty in ["", " \n", "[]", "[ ]\n"] {
            assert_eq!(read(empty, 0, 9).await, (vec![], None), "{empty:?}");
        }
    }

    #[tokio::test]
    async fn what_is_good_comes_before_what_is_wrong() {
        for (text, number, said) in [
            ("\"a\"\n\"b\"\n{oops}\n\"d\"", 3, "line 3"),
            ("[\"a\",\"b\",7]", 3, "string"),
            ("[\"a\",\"b\"", 3, "EOF"),
            ("[\"a\",\"b\"] \"c\"", 3, "trailing"),
        ] {
            let (batches, error) = read(text, 0, 9).await;
            assert_eq!(batches, [batch(0, &["a", "b"])], "{text}");
            let error = error.unwrap();
            assert!(error.contains(&format!("item {number} ")) && error.contains(said), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn batches_are_bounded_in_bytes() {
        let big = format!("\"{}\"", "x".repeat(BATCH_LEN_MAX / 2 + 1));
        let (batches, _) = read(&[&*big, &*big, "\"s\""].join("\n"), 0, 9).await;
        assert_eq!(batches.iter().map(|(first, items)| (*first, items.len())).collect::<Vec<_>>(), [(0, 1), (1, 2)]);
    }

    #[test]
    fn a_file_that_is_not_there() {
        let error = Items::<String>::open(Path::new("/nonexistent"), 0, 1).err().unwrap();
        assert!(error.to_string().starts_with("can't open /nonexistent: "), "{error}");
    }
}
