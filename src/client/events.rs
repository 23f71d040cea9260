//! Server-sent events, as a stream of them comes in: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::collections::VecDeque;

use super::{ClientError, Stream};

/// Longest event, in bytes: values come up to 1 MiB, as base64 in JSON.
const EVENT_LEN_MAX: usize = 8 << 20;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// Its name; empty for one that only moves the reader on.
    pub event: String,
    /// Its lines, joined.
    pub data: String,
    /// Where to go on after it, if it says.
    pub id: Option<String>,
}

/// Events that come in.
pub struct Events {
    stream: Stream,
    parser: Parser,
}

impl Events {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, parser: Parser::default() }
    }

    /// The next event; `None` when the node ends the stream.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(event) = self.parser.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(piece) = self.stream.next().await? else { return Ok(None) };
            self.parser.take(&piece);
            if self.parser.line.len() + self.parser.event.data.len() > EVENT_LEN_MAX {
                return Err(self.stream.not_starling("an event has no end"));
            }
        }
    }
}

#[derive(Default)]
struct Parser {
    ready: VecDeque<Event>,
    /// The event in the making, and the line.
    event: Event,
    line: Vec<u8>,
}

impl Parser {
    fn take(&mut self, piece: &[u8]) {
        let mut lines = piece.split(|byte| *byte == b'\n');
        // What follows the last line break is not a whole line yet.
        let rest = lines.next_back().unwrap_or_default();
        for end in lines {
            self.line.extend_from_slice(end);
            let line = std::mem::take(&mut self.line);
            self.end_line(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).as_ref());
        }
        self.line.extend_from_slice(rest);
    }

    fn end_line(&mut self, line: &str) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if event != Event::default() {
                self.ready.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.event),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment, or a field that says nothing to us.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_wherever_the_stream_is_cut() {
        let text =
            "id: 1\n: waiting\n\nid: 2\r\nevent: put\r\ndata: {\"key\":\"ü\"}\r\n\r\n\nevent:x\ndata:a\ndata: b\n\n";
        let event = |event: &str, data: &str, id: Option<&str>| Event {
            event: event.to_owned(),
            data: data.to_owned(),
            id: id.map(str::to_owned),
        };
        let expected = [event("", "", Some("1")), event("put", "{\"key\":\"ü\"}", Some("2")), event("x", "a\nb", None)];
        for cut in 0..=text.len() {
            let mut parser = Parser::default();
            parser.take(&text.as_bytes()[..cut]);
            parser.take(&text.as_bytes()[cut..]);
            assert_eq!(Vec::from(parser.ready), expected, "cut at {cut}");
        }
    }
}
