//! Lists that something is looked for in, above all those that are written as
//! text: `'{a,b}'::text[]`.

use std::iter::Peekable;
use std::str::Chars;

use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType, Expr, UnaryOperator, Value};

use super::types::{known_type, type_name};
use crate::exprs::{boolean, call, cast_to, literal, null_text, take, text};

/// Whether `left` is among what the list on the right has; none where that is a
/// query, which DataFusion knows.
pub(super) fn member(left: &mut Box<Expr>, right: &mut Box<Expr>, negated: bool) -> Option<Expr> {
    let of = element_type(right);
    let list = unnested(right);
    if matches!(list, Expr::Subquery(_)) {
        return None;
    }
    let elements = match (&*list, literal(list)) {
        (_, Some(text)) => {
            let cast = |element: Expr| match &of {
                Some(of) => cast_to(element, of.clone()),
                None => element,
            };
            Some(elements_of(&text)?.into_iter().map(cast).collect())
        }
        (Expr::Array(array), None) => Some(array.elem.clone()),
        _ => None,
    };
    let left = take(left);
    Some(match elements {
        Some(elements) if elements.is_empty() => boolean(negated),
        Some(elements) => Expr::InList { expr: Box::new(left), list: elements, negated },
        None => {
            let has = call("array_has", vec![std::mem::replace(list, null_text()), left]);
            match negated {
                true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(has) },
                false => has,
            }
        }
    })
}

/// What the elements of text that is cast to an array are cast to.
fn element_type(expr: &Expr) -> Option<DataType> {
    let of = match expr {
        Expr::Nested(inner) => return element_type(inner),
        Expr::Cast {
            data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(of, _)), ..
        } => of,
        _ => return None,
    };
    let of = type_name(of).map_or_else(|| Some(of.as_ref().clone()), |name| known_type(&name));
    // They are text as they are.
    of.filter(|of| !matches!(of, DataType::Text | DataType::Varchar(_)))
}

/// The elements of an array that is written as text; none where it is not one, or
/// has arrays in it.
pub(super) fn elements_of(text: &str) -> Option<Vec<Expr>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let mut rest = inner.chars().peekable();
    let mut elements = Vec::new();
    while rest.peek().is_some() {
        if !elements.is_empty() && rest.next() != Some(',') {
            return None;
        }
        while rest.next_if(|next| next.is_whitespace()).is_some() {}
        elements.push(element(&mut rest)?);
    }
    Some(elements)
}

/// The next element of an array, up to the comma behind it.
fn element(rest: &mut Peekable<Chars<'_>>) -> Option<Expr> {
    let mut word = String::new();
    if rest.next_if_eq(&'"').is_some() {
        loop {
            match rest.next()? {
                '"' => break,
                '\\' => word.push(rest.next()?),
                other => word.push(other),
            }
        }
        while rest.next_if(|next| next.is_whitespace()).is_some() {}
        return Some(text(&word));
    }
    while let Some(next) = rest.next_if(|next| *next != ',') {
        match next {
            '{' | '}' | '"' => return None,
            '\\' => word.push(rest.next()?),
            other => word.push(other),
        }
    }
    match word.trim() {
        "" => None,
        null if null.eq_ignore_ascii_case("null") => Some(Expr::value(Value::Null)),
        word => Some(text(word)),
    }
}

pub(super) fn unnested(expr: &mut Expr) -> &mut Expr {
    // An array that is written as text is one without its cast.
    let is_array = matches!(expr, Expr::Cast { expr: inner, data_type: DataType::Array(_), .. }
        if literal(inner).is_some());
    if !is_array && !matches!(expr, Expr::Nested(_)) {
        return expr;
    }
    match expr {
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => unnested(inner),
        other => other,
    }
}
