//! Cells as SQL literals.

use super::json_literal::json_literal;
use crate::row::{Kind, hex, widened_vector};

/// Returns the literal of a cell of this kind.
///
/// Numbers stand bare, binary values in hexadecimal, all else quoted. The literal means the same
/// on TiDB, OceanBase and MySQL when the session has rowproof's `sql_mode` and UTC.
pub fn literal(kind: &Kind, cell: Option<&[u8]>) -> String {
    let mut sql = String::new();
    push_literal(kind, cell, &mut sql);
    sql
}

/// Appends the [`literal`] of a cell to a statement, which has millions of them.
pub fn push_literal(kind: &Kind, cell: Option<&[u8]>, sql: &mut String) {
    let Some(bytes) = cell else {
        sql.push_str("NULL");
        return;
    };
    match kind {
        Kind::Integer | Kind::Decimal | Kind::Year | Kind::Bit => push_number(bytes, sql),
        Kind::Enum(_) | Kind::Set(_) if kind.is_numbered() => push_number(bytes, sql),
        Kind::Float | Kind::Double => match number(bytes) {
            Some(number) => {
                sql.push_str(number);
                // Without an exponent it would be a decimal, which knows no -0.
                if !number.bytes().any(|byte| b"eE".contains(&byte)) {
                    sql.push_str("e0");
                }
            }
            None => push_text(bytes, sql),
        },
        // A literal that is shorter than the column is not found by `=`.
        Kind::Binary(width) if bytes.len() < *width as usize => {
            let mut padded = bytes.to_vec();
            padded.resize(*width as usize, 0);
            push_hex(&padded, sql);
        }
        Kind::Binary(_) | Kind::Bytes if bytes.is_empty() => sql.push_str("''"),
        Kind::Binary(_) | Kind::Bytes => push_hex(bytes, sql),
        Kind::Json => sql.push_str(&json_literal(bytes)),
        Kind::Vector => match widened_vector(bytes) {
            Some(text) => push_text(text.as_bytes(), sql),
            None => push_text(bytes, sql),
        },
        _ => push_text(bytes, sql),
    }
}

/// Returns the expression by which OceanBase prints the elements of a vector with all their bits: of
/// the vector itself it prints six digits of each. The name before the arrow hides no column.
pub fn widened_elements(vector: &str) -> String {
    format!("array_map(e -> e * 1e0, {vector})")
}

/// Returns a quoted string literal; bytes that are not UTF-8 are written in hexadecimal.
pub fn text_literal(bytes: &[u8]) -> String {
    let mut sql = String::with_capacity(bytes.len() + 2);
    push_text(bytes, &mut sql);
    sql
}

fn push_number(bytes: &[u8], sql: &mut String) {
    match number(bytes) {
        Some(number) => sql.push_str(number),
        None => push_text(bytes, sql),
    }
}

fn push_hex(bytes: &[u8], sql: &mut String) {
    sql.push_str("x'");
    sql.push_str(&hex(bytes));
    sql.push('\'');
}

fn push_text(bytes: &[u8], sql: &mut String) {
    let Ok(mut rest) = std::str::from_utf8(bytes) else {
        sql.push_str("_utf8mb4 ");
        push_hex(bytes, sql);
        return;
    };
    sql.push('\'');
    // All that must be escaped is ASCII, so that a text can be cut before and behind it.
    while let Some((place, escape)) = first_escape(rest) {
        sql.push_str(&rest[..place]);
        sql.push_str(escape);
        rest = &rest[place + 1..];
    }
    sql.push_str(rest);
    sql.push('\'');
}

/// Returns the place of the first character that must be escaped, and how it is written.
fn first_escape(text: &str) -> Option<(usize, &'static str)> {
    let escape = |byte: u8| {
        Some(match byte {
            b'\'' => "\\'",
            b'\\' => "\\\\",
            b'\0' => "\\0",
            b'\n' => "\\n",
            b'\r' => "\\r",
            0x1a => "\\Z",
            _ => return None,
        })
    };
    let mut bytes = text.bytes().enumerate();
    bytes.find_map(|(place, byte)| Some((place, escape(byte)?)))
}

/// Returns the bytes as text if they are a number that may stand bare in SQL: nothing else ever does, for
/// `2-1` would be another value.
fn number(bytes: &[u8]) -> Option<&str> {
    let (whole, rest) = digits(unsigned(bytes));
    let (fraction, rest) = match rest.strip_prefix(b".") {
        Some(rest) => digits(rest),
        None => (0, rest),
    };
    let is_end = match rest {
        [] => true,
        [b'e' | b'E', exponent @ ..] => {
            let (count, rest) = digits(unsigned(exponent));
            count > 0 && rest.is_empty()
        }
        _ => false,
    };
    let is_number = whole + fraction > 0 && is_end;
    is_number.then(|| std::str::from_utf8(bytes).ok()).flatten()
}

fn unsigned(bytes: &[u8]) -> &[u8] {
    match bytes {
        [b'+' | b'-', rest @ ..] => rest,
        _ => bytes,
    }
}

/// Returns how many digits stand in front, and what comes behind them.
fn digits(bytes: &[u8]) -> (usize, &[u8]) {
    let other = bytes.iter().position(|byte| !byte.is_ascii_digit());
    let count = other.unwrap_or(bytes.len());
    (count, &bytes[count..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_cannot_leave_the_literal() {
        assert_eq!(literal(&Kind::Text, Some(b"a'b\\c\0\n")), r"'a\'b\\c\0\n'");
        assert_eq!(literal(&Kind::Text, Some(b"\xff")), "_utf8mb4 x'ff'");
        assert_eq!(literal(&Kind::Bytes, Some(b"\x00'")), "x'0027'");
        assert_eq!(literal(&Kind::Bytes, None), "NULL");
        assert_eq!(literal(&Kind::Integer, Some(b"-12")), "-12");
        assert_eq!(literal(&Kind::Integer, Some(b"1 OR 1")), "'1 OR 1'");
        assert_eq!(literal(&Kind::Decimal, Some(b"2-1")), "'2-1'");
        assert_eq!(literal(&Kind::Decimal, Some(b"1e")), "'1e'");
        assert_eq!(literal(&Kind::Decimal, Some(b"-.5")), "-.5");
        assert_eq!(literal(&Kind::Double, Some(b"1.5E-7")), "1.5E-7");
        assert_eq!(literal(&Kind::Double, Some(b"-0")), "-0e0");
        assert_eq!(literal(&Kind::Double, Some(b"1e300")), "1e300");
        let vector = literal(&Kind::Vector, Some(b"[0.1,-0]"));
        assert_eq!(vector, "'[0.10000000149011612,-0.0]'");
        let labels = Kind::Enum(vec![String::new(), "1".to_owned()]);
        assert_eq!(literal(&labels, Some(b"1")), "1");
    }
}
