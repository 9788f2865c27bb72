//! How far the fresh base of a table is.

/// The steps of a fresh base; each is recorded on the target before what follows it is begun, so
/// that a crash at any moment leaves one of them to go on from (INV-3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BaseState {
    /// What the old base left is cleared, and the table made anew if its definition is another.
    Clearing,
    /// The chunks are written and proven, as of the base.
    Loading,
    /// The load is proven: the next batch begins at the base, and takes the table to its fence.
    Joining,
    /// A fence speaks of the table, and is not proven yet.
    Joined,
}

impl BaseState {
    /// Returns the word that stands in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            BaseState::Clearing => "clearing",
            BaseState::Loading => "loading",
            BaseState::Joining => "joining",
            BaseState::Joined => "joined",
        }
    }

    /// Reads the word that stands in the table.
    pub fn parse(word: &str) -> Option<Self> {
        [
            BaseState::Clearing,
            BaseState::Loading,
            BaseState::Joining,
            BaseState::Joined,
        ]
        .into_iter()
        .find(|state| state.as_str() == word)
    }

    /// Tells whether the load is proven, so that the feed is to be read from the base on.
    pub fn is_loaded(self) -> bool {
        matches!(self, BaseState::Joining | BaseState::Joined)
    }
}
