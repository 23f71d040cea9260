//! A hash over everything that happens, in order: two runs are the same run if and only if their hashes are equal.

/// Collects and hashes.
#[derive(Clone, Default)]
pub struct Trace {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

/// Hashing pays by the kilobyte.
const BUFFER_LEN: usize = 16 * 1024;

impl Trace {
    /// Something happened: when, what, to whom.
    pub fn note(&mut self, now_us: u64, what: u8, numbers: [u64; 2], bytes: &[u8]) {
        self.buffer.extend_from_slice(&now_us.to_be_bytes());
        self.buffer.push(what);
        for number in numbers {
            self.buffer.extend_from_slice(&number.to_be_bytes());
        }
        self.buffer.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_LEN {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    /// Over all so far, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.buffer);
        hasher.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_more_is_another_trace() {
        let hash = |last: u8| {
            let mut trace = Trace::default();
            for number in 0..2_000 {
                trace.note(number, 1, [number, 2], b"some bytes");
            }
            trace.note(9, 2, [0, 0], &[last]);
            trace.hash()
        };
        assert_eq!(hash(0), hash(0));
        assert_ne!(hash(0), hash(1));
    }
}
