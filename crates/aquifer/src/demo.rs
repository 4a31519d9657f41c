//! `aquifer demo`.

use crate::cli::DemoArguments;
use crate::failure::Failure;

pub(crate) async fn run(arguments: DemoArguments) -> Result<(), Failure> {
    let _ = arguments;
    Err(Failure::failed("demo does not exist in this version yet"))
}
