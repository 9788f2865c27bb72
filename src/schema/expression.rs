//! Expressions as the two servers print them.

/// A piece of an expression.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    /// A word, a number or a quoted identifier; in lower case, except that numbers stay.
    Word(String),
    /// A string, without its quotes and escapes.
    Text(String),
    /// Any other character, or two that belong together.
    Symbol(String),
}

/// Returns an expression that TiDB printed in a form that OceanBase reads: strings that name a
/// charset which the target may lack are marked as what every session of rowproof sends.
pub fn for_target(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let piece = match first {
            '\'' | '"' | '`' => &rest[..quoted_len(rest, first)],
            _ if is_word(first) => word(rest),
            _ => &rest[..first.len_utf8()],
        };
        rest = &rest[piece.len()..];
        out.push_str(match is_introducer(piece, rest) {
            true => "_utf8mb4",
            false => piece,
        });
    }
    out
}

/// Returns the columns that an expression names: TiDB quotes each of them.
pub fn named_columns(expression: &str) -> Vec<String> {
    let mut columns = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '\'' | '"' | '`' => quoted_len(rest, first),
            _ => first.len_utf8(),
        };
        columns.extend(within(&rest[..len], '`').map(|name| name.replace("``", "`")));
        rest = &rest[len..];
    }
    columns
}

/// Returns the names of the functions that an expression calls, in lower case.
pub fn called_functions(expression: &str) -> Vec<String> {
    let tokens = tokens(expression);
    let calls = tokens.windows(2).filter_map(|pair| match pair {
        [Token::Word(word), Token::Symbol(symbol)] if symbol == "(" => Some(word.clone()),
        _ => None,
    });
    calls.collect()
}

/// Tells whether two expressions are surely the same: the same words, strings and signs, whatever
/// their case, spaces, quotes, charsets of strings, and the parentheses around the whole.
pub fn same_expression(one: &str, other: &str) -> bool {
    bare(&tokens(one)) == bare(&tokens(other))
}

/// Takes away parentheses that enclose everything.
fn bare(tokens: &[Token]) -> &[Token] {
    let is = |token: &Token, text: &str| matches!(token, Token::Symbol(symbol) if symbol == text);
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
        return tokens;
    };
    if tokens.len() < 2 || !is(first, "(") || !is(last, ")") {
        return tokens;
    }
    let mut depth = 0;
    for token in &tokens[..tokens.len() - 1] {
        depth += i32::from(is(token, "(")) - i32::from(is(token, ")"));
        if depth == 0 {
            return tokens;
        }
    }
    bare(&tokens[1..tokens.len() - 1])
}

/// Returns the items of a list of constants as OceanBase prints them: texts as they are between
/// quotes, and no spaces. A row of constants in parentheses is one item.
pub fn constants_as_printed(list: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut depth = 0;
    for token in tokens(list) {
        let piece = match token {
            Token::Text(text) => format!("'{text}'"),
            Token::Word(word) => word.to_uppercase(),
            Token::Symbol(symbol) => symbol,
        };
        depth += i32::from(piece == "(") - i32::from(piece == ")");
        if piece == "," && depth == 0 {
            items.push(String::new());
        } else if let Some(item) = items.last_mut() {
            item.push_str(&piece);
        }
    }
    items
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '\'' | '"' | '`' => quoted_len(rest, first),
            _ if is_word(first) => word(rest).len(),
            _ if ["!=", "<>", "<=", ">=", "->"]
                .iter()
                .any(|two| rest.starts_with(two)) =>
            {
                2
            }
            _ => first.len_utf8(),
        };
        let (piece, after) = rest.split_at(len);
        rest = after;
        match first {
            '\'' | '"' => tokens.push(Token::Text(unquoted(piece, first))),
            '`' => tokens.push(Token::Word(unquoted(piece, first).to_lowercase())),
            _ if first.is_whitespace() || is_introducer(piece, after) => {}
            _ if is_word(first) => tokens.push(Token::Word(piece.to_lowercase())),
            _ if piece == "!=" => tokens.push(Token::Symbol("<>".to_owned())),
            _ => tokens.push(Token::Symbol(piece.to_owned())),
        }
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || c == '@'
}

fn word(text: &str) -> &str {
    text.split(|c| !is_word(c)).next().unwrap_or_default()
}

/// Tells whether a word names the charset of the string right behind it. That of binary strings
/// matters and stays.
fn is_introducer(word: &str, rest: &str) -> bool {
    rest.starts_with('\'') && word.starts_with('_') && !word.eq_ignore_ascii_case("_binary")
}

/// Returns the length of the quoted text at the beginning, its quotes included. A quote is doubled
/// or, in strings, escaped by a backslash.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if c == '\\' && quote != '`' {
            characters.next();
        } else if c == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => {
                    characters.next();
                }
                _ => return at + c.len_utf8(),
            }
        }
    }
    text.len()
}

/// Returns what stands between the quotes of a piece; none if it is not quoted, or not to its end.
fn within(piece: &str, quote: char) -> Option<&str> {
    piece.strip_prefix(quote)?.strip_suffix(quote)
}

fn unquoted(piece: &str, quote: char) -> String {
    let inner = within(piece, quote).unwrap_or(piece);
    let mut out = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' if quote != '`' => out.extend(characters.next().map(unescaped)),
            c if c == quote => out.extend(characters.next()),
            other => out.push(other),
        }
    }
    out
}

fn unescaped(code: char) -> char {
    match code {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        'Z' => '\u{1a}',
        'b' => '\u{8}',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_charsets_before_strings_are_changed() {
        assert_eq!(
            for_target("concat(`_utf8`, _utf8'a\\'_utf8''b', _gbk'x', _binary'y', _utf8)"),
            "concat(`_utf8`, _utf8mb4'a\\'_utf8''b', _utf8mb4'x', _binary'y', _utf8)"
        );
    }

    #[test]
    fn what_prints_differently_and_is_the_same_is_the_same() {
        for (tidb, oceanbase) in [
            ("(`c` != _utf8mb4'a''b')", "(`c` <> 'a\\'b')"),
            ("lower(`v`)", "LOWER(`v`)"),
            ("concat(`v`, _utf8mb4'-''x')", "concat(`v`,'-\\'x')"),
            ("`a` + 1", "(`a` + 1)"),
            ("TO_DAYS(`d`)", "to_days(d)"),
        ] {
            assert!(same_expression(tidb, oceanbase), "{tidb} {oceanbase}");
        }
    }

    #[test]
    fn what_may_differ_is_not_called_the_same() {
        for (one, other) in [
            ("(`a` + 1) * 2", "`a` + 1 * 2"),
            ("(`a`) or (`b`)", "`a`) or (`b`"),
            ("`c` = 'a'", "`c` = 'A'"),
            ("`c` = 'a'", "`c` = a"),
            ("`a` - 1", "`a` + 1"),
            ("_binary'a'", "'a'"),
        ] {
            assert!(!same_expression(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_quote_that_stays_open_names_nothing() {
        for open in ["`", "`é", "a + `b", "'é", "'", "\""] {
            assert!(named_columns(open).is_empty(), "{open}");
            assert!(same_expression(open, open), "{open}");
        }
        assert!(!same_expression("'é", "'"));
    }

    #[test]
    fn columns_and_functions_are_found() {
        let expression = "if(`a``b` > 1, lower(`v`), '`x`')";
        assert_eq!(named_columns(expression), ["a`b", "v"]);
        assert_eq!(called_functions(expression), ["if", "lower"]);
    }
}
