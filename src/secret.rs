//! Text that must not reach logs, error messages or `Debug` output: join tokens and API tokens, the secrets of Workers.

use std::fmt;

/// A secret string, wiped when dropped. Only [`Secret::expose`] gives it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text, without white space around it (token files end with a line break).
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Takes the text as it is.
    pub fn exact(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The secret itself. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_it() {
        let secret = Secret::new(" hunter2\n");
        assert_eq!(secret.expose(), "hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
