//! What a record may be that is not in Open Protocol.

/// Returns the protocol that a record's value looks like; none if it looks like none of TiCDC's.
///
/// It is for people, who may have named the wrong topic; nothing is decided by it.
pub fn looks_like(value: &[u8]) -> Option<&'static str> {
    let holds = |word: &str| {
        let word = format!("\"{word}\":");
        value.windows(word.len()).any(|at| at == word.as_bytes())
    };
    match value.first()? {
        b'{' if holds("isDdl") => Some("canal-json"),
        b'{' if holds("schema") && holds("payload") => Some("debezium"),
        b'{' if holds("version") && holds("type") => Some("simple"),
        // A number of four bytes follows, that of the schema.
        0 if value.len() > 5 => Some("avro"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::looks_like;

    #[test]
    fn protocols_are_told_apart_by_what_only_they_have() {
        for (value, protocol) in [
            (
                r#"{"id":0,"isDdl":false,"type":"TIDB_WATERMARK"}"#,
                Some("canal-json"),
            ),
            (
                r#"{"version":1,"type":"WATERMARK","commitTs":5}"#,
                Some("simple"),
            ),
            (r#"{"payload":{"op":"c"},"schema":{}}"#, Some("debezium")),
            ("\0\0\0\0\u{7}\u{2}x", Some("avro")),
            (r#"{"hello":1}"#, None),
            ("hello", None),
            ("", None),
        ] {
            assert_eq!(looks_like(value.as_bytes()), protocol, "{value}");
        }
    }
}
