//! The join protocol's messages and their bounds. Each is a big-endian u32 length and postcard bytes on the
//! connection's one bidirectional stream. Refuses to know who decides what.

use std::time::Duration;

use bytes::Bytes;
use quinn::{ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Version of the join protocol.
pub(super) const JOIN_VERSION: u16 = 1;
/// Longest message, bytes.
pub(super) const JOIN_MESSAGE_LEN_MAX: usize = 64 * 1024;
/// The whole exchange takes no longer than this.
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// What the joiner sends once it has checked its grant.
pub(super) const CONFIRMATION: u8 = 1;

/// Joiner to issuer.
#[derive(Serialize, Deserialize)]
pub(super) struct RequestMessage {
    pub(super) version: u16,
    /// PKCS #10, DER: the node's public key and proof that it holds the private one.
    pub(super) certificate_request: Vec<u8>,
    pub(super) name: String,
    pub(super) pop: String,
    pub(super) info: Bytes,
    /// The joiner's wall clock, Unix time.
    pub(super) clock_ms: u64,
}

/// Issuer to joiner.
#[derive(Serialize, Deserialize)]
pub(super) enum ReplyMessage {
    /// The issuer speaks this version of the join protocol.
    OtherVersion(u16),
    Refused(JoinRefusal),
    Granted(GrantMessage),
}

#[derive(Serialize, Deserialize)]
pub(super) struct GrantMessage {
    pub(super) certificate: Vec<u8>,
    pub(super) authority_certificate: Vec<u8>,
    /// PKCS #8, DER.
    pub(super) authority_key: Zeroed,
    pub(super) grant: Bytes,
}

/// Secret bytes, wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Zeroed(pub(super) Vec<u8>);

impl Drop for Zeroed {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// Why an issuer did not let an applicant in. The invite stays good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefusal {
    /// The applicant's clock differs from the issuer's by this much, in ms; positive if the applicant is ahead.
    #[error("the clocks differ by {difference_ms} ms")]
    ClockFarOff {
        /// Applicant minus issuer.
        difference_ms: i64,
    },
    /// Another node has this name.
    #[error("another node has this name: choose another one")]
    NameTaken,
    /// Anything else, in words for the person at the applicant.
    #[error("{0}")]
    Other(String),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    #[error("{0}")]
    Lost(ConnectionError),
    #[error("malformed message")]
    Malformed,
    #[error("message of {0} bytes, at most {JOIN_MESSAGE_LEN_MAX} are allowed")]
    TooLong(usize),
}

pub(super) async fn write_message(stream: &mut SendStream, message: &impl Serialize) -> Result<(), MessageError> {
    let bytes = Zeroizing::new(postcard::to_stdvec(message).map_err(|_| MessageError::Malformed)?);
    if bytes.len() > JOIN_MESSAGE_LEN_MAX {
        return Err(MessageError::TooLong(bytes.len()));
    }
    let lost = |error| match error {
        WriteError::ConnectionLost(error) => MessageError::Lost(error),
        _ => MessageError::Malformed,
    };
    stream.write_all(&(bytes.len() as u32).to_be_bytes()).await.map_err(lost)?;
    stream.write_all(&bytes).await.map_err(lost)
}

pub(super) async fn read_message<T: DeserializeOwned>(stream: &mut RecvStream) -> Result<T, MessageError> {
    let lost = |error| match error {
        ReadExactError::ReadError(ReadError::ConnectionLost(error)) => MessageError::Lost(error),
        _ => MessageError::Malformed,
    };
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.map_err(lost)?;
    let len = u32::from_be_bytes(header) as usize;
    if len > JOIN_MESSAGE_LEN_MAX {
        return Err(MessageError::TooLong(len));
    }
    let mut bytes = Zeroizing::new(vec![0; len]);
    stream.read_exact(&mut bytes).await.map_err(lost)?;
    postcard::from_bytes(&bytes).map_err(|_| MessageError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What a stranger with an invitation may send: a message or an error, and no more memory than it is long.
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            if let Ok(request) = postcard::from_bytes::<RequestMessage>(&bytes) {
                let held = request.certificate_request.len() + request.name.len() + request.pop.len() + request.info.len();
                prop_assert!(held <= bytes.len());
            }
            let _ = postcard::from_bytes::<ReplyMessage>(&bytes);
        }

        #[test]
        fn requests_come_back_as_they_were(
            (version, certificate_request, clock_ms) in any::<(u16, Vec<u8>, u64)>(), name in "\\PC{0,70}", pop in "\\PC{0,5}",
        ) {
            let info = Bytes::from(name.clone().into_bytes());
            let sent = RequestMessage { version, certificate_request, name, pop, info, clock_ms };
            let bytes = postcard::to_stdvec(&sent).expect("plain data");
            let read: RequestMessage = postcard::from_bytes(&bytes).expect("its own");
            prop_assert_eq!(
                (read.version, read.certificate_request, read.name, read.pop, read.info, read.clock_ms),
                (sent.version, sent.certificate_request, sent.name, sent.pop, sent.info, sent.clock_ms)
            );
        }
    }
}
