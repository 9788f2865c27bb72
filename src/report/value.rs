//! Cells as a person can tell them apart.

use super::number;
use crate::row::{Kind, hex, shortest_vector};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// The characters of a value that are shown where it is like the other one, on each side.
const CONTEXT: usize = 40;

/// The characters that are shown of what differs, or of a value that stands alone.
const WINDOW: usize = 160;

/// A cell made visible.
///
/// Text stands in quotes, so that the empty one can be seen and NULL is another thing; spaces at
/// its ends are shown as `␣` and control characters by their names; binary values are shown in
/// hexadecimal.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Shown {
    /// Whether the cell is NULL; the other fields are empty then.
    pub null: bool,
    /// What it has in common with the other side's cell, in front.
    pub head: String,
    /// What differs, or all of it.
    pub middle: String,
    /// Whether the middle is what differs from the other side's cell.
    pub differs: bool,
    /// What it has in common with the other side's cell, behind.
    pub tail: String,
    /// The whole length in words, if a part is not shown.
    pub length: Option<String>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.null {
            return f.write_str("NULL");
        }
        write!(f, "{}{}{}", self.head, self.middle, self.tail)?;
        match &self.length {
            Some(length) => write!(f, " ({length})"),
            None => Ok(()),
        }
    }
}

/// Shows a cell that stands alone.
pub fn shown(kind: &Kind, cell: Option<&[u8]>) -> Shown {
    match cell {
        None => Shown {
            null: true,
            ..Shown::default()
        },
        Some(bytes) => {
            let bytes = legible(kind, bytes);
            render(kind, &bytes, 0..bytes.len())
        }
    }
}

/// Shows two cells that differ, each with the part in which it differs set apart; of long values
/// that part is shown, wherever in the value it is.
pub fn shown_pair(kind: &Kind, left: Option<&[u8]>, right: Option<&[u8]>) -> (Shown, Shown) {
    let (Some(left), Some(right)) = (left, right) else {
        return (shown(kind, left), shown(kind, right));
    };
    let (left, right) = (&*legible(kind, left), &*legible(kind, right));
    let (start, end) = common(left, right, !kind.is_binary());
    let side = |bytes: &[u8]| {
        let differing = start..bytes.len() - end;
        Shown {
            differs: !differing.is_empty(),
            ..render(kind, bytes, differing)
        }
    };
    (side(left), side(right))
}

/// Returns the text for a person: of a vector the shortest, which both servers' texts have alike; behind
/// the number of a label the label, which may be the empty one.
fn legible<'a>(kind: &Kind, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    let text = match kind {
        Kind::Vector => shortest_vector(bytes),
        Kind::Enum(labels) if kind.is_numbered() => {
            let place = std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| text.parse::<usize>().ok());
            place.map(
                |place| match place.checked_sub(1).and_then(|place| labels.get(place)) {
                    Some(label) => format!("{place} ('{label}')"),
                    None => format!("{place} (the error value)"),
                },
            )
        }
        _ => None,
    };
    text.map_or(Cow::Borrowed(bytes), |text| Cow::Owned(text.into_bytes()))
}

/// Says in words how two cells differ, where that is hard to see.
pub fn note(kind: &Kind, left: Option<&[u8]>, right: Option<&[u8]>) -> Option<&'static str> {
    let (Some(left), Some(right)) = (left, right) else {
        let empty = left.or(right).is_some_and(<[u8]>::is_empty);
        return empty.then_some("NULL against the empty text");
    };
    let textual = matches!(kind, Kind::Char | Kind::Text | Kind::Enum(_) | Kind::Set(_));
    if !textual || left == right {
        return None;
    }
    let (left, right) = (
        std::str::from_utf8(left).ok()?,
        std::str::from_utf8(right).ok()?,
    );
    if left.trim_matches(' ') == right.trim_matches(' ') {
        return Some("only in spaces at the ends");
    }
    (left.to_lowercase() == right.to_lowercase()).then_some("only in upper and lower case")
}

/// Returns how many bytes two values share in front and behind; of text whole characters.
fn common(left: &[u8], right: &[u8], text: bool) -> (usize, usize) {
    let inside =
        |bytes: &[u8], at: usize| text && bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let mut start = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    while start > 0 && (inside(left, start) || inside(right, start)) {
        start -= 1;
    }
    let (left, right) = (&left[start..], &right[start..]);
    let mut end = left
        .iter()
        .rev()
        .zip(right.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    while end > 0 && (inside(left, left.len() - end) || inside(right, right.len() - end)) {
        end -= 1;
    }
    (start, end)
}

fn render(kind: &Kind, bytes: &[u8], differing: Range<usize>) -> Shown {
    match std::str::from_utf8(bytes) {
        Ok(text) if !kind.is_binary() => render_text(kind, text, differing),
        _ => render_binary(bytes, differing),
    }
}

fn render_binary(bytes: &[u8], differing: Range<usize>) -> Shown {
    let (head, middle, tail) = (
        &bytes[..differing.start],
        &bytes[differing.clone()],
        &bytes[differing.end..],
    );
    let skipped = head.len().saturating_sub(CONTEXT);
    let kept = middle.len().min(WINDOW);
    let whole = skipped == 0 && kept == middle.len() && tail.len() <= CONTEXT;
    let tail_kept = if kept == middle.len() {
        tail.len().min(CONTEXT)
    } else {
        0
    };
    let dots = |cut: bool| if cut { "…" } else { "" };
    Shown {
        null: false,
        differs: false,
        head: format!("x'{}{}", dots(skipped > 0), hex(&head[skipped..])),
        middle: format!("{}{}", hex(&middle[..kept]), dots(kept < middle.len())),
        tail: format!(
            "{}{}'",
            hex(&tail[..tail_kept]),
            dots(tail_kept < tail.len())
        ),
        length: (!whole).then(|| number::of(bytes.len() as u64, "byte")),
    }
}

fn render_text(kind: &Kind, text: &str, differing: Range<usize>) -> Shown {
    let quote = if is_bare(kind) { "" } else { "'" };
    let (head, middle, tail) = (
        &text[..differing.start],
        &text[differing.clone()],
        &text[differing.end..],
    );
    let head_from = head
        .char_indices()
        .rev()
        .nth(CONTEXT - 1)
        .map_or(0, |(at, _)| at);
    let middle_to = middle
        .char_indices()
        .nth(WINDOW)
        .map_or(middle.len(), |(at, _)| at);
    let cut = middle_to < middle.len();
    let tail_limit = if cut { 0 } else { CONTEXT };
    let tail_to = tail
        .char_indices()
        .nth(tail_limit)
        .map_or(tail.len(), |(at, _)| at);
    let whole = head_from == 0 && !cut && tail_to == tail.len();

    let spaces = Spaces::of(text, &differing);
    let mut shown = Shown {
        head: quote.to_owned(),
        ..Shown::default()
    };
    if head_from > 0 {
        shown.head.push('…');
    }
    spaces.push(head_from, &head[head_from..], &mut shown.head);
    spaces.push(differing.start, &middle[..middle_to], &mut shown.middle);
    if cut {
        shown.middle.push('…');
    }
    spaces.push(differing.end, &tail[..tail_to], &mut shown.tail);
    if !cut && tail_to < tail.len() {
        shown.tail.push('…');
    }
    shown.tail.push_str(quote);
    if !whole {
        shown.length = Some(number::of(text.chars().count() as u64, "character"));
    }
    shown
}

/// Which spaces of a text must be made visible: those at its ends, and those that make the
/// difference.
struct Spaces {
    leading_to: usize,
    trailing_from: usize,
    blank: Range<usize>,
}

impl Spaces {
    fn of(text: &str, differing: &Range<usize>) -> Spaces {
        let blank = text[differing.clone()].trim_matches(' ').is_empty();
        Spaces {
            leading_to: text.len() - text.trim_start_matches(' ').len(),
            trailing_from: text.trim_end_matches(' ').len(),
            blank: if blank { differing.clone() } else { 0..0 },
        }
    }

    /// Appends a part of the text that begins at byte `from`.
    fn push(&self, from: usize, part: &str, out: &mut String) {
        for (at, character) in part.char_indices() {
            let at = from + at;
            let at_end = at < self.leading_to || at >= self.trailing_from;
            match character {
                ' ' if at_end || self.blank.contains(&at) => out.push('␣'),
                '\0' => out.push_str("⟨NUL⟩"),
                '\t' => out.push_str("⟨TAB⟩"),
                '\n' => out.push_str("⟨LF⟩"),
                '\r' => out.push_str("⟨CR⟩"),
                other if is_invisible(other) => {
                    out.push_str(&format!("⟨U+{:04X}⟩", u32::from(other)));
                }
                other => out.push(other),
            }
        }
    }
}

/// Tells whether a character leaves no ink, or turns the direction of what follows.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || character.is_whitespace() && character != ' '
        || matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Tells whether values of this kind stand without quotes.
fn is_bare(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Integer
            | Kind::Decimal
            | Kind::Float
            | Kind::Double
            | Kind::Year
            | Kind::Bit
            | Kind::Temporal(_)
            | Kind::Vector
    ) || kind.is_numbered()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(kind: &Kind, cell: Option<&str>) -> String {
        shown(kind, cell.map(str::as_bytes)).to_string()
    }

    fn pair(left: &str, right: &str) -> (String, String) {
        let (left, right) = shown_pair(&Kind::Text, Some(left.as_bytes()), Some(right.as_bytes()));
        let parts = |shown: Shown| format!("{}[{}]{}", shown.head, shown.middle, shown.tail);
        (parts(left), parts(right))
    }

    #[test]
    fn what_cannot_be_seen_is_made_visible() {
        assert_eq!(alone(&Kind::Text, None), "NULL");
        assert_eq!(alone(&Kind::Text, Some("")), "''");
        assert_eq!(alone(&Kind::Text, Some("NULL")), "'NULL'");
        assert_eq!(alone(&Kind::Text, Some("  a b ")), "'␣␣a b␣'");
        assert_eq!(
            alone(&Kind::Text, Some("a\n\t\0\u{7f}")),
            "'a⟨LF⟩⟨TAB⟩⟨NUL⟩⟨U+007F⟩'"
        );
        assert_eq!(
            alone(&Kind::Text, Some("a\u{a0}\u{202e}b")),
            "'a⟨U+00A0⟩⟨U+202E⟩b'"
        );
        assert_eq!(alone(&Kind::Integer, Some("42")), "42");
        assert_eq!(alone(&Kind::Vector, Some("[0.10000000149011612]")), "[0.1]");
        let labels = Kind::Enum(vec![String::new()]);
        assert_eq!(alone(&labels, Some("1")), "1 ('')");
        assert_eq!(alone(&labels, Some("0")), "0 (the error value)");
        assert_eq!(
            shown(&Kind::Bytes, Some(b"\x00\xff")).to_string(),
            "x'00ff'"
        );
        assert_eq!(shown(&Kind::Text, Some(b"a\xff")).to_string(), "x'61ff'");
    }

    #[test]
    fn the_part_that_differs_is_set_apart() {
        assert_eq!(
            pair("alice", "alike"),
            ("'ali[c]e'".to_owned(), "'ali[k]e'".to_owned())
        );
        assert_eq!(pair("é", "è"), ("'[é]'".to_owned(), "'[è]'".to_owned()));
        assert_eq!(pair("aa", "a"), ("'a[a]'".to_owned(), "'a[]'".to_owned()));
        assert_eq!(
            pair("a  b", "a b"),
            ("'a [␣]b'".to_owned(), "'a []b'".to_owned())
        );
        assert_eq!(pair("a ", "a"), ("'a[␣]'".to_owned(), "'a[]'".to_owned()));
        let (text, broken) = shown_pair(&Kind::Text, Some("é".as_bytes()), Some(b"\xa9"));
        assert_eq!(
            (text.to_string(), broken.to_string()),
            ("'é'".to_owned(), "x'a9'".to_owned())
        );
    }

    #[test]
    fn a_long_value_is_shown_where_it_differs() {
        let left = format!("{}X{}", "a".repeat(5_000), "b".repeat(5_000));
        let right = left.replace('X', "Y");
        let (left, _) = shown_pair(&Kind::Text, Some(left.as_bytes()), Some(right.as_bytes()));
        let (a, b) = ("a".repeat(CONTEXT), "b".repeat(CONTEXT));
        assert_eq!(left.to_string(), format!("'…{a}X{b}…' (10,001 characters)"));
        let long = vec![7; 1_000];
        let shown = shown(&Kind::Bytes, Some(&long)).to_string();
        assert_eq!(shown, format!("x'{}…' (1,000 bytes)", "07".repeat(WINDOW)));
    }

    #[test]
    fn hard_cases_are_named() {
        let say = |left: Option<&str>, right: Option<&str>| {
            note(
                &Kind::Text,
                left.map(str::as_bytes),
                right.map(str::as_bytes),
            )
        };
        assert_eq!(
            say(Some("a "), Some("a")),
            Some("only in spaces at the ends")
        );
        assert_eq!(
            say(Some("A"), Some("a")),
            Some("only in upper and lower case")
        );
        assert_eq!(say(None, Some("")), Some("NULL against the empty text"));
        assert_eq!(say(Some("a"), Some("b")), None);
    }
}
