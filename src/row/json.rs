//! The canonical form of JSON values: a typed tree.

use serde_json::Value;

/// Writes a JSON text as a typed tree: object keys in byte order, integers apart from doubles,
/// doubles by their bits.
///
/// TiDB sorts keys by bytes and OceanBase by length first, so that equal values differ as text.
/// Integers keep all their digits: comparing them as doubles would make 2^53 equal 2^53 + 1.
pub fn canonical(text: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let tree: Value = serde_json::from_slice(text).map_err(|_| "a JSON value")?;
    write(&tree, out);
    Ok(())
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(b'n'),
        Value::Bool(false) => out.push(b'f'),
        Value::Bool(true) => out.push(b't'),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(unsigned), _, _) => integer(i128::from(unsigned), out),
            (None, Some(signed), _) => integer(i128::from(signed), out),
            (None, None, double) => {
                out.push(b'd');
                // Without arbitrary precision every number that is no integer is a double.
                let double = double.unwrap_or(f64::NAN);
                out.extend_from_slice(&double.to_bits().to_be_bytes());
            }
        },
        Value::String(text) => string(text, out),
        Value::Array(items) => {
            out.push(b'a');
            length(items.len(), out);
            for item in items {
                write(item, out);
            }
        }
        Value::Object(members) => {
            out.push(b'o');
            length(members.len(), out);
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            for (name, member) in members {
                string(name, out);
                write(member, out);
            }
        }
    }
}

fn integer(number: i128, out: &mut Vec<u8>) {
    out.push(b'i');
    out.extend_from_slice(&number.to_be_bytes());
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b's');
    length(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// Writes a count as eight bytes, so that no member can run into its neighbour.
fn length(count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(count as u64).to_be_bytes());
}
