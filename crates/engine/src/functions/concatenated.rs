//! `||` over texts, which makes no more at once than a call may.

use datafusion::arrow::compute::kernels::concat_elements::concat_elements_dyn;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::bounded::{Growth, sizes, too_large};
use super::text::is_text;

/// What stands in the place of the operator, which nothing bounds.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Concatenated {
    signature: Signature,
    bytes_max: u64,
}

impl Concatenated {
    /// One call makes at most `bytes_max` out of a batch.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable), bytes_max }
    }
}

impl ScalarUDFImpl for Concatenated {
    fn name(&self) -> &'static str {
        "text_concat"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [one, other] if one == other && is_text(one) => Ok(one.clone()),
            _ => plan_err!("text_concat takes two texts"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_single = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_single { 1 } else { args.number_rows };
        let sizes = sizes(Growth::Sum, &args.args, rows)?;
        if sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(*size)) > self.bytes_max {
            return Err(too_large("||", self.bytes_max));
        }
        let [one, other] = <[ColumnarValue; 2]>::try_from(args.args)
            .or_else(|_| plan_err!("text_concat takes two texts"))?;
        let made = concat_elements_dyn(&one.into_array(rows)?, &other.into_array(rows)?)?;
        if is_single {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?));
        }
        Ok(ColumnarValue::Array(made))
    }
}
