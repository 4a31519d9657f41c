//! `max_by(value, order)` and `min_by(value, order)`: the value where the order
//! is greatest or least. Rows whose order is null do not count; of equal ones
//! any may win.

use std::cmp::Ordering;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::{SortOptions, sort_to_indices};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

/// Both.
pub(super) fn functions() -> Vec<AggregateUDF> {
    [("max_by", Ordering::Greater), ("min_by", Ordering::Less)]
        .into_iter()
        .map(|(name, wanted)| {
            AggregateUDF::new_from_impl(ValueBy {
                name,
                wanted,
                signature: Signature::any(2, Volatility::Immutable),
            })
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ValueBy {
    name: &'static str,
    /// How a better order compares with the best so far.
    wanted: Ordering,
    signature: Signature,
}

impl AggregateUDFImpl for ValueBy {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [value, order] if !order.is_nested() => Ok(value.clone()),
            _ => plan_err!(
                "{} takes a value and what it is ordered by, no list or struct",
                self.name
            ),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let Some(order) = args.input_fields.get(1) else {
            return plan_err!("{} takes two arguments", self.name);
        };
        let field = |name: &str, of: &DataType| {
            FieldRef::new(Field::new(format_state_name(args.name, name), of.clone(), true))
        };
        Ok(vec![field("value", args.return_type()), field("order", order.data_type())])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let Some(order) = args.expr_fields.get(1) else {
            return plan_err!("{} takes two arguments", self.name);
        };
        Ok(Box::new(Best {
            wanted: self.wanted,
            value: ScalarValue::try_from(args.return_field.data_type())?,
            order: ScalarValue::try_from(order.data_type())?,
        }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The best so far; its order is null as long as there is none.
#[derive(Debug)]
struct Best {
    wanted: Ordering,
    value: ScalarValue,
    order: ScalarValue,
}

impl Best {
    fn take(&mut self, values: &ArrayRef, orders: &ArrayRef) -> Result<()> {
        if orders.null_count() == orders.len() {
            return Ok(());
        }
        let descending = self.wanted == Ordering::Greater;
        let options = SortOptions { descending, nulls_first: false };
        let best = sort_to_indices(orders, Some(options), Some(1))?;
        let Some(at) = best.values().first().map(|at| *at as usize) else { return Ok(()) };
        let order = ScalarValue::try_from_array(orders, at)?;
        let is_better = self.order.is_null()
            || order.partial_cmp(&self.order).is_some_and(|found| found == self.wanted);
        if is_better {
            self.value = ScalarValue::try_from_array(values, at)?.compacted();
            self.order = order.compacted();
        }
        Ok(())
    }
}

impl Accumulator for Best {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values {
            [values, orders] => self.take(values, orders),
            _ => plan_err!("two columns are due"),
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), self.order.clone()])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size() + self.order.size() - 2 * size_of::<ScalarValue>()
    }
}
