//! The schema `information_schema` as PostgreSQL has it.
//!
//! Other doors are told of streams and views in a few small tables. What speaks
//! with PostgreSQL reads the columns that the SQL standard names and types in
//! PostgreSQL's words, and asks for keys, privileges and routines too: of most
//! there is nothing, and such a table has no rows.

use std::sync::Arc;

use aquifer_query::PostgresSession;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::Result;

use super::names::{type_id, type_name, type_words};
use super::tables::{Values, columns_of, register_schema};
use crate::sql::{Described, INFORMATION, Listing, PG_CATALOG, PUBLIC, Session};

/// Every table with its columns, written as those of `pg_catalog`.
const COLUMNS: &[(&str, &str)] = &[
    ("applicable_roles", "grantee:t role_name:t is_grantable:t"),
    (
        "character_sets",
        "character_set_catalog:t character_set_schema:t character_set_name:t \
         character_repertoire:t form_of_use:t default_collate_catalog:t default_collate_schema:t \
         default_collate_name:t",
    ),
    (
        "check_constraints",
        "constraint_catalog:t constraint_schema:t constraint_name:t check_clause:t",
    ),
    (
        "column_privileges",
        "grantor:t grantee:t table_catalog:t table_schema:t=public table_name:t column_name:t \
         privilege_type:t=SELECT is_grantable:t=NO",
    ),
    (
        "columns",
        "table_catalog:t table_schema:t=public table_name:t column_name:t ordinal_position:4 \
         column_default:t is_nullable:t data_type:t character_maximum_length:4 \
         character_octet_length:4 numeric_precision:4 numeric_precision_radix:4 numeric_scale:4 \
         datetime_precision:4 interval_type:t interval_precision:4 character_set_catalog:t \
         character_set_schema:t character_set_name:t collation_catalog:t collation_schema:t \
         collation_name:t domain_catalog:t domain_schema:t domain_name:t udt_catalog:t \
         udt_schema:t=pg_catalog udt_name:t scope_catalog:t scope_schema:t scope_name:t \
         maximum_cardinality:4 dtd_identifier:t is_self_referencing:t=NO is_identity:t=NO \
         identity_generation:t identity_start:t identity_increment:t identity_maximum:t \
         identity_minimum:t identity_cycle:t=NO is_generated:t=NEVER generation_expression:t \
         is_updatable:t=NO",
    ),
    (
        "constraint_column_usage",
        "table_catalog:t table_schema:t table_name:t column_name:t constraint_catalog:t \
         constraint_schema:t constraint_name:t",
    ),
    (
        "constraint_table_usage",
        "table_catalog:t table_schema:t table_name:t constraint_catalog:t constraint_schema:t \
         constraint_name:t",
    ),
    (
        "domains",
        "domain_catalog:t domain_schema:t domain_name:t data_type:t domain_default:t \
         udt_catalog:t udt_schema:t udt_name:t",
    ),
    (
        "element_types",
        "object_catalog:t object_schema:t object_name:t object_type:t \
         collection_type_identifier:t data_type:t udt_catalog:t udt_schema:t udt_name:t",
    ),
    ("enabled_roles", "role_name:t"),
    (
        "foreign_tables",
        "foreign_table_catalog:t foreign_table_schema:t foreign_table_name:t \
         foreign_server_catalog:t foreign_server_name:t",
    ),
    ("information_schema_catalog_name", "catalog_name:t"),
    (
        "key_column_usage",
        "constraint_catalog:t constraint_schema:t constraint_name:t table_catalog:t \
         table_schema:t table_name:t column_name:t ordinal_position:4 \
         position_in_unique_constraint:4",
    ),
    (
        "parameters",
        "specific_catalog:t specific_schema:t specific_name:t ordinal_position:4 \
         parameter_mode:t is_result:t as_locator:t parameter_name:t data_type:t udt_catalog:t \
         udt_schema:t udt_name:t parameter_default:t",
    ),
    (
        "referential_constraints",
        "constraint_catalog:t constraint_schema:t constraint_name:t \
         unique_constraint_catalog:t unique_constraint_schema:t unique_constraint_name:t \
         match_option:t update_rule:t delete_rule:t",
    ),
    ("role_table_grants", TABLE_PRIVILEGES),
    (
        "routine_privileges",
        "grantor:t grantee:t specific_catalog:t specific_schema:t specific_name:t \
         routine_catalog:t routine_schema:t routine_name:t privilege_type:t is_grantable:t",
    ),
    (
        "routines",
        "specific_catalog:t specific_schema:t specific_name:t routine_catalog:t \
         routine_schema:t routine_name:t routine_type:t data_type:t type_udt_catalog:t \
         type_udt_schema:t type_udt_name:t routine_body:t routine_definition:t \
         external_language:t is_deterministic:t security_type:t",
    ),
    (
        "schemata",
        "catalog_name:t schema_name:t schema_owner:t default_character_set_catalog:t \
         default_character_set_schema:t default_character_set_name:t sql_path:t",
    ),
    (
        "sequences",
        "sequence_catalog:t sequence_schema:t sequence_name:t data_type:t numeric_precision:4 \
         start_value:t minimum_value:t maximum_value:t increment:t cycle_option:t",
    ),
    (
        "table_constraints",
        "constraint_catalog:t constraint_schema:t constraint_name:t table_catalog:t \
         table_schema:t table_name:t constraint_type:t is_deferrable:t initially_deferred:t \
         enforced:t",
    ),
    ("table_privileges", TABLE_PRIVILEGES),
    (
        "tables",
        "table_catalog:t table_schema:t=public table_name:t table_type:t \
         self_referencing_column_name:t reference_generation:t user_defined_type_catalog:t \
         user_defined_type_schema:t user_defined_type_name:t is_insertable_into:t=NO \
         is_typed:t=NO commit_action:t",
    ),
    (
        "triggers",
        "trigger_catalog:t trigger_schema:t trigger_name:t event_manipulation:t \
         event_object_catalog:t event_object_schema:t event_object_table:t action_order:4 \
         action_condition:t action_statement:t action_orientation:t action_timing:t",
    ),
    (
        "usage_privileges",
        "grantor:t grantee:t object_catalog:t object_schema:t object_name:t object_type:t \
         privilege_type:t is_grantable:t",
    ),
    (
        "user_defined_types",
        "user_defined_type_catalog:t user_defined_type_schema:t user_defined_type_name:t \
         user_defined_type_category:t",
    ),
    (
        "view_column_usage",
        "view_catalog:t view_schema:t view_name:t table_catalog:t table_schema:t table_name:t \
         column_name:t",
    ),
    (
        "view_table_usage",
        "view_catalog:t view_schema:t view_name:t table_catalog:t table_schema:t table_name:t",
    ),
    (
        "views",
        "table_catalog:t table_schema:t=public table_name:t view_definition:t \
         check_option:t=NONE is_updatable:t=NO is_insertable_into:t=NO is_trigger_updatable:t=NO \
         is_trigger_deletable:t=NO is_trigger_insertable_into:t=NO",
    ),
];

const TABLE_PRIVILEGES: &str = "grantor:t grantee:t table_catalog:t table_schema:t=public \
                                table_name:t privilege_type:t=SELECT is_grantable:t=NO \
                                with_hierarchy:t=NO";

/// The columns of a table; none where there is none of that name.
pub(super) fn columns(table: &str) -> Option<Vec<&'static str>> {
    COLUMNS.iter().find(|(name, _)| *name == table).map(|(_, spec)| columns_of(spec).collect())
}

/// Registers all tables; the names of tables and columns.
pub(super) fn register(
    session: &Session,
    postgres: &PostgresSession,
    listing: &Listing,
    all: &[Described],
) -> Result<Vec<String>> {
    register_schema(session, INFORMATION, COLUMNS, |table| rows(table, postgres, listing, all))
}

fn rows(
    table: &str,
    postgres: &PostgresSession,
    listing: &Listing,
    all: &[Described],
) -> Vec<Values> {
    let (tenant, user) = (listing.tenant.as_str(), postgres.user.as_str());
    match table {
        "character_sets" => vec![vec![
            ("character_set_name", "UTF8".into()),
            ("character_repertoire", "UCS".into()),
            ("form_of_use", "UTF8".into()),
            ("default_collate_catalog", tenant.into()),
            ("default_collate_schema", "pg_catalog".into()),
            ("default_collate_name", "C".into()),
        ]],
        "columns" => all.iter().flat_map(|of| columns_in(of, tenant)).collect(),
        "enabled_roles" => vec![vec![("role_name", user.into())]],
        "information_schema_catalog_name" => vec![vec![("catalog_name", tenant.into())]],
        "role_table_grants" | "table_privileges" => {
            let privilege = |of: &Described| {
                vec![
                    ("grantor", user.into()),
                    ("grantee", user.into()),
                    ("table_catalog", tenant.into()),
                    ("table_name", of.name.as_str().into()),
                ]
            };
            all.iter().map(privilege).collect()
        }
        "schemata" => [PUBLIC, INFORMATION, PG_CATALOG]
            .map(|name| {
                vec![
                    ("catalog_name", tenant.into()),
                    ("schema_name", name.into()),
                    ("schema_owner", user.into()),
                ]
            })
            .to_vec(),
        "tables" => all.iter().map(|of| table_row(of, tenant)).collect(),
        "views" => all.iter().filter_map(|of| view_row(of, tenant)).collect(),
        _ => Vec::new(),
    }
}

fn table_row(of: &Described, tenant: &str) -> Values {
    vec![
        ("table_catalog", tenant.into()),
        ("table_name", of.name.as_str().into()),
        ("table_type", if of.sql.is_some() { "VIEW" } else { "BASE TABLE" }.into()),
    ]
}

fn view_row(of: &Described, tenant: &str) -> Option<Values> {
    Some(vec![
        ("table_catalog", tenant.into()),
        ("table_name", of.name.as_str().into()),
        ("view_definition", of.sql.as_deref()?.into()),
    ])
}

fn columns_in(of: &Described, tenant: &str) -> Vec<Values> {
    let column = |(field, number): (&Arc<Field>, i64)| {
        let id = type_id(field.data_type());
        let mut row: Values = vec![
            ("table_catalog", tenant.into()),
            ("table_name", of.name.as_str().into()),
            ("column_name", field.name().as_str().into()),
            ("ordinal_position", number.into()),
            ("is_nullable", if field.is_nullable() { "YES" } else { "NO" }.into()),
            ("data_type", type_words(id).as_str().into()),
            ("udt_catalog", tenant.into()),
            ("udt_name", type_name(id).into()),
            ("dtd_identifier", number.to_string().as_str().into()),
        ];
        row.extend(sizes(field.data_type(), id));
        row
    };
    of.columns.fields().iter().zip(1..).map(column).collect()
}

/// How many digits and bytes values of a type have, where that is said of it.
fn sizes(data_type: &DataType, id: i64) -> Values {
    let number = |precision: i64, radix: i64, scale: Option<i64>| {
        let mut sizes: Values = vec![
            ("numeric_precision", precision.into()),
            ("numeric_precision_radix", radix.into()),
        ];
        if let Some(scale) = scale {
            sizes.push(("numeric_scale", scale.into()));
        }
        sizes
    };
    match (data_type, id) {
        (DataType::UInt64, _) => number(20, 10, Some(0)),
        (
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale),
            _,
        ) => number((*precision).into(), 10, Some((*scale).into())),
        (_, 21) => number(16, 2, Some(0)),
        (_, 23) => number(32, 2, Some(0)),
        (_, 20) => number(64, 2, Some(0)),
        (_, 700) => number(24, 2, None),
        (_, 701) => number(53, 2, None),
        (_, 25) => vec![("character_octet_length", 1_073_741_824.into())],
        (_, 1082) => vec![("datetime_precision", 0.into())],
        (_, 1083 | 1114 | 1184 | 1186) => vec![("datetime_precision", 6.into())],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use datafusion::arrow::array::{AsArray as _, RecordBatch};
    use datafusion::arrow::datatypes::{Int32Type, Schema, TimeUnit};

    use super::super::tables::batch;
    use super::*;

    fn table(name: &str) -> RecordBatch {
        let postgres =
            PostgresSession { user: "alice".to_owned(), process: 7, settings: BTreeMap::new() };
        let listing = Listing { tenant: "default".to_owned(), ..Listing::default() };
        let columns = Arc::new(Schema::new(vec![
            Field::new("_offset", DataType::Int64, false),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("price", DataType::Decimal128(12, 2), true),
            Field::new("tags", DataType::new_list(DataType::Utf8, true), true),
        ]));
        let all = [
            Described { name: "audit".to_owned(), columns: Arc::clone(&columns), sql: None },
            Described { name: "recent".to_owned(), columns, sql: Some("SELECT 1".to_owned()) },
        ];
        let (_, spec) = COLUMNS.iter().find(|(of, _)| *of == name).expect(name);
        batch(spec, &rows(name, &postgres, &listing, &all)).expect(name)
    }

    #[test]
    fn every_table_can_be_made() {
        assert!(COLUMNS.is_sorted_by_key(|(name, _)| *name));
        for (name, spec) in COLUMNS {
            assert_eq!(table(name).num_columns(), columns_of(spec).count(), "{name}");
        }
        assert_eq!(columns("enabled_roles"), Some(vec!["role_name"]));
        assert_eq!(columns("nothing"), None);
    }

    #[test]
    fn columns_are_told_in_postgresqls_words() {
        let found = table("columns");
        let texts = |column: &str| {
            let column = found.column_by_name(column).expect(column).as_string::<i32>();
            column.iter().take(4).map(|text| text.unwrap_or("-").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found.num_rows(), 8);
        assert_eq!(texts("column_name"), ["_offset", "at", "price", "tags"]);
        assert_eq!(texts("is_nullable"), ["NO", "YES", "YES", "YES"]);
        assert_eq!(
            texts("data_type"),
            ["bigint", "timestamp without time zone", "numeric", "json"]
        );
        assert_eq!(texts("udt_name"), ["int8", "timestamp", "numeric", "json"]);
        let numbers = |column: &str| {
            let column = found.column_by_name(column).expect(column).as_primitive::<Int32Type>();
            column.iter().take(4).collect::<Vec<_>>()
        };
        assert_eq!(numbers("ordinal_position"), [Some(1), Some(2), Some(3), Some(4)]);
        assert_eq!(numbers("numeric_precision"), [Some(64), None, Some(12), None]);
        assert_eq!(numbers("numeric_scale"), [Some(0), None, Some(2), None]);
        assert_eq!(numbers("datetime_precision"), [None, Some(6), None, None]);
    }

    #[test]
    fn what_there_is_nothing_of_has_no_rows() {
        let rows = |name| table(name).num_rows();
        assert_eq!((rows("tables"), rows("views"), rows("table_privileges")), (2, 1, 2));
        assert_eq!((rows("table_constraints"), rows("key_column_usage")), (0, 0));
        assert_eq!((rows("routines"), rows("routine_privileges")), (0, 0));
    }
}
