//! Patterns of LIKE that have an escape of their own.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray as _, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// What the function is called.
pub(crate) const LIKE_PATTERN: &str = "like_pattern";

/// A pattern of LIKE whose escape is a backslash, from one with another escape
/// or, where that is empty, with none.
pub(crate) fn like_pattern(pattern: &str, escape: &str) -> String {
    let escape = escape.chars().next();
    let mut out = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if Some(character) == escape {
            out.push('\\');
            out.extend(characters.next());
        } else if character == '\\' {
            out.push_str("\\\\");
        } else {
            out.push(character);
        }
    }
    out
}

/// `like_pattern(pattern, escape)`.
pub(super) fn function() -> Arc<ScalarUDF> {
    let signature = Signature::string(2, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(LikePattern { signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LikePattern {
    signature: Signature,
}

impl ScalarUDFImpl for LikePattern {
    fn name(&self) -> &'static str {
        LIKE_PATTERN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|of| matches!(of, ColumnarValue::Scalar(_)));
        let texts = ColumnarValue::values_to_arrays(&args.args)?
            .iter()
            .map(|array| Ok(cast(array, &DataType::Utf8)?))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let [patterns, escapes] = texts.as_slice() else {
            return plan_err!("{LIKE_PATTERN} takes a pattern and its escape");
        };
        let rows = patterns.as_string::<i32>().iter().zip(escapes.as_string::<i32>());
        let found: StringArray =
            rows.map(|(pattern, escape)| Some(like_pattern(pattern?, escape?))).collect();
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?),
            false => ColumnarValue::Array(Arc::new(found)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_get_the_escape_that_is_known() {
        let check = |pattern: &str, escape: &str, expected: &str| {
            assert_eq!(like_pattern(pattern, escape), expected);
        };
        check("pg/_%", "/", "pg\\_%");
        check("100//%", "/", "100\\/%");
        check("a\\b%", "/", "a\\\\b%");
        check("a\\_b", "", "a\\\\_b");
        check("end/", "/", "end\\");
    }
}
