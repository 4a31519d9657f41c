//! `DescribeUserScramCredentials` and `AlterUserScramCredentials` (KIP-554):
//! users, as Kafka's own tools manage them.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_users::{Error, ScramHash, User, UserName, Verifier};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Action, Resource};
use crate::call::Call;

/// One user's changes: by hash, the new verifier or none.
type Changes = BTreeMap<ScramHash, Option<Verifier>>;

/// A code and the words that go with it.
type Refusal = (ResponseError, String);

/// Which users there are, and how often their passwords are hashed.
pub(crate) async fn describe(
    call: &Call,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let response = DescribeUserScramCredentialsResponse::default();
    if !call.allows(Action::Describe, Resource::Cluster) {
        return response.with_error_code(ResponseError::ClusterAuthorizationFailed.code());
    }
    let (users, tenant) = (&call.broker.users, &call.principal.tenant);
    let wanted = request.users.unwrap_or_default();
    if wanted.is_empty() {
        return match users.list(tenant) {
            Ok(users) => response.with_results(users.iter().map(described).collect()),
            Err(error) => {
                let (code, message) = refusal(&error);
                response
                    .with_error_code(code.code())
                    .with_error_message(Some(StrBytes::from_string(message)))
            }
        };
    }
    let mut counts = BTreeMap::<&str, u32>::new();
    for user in &wanted {
        *counts.entry(user.name.as_str()).or_default() += 1;
    }
    let results = counts.iter().map(|(name, count)| {
        let found = if *count > 1 {
            Err((ResponseError::DuplicateResource, "it is asked for twice".to_owned()))
        } else {
            let found = UserName::new(name).and_then(|name| users.get(tenant, &name));
            found.map_err(|error| refusal(&error))
        };
        match found {
            Ok(user) => described(&user),
            Err((code, message)) => DescribeUserScramCredentialsResult::default()
                .with_user(StrBytes::from_string((*name).to_owned()))
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_string(message))),
        }
    });
    response.with_results(results.collect())
}

/// Sets and takes away verifiers; a user without any is none.
pub(crate) async fn alter(
    call: &Call,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let mut by_user = BTreeMap::<String, Result<Changes, Refusal>>::new();
    let mut names = BTreeSet::new();
    for of in &request.deletions {
        names.insert(of.name.to_string());
        add(&mut by_user, &of.name, hash(of.mechanism).map(|hash| (hash, None)));
    }
    for of in &request.upsertions {
        let verifier = hash(of.mechanism).and_then(|hash| {
            let iterations = u32::try_from(of.iterations).unwrap_or(0);
            let (salt, salted) = (of.salt.to_vec(), &of.salted_password);
            match Verifier::of_salted_password(hash, salted, salt, iterations) {
                Ok(verifier) => Ok((hash, Some(verifier))),
                Err(error) => Err(refusal(&error)),
            }
        });
        add(&mut by_user, &of.name, verifier);
    }
    let is_allowed = call.allows(Action::Alter, Resource::Cluster);
    let mut results = Vec::with_capacity(by_user.len());
    for (name, changes) in by_user {
        let done = match changes {
            _ if !is_allowed => {
                let code = ResponseError::ClusterAuthorizationFailed;
                Err((code, "users may not be changed".to_owned()))
            }
            Ok(changes) => apply(call, &name, changes).await,
            Err(refusal) => Err(refusal),
        };
        let result =
            AlterUserScramCredentialsResult::default().with_user(StrBytes::from_string(name));
        results.push(match done {
            Ok(()) => result,
            Err((code, message)) => result
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_string(message))),
        });
    }
    AlterUserScramCredentialsResponse::default().with_results(results)
}

fn add(
    by_user: &mut BTreeMap<String, Result<Changes, Refusal>>,
    name: &str,
    change: Result<(ScramHash, Option<Verifier>), Refusal>,
) {
    let of_user = by_user.entry(name.to_owned()).or_insert_with(|| Ok(Changes::new()));
    let Ok(changes) = of_user else { return };
    let refused = match change {
        Ok((hash, verifier)) => {
            if changes.insert(hash, verifier).is_none() {
                return;
            }
            (ResponseError::DuplicateResource, "one mechanism is changed twice".to_owned())
        }
        Err(refusal) => refusal,
    };
    *of_user = Err(refused);
}

async fn apply(call: &Call, name: &str, changes: Changes) -> Result<(), Refusal> {
    let (users, tenant) = (&call.broker.users, &call.principal.tenant);
    let refused = |error: Error| refusal(&error);
    let name = UserName::new(name).map_err(refused)?;
    // New ones first: a user whose last verifier goes is deleted.
    let (new, gone): (Changes, Changes) =
        changes.into_iter().partition(|(_, verifier)| verifier.is_some());
    if let Some((hash, _)) = gone.first_key_value() {
        let user = users.get(tenant, &name).map_err(refused)?;
        if !gone.keys().all(|hash| user.verifiers.contains_key(hash)) {
            let message = format!("{name} has no {}", hash.as_str());
            return Err((ResponseError::ResourceNotFound, message));
        }
    }
    for (hash, verifier) in new.into_iter().chain(gone) {
        users.set_verifier(tenant, &name, hash, verifier).await.map_err(refused)?;
    }
    Ok(())
}

fn described(user: &User) -> DescribeUserScramCredentialsResult {
    let infos = user.verifiers.iter().map(|(hash, verifier)| {
        CredentialInfo::default()
            .with_mechanism(number(*hash))
            .with_iterations(i32::try_from(verifier.iterations()).unwrap_or(i32::MAX))
    });
    DescribeUserScramCredentialsResult::default()
        .with_user(StrBytes::from_string(user.name.to_string()))
        .with_credential_infos(infos.collect())
}

/// Kafka's number of a hash.
const fn number(hash: ScramHash) -> i8 {
    match hash {
        ScramHash::Sha256 => 1,
        ScramHash::Sha512 => 2,
    }
}

fn hash(number: i8) -> Result<ScramHash, Refusal> {
    match number {
        1 => Ok(ScramHash::Sha256),
        2 => Ok(ScramHash::Sha512),
        other => Err((
            ResponseError::UnsupportedSaslMechanism,
            format!("mechanism {other} is not known"),
        )),
    }
}

fn refusal(error: &Error) -> Refusal {
    let code = match error {
        Error::NotFound(_) => ResponseError::ResourceNotFound,
        Error::Exists(_) => ResponseError::DuplicateResource,
        Error::Name { .. } | Error::Password { .. } | Error::Verifier(_) => {
            ResponseError::UnacceptableCredential
        }
        Error::Contended(_) => ResponseError::RequestTimedOut,
        Error::Damaged { .. } => ResponseError::UnknownServerError,
        Error::Store(error) => crate::error_code::error_code(error),
    };
    (code, error.to_string())
}
