//! `aquifer verify` and `aquifer recover`: work on a data directory that no
//! server uses.

use crate::cli::{RecoverArguments, VerifyArguments};
use crate::config;
use crate::failure::Failure;

pub(crate) async fn verify(arguments: VerifyArguments) -> Result<(), Failure> {
    let _config = config::of_arguments(&arguments.config)?;
    Err(Failure::failed("verify does not exist in this version yet"))
}

pub(crate) async fn recover(arguments: RecoverArguments) -> Result<(), Failure> {
    let _config = config::of_arguments(&arguments.config)?;
    Err(Failure::failed(format!(
        "recover does not exist in this version yet, {} was not read",
        arguments.from
    )))
}
