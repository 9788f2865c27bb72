//! The canonical form of a row: the bytes that are compared and hashed.
//!
//! Per column there is a tag and length-prefixed canonical bytes, so that no two different rows
//! share one form: NULL is a tag of its own, and no value can run into its neighbour. Values that
//! the two databases print differently but that are the same value (zero-filled integers, JSON
//! key order, the scale of a decimal) have one form.

use super::{Cells, Kind, json, varint, vector};
use std::fmt;

/// The tag in front of each column's canonical bytes.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Null = 0,
    Integer = 1,
    Decimal = 2,
    /// FLOAT and DOUBLE, by the bits of the double.
    Double = 3,
    Text = 4,
    Bytes = 5,
    Date = 6,
    DateTime = 7,
    Timestamp = 8,
    Time = 9,
    Year = 10,
    Bit = 11,
    Enum = 12,
    Set = 13,
    Json = 14,
    Vector = 15,
}

/// A cell whose text is not a value of its column's type.
///
/// It names the column by its place in the layout and never shows the value (INV-7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CellError {
    /// The place of the column in the table's layout order.
    pub column: usize,
    /// What was expected, as a noun.
    pub expected: &'static str,
}

impl fmt::Display for CellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "column {} does not hold {}",
            self.column + 1,
            self.expected
        )
    }
}

/// Brings rows to canonical form in a buffer that is used again for each row.
#[derive(Debug, Default)]
pub struct Canonical {
    buffer: Vec<u8>,
}

impl Canonical {
    /// Makes an encoder with an empty buffer.
    pub fn new() -> Self {
        Canonical::default()
    }

    /// Returns the canonical form of the first `kinds.len()` cells of a packed row.
    ///
    /// # Errors
    /// If the row has fewer cells than `kinds`, or a cell is no value of its kind.
    pub fn row(&mut self, kinds: &[Kind], packed: &[u8]) -> Result<&[u8], CellError> {
        self.keyed_row(kinds, 0, packed).map(|(_, row)| row)
    }

    /// Returns the canonical form of the first `key_len` cells, and that of the first `kinds.len()`,
    /// of which it is the beginning.
    ///
    /// # Errors
    /// If the row has fewer cells than `kinds`, or a cell is no value of its kind.
    pub fn keyed_row(
        &mut self,
        kinds: &[Kind],
        key_len: usize,
        packed: &[u8],
    ) -> Result<(&[u8], &[u8]), CellError> {
        self.buffer.clear();
        let mut key_end = 0;
        let mut cells = Cells::of(packed);
        for (column, kind) in kinds.iter().enumerate() {
            if column == key_len {
                key_end = self.buffer.len();
            }
            let cell = cells.next().ok_or(CellError {
                column,
                expected: "any cell",
            })?;
            self.cell(kind, cell)
                .map_err(|expected| CellError { column, expected })?;
        }
        if key_len >= kinds.len() {
            key_end = self.buffer.len();
        }
        Ok((&self.buffer[..key_end], &self.buffer))
    }

    fn cell(&mut self, kind: &Kind, cell: Option<&[u8]>) -> Result<(), &'static str> {
        let Some(text) = cell else {
            self.buffer.push(Tag::Null as u8);
            return Ok(());
        };
        self.buffer.push(tag_of(kind) as u8);
        varint::with_length(&mut self.buffer, |out| value(kind, text, out))
    }
}

/// Writes the canonical bytes of a value.
fn value(kind: &Kind, text: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    match kind {
        Kind::Integer | Kind::Year | Kind::Bit => integer(text, out),
        Kind::Enum(_) | Kind::Set(_) if kind.is_numbered() => integer(text, out),
        Kind::Decimal => decimal(text, out),
        Kind::Float | Kind::Double => double(text, out),
        Kind::Char => {
            let end = text
                .iter()
                .rposition(|byte| *byte != b' ')
                .map_or(0, |last| last + 1);
            out.extend_from_slice(&text[..end]);
            Ok(())
        }
        Kind::Text | Kind::Bytes | Kind::Enum(_) | Kind::Set(_) => {
            out.extend_from_slice(text);
            Ok(())
        }
        Kind::Binary(width) => {
            out.extend_from_slice(text);
            let missing = (*width as usize).saturating_sub(text.len());
            out.resize(out.len() + missing, 0);
            Ok(())
        }
        Kind::Temporal(_) => temporal(text, out),
        Kind::Json => json::canonical(text, out),
        Kind::Vector => vector::canonical(text, out),
    }
}

fn tag_of(kind: &Kind) -> Tag {
    use super::Temporal;
    match kind {
        Kind::Integer => Tag::Integer,
        Kind::Decimal => Tag::Decimal,
        Kind::Float | Kind::Double => Tag::Double,
        Kind::Char | Kind::Text => Tag::Text,
        Kind::Binary(_) | Kind::Bytes => Tag::Bytes,
        Kind::Temporal(Temporal::Date) => Tag::Date,
        Kind::Temporal(Temporal::DateTime) => Tag::DateTime,
        Kind::Temporal(Temporal::Timestamp) => Tag::Timestamp,
        Kind::Temporal(Temporal::Time) => Tag::Time,
        Kind::Year => Tag::Year,
        Kind::Bit => Tag::Bit,
        Kind::Enum(_) => Tag::Enum,
        Kind::Set(_) => Tag::Set,
        Kind::Json => Tag::Json,
        Kind::Vector => Tag::Vector,
    }
}

/// Writes an integer without leading zeros, and zero without a sign.
fn integer(text: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let (negative, digits) = sign_of(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err("an integer");
    }
    let digits = without_leading_zeros(digits);
    if negative && digits != b"0" {
        out.push(b'-');
    }
    out.extend_from_slice(digits);
    Ok(())
}

/// Writes a decimal without leading zeros, without trailing zeros of its fraction, and zero
/// without a sign.
fn decimal(text: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let (negative, number) = sign_of(text);
    let point = number.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&number[..point], &number[point + 1..]),
        None => (number, [].as_slice()),
    };
    let digits_only = whole.iter().chain(fraction).all(u8::is_ascii_digit);
    if whole.len() + fraction.len() == 0 || !digits_only {
        return Err("a decimal");
    }
    let whole = without_leading_zeros(if whole.is_empty() { b"0" } else { whole });
    let fraction = without_trailing_zeros(fraction);
    if negative && (whole != b"0" || !fraction.is_empty()) {
        out.push(b'-');
    }
    out.extend_from_slice(whole);
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    Ok(())
}

/// Writes the IEEE bits of a double, most significant byte first; -0 and 0 stay different.
fn double(text: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "a number")?;
    let number: f64 = text.parse().map_err(|_| "a number")?;
    if !number.is_finite() {
        return Err("a finite number");
    }
    out.extend_from_slice(&number.to_bits().to_be_bytes());
    Ok(())
}

/// Writes a date or time without trailing zeros of its fraction.
fn temporal(text: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let known = |byte: &u8| byte.is_ascii_digit() || b"-: .".contains(byte);
    if text.is_empty() || !text.iter().all(known) {
        return Err("a date or time");
    }
    match text.iter().position(|byte| *byte == b'.') {
        None => out.extend_from_slice(text),
        Some(point) => {
            out.extend_from_slice(&text[..point]);
            let fraction = without_trailing_zeros(&text[point + 1..]);
            if !fraction.is_empty() {
                out.push(b'.');
                out.extend_from_slice(fraction);
            }
        }
    }
    Ok(())
}

fn sign_of(text: &[u8]) -> (bool, &[u8]) {
    match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    }
}

fn without_leading_zeros(digits: &[u8]) -> &[u8] {
    match digits.iter().position(|byte| *byte != b'0') {
        Some(first) => &digits[first..],
        None => &digits[digits.len() - 1..],
    }
}

fn without_trailing_zeros(digits: &[u8]) -> &[u8] {
    let end = digits
        .iter()
        .rposition(|byte| *byte != b'0')
        .map_or(0, |last| last + 1);
    &digits[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Rows, Temporal};
    use proptest::prelude::*;

    fn form(kind: &Kind, cell: Option<&str>) -> Vec<u8> {
        let mut rows = Rows::new();
        rows.push_row([cell.map(str::as_bytes)]);
        let kinds = std::slice::from_ref(kind);
        Canonical::new()
            .row(kinds, rows.packed(0))
            .expect("a value of its kind")
            .to_vec()
    }

    fn same(kind: &Kind, left: &str, right: &str) -> bool {
        form(kind, Some(left)) == form(kind, Some(right))
    }

    #[test]
    fn harmless_renderings_have_one_form() {
        assert!(same(&Kind::Integer, "00042", "42"));
        assert!(same(&Kind::Decimal, "-0.00", "0"));
        assert!(same(&Kind::Decimal, "1.50", "01.5"));
        assert!(same(&Kind::Double, "1e3", "1000"));
        assert!(same(&Kind::Char, "a  ", "a"));
        assert!(same(&Kind::Binary(4), "a", "a\0\0\0"));
        assert!(same(
            &Kind::Temporal(Temporal::Time),
            "01:02:03.500",
            "01:02:03.5"
        ));
        assert!(same(&Kind::Year, "0000", "0"));
        assert!(same(
            &Kind::Json,
            r#"{"b": 1, "a": [2.50]}"#,
            r#"{"a":[2.5],"b":1}"#
        ));
    }

    #[test]
    fn different_values_have_different_forms() {
        assert!(!same(&Kind::Double, "0", "-0"));
        assert!(!same(&Kind::Text, "a ", "a"));
        assert!(!same(&Kind::Bytes, "a", "a\0"));
        assert!(!same(&Kind::Decimal, "1.5", "15"));
        assert!(!same(&Kind::Json, "1", "1.0"));
        assert!(!same(&Kind::Json, r#""1""#, "1"));
        assert!(!same(&Kind::Json, "9007199254740993", "9007199254740992"));
        assert_ne!(form(&Kind::Text, None), form(&Kind::Text, Some("")));
    }

    #[test]
    fn a_cell_that_is_no_value_is_an_error_without_the_value() {
        let mut rows = Rows::new();
        rows.push_row([Some(b"1".as_slice()), Some(b"secret".as_slice())]);
        let error = Canonical::new()
            .row(&[Kind::Integer, Kind::Integer], rows.packed(0))
            .expect_err("not an integer");
        assert_eq!(
            error,
            CellError {
                column: 1,
                expected: "an integer"
            }
        );
        assert!(!error.to_string().contains("secret"));
        assert!(
            Canonical::new()
                .row(&[Kind::Double], &[3, 0, 0, 0, b'n', b'a', b'n'])
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn text_rows_share_a_form_only_when_equal(
            left in proptest::collection::vec(proptest::option::of("[a-c,]{0,3}"), 3),
            right in proptest::collection::vec(proptest::option::of("[a-c,]{0,3}"), 3),
        ) {
            let form = |row: &[Option<String>]| {
                let mut rows = Rows::new();
                rows.push_row(row.iter().map(|cell| cell.as_deref().map(str::as_bytes)));
                let kinds = [Kind::Text, Kind::Text, Kind::Text];
                Canonical::new().row(&kinds, rows.packed(0)).map(<[u8]>::to_vec)
            };
            prop_assert_eq!(form(&left) == form(&right), left == right);
        }

        #[test]
        fn any_bytes_are_encoded_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let kinds = [
                Kind::Integer, Kind::Decimal, Kind::Double, Kind::Json,
                Kind::Temporal(Temporal::Date), Kind::Binary(3), Kind::Char, Kind::Vector,
            ];
            for kind in kinds {
                let mut rows = Rows::new();
                rows.push_row([Some(bytes.as_slice())]);
                let _ = Canonical::new().row(&[kind], rows.packed(0));
            }
        }
    }
}
