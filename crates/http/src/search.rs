//! `GET /v1/streams/{stream}/search` and `…/histogram`: what matches, the newest
//! first, and how much of it there is over time.
//!
//! The query is understood here once, so that a wrong one is refused before
//! anything is started for it; the engine decides by it. Nothing is searched
//! here.

use aquifer_query::{
    AnswerForm, Ask, HistogramQuestion, Limits, Question, SearchOrder, SearchQuestion, TimeRange,
};
use aquifer_search::Query;
use aquifer_types::Timestamp;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;

use crate::accept::accepted;
use crate::app::{App, Shared, StreamAt, tenant};
use crate::parameters::Parameters;
use crate::sql::{body, events, parts, refusal};
use crate::{Problem, time};

/// Hits of a page where the request does not say.
const HITS_DEFAULT: u64 = 100;
const HITS_MAX: u64 = 10_000;
/// Buckets where the request does not say.
const BUCKETS_DEFAULT: u32 = 60;
const BUCKETS_MAX: u32 = 10_000;
/// Values of a field.
const TOP_DEFAULT: u32 = 10;
const TOP_MAX: u32 = 1_000;
/// Fields whose values are counted.
const FIELDS_MAX: usize = 16;

pub(crate) async fn search(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    accepted(request.headers(), (), |name| is_json(name).then_some(()))?;
    let parameters = Parameters::parse(
        request.uri().query(),
        &["q", "from", "to", "limit", "after", "highlight", "total", "time_ms_max"],
    )?;
    let (query, range) = asked(&app, &parameters)?;
    let hits_max = parameters.parsed("limit", "a number of hits")?.unwrap_or(HITS_DEFAULT);
    if hits_max > HITS_MAX {
        return Err(Problem::invalid(format!("the parameter 'limit' is above {HITS_MAX}"))
            .next("Ask for fewer, and go on with 'after'."));
    }
    let ask = Ask::Search(SearchQuestion {
        stream: path.name,
        query,
        range,
        order: SearchOrder::NewestFirst,
        hits_max,
        after: parameters.text("after")?.filter(|after| !after.is_empty()).map(ToOwned::to_owned),
        wants_total: flag(&parameters, "total")?,
        wants_highlights: flag(&parameters, "highlight")?,
    });
    answer(&app, ask, limits(&parameters)?, Form::Document).await
}

pub(crate) async fn histogram(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let form = form(request.headers())?;
    let parameters = Parameters::parse(
        request.uri().query(),
        &["q", "from", "to", "buckets", "top", "top_values", "time_ms_max"],
    )?;
    let (query, range) = asked(&app, &parameters)?;
    let number = |name, what, default: u32, max: u32| {
        let number = parameters.parsed(name, what)?.unwrap_or(default);
        if (1..=max).contains(&number) {
            return Ok(number);
        }
        let detail = format!("the parameter '{name}' is {number}, it may be 1 to {max}");
        Err(Problem::invalid(detail))
    };
    let fields = parameters.text("top")?.unwrap_or_default();
    let top_of: Vec<String> =
        fields.split(',').filter(|field| !field.is_empty()).map(ToOwned::to_owned).collect();
    if top_of.len() > FIELDS_MAX {
        let detail = format!("the parameter 'top' names more than {FIELDS_MAX} fields");
        return Err(Problem::invalid(detail));
    }
    let ask = Ask::Histogram(HistogramQuestion {
        stream: path.name,
        query,
        range,
        buckets_max: number("buckets", "a number of buckets", BUCKETS_DEFAULT, BUCKETS_MAX)?,
        top_of,
        top_max: number("top_values", "a number of values", TOP_DEFAULT, TOP_MAX)?,
    });
    answer(&app, ask, limits(&parameters)?, form).await
}

/// How a histogram is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Once, when everything is counted.
    Document,
    /// What is counted so far, from time to time.
    Events,
}

fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    accepted(headers, Form::Document, |name| match name {
        "text/event-stream" => Some(Form::Events),
        name => is_json(name).then_some(Form::Document),
    })
}

fn is_json(media_type: &str) -> bool {
    matches!(media_type, "*/*" | "application/*" | "application/json")
}

/// The query's text, understood once, and the time range.
fn asked(app: &Shared, parameters: &Parameters) -> Result<(String, TimeRange), Problem> {
    let query = parameters.text("q")?.unwrap_or_default().to_owned();
    Query::parse(&query, Timestamp(app.clock.now_ms())).map_err(|error| {
        Problem::invalid(error.to_string())
            .named("search-syntax".to_owned())
            .member("position", error.position)
            .next("The language is described in docs/search.md.")
    })?;
    let moment = |name| -> Result<Option<Timestamp>, Problem> {
        let Some(text) = parameters.text(name)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        time::parse(text).map(Some).ok_or_else(|| {
            let text: String = text.chars().take(80).collect();
            let detail = format!("the parameter '{name}' is '{text}', it should be {}", time::FORM);
            Problem::invalid(detail).member("parameter", name)
        })
    };
    Ok((query, TimeRange { from: moment("from")?, to: moment("to")? }))
}

fn flag(parameters: &Parameters, name: &'static str) -> Result<bool, Problem> {
    Ok(parameters.parsed(name, "true or false")?.unwrap_or(false))
}

/// The server's own limits bound these.
fn limits(parameters: &Parameters) -> Result<Limits, Problem> {
    let time_ms_max = parameters.parsed("time_ms_max", "a number of ms")?.unwrap_or(u64::MAX);
    Ok(Limits { time_ms_max, ..Limits::NONE })
}

async fn answer(app: &App, ask: Ask, limits: Limits, form: Form) -> Result<Response, Problem> {
    let question = Question {
        tenant: tenant(),
        ask,
        form: AnswerForm::Json,
        limits,
        wants_progress: form == Form::Events,
    };
    let answer = app.queries.ask(question).await.map_err(refusal::problem)?;
    match form {
        Form::Document => body::respond(app, AnswerForm::Json, parts::of(answer)).await,
        Form::Events => Ok(events::respond(app, answer, "histogram")),
    }
}
