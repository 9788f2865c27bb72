//! Random JSON documents as SQL.

use super::column::edge_double;
use super::text::quoted;
use fastrand::Rng;

const NAMES: [&str; 10] = [
    "a",
    "b",
    "aa",
    "",
    "it's",
    "\u{e9}",
    "\u{4e2d}",
    "\u{1f600}",
    "a b",
    "quote\"",
];

const STRINGS: [&str; 10] = [
    "\"\"",
    "\"text \"",
    "\"\\u0000\\u0001\\u001f\"",
    "\"\\ud83d\\ude00\"",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
    "\"<>&\\u2028\\u2029\"",
    "\"\u{4e2d}\u{e9}\u{1f600}\"",
    "\"null\"",
    "\"1\"",
    "\"it's\"",
];

/// Values that are no JSON of their own: TiDB keeps their type and prints them as strings.
const OPAQUE: [&str; 6] = [
    "CAST(x'00FF41' AS JSON)",
    "CAST(CAST('2024-02-29' AS DATE) AS JSON)",
    "CAST(CAST('2024-02-29 12:00:00.123456' AS DATETIME(6)) AS JSON)",
    "CAST(CAST('-10:11:12.5' AS TIME(3)) AS JSON)",
    "JSON_OBJECT('o', x'00FF41', 'd', CAST('2024-02-29' AS DATE))",
    "JSON_ARRAY(1.50, 18446744073709551615, -0e0, 1e0)",
];

/// Returns a random document.
pub fn value(rng: &mut Rng) -> String {
    match rng.u32(0..12) {
        0 => OPAQUE[rng.usize(0..OPAQUE.len())].to_owned(),
        1 => {
            let depth = rng.usize(1..99);
            let mut text = "[".repeat(depth);
            scalar(rng, &mut text);
            quoted(&format!("{text}{}", "]".repeat(depth)))
        }
        _ => {
            let mut text = String::new();
            push(rng, 4, &mut text);
            quoted(&text)
        }
    }
}

fn push(rng: &mut Rng, depth: usize, text: &mut String) {
    match rng.u32(0..5) {
        0 | 1 if depth > 0 => {
            text.push('[');
            for place in 0..rng.usize(0..5) {
                text.push_str(if place > 0 { " , " } else { "" });
                push(rng, depth - 1, text);
            }
            text.push(']');
        }
        2 if depth > 0 => {
            text.push('{');
            for place in 0..rng.usize(0..6) {
                text.push_str(if place > 0 { "," } else { "" });
                let name = NAMES[rng.usize(0..NAMES.len())];
                text.push_str(&serde_json::Value::from(name).to_string());
                text.push(':');
                push(rng, depth - 1, text);
            }
            text.push('}');
        }
        _ => scalar(rng, text),
    }
}

fn scalar(rng: &mut Rng, text: &mut String) {
    match rng.u32(0..10) {
        0 => text.push_str("null"),
        1 => text.push_str(if rng.bool() { "true" } else { "false" }),
        2 | 3 => text.push_str(STRINGS[rng.usize(0..STRINGS.len())]),
        4 => text.push_str(&rng.i64(..).to_string()),
        5 => text.push_str(&rng.u64(..).to_string()),
        6 => text.push_str(
            [
                "0",
                "-0",
                "1.0",
                "1e15",
                "1e21",
                "-9223372036854775808",
                "18446744073709551615",
                "18446744073709551616",
                "123456789012345678901234567890",
            ][rng.usize(0..9)],
        ),
        7 => text.push_str(&format!(
            "{}",
            f64::from(rng.i32(-100_000..100_000)) / 100.0
        )),
        _ => text.push_str(&format!("{:e}", edge_double(rng))),
    }
}
