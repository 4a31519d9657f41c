//! SPDX licence expressions, as far as an allow-list needs them.

use std::iter::Peekable;

use anyhow::{Result, bail};

/// Whether `expression` can be satisfied with licences of `allowed` alone.
/// `WITH` binds a licence to its exception; an entry of the list holds both.
/// The old `MIT/Apache-2.0` means `OR`.
pub(crate) fn satisfied(expression: &str, allowed: &[String]) -> Result<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let verdict = alternatives(&mut words, allowed)?;
    match words.next() {
        None => Ok(verdict),
        Some(word) => bail!("`{word}` is not expected in the licence `{expression}`"),
    }
}

fn alternatives<'a>(
    words: &mut Peekable<impl Iterator<Item = &'a str>>,
    allowed: &[String],
) -> Result<bool> {
    let mut verdict = conjunction(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        verdict |= conjunction(words, allowed)?;
    }
    Ok(verdict)
}

fn conjunction<'a>(
    words: &mut Peekable<impl Iterator<Item = &'a str>>,
    allowed: &[String],
) -> Result<bool> {
    let mut verdict = licence(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        verdict &= licence(words, allowed)?;
    }
    Ok(verdict)
}

fn licence<'a>(
    words: &mut Peekable<impl Iterator<Item = &'a str>>,
    allowed: &[String],
) -> Result<bool> {
    match words.next() {
        Some("(") => {
            let verdict = alternatives(words, allowed)?;
            if words.next() != Some(")") {
                bail!("a bracket is not closed");
            }
            Ok(verdict)
        }
        Some(name) if !matches!(name, "OR" | "AND" | "WITH" | ")") => {
            let mut name = name.to_owned();
            if words.next_if_eq(&"WITH").is_some() {
                let Some(exception) = words.next() else { bail!("nothing follows WITH") };
                name = format!("{name} WITH {exception}");
            }
            Ok(allowed.contains(&name))
        }
        other => bail!("a licence is missing before {}", other.unwrap_or("the end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_judged() {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        let check = |expression: &str, expected: bool| {
            assert_eq!(satisfied(expression, &allowed).unwrap(), expected, "{expression}");
        };
        check("MIT", true);
        check("GPL-3.0", false);
        check("GPL-3.0 OR MIT", true);
        check("GPL-3.0/MIT", true);
        check("MIT AND GPL-3.0", false);
        check("MIT AND (GPL-3.0 OR Apache-2.0)", true);
        check("(MIT OR Apache-2.0) AND Unicode-3.0", false);
        check("GPL-3.0 AND MIT OR Apache-2.0", true);
        check("Apache-2.0 WITH LLVM-exception", true);
        check("MIT WITH LLVM-exception", false);
    }

    #[test]
    fn nonsense_is_an_error() {
        for expression in ["", "MIT MIT", "MIT OR", "(MIT", "AND MIT", "MIT WITH"] {
            assert!(satisfied(expression, &[]).is_err(), "{expression}");
        }
    }
}
