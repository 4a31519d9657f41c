//! Where operators and casts are given their meaning for bytes and JSON.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, TableReference};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::expr::{Alias, Cast, Like, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::{FunctionRewrite, NamePreserver};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::sqlparser::ast::BinaryOperator;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF};
use datafusion::optimizer::AnalyzerRule;

use super::concatenated::Concatenated;
use super::json;
use super::text::{is_bytes, is_text, of_bytes, text};

/// Numbers in JSON are compared with this many digits; those before the point
/// are enough for every bigint and its square root's fractions.
const DECIMAL_DIGITS: u8 = 38;
const DECIMAL_SCALE: i8 = 9;

/// Plans operators: those of JSON, and those over text where bytes are given;
/// and fields of structs, which are called as they are written. It has to be
/// asked before DataFusion's own planners.
#[derive(Debug)]
pub(crate) struct Operators {
    /// One call makes at most so many bytes out of a batch.
    pub(crate) bytes_max: u64,
}

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        if let Some((function, sign)) = json::of_operator(&op) {
            let name = format!("{} {sign} {}", title(&left), title(&right));
            let call = json::walk(function, in_text(left, schema), right);
            return Ok(PlannerResult::Planned(Expr::Alias(Alias::new(call, None::<&str>, name))));
        }
        let expr = if is_over_text(&op) {
            RawBinaryExpr { op, left: in_text(left, schema), right: in_text(right, schema) }
        } else if is_comparison(&op) {
            let (left, right) = comparable(left, right, schema);
            RawBinaryExpr { op, left, right }
        } else {
            RawBinaryExpr { op, left, right }
        };
        Ok(PlannerResult::Original(expr))
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(over_text(datafusion::functions::unicode::substr(), args, self.bytes_max))
    }

    fn plan_position(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(over_text(datafusion::functions::unicode::strpos(), args, self.bytes_max))
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(over_text(datafusion::functions::core::overlay(), args, self.bytes_max))
    }

    fn plan_compound_identifier(
        &self,
        field: &Field,
        qualifier: Option<&TableReference>,
        nested: &[String],
    ) -> Result<PlannerResult<Vec<Expr>>> {
        let column = Column::new(qualifier.cloned(), field.name());
        let name = [std::slice::from_ref(field.name()), nested].concat().join(".");
        let read =
            nested.iter().fold(Expr::Column(column), |of, part| get_field(of, part.as_str()));
        Ok(PlannerResult::Planned(Expr::Alias(Alias::new(read, None::<&str>, name))))
    }
}

/// A call of a function that SQL has words of its own for.
fn over_text(
    function: Arc<ScalarUDF>,
    args: Vec<Expr>,
    bytes_max: u64,
) -> PlannerResult<Vec<Expr>> {
    let func = Arc::new(of_bytes(function, bytes_max));
    PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction { func, args }))
}

/// What a column is called that nobody gave a name.
fn title(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => column.name.clone(),
        Expr::Alias(alias) => alias.name.clone(),
        Expr::Literal(value, _) => match value.try_as_str() {
            Some(Some(text)) => format!("'{text}'"),
            _ => value.to_string(),
        },
        Expr::ScalarFunction(call) if call.func.name() == "text" => {
            call.args.first().map_or_else(String::new, title)
        }
        other => other.to_string(),
    }
}

fn is_over_text(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::StringConcat
            | BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch
            | BinaryOperator::PGLikeMatch
            | BinaryOperator::PGILikeMatch
            | BinaryOperator::PGNotLikeMatch
            | BinaryOperator::PGNotILikeMatch
    )
}

fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

/// A field of JSON that is compared with a number is compared as one, and is
/// null where it is none: one record with a word in that place fails nothing.
fn comparable(left: Expr, right: Expr, schema: &DFSchema) -> (Expr, Expr) {
    let number = |read: &Expr, other: &Expr| {
        let of = other.get_type(schema).ok().filter(DataType::is_numeric)?;
        json::is_read(read).then(|| as_number(read.clone(), &of))
    };
    match (number(&left, &right), number(&right, &left)) {
        (Some(left), _) => (left, right),
        (None, Some(right)) => (left, right),
        (None, None) => (left, right),
    }
}

fn as_number(read: Expr, compared_with: &DataType) -> Expr {
    let of = if compared_with.is_floating() {
        DataType::Float64
    } else {
        DataType::Decimal128(DECIMAL_DIGITS, DECIMAL_SCALE)
    };
    Expr::TryCast(TryCast::new(Box::new(read), of))
}

/// `expr` as text where it is bytes.
fn in_text(expr: Expr, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        Ok(of) if is_bytes(&of) => call_text(expr),
        _ => expr,
    }
}

fn call_text(expr: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction { func: text(), args: vec![expr] })
}

/// Before types are coerced: LIKE over bytes is over text, and a cast of a JSON
/// field reads the wanted type out of the JSON.
#[derive(Debug)]
pub(super) struct TypedJson;

impl FunctionRewrite for TypedJson {
    fn name(&self) -> &'static str {
        "typed_json"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        let like = |like: Like| Like {
            expr: Box::new(in_text(*like.expr, schema)),
            pattern: Box::new(in_text(*like.pattern, schema)),
            ..like
        };
        match expr {
            Expr::Like(of) => Ok(Transformed::yes(Expr::Like(like(of)))),
            Expr::SimilarTo(of) => Ok(Transformed::yes(Expr::SimilarTo(like(of)))),
            Expr::Cast(Cast { expr, field }) => match typed(&expr, field.data_type()) {
                Some(read) => {
                    Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(read), field })))
                }
                None => Ok(Transformed::no(Expr::Cast(Cast { expr, field }))),
            },
            Expr::TryCast(TryCast { expr, field }) => match typed(&expr, field.data_type()) {
                Some(read) => {
                    Ok(Transformed::yes(Expr::TryCast(TryCast { expr: Box::new(read), field })))
                }
                None => Ok(Transformed::no(Expr::TryCast(TryCast { expr, field }))),
            },
            other => Ok(Transformed::no(other)),
        }
    }
}

/// What reads `wanted` in the place of the call of `->` that `expr` is.
fn typed(expr: &Expr, wanted: &DataType) -> Option<Expr> {
    let get = json::as_get(expr)?;
    let func = json::reader_of(wanted)?;
    Some(Expr::ScalarFunction(ScalarFunction { func, args: get.args.clone() }))
}

/// After types were coerced: every cast from bytes goes through text, so that
/// bytes that are not UTF-8 are null in the place of an error. And `||` over
/// texts becomes a call that is bounded.
#[derive(Debug)]
pub(crate) struct BytesAsText {
    concatenated: Arc<ScalarUDF>,
}

impl BytesAsText {
    /// One `||` makes at most `bytes_max` out of a batch.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { concatenated: Arc::new(ScalarUDF::new_from_impl(Concatenated::new(bytes_max))) }
    }

    fn bounded(&self, expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
        let type_of = |expr: &Expr| expr.get_type(schema).ok().filter(is_text);
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right })
                if type_of(&left).is_some() && type_of(&left) == type_of(&right) =>
            {
                let func = Arc::clone(&self.concatenated);
                let args = vec![*left, *right];
                Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
            }
            other => Transformed::no(other),
        }
    }
}

impl AnalyzerRule for BytesAsText {
    fn name(&self) -> &'static str {
        "bytes_as_text"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let mut schema = merge_schema(&plan.inputs());
            if let LogicalPlan::TableScan(scan) = &plan {
                schema.merge(&DFSchema::try_from_qualified_schema(
                    scan.table_name.clone(),
                    &scan.source.schema(),
                )?);
            }
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let changed = expr.transform_up(|expr| {
                    through_text(expr, &schema)
                        .transform_data(|expr| Ok(self.bounded(expr, &schema)))
                })?;
                Ok(changed.update_data(|expr| name.restore(expr)))
            })?
            .map_data(LogicalPlan::recompute_schema)
        })
        .map(|changed| changed.data)
    }
}

fn through_text(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is_due = |expr: &Expr, wanted: &DataType| {
        !is_bytes(wanted) && expr.get_type(schema).is_ok_and(|of| is_bytes(&of))
    };
    match expr {
        Expr::Cast(Cast { expr, field }) if is_due(&expr, field.data_type()) => {
            Transformed::yes(Expr::Cast(Cast { expr: Box::new(call_text(*expr)), field }))
        }
        Expr::TryCast(TryCast { expr, field }) if is_due(&expr, field.data_type()) => {
            Transformed::yes(Expr::TryCast(TryCast { expr: Box::new(call_text(*expr)), field }))
        }
        other => Transformed::no(other),
    }
}
