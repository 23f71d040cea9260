//! One write's way through the network, told line by line.

use starling::replica::{Dot, Edits, Entry, Key, Marker, Message, NodeId};

/// Follows one write, or none.
#[derive(Default)]
pub struct Watch {
    wanted: Option<u64>,
    write: Option<(Dot, Key, Marker, u64)>,
    lines: Vec<String>,
}

impl Watch {
    /// Follows the write of this number, counted from 1 in the order of acceptance; 0: tells everything.
    pub fn new(wanted: Option<u64>) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// What has been told.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Tells something that concerns the write, while it is on its way.
    pub fn note(&mut self, now_us: u64, text: impl FnOnce() -> String) {
        let since_us = match &self.write {
            Some((_, _, _, accepted_us)) => now_us - accepted_us,
            None if self.tells_all() => now_us,
            None => return,
        };
        self.lines.push(format!("{:>12.3} ms  {}", since_us as f64 / 1_000.0, text()));
    }

    fn tells_all(&self) -> bool {
        self.wanted == Some(0)
    }

    pub(crate) fn accepted(&mut self, host: usize, key: &Key, dot: Dot, marker: Marker, number: u64, now_us: u64) {
        if self.wanted == Some(number) {
            self.write = Some((dot, key.clone(), marker, now_us));
            self.note(now_us, || format!("host {host} accepts write {number}: {dot} of {key:?}"));
        }
    }

    fn concerns(&self, message: &Message) -> Option<&'static str> {
        let (dot, key, ..) = self.write.as_ref()?;
        let is_it = |record: &starling::replica::Record| {
            record.key == *key && Entry::decode(&record.key, &record.body).is_ok_and(|entry| entry.dot == *dot)
        };
        match message {
            Message::Records(records) if records.pushes.iter().any(|push| is_it(&push.record)) => Some("pushed"),
            Message::Records(records) if records.pushes.iter().any(|push| push.covers.contains(dot)) => {
                Some("covered by a later write that is pushed")
            }
            Message::SyncChunk(chunk) if chunk.records.iter().any(is_it) => Some("synced"),
            Message::AckPlease { dot: asked } if asked == dot => Some("acknowledgement asked for"),
            Message::Ack { upto } if upto.origin == dot.origin && upto.seq >= dot.seq => Some("acknowledged"),
            Message::ChunkRequest(request) if request.key == *key => Some("chunk asked for"),
            Message::Chunk { request, chunk } if request.key == *key => {
                Some(if chunk.is_some() { "chunk sent" } else { "chunk refused" })
            }
            _ => None,
        }
    }

    pub(crate) fn sent(&mut self, from: usize, to: usize, message: &Message, now_us: u64) {
        if let Some(what) = self.concerns(message) {
            self.note(now_us, || format!("{from} → {to}  {what}"));
        }
    }

    pub(crate) fn received(&mut self, from: usize, to: usize, message: &Message, now_us: u64) {
        if self.tells_all() {
            self.note(now_us, || format!("{from} ⇒ {to}  {}", briefly(message)));
        } else if let Some(what) = self.concerns(message) {
            self.note(now_us, || format!("{from} ⇒ {to}  {what}: arrived"));
        }
    }

    pub(crate) fn committed(&mut self, host: usize, changes: &Edits, now_us: u64) {
        if self.tells_all() && !(changes.puts.is_empty() && changes.seen.is_empty() && changes.removed.is_empty()) {
            let puts: Vec<String> =
                changes.puts.iter().map(|(key, entry)| format!("{key:?} = {}", entry.dot)).collect();
            let seen: Vec<String> = changes.seen.iter().map(ToString::to_string).collect();
            let removed = changes.removed.len();
            self.note(now_us, || format!("host {host} commits {puts:?}, has seen more of {seen:?}, removes {removed}"));
        }
        let Some((dot, key, marker, _)) = &self.write else { return };
        let put = changes.puts.iter().find(|(put, entry)| put == key && entry.marker() >= *marker);
        if let Some((_, entry)) = put {
            let what = match entry.dot == *dot {
                true => "visible".to_owned(),
                false => format!("dominated by {}", entry.dot),
            };
            self.note(now_us, || format!("host {host}: {what}"));
        }
    }

    pub(crate) fn acknowledged(&mut self, host: usize, dot: Dot, nodes: &[NodeId], now_us: u64) {
        if self.write.as_ref().is_some_and(|(watched, ..)| *watched == dot) {
            self.note(now_us, || format!("host {host} tells its client: on disk at {} nodes", nodes.len()));
        }
    }
}

/// A message in a line.
fn briefly(message: &Message) -> String {
    match message {
        Message::Records(records) => {
            let push = |push: &starling::replica::Push| {
                let dot = Entry::decode(&push.record.key, &push.record.body).map(|entry| entry.dot.to_string());
                let covers: Vec<String> = push.covers.iter().map(ToString::to_string).collect();
                format!("{:?} = {} covering {covers:?}", push.record.key, dot.unwrap_or_default())
            };
            format!("records {:?}", records.pushes.iter().map(push).collect::<Vec<_>>())
        }
        Message::SyncChunk(chunk) => {
            let dot = |record: &starling::replica::Record| {
                Entry::decode(&record.key, &record.body).map(|entry| entry.dot.to_string()).unwrap_or_default()
            };
            let dots: Vec<String> = chunk.records.iter().map(dot).collect();
            format!("session {} chunk {} up to {}: {dots:?}", chunk.session, chunk.index, chunk.upto)
        }
        Message::Beat(_) => "beat".to_owned(),
        Message::Chunk { request, chunk } => {
            format!(
                "chunk {} of {:?}: {}",
                request.index,
                request.key,
                if chunk.is_some() { "here" } else { "not here" }
            )
        }
        other => format!("{other:?}"),
    }
}
