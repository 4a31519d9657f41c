//! Single statements: what they answer, and how they are refused.

use aquifer_query::{AnswerForm, Limits, Parameter, SqlQuestion};

use super::{Fixture, question};

/// Rows in lines, or a refusal's SQLSTATE, code and a part of its message.
type Expected<'a> = Result<&'a [&'a str], (&'a str, &'a str, &'a str)>;

async fn check(fixture: &Fixture, sql: &str, parameters: Vec<Parameter>, expected: Expected<'_>) {
    let found = fixture.ask_with(sql, parameters).await;
    match (found, expected) {
        (Ok(found), Ok(lines)) => {
            let text = found.text();
            assert_eq!(text.lines().collect::<Vec<_>>(), lines, "{sql}");
            assert_eq!(found.rows, lines.len() as u64, "{sql}");
        }
        (Err(refusal), Err((sqlstate, code, message))) => {
            assert_eq!(
                (refusal.sqlstate.as_str(), refusal.code.as_str()),
                (sqlstate, code),
                "{sql}: {refusal:?}"
            );
            assert!(refusal.message.contains(message), "{sql}: {}", refusal.message);
            for leak in ["Utf8", "Int64", ".rs:", ".parquet", "backtrace", "DataFusion"] {
                assert!(!refusal.message.contains(leak), "{sql}: {}", refusal.message);
            }
        }
        (found, expected) => panic!("{sql}:\n{found:?}\n{expected:?}"),
    }
}

async fn check_all(cases: &[(&str, Expected<'_>)]) {
    let fixture = Fixture::new();
    for (sql, expected) in cases {
        check(&fixture, sql, Vec::new(), *expected).await;
    }
}

#[tokio::test]
async fn rows_are_answered() {
    check_all(&[
        ("SELECT 1 AS one, 'x' AS x, NULL AS n", Ok(&[r#"{"one":1,"x":"x","n":null}"#])),
        ("VALUES (1), (2)", Ok(&[r#"{"column1":1}"#, r#"{"column1":2}"#])),
        ("SELECT count(*) AS c FROM events", Ok(&[r#"{"c":8}"#])),
        ("SELECT count(*) AS c, count(_value) AS v FROM EVENTS", Ok(&[r#"{"c":8,"v":7}"#])),
        (
            "WITH events AS (SELECT _offset FROM events WHERE _offset < 2) SELECT * FROM events ORDER BY 1",
            Ok(&[r#"{"_offset":0}"#, r#"{"_offset":1}"#]),
        ),
        (
            "SELECT _offset FROM events WHERE _offset < 1 UNION ALL SELECT 7 ORDER BY 1",
            Ok(&[r#"{"_offset":0}"#, r#"{"_offset":7}"#]),
        ),
        (
            "SELECT _timestamp, _partition, _key FROM events WHERE _offset = 0",
            Ok(&[r#"{"_timestamp":"2023-11-14T22:13:20Z","_partition":0,"_key":"even"}"#]),
        ),
        (
            "SELECT count(*) c FROM events WHERE _timestamp >= '2023-11-14T22:13:22Z'",
            Ok(&[r#"{"c":6}"#]),
        ),
        (
            "SELECT count(*) c FROM events WHERE _timestamp BETWEEN '2023-11-14T22:13:21Z' AND '2023-11-14 22:13:22'",
            Ok(&[r#"{"c":2}"#]),
        ),
        ("SELECT count(*) c FROM events WHERE _timestamp < now() - interval '1 day'", Ok(&[r#"{"c":8}"#])),
        (
            "SELECT date_trunc('minute', _timestamp) AS m, count(*) c FROM events GROUP BY 1",
            Ok(&[r#"{"m":"2023-11-14T22:13:00Z","c":8}"#]),
        ),
        ("SELECT max_by(_offset, _timestamp) AS newest, min_by(_offset, _timestamp) AS oldest FROM events", Ok(&[r#"{"newest":7,"oldest":0}"#])),
        ("SELECT _partition, max_by(_key, _offset) k FROM events WHERE _offset < 3 GROUP BY 1", Ok(&[r#"{"_partition":0,"k":"even"}"#])),
        ("SELECT max_by(n, CASE WHEN n > 10 THEN NULL ELSE n END) m FROM many", Ok(&[r#"{"m":10}"#])),
        (
            "SELECT u.city, o.\"Verb\" FROM \"shop.orders-eu\" o JOIN users u ON o.user.username = u.name ORDER BY 1",
            Ok(&[r#"{"city":"Bern","Verb":"get"}"#, r#"{"city":"Ulm","Verb":"delete"}"#]),
        ),
        (
            "SELECT _offset, row_number() OVER (ORDER BY _offset DESC) AS r FROM events ORDER BY _offset LIMIT 1",
            Ok(&[r#"{"_offset":0,"r":8}"#]),
        ),
        ("SELECT unnest([1, 2]) AS x", Ok(&[r#"{"x":1}"#, r#"{"x":2}"#])),
        ("SELECT value FROM generate_series(1, 2)", Ok(&[r#"{"value":1}"#, r#"{"value":2}"#])),
        ("SELECT _offset FROM events WHERE false", Ok(&[])),
    ])
    .await;
}

#[tokio::test]
async fn names_are_found_as_people_write_them() {
    let names: Expected<'_> = Ok(&[r#"{"username":"ann"}"#]);
    let where_one = "WHERE amount = 10";
    let from =
        |column: &str, table: &str| format!("SELECT {column} AS username FROM {table} {where_one}");
    let fixture = Fixture::new();
    for (column, table) in [
        ("user.username", "\"shop.orders-eu\""),
        ("USER.Username", "\"shop.orders-eu\""),
        ("o.user.username", "\"shop.orders-eu\" o"),
        ("user['username']", "\"shop.orders-eu\""),
        ("\"user\".username", "public.\"shop.orders-eu\""),
        ("user.username", "default.\"SHOP.orders-EU\""),
        ("user.username", "default.public.\"shop.orders-eu\""),
        ("\"shop.orders-eu\".user.username", "shop.\"orders-eu\""),
    ] {
        check(&fixture, &from(column, table), Vec::new(), names).await;
    }
    check_all(&[
        ("SELECT verb, count(*) AS Total FROM \"shop.orders-eu\" GROUP BY VERB ORDER BY total DESC", Ok(&[r#"{"Verb":"delete","Total":2}"#, r#"{"Verb":"get","Total":1}"#])),
        ("SELECT user.id FROM \"shop.orders-eu\" WHERE user.ID = 2", Ok(&[r#"{"user.Id":2}"#])),
        ("SELECT user FROM \"shop.orders-eu\" WHERE Amount = 10", Ok(&[r#"{"user":{"username":"ann","Id":1}}"#])),
        ("SELECT order AS o, count(order) AS c FROM \"shop.orders-eu\" WHERE order <> 'x' GROUP BY order ORDER BY order", Ok(&[r#"{"o":"y","c":1}"#, r#"{"o":"z","c":1}"#])),
        ("SELECT t.order FROM \"shop.orders-eu\" t WHERE amount IS NULL", Ok(&[r#"{"order":"y"}"#])),
        ("SELECT user.username, count(*) AS c FROM \"shop.orders-eu\" WHERE verb = 'delete' GROUP BY 1 ORDER BY 1", Ok(&[r#"{"user.username":"ann","c":1}"#, r#"{"user.username":null,"c":1}"#])),
        ("SELECT city FROM Users WHERE NAME = 'ann'", Ok(&[r#"{"city":"Ulm"}"#])),
        ("SELECT city FROM users WHERE name = 'ann'", Ok(&[r#"{"city":"Ulm"}"#])),
        ("SELECT default.users.city FROM default.users WHERE public.users.name = 'eve'", Ok(&[r#"{"city":"Graz"}"#])),
        ("SELECT default.users.city FROM default.users WHERE name = 'eve'", Ok(&[r#"{"city":"Graz"}"#])),
        ("SELECT count(*) c FROM \"EVENTS\"", Ok(&[r#"{"c":8}"#])),
        ("SELECT * FROM evnts", Err(("42P01", "unknown-table", "near it: events"))),
        ("SELECT * FROM shop_orders_eu", Err(("42P01", "unknown-table", "\"shop.orders-eu\""))),
        ("SELECT * FROM shop.orders-eu", Err(("42601", "sql-syntax", "written in quotes"))),
        ("SELECT verbb FROM \"shop.orders-eu\"", Err(("42703", "unknown-column", "near it: Verb"))),
        ("SELECT verb FROM events", Err(("42703", "unknown-column", "_value->>'verb'"))),
        ("SELECT e.verb FROM events e", Err(("42703", "unknown-column", "_value->>'verb'"))),
        ("SELECT * FROM events a JOIN events b ON a._offset = b._offset WHERE _offset = 1", Err(("42702", "ambiguous-column", "_offset"))),
    ])
    .await;
}

#[tokio::test]
async fn bytes_act_as_text() {
    check_all(&[
        ("SELECT count(*) c FROM events WHERE _key = 'even'", Ok(&[r#"{"c":4}"#])),
        ("SELECT count(*) c FROM events WHERE _key <> 'x'", Ok(&[r#"{"c":4}"#])),
        ("SELECT count(*) c FROM events WHERE _key IN ('even', 'odd')", Ok(&[r#"{"c":4}"#])),
        ("SELECT count(*) c FROM events WHERE _value LIKE '%delete%'", Ok(&[r#"{"c":2}"#])),
        ("SELECT count(*) c FROM events WHERE _value LIKE CAST('%delete%' AS text)", Ok(&[r#"{"c":2}"#])),
        ("SELECT count(*) c FROM events WHERE _value ILIKE '%DELETE%'", Ok(&[r#"{"c":2}"#])),
        ("SELECT count(*) c FROM events WHERE _value NOT LIKE '%delete%'", Ok(&[r#"{"c":4}"#])),
        ("SELECT count(*) c FROM events WHERE _value ~ 'del[e]te'", Ok(&[r#"{"c":2}"#])),
        ("SELECT count(*) c FROM events WHERE _value !~* 'DELETE'", Ok(&[r#"{"c":4}"#])),
        ("SELECT count(*) c FROM events WHERE regexp_like(_value, '^no')", Ok(&[r#"{"c":1}"#])),
        ("SELECT upper(_key) || '!' AS k, length(_value) AS l FROM events WHERE _offset = 4", Ok(&[r#"{"k":"EVEN!","l":14}"#])),
        ("SELECT _key || _key AS k, 'x' || _key AS x FROM events WHERE _offset = 0", Ok(&[r#"{"k":"eveneven","x":"xeven"}"#])),
        ("SELECT substr(_value, 1, 2) s, starts_with(_value, 'no') w, strpos(_value, 'json') p, left(_value, 2) l FROM events WHERE _offset = 4", Ok(&[r#"{"s":"no","w":true,"p":4,"l":"no"}"#])),
        ("SELECT text(_value) t, _value::text c, CAST(_value AS varchar) v FROM events WHERE _offset = 4", Ok(&[r#"{"t":"no json at all","c":"no json at all","v":"no json at all"}"#])),
        ("SELECT text(_value) t, upper(_value) u, _value::text c FROM events WHERE _offset = 5", Ok(&[r#"{"t":null,"u":null,"c":null}"#])),
        ("SELECT _value FROM events WHERE _offset = 5", Ok(&[r#"{"_value":{"base64":"//4gbm8gdGV4dA=="}}"#])),
        ("SELECT coalesce(_key, 'none') AS k, count(*) c FROM events GROUP BY 1 ORDER BY 1", Ok(&[r#"{"k":"even","c":4}"#, r#"{"k":"none","c":4}"#])),
        ("SELECT concat(_key, '-', _offset) c FROM events WHERE _offset = 2", Ok(&[r#"{"c":"even-2"}"#])),
        ("SELECT encode(_value, 'hex') h FROM events WHERE _offset = 5", Ok(&[r#"{"h":"fffe206e6f2074657874"}"#])),
        ("SELECT split_part(_key, 'v', 1) p, replace(_key, 'e', 'E') r, reverse(_key) v FROM events WHERE _offset = 0", Ok(&[r#"{"p":"e","r":"EvEn","v":"neve"}"#])),
        ("SELECT DISTINCT _key k FROM events WHERE _key IS NOT NULL", Ok(&[r#"{"k":"even"}"#])),
        ("SELECT CASE WHEN _key = 'even' THEN _key ELSE 'odd' END k FROM events WHERE _offset < 2 ORDER BY _offset", Ok(&[r#"{"k":"even"}"#, r#"{"k":"odd"}"#])),
        ("SELECT try_cast(_value AS bigint) n FROM events WHERE _offset = 4", Ok(&[r#"{"n":null}"#])),
        ("SELECT _value::bigint n FROM events WHERE _offset = 4", Err(("22P02", "invalid-value", "TRY_CAST"))),
    ])
    .await;
}

#[tokio::test]
async fn json_is_read_as_postgresql_reads_it() {
    check_all(&[
        ("SELECT _value->>'verb' = 'delete' AS d FROM events ORDER BY _offset LIMIT 3", Ok(&[r#"{"d":true}"#, r#"{"d":false}"#, r#"{"d":true}"#])),
        ("SELECT count(*) c FROM events WHERE _value->>'verb' = 'delete' AND _value->'user'->>'username' = 'ann'", Ok(&[r#"{"c":1}"#])),
        ("SELECT _value->>'verb' FROM events WHERE _offset = 0", Ok(&[r#"{"_value ->> 'verb'":"delete"}"#])),
        ("SELECT _value->'user'->>'username' AS u, _value#>>array['user','username'] AS p FROM events WHERE _offset = 0", Ok(&[r#"{"u":"ann","p":"ann"}"#])),
        ("SELECT _value->'user' AS u, _value->'tags' AS t, _value->'verb' AS v FROM events WHERE _offset = 0", Ok(&[r#"{"u":"{\"username\":\"ann\"}","t":"[\"a\",\"b\"]","v":"\"delete\""}"#])),
        ("SELECT _value->'tags'->>1 AS t, _value->'tags'->>-1 AS l, json_length(_value->'tags') AS n FROM events WHERE _offset = 0", Ok(&[r#"{"t":"b","l":"b","n":2}"#])),
        ("SELECT _value->1->>'x' AS x FROM events WHERE _offset = 7", Ok(&[r#"{"x":"true"}"#])),
        ("SELECT _value->>'n' AS n FROM events WHERE _offset < 4 ORDER BY _offset", Ok(&[r#"{"n":"1"}"#, r#"{"n":"2.5"}"#, r#"{"n":"3"}"#, r#"{"n":"many"}"#])),
        ("SELECT (_value->>'n')::bigint AS n FROM events WHERE _offset = 0", Ok(&[r#"{"n":1}"#])),
        ("SELECT (_value->>'n')::double AS n FROM events WHERE _offset = 1", Ok(&[r#"{"n":2.5}"#])),
        ("SELECT sum((_value->>'n')::bigint) AS n FROM events", Err(("22P02", "invalid-value", "TRY_CAST"))),
        ("SELECT sum(try_cast(_value->>'n' AS double)) AS n FROM events", Ok(&[r#"{"n":6.5}"#])),
        ("SELECT sum((_value->'n')::double) AS n FROM events", Ok(&[r#"{"n":6.5}"#])),
        ("SELECT json_get_int(_value, 'n') AS n FROM events WHERE _offset < 3 ORDER BY _offset", Ok(&[r#"{"n":1}"#, r#"{"n":null}"#, r#"{"n":3}"#])),
        ("SELECT json_get_str(_value, 'user', 'username') AS u, json_get_float(_value, 'n') f, json_get(_value, 'tags', 0) g FROM events WHERE _offset = 0", Ok(&[r#"{"u":"ann","f":1.0,"g":"\"a\""}"#])),
        ("SELECT count(*) c FROM events WHERE _value->>'n' > 1", Ok(&[r#"{"c":2}"#])),
        ("SELECT count(*) c FROM events WHERE _value->>'n' >= 2.5", Ok(&[r#"{"c":2}"#])),
        ("SELECT _offset FROM events WHERE _value->>'big' = 9007199254740993", Ok(&[r#"{"_offset":0}"#])),
        ("SELECT _offset FROM events WHERE _value->>'big' = 9007199254740992", Ok(&[])),
        ("SELECT _value->>'big' AS b, (_value->>'big')::decimal(38,0) AS d FROM events WHERE _offset = 1", Ok(&[r#"{"b":"12345678901234567890","d":12345678901234567890}"#])),
        ("SELECT (_value->'big')::bigint AS b FROM events WHERE _offset = 0", Ok(&[r#"{"b":9007199254740993}"#])),
        ("SELECT _value->>'nothing' IS NULL AS n, _value->'nothing' AS j, _value ? 'nothing' AS t, _value ? 'missing' AS m FROM events WHERE _offset = 1", Ok(&[r#"{"n":true,"j":"null","t":true,"m":false}"#])),
        ("SELECT _value->>'quote' AS q FROM events WHERE _offset = 3", Ok(&[r#"{"q":"a\"bä"}"#])),
        ("SELECT count(_value->>'verb') AS c FROM events", Ok(&[r#"{"c":4}"#])),
        ("SELECT _value->>'verb' AS v, count(*) AS c FROM events GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 2", Ok(&[r#"{"v":null,"c":4}"#, r#"{"v":"delete","c":2}"#])),
        ("SELECT _value->'user' AS u, count(*) AS c FROM events WHERE _offset = 0 GROUP BY 1", Ok(&[r#"{"u":"{\"username\":\"ann\"}","c":1}"#])),
        ("SELECT '{\"a\":{\"b\":1}}'::text->'a'->>'b' AS x", Ok(&[r#"{"x":"1"}"#])),
        ("SELECT _value->>'verb' || '!' AS v FROM events WHERE _offset = 0", Ok(&[r#"{"v":"delete!"}"#])),
        ("SELECT upper(_value->>'verb') AS v FROM events WHERE _value->>'verb' LIKE 'l%'", Ok(&[r#"{"v":"LIST"}"#])),
        ("SELECT json_object_keys(_value) AS k FROM events WHERE _offset = 2", Ok(&[r#"{"k":["verb","n","user"]}"#])),
    ])
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    check_all(&[
        ("SELEC 1", Err(("42601", "sql-syntax", "SELEC"))),
        ("SELECT 1 FROM", Err(("42601", "sql-syntax", "syntax error"))),
        ("SELECT nosuch(1)", Err(("42883", "unknown-function", "nosuch"))),
        ("SELECT 1 / 0", Err(("22012", "division-by-zero", "zero"))),
        ("SELECT 'abc'::bigint", Err(("22P02", "invalid-value", "abc"))),
        ("SELECT [1] + 1", Err(("42804", "type-mismatch", "bigint"))),
        ("SELECT _offset, count(*) FROM events", Err(("42803", "grouping", "_offset"))),
        ("SELECT (SELECT _offset FROM events)", Err(("21000", "too-many-rows", "row"))),
        ("DELETE FROM events", Err(("0A000", "statement-refused", "DELETE"))),
        ("SELECT 1; SELECT 2", Err(("42601", "statement-count", "one by one"))),
        ("SELECT * FROM '/etc/passwd'", Err(("42P01", "unknown-table", "there is no stream"))),
        ("SELECT * FROM read_csv('/etc/passwd')", Err(("42P01", "unknown-table", "read_csv"))),
        (
            "SELECT input_file_name() FROM events",
            Err(("42883", "unknown-function", "input_file_name")),
        ),
        ("SELECT -9223372036854775808 / -1", Err(("22003", "out-of-range", "range"))),
        (
            "SELECT name FROM users WHERE name || '_x' LIKE '%!_x' ESCAPE '!' ORDER BY 1 LIMIT 1",
            Ok(&[r#"{"name":"ann"}"#]),
        ),
        (
            "SELECT name FROM users WHERE 'a_b' LIKE substr('a!_b?', 1, 4) ESCAPE '!' AND \
             'axb' NOT LIKE CASE name WHEN 'ann' THEN 'a!_b' ELSE 'a_b' END ESCAPE '!'",
            Ok(&[r#"{"name":"ann"}"#]),
        ),
        ("SELECT _offset FROM events WHERE '{\"n\":1}' LIKE _value ESCAPE '!' LIMIT 1", Ok(&[])),
        ("SELECT 'a' LIKE 'b' ESCAPE 'ab'", Err(("22019", "invalid-value", "one character"))),
        (
            "SELECT every(length(name) = 3), variance(length(name)) AS v FROM users",
            Ok(&[r#"{"every(length(name) = 3)":true,"v":0.0}"#]),
        ),
        ("SELECT 1 + 1, upper('x')", Ok(&[r#"{"1 + 1":2,"upper('x')":"X"}"#])),
        (
            "SELECT * FROM events WHERE _key ~ '('",
            Err(("2201B", "invalid-regex", "regular expression")),
        ),
    ])
    .await;
}

#[tokio::test]
async fn columns_may_have_the_same_name() {
    check_all(&[
        (
            "SELECT city, * FROM users WHERE name = 'eve'",
            Ok(&[r#"{"city":"Graz","name":"eve","city_2":"Graz"}"#]),
        ),
        (
            "SELECT u.*, u.city FROM users u ORDER BY city LIMIT 1",
            Ok(&[r#"{"name":"bob","city":"Bern","city_2":"Bern"}"#]),
        ),
        (
            "SELECT upper(city) AS city, * FROM users ORDER BY name LIMIT 1",
            Ok(&[r#"{"city":"ULM","name":"ann","city_2":"Ulm"}"#]),
        ),
        ("SELECT count(*), count(*) FROM users", Ok(&[r#"{"count(*)":3,"count(*)_2":3}"#])),
        ("SELECT 1 AS x, 2 AS x", Ok(&[r#"{"x":1,"x_2":2}"#])),
        (
            "SELECT DISTINCT city, city FROM users ORDER BY city LIMIT 1",
            Ok(&[r#"{"city":"Bern","city_2":"Bern"}"#]),
        ),
        (
            "WITH u AS (SELECT name FROM users) SELECT name, length(name) AS n, * FROM u \
             ORDER BY n, name LIMIT 1",
            Ok(&[r#"{"name":"ann","n":3,"name_2":"ann"}"#]),
        ),
        ("SELECT nothing, * FROM users", Err(("42703", "unknown-column", "nothing"))),
        ("SELECT * FROM (SELECT name, * FROM users) AS u", Err(("42000", "sql-invalid", "unique"))),
        ("CREATE VIEW v AS SELECT name, * FROM users", Err(("42000", "sql-invalid", "unique"))),
    ])
    .await;
    let fixture = Fixture::new();
    let columns = async |sql: &str, describe_only: bool| {
        let (question, sql) = question(sql);
        let sql = SqlQuestion { describe_only, ..sql };
        let (found, _) = fixture.ask_as(&question, &sql).await.expect("an answer");
        found.columns.into_iter().map(|column| column.name).collect::<Vec<_>>()
    };
    for describe_only in [false, true] {
        let found = columns("SELECT city, * FROM users", describe_only).await;
        assert_eq!(found, ["city", "name", "city"]);
    }
    let plan = fixture.ask("EXPLAIN SELECT city, * FROM users").await.expect("a plan").text();
    assert!(plan.contains("city #2"), "{plan}");
}

#[tokio::test]
async fn the_place_of_an_error_is_given_in_characters() {
    let fixture = Fixture::new();
    for (sql, place) in [
        ("SELECT ä FORM x y", Some(15)),
        ("SELECT\n  nothing_there FROM events", Some(10)),
        ("SELECT _offset FROM events WHERE\n e_offset = 1", Some(35)),
    ] {
        let refusal = fixture.ask(sql).await.expect_err("it is wrong");
        assert_eq!(refusal.position, place, "{sql}: {refusal:?}");
    }
}

#[tokio::test]
async fn tables_and_columns_are_listed() {
    check_all(&[
        (
            "SHOW TABLES",
            Ok(&[
                r#"{"name":"Users","type":"stream"}"#,
                r#"{"name":"events","type":"stream"}"#,
                r#"{"name":"many","type":"stream"}"#,
                r#"{"name":"shop.orders-eu","type":"stream"}"#,
            ]),
        ),
        ("SHOW TABLES LIKE 'e%'", Ok(&[r#"{"name":"events","type":"stream"}"#])),
        (
            "DESCRIBE events",
            Ok(&[
                r#"{"column_name":"_partition","data_type":"integer","is_nullable":"NO"}"#,
                r#"{"column_name":"_offset","data_type":"bigint","is_nullable":"NO"}"#,
                r#"{"column_name":"_timestamp","data_type":"timestamp with time zone","is_nullable":"NO"}"#,
                r#"{"column_name":"_appended","data_type":"timestamp with time zone","is_nullable":"NO"}"#,
                r#"{"column_name":"_key","data_type":"binary","is_nullable":"YES"}"#,
                r#"{"column_name":"_headers","data_type":"struct(key text, value binary)[]","is_nullable":"NO"}"#,
                r#"{"column_name":"_value","data_type":"binary","is_nullable":"YES"}"#,
            ]),
        ),
        ("SELECT count(*) AS c FROM information_schema.columns WHERE table_name = 'events'", Ok(&[r#"{"c":7}"#])),
        ("SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES WHERE table_type = 'BASE TABLE' ORDER BY 1 LIMIT 1", Ok(&[r#"{"table_name":"Users"}"#])),
        ("SHOW datafusion.execution.batch_size", Ok(&[r#"{"datafusion.execution.batch_size":"1024"}"#])),
        ("SHOW nothing", Err(("42704", "sql-setting", "SHOW ALL"))),
        ("SHOW COLUMNS FROM nothing", Err(("42P01", "unknown-table", "nothing"))),
    ])
    .await;
    let fixture = Fixture::new();
    assert_eq!(fixture.ask("SHOW COLUMNS FROM EVENTS").await.expect("columns").rows, 7);
    assert!(fixture.ask("SHOW ALL").await.expect("settings").rows > 50);
    let explained = fixture.ask("EXPLAIN SELECT * FROM events").await.expect("a plan");
    assert_eq!(explained.command, "EXPLAIN");
    let analysed =
        fixture.ask("EXPLAIN ANALYZE SELECT count(*) FROM events").await.expect("a plan");
    assert!(analysed.text().contains("output_rows"), "{}", analysed.text());
}

#[tokio::test]
async fn parameters_take_the_types_that_are_needed() {
    use Parameter::{Boolean, Float, Integer, Null, Text};
    let fixture = Fixture::new();
    let text = |text: &str| Text(text.to_owned());
    let cases: Vec<(&str, Vec<Parameter>, Expected<'_>)> = vec![
        ("SELECT count(*) c FROM events WHERE _offset < $1", vec![Integer(2)], Ok(&[r#"{"c":2}"#])),
        ("SELECT count(*) c FROM events WHERE _offset < $1", vec![text("2")], Ok(&[r#"{"c":2}"#])),
        ("SELECT count(*) c FROM events WHERE _key = $1", vec![text("even")], Ok(&[r#"{"c":4}"#])),
        (
            "SELECT count(*) c FROM events WHERE _value LIKE $1",
            vec![text("%delete%")],
            Ok(&[r#"{"c":2}"#]),
        ),
        (
            "SELECT count(*) c FROM events WHERE _value->>'verb' = $1",
            vec![text("get")],
            Ok(&[r#"{"c":1}"#]),
        ),
        (
            "SELECT count(*) c FROM events WHERE _timestamp >= $1",
            vec![text("2023-11-14T22:13:22Z")],
            Ok(&[r#"{"c":6}"#]),
        ),
        (
            "SELECT _offset FROM events ORDER BY _offset LIMIT $1",
            vec![Integer(1)],
            Ok(&[r#"{"_offset":0}"#]),
        ),
        (
            "SELECT $1 AS a, $2 AS b, $3 AS c",
            vec![Boolean(true), Float(0.5), Null],
            Ok(&[r#"{"a":true,"b":0.5,"c":null}"#]),
        ),
        ("SELECT $1::int + 1 AS a", vec![text("41")], Ok(&[r#"{"a":42}"#])),
        (
            "SELECT count(*) c FROM events WHERE _offset = $2 OR _offset = $1",
            vec![Integer(1), Integer(2)],
            Ok(&[r#"{"c":2}"#]),
        ),
        ("SELECT $1 AS a", vec![], Err(("08P01", "parameter-count", "1 parameters, 0"))),
        ("SELECT 1 AS a", vec![Integer(1)], Err(("08P01", "parameter-count", "0 parameters, 1"))),
        (
            "SELECT count(*) c FROM events WHERE _offset < $1",
            vec![text("x")],
            Err(("22P02", "parameter-type", "$1 cannot be read as bigint")),
        ),
        (
            "SELECT count(*) c FROM events WHERE _offset < $70000",
            vec![],
            Err(("54001", "statement-too-complex", "65535")),
        ),
    ];
    for (sql, parameters, expected) in cases {
        check(&fixture, sql, parameters, expected).await;
    }
}

#[tokio::test]
async fn a_statement_can_be_described_without_being_run() {
    let fixture = Fixture::new();
    let (question, sql) =
        question("SELECT _offset, _value->>'x' AS x FROM events WHERE _key = $2 AND _offset > $1");
    let sql = SqlQuestion { describe_only: true, ..sql };
    let (found, _) = fixture.ask_as(&question, &sql).await.expect("a description");
    let columns: Vec<_> = found
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.sql_type.as_str()))
        .collect();
    assert_eq!(columns, [("_offset", "bigint"), ("x", "text")]);
    assert_eq!(found.parameters, ["bigint", "binary"]);
    assert_eq!((found.rows, found.bytes.len(), found.command.as_str()), (0, 0, "SELECT"));
}

#[tokio::test]
async fn limits_hold() {
    let fixture = Fixture::new();
    let roomy = question("").0.limits;
    let cases = [
        ("SELECT * FROM many", Limits { rows_max: 100, ..roomy }, Some("rows-max")),
        ("SELECT * FROM many LIMIT 100", Limits { rows_max: 100, ..roomy }, None),
        ("SELECT * FROM many", Limits { bytes_max: 10_000, ..roomy }, Some("bytes-max")),
        (
            "SELECT array_agg(a.n + b.n) FROM many a CROSS JOIN (SELECT * FROM many LIMIT 1000) b",
            Limits { memory_bytes_max: 1 << 20, ..roomy },
            Some("query-memory"),
        ),
        (
            "SELECT n FROM many ORDER BY n % 1000, n LIMIT 40000",
            Limits { memory_bytes_max: 32 << 20, ..roomy },
            None,
        ),
    ];
    for (text, limits, expected) in cases {
        let (mut question, sql) = question(text);
        question.limits = limits;
        let found = fixture.ask_as(&question, &sql).await;
        match (&found, expected) {
            (Err(refusal), Some(code)) => {
                assert_eq!(refusal.code, code, "{text}");
                assert!(refusal.message.contains("query."), "it says what to raise: {refusal:?}");
            }
            (Ok(_), None) => {}
            _ => panic!("{text}: {:?}", found.map(|(found, _)| found.rows)),
        }
    }
}

#[tokio::test]
async fn answers_leave_in_parts_in_every_form() {
    let fixture = Fixture::new();
    for form in [AnswerForm::Ndjson, AnswerForm::Json, AnswerForm::Csv, AnswerForm::Arrow] {
        let (mut question, sql) = question("SELECT n, repeat('x', 20) AS x FROM many");
        question.form = form;
        let (found, spent) = fixture.ask_as(&question, &sql).await.expect("rows");
        assert_eq!((found.rows, spent.rows), (50_000, 50_000), "{form:?}");
        let (least, most) = (found.bytes.len() / (1 << 20), found.bytes.len() / 1000);
        assert!(found.parts > least && found.parts < most, "{form:?}: {} parts", found.parts);
    }
}
