//! What the scan of chunks reads in the place of a derived column, or of a field
//! that a chunk has no column of.
//!
//! It stands between the scan and DataFusion's own adapter, which fills in the
//! columns that came later than a chunk, within objects as well.

use std::collections::HashMap;
use std::sync::Arc;

use aquifer_types::StreamSchema;
use arrow_schema::{FieldRef, SchemaRef};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};

use super::columns::{Columns, Part};
use super::derived::Computed;
use super::shred::{FieldOfValue, Values};
use crate::schema::VALUE;

/// Makes an adapter for each chunk of one part of a scan.
#[derive(Debug)]
pub(crate) struct Adapters {
    /// What derived columns are, over the table's own.
    derived: HashMap<String, Arc<dyn PhysicalExpr>>,
    /// The fields that are made out of values, and of what schema.
    shredded: Option<(StreamSchema, Vec<FieldRef>)>,
}

impl Adapters {
    /// For the chunks of `part`, of which the columns of `projection` are read.
    pub(crate) fn new(
        columns: &Columns,
        computed: &[Computed],
        part: Part,
        projection: &[usize],
    ) -> Arc<Self> {
        let names = columns.derived().iter().map(|derived| derived.name().to_owned());
        let derived = names.zip(computed).map(|(name, computed)| {
            let expr = match part {
                Part::Fitting => &computed.fitting,
                Part::Mixed => &computed.mixed,
                Part::Values => &computed.values,
            };
            (name, expr.clone())
        });
        let shredded = (part == Part::Values).then(|| {
            let roots = columns.roots(projection);
            let fields = columns.own().fields().iter();
            let fields = fields.filter(|field| roots.contains(field.name())).cloned();
            (columns.narrowed(&roots), fields.collect())
        });
        Arc::new(Self { derived: derived.collect(), shredded })
    }
}

impl PhysicalExprAdapterFactory for Adapters {
    fn create(
        &self,
        logical: SchemaRef,
        physical: SchemaRef,
    ) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let value = Column::new_with_schema(VALUE, &logical)?;
        let shredded = self.shredded.as_ref().map(|(schema, fields)| {
            let values = Values::new(schema);
            let field = |field: &FieldRef| -> (String, Arc<dyn PhysicalExpr>) {
                let value: Arc<dyn PhysicalExpr> = Arc::new(value.clone());
                let (field, values) = (field.clone(), values.clone());
                (field.name().clone(), Arc::new(FieldOfValue { field, value, values }))
            };
            fields.iter().map(field).collect()
        });
        Ok(Arc::new(Adapter {
            derived: self.derived.clone(),
            shredded: shredded.unwrap_or_default(),
            below: DefaultPhysicalExprAdapterFactory.create(logical, physical)?,
        }))
    }
}

#[derive(Debug)]
struct Adapter {
    derived: HashMap<String, Arc<dyn PhysicalExpr>>,
    shredded: HashMap<String, Arc<dyn PhysicalExpr>>,
    below: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for Adapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let expr = replaced(expr, &self.derived)?;
        let expr = replaced(expr, &self.shredded)?;
        self.below.rewrite(expr)
    }
}

/// The expression with columns of these names replaced, and what replaces them
/// left as it is.
fn replaced(
    expr: Arc<dyn PhysicalExpr>,
    by_name: &HashMap<String, Arc<dyn PhysicalExpr>>,
) -> Result<Arc<dyn PhysicalExpr>> {
    if by_name.is_empty() {
        return Ok(expr);
    }
    let changed = expr.transform_down(|expr| {
        let column = expr.downcast_ref::<Column>();
        Ok(match column.and_then(|column| by_name.get(column.name())) {
            Some(other) => Transformed::new(other.clone(), true, TreeNodeRecursion::Jump),
            None => Transformed::no(expr),
        })
    })?;
    Ok(changed.data)
}
