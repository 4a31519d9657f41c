//! Ends joins that never pause.
//!
//! A join without equalities tries all pairs of rows, and where its condition
//! holds for almost none of them it gives nothing for minutes: it is not asked
//! between two rows, and dropping it waits for its thread. So its condition
//! looks whether its question was given up, each time that it is asked.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aquifer_types::ErrorKind;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::joins::utils::JoinFilter;

use crate::refusal::{external, refusal};

/// Whether a question was given up. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    /// Nobody waits for the answer any more.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        if !self.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Nobody reads it.
        let message = "the question was given up";
        Err(external(refusal(ErrorKind::Unavailable, "query-cancelled", "57014", message)))
    }
}

/// The plan, with joins that end when `given_up` is set.
pub(crate) fn interruptible(
    plan: Arc<dyn ExecutionPlan>,
    given_up: &GivenUp,
) -> Result<Arc<dyn ExecutionPlan>> {
    let changed = plan.transform_up(|plan| {
        let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() else {
            return Ok(Transformed::no(plan));
        };
        let Some(filter) = join.filter() else { return Ok(Transformed::no(plan)) };
        let condition = Watched { inner: filter.expression().clone(), given_up: given_up.clone() };
        let indices = filter.column_indices().to_vec();
        let filter = JoinFilter::new(Arc::new(condition), indices, filter.schema().clone());
        let join = NestedLoopJoinExec::try_new(
            join.left().clone(),
            join.right().clone(),
            Some(filter),
            join.join_type(),
            join.projection().as_ref().map(|columns| columns.to_vec()),
        )?;
        Ok(Transformed::yes(Arc::new(join) as _))
    })?;
    Ok(changed.data)
}

/// A condition that fails when its question was given up.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn PhysicalExpr>,
    given_up: GivenUp,
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner) && Arc::ptr_eq(&self.given_up.0, &other.given_up.0)
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for Watched {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.given_up.check()?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let Ok([inner]) = <[Arc<dyn PhysicalExpr>; 1]>::try_from(children) else {
            return internal_err!("a condition that is watched is one");
        };
        Ok(Arc::new(Self { inner, given_up: self.given_up.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
