//! From an image of the feed to the cells that a scan of the source would return.

use super::{ColumnValue, Image, Utc, Zone};
use crate::row::{Kind, Rows};
use crate::schema::{Column, Table};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::borrow::Cow;

/// The flag of columns whose charset is binary: their strings are escaped, see [`unescape`].
const FLAG_BINARY: u64 = 1;

/// The MySQL type codes of TINYBLOB to BLOB, with which TiCDC also marks the TEXT types.
const BLOB_CODES: std::ops::RangeInclusive<u8> = 249..=252;

/// Whether the cells of a row follow from its message alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Certainty {
    /// They do.
    Certain,
    /// They do not: only the source can tell.
    Doubtful {
        /// The place of the first such column in layout order.
        first: usize,
        /// Why, naming the column.
        why: String,
    },
}

/// Makes rows in the layout of a table from its images in the feed.
#[derive(Debug)]
pub struct Packer<'t> {
    table: &'t Table,
    /// Where each column stands in an image of the whole row.
    places: Vec<usize>,
    zone: Zone,
}

impl<'t> Packer<'t> {
    /// Makes a packer for images whose TIMESTAMP values are in this zone.
    pub fn new(table: &'t Table, zone: Zone) -> Packer<'t> {
        let sent = |column: &&Column| !column.is_virtual();
        let sent = table.columns.iter().filter(sent);
        let sent: Vec<&str> = sent.map(|column| column.name.as_str()).collect();
        let before = |name: &str| sent.iter().filter(|other| **other < name).count();
        Packer {
            table,
            places: table.columns.iter().map(|of| before(&of.name)).collect(),
            zone,
        }
    }

    /// Appends the row of an image to `rows`, times in UTC.
    ///
    /// `columns` limits how many of the first columns are taken: all of them, or only the key. A cell
    /// that is doubtful has no meaning.
    ///
    /// # Errors
    /// With the name of the column and what is wrong, never with its value (INV-7).
    pub fn pack(
        &self,
        columns: usize,
        image: &Image<'_>,
        rows: &mut Rows,
    ) -> Result<Certainty, String> {
        let mut certainty = Certainty::Certain;
        let columns = self.table.columns[..columns].iter().zip(&self.places);
        for (place, (column, place_sent)) in columns.enumerate() {
            // TiCDC sends no virtual columns, and the target computes its own.
            if column.is_virtual() {
                rows.push_cell(None);
                continue;
            }
            let value = image
                .get(&column.name, *place_sent)
                .ok_or_else(|| format!("column {} is missing in the message", column.name))?;
            let cell = match doubt(column, value, self.zone) {
                None => cell(column, value, self.zone).map_err(|expected| {
                    format!("column {} does not hold {expected}", column.name)
                })?,
                Some(why) => {
                    if certainty == Certainty::Certain {
                        let why = format!("column {} holds {why}", column.name);
                        certainty = Certainty::Doubtful { first: place, why };
                    }
                    None
                }
            };
            rows.push_cell(cell.as_deref());
        }
        rows.end_row();
        Ok(certainty)
    }
}

/// Returns why a value cannot be told from the message, if it cannot.
fn doubt(column: &Column, value: &ColumnValue<'_>, zone: Zone) -> Option<&'static str> {
    let raw = value.value()?;
    match &column.kind {
        Kind::Char | Kind::Text | Kind::Json if holds_lost_bytes(raw) => {
            Some("bytes that are no UTF-8, which the feed replaces")
        }
        Kind::Temporal(_) if column.is_timestamp() => {
            let local = string(raw).ok()?;
            let twice = zone.to_utc(&local) == Utc::Ambiguous;
            twice.then_some("a time that came twice in the time zone of the feed")
        }
        _ => None,
    }
}

/// Tells whether a JSON string holds the escape of U+FFFD, which stands for bytes that are no UTF-8.
fn holds_lost_bytes(raw: &str) -> bool {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        let escape = &rest.as_bytes()[at + 1..];
        if escape
            .get(..5)
            .is_some_and(|escape| escape.eq_ignore_ascii_case(b"ufffd"))
        {
            return true;
        }
        // Behind a backslash stands one ASCII character.
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

fn cell<'a>(
    column: &'a Column,
    value: &ColumnValue<'a>,
    zone: Zone,
) -> Result<Option<Cow<'a, [u8]>>, &'static str> {
    let Some(raw) = value.value() else {
        return Ok(None);
    };
    let cell = match &column.kind {
        Kind::Integer | Kind::Year | Kind::Bit => number(raw, "an integer")?.into(),
        Kind::Double => number(raw, "a number")?.into(),
        Kind::Float => widened(raw)?.into_bytes().into(),
        Kind::Temporal(_) if column.is_timestamp() => {
            timestamp(&string(raw)?, zone)?.into_bytes().into()
        }
        Kind::Decimal | Kind::Temporal(_) | Kind::Json | Kind::Vector => as_bytes(string(raw)?),
        Kind::Enum(_) | Kind::Set(_) if column.kind.is_numbered() => {
            number(raw, "a number of labels")?.into()
        }
        Kind::Char | Kind::Text | Kind::Binary(_) | Kind::Bytes => bytes(value, string(raw)?)?,
        Kind::Enum(labels) => enum_label(labels, raw)?.into(),
        Kind::Set(labels) => set_labels(labels, raw)?.into(),
    };
    Ok(Some(cell))
}

/// Returns a JSON number as its own text, so that none of its digits is lost.
fn number<'a>(raw: &'a str, expected: &'static str) -> Result<&'a [u8], &'static str> {
    let numeric = raw
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if numeric {
        Ok(raw.as_bytes())
    } else {
        Err(expected)
    }
}

/// Returns a FLOAT as the text of the widened double, which is what scans select and what
/// OceanBase accepts for the largest values.
fn widened(raw: &str) -> Result<String, &'static str> {
    let float: f32 = raw.parse().map_err(|_| "a number")?;
    Ok(format!("{:?}", f64::from(float)))
}

fn timestamp(local: &str, zone: Zone) -> Result<String, &'static str> {
    match zone.to_utc(local) {
        Utc::At(utc) => Ok(utc),
        Utc::Ambiguous | Utc::Never => {
            Err("a time of the feed's time zone; [feed] time_zone must be that of the TiCDC server")
        }
    }
}

/// Returns a JSON string, borrowed unless it holds escapes.
fn string(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    // What has no escapes is its own text.
    if let Some(text) = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'))
        && !text.contains('\\')
    {
        return Ok(Cow::Borrowed(text));
    }
    let text: Text<'_> = serde_json::from_str(raw).map_err(|_| "a string")?;
    Ok(text.0)
}

fn as_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn bytes<'a>(value: &ColumnValue<'_>, text: Cow<'a, str>) -> Result<Cow<'a, [u8]>, &'static str> {
    if BLOB_CODES.contains(&value.type_code) {
        let decoded = STANDARD.decode(text.as_bytes());
        decoded.map(Cow::Owned).map_err(|_| "base64")
    } else if value.flags & FLAG_BINARY != 0 && text.contains('\\') {
        let unescaped = unescape(&text).ok_or("an escaped binary string")?;
        Ok(Cow::Owned(unescaped))
    } else {
        Ok(as_bytes(text))
    }
}

/// Undoes the escapes of Go's `strconv.Quote`, in which TiCDC writes binary strings: `\xHH` is one
/// byte, `\uXXXX` and `\UXXXXXXXX` are characters in UTF-8.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest[at + 1..].chars().next()?;
        rest = &rest[at + 1 + code.len_utf8()..];
        let digits = match code {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => {
                out.push(control(other)?);
                continue;
            }
        };
        let (digits, after) = rest.split_at_checked(digits)?;
        // A number may have a sign, an escape has none.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let number = u32::from_str_radix(digits, 16).ok()?;
        rest = after;
        if code == 'x' {
            out.push(u8::try_from(number).ok()?);
        } else {
            let character = char::from_u32(number)?;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}

fn control(code: char) -> Option<u8> {
    Some(match code {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        '\'' => b'\'',
        _ => return None,
    })
}

/// Returns the label of an ENUM's 1-based index; 0 is the error value, which reads as ''.
fn enum_label<'a>(labels: &'a [String], raw: &str) -> Result<&'a [u8], &'static str> {
    let index: usize = raw.parse().map_err(|_| "an index of a label")?;
    if index == 0 {
        return Ok(b"");
    }
    let label = labels.get(index - 1).ok_or("an index of a known label")?;
    Ok(label.as_bytes())
}

fn set_labels(labels: &[String], raw: &str) -> Result<Vec<u8>, &'static str> {
    let mask: u64 = raw.parse().map_err(|_| "a set of labels")?;
    if labels.len() < 64 && mask >> labels.len() != 0 {
        return Err("a set of known labels");
    }
    let present: Vec<&str> = labels
        .iter()
        .enumerate()
        .filter(|(place, _)| mask & (1 << place) != 0)
        .map(|(_, label)| label.as_str())
        .collect();
    Ok(present.join(",").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableName;
    use crate::schema::testing::{column, table};
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    #[test]
    fn go_escapes_are_undone() {
        assert_eq!(
            unescape(r#"\x00A\xff\"\\\n"#),
            Some(b"\x00A\xff\"\\\n".to_vec())
        );
        assert_eq!(
            unescape(r"\u00a0中\U0001f600"),
            Some("\u{a0}中😀".as_bytes().to_vec())
        );
        assert_eq!(unescape(r"\x0"), None);
        assert_eq!(unescape(r"\x+f"), None);
        assert_eq!(unescape("\\"), None);
        assert_eq!(unescape(r"\q"), None);
    }

    #[test]
    fn labels_come_from_the_schema() {
        let labels = ["red".to_owned(), "green".to_owned(), "blue".to_owned()];
        assert_eq!(enum_label(&labels, "3"), Ok(b"blue".as_slice()));
        assert_eq!(enum_label(&labels, "0"), Ok(b"".as_slice()));
        assert!(enum_label(&labels, "4").is_err());
        assert_eq!(set_labels(&labels, "5"), Ok(b"red,blue".to_vec()));
        assert!(set_labels(&labels, "8").is_err());
    }

    #[test]
    fn floats_are_widened_without_losing_bits() {
        assert_eq!(
            widened("3.4028235e+38"),
            Ok("3.4028234663852886e38".to_owned())
        );
        assert_eq!(widened("0.1"), Ok("0.10000000149011612".to_owned()));
        assert_eq!(widened("-0"), Ok("-0.0".to_owned()));
    }

    fn any_json() -> impl Strategy<Value = String> {
        prop_oneof![
            "[-+0-9.eE]{0,24}",
            "\"([ -~]|\\\\[xuUnrt0\\\\\"]){0,24}\"",
            any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
            any::<f64>().prop_map(|number| number.to_string()),
            Just("null".to_owned()),
            Just("[{}]".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn any_value_of_a_message_is_decoded_or_refused(
            json in any_json(), type_code: u8, flags in 0..4_u64, place in 0..16_usize,
        ) {
            let types = [
                "bigint(20)", "decimal(9,2)", "float", "double", "char(9)", "text", "binary(4)",
                "blob", "datetime(3)", "year(4)", "bit(9)", "enum('a','b')", "set('a','b')", "json",
                "vector(2)", "enum('','b')",
            ];
            let columns = vec![column("c", 1, types[place], true)];
            let table = table(TableName::new("s", "t"), columns, Vec::new());
            if serde_json::from_str::<&RawValue>(&json).is_ok() {
                let value = ColumnValue::new(type_code, flags, json.trim());
                let image = Image::from_iter([("c".into(), value)]);
                let packer = Packer::new(&table, Zone::default());
                let _ = packer.pack(1, &image, &mut Rows::new());
            }
        }
    }
}
