//! Records whose values cannot be told apart, while their keys still say whose they are.

use super::open_protocol::{RowKey, take_framed, take_u64};
use super::{Message, RowChange};

/// Returns a change without a value for each key of a record that cannot be decoded, if all of them
/// are of rows: no such change can ever be carried, so each holds its table, and no other.
///
/// None if a key cannot be read, or is not of a row: then nobody knows what the record says, and the
/// feed ends there.
pub fn rows_without_values(key: &[u8]) -> Option<Vec<Message>> {
    let (_, mut keys) = take_u64(key)?;
    let mut rows = Vec::new();
    while !keys.is_empty() {
        let (key, rest) = take_framed(keys)?;
        keys = rest;
        let key = RowKey::read(key)?;
        rows.push(Message::Row(RowChange::new(key.commit_ts, key.table, "")));
    }
    (!rows.is_empty()).then_some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_key(keys: &[&str]) -> Vec<u8> {
        let mut bytes = 1_u64.to_be_bytes().to_vec();
        for key in keys {
            bytes.extend((key.len() as u64).to_be_bytes());
            bytes.extend(key.as_bytes());
        }
        bytes
    }

    #[test]
    fn the_keys_of_a_damaged_record_say_which_tables_it_was_about() {
        let key = record_key(&[
            r#"{"ts":5,"scm":"s","tbl":"a","t":1}"#,
            r#"{"ts":6,"scm":"s","tbl":"b","t":1}"#,
        ]);
        let rows = rows_without_values(&key).expect("two rows");
        let [Message::Row(first), Message::Row(second)] = rows.as_slice() else {
            panic!("two rows");
        };
        assert_eq!((first.commit_ts, first.table.table.as_str()), (5, "a"));
        assert_eq!((second.commit_ts, second.table.table.as_str()), (6, "b"));
        assert!(first.images().is_err(), "it can never be carried");
    }

    #[test]
    fn what_may_be_a_ddl_or_a_watermark_is_nobodys() {
        for key in [
            r#"{"ts":5,"scm":"s","tbl":"a","t":2}"#,
            r#"{"ts":5,"t":3}"#,
            r#"{"ts":5,"scm":"s","tbl":"a","t":1,"ohk":true}"#,
            r#"{"ts":5,"t":1}"#,
            "{",
        ] {
            assert!(rows_without_values(&record_key(&[key])).is_none(), "{key}");
        }
        assert!(rows_without_values(b"").is_none());
    }
}
