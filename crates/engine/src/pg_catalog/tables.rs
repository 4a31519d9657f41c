//! The tables of `pg_catalog`.

use std::collections::HashMap;
use std::sync::Arc;

use aquifer_query::PostgresSession;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Int16Array, Int32Array, Int64Array, RecordBatch,
    StringArray, new_null_array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::memory::MemorySchemaProvider;
use datafusion::catalog::{CatalogProvider, MemTable, SchemaProvider};
use datafusion::common::Result;

use super::names::{
    DATABASE_ID, INFORMATION_ID, OWNER_ID, Oids, PG_CATALOG_ID, PUBLIC_ID, TYPES, type_id,
};
use super::words::RESERVED;
use crate::sql::{Described, Listing, PG_CATALOG, Session};

/// Every table with its columns, `name:type=default`. Types: `o` object id, `n`
/// name, `c` one character, `t` text, `b` boolean, `2` and `4` integers of so
/// many bytes, `8` one of eight, `f` a number of four bytes, `l` a list of
/// texts. Without a default it is null.
const COLUMNS: &[(&str, &str)] = &[
    (
        "pg_aggregate",
        "aggfnoid:o aggkind:c aggnumdirectargs:2 aggtransfn:o aggfinalfn:o aggsortop:o",
    ),
    ("pg_am", "oid:o amname:n amhandler:o amtype:c"),
    ("pg_amop", "oid:o amopfamily:o amoplefttype:o amoprighttype:o amopstrategy:2 amopopr:o"),
    ("pg_attrdef", "oid:o adrelid:o adnum:2 adbin:t adsrc:t"),
    (
        "pg_attribute",
        "attrelid:o attname:n atttypid:o attstattarget:4=-1 attlen:2=-1 attnum:2 attndims:4=0 \
         attcacheoff:4=-1 atttypmod:4=-1 attbyval:b=f attstorage:c=p attalign:c=i attnotnull:b=f \
         atthasdef:b=f attidentity:c= attgenerated:c= attisdropped:b=f attislocal:b=t \
         attinhcount:4=0 attcollation:o=0 attacl:l attoptions:l attfdwoptions:l",
    ),
    ("pg_auth_members", "roleid:o member:o grantor:o admin_option:b"),
    ("pg_authid", ROLES),
    ("pg_available_extensions", "name:n default_version:t installed_version:t comment:t"),
    ("pg_cast", "oid:o castsource:o casttarget:o castfunc:o castcontext:c castmethod:c"),
    (
        "pg_class",
        "oid:o relname:n relnamespace:o=2200 reltype:o=0 reloftype:o=0 relowner:o=10 relam:o=0 \
         relfilenode:o=0 reltablespace:o=0 relpages:4=0 reltuples:f=-1 relallvisible:4=0 \
         reltoastrelid:o=0 relhasindex:b=f relisshared:b=f relpersistence:c=p relkind:c \
         relnatts:2 relchecks:2=0 relhasoids:b=f relhaspkey:b=f relhasrules:b=f \
         relhastriggers:b=f relhassubclass:b=f relrowsecurity:b=f relforcerowsecurity:b=f \
         relispopulated:b=t relreplident:c=n relispartition:b=f relfrozenxid:8=0 relminmxid:8=0 \
         relacl:l reloptions:l relpartbound:t",
    ),
    (
        "pg_collation",
        "oid:o collname:n collnamespace:o collowner:o collprovider:c collisdeterministic:b \
         collencoding:4 collcollate:n collctype:n collversion:t",
    ),
    (
        "pg_constraint",
        "oid:o conname:n connamespace:o contype:c condeferrable:b condeferred:b convalidated:b \
         conrelid:o contypid:o conindid:o conparentid:o confrelid:o confupdtype:c confdeltype:c \
         confmatchtype:c conislocal:b coninhcount:4 connoinherit:b conkey:l confkey:l consrc:t",
    ),
    (
        "pg_conversion",
        "oid:o conname:n connamespace:o conowner:o conforencoding:4 contoencoding:4 conproc:o \
         condefault:b",
    ),
    ("pg_cursors", "name:t statement:t is_holdable:b is_binary:b is_scrollable:b"),
    (
        "pg_database",
        "oid:o datname:n datdba:o=10 encoding:4=6 datlocprovider:c=c datcollate:n=C datctype:n=C \
         datistemplate:b=f datallowconn:b=t datconnlimit:4=-1 datlastsysoid:o=0 datfrozenxid:8=0 \
         datminmxid:8=0 dattablespace:o=1663 datlocale:t daticulocale:t daticurules:t \
         datcollversion:t datacl:l",
    ),
    ("pg_db_role_setting", "setdatabase:o setrole:o setconfig:l"),
    ("pg_default_acl", "oid:o defaclrole:o defaclnamespace:o defaclobjtype:c defaclacl:l"),
    ("pg_depend", "classid:o objid:o objsubid:4 refclassid:o refobjid:o refobjsubid:4 deptype:c"),
    ("pg_description", "objoid:o classoid:o objsubid:4 description:t"),
    ("pg_enum", "oid:o enumtypid:o enumsortorder:f enumlabel:n"),
    ("pg_event_trigger", "oid:o evtname:n evtevent:n evtowner:o evtfoid:o evtenabled:c evttags:l"),
    (
        "pg_extension",
        "oid:o extname:n extowner:o extnamespace:o extrelocatable:b extversion:t extconfig:l \
         extcondition:l",
    ),
    ("pg_foreign_data_wrapper", "oid:o fdwname:n fdwowner:o fdwhandler:o fdwvalidator:o fdwacl:l"),
    ("pg_foreign_server", "oid:o srvname:n srvowner:o srvfdw:o srvtype:t srvversion:t srvacl:l"),
    ("pg_foreign_table", "ftrelid:o ftserver:o ftoptions:l"),
    // A function there, without arguments.
    ("pg_get_keywords", "word:n catcode:c catdesc:t"),
    (
        "pg_index",
        "indexrelid:o indrelid:o indnatts:2 indnkeyatts:2 indisunique:b indisprimary:b \
         indisexclusion:b indimmediate:b indisclustered:b indisvalid:b indcheckxmin:b \
         indisready:b indislive:b indisreplident:b indkey:t indcollation:t indclass:t \
         indoption:t indexprs:t indpred:t",
    ),
    ("pg_indexes", "schemaname:n tablename:n indexname:n tablespace:n indexdef:t"),
    ("pg_inherits", "inhrelid:o inhparent:o inhseqno:4 inhdetachpending:b"),
    (
        "pg_language",
        "oid:o lanname:n lanowner:o lanispl:b lanpltrusted:b lanplcallfoid:o laninline:o \
         lanvalidator:o lanacl:l",
    ),
    ("pg_largeobject_metadata", "oid:o lomowner:o lomacl:l"),
    (
        "pg_locks",
        "locktype:t database:o relation:o page:4 tuple:2 virtualxid:t transactionid:8 classid:o \
         objid:o objsubid:2 virtualtransaction:t pid:4 mode:t granted:b fastpath:b",
    ),
    (
        "pg_matviews",
        "schemaname:n matviewname:n matviewowner:n tablespace:n hasindexes:b ispopulated:b \
         definition:t",
    ),
    ("pg_namespace", "oid:o nspname:n nspowner:o=10 nspacl:l"),
    (
        "pg_opclass",
        "oid:o opcmethod:o opcname:n opcnamespace:o opcowner:o opcfamily:o opcintype:o \
         opcdefault:b opckeytype:o",
    ),
    ("pg_operator", "oid:o oprname:n oprnamespace:o oprleft:o oprright:o oprresult:o"),
    ("pg_opfamily", "oid:o opfmethod:o opfname:n opfnamespace:o opfowner:o"),
    ("pg_partitioned_table", "partrelid:o partstrat:c partnatts:2"),
    (
        "pg_policies",
        "schemaname:n tablename:n policyname:n permissive:t roles:l cmd:t qual:t with_check:t",
    ),
    (
        "pg_policy",
        "oid:o polname:n polrelid:o polcmd:c polpermissive:b polroles:l polqual:t polwithcheck:t",
    ),
    ("pg_prepared_statements", "name:t statement:t"),
    ("pg_prepared_xacts", "transaction:8 gid:t owner:n database:n"),
    (
        "pg_proc",
        "oid:o proname:n pronamespace:o proowner:o prolang:o procost:f prorows:f provariadic:o \
         proisagg:b proiswindow:b prosecdef:b proleakproof:b proisstrict:b proretset:b prokind:c \
         provolatile:c proparallel:c pronargs:2 pronargdefaults:2 prorettype:o proargtypes:t \
         proallargtypes:l proargmodes:l proargnames:l proargdefaults:t prosrc:t probin:t \
         proconfig:l proacl:l",
    ),
    ("pg_publication", "oid:o pubname:n pubowner:o puballtables:b"),
    ("pg_publication_namespace", "oid:o pnpubid:o pnnspid:o"),
    ("pg_publication_rel", "oid:o prpubid:o prrelid:o"),
    ("pg_publication_tables", "pubname:n schemaname:n tablename:n"),
    ("pg_range", "rngtypid:o rngsubtype:o rngmultitypid:o rngcollation:o rngsubopc:o"),
    ("pg_replication_slots", "slot_name:n plugin:n slot_type:t active:b"),
    (
        "pg_rewrite",
        "oid:o rulename:n ev_class:o ev_type:c ev_enabled:c is_instead:b ev_qual:t ev_action:t",
    ),
    ("pg_roles", ROLES),
    ("pg_rules", "schemaname:n tablename:n rulename:n definition:t"),
    ("pg_seclabel", "objoid:o classoid:o"),
    ("pg_sequence", "seqrelid:o seqtypid:o seqstart:8 seqincrement:8 seqmax:8 seqmin:8"),
    (
        "pg_sequences",
        "schemaname:n sequencename:n sequenceowner:n data_type:t start_value:8 min_value:8 \
         max_value:8 increment_by:8 cycle:b cache_size:8 last_value:8",
    ),
    (
        "pg_settings",
        "name:t setting:t unit:t category:t=Session short_desc:t extra_desc:t context:t=user \
         vartype:t=string source:t=default min_val:t max_val:t enumvals:l boot_val:t \
         reset_val:t sourcefile:t sourceline:4 pending_restart:b=f",
    ),
    ("pg_shdepend", "dbid:o classid:o objid:o"),
    ("pg_shdescription", "objoid:o classoid:o description:t"),
    (
        "pg_stat_activity",
        "datid:o datname:n pid:4 usesysid:o usename:n application_name:t client_addr:t \
         client_hostname:t client_port:4 backend_start:t xact_start:t query_start:t \
         state_change:t wait_event_type:t wait_event:t state:t backend_xid:8 backend_xmin:8 \
         query:t backend_type:t",
    ),
    ("pg_stat_gssapi", "pid:4 gss_authenticated:b encrypted:b"),
    ("pg_stat_ssl", "pid:4 ssl:b version:t cipher:t"),
    ("pg_stat_user_tables", TABLE_STATISTICS),
    ("pg_statio_user_tables", "relid:o schemaname:n relname:n heap_blks_read:8 heap_blks_hit:8"),
    ("pg_statistic_ext", "oid:o stxrelid:o stxname:n stxnamespace:o stxkind:l"),
    ("pg_subscription", "oid:o subname:n subdbid:o subowner:o"),
    (
        "pg_tables",
        "schemaname:n=public tablename:n tableowner:n tablespace:n hasindexes:b=f hasrules:b=f \
         hastriggers:b=f rowsecurity:b=f",
    ),
    ("pg_tablespace", "oid:o spcname:n spcowner:o=10 spcacl:l spcoptions:l"),
    ("pg_timezone_abbrevs", "abbrev:t utc_offset:t is_dst:b"),
    ("pg_timezone_names", "name:t abbrev:t utc_offset:t is_dst:b"),
    (
        "pg_trigger",
        "oid:o tgrelid:o tgname:n tgfoid:o tgtype:2 tgenabled:c tgisinternal:b tgconstrrelid:o \
         tgconstrindid:o tgconstraint:o tgparentid:o tgdeferrable:b tginitdeferred:b tgnargs:2 \
         tgattr:t tgargs:t tgqual:t tgoldtable:n tgnewtable:n",
    ),
    ("pg_ts_config", "oid:o cfgname:n cfgnamespace:o"),
    ("pg_ts_dict", "oid:o dictname:n dictnamespace:o"),
    ("pg_ts_parser", "oid:o prsname:n prsnamespace:o"),
    ("pg_ts_template", "oid:o tmplname:n tmplnamespace:o"),
    (
        "pg_type",
        "oid:o typname:n typnamespace:o=11 typowner:o=10 typlen:2 typbyval:b=f typtype:c=b \
         typcategory:c typispreferred:b=f typisdefined:b=t typdelim:c=, typrelid:o=0 typelem:o=0 \
         typarray:o=0 typinput:o=0 typoutput:o=0 typreceive:o=0 typsend:o=0 typmodin:o=0 \
         typmodout:o=0 typanalyze:o=0 typalign:c=i typstorage:c=p typnotnull:b=f typbasetype:o=0 \
         typtypmod:4=-1 typndims:4=0 typcollation:o=0 typdefaultbin:t typdefault:t typacl:l",
    ),
    (
        "pg_user",
        "usename:n usesysid:o=10 usecreatedb:b=f usesuper:b=f userepl:b=f \
         usebypassrls:b=f passwd:t=******** valuntil:t useconfig:l",
    ),
    ("pg_user_mapping", "oid:o umuser:o umserver:o umoptions:l"),
    ("pg_user_mappings", "umid:o srvid:o srvname:n umuser:o usename:n"),
    ("pg_views", "schemaname:n=public viewname:n viewowner:n definition:t"),
];

const TABLE_STATISTICS: &str = "relid:o schemaname:n relname:n seq_scan:8 seq_tup_read:8 \
                                idx_scan:8 idx_tup_fetch:8 n_tup_ins:8 n_tup_upd:8 n_tup_del:8 \
                                n_live_tup:8 n_dead_tup:8 last_vacuum:t last_autovacuum:t \
                                last_analyze:t last_autoanalyze:t";

const ROLES: &str = "oid:o rolname:n rolsuper:b=f rolinherit:b=t rolcreaterole:b=f rolcreatedb:b=f \
                     rolcanlogin:b=t rolreplication:b=f rolconnlimit:4=-1 rolpassword:t=******** \
                     rolvaliduntil:t rolbypassrls:b=f rolconfig:l";

/// Those that ever have rows.
const FILLED: &[&str] = &[
    "pg_attribute",
    "pg_authid",
    "pg_class",
    "pg_database",
    "pg_get_keywords",
    "pg_namespace",
    "pg_roles",
    "pg_settings",
    "pg_tables",
    "pg_tablespace",
    "pg_type",
    "pg_user",
    "pg_views",
];

/// The names of all tables.
pub(crate) struct Tables;

/// The names of all tables.
pub(crate) const TABLES: Tables = Tables;

impl Tables {
    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        COLUMNS.iter().map(|(name, _)| *name)
    }

    /// The columns of a table; none where there is none of that name.
    pub(super) fn columns(&self, name: &str) -> Option<Vec<&'static str>> {
        COLUMNS.iter().find(|(table, _)| *table == name).map(|(_, spec)| columns_of(spec).collect())
    }

    /// Whether a table is there, and never has a row.
    pub(crate) fn is_empty(&self, name: &str) -> bool {
        COLUMNS.iter().any(|(table, _)| *table == name) && !FILLED.contains(&name)
    }
}

/// What a column of a row holds in place of the default.
pub(super) type Values = Vec<(&'static str, Value)>;

/// A value of a catalog.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Number(i64),
    Text(String),
    Bool(bool),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<bool> for Value {
    fn from(is_true: bool) -> Self {
        Self::Bool(is_true)
    }
}

/// Registers all tables; the names of tables and columns.
pub(super) fn register(
    session: &Session,
    postgres: &PostgresSession,
    listing: &Listing,
    all: &[Described],
) -> Result<Vec<String>> {
    let oids = Oids::new(listing);
    let rows = |table: &str| rows(table, postgres, listing, all, &oids);
    register_schema(session, PG_CATALOG, COLUMNS, rows)
}

/// Registers a schema of tables that are written as [`COLUMNS`] are; the names
/// of tables and columns.
pub(super) fn register_schema(
    session: &Session,
    schema_name: &str,
    tables: &[(&str, &str)],
    rows: impl Fn(&str) -> Vec<Values>,
) -> Result<Vec<String>> {
    let schema = MemorySchemaProvider::new();
    let mut names = Vec::new();
    for (name, columns) in tables {
        let batch = batch(columns, &rows(name))?;
        names.push((*name).to_owned());
        names.extend(batch.schema().fields().iter().map(|field| field.name().clone()));
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
        schema.register_table((*name).to_owned(), Arc::new(table))?;
    }
    session.catalog.register_schema(schema_name, Arc::new(schema))?;
    Ok(names)
}

/// The names of the columns of a table.
pub(super) fn columns_of(spec: &'static str) -> impl Iterator<Item = &'static str> {
    spec.split_whitespace().map(|column| column.split_once(':').map_or(column, |(name, _)| name))
}

fn rows(
    table: &str,
    postgres: &PostgresSession,
    listing: &Listing,
    all: &[Described],
    oids: &Oids,
) -> Vec<Values> {
    let user = postgres.user.as_str();
    match table {
        "pg_namespace" => [
            (PG_CATALOG_ID, "pg_catalog"),
            (PUBLIC_ID, "public"),
            (INFORMATION_ID, "information_schema"),
        ]
        .map(|(id, name)| vec![("oid", id.into()), ("nspname", name.into())])
        .to_vec(),
        "pg_database" => {
            vec![vec![("oid", DATABASE_ID.into()), ("datname", listing.tenant.as_str().into())]]
        }
        "pg_get_keywords" => {
            let keyword = |word: &&str| {
                // These may be the names of functions.
                let code = if ["join", "left", "right"].contains(word) { "T" } else { "R" };
                vec![
                    ("word", (*word).into()),
                    ("catcode", code.into()),
                    ("catdesc", "reserved".into()),
                ]
            };
            RESERVED.iter().map(keyword).collect()
        }
        "pg_tablespace" => vec![vec![("oid", 1663.into()), ("spcname", "pg_default".into())]],
        "pg_authid" | "pg_roles" => {
            vec![vec![("oid", OWNER_ID.into()), ("rolname", user.into())]]
        }
        "pg_user" => vec![vec![("usename", user.into())]],
        "pg_settings" => {
            let setting = |(name, value): (&String, &String)| {
                let value = value.as_str();
                vec![
                    ("name", name.as_str().into()),
                    ("setting", value.into()),
                    ("boot_val", value.into()),
                    ("reset_val", value.into()),
                ]
            };
            postgres.settings.iter().map(setting).collect()
        }
        "pg_class" => all.iter().map(|of| class(of, oids)).collect(),
        "pg_attribute" => all.iter().flat_map(|of| attributes(of, oids)).collect(),
        "pg_tables" => all
            .iter()
            .filter(|of| of.sql.is_none())
            .map(|of| vec![("tablename", of.name.as_str().into()), ("tableowner", user.into())])
            .collect(),
        "pg_views" => all
            .iter()
            .filter_map(|of| {
                Some(vec![
                    ("viewname", of.name.as_str().into()),
                    ("viewowner", user.into()),
                    ("definition", of.sql.as_deref()?.into()),
                ])
            })
            .collect(),
        "pg_type" => types(),
        _ => Vec::new(),
    }
}

fn class(of: &Described, oids: &Oids) -> Values {
    let id = oids.of(&of.name);
    vec![
        ("oid", id.into()),
        ("relname", of.name.as_str().into()),
        ("relfilenode", id.into()),
        ("relkind", if of.sql.is_some() { "v" } else { "r" }.into()),
        ("relnatts", (of.columns.fields().len() as i64).into()),
    ]
}

fn attributes(of: &Described, oids: &Oids) -> Vec<Values> {
    let id = oids.of(&of.name);
    let attribute = |(field, number): (&Arc<Field>, i64)| {
        let type_id = type_id(field.data_type());
        let length =
            TYPES.iter().find(|(of, ..)| *of == type_id).map_or(-1, |(_, _, bytes, ..)| *bytes);
        vec![
            ("attrelid", id.into()),
            ("attname", field.name().as_str().into()),
            ("atttypid", type_id.into()),
            ("attlen", i64::from(length).into()),
            ("attnum", number.into()),
            ("attnotnull", (!field.is_nullable()).into()),
        ]
    };
    of.columns.fields().iter().zip(1..).map(attribute).collect()
}

/// The function that reads an array's text, by which clients tell arrays.
pub(super) const ARRAY_IN: i64 = 750;

fn types() -> Vec<Values> {
    let mut rows = Vec::new();
    for (id, name, bytes, category, array, _) in TYPES {
        rows.push(vec![
            ("oid", (*id).into()),
            ("typname", (*name).into()),
            ("typlen", i64::from(*bytes).into()),
            ("typbyval", (1..=8).contains(bytes).into()),
            ("typcategory", (*category).into()),
            ("typarray", (*array).into()),
        ]);
        if *array != 0 {
            rows.push(vec![
                ("oid", (*array).into()),
                ("typname", format!("_{name}").as_str().into()),
                ("typlen", (-1).into()),
                ("typcategory", "A".into()),
                ("typelem", (*id).into()),
                ("typinput", ARRAY_IN.into()),
            ]);
        }
    }
    rows
}

/// Rows as the columns of `spec`.
pub(super) fn batch(spec: &str, rows: &[Values]) -> Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for column in spec.split_whitespace() {
        let (name, rest) = column.split_once(':').unwrap_or((column, "t"));
        let (kind, default) = match rest.split_once('=') {
            Some((kind, default)) => (kind, Some(default)),
            None => (rest, None),
        };
        let cells = rows.iter().map(|row| {
            let own = row.iter().find(|(of, _)| *of == name).map(|(_, value)| value.clone());
            own.or_else(|| default.map(|default| read(kind, default)))
        });
        let (array, told) = array(kind, cells.collect());
        let mut field = Field::new(name, array.data_type().clone(), true);
        if let Some(told) = told {
            let metadata = HashMap::from([("postgres.type".to_owned(), told.to_owned())]);
            field = field.with_metadata(metadata);
        }
        fields.push(field);
        columns.push(array);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// A default as it stands in the table of columns.
fn read(kind: &str, default: &str) -> Value {
    match kind {
        "b" => Value::Bool(default == "t"),
        "n" | "c" | "t" | "l" => Value::Text(default.to_owned()),
        _ => Value::Number(default.parse().unwrap_or_default()),
    }
}

/// A column, and what clients are told that it is where Arrow cannot say it.
fn array(kind: &str, cells: Vec<Option<Value>>) -> (ArrayRef, Option<&'static str>) {
    let number = |cell: &Option<Value>| match cell {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    let text = |cell: &Option<Value>| match cell {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let count = cells.len();
    let numbers = cells.iter().map(number);
    match kind {
        "o" => (Arc::new(numbers.collect::<Int64Array>()), Some("oid")),
        "8" => (Arc::new(numbers.collect::<Int64Array>()), None),
        "4" => (Arc::new(numbers.map(|of| of.map(|of| of as i32)).collect::<Int32Array>()), None),
        "2" => (Arc::new(numbers.map(|of| of.map(|of| of as i16)).collect::<Int16Array>()), None),
        "f" => (Arc::new(numbers.map(|of| of.map(|of| of as f32)).collect::<Float32Array>()), None),
        "b" => {
            let boolean = |cell: &Option<Value>| match cell {
                Some(Value::Bool(is_true)) => Some(*is_true),
                _ => None,
            };
            (Arc::new(cells.iter().map(boolean).collect::<BooleanArray>()), None)
        }
        "l" => {
            let item = Arc::new(Field::new("item", DataType::Utf8, true));
            (new_null_array(&DataType::List(item), count), None)
        }
        "n" => (Arc::new(cells.iter().map(text).collect::<StringArray>()), Some("name")),
        "c" => (Arc::new(cells.iter().map(text).collect::<StringArray>()), Some("char")),
        _ => (Arc::new(cells.iter().map(text).collect::<StringArray>()), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_can_be_made() {
        assert!(COLUMNS.is_sorted_by_key(|(name, _)| *name));
        for (name, columns) in COLUMNS {
            let batch = batch(columns, &[]).expect(name);
            assert_eq!(batch.num_rows(), 0);
        }
        for name in FILLED {
            assert!(TABLES.names().any(|table| table == *name), "{name}");
        }
        let (_, spec) = COLUMNS.iter().find(|(name, _)| *name == "pg_type").expect("it is there");
        let batch = batch(spec, &types()).expect("the types");
        assert!(batch.num_rows() > 2 * TYPES.len() - 2);
        assert_eq!(batch.column_by_name("oid").expect("a column").null_count(), 0);
        assert!(TABLES.is_empty("pg_index") && !TABLES.is_empty("pg_class"));
        assert!(!TABLES.is_empty("audit"));
        assert_eq!(TABLES.columns("pg_range").map(|columns| columns.len()), Some(5));
        assert_eq!(TABLES.columns("audit"), None);
    }
}
