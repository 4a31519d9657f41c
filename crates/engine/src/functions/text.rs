//! Bytes as text: the function `text`, and functions over text that take bytes.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, GenericBinaryArray, GenericStringArray, GenericStringBuilder,
    OffsetSizeTrait, StringViewBuilder,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};

use super::bounded::{self, Growth, growth_of};

/// Whether values of this type are bytes.
pub(crate) fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
    )
}

/// Whether values of this type are text.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The type that [`text`] makes of `data_type`; the same where it is not bytes.
pub(crate) fn as_text(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Binary | DataType::FixedSizeBinary(_) => DataType::Utf8,
        DataType::LargeBinary => DataType::LargeUtf8,
        DataType::BinaryView => DataType::Utf8View,
        other => other.clone(),
    }
}

/// The function `text`: bytes as text, null where they are not UTF-8.
pub(crate) fn text() -> Arc<ScalarUDF> {
    static TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        Arc::new(ScalarUDF::new_from_impl(Text {
            signature: Signature::any(1, Volatility::Immutable),
        }))
    });
    TEXT.clone()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Text {
    signature: Signature,
}

impl ScalarUDFImpl for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [of] if is_bytes(of) || is_text(of) => Ok(as_text(of)),
            [DataType::Null] => Ok(DataType::Utf8),
            _ => plan_err!("text takes bytes or text; CAST makes text of other types"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let is_scalar = matches!(args.args.first(), Some(ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(array) = arrays.first() else { return plan_err!("text takes one value") };
        let found = text_of(array)?;
        if is_scalar {
            let value = datafusion::common::ScalarValue::try_from_array(&found, 0)?;
            return Ok(ColumnarValue::Scalar(value));
        }
        debug_assert_eq!(found.len(), rows, "a value a row");
        Ok(ColumnarValue::Array(found))
    }
}

/// The bytes of `array` as text; what is not UTF-8 is null.
fn text_of(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Binary => Ok(text_of_offsets::<i32>(array.as_binary())),
        DataType::LargeBinary => Ok(text_of_offsets::<i64>(array.as_binary())),
        DataType::BinaryView => {
            let bytes = array.as_binary_view();
            if let Ok(text) = bytes.clone().to_string_view() {
                return Ok(Arc::new(text));
            }
            let mut text = StringViewBuilder::with_capacity(bytes.len());
            for value in bytes {
                text.append_option(value.and_then(|value| std::str::from_utf8(value).ok()));
            }
            Ok(Arc::new(text.finish()))
        }
        DataType::FixedSizeBinary(_) => text_of(&cast(array, &DataType::Binary)?),
        DataType::Null => Ok(cast(array, &DataType::Utf8)?),
        _ => Ok(Arc::clone(array)),
    }
}

fn text_of_offsets<O: OffsetSizeTrait>(bytes: &GenericBinaryArray<O>) -> ArrayRef {
    // A slice shares its parent's buffer, which would be checked as a whole.
    let covers_all = bytes.value_offsets().first().is_some_and(|first| first.as_usize() == 0)
        && bytes
            .value_offsets()
            .last()
            .is_some_and(|end| end.as_usize() == bytes.value_data().len());
    if covers_all && let Ok(text) = GenericStringArray::<O>::try_from_binary(bytes.clone()) {
        return Arc::new(text);
    }
    let mut text = GenericStringBuilder::<O>::with_capacity(bytes.len(), 0);
    for value in bytes {
        text.append_option(value.and_then(|value| std::str::from_utf8(value).ok()));
    }
    Arc::new(text.finish())
}

/// `function`, over bytes too, as if they were text. Where its result grows out
/// of proportion, a call makes at most `bytes_max` out of a batch.
pub(crate) fn of_bytes(function: Arc<ScalarUDF>, bytes_max: u64) -> ScalarUDF {
    let volatility = function.signature().volatility;
    ScalarUDF::new_from_impl(OfBytes {
        growth: growth_of(function.name()),
        function,
        bytes_max,
        beside_text: false,
        signature: Signature::user_defined(volatility),
    })
}

/// `function`, over values of one type: bytes that stand beside text are taken
/// for text, bytes among themselves stay bytes.
pub(crate) fn of_bytes_beside_text(function: Arc<ScalarUDF>) -> ScalarUDF {
    let volatility = function.signature().volatility;
    ScalarUDF::new_from_impl(OfBytes {
        growth: None,
        function,
        bytes_max: u64::MAX,
        beside_text: true,
        signature: Signature::user_defined(volatility),
    })
}

/// A function over text. Type coercion brings its arguments to the types that
/// the function within wants; the casts from bytes that this inserts are turned
/// into calls of [`text`] by [`super::BytesAsText`].
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfBytes {
    function: Arc<ScalarUDF>,
    growth: Option<Growth>,
    bytes_max: u64,
    /// Whether bytes are text only where there is text among the arguments.
    beside_text: bool,
    signature: Signature,
}

impl OfBytes {
    /// The types that the function within is given for these.
    fn taken(&self, types: &[DataType]) -> Vec<DataType> {
        if self.beside_text && !types.iter().any(is_text) {
            return types.to_vec();
        }
        types.iter().map(as_text).collect()
    }
}

impl ScalarUDFImpl for OfBytes {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.function.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let fields: Vec<FieldRef> = self
            .taken(types)
            .into_iter()
            .map(|of| Arc::new(Field::new("value", of, true)))
            .collect();
        let coerced = fields_with_udf(&fields, self.function.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(&self.taken(types))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> =
            args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let fields: Vec<FieldRef> = args
            .arg_fields
            .iter()
            .zip(self.taken(&types))
            .map(|(field, of)| Arc::new(field.as_ref().clone().with_data_type(of)))
            .collect();
        self.function.return_field_from_args(ReturnFieldArgs {
            arg_fields: &fields,
            scalar_arguments: args.scalar_arguments,
        })
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let function = self.function.inner().with_updated_config(config)?;
        Some(of_bytes(Arc::new(function), self.bytes_max))
    }

    fn is_strict(&self) -> bool {
        self.function.inner().is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.growth {
            Some(growth) => bounded::invoke(&self.function, growth, args, self.bytes_max),
            None => self.function.invoke_with_args(args),
        }
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.function.simplify(args, info)
    }

    fn short_circuits(&self) -> bool {
        self.function.short_circuits()
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.function.inner().conditional_arguments(args)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.function.evaluate_bounds(input)
    }

    fn propagate_constraints(
        &self,
        interval: &Interval,
        inputs: &[&Interval],
    ) -> Result<Option<Vec<Interval>>> {
        self.function.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.function.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.function.preserves_lex_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{BinaryArray, BinaryViewArray, StringArray, StringViewArray};

    use super::*;

    #[test]
    fn bytes_become_text_and_null_where_they_are_none() {
        let given: Vec<Option<&[u8]>> =
            vec![Some(b"a"), None, Some(b"\xff\x00"), Some("ä".as_bytes()), Some(b"")];
        let text = vec![Some("a"), None, None, Some("ä"), Some("")];
        let array: ArrayRef = Arc::new(BinaryArray::from(given.clone()));
        assert_eq!(text_of(&array).unwrap().as_ref(), &StringArray::from(text.clone()));
        assert_eq!(
            text_of(&array.slice(3, 2)).unwrap().as_ref(),
            &StringArray::from(vec!["ä", ""])
        );
        let array: ArrayRef = Arc::new(BinaryViewArray::from(given));
        assert_eq!(text_of(&array).unwrap().as_ref(), &StringViewArray::from(text));
    }
}
