//! Functions and operators beyond DataFusion's own.
//!
//! Keys and values are bytes, and nearly always text. So text functions, LIKE,
//! regular expressions, `||` and the JSON operators take bytes as they take
//! text; bytes that are not UTF-8 are null there, and never fail a statement.
//! Comparisons with text compare the bytes.

mod aggregate;
mod bounded;
mod concatenated;
mod json;
mod pattern;
mod rules;
mod text;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;

pub(crate) use pattern::{LIKE_PATTERN, like_pattern};
pub(crate) use rules::{BytesAsText, Operators};
#[cfg(test)]
pub(crate) use text::text;

/// Registers everything with `registry`, which has DataFusion's own functions.
/// One call of a function makes at most `bytes_max` out of a batch.
pub(crate) fn register(registry: &mut dyn FunctionRegistry, bytes_max: u64) -> Result<()> {
    let lists = ["range", "generate_series", "array_repeat", "array_resize", "to_char", "overlay"];
    let lists = lists.iter().filter_map(|name| registry.udf(name).ok()).collect::<Vec<_>>();
    let over_text = datafusion::functions::string::functions()
        .into_iter()
        .chain(datafusion::functions::unicode::functions())
        .chain(datafusion::functions::regex::functions())
        .chain(json::functions())
        .chain([pattern::function()])
        .chain(lists);
    for function in over_text {
        registry.register_udf(Arc::new(text::of_bytes(function, bytes_max)))?;
    }
    for name in ["coalesce", "nvl", "nvl2", "nullif", "greatest", "least"] {
        let function = registry.udf(name)?;
        registry.register_udf(Arc::new(text::of_bytes_beside_text(function)))?;
    }
    registry.register_udf(text::text())?;
    registry.register_udf(crate::asof::condition())?;
    for function in aggregate::functions() {
        registry.register_udaf(Arc::new(function))?;
    }
    registry.register_function_rewrite(Arc::new(rules::TypedJson))
}
