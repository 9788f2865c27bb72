//! The one error type of the library, and what each kind of error means for the process.
//!
//! Messages name what failed, where, what it means for the data and what to do. They never carry a
//! row value or a secret (INV-7): a database's own message may quote a value ("Duplicate entry
//! 'alice'"), so only its code is kept, see [`crate::database::failure`].

use std::fmt;

/// The result of everything fallible in rowproof.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as far as the caller must tell cases apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorKind {
    /// The command line or the task file is wrong.
    Usage,
    /// Something in the databases or the feed makes this migration impossible as configured.
    Refused,
    /// A server cannot be reached or does not answer.
    Unavailable,
    /// A passing fault of a server: a lost connection, a lock conflict, a timeout.
    Transient,
    /// The snapshot that a read asked for can no longer be read.
    Expired,
    /// The table changed its definition under a read of an older snapshot.
    SchemaChanged,
    /// A server could not hold what a statement asked for.
    Memory,
    /// A server rejected a statement for good.
    Rejected,
    /// The feed holds something that rowproof cannot carry.
    Feed,
    /// Another instance holds this task, or took it over.
    Lease,
    /// An invariant does not hold.
    Broken,
    /// The operator stopped the work; it can be resumed.
    Interrupted,
}

impl ErrorKind {
    /// Returns the process exit code that the README documents for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Usage => 64,
            ErrorKind::Unavailable | ErrorKind::Transient => 69,
            ErrorKind::Broken | ErrorKind::Lease => 70,
            ErrorKind::Interrupted => 75,
            ErrorKind::Refused
            | ErrorKind::Expired
            | ErrorKind::SchemaChanged
            | ErrorKind::Memory
            | ErrorKind::Rejected
            | ErrorKind::Feed => 2,
        }
    }

    /// Tells whether the same work may be tried again on a new connection.
    ///
    /// This is the only place that decides it. Every unit of work that is retried is idempotent:
    /// reads are of fixed snapshots, and writes commit together with the row that says they did.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            ErrorKind::Transient | ErrorKind::Unavailable | ErrorKind::Memory
        )
    }

    /// Tells whether a statement of the applier that writes one table met what lies in that table
    /// or its rows, and not in the server: a value that does not fit, a unique index or CHECK that
    /// only the target has, a table that somebody dropped, altered or took the rights to.
    ///
    /// A server that takes no writes at all refuses the transaction's first statement already,
    /// which writes rowproof's own record. What is met twice in a row holds the table, alone; what
    /// is neither this nor retryable ends the process.
    pub fn lies_in_the_table(self) -> bool {
        matches!(
            self,
            ErrorKind::Rejected | ErrorKind::SchemaChanged | ErrorKind::Refused
        )
    }
}

/// An error with its kind, a message for people, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    advice: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.advice {
            Some(advice) => write!(f, "\n  what to do: {advice}"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// Makes an error of `kind` with a message that is safe to log.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            advice: None,
        }
    }

    /// Adds what the operator can do about it.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Puts where it happened in front of the message.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Takes the same for another kind of error, where a caller knows more.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// Returns the kind, on which callers decide.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the message without the advice.
    pub fn message(&self) -> &str {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        assert_eq!(ErrorKind::Usage.exit_code(), 64);
        assert_eq!(ErrorKind::Unavailable.exit_code(), 69);
        assert_eq!(ErrorKind::Broken.exit_code(), 70);
        assert_eq!(ErrorKind::Interrupted.exit_code(), 75);
    }

    #[test]
    fn advice_follows_the_message() {
        let error = Error::new(ErrorKind::Usage, "no [source]")
            .advise("add one")
            .at("task.toml");
        assert_eq!(
            error.to_string(),
            "task.toml: no [source]\n  what to do: add one"
        );
    }
}
