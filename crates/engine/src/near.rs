//! Names that somebody may have meant.

/// The most names that are proposed.
const PROPOSED_MAX: usize = 3;
/// Longer names than this are compared as a whole only.
const COMPARED_BYTES_MAX: usize = 128;

/// The nearest of `known` to `wanted`, best first, quoted where SQL needs it.
/// Nothing that is far.
pub(crate) fn names<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let folded = fold(wanted);
    let far = ((folded.len() + 1) / 3).max(1);
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|name| {
            let distance = distance(&folded, &fold(name), far)?;
            Some((distance, name))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(PROPOSED_MAX);
    found.into_iter().map(|(_, name)| quoted(name)).collect()
}

/// The name as SQL reads it: in quotes where it is not a plain word.
pub(crate) fn quoted(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Without case and without what separates words.
fn fold(name: &str) -> Vec<u8> {
    name.bytes()
        .filter(|byte| !matches!(byte, b'-' | b'_' | b'.' | b' '))
        .map(|byte| byte.to_ascii_lowercase())
        .take(COMPARED_BYTES_MAX)
        .collect()
}

/// How many bytes have to be changed, put in or taken out; none if more than
/// `most`.
fn distance(a: &[u8], b: &[u8], most: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for ((y, above), diagonal) in b.iter().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or(usize::MAX - 1);
            next.push((diagonal + usize::from(x != y)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_proposed_and_far_ones_are_not() {
        let known = ["audit", "audit-log", "orders", "Orders2", "_value", "_key"];
        let check = |wanted: &str, expected: &[&str]| {
            assert_eq!(names(wanted, known), expected, "{wanted}");
        };
        check("audti", &["audit"]);
        check("audit_log", &["\"audit-log\"", "audit"]);
        check("ORDERS", &["orders", "Orders2"]);
        check("value", &["_value"]);
        check("nothing_like_it", &[]);
    }
}
