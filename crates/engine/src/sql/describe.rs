//! The schema `information_schema`: streams, views and their columns, as tables.
//!
//! The tables are filled when a statement names one of them. Types are given in
//! SQL's words.

use std::sync::Arc;

use aquifer_query::wire::Refusal;
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::MemorySchemaProvider;
use datafusion::catalog::{CatalogProvider, MemTable, SchemaProvider, TableProvider};
use datafusion::common::Result;

use super::names::{INFORMATION, PUBLIC};
use super::session::Session;
use super::types::sql_type;
use crate::refusal::internal;

/// A stream or view as it is described.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    /// Its name.
    pub(crate) name: String,
    /// Its columns.
    pub(crate) columns: SchemaRef,
    /// The SQL of a view.
    pub(crate) sql: Option<String>,
}

/// The names of its tables and of their columns.
pub(crate) const NAMES: [&str; 18] = [
    "tables",
    "views",
    "columns",
    "schemata",
    "table_catalog",
    "table_schema",
    "table_name",
    "table_type",
    "view_definition",
    "catalog_name",
    "schema_name",
    "schema_owner",
    "column_name",
    "ordinal_position",
    "column_default",
    "is_nullable",
    "data_type",
    "udt_name",
];

/// Registers the schema in `session`, with `all` that there is.
pub(crate) fn register(
    session: &Session,
    tenant: &str,
    all: &[Described],
) -> std::result::Result<(), Refusal> {
    fill(session, tenant, all).map_err(|error| internal(error.to_string()))
}

fn fill(session: &Session, tenant: &str, all: &[Described]) -> Result<()> {
    let schema = MemorySchemaProvider::new();
    let add = |name: &str, columns: Vec<(&str, ArrayRef)>| -> Result<()> {
        schema.register_table(name.to_owned(), table(columns)?)?;
        Ok(())
    };
    let count = all.len();
    let same = |value: &str, count: usize| text(std::iter::repeat_n(value, count));
    add(
        "tables",
        vec![
            ("table_catalog", same(tenant, count)),
            ("table_schema", same(PUBLIC, count)),
            ("table_name", text(all.iter().map(|one| one.name.as_str()))),
            (
                "table_type",
                text(all.iter().map(|one| if one.sql.is_some() { "VIEW" } else { "BASE TABLE" })),
            ),
        ],
    )?;
    let views: Vec<_> = all.iter().filter(|one| one.sql.is_some()).collect();
    add(
        "views",
        vec![
            ("table_catalog", same(tenant, views.len())),
            ("table_schema", same(PUBLIC, views.len())),
            ("table_name", text(views.iter().map(|one| one.name.as_str()))),
            ("view_definition", text(views.iter().map(|one| one.sql.as_deref().unwrap_or("")))),
        ],
    )?;
    add(
        "schemata",
        vec![
            ("catalog_name", same(tenant, 2)),
            ("schema_name", text([PUBLIC, INFORMATION])),
            ("schema_owner", same(tenant, 2)),
        ],
    )?;
    let columns: Vec<_> = all
        .iter()
        .flat_map(|one| {
            let fields = one.columns.fields().iter().zip(1_i64..);
            fields.map(move |(field, at)| (one.name.as_str(), at, field))
        })
        .collect();
    let types: Vec<String> =
        columns.iter().map(|(_, _, field)| sql_type(field.data_type())).collect();
    add(
        "columns",
        vec![
            ("table_catalog", same(tenant, columns.len())),
            ("table_schema", same(PUBLIC, columns.len())),
            ("table_name", text(columns.iter().map(|(name, _, _)| *name))),
            ("column_name", text(columns.iter().map(|(_, _, field)| field.name().as_str()))),
            (
                "ordinal_position",
                Arc::new(columns.iter().map(|(_, at, _)| Some(*at)).collect::<Int64Array>()),
            ),
            ("column_default", Arc::new(StringArray::new_null(columns.len()))),
            (
                "is_nullable",
                text(
                    columns
                        .iter()
                        .map(|(_, _, field)| if field.is_nullable() { "YES" } else { "NO" }),
                ),
            ),
            ("data_type", text(types.iter().map(String::as_str))),
            ("udt_name", text(types.iter().map(String::as_str))),
        ],
    )?;
    session.catalog.register_schema(INFORMATION, Arc::new(schema))?;
    Ok(())
}

fn text<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn table(columns: Vec<(&str, ArrayRef)>) -> Result<Arc<dyn TableProvider>> {
    let batch = RecordBatch::try_from_iter(columns)?;
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
}
