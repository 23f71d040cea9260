//! The exit codes of the `starling` program, all in one place, so that scripts can rely on them.
//!
//! Knows nothing of the errors behind them: each error says itself which code it is.

use std::fmt::Write;
use std::process::ExitCode;

/// What the program tells its caller when it ends. The numbers are a public interface: never reuse one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed for a reason that has no code of its own.
    Failure = 1,
    /// The command line, the environment or the configuration file is wrong. Nothing was done.
    Usage = 2,
    /// A command found no running node.
    NodeUnreachable = 3,
    /// The node did not accept the API token.
    Unauthorized = 4,
    /// Another process is using the data directory.
    DataDirInUse = 5,
    /// The data directory was written by a newer Starling.
    DataDirNewer = 6,
    /// The disk failed, is full or refused a write.
    StorageFailed = 7,
    /// The cluster key is missing, can't be had, or is not the one that the data directory was sealed with.
    ClusterKey = 8,
    /// No such key or namespace.
    NotFound = 9,
    /// The join token can't be read or its signature is wrong.
    JoinTokenInvalid = 10,
    /// The join token is past its time.
    JoinTokenExpired = 11,
    /// The join token was used before, or the cluster does not know it.
    JoinTokenSpent = 12,
    /// The address in the join token belongs to another cluster.
    JoinWrongCluster = 13,
    /// No address in the join token answers.
    JoinUnreachable = 14,
    /// This machine's clock is too far from the cluster's.
    JoinClockOff = 15,
    /// The cluster refused this node for another reason.
    JoinRefused = 16,
    /// A bulk command was not finished. It said how far it came and how to go on.
    Incomplete = 17,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Self; 18] = [
        Self::Ok,
        Self::Failure,
        Self::Usage,
        Self::NodeUnreachable,
        Self::Unauthorized,
        Self::DataDirInUse,
        Self::DataDirNewer,
        Self::StorageFailed,
        Self::ClusterKey,
        Self::NotFound,
        Self::JoinTokenInvalid,
        Self::JoinTokenExpired,
        Self::JoinTokenSpent,
        Self::JoinWrongCluster,
        Self::JoinUnreachable,
        Self::JoinClockOff,
        Self::JoinRefused,
        Self::Incomplete,
    ];

    /// The number the operating system gets.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// A line for `starling --help`.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failure => "failed for another reason than those below",
            Self::Usage => "wrong command line, environment or configuration file",
            Self::NodeUnreachable => "no running node found",
            Self::Unauthorized => "the node did not accept the API token",
            Self::DataDirInUse => "the data directory is in use by another process",
            Self::DataDirNewer => "the data directory was written by a newer Starling",
            Self::StorageFailed => "the disk failed, is full or refused a write",
            Self::ClusterKey => "the cluster key is missing or another one",
            Self::NotFound => "no such key or namespace",
            Self::JoinTokenInvalid => "join: the token is damaged",
            Self::JoinTokenExpired => "join: the token has expired",
            Self::JoinTokenSpent => "join: the token was used before or is unknown",
            Self::JoinWrongCluster => "join: the address belongs to another cluster",
            Self::JoinUnreachable => "join: no address in the token answers",
            Self::JoinClockOff => "join: this machine's clock is far off",
            Self::JoinRefused => "join: refused by the cluster",
            Self::Incomplete => "a bulk command was not finished; it said how far it came",
        }
    }

    /// The table at the end of `starling --help`.
    pub fn table() -> String {
        let mut table = String::from("Exit codes:");
        for exit in Self::ALL {
            // Writing to a String can't fail.
            let _ = write!(table, "\n  {:>2}  {}", exit.code(), exit.meaning());
        }
        table
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_listed() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
        let docs = include_str!("../docs/OPERATIONS.md");
        for exit in Exit::ALL {
            let row = format!("| {} | {} |\n", exit.code(), exit.meaning());
            assert!(docs.contains(&row), "docs/OPERATIONS.md lacks {row}");
        }
        assert!(Exit::table().contains("\n   5  the data directory is in use"), "{}", Exit::table());
        assert!(Exit::table().contains("\n  16  join: refused"), "{}", Exit::table());
    }
}
