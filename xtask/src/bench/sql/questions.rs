//! The ten questions of the figure `sql`, in the words of each side.

use super::contest::Question;
use super::fields::{Dialect, Fields, Texts, fill};

/// One question; `{…}` are places that [`fill`] knows.
pub(super) struct Template {
    pub(super) name: &'static str,
    pub(super) ours: &'static str,
    pub(super) datafusion: &'static str,
    pub(super) duckdb: &'static str,
}

impl Template {
    /// One that all sides are asked in the same words.
    pub(super) const fn same(name: &'static str, text: &'static str) -> Self {
        Self { name, ours: text, datafusion: text, duckdb: text }
    }

    /// For these sides in turn.
    pub(super) fn question(&self, dialects: &[Dialect], fields: Fields, texts: &Texts) -> Question {
        let text = |dialect: &Dialect| {
            let template = match dialect {
                Dialect::Aquifer => self.ours,
                Dialect::DataFusion => self.datafusion,
                Dialect::DuckDb => self.duckdb,
            };
            fill(template, *dialect, fields, texts)
        };
        Question { name: self.name.to_owned(), texts: dialects.iter().map(text).collect() }
    }
}

/// Every answer has one order only, so that answers can be compared row by row.
pub(super) const QUESTIONS: [Template; 10] = [
    Template::same(
        "records by partition",
        "SELECT _partition, count(*) AS records, max(_offset) AS last FROM access \
         GROUP BY _partition ORDER BY _partition",
    ),
    Template::same(
        "records and bytes of 5 % of the time",
        "SELECT count(*) AS records, sum({:bytes}) AS bytes FROM access \
         WHERE _timestamp >= '{from=}' AND _timestamp < '{to=}'",
    ),
    Template::same(
        "events by type",
        "SELECT {type} AS type, count(*) AS n FROM github GROUP BY 1 ORDER BY 2 DESC, 1",
    ),
    Template::same(
        "ten busiest repositories",
        "SELECT {repo.name} AS repo, count(*) AS n FROM github GROUP BY 1 \
         ORDER BY 2 DESC, 1 LIMIT 10",
    ),
    Template::same(
        "different actors by type",
        "SELECT {type} AS type, count(DISTINCT {actor.login}) AS actors FROM github GROUP BY 1 \
         ORDER BY 2 DESC, 1",
    ),
    Template::same(
        "events by plan of their actor, a join of two streams",
        "SELECT u.plan, count(*) AS n FROM (SELECT {actor.login} AS login FROM github) g \
         JOIN (SELECT {login} AS login, {plan} AS plan FROM users) u ON g.login = u.login \
         GROUP BY u.plan ORDER BY u.plan",
    ),
    Template::same(
        "percentiles of a number by type",
        "SELECT type, percentile_cont(0.5) WITHIN GROUP (ORDER BY id) AS p50, \
         percentile_cont(0.95) WITHIN GROUP (ORDER BY id) AS p95 \
         FROM (SELECT {type} AS type, CAST({actor.id:int} AS DOUBLE) AS id FROM github) e \
         GROUP BY type ORDER BY type",
    ),
    Template::same(
        "three busiest actors of each type, a window",
        "SELECT type, login, n, place FROM (SELECT type, login, n, \
         row_number() OVER (PARTITION BY type ORDER BY n DESC, login) AS place \
         FROM (SELECT {type} AS type, {actor.login} AS login, count(*) AS n FROM github \
         GROUP BY 1, 2) a) b WHERE place <= 3 ORDER BY type, place",
    ),
    Template::same(
        "lines with two texts in them",
        "SELECT count(*) AS n FROM access WHERE {:text} LIKE '%/presentations/logstash%' \
         AND {:text} LIKE '%Firefox%'",
    ),
    Template {
        name: "numbers of status documents over time",
        ours: "SELECT CAST(floor(date_part('epoch', _timestamp) / 5) AS BIGINT) AS bucket, \
               count(*) AS n, max({connections.active:int}) AS active, \
               avg({requests.current:int}) AS current FROM nginx GROUP BY 1 ORDER BY 1",
        datafusion: "SELECT CAST(floor(date_part('epoch', _timestamp) / 5) AS BIGINT) AS bucket, \
                     count(*) AS n, max({connections.active:int}) AS active, \
                     avg({requests.current:int}) AS current FROM nginx GROUP BY 1 ORDER BY 1",
        duckdb: "SELECT CAST(floor(epoch_us(_timestamp) / 5000000.0) AS BIGINT) AS bucket, \
                 count(*) AS n, max({connections.active:int}) AS active, \
                 avg({requests.current:int}) AS current FROM nginx GROUP BY 1 ORDER BY 1",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_known_to_every_side() {
        let texts = Texts::from([("from", "a".to_owned()), ("to", "b".to_owned())]);
        let dialects = [Dialect::Aquifer, Dialect::DataFusion, Dialect::DuckDb];
        for (fields, of_datafusion) in [(Fields::Columns, 10), (Fields::Json, 3)] {
            let all = QUESTIONS.each_ref().map(|of| of.question(&dialects, fields, &texts));
            let asked = |side: usize| all.iter().filter(|of| of.texts[side].is_some()).count();
            assert_eq!([asked(0), asked(1), asked(2)], [10, of_datafusion, 10], "{fields:?}");
        }
    }
}
