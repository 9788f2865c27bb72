//! What rowproof knows, for people and for programs: verdicts, differences, the state of the work.
//!
//! It reads the journal and renders; it decides nothing but the answer to one question, whether it
//! is safe to cut over, and that only from verdicts that others earned. Row values appear here
//! because a person asked to see them; every one is shown so that what cannot be seen (NULL, the
//! empty text, trailing spaces, control characters) can be told apart.

mod answer;
mod clock;
mod definition;
mod difference;
mod limit;
mod number;
mod script;
mod summary;
mod table;
mod value;
mod write;

/// Why writing to a string is not handled.
const WRITES: &str = "writing to a string succeeds";

pub use answer::Answer;
pub use clock::{Moment, duration, utc};
pub use definition::{DefinitionDocument, definition_sentence, definition_text};
pub use difference::{
    CellDocument, ColumnDocument, DifferenceDocument, difference_document, difference_text,
    key_text,
};
pub use limit::{LimitRequest, LimitsDocument, flow_sentence, throttle_reasons};
pub use number::{bytes, count};
pub use script::RepairScript;
pub use summary::{StatusDocument, Summary};
pub use table::{TableDocument, TableLine, verdict_text, verdicts_text};
pub use value::{Shown, note, shown, shown_pair};
pub use write::{DifferenceRows, table_name, write_diff, write_diff_json, write_repair_script};

#[cfg(test)]
pub mod testing;
