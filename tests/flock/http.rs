//! As much of an HTTP/1.1 client as the API needs: one connection, reused while it lasts, bodies of stated length.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value as Json;

/// Longest wait for a part of an answer.
const TIMEOUT: Duration = Duration::from_secs(40);

/// A connection to a node's API; made when it is needed, and again when it broke.
pub struct Client {
    api: SocketAddr,
    token: String,
    host: String,
    stream: Option<BufReader<TcpStream>>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// A client of one API with one token.
    pub fn new(api: SocketAddr, token: &str) -> Self {
        Self { api, token: token.to_owned(), host: api.to_string(), stream: None }
    }

    /// A client without a token, that calls the server by a name.
    pub fn named(address: SocketAddr, host: &str) -> Self {
        Self { host: host.to_owned(), ..Self::new(address, "none") }
    }

    /// Another connection to the same API with the same token.
    pub fn again(&self) -> Self {
        Self { api: self.api, token: self.token.clone(), host: self.host.clone(), stream: None }
    }

    /// One request. After an error its outcome is unknown.
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.ask_with(method, path, "", body)
    }

    /// The same with more headers, each ended by CRLF.
    pub fn ask_with(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.api)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                BufReader::new(stream)
            }
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n{headers}\r\n",
            self.host,
            self.token,
            body.len()
        );
        // One write for what fits one segment: two would wait for each other.
        stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let answer = Answer::read(&mut stream)?;
        if !answer.head.to_ascii_lowercase().contains("connection: close") {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

impl Answer {
    fn read(stream: &mut impl BufRead) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.get(9..12).and_then(|text| text.parse().ok()).ok_or_else(|| bad("no status"))?;
        let mut answer = Self { status, head, body: Vec::new() };
        if matches!(status, 204 | 304) {
            return Ok(answer);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let mut line = String::new();
                stream.read_line(&mut line)?;
                let len = u64::from_str_radix(line.trim(), 16).map_err(|_| bad("no length of a chunk"))?;
                let before = answer.body.len();
                // With the line break after it.
                (&mut *stream).take(len + 2).read_to_end(&mut answer.body)?;
                if answer.body.len() as u64 != before as u64 + len + 2 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                answer.body.truncate(answer.body.len() - 2);
                if len == 0 {
                    return Ok(answer);
                }
            }
        }
        let len = answer.header("content-length").and_then(|text| text.parse::<u64>().ok());
        let len = len.ok_or_else(|| bad("no content length"))?;
        stream.take(len).read_to_end(&mut answer.body)?;
        match answer.body.len() as u64 == len {
            true => Ok(answer),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}{}", self.head, self.text()))
    }

    /// The result in the envelope of a success.
    pub fn result(&self) -> Json {
        let mut json = self.json();
        assert!(self.status == 200 && json["success"] == true, "{}{json}", self.head);
        json["result"].take()
    }
}
