//! Output for people: colours where a terminal shows them, and no panic when a pipe closes early.

use std::io::{self, IsTerminal, Write};

/// Colours, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// No colours.
    pub const PLAIN: Self = Self { on: false };

    /// Colours if standard output is a terminal and they are wanted.
    pub fn stdout() -> Self {
        Self { on: io::stdout().is_terminal() && colours_wanted() }
    }

    /// Stands out.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// Steps back.
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// Broken.
    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    /// Well.
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    /// On its way, or to be watched.
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// False if the user asked for no colours (<https://no-color.org>) or the terminal has none.
pub fn colours_wanted() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Writes to standard output. A reader that has seen enough (`starling status | head -1`) is no error.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes a line to standard error. That nobody can read it is no reason to fail.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A text from elsewhere, fit for a terminal: without control characters, which could rewrite the screen.
pub fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours() {
        assert_eq!(Paint::PLAIN.red("x"), "x");
        assert_eq!(Paint { on: true }.red("x"), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn control_characters_are_dropped() {
        assert_eq!(harmless("a\x1b[2Jb\r\nc\u{9b}d"), "a[2Jbcd");
    }
}
