//! Users: who they are and how a login is proved.
//!
//! A user is a document of the ledger that holds verifiers (RFC 5802), never a
//! password: whoever reads the catalog, a manifest or the journal cannot log in
//! with what stands there. [`Users`] creates, lists and deletes them; [`sasl`]
//! has the mechanisms as pure state machines, which any door that asks for a
//! login can use. What a user may *do* is not decided here.
//!
//! Everything is written by one ledger commit a change, so a crash leaves the
//! user as it was or as it is to be.

mod error;
mod mechanism;
mod password;
pub mod sasl;
mod user;
mod users;
mod verifier;

pub use error::Error;
pub use mechanism::{Mechanism, ScramHash};
pub use password::{PASSWORD_BYTES_MAX, Password};
pub use user::{User, UserName};
pub use users::{Creation, Users};
pub use verifier::{ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, Verifier};
