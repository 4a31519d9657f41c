//! Statements, and what becomes of them.

use aquifer_query::EngineOptions;
use aquifer_types::StreamName;

use super::*;
use crate::sql::Source;

fn listing() -> Listing {
    Listing {
        tenant: "default".into(),
        streams: vec![StreamName::new("audit").expect("a name")],
        views: Vec::new(),
        system: TABLES.names().map(str::to_owned).collect(),
    }
}

/// `ID` is that of the stream `audit`.
fn check(text: &str, expected: &str) {
    let id = Oids::new(&listing()).of("audit");
    let source = Source::read(text, &EngineOptions::default()).expect("it is read");
    let mut statement = source.parse().expect(text);
    let before = statement.to_string();
    let is_changed = rewrite(&mut statement, &listing()).expect(text);
    assert_eq!(statement.to_string(), expected.replace("ID", &id.to_string()), "{text}");
    assert!(is_changed || statement.to_string() == before, "{text}");
}

#[test]
fn what_is_postgresqls_is_written_in_other_words() {
    check("SELECT verb FROM audit", "SELECT verb FROM audit");
    check("SELECT count(*) FROM audit", "SELECT count(*) FROM audit");
    check("SELECT pg_catalog.version()", "SELECT version() AS \"version\"");
    check("SELECT now(), now()", "SELECT now() AS \"now\", now() AS \"now_2\"");
    check("SELECT now() AS at, 1 + 1", "SELECT now() AS at, 1 + 1");
    check("SELECT 'audit'::regclass", "SELECT ID");
    check("SELECT 'public.audit'::pg_catalog.regclass::oid", "SELECT ID::BIGINT");
    check(
        "SELECT c.oid::pg_catalog.regclass FROM pg_class c",
        "SELECT regclass_name(c.oid) AS \"regclass_name\" FROM pg_class c",
    );
    check(
        "SELECT 1 FROM pg_class c WHERE c.relname OPERATOR(pg_catalog.~) '^(a)$' COLLATE pg_catalog.default",
        "SELECT 1 AS \"?column?\" FROM pg_class c WHERE c.relname ~ '^(a)$'",
    );
    check(
        "SELECT 'a'::pg_catalog.text, b::name FROM audit",
        "SELECT 'a'::TEXT, b::TEXT FROM audit",
    );
    check("SELECT a = ANY('{x, y}') FROM audit", "SELECT a IN ('x', 'y') FROM audit");
    check("SELECT a = ANY(ARRAY['x']) FROM audit", "SELECT a IN ('x') FROM audit");
    check("SELECT a = ANY('{}'), a <> ALL('{ }') FROM audit", "SELECT false, true FROM audit");
    check("SELECT a <> ALL(ARRAY[]) FROM audit", "SELECT true FROM audit");
    check(
        "SELECT n = ANY(current_schemas(false)) FROM audit",
        "SELECT array_has(current_schemas(false), n) FROM audit",
    );
    check(
        "SELECT * FROM generate_series(1, array_upper(current_schemas(false), 1)) AS s(r)",
        "SELECT * FROM generate_series(1, CAST(array_length(current_schemas(false), 1) AS BIGINT)) AS s (r)",
    );
    for kept in [
        "SELECT ARRAY(SELECT verb FROM audit)",
        "SELECT ARRAY(SELECT verb FROM audit UNION SELECT 'x')",
        "SELECT ARRAY(SELECT 1)",
    ] {
        check(kept, kept);
    }
    check("SELECT a <> ALL('{x,y}'::text[]) FROM audit", "SELECT a NOT IN ('x', 'y') FROM audit");
    check(
        r#"SELECT a = ANY('{x, "null", "a \"b\", c" ,NULL}'::text[]) FROM audit"#,
        r#"SELECT a IN ('x', 'null', 'a "b", c', NULL) FROM audit"#,
    );
    check(
        "SELECT ARRAY(SELECT a.verb FROM pg_class c JOIN audit a ON true)",
        "SELECT ARRAY(SELECT a.verb FROM pg_class c JOIN audit a ON true) AS \"array\"",
    );
    check(
        "SELECT ARRAY(SELECT c.relname FROM pg_class c JOIN pg_namespace n ON true) FROM audit",
        "SELECT CAST(NULL AS TEXT[]) FROM audit",
    );
    check("SELECT current_schema", "SELECT current_schema() AS \"current_schema\"");
    check(
        "SELECT i.indexrelid, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON true ORDER BY 1",
        "SELECT CAST(NULL AS TEXT) AS \"indexrelid\", CAST(NULL AS TEXT) AS \"pg_get_indexdef\" WHERE false",
    );
    check(
        "SELECT (SELECT count(1) FROM pg_inherits i WHERE i.inhrelid = c.oid LIMIT 1) AS n FROM pg_class c",
        "SELECT 0 AS \"n\" FROM pg_class c",
    );
    check(
        "SELECT 'x' = ANY(ARRAY(WITH RECURSIVE r AS (SELECT rolname FROM pg_roles) SELECT rolname FROM r)) AS is_one FROM pg_roles",
        "SELECT CAST(NULL AS BOOLEAN) AS \"is_one\" FROM pg_roles",
    );
    check(
        "SELECT relname = ANY(ARRAY(SELECT nspname FROM pg_namespace)) AS is_one FROM pg_class",
        "SELECT relname IN (SELECT nspname FROM pg_namespace) AS \"is_one\" FROM pg_class",
    );
    check("SELECT count(*) FROM pg_index", "SELECT count(*) AS \"count\" FROM pg_index");
    check(
        "SELECT a.attname, (SELECT d.adsrc FROM pg_attrdef d WHERE d.adnum = a.attnum LIMIT 1) FROM pg_attribute a",
        "SELECT a.attname, CAST(NULL AS TEXT) AS \"?column?\" FROM pg_attribute a",
    );
    check(
        "SELECT typname FROM pg_type t WHERE (SELECT c.relkind = 'c' FROM pg_class c WHERE c.oid = t.typrelid)",
        "SELECT typname FROM pg_type t WHERE (SELECT max(c.relkind = 'c') AS \"max\" FROM pg_class c WHERE c.oid = t.typrelid)",
    );
    check(
        "SELECT c.relname FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid",
        "SELECT c.relname FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid",
    );
    check(
        "SELECT c.relname FROM pg_index i RIGHT JOIN pg_class c ON i.indrelid = c.oid",
        "SELECT c.relname FROM pg_index i RIGHT JOIN pg_class c ON i.indrelid = c.oid",
    );
    check(
        "SELECT relname FROM pg_class WHERE EXISTS (SELECT 1 FROM pg_trigger) OR oid IN (SELECT tgrelid FROM pg_trigger)",
        "SELECT relname FROM pg_class WHERE false OR false",
    );
    let mut statement = Source::read("SELECT 'nothing'::regclass", &EngineOptions::default())
        .and_then(|source| source.parse())
        .expect("SQL");
    assert_eq!(rewrite(&mut statement, &listing()).expect_err("unknown").code, "unknown-table");
}

#[test]
fn a_column_of_a_catalog_is_there_once() {
    check(
        "SELECT f.oid, f.* FROM pg_opfamily f ORDER BY f.opfname",
        "SELECT CAST(NULL AS TEXT) AS \"oid\", CAST(NULL AS TEXT) AS \"opfmethod\", \
         CAST(NULL AS TEXT) AS \"opfname\", CAST(NULL AS TEXT) AS \"opfnamespace\", \
         CAST(NULL AS TEXT) AS \"opfowner\" WHERE false",
    );
    check(
        "SELECT n.oid, n.*, d.description FROM pg_namespace n LEFT JOIN pg_description d ON d.objoid = n.oid ORDER BY nspname",
        "SELECT n.oid, n.nspname, n.nspowner, n.nspacl, d.description FROM pg_namespace n LEFT JOIN pg_description d ON d.objoid = n.oid ORDER BY nspname",
    );
    check(
        "SELECT upper(n.nspname) AS nspname, N.* FROM pg_catalog.pg_namespace n",
        "SELECT upper(n.nspname) AS \"nspname\", n.oid, n.nspowner, n.nspacl FROM pg_catalog.pg_namespace n",
    );
    check(
        "SELECT oid, * FROM pg_namespace",
        "SELECT oid, pg_namespace.nspname, pg_namespace.nspowner, pg_namespace.nspacl FROM pg_namespace",
    );
    check(
        "SELECT r.role_name, r.* FROM information_schema.enabled_roles r",
        "SELECT r.role_name FROM information_schema.enabled_roles r",
    );
    for kept in [
        "SELECT n.oid AS id, n.* FROM pg_namespace n",
        "SELECT n.*, upper(n.nspname) AS \"nspname\" FROM pg_namespace n",
        "SELECT a._offset, a.* FROM audit a",
        "SELECT c.oid, n.* FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid",
    ] {
        check(kept, &kept.replace(" AS id,", " AS \"id\","));
    }
}

#[test]
fn nobody_was_granted_anything() {
    check(
        "SELECT relname, (aclexplode(relacl)).grantee AS Who FROM pg_class WHERE relacl IS NOT NULL",
        "SELECT CAST(NULL AS TEXT) AS \"relname\", CAST(NULL AS TEXT) AS \"who\" WHERE false",
    );
    check(
        "SELECT *, (aclexplode(nspacl)).grantee AS who FROM pg_namespace n WHERE n.oid <> 0",
        "SELECT CAST(NULL AS TEXT) AS \"oid\", CAST(NULL AS TEXT) AS \"nspname\", \
         CAST(NULL AS TEXT) AS \"nspowner\", CAST(NULL AS TEXT) AS \"nspacl\", \
         CAST(NULL AS TEXT) AS \"who\" WHERE false",
    );
}

#[test]
fn functions_in_from_are_those_of_postgresql() {
    check(
        "SELECT d FROM generate_series(1, 3) AS d",
        "SELECT d FROM generate_series(1, 3) AS d (d)",
    );
    check(
        "SELECT generate_series FROM generate_series(1, 3)",
        "SELECT generate_series FROM generate_series(1, 3) AS generate_series (generate_series)",
    );
    check(
        "SELECT word AS SELECT FROM pg_catalog.pg_get_keywords() WHERE word <> ALL('{a,b}'::text[])",
        "SELECT word AS \"select\" FROM pg_catalog.pg_get_keywords WHERE word NOT IN ('a', 'b')",
    );
    check(
        "SELECT set_config('bytea_output', 'hex', false) FROM pg_show_all_settings() WHERE name = 'bytea_output'",
        "SELECT set_config('bytea_output', 'hex', false) AS \"set_config\" FROM pg_catalog.pg_settings WHERE name = 'bytea_output'",
    );
}

#[test]
fn text_that_is_no_list_is_refused() {
    for list in ["a,b", "{a", "{{a},{b}}", "{a,}", "{\"a}", "{\"a\"b}"] {
        let sql = format!("SELECT a <> ALL('{list}'::text[]) FROM audit");
        let source = Source::read(&sql, &EngineOptions::default()).expect("it is read");
        let mut statement = source.parse().expect("it is SQL");
        let refusal = rewrite(&mut statement, &listing()).expect_err(list);
        assert_eq!(refusal.sqlstate, "22P02", "{list}: {refusal:?}");
    }
}

#[test]
fn a_query_of_with_is_not_the_catalog_of_its_name() {
    for own in [
        "WITH pg_index AS (SELECT verb FROM audit) SELECT verb FROM pg_index",
        "WITH PG_Locks AS (SELECT verb FROM audit) SELECT (SELECT count(*) FROM pg_locks) AS n",
        "WITH pg_class AS (SELECT verb FROM audit) SELECT ARRAY(SELECT verb FROM pg_class) AS all",
    ] {
        check(own, own);
    }
}

#[test]
fn what_is_empty_has_the_types_of_what_it_is_united_with() {
    check(
        "SELECT n FROM audit UNION ALL SELECT indrelid FROM pg_index",
        "SELECT n FROM audit UNION ALL SELECT NULL AS \"indrelid\" WHERE false",
    );
}

#[test]
fn elements_of_a_list_have_its_type() {
    check(
        "SELECT b = ANY('{t,NULL}'::bool[]), n = ANY('{1.0}'::numeric[]) FROM audit",
        "SELECT b IN (CAST('t' AS BOOL), CAST(NULL AS BOOL)), n IN (CAST('1.0' AS NUMERIC)) FROM audit",
    );
    check(
        "SELECT a = ANY('{7}'::oid[]) FROM audit",
        "SELECT a IN (CAST('7' AS BIGINT)) FROM audit",
    );
}

#[test]
fn no_end_of_columns_is_written_out() {
    let sql = format!("SELECT {} FROM pg_class", vec!["*"; 3000].join(", "));
    check(&sql, &sql);
}
