//! Tables that are held: what kept a batch from being applied lies in one table, and that one alone
//! stops.

use crate::engine::Stop;
use crate::error::Error;
use crate::feed::{FoldedTable, Origin};
use crate::proof::Reason;
use crate::schema::TableName;

/// An error that kept a batch from being applied, and the table whose statement met it.
#[derive(Debug)]
pub struct Obstacle {
    /// The error.
    pub error: Error,
    /// The table and the change of it that was being written, if it was a table's statement.
    pub table: Option<(TableName, Origin)>,
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        Obstacle { error, table: None }
    }
}

impl Obstacle {
    /// Says that a statement which writes rows of a table met an error; `place` is that of the first
    /// of the rows.
    pub fn of(folded: &FoldedTable, place: usize, error: Error) -> Obstacle {
        let letter = folded.rows.get(place).map(|row| row.origin);
        Obstacle {
            table: letter.map(|letter| (folded.table.name.clone(), letter)),
            error: error.at(format!("writing {}", folded.table.target)),
        }
    }
}

/// Says of a stopped table why nothing of it is proven, and what to do.
pub fn described(stop: &Stop) -> (Reason, String) {
    if stop.loading {
        let detail = format!(
            "a fresh base is being loaded; it was stopped at {}: {}",
            stop.at, stop.reason
        );
        return (Reason::NotRead, detail);
    }
    let Some(letter) = &stop.letter else {
        return (
            Reason::Ddl,
            format!("stopped at {}: {}", stop.at, stop.reason),
        );
    };
    let detail = format!(
        "held at {}: {}; the change is at topic {}, partition {}, offset {}, committed at {}. \
         Nothing of this table is applied since; the other tables go on. Mend the target, and \
         `rowproof resync` loads it anew",
        stop.at, stop.reason, letter.topic, letter.partition, letter.offset, letter.commit_ts
    );
    (Reason::Held, detail)
}
