//! The canonical form of JSON values: a typed tree.

use super::varint;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::ops::Range;

/// What stands behind the last item of an array or member of an object. No value begins with it.
const END: u8 = b'e';

/// Writes a JSON text as a typed tree: object keys in byte order, integers apart from doubles,
/// doubles by their bits.
///
/// TiDB sorts keys by bytes and OceanBase by length first, so that equal values differ as text.
/// Integers keep all their digits: comparing them as doubles would make 2^53 equal 2^53 + 1.
pub fn canonical(text: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    Writer(out)
        .deserialize(&mut parser)
        .map_err(|_| "a JSON value")?;
    parser.end().map_err(|_| "a JSON value")
}

/// Writes the value that the parser comes upon, without making a tree of it first: every row of a
/// table may hold one.
struct Writer<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Writer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Writer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(b'n');
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.push(if value { b't' } else { b'f' });
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.push(b'u');
        varint::write(value, self.0);
        Ok(())
    }

    // The parser has taken what is not negative for unsigned.
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.push(b'i');
        varint::write(value.unsigned_abs(), self.0);
        Ok(())
    }

    // Without arbitrary precision every number that is no integer is a double.
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.push(b'd');
        self.0.extend_from_slice(&value.to_bits().to_be_bytes());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        string(value, self.0);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.push(b'a');
        while items.next_element_seed(Writer(self.0))?.is_some() {}
        self.0.push(END);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.0.push(b'o');
        let mut written: Vec<Member> = Vec::new();
        let mut in_order = true;
        let mut start = self.0.len();
        while let Some(name) = members.next_key_seed(Name(self.0))? {
            members.next_value_seed(Writer(self.0))?;
            let before = written.last().map(|member| &self.0[member.name.clone()]);
            in_order &= before.is_none_or(|before| before < &self.0[name.clone()]);
            let whole = start..self.0.len();
            start = whole.end;
            written.push(Member { name, whole });
        }
        if !in_order {
            sort(&mut written, self.0);
        }
        self.0.push(END);
        Ok(())
    }
}

/// Writes the name of a member and tells where it stands, without its length.
struct Name<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Range<usize>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Range<usize>, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Range<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Range<usize>, E> {
        string(name, self.0);
        Ok(self.0.len() - name.len()..self.0.len())
    }
}

/// Where a member of an object was written.
struct Member {
    name: Range<usize>,
    whole: Range<usize>,
}

/// Brings written members to the order of their names. Of several with one name the last counts,
/// as it does on the servers.
fn sort(members: &mut Vec<Member>, out: &mut Vec<u8>) {
    let Some(start) = members.first().map(|member| member.whole.start) else {
        return;
    };
    let written = out.split_off(start);
    let bytes = |range: &Range<usize>| &written[range.start - start..range.end - start];
    // The sort keeps the order of equal names: after reversing, the last of them is the first.
    members.reverse();
    members.sort_by(|left, right| bytes(&left.name).cmp(bytes(&right.name)));
    members.dedup_by(|next, kept| bytes(&next.name) == bytes(&kept.name));
    for member in members {
        out.extend_from_slice(bytes(&member.whole));
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b's');
    varint::write(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Vec<u8> {
        let mut out = b"before".to_vec();
        canonical(text.as_bytes(), &mut out).expect("a JSON value");
        out
    }

    #[test]
    fn members_are_in_the_order_of_their_names_at_every_depth() {
        let sorted = form(r#"{"a": {"x": 1, "y": []}, "ab": null, "b": true}"#);
        let shuffled = form(r#"{"b": true, "ab": null, "a": {"y": [], "x": 1}}"#);
        assert_eq!(shuffled, sorted);
        let other = form(r#"{"b": true, "ab": null, "a": {"y": [], "x": 2}}"#);
        assert_ne!(other, sorted);
    }

    #[test]
    fn of_members_with_one_name_the_last_counts() {
        let once = form(r#"{"a": 3, "b": 0}"#);
        assert_eq!(form(r#"{"b": 0, "a": 1, "a": 2, "a": 3}"#), once);
        assert_eq!(form(r#"{"a": 2, "a": 3, "b": 0}"#), once);
    }

    #[test]
    fn an_escaped_name_is_the_name_that_it_means() {
        assert_eq!(
            form(r#"{"\u0062": 1, "a": 2}"#),
            form(r#"{"a": 2, "b": 1}"#)
        );
    }

    #[test]
    fn no_item_runs_into_its_neighbour() {
        assert_ne!(form(r#"["ab", "c"]"#), form(r#"["a", "bc"]"#));
        assert_ne!(form("[[1], 2]"), form("[[1, 2]]"));
        assert_ne!(form("1"), form("1.0"));
    }

    #[test]
    fn half_a_value_and_what_follows_one_are_errors() {
        for text in ["1 2", r#"{"a": }"#, r#"{"a": 1"#, "", "1e999"] {
            assert!(
                canonical(text.as_bytes(), &mut Vec::new()).is_err(),
                "{text}"
            );
        }
    }
}
