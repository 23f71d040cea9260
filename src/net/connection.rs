//! The tasks of one connection: hello, one reader per inbound stream, one writer per class. Owns the life of a link
//! from admission to its last event. Refuses to know why connections are made.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::counters::count;
use super::endpoint::Shared;
use super::event::NetEvent;
use super::framing::{CLASS_INBOUND_BYTES_MAX, Class, FrameError, FrameReader, HEADER_LEN, put_header};
use super::mesh::{Admission, Candidate, Inbox, Link};
use super::tail;
use crate::replica::NodeId;

/// First byte of the hello stream.
const HELLO_STREAM_BYTE: u8 = 0;
/// A hello is its version and the sender's boot number; a later version may append to it.
const HELLO_VERSION: u8 = 1;
const HELLO_LEN: usize = 1 + 8;
/// Longest hello of any version, bytes.
const HELLO_LEN_MAX: usize = 1024;
/// Written to QUIC at a time, bytes.
const WRITE_LEN_MAX: usize = 64 * 1024;
/// Frames taken from the queue at a time.
const WRITE_FRAMES_MAX: usize = 1024;
/// Shorter frames are copied together into one write; longer ones are handed over as they are.
const COPIED_LEN_MAX: usize = 8 * 1024;
/// Characters of a peer's own words that are repeated in a reason.
const PEER_REASON_LEN_MAX: usize = 120;

/// Application error codes of a closed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseCode {
    Shutdown = 0,
    /// Another connection to the same node is kept.
    Duplicate = 1,
    /// The other side broke the protocol.
    Malformed = 2,
    /// The certificate is valid, but this node doesn't talk to the other.
    Refused = 3,
    /// The caller asked for it.
    Disconnected = 4,
    /// Too many joins, or one with the same invite, at the moment.
    Busy = 5,
    /// Not an outstanding invite.
    UnknownInvite = 6,
    /// The other node is evicted: nobody will talk to it any more.
    Evicted = 7,
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code as u32)
    }
}

/// Whether the peer has ended a connection because it holds this node for evicted.
pub(super) fn is_turned_away(ended: &ConnectionError) -> bool {
    matches!(ended, ConnectionError::ApplicationClosed(close) if close.error_code == CloseCode::Evicted.into())
}

/// What ends a link from within.
pub(super) enum Fault {
    /// The peer broke the framing.
    Malformed(String),
    /// The connection is gone; it knows why itself.
    Lost,
}

/// Exchanges hellos with a node whose certificate is known, if it is no evicted one. Returns the boot number of its process.
pub(super) async fn meet(shared: &Shared, node: NodeId, connection: &Connection) -> Result<u64, String> {
    if shared.is_banned(node) {
        connection.close(CloseCode::Evicted.into(), b"evicted");
        return Err("evicted".into());
    }
    let greeted = greet(connection, shared.boot).await;
    if let Err(GreetError::Lost(ended)) = &greeted
        && is_turned_away(ended)
    {
        // The consumer may be gone at shutdown.
        let _ = shared.events.send(NetEvent::TurnedAway { node }).await;
    }
    greeted.map_err(|error| error.to_string())
}

/// Exchanges hellos: afterwards each side knows that the other has accepted its certificate. Returns the boot number
/// of the peer's process.
pub(super) async fn greet(connection: &Connection, own_boot: u64) -> Result<u64, GreetError> {
    let mut hello = [0; 1 + HELLO_LEN];
    let (head, boot) = hello.split_at_mut(2);
    head.copy_from_slice(&[HELLO_STREAM_BYTE, HELLO_VERSION]);
    boot.copy_from_slice(&own_boot.to_be_bytes());
    let mut stream = connection.open_uni().await?;
    // Ahead of every class, should both be waiting.
    let _ = stream.set_priority(i32::MAX);
    stream.write_all(&hello).await.map_err(|_| GreetError::Malformed)?;
    let _ = stream.finish();

    // Streams are accepted in the order in which the peer opened them, and it opens this one first.
    let mut stream = connection.accept_uni().await?;
    let hello = match stream.read_to_end(HELLO_LEN_MAX).await {
        Ok(hello) => hello,
        Err(quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(error))) => return Err(error.into()),
        Err(_) => return Err(GreetError::Malformed),
    };
    match hello.split_first_chunk::<2>() {
        Some(([HELLO_STREAM_BYTE, version], rest)) if *version >= HELLO_VERSION => {
            let boot = rest.first_chunk::<8>().ok_or(GreetError::Malformed)?;
            Ok(u64::from_be_bytes(*boot))
        }
        _ => Err(GreetError::Malformed),
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum GreetError {
    #[error("{0}")]
    Lost(#[from] ConnectionError),
    #[error("malformed hello")]
    Malformed,
}

/// Runs a connection whose hellos were exchanged until it ends; returns false at once if it is not admitted.
pub(super) async fn run(shared: Arc<Shared>, candidate: Candidate) -> bool {
    let connection = candidate.connection.clone();
    let admission = shared.mesh().admit(candidate);
    let (link, inboxes) = match admission {
        Admission::Admitted { link, inboxes, superseded } => {
            if let Some(old) = superseded {
                old.close(CloseCode::Duplicate, "replaced by a newer connection");
                old.ended().await;
            }
            (link, inboxes)
        }
        Admission::Duplicate => {
            connection.close(CloseCode::Duplicate.into(), b"already connected");
            return false;
        }
        Admission::Unwanted => {
            connection.close(CloseCode::Refused.into(), b"not wanted");
            return false;
        }
    };
    let addr = super::endpoint::canonical(connection.remote_address());
    let (node, id) = (link.node, link.id);
    // The consumer may be gone at shutdown: then there is nobody left to tell, here and below.
    let connected = NetEvent::Connected { node, link: id, addr, dialed: link.dialed };
    if shared.events.send(connected).await.is_ok() {
        serve(&shared, &link, inboxes).await;
        let reason = end_reason(&link);
        tracing::debug!(%node, link = id.0, reason, "disconnected");
        if link.connection.close_reason().is_some_and(|ended| is_turned_away(&ended)) {
            let _ = shared.events.send(NetEvent::TurnedAway { node }).await;
        }
        let _ = shared.events.send(NetEvent::Disconnected { node, link: id, reason }).await;
    }
    shared.mesh().retire(&link);
    true
}

/// Moves frames both ways until the connection is closed; returns with all of the link's tasks ended.
async fn serve(shared: &Arc<Shared>, link: &Arc<Link>, inboxes: [Inbox; 4]) {
    let connection = &link.connection;
    let mut tasks = JoinSet::new();
    for (class, inbox) in Class::ALL.into_iter().zip(inboxes) {
        tasks.spawn(write_class(Arc::clone(shared), Arc::clone(link), class, inbox));
    }
    tasks.spawn(tail::probe(Arc::clone(shared), Arc::clone(link)));
    let budgets = Arc::new(Class::ALL.map(|_| Arc::new(Semaphore::new(CLASS_INBOUND_BYTES_MAX))));
    let opened = Arc::new(AtomicU8::new(0));
    loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    let (shared, link) = (Arc::clone(shared), Arc::clone(link));
                    tasks.spawn(read_stream(shared, link, stream, Arc::clone(&budgets), Arc::clone(&opened)));
                }
                Err(_) => break,
            },
            // A probe of the peer's tail: that it came is all.
            probe = connection.read_datagram() => if probe.is_err() { break },
            Some(ended) = tasks.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(Fault::Malformed(reason))) => {
                    count(&shared.counters.malformed);
                    link.close(CloseCode::Malformed, &reason);
                    break;
                }
                Ok(Err(Fault::Lost)) | Err(_) => {
                    link.close(CloseCode::Disconnected, "connection lost");
                    break;
                }
            },
        }
    }
    tasks.shutdown().await;
}

async fn read_stream(
    shared: Arc<Shared>,
    link: Arc<Link>,
    mut stream: RecvStream,
    budgets: Arc<[Arc<Semaphore>; 4]>,
    opened: Arc<AtomicU8>,
) -> Result<(), Fault> {
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map_err(|_| Fault::Lost)?;
    let [byte] = byte;
    let class = Class::from_stream_byte(byte).ok_or_else(|| Fault::Malformed(format!("unknown stream {byte}")))?;
    let bit = 1 << class.index();
    if opened.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Err(Fault::Malformed(format!("second {class:?} stream")));
    }
    let Some(budget) = budgets.get(class.index()) else { return Ok(()) };
    let mut reader = FrameReader::new(stream);
    loop {
        match reader.next(budget).await {
            Ok(Some((bytes, permit))) => {
                shared.counters.received(class, bytes.len());
                let event = NetEvent::Frame { node: link.node, link: link.id, class, bytes, permit };
                shared.events.send(event).await.map_err(|_| Fault::Lost)?;
            }
            // Streams last as long as their connection: it is being closed.
            Ok(None) => return Ok(()),
            Err(error @ (FrameError::TooLong(_) | FrameError::Truncated)) => {
                return Err(Fault::Malformed(error.to_string()));
            }
            Err(FrameError::Lost(_) | FrameError::Closed) => return Err(Fault::Lost),
        }
    }
}

/// Sends one class's frames in order. What has queued up while QUIC was busy goes out in one write; nothing ever
/// waits for more to come.
async fn write_class(shared: Arc<Shared>, link: Arc<Link>, class: Class, mut inbox: Inbox) -> Result<(), Fault> {
    let mut frames: Vec<Bytes> = Vec::new();
    if inbox.recv_many(&mut frames, WRITE_FRAMES_MAX).await == 0 {
        return Ok(());
    }
    let stream = link.connection.open_uni().await.map_err(|_| Fault::Lost)?;
    stream.set_priority(class.priority()).map_err(|_| Fault::Lost)?;
    let mut writer = ClassWriter { shared, link, class, stream, buffer: BytesMut::new(), frames: 0, payload: 0 };
    writer.buffer.put_u8(class.stream_byte());
    loop {
        for frame in frames.drain(..) {
            writer.write(frame).await?;
        }
        writer.flush(None).await?;
        if inbox.recv_many(&mut frames, WRITE_FRAMES_MAX).await == 0 {
            return Ok(());
        }
    }
}

struct ClassWriter {
    shared: Arc<Shared>,
    link: Arc<Link>,
    class: Class,
    stream: SendStream,
    buffer: BytesMut,
    /// Frames, and their bytes without length prefixes, in the buffer.
    frames: usize,
    payload: usize,
}

impl ClassWriter {
    async fn write(&mut self, frame: Bytes) -> Result<(), Fault> {
        if self.buffer.len() + HEADER_LEN + frame.len().min(COPIED_LEN_MAX) > WRITE_LEN_MAX {
            self.flush(None).await?;
        }
        put_header(&mut self.buffer, frame.len());
        self.frames += 1;
        self.payload += frame.len();
        if frame.len() > COPIED_LEN_MAX {
            return self.flush(Some(frame)).await;
        }
        self.buffer.put_slice(&frame);
        Ok(())
    }

    /// Hands the buffer, and what comes after it, to QUIC and reports it as sent.
    async fn flush(&mut self, after: Option<Bytes>) -> Result<(), Fault> {
        if self.frames == 0 {
            return Ok(());
        }
        let mut chunks = [self.buffer.split().freeze(), after.unwrap_or_default()];
        self.stream.write_all_chunks(&mut chunks).await.map_err(|_| Fault::Lost)?;
        let (frames, bytes) = (std::mem::take(&mut self.frames), std::mem::take(&mut self.payload));
        self.shared.counters.sent(self.class, frames, bytes);
        if self.class == Class::Records {
            self.link.tail.sent();
        }
        let event = NetEvent::Sent { node: self.link.node, link: self.link.id, class: self.class, bytes };
        self.shared.events.send(event).await.map_err(|_| Fault::Lost)
    }
}

fn end_reason(link: &Link) -> String {
    match (link.local_reason(), link.connection.close_reason()) {
        (_, Some(ConnectionError::ApplicationClosed(close))) => {
            format!("closed by the peer: {}", quoted(&close.reason))
        }
        (_, Some(ConnectionError::ConnectionClosed(close))) => {
            format!("aborted by the peer: {}", quoted(&close.reason))
        }
        (_, Some(ConnectionError::TimedOut)) => "no packet from the peer within the idle timeout".into(),
        (_, Some(ConnectionError::Reset)) => "the peer has restarted".into(),
        (Some(reason), _) => reason.to_owned(),
        (None, Some(error)) => error.to_string(),
        (None, None) => "closed".into(),
    }
}

/// A peer's words, made safe to log.
pub(super) fn quoted(text: &[u8]) -> impl fmt::Display {
    let text = String::from_utf8_lossy(text);
    text.chars().take(PEER_REASON_LEN_MAX).flat_map(char::escape_debug).collect::<String>()
}

impl Candidate {
    /// A connection to or from `node`, hellos exchanged.
    pub(super) fn new(node: NodeId, connection: Connection, dialed: bool, boot: u64) -> Self {
        Self { node, connection, dialed, boot }
    }
}
