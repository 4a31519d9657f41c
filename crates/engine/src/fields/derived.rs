//! A column that one statement adds to a table.
//!
//! It stands for an expression over the table's own columns, and is equal to it
//! in every row. What a field cannot answer to the letter is not derived: a
//! number with a fraction is not kept as it was written, nor is a time.

use std::sync::Arc;

use aquifer_types::{FieldKind, SchemaField};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::functions::core::expr_fn::get_field_path;
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::{Expr, lit, when};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::reassign_expr_columns;

use super::access::{Access, Read, Wanted};
use super::columns::Columns;
use crate::schema::{UNFIT, VALUE};

/// So many digits hold every whole number of 64 bits.
const I64_DIGITS: i16 = 19;

/// A column that stands for an expression.
#[derive(Debug)]
pub(crate) struct Derived {
    field: FieldRef,
    /// The field at the top that it is a part of.
    root: FieldRef,
    /// Over the field; what it stands for wherever everything fits.
    of_field: Expr,
    /// What it stands for, over `_value`; absent where it stands for the field.
    of_value: Option<Expr>,
    /// The field whose least and greatest values are its own, once cast.
    leaf: Option<Leaf>,
}

/// A field within an object.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) path: Vec<String>,
    /// It as a column.
    pub(crate) field: FieldRef,
}

/// How the parts of a scan compute a derived column.
#[derive(Debug, Clone)]
pub(crate) struct Computed {
    /// Where everything fits.
    pub(crate) fitting: Arc<dyn PhysicalExpr>,
    /// Where `_unfit` says whether it does.
    pub(crate) mixed: Arc<dyn PhysicalExpr>,
    /// Where there are only values.
    pub(crate) values: Arc<dyn PhysicalExpr>,
    /// The columns that these are over, in the order of [`Computed::place`].
    place: SchemaRef,
}

impl Derived {
    /// What answers `access` in a table of these columns, if anything does so to
    /// the letter.
    pub(crate) fn new(columns: &Columns, access: &Access) -> Option<Self> {
        let path: Vec<&str> = access.path.iter().map(String::as_str).collect();
        let schema = columns.stream();
        let field = schema.find(&path)?;
        let (_, root) = columns.own().column_with_name(path.first()?)?;
        let leaf = type_at(root.data_type(), path.get(1..)?)?;
        let (read, data_type, is_ordered) = match &access.read {
            Read::Field => {
                // Those at the top are columns already.
                (path.len() > 1 && field.kind.is_scalar()).then_some(())?;
                (over(&path), leaf.clone(), true)
            }
            Read::Json { wanted, .. } => of_json(field, *wanted, over(&path), leaf)?,
            Read::TryCast { data_type, .. } => {
                let read = of_cast(field, data_type, over(&path))?;
                (read, data_type.clone(), keeps_all(leaf, data_type))
            }
        };
        let of_value = match &access.read {
            Read::Field => None,
            Read::Json { call, .. } | Read::TryCast { call, .. } => Some(call.clone()),
        };
        let leaf = (is_ordered && path.len() > 1).then(|| Leaf {
            path: access.path.clone(),
            field: Arc::new(Field::new("leaf", leaf.clone(), true)),
        });
        Some(Self {
            field: Arc::new(Field::new(access.name(), data_type, true)),
            root: Arc::new(root.clone()),
            of_field: read,
            of_value,
            leaf,
        })
    }

    /// What it is called; no other column can be.
    pub(crate) fn name(&self) -> &str {
        self.field.name()
    }

    /// It as a column of the table.
    pub(crate) fn field(&self) -> FieldRef {
        self.field.clone()
    }

    /// The field at the top that it is a part of.
    pub(crate) fn root(&self) -> &str {
        self.root.name()
    }

    /// The field whose least and greatest values, cast to the column's type, are
    /// its own where everything fits.
    pub(crate) fn leaf(&self) -> Option<&Leaf> {
        self.leaf.as_ref()
    }

    /// Whether the field says everything, also where something does not fit.
    pub(crate) fn is_field(&self) -> bool {
        self.of_value.is_none()
    }

    pub(super) fn computed(&self, session: &dyn Session, names: &DFSchema) -> Result<Computed> {
        let physical = |expr: &Expr| session.create_physical_expr(expr.clone(), names);
        let fitting = physical(&self.of_field)?;
        let (mixed, values) = match &self.of_value {
            None => (fitting.clone(), fitting.clone()),
            Some(of_value) => {
                let does_fit = Expr::Column(Column::from_name(UNFIT)).is_null();
                let mixed = when(does_fit, self.of_field.clone()).otherwise(of_value.clone())?;
                (physical(&mixed)?, physical(of_value)?)
            }
        };
        let own = names.as_arrow();
        let place = [VALUE, UNFIT].iter().filter_map(|name| own.field_with_name(name).ok());
        let place = Schema::new(
            std::iter::once(self.root.clone())
                .chain(place.cloned().map(Arc::new))
                .collect::<Vec<_>>(),
        );
        Ok(Computed { fitting, mixed, values, place: Arc::new(place) })
    }
}

impl Computed {
    /// The root, `_value`, `_unfit`: the columns of the tail that
    /// [`Computed::in_tail`] makes it out of.
    pub(crate) fn place(&self) -> &SchemaRef {
        &self.place
    }

    /// For the tail: first where everything fits, second where something does
    /// not, over the columns of [`Computed::place`].
    pub(crate) fn in_tail(&self) -> Result<(Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)> {
        Ok((
            reassign_expr_columns(self.fitting.clone(), &self.place)?,
            reassign_expr_columns(self.mixed.clone(), &self.place)?,
        ))
    }
}

/// The type of what lies at a path below a type.
fn type_at<'a>(data_type: &'a DataType, path: &[&str]) -> Option<&'a DataType> {
    let Some((first, rest)) = path.split_first() else { return Some(data_type) };
    match data_type {
        DataType::Struct(fields) => {
            let field = fields.iter().find(|field| field.name() == first)?;
            type_at(field.data_type(), rest)
        }
        _ => None,
    }
}

/// The field at a path, as an expression.
fn over(path: &[&str]) -> Expr {
    let (first, rest) = path.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
    let root = Expr::Column(Column::from_name(first));
    match rest.is_empty() {
        true => root,
        false => get_field_path(root, rest.iter().map(|name| lit(*name)).collect()),
    }
}

/// Whether every value of one type is one of the other, in the same order.
fn keeps_all(of: &DataType, to: &DataType) -> bool {
    of == to
        || matches!((of, to), (DataType::Int64, DataType::Float64 | DataType::Float32))
        || matches!(
            (of, to),
            (DataType::Int64, DataType::Decimal128(digits, scale))
                if i16::from(*digits) - i16::from(*scale) >= I64_DIGITS
        )
}

/// What a function over JSON gives, out of the field; its type, and whether its
/// values are the field's own in their order.
fn of_json(
    field: &SchemaField,
    wanted: Wanted,
    read: Expr,
    leaf: &DataType,
) -> Option<(Expr, DataType, bool)> {
    let (data_type, is_ordered) = match (wanted, field.kind) {
        (Wanted::Text, FieldKind::Text) => (DataType::Utf8, true),
        (Wanted::AsText, FieldKind::Text) => (DataType::Utf8, true),
        (Wanted::AsText, FieldKind::Boolean | FieldKind::Int64) => (DataType::Utf8, false),
        (Wanted::Whole, FieldKind::Int64) => (DataType::Int64, true),
        // Not of fields with fractions: what reads JSON takes the sign off `-0`.
        (Wanted::Float, FieldKind::Int64) => (DataType::Float64, true),
        (Wanted::Boolean, FieldKind::Boolean) => (DataType::Boolean, true),
        _ => return None,
    };
    let read = match *leaf == data_type {
        true => read,
        false => Expr::Cast(Cast::new(Box::new(read), data_type.clone())),
    };
    Some((read, data_type, is_ordered))
}

/// What a cast of a field's text gives, out of the field, where there is no need
/// to go through the text.
fn of_cast(field: &SchemaField, data_type: &DataType, read: Expr) -> Option<Expr> {
    let is_exact = match field.kind {
        FieldKind::Int64 => matches!(
            data_type,
            DataType::Int8
                | DataType::Int16
                | DataType::Int32
                | DataType::Int64
                | DataType::Float32
                | DataType::Float64
                | DataType::Decimal128(..)
        ),
        FieldKind::Float64 => *data_type == DataType::Float64,
        _ => false,
    };
    is_exact.then(|| Expr::TryCast(TryCast::new(Box::new(read), data_type.clone())))
}

/// The text of a literal.
pub(super) fn literal_text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => text(value),
        _ => None,
    }
}

fn text(value: &ScalarValue) -> Option<String> {
    value.try_as_str().flatten().map(str::to_owned)
}
