//! What the messages of one table have in common: all of their text but the values.
//!
//! To decode JSON is most of what folding takes its time for, and in a table's messages of one kind only the
//! values differ. A message that is, around its values, the same text as one that was decoded before, says
//! the same about them.

use super::{ColumnValue, Image, Images, RowChange};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

/// How many shapes a table has: those of inserted, of updated and of deleted rows.
const SHAPES: usize = 3;

/// The shapes of a table's messages, each learnt from the first message that has it.
#[derive(Debug, Default)]
pub struct Shapes([OnceLock<Shape>; SHAPES]);

impl Shapes {
    /// Decodes the images of the row before and after a change, as [`RowChange::images`] does.
    ///
    /// # Errors
    /// If the value is not that of a row.
    pub fn images<'a>(&'a self, change: &'a RowChange) -> Result<Images<'a>, &'static str> {
        let mut vacant = None;
        for place in &self.0 {
            let Some(shape) = place.get() else {
                vacant = Some(place);
                break;
            };
            if let Some(images) = shape.images(change.value()) {
                return Ok(images);
            }
        }
        let images = change.images()?;
        if let Some(vacant) = vacant
            && let Some(shape) = Shape::of(change.value(), &images)
        {
            // Another thread may have been faster.
            let _ = vacant.set(shape);
        }
        Ok(images)
    }
}

/// The text of a message around its values.
#[derive(Debug)]
struct Shape {
    /// The columns of the two images, in the order of the text.
    columns: Vec<Column>,
    /// Those of the row before the change.
    before: Option<Range<usize>>,
    /// Those of the row after it.
    after: Option<Range<usize>>,
    /// What stands behind the last value.
    end: String,
}

#[derive(Debug)]
struct Column {
    /// What stands between the value before and this one.
    gap: String,
    name: String,
    type_code: u8,
    flags: u64,
}

impl Shape {
    /// Returns the shape of a message that was decoded; none if its columns do not stand in the order of
    /// their names, the new row's first, or one has no value.
    fn of(text: &str, images: &Images<'_>) -> Option<Shape> {
        let mut shape = Shape {
            columns: Vec::new(),
            before: None,
            after: None,
            end: String::new(),
        };
        let mut end = 0;
        if let Some(image) = &images.after {
            shape.after = Some(shape.add_columns(text, &mut end, image)?);
        }
        if let Some(image) = &images.before {
            shape.before = Some(shape.add_columns(text, &mut end, image)?);
        }
        text.get(end..)?.clone_into(&mut shape.end);
        Some(shape)
    }

    /// Adds the columns of an image that stands behind `end` in the text, and returns which they are.
    fn add_columns(
        &mut self,
        text: &str,
        end: &mut usize,
        image: &Image<'_>,
    ) -> Option<Range<usize>> {
        let first = self.columns.len();
        for (name, of) in image.iter() {
            let value = of.text()?;
            let from = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
            self.columns.push(Column {
                gap: text.get(*end..from)?.to_owned(),
                name: name.to_owned(),
                type_code: of.type_code,
                flags: of.flags,
            });
            *end = from + value.len();
        }
        Some(first..self.columns.len())
    }

    /// Returns the images of a message that has this shape.
    fn images<'a>(&'a self, text: &'a str) -> Option<Images<'a>> {
        let mut values = Vec::with_capacity(self.columns.len());
        let mut rest = text;
        for column in &self.columns {
            rest = rest.strip_prefix(&*column.gap)?;
            let (value, behind) = rest.split_at(scalar_len(rest.as_bytes())?);
            values.push(value);
            rest = behind;
        }
        if rest != self.end {
            return None;
        }
        let image = |of: &Range<usize>| {
            let columns = self.columns[of.clone()].iter().zip(&values[of.clone()]);
            let columns = columns.map(|(column, value)| {
                let name = Cow::Borrowed(column.name.as_str());
                (
                    name,
                    ColumnValue::new(column.type_code, column.flags, value),
                )
            });
            Image::from_iter(columns)
        };
        Some(Images {
            before: self.before.as_ref().map(image),
            after: self.after.as_ref().map(image),
        })
    }
}

/// Returns the length of the string, the number, or the `null` with which a text begins. None if it begins
/// with anything else, which TiCDC does not write as a value and which only takes longer.
fn scalar_len(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => string_len(text),
        b'n' => text.starts_with(b"null").then_some(4),
        _ => number_len(text),
    }
}

fn string_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
        at += text.get(at..)?.iter().position(special)?;
        match text[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += escape_len(&text[at..])?,
            _ => return None,
        }
    }
}

fn escape_len(text: &[u8]) -> Option<usize> {
    match text.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => {
            let digits = text.get(2..6)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(6)
        }
        _ => None,
    }
}

fn number_len(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let behind = text[from..].iter();
        let count = behind.take_while(|of| of.is_ascii_digit()).count();
        (count > 0).then_some(count)
    };
    let whole = usize::from(text[0] == b'-');
    let mut end = whole + digits(whole)?;
    if text[whole] == b'0' && end > whole + 1 {
        return None;
    }
    if text.get(end) == Some(&b'.') {
        end += 1;
        end += digits(end)?;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        end += 1;
        end += usize::from(matches!(text.get(end), Some(b'+' | b'-')));
        end += digits(end)?;
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::super::open_protocol::tests::change;
    use super::*;
    use proptest::prelude::*;

    /// Decodes two messages one after the other, and asserts that the second one says by its shape what
    /// it says by itself. Tells whether it has the shape of the first.
    fn has_shape(first: &str, second: &str) -> bool {
        let (first, second) = (change(1, first), change(2, second));
        let shapes = Shapes::default();
        let _ = shapes.images(&first);
        assert_eq!(shapes.images(&second), second.images());
        let shape = shapes.0[0].get();
        shape.is_some_and(|shape| shape.images(second.value()).is_some())
    }

    fn update(values: [&str; 2], old: [&str; 2]) -> String {
        let image = |[id, name]: [&str; 2]| {
            format!(
                r#"{{"id":{{"t":8,"h":true,"f":11,"v":{id}}},"name":{{"t":15,"f":64,"v":{name}}}}}"#
            )
        };
        format!(r#"{{"u":{},"p":{}}}"#, image(values), image(old))
    }

    #[test]
    fn a_message_with_other_values_has_the_shape_of_the_one_before() {
        let first = update(["1", r#""a""#], ["1", "null"]);
        for (values, old) in [
            (["-20", r#""""#], ["0", r#""b \"\\\u003c \n""#]),
            (["1.50", "null"], ["12345678901234567890123", r#""中""#]),
            (["1e21", "-0.5E-07"], ["0e+0", "1.7976931348623157e+308"]),
        ] {
            assert!(has_shape(&first, &update(values, old)), "{values:?}");
        }
        assert!(has_shape(
            r#" {"d":{"a":{"t":3,"v": 1 }}}"#,
            r#" {"d":{"a":{"t":3,"v": "2" }}}"#
        ));
    }

    #[test]
    fn what_differs_beside_its_values_or_is_no_json_has_another_shape() {
        let first = update(["1", r#""a""#], ["1", "null"]);
        for other in [
            first.replace("\"f\":64", "\"f\":65"),
            first.replace("name", "nome"),
            first.replace("{\"u\"", "{\"d\""),
            format!("{first} "),
            format!("{first}}}"),
            first.replace("\"p\"", "\"x\""),
            String::new(),
        ] {
            assert!(!has_shape(&first, &other), "{other}");
        }
        for value in [
            "",
            "-",
            "01",
            "-01",
            "1.",
            ".5",
            "+1",
            "1e",
            "1e+",
            "1E-e",
            "1.e5",
            "nul",
            "nulls",
            "true",
            "[]",
            "{}",
            "\"",
            "\"a",
            "\"\\\"",
            "\"\\x41\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "1 2",
            "\"a\"b",
        ] {
            assert!(
                !has_shape(&first, &update([value, "null"], ["1", "null"])),
                "{value}"
            );
        }
    }

    #[test]
    fn a_message_without_an_order_or_a_value_has_no_shape() {
        for text in [
            r#"{"u":{"b":{"t":1,"v":1},"a":{"t":1,"v":2}}}"#,
            r#"{"u":{"a":{"t":1,"v":1},"b":{"t":1}}}"#,
        ] {
            assert!(!has_shape(text, text));
        }
    }

    #[test]
    fn each_kind_of_message_has_a_shape() {
        let shapes = Shapes::default();
        let image = r#"{"id":{"t":8,"f":11,"v":1}}"#;
        let kinds = [
            format!(r#"{{"u":{image}}}"#),
            format!(r#"{{"u":{image},"p":{image}}}"#),
            format!(r#"{{"d":{image}}}"#),
            format!(r#"{{"u":{image},"p":{{}}}}"#),
        ];
        for text in kinds.iter().chain(&kinds) {
            let change = change(1, text);
            assert_eq!(shapes.images(&change), change.images(), "{text}");
        }
        let known = shapes.0.iter().filter_map(OnceLock::get);
        assert_eq!(known.filter(|of| of.images(&kinds[2]).is_some()).count(), 1);
    }

    fn any_value() -> impl Strategy<Value = String> {
        prop_oneof![
            "-?[0-9]{0,3}(\\.[0-9]{0,2})?([eE][-+]?[0-9]{0,2})?",
            "\"([ -~]|\\\\[xuUnrt0\\\\\"]|é){0,12}\"",
            "[-\\[\\]{}\":,nul0-9. \\\\]{0,8}",
            any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
            Just("null".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn any_two_messages_say_by_their_shape_what_they_say_themselves(
            values in [any_value(), any_value(), any_value(), any_value()],
            others in [any_value(), any_value(), any_value(), any_value()],
            cut in 0..200_usize, text in "[{}\":,updvtf0-9 ]{0,8}",
        ) {
            let of = |[a, b, c, d]: &[String; 4]| update([a, b], [c, d]);
            let (first, second) = (of(&values), of(&others));
            has_shape(&first, &second);
            has_shape(&second, &second);
            let mut damaged = second;
            let at = (0..=cut.min(damaged.len())).rev().find(|at| damaged.is_char_boundary(*at));
            damaged.insert_str(at.unwrap_or(0), &text);
            has_shape(&first, &damaged);
        }
    }
}
