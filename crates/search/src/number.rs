//! Decimal numbers as JSON has them, compared without losing digits.
//!
//! A number that is written without an exponent has a *canonical* form: no
//! needless zeros, no `-0`. Two such numbers are equal where their forms are.
//! Numbers with an exponent are compared as 64-bit floating-point numbers.

use std::cmp::Ordering;

/// The canonical form of a decimal number without an exponent; nothing for
/// what is none.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let mut form = String::with_capacity(text.len());
    if is_negative && !(whole.is_empty() && fraction.is_empty()) {
        form.push('-');
    }
    form.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        form.push('.');
        form.push_str(fraction);
    }
    Some(form)
}

/// Whether `text` is a number, with or without an exponent.
pub(crate) fn is_number(text: &str) -> bool {
    canonical(text).is_some() || (has_exponent(text) && text.parse::<f64>().is_ok())
}

fn has_exponent(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|first: char| first.is_ascii_digit()) && digits.contains(['e', 'E'])
}

/// Compares two numbers; nothing where one of them is none.
pub(crate) fn compare(left: &str, right: &str) -> Option<Ordering> {
    match (canonical(left), canonical(right)) {
        (Some(left), Some(right)) => Some(compare_canonical(&left, &right)),
        _ if is_number(left) && is_number(right) => {
            left.parse::<f64>().ok()?.partial_cmp(&right.parse::<f64>().ok()?)
        }
        _ => None,
    }
}

fn compare_canonical(left: &str, right: &str) -> Ordering {
    match (left.strip_prefix('-'), right.strip_prefix('-')) {
        (Some(left), Some(right)) => compare_magnitudes(right, left),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => compare_magnitudes(left, right),
    }
}

fn compare_magnitudes(left: &str, right: &str) -> Ordering {
    let (left_whole, left_fraction) = left.split_once('.').unwrap_or((left, ""));
    let (right_whole, right_fraction) = right.split_once('.').unwrap_or((right, ""));
    // Without leading zeros the longer one is the greater; fractions compare
    // like words, since trailing zeros are gone.
    left_whole
        .len()
        .cmp(&right_whole.len())
        .then_with(|| left_whole.cmp(right_whole))
        .then_with(|| left_fraction.cmp(right_fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for (text, form) in [
            ("0", Some("0")),
            ("-0", Some("0")),
            ("-0.0", Some("0")),
            ("007", Some("7")),
            ("500.00", Some("500")),
            ("0.50", Some("0.5")),
            ("-3.140", Some("-3.14")),
            ("123456789012345678901234567890", Some("123456789012345678901234567890")),
            ("", None),
            ("-", None),
            (".5", None),
            ("5.", None),
            ("1e3", None),
            ("1.2.3", None),
            ("0x1", None),
        ] {
            assert_eq!(canonical(text).as_deref(), form, "{text}");
        }
    }

    #[test]
    fn numbers_are_compared_with_all_their_digits() {
        let check = |left: &str, right: &str, order| {
            assert_eq!(compare(left, right), Some(order), "{left} and {right}");
            assert_eq!(compare(right, left), Some(order.reverse()), "{right} and {left}");
        };
        check("9007199254740993", "9007199254740992", Ordering::Greater);
        check("-5", "3", Ordering::Less);
        check("-5", "-4.9", Ordering::Less);
        check("0.25", "0.3", Ordering::Less);
        check("10", "9.99", Ordering::Greater);
        check("1e3", "999", Ordering::Greater);
        check("1e3", "1000", Ordering::Equal);
        for other in ["a", "", "inf", "NaN", "e5", "infinity"] {
            assert_eq!(compare(other, "1"), None, "{other}");
        }
    }
}
