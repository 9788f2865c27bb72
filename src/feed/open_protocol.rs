//! Decoding of TiCDC's Open Protocol.
//!
//! A Kafka record's key is a version (u64, big-endian, 1) and then keys, each with a length in
//! front (u64, big-endian); its value is as many values, each with its length. Keys and values are
//! JSON; a value may be compressed. Source: the TiCDC Open Protocol page of the TiDB documentation, and
//! TiCDC's encoders, of which there are two: the classic one (pingcap/tiflow) and that of the new
//! architecture (pingcap/ticdc). Both are understood, and nothing says which one wrote a message.

use super::CommitTs;
use super::compression::decompressed;
use crate::schema::TableName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The version of the framing that TiCDC writes.
const VERSION: u64 = 1;

/// The types of messages, the field `t` of a key.
const ROW: u8 = 1;
const DDL: u8 = 2;
const WATERMARK: u8 = 3;

/// The bytes to which the values of one record may decompress (INV-8). TiDB's largest row
/// (`txn-entry-size-limit`) has 120 MiB, by default 6 MiB; Kafka's limits keep what is not compressed
/// far below.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

/// One message of a record.
#[derive(Debug)]
pub enum Message {
    /// A row that was inserted, updated or deleted.
    Row(RowChange),
    /// A row of which the message holds the handle key, and a file the whole (claim check).
    Claim(Claim),
    /// A statement that changed the schema.
    Ddl(Ddl),
    /// A promise that all rows committed at or before this timestamp have been sent to this
    /// partition, and all DDL before it.
    Watermark(CommitTs),
}

impl Message {
    /// Returns the bytes that the message takes while it waits.
    pub fn byte_len(&self) -> usize {
        match self {
            Message::Row(row) | Message::Claim(Claim { row, .. }) => row.byte_len(),
            Message::Ddl(ddl) => ddl.query.len() + size_of::<Self>(),
            Message::Watermark(_) => size_of::<Self>(),
        }
    }
}

/// A change of one row, as it came: its images are decoded only when the row is folded.
///
/// Kept as JSON, a row that waits for the watermark takes a fraction of the memory of its decoded
/// columns.
#[derive(Clone, Debug)]
pub struct RowChange {
    /// The timestamp at which the transaction committed.
    pub commit_ts: CommitTs,
    /// The table, in the source's case; one name for all changes of a record.
    pub table: Arc<TableName>,
    /// Whether the images lack columns beside those of TiCDC's handle key.
    pub key_only: bool,
    value: Box<str>,
}

/// A large row that TiCDC put into a file.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What the message itself says: the handle key.
    pub row: RowChange,
    /// Where TiCDC says that the file is.
    pub location: String,
}

impl RowChange {
    /// Makes a change from its parts.
    pub fn new(commit_ts: CommitTs, table: impl Into<Arc<TableName>>, value: &str) -> Self {
        RowChange {
            commit_ts,
            table: table.into(),
            key_only: false,
            value: value.into(),
        }
    }

    /// Says whether the images lack columns beside those of TiCDC's handle key.
    #[must_use]
    pub fn with_key_only(self, key_only: bool) -> Self {
        RowChange { key_only, ..self }
    }

    /// Returns the value as it came.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Decodes the images of the row before and after the change.
    ///
    /// # Errors
    /// If the value is not that of a row.
    pub fn images(&self) -> Result<Images<'_>, &'static str> {
        let row: RowValue = serde_json::from_str(&self.value).map_err(|_| "a row is not valid")?;
        match (row.u, row.p, row.d) {
            (Some(after), before, None) => Ok(Images {
                before,
                after: Some(after),
            }),
            (None, None, Some(before)) => Ok(Images {
                before: Some(before),
                after: None,
            }),
            _ => Err("a row is neither an update nor a deletion"),
        }
    }

    /// Returns the bytes that the change takes while it waits.
    pub fn byte_len(&self) -> usize {
        self.value.len() + size_of::<Self>()
    }
}

/// The row before and after a change.
#[derive(Debug, PartialEq)]
pub struct Images<'a> {
    /// The row before, if the feed sent it.
    pub before: Option<Image<'a>>,
    /// The row after; none for a deletion.
    pub after: Option<Image<'a>>,
}

/// A schema change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ddl {
    /// The timestamp at which the change took effect.
    pub commit_ts: CommitTs,
    /// The table; its name is empty for a change of a schema.
    pub table: TableName,
    /// The statement as TiCDC prints it.
    pub query: String,
    /// TiDB's number for the kind of change, for example 3 for CREATE TABLE.
    pub action: u32,
}

/// The columns of a row by name.
///
/// They are kept in the order of their names, in which TiCDC sends them: an image is made for each
/// change, and a map of a few columns costs more than all that is done with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Image<'a>(Vec<(Name<'a>, ColumnValue<'a>)>);

/// The name of a column, borrowed from the message unless it holds escapes.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Image<'a> {
    /// Returns how many columns the image has.
    pub fn columns(&self) -> usize {
        self.0.len()
    }

    /// Returns the columns in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ColumnValue<'a>)> {
        self.0.iter().map(|(name, value)| (&*name.0, value))
    }

    /// Returns the value of a column; if no name is the same, of one that differs in case only.
    ///
    /// It is looked for first at the place where it stands in an image of the whole row.
    pub fn get(&self, name: &str, place: usize) -> Option<&ColumnValue<'a>> {
        if let Some((Name(other), value)) = self.0.get(place)
            && other == name
        {
            return Some(value);
        }
        let place = match self.place(name) {
            Ok(place) => place,
            Err(_) => self
                .0
                .iter()
                .position(|(other, _)| other.0.eq_ignore_ascii_case(name))?,
        };
        Some(&self.0[place].1)
    }

    /// Takes from another image the columns that this one lacks.
    pub fn complete_with(&mut self, other: &Image<'a>) {
        let names = self.0.iter().map(|(name, _)| name);
        if names.eq(other.0.iter().map(|(name, _)| name)) {
            return;
        }
        for (name, value) in &other.0 {
            if let Err(place) = self.place(&name.0) {
                self.0.insert(place, (name.clone(), *value));
            }
        }
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (*other.0).cmp(name))
    }
}

impl<'a> FromIterator<(Cow<'a, str>, ColumnValue<'a>)> for Image<'a> {
    fn from_iter<I: IntoIterator<Item = (Cow<'a, str>, ColumnValue<'a>)>>(columns: I) -> Self {
        let columns = columns.into_iter();
        Image::of(columns.map(|(name, value)| (Name(name), value)).collect())
    }
}

impl<'a> Image<'a> {
    fn of(mut columns: Vec<(Name<'a>, ColumnValue<'a>)>) -> Self {
        if !columns.is_sorted_by(|a, b| a.0 < b.0) {
            // Of names that come twice the last one counts, as everywhere in JSON.
            columns.reverse();
            columns.sort_by(|a, b| a.0.cmp(&b.0));
            columns.dedup_by(|a, b| a.0 == b.0);
        }
        Image(columns)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Image<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;

        impl<'de> Visitor<'de> for Columns {
            type Value = Image<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the columns of a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Image<'de>, A::Error> {
                let mut columns = Vec::with_capacity(COLUMNS_USUAL);
                while let Some(column) = map.next_entry()? {
                    columns.push(column);
                }
                Ok(Image::of(columns))
            }
        }

        deserializer.deserialize_map(Columns)
    }
}

/// The columns for which an image has room from the start.
const COLUMNS_USUAL: usize = 16;

/// One column of an image.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
pub struct ColumnValue<'a> {
    /// The MySQL type code.
    #[serde(rename = "t")]
    pub type_code: u8,
    /// The flags; bit 0 is set where the column's charset is binary.
    #[serde(rename = "f", default)]
    pub flags: u64,
    #[serde(rename = "v", borrow, default, deserialize_with = "json_text")]
    text: Option<&'a str>,
}

impl<'a> ColumnValue<'a> {
    /// Makes a column with a value that is JSON.
    pub fn new(type_code: u8, flags: u64, json: &'a str) -> ColumnValue<'a> {
        ColumnValue {
            type_code,
            flags,
            text: Some(json),
        }
    }

    /// Returns the value as JSON text, so that numbers keep all their digits; none for NULL.
    pub fn value(&self) -> Option<&'a str> {
        self.text.filter(|text| *text != "null")
    }

    /// Returns the text of the value, `null` for NULL; none if it was left out.
    pub(super) fn text(&self) -> Option<&'a str> {
        self.text
    }
}

fn json_text<'de: 'a, 'a, D: Deserializer<'de>>(json: D) -> Result<Option<&'a str>, D::Error> {
    <&RawValue>::deserialize(json).map(|raw| Some(raw.get()))
}

#[derive(Deserialize)]
struct MessageKey<'a> {
    ts: CommitTs,
    #[serde(borrow, default)]
    scm: Cow<'a, str>,
    #[serde(borrow, default)]
    tbl: Cow<'a, str>,
    t: u8,
    #[serde(default)]
    ohk: bool,
    #[serde(default)]
    ccl: String,
}

impl MessageKey<'_> {
    fn name(&self) -> TableName {
        TableName::new(&*self.scm, &*self.tbl)
    }

    /// Returns the table, as the message before in the record if that was of the same one.
    fn table(&self, before: Option<&Message>) -> Arc<TableName> {
        match before {
            Some(Message::Row(row))
                if row.table.schema == self.scm && row.table.table == self.tbl =>
            {
                Arc::clone(&row.table)
            }
            _ => Arc::new(self.name()),
        }
    }
}

#[derive(Deserialize)]
struct RowValue<'a> {
    #[serde(borrow)]
    u: Option<Image<'a>>,
    #[serde(borrow)]
    p: Option<Image<'a>>,
    #[serde(borrow)]
    d: Option<Image<'a>>,
}

#[derive(Deserialize)]
struct DdlValue {
    q: String,
    t: u32,
}

/// A file of the claim-check storage: a whole record that holds one row, in base64.
#[derive(Deserialize)]
struct ClaimFile<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

/// Decodes the file that holds the whole of a large row.
///
/// # Errors
/// If it is not the row that the message speaks of.
pub fn decode_claim(claim: &Claim, file: &[u8]) -> Result<RowChange, &'static str> {
    let file: ClaimFile<'_> =
        serde_json::from_slice(file).map_err(|_| "the file holds no message of TiCDC")?;
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| "the file is damaged");
    let (key, value) = (bytes(&file.key)?, bytes(&file.value)?);
    drop(file);
    match decode(&key, &value)?.pop() {
        Some(Message::Row(row))
            if row.commit_ts == claim.row.commit_ts
                && row.table == claim.row.table
                && !row.key_only =>
        {
            Ok(row)
        }
        _ => Err("the file holds another message than the one that points to it"),
    }
}

/// Decodes all messages of one Kafka record.
///
/// # Errors
/// With what is wrong, never with a value of the message (INV-7).
pub fn decode(key: &[u8], value: &[u8]) -> Result<Vec<Message>, &'static str> {
    let mut room = RECORD_BYTES_MAX;
    let (version, mut keys) = take_u64(key).ok_or("it has no Open Protocol key")?;
    if version != VERSION {
        return Err("it is not in Open Protocol (version 1)");
    }
    let mut values = value;
    let mut messages = Vec::new();
    while !keys.is_empty() {
        let (key, rest) = take_framed(keys).ok_or("a key is cut short")?;
        keys = rest;
        let (value, rest) = take_framed(values).ok_or("a value is cut short")?;
        values = rest;
        let value = decompressed(value, room)?;
        room -= value.len();
        messages.push(decode_one(key, &value, messages.last())?);
    }
    if values.is_empty() {
        Ok(messages)
    } else {
        Err("it has more values than keys")
    }
}

/// Decodes a message that comes behind another one of the record.
fn decode_one(key: &[u8], value: &[u8], before: Option<&Message>) -> Result<Message, &'static str> {
    let key: MessageKey<'_> = serde_json::from_slice(key).map_err(|_| "a key is not valid")?;
    match key.t {
        ROW => {
            let row = RowChange::new(key.ts, key.table(before), &as_utf8(value));
            // The new architecture writes `"ohk":false` beside `ccl`.
            Ok(match key.ccl {
                location if location.is_empty() => Message::Row(row.with_key_only(key.ohk)),
                location => Message::Claim(Claim {
                    row: row.with_key_only(true),
                    location,
                }),
            })
        }
        DDL => {
            let ddl: DdlValue = serde_json::from_slice(value).map_err(|_| "a DDL is not valid")?;
            Ok(Message::Ddl(Ddl {
                commit_ts: key.ts,
                table: key.name(),
                query: ddl.q,
                action: ddl.t,
            }))
        }
        WATERMARK => Ok(Message::Watermark(key.ts)),
        _ => Err("a message is of an unknown type"),
    }
}

/// Writes U+FFFD, as an escape, for bytes that are no UTF-8. The new architecture copies such bytes
/// into its JSON; the classic encoder writes this very escape for them, and a true U+FFFD as it is
/// (`encoding/json` of Go), so that the escape always means that something is lost.
fn as_utf8(value: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(value) {
        return Cow::Borrowed(text);
    }
    let mut valid = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        valid.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            valid.push_str("\\ufffd");
        }
    }
    Cow::Owned(valid)
}

pub(super) fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// The key of a row's message, without its value.
pub(super) struct RowKey {
    /// When the change committed.
    pub commit_ts: CommitTs,
    /// The table.
    pub table: TableName,
}

impl RowKey {
    /// Reads a key; none if it is not that of a row which came whole.
    pub fn read(key: &[u8]) -> Option<RowKey> {
        let key: MessageKey<'_> = serde_json::from_slice(key).ok()?;
        let whole = key.t == ROW && !key.ohk && key.ccl.is_empty() && !key.tbl.is_empty();
        whole.then(|| RowKey {
            commit_ts: key.ts,
            table: key.name(),
        })
    }
}

pub(super) fn take_framed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = take_u64(bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

#[cfg(test)]
/// Messages for unit tests.
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A change of a row of table `s.t` with a value that decodes to a deletion of key 1.
    pub fn row(commit_ts: CommitTs) -> RowChange {
        change(commit_ts, r#"{"d":{"id":{"t":8,"f":11,"v":1}}}"#)
    }

    /// A change of a row of table `s.t` with this value.
    pub fn change(commit_ts: CommitTs, value: &str) -> RowChange {
        RowChange::new(commit_ts, TableName::new("s", "t"), value)
    }

    /// A DDL of table `s.t`.
    pub fn ddl(commit_ts: CommitTs) -> Ddl {
        let query = "ALTER TABLE t ADD a INT".to_owned();
        Ddl {
            commit_ts,
            table: TableName::new("s", "t"),
            query,
            action: 5,
        }
    }

    fn framed(parts: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }

    fn record(keys: &[&str], values: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let mut key = VERSION.to_be_bytes().to_vec();
        key.extend(framed(keys));
        (key, framed(values))
    }

    #[test]
    fn a_batch_holds_rows_of_several_tables() {
        let (key, value) = record(
            &[
                r#"{"ts":415508881418485761,"scm":"test","tbl":"t1","rid":7,"t":1}"#,
                r#"{"ts":415508881418485762,"scm":"test","tbl":"t2","t":1}"#,
            ],
            &[
                r#"{"u":{"id":{"t":8,"h":true,"f":11,"v":9007199254740993}}}"#,
                r#"{"d":{"id":{"t":8,"h":true,"f":11,"v":null}}}"#,
            ],
        );
        let messages = decode(&key, &value).expect("a batch of two rows");
        let [Message::Row(first), Message::Row(second)] = messages.as_slice() else {
            panic!("two rows");
        };
        assert_eq!(first.commit_ts, 415_508_881_418_485_761);
        let after = first.images().expect("an insert").after.expect("an image");
        assert_eq!(
            after.get("id", 0).and_then(ColumnValue::value),
            Some("9007199254740993")
        );
        let second = second.images().expect("a deletion");
        assert!(second.after.is_none());
        assert!(
            second
                .before
                .expect("an image")
                .get("id", 0)
                .is_some_and(|id| id.value().is_none())
        );
    }

    #[test]
    fn watermarks_and_ddl_are_told_apart() {
        let (key, value) = record(&[r#"{"ts":5,"t":3}"#], &[""]);
        assert!(matches!(
            decode(&key, &value).as_deref(),
            Ok([Message::Watermark(5)])
        ));
        let (key, value) = record(
            &[r#"{"ts":6,"scm":"s","tbl":"t","t":2}"#],
            &[r#"{"q":"CREATE TABLE `t` (`a` INT)","t":3}"#],
        );
        assert!(
            matches!(decode(&key, &value).as_deref(), Ok([Message::Ddl(ddl)]) if ddl.action == 3)
        );
    }

    #[test]
    fn foreign_and_broken_messages_are_refused() {
        assert!(decode(b"", b"").is_err());
        assert!(decode(b"{\"id\":0}", b"{}").is_err());
        let (key, value) = record(&[r#"{"ts":6,"t":1}"#], &[]);
        assert_eq!(decode(&key, &value).err(), Some("a value is cut short"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(
            key in proptest::collection::vec(any::<u8>(), 0..64),
            value in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = decode(&key, &value);
            let mut versioned = VERSION.to_be_bytes().to_vec();
            versioned.extend(key);
            let _ = decode(&versioned, &value);
        }

        #[test]
        fn any_value_and_any_file_are_decoded_or_refused(
            value in proptest::collection::vec(any::<u8>(), 0..128),
            json in "[{}\\[\\]\":,updtfvh0-9 \\\\]{0,64}",
        ) {
            let claim = Claim { row: row(1), location: String::new() };
            for value in [value.as_slice(), json.as_bytes()] {
                let mut framed = (value.len() as u64).to_be_bytes().to_vec();
                framed.extend_from_slice(value);
                let (key, _) = record(&[r#"{"ts":1,"scm":"s","tbl":"t","t":1}"#], &[]);
                for message in decode(&key, &framed).unwrap_or_default() {
                    if let Message::Row(row) = message {
                        let _ = row.images();
                    }
                }
                let encoded = (STANDARD.encode(&key), STANDARD.encode(&framed));
                let file = format!(r#"{{"key":"{}","value":"{}"}}"#, encoded.0, encoded.1);
                let _ = decode_claim(&claim, file.as_bytes());
                let _ = decode_claim(&claim, value);
            }
        }
    }
}
