//! Lengths and counts in as few bytes as they need: most cells are short, and every byte is hashed.

/// Writes a number with seven bits in each byte, the lowest first; the highest bit of a byte says
/// that another one follows (unsigned LEB128). No number's bytes begin another's.
pub fn write(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends what `fill` appends, with its length in front.
pub fn with_length<E>(
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.push(0);
    fill(out)?;
    let length = out.len() - start - 1;
    if length < 0x80 {
        out[start] = length as u8;
    } else {
        let mut prefix = Vec::with_capacity(10);
        write(length as u64, &mut prefix);
        out.splice(start..=start, prefix);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write(number, &mut out);
        out
    }

    #[test]
    fn a_length_stands_before_what_it_measures() {
        for (length, prefix) in [(0, vec![0]), (127, vec![127]), (300, vec![0xac, 0x02])] {
            let mut out = vec![9; 3];
            let fill = |out: &mut Vec<u8>| {
                out.extend(vec![7; length]);
                Ok::<(), ()>(())
            };
            with_length(&mut out, fill).expect("nothing fails here");
            assert_eq!(out, [vec![9; 3], prefix, vec![7; length]].concat());
        }
    }

    proptest! {
        #[test]
        fn no_number_begins_another(left: u64, right: u64) {
            prop_assert_eq!(written(left).starts_with(&written(right)), left == right);
        }
    }
}
