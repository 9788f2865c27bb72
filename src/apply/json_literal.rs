//! JSON values as SQL, in a spelling in which every double arrives with all its bits.

use super::text_literal;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The doubles that OceanBase's JSON parser makes exactly of their text: it multiplies the digits by
/// a power of ten, and that is exact while both are doubles themselves.
const EXACT_DIGITS: u64 = 1 << 53;
const EXACT_POWER: i64 = 22;

/// How deep constructors are nested: OceanBase refuses a hundred of them. What lies deeper is written
/// as text, and a double that does not survive that is found by the read-back.
const NESTED_MAX: usize = 98;

/// Returns the SQL of a JSON text.
///
/// A text is enough as long as OceanBase's parser takes its numbers exactly. It loses the last bit of
/// about one in four of the others, but none of a double in SQL: those values are put together by
/// JSON_ARRAY and JSON_OBJECT. So is -0, which TiDB prints without a point and OceanBase would take
/// for the integer 0.
pub fn json_literal(text: &[u8]) -> String {
    let exact = std::str::from_utf8(text)
        .ok()
        .filter(|text| holds_fragile(text))
        .and_then(|text| {
            let mut sql = String::with_capacity(2 * text.len());
            push(serde_json::from_str(text).ok()?, 0, &mut sql)?;
            Some(sql)
        });
    exact.unwrap_or_else(|| text_literal(text))
}

/// Appends the SQL of a value, as an argument of a constructor or as the whole.
fn push(value: &RawValue, nested: usize, sql: &mut String) -> Option<()> {
    let text = value.get();
    let first = text.bytes().next()?;
    if !holds_fragile(text) || (nested == NESTED_MAX && b"[{".contains(&first)) {
        push_cast(&text_literal(text.as_bytes()), sql);
    } else if first == b'[' {
        let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        sql.push_str("JSON_ARRAY(");
        for (place, item) in items.into_iter().enumerate() {
            sql.push_str(if place > 0 { ", " } else { "" });
            push(item, nested + 1, sql)?;
        }
        sql.push(')');
    } else if first == b'{' {
        let Members(members) = serde_json::from_str(text).ok()?;
        sql.push_str("JSON_OBJECT(");
        for (place, (name, member)) in members.into_iter().enumerate() {
            sql.push_str(if place > 0 { ", " } else { "" });
            sql.push_str(&text_literal(name.as_bytes()));
            sql.push_str(", ");
            push(member, nested + 1, sql)?;
        }
        sql.push(')');
    } else {
        // The exponent makes it a double and no decimal. What no double holds is left for the target to refuse.
        let number = text
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())?;
        push_cast(&format!("{number:e}"), sql);
    }
    Some(())
}

fn push_cast(literal: &str, sql: &mut String) {
    sql.push_str("CAST(");
    sql.push_str(literal);
    sql.push_str(" AS JSON)");
}

/// Tells whether a JSON text holds a number that OceanBase's JSON parser may change.
fn holds_fragile(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        if *byte == b'"' {
            while let Some(inside) = bytes.get(at) {
                at += 1;
                match inside {
                    b'"' => break,
                    b'\\' => at += 1,
                    _ => {}
                }
            }
        } else if *byte == b'-' || byte.is_ascii_digit() {
            let start = at - 1;
            let of_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
            while bytes.get(at).is_some_and(of_number) {
                at += 1;
            }
            if is_fragile(&text[start..at]) {
                return true;
            }
        }
    }
    false
}

fn is_fragile(number: &str) -> bool {
    if !number.contains(['.', 'e', 'E']) {
        let integer = number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
        return number == "-0" || !integer;
    }
    let (mantissa, power) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    let exact = digits
        .parse::<u64>()
        .is_ok_and(|digits| digits < EXACT_DIGITS)
        && power
            .parse::<i64>()
            .is_ok_and(|power| (power - fraction.len() as i64).abs() <= EXACT_POWER);
    !exact
}

/// The members of an object in their order, each with its text.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sql(text: &str) -> String {
        json_literal(text.as_bytes())
    }

    #[test]
    fn what_the_parser_takes_exactly_stays_a_text() {
        for text in [
            r#"{"a": [1, 2.5, -1e22, null], "123456789012345678901": "0.1234567890123456789"}"#,
            "18446744073709551615",
            "-9223372036854775808",
            "0.1",
            r#""quote \" 0.30000000000000004""#,
        ] {
            assert_eq!(sql(text), text_literal(text.as_bytes()));
        }
    }

    #[test]
    fn fragile_doubles_are_doubles_of_sql() {
        assert_eq!(
            sql("0.30000000000000004"),
            "CAST(3.0000000000000004e-1 AS JSON)"
        );
        assert_eq!(sql("-0"), "CAST(-0e0 AS JSON)");
        assert_eq!(
            sql(r#"{"it's": [1e300, 1.5], "b": {"c": "x"}}"#),
            r#"JSON_OBJECT('it\'s', JSON_ARRAY(CAST(1e300 AS JSON), CAST('1.5' AS JSON)), 'b', CAST('{"c": "x"}' AS JSON))"#
        );
        assert_eq!(
            sql("123456789012345680000"),
            "CAST(1.2345678901234568e20 AS JSON)"
        );
    }

    #[test]
    fn a_number_that_no_double_holds_is_written_as_text() {
        for text in ["1e999", r#"{"b": -0.35e+885}"#] {
            assert_eq!(sql(text), text_literal(text.as_bytes()));
        }
    }

    #[test]
    fn what_lies_too_deep_is_written_as_text() {
        let deep = format!("{}0.30000000000000004{}", "[".repeat(100), "]".repeat(100));
        let sql = sql(&deep);
        assert_eq!(sql.matches("JSON_ARRAY(").count(), NESTED_MAX);
        assert!(
            sql.contains("CAST('[[0.30000000000000004]]' AS JSON)"),
            "{sql}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_become_one_literal(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(!json_literal(&bytes).is_empty());
        }

        #[test]
        fn any_double_is_written_with_all_its_bits(number in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            let text = sql(&format!("{number:?}"));
            let written = text.trim_start_matches("CAST(").trim_end_matches(" AS JSON)");
            let back: f64 = written.trim_matches('\'').parse().expect("a number");
            prop_assert_eq!(back.to_bits(), number.to_bits());
        }
    }
}
