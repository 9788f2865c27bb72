//! The elements of a VECTOR: floats of 32 bits between brackets, each with all its bits in the text.
//!
//! TiDB prints the shortest digits that tell the float from its neighbours, and OceanBase the digits of
//! the widened double (see [`crate::database::source_scan`]): read as a float, both are the same bits.

use std::fmt::Write;

/// Returns the elements of a vector as a server prints it, in order, each as a finite float or as
/// nothing where the text is none; nothing at all of a text without brackets.
fn elements(text: &[u8]) -> Option<impl Iterator<Item = Option<f32>>> {
    let inside = text.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let inside = std::str::from_utf8(inside).ok()?;
    let parts = inside.split(',').filter(move |_| !inside.trim().is_empty());
    Some(parts.map(|part| {
        let element: f32 = part.trim().parse().ok()?;
        element.is_finite().then_some(element)
    }))
}

/// Writes the IEEE bits of each element, most significant byte first, so that -0 and 0 stay different.
/// The number of elements follows from the length.
pub fn canonical(text: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    const EXPECTED: &str = "a vector";
    for element in elements(text).ok_or(EXPECTED)? {
        out.extend_from_slice(&element.ok_or(EXPECTED)?.to_bits().to_be_bytes());
    }
    Ok(())
}

/// Returns the text from which a server reads exactly these elements, whether it reads floats or
/// doubles: that of the widened doubles. Nothing of a text that is no vector.
pub fn widened(text: &[u8]) -> Option<String> {
    printed(text, |element, out| write!(out, "{:?}", f64::from(element)))
}

/// Returns the shortest text of the elements, for a person. Nothing of a text that is no vector.
pub fn shortest(text: &[u8]) -> Option<String> {
    printed(text, |element, out| write!(out, "{element:?}"))
}

fn printed(text: &[u8], print: impl Fn(f32, &mut String) -> std::fmt::Result) -> Option<String> {
    let mut out = "[".to_owned();
    for (place, element) in elements(text)?.enumerate() {
        if place > 0 {
            out.push(',');
        }
        print(element?, &mut out).ok()?;
    }
    out.push(']');
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        canonical(text.as_bytes(), &mut out).ok()?;
        Some(out)
    }

    #[test]
    fn both_servers_texts_have_one_form() {
        assert_eq!(form("[0.1,-0]"), form("[0.10000000149011612,-0.0]"));
        assert_ne!(form("[0.1,-0]"), form("[0.1,0]"));
        assert_ne!(form("[1,2]"), form("[2,1]"));
        assert_ne!(form("[1]"), form("[1,0]"));
        assert_eq!(form("[]"), Some(Vec::new()));
        for none in ["", "[", "1", "[1,]", "[a]", "[inf]", "[1e39]", "[NaN]"] {
            assert_eq!(form(none), None, "{none}");
        }
        assert_eq!(
            widened(b"[0.1,3.4028235e38]").as_deref(),
            Some("[0.10000000149011612,3.4028234663852886e38]")
        );
        assert_eq!(
            shortest(b"[0.10000000149011612,-0]").as_deref(),
            Some("[0.1,-0.0]")
        );
    }

    proptest! {
        #[test]
        fn no_bit_is_lost(bits in proptest::collection::vec(any::<u32>(), 0..9)) {
            let floats: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|float| float.is_finite()).collect();
            let texts: Vec<String> = floats.iter().map(f32::to_string).collect();
            let text = format!("[{}]", texts.join(","));
            let wanted: Vec<u8> = floats.iter().flat_map(|float| float.to_bits().to_be_bytes()).collect();
            prop_assert_eq!(form(&text), Some(wanted.clone()));
            prop_assert_eq!(form(&widened(text.as_bytes()).expect("a vector")), Some(wanted.clone()));
            prop_assert_eq!(form(&shortest(text.as_bytes()).expect("a vector")), Some(wanted));
        }
    }
}
