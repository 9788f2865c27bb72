//! The families of column types, as far as a value's form depends on them.

use serde::{Deserialize, Serialize};

/// Which calendar or clock value a temporal column holds.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Temporal {
    /// `DATE`.
    Date,
    /// `DATETIME(n)`, which knows no time zone.
    DateTime,
    /// `TIMESTAMP(n)`, read and written in UTC.
    Timestamp,
    /// `TIME(n)`, from -838:59:59 to 838:59:59.
    Time,
}

/// The family of a column's type: it decides what a cell's text means.
///
/// It comes from `information_schema`, never from the wire, where servers disagree about the types
/// of what they send.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// All integer types. The cell is the decimal number, perhaps zero-filled.
    Integer,
    /// `DECIMAL`. The cell is the exact decimal text.
    Decimal,
    /// `FLOAT`. The cell is the text of the value widened to a double.
    Float,
    /// `DOUBLE`. The cell is a text that parses to exactly this double.
    Double,
    /// `CHAR(n)`: trailing spaces are not part of the value.
    Char,
    /// `VARCHAR` and the `TEXT` types, in UTF-8.
    Text,
    /// `BINARY(n)`: the value is padded with zero bytes to this width.
    Binary(u32),
    /// `VARBINARY` and the `BLOB` types.
    Bytes,
    /// Dates and times, as text.
    Temporal(Temporal),
    /// `YEAR`. The cell is a number, perhaps with leading zeros.
    Year,
    /// `BIT(n)`. The cell is the unsigned number.
    Bit,
    /// `VECTOR(n)`. The cell is a text from which each element is read with all its bits.
    Vector,
    /// `ENUM` with its labels in order. The cell is the label, or its number, see [`Kind::is_numbered`].
    Enum(Vec<String>),
    /// `SET` with its labels in order. The cell is the labels present, joined by commas, or
    /// their number, see [`Kind::is_numbered`].
    Set(Vec<String>),
    /// `JSON`. The cell is a JSON text.
    Json,
}

impl Kind {
    /// Tells whether cells are arbitrary bytes rather than text, and must be shown in hexadecimal.
    pub fn is_binary(&self) -> bool {
        matches!(self, Kind::Binary(_) | Kind::Bytes)
    }

    /// Tells whether cells are the numbers of labels: the text of an empty label is also that of the
    /// error value, and within a SET it may be that of nothing.
    pub fn is_numbered(&self) -> bool {
        match self {
            Kind::Enum(labels) | Kind::Set(labels) => labels.iter().any(String::is_empty),
            _ => false,
        }
    }
}
