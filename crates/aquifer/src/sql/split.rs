//! Where one statement ends and the next begins.

/// The statements of a text, without the semicolons between them and without
/// those that are empty.
pub(super) fn statements(text: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (statement, behind) = match end(rest) {
            Some(end) => (rest.get(..end), rest.get(end + 1..)),
            None => (Some(rest), None),
        };
        statements.extend(statement.map(str::trim).filter(|statement| !is_empty(statement)));
        rest = behind.unwrap_or_default();
    }
    statements
}

/// Whether the text ends behind a semicolon that ends a statement.
pub(super) fn is_complete(text: &str) -> bool {
    let mut rest = text;
    loop {
        match end(rest) {
            Some(end) => {
                rest = rest.get(end + 1..).unwrap_or_default();
                if is_empty(rest) {
                    return true;
                }
            }
            None => return false,
        }
    }
}

/// The first semicolon that is not in a string, a quoted name or a comment.
fn end(text: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some(skipped) = quoted(rest) {
            at += skipped;
        } else if rest.starts_with(';') {
            return Some(at);
        } else {
            at += word(rest).max(rest.chars().next().map_or(1, char::len_utf8));
        }
    }
    None
}

/// The length of a word that `text` begins with, in which neither an `E` nor a
/// `$` begins a string.
fn word(text: &str) -> usize {
    let is_number = text.starts_with(|first: char| first.is_ascii_digit());
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || (c == '$' && !is_number);
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

/// Whether nothing but space and comments is there.
fn is_empty(text: &str) -> bool {
    let mut rest = text.trim_start();
    while let Some(length) = comment(rest) {
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    rest.is_empty()
}

/// The length of a string, quoted name or comment that `text` begins with; up
/// to the end where it is left open.
fn quoted(text: &str) -> Option<usize> {
    let until = |open: usize, close: &str| {
        let body = text.get(open..).unwrap_or_default();
        body.find(close).map_or(text.len(), |end| open + end + close.len())
    };
    match text.as_bytes() {
        // A doubled quote ends one string and begins the next.
        [b'\'', ..] => Some(until(1, "'")),
        [b'"', ..] => Some(until(1, "\"")),
        [b'e' | b'E', b'\'', ..] => Some(escaped(text)),
        [b'$', ..] => {
            let tag = text.get(1..)?.find('$')? + 2;
            let is_tag = |tag: &str| {
                let name = tag.trim_matches('$');
                !name.starts_with(|first: char| first.is_ascii_digit())
                    && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
            };
            let tag = text.get(..tag).filter(|tag| is_tag(tag))?;
            Some(until(tag.len(), tag))
        }
        _ => comment(text),
    }
}

/// The length of `E'…'`, in which a backslash takes away the meaning of what
/// follows it.
fn escaped(text: &str) -> usize {
    let mut at = "E'".len();
    while let Some(rest) = text.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
        match rest {
            [b'\\', ..] | [b'\'', b'\'', ..] => at += 2,
            [b'\'', ..] => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn comment(text: &str) -> Option<usize> {
    if text.starts_with("--") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    // They nest.
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
    Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_their_semicolons() {
        let check =
            |text: &str, expected: &[&str]| assert_eq!(statements(text), expected, "{text}");
        check("select 1", &["select 1"]);
        check("select 1;", &["select 1"]);
        check(" select 1 ;; select ';' ; \n", &["select 1", "select ';'"]);
        check("select 'it''s;', \"a;b\"; x", &["select 'it''s;', \"a;b\"", "x"]);
        check("select 1 -- not; here\n, 2; y", &["select 1 -- not; here\n, 2", "y"]);
        check("/* a; /* b; */ c; */ z;", &["/* a; /* b; */ c; */ z"]);
        check("select $$a;b$$, $t$c;$$;$t$; w", &["select $$a;b$$, $t$c;$$;$t$", "w"]);
        check("select $1; select $2", &["select $1", "select $2"]);
        check("select 'ä;ö'; ü", &["select 'ä;ö'", "ü"]);
        check(r"SELECT E'it\'s; x'; y", &[r"SELECT E'it\'s; x'", "y"]);
        check(r"select e'a''\';b\\'; y", &[r"select e'a''\';b\\'", "y"]);
        check(r"select nice'\'; y", &[r"select nice'\'", "y"]);
        check("select a$$; b$$", &["select a$$", "b$$"]);
        check(r"select E'open;\", &[r"select E'open;\"]);
        check("-- nothing", &[]);
        check("", &[]);
        check("select 'open; ", &["select 'open;"]);
    }

    #[test]
    fn a_statement_is_complete_behind_its_semicolon() {
        let check = |text: &str, expected: bool| assert_eq!(is_complete(text), expected, "{text}");
        check("select 1;", true);
        check("select 1; -- that is it\n", true);
        check("select 1", false);
        check("select ';", false);
        check("select 1; select 2", false);
        check("/* ; ", false);
        check("", false);
    }

    #[test]
    fn fuzz_sql_split() {
        let seeds = [b"select 'a;''b', E'\\';', $x$;$x$, \"c\" /* ; /* */ */ -- ;\n; y".to_vec()];
        aquifer_testkit::fuzz("sql_split", 0.2, &seeds, |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            let found: usize = statements(text).iter().map(|statement| statement.len()).sum();
            assert!(found <= text.len());
            let _ = is_complete(text);
        });
    }
}
