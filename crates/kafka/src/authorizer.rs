//! Who asks, for what, and whether that is allowed.
//!
//! Every handler asks the [`Authorizer`] about each resource that a request
//! names; policies live behind it and nowhere else.

use std::fmt;

use aquifer_types::TenantName;
use aquifer_users::Mechanism;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The tenant whose names the connection sees.
    pub tenant: TenantName,
    /// The user's name; `ANONYMOUS` where the listener asks for none; the
    /// certificate's subject (RFC 2253) where that is the proof.
    pub user: String,
    /// What proved it.
    pub proof: Proof,
}

/// How a principal was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proof {
    /// Not at all.
    Nothing,
    /// By a client certificate that a trusted authority signed.
    Certificate,
    /// By a SASL mechanism.
    Sasl(Mechanism),
}

impl Principal {
    /// Whoever comes through a listener that asks for no user.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            tenant: TenantName::default_tenant(),
            user: "ANONYMOUS".to_owned(),
            proof: Proof::Nothing,
        }
    }
}

/// What a request wants to do, in Kafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// See that it exists.
    Describe,
    /// Read records or positions.
    Read,
    /// Append records.
    Write,
    /// Create it.
    Create,
    /// Delete it.
    Delete,
    /// Change it.
    Alter,
    /// See its configuration.
    DescribeConfigs,
    /// Change its configuration.
    AlterConfigs,
}

/// What a request wants to do it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A stream of the principal's tenant.
    Stream(&'a str),
    /// A consumer group of the principal's tenant.
    Group(&'a str),
    /// A transactional id of the principal's tenant.
    TransactionalId(&'a str),
    /// The server as a whole.
    Cluster,
}

/// The answer of an [`Authorizer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// Decides about requests; called on the data path, so it answers at once.
pub trait Authorizer: fmt::Debug + Send + Sync + 'static {
    /// Whether `principal` may do `action` to `resource`.
    fn decide(&self, principal: &Principal, action: Action, resource: Resource<'_>) -> Decision;
}

/// Allows everything to everybody who came through a listener, until there are
/// policies.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn decide(&self, _: &Principal, _: Action, _: Resource<'_>) -> Decision {
        Decision::Allow
    }
}
