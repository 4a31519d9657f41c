//! What a client wants to be answered in (RFC 9110, 12.5.1).

use axum::http::{HeaderMap, header};

use crate::Problem;
use crate::problem::HttpProblem;

/// No more of a header is repeated in a problem.
const SHOWN_CHARS_MAX: usize = 200;

/// The form that the client likes best, the first one that it names among
/// equals; `form_of` knows those of media types in lower case. `default` where
/// it does not say.
pub(crate) fn accepted<T: Copy>(
    headers: &HeaderMap,
    default: T,
    form_of: impl Fn(&str) -> Option<T>,
) -> Result<T, Problem> {
    let Some(accept) = headers.get(header::ACCEPT) else { return Ok(default) };
    let accept = accept.to_str().unwrap_or_default();
    let mut best: Option<(u16, T)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let Some(form) = form_of(&name) else { continue };
        let quality = parts
            .find_map(|part| part.strip_prefix("q="))
            .map_or(1.0, |quality| quality.parse::<f32>().unwrap_or(0.0));
        let quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
        if quality > best.map_or(0, |(before, _)| before) {
            best = Some((quality, form));
        }
    }
    best.map(|(_, form)| form).ok_or_else(|| {
        let accept: String = accept.chars().take(SHOWN_CHARS_MAX).collect();
        Problem::http(HttpProblem::NotAcceptable, format!("this cannot be answered as '{accept}'"))
    })
}
