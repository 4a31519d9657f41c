//! All users of the server.

use std::fmt;
use std::sync::Arc;

use aquifer_env::{Clock, Random, tasks};
use aquifer_stream::{Document, DocumentExpectation, DocumentKey, DocumentKind, StreamStore};
use aquifer_types::{TenantName, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use tokio::sync::{OnceCell, Semaphore};

use crate::mechanism::ScramHash;
use crate::verifier::SALT_BYTES;
use crate::{Error, ITERATIONS_DEFAULT, Password, User, UserName, Verifier};

/// Passwords that are hashed at a time; more wait. A flood of logins must leave
/// processors for everybody else.
const HASHES_MAX: usize = 2;
/// How often a change is tried anew where somebody else changed the same user.
const ATTEMPTS_MAX: usize = 16;

const SECRET_NAME: &str = "login-secret";
const SECRET_BYTES: usize = 32;

/// A handle to all users; cloning shares it.
#[derive(Clone)]
pub struct Users {
    inner: Arc<Inner>,
}

struct Inner {
    store: StreamStore,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Where the salts of users who do not exist come from: the same name gets
    /// the same salt for ever, as one who exists does. Made when it is first
    /// needed.
    secret: OnceCell<hmac::Key>,
    /// In its place for as long as the store takes nothing.
    stand_in: hmac::Key,
    hashing: Semaphore,
}

/// Whether a user may exist already when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// It must not.
    New,
    /// If it does, its password is replaced.
    Replace,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Users(…)")
    }
}

impl Users {
    /// The users of a store.
    #[must_use]
    pub fn new(store: StreamStore, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let mut bytes = [0; SECRET_BYTES];
        random.fill(&mut bytes);
        let stand_in = hmac::Key::new(hmac::HMAC_SHA512, &bytes);
        let (secret, hashing) = (OnceCell::new(), Semaphore::new(HASHES_MAX));
        Self { inner: Arc::new(Inner { store, clock, random, secret, stand_in, hashing }) }
    }

    /// A tenant's users, by name.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn list(&self, tenant: &TenantName) -> Result<Vec<User>, Error> {
        let documents = self.inner.store.documents(tenant, DocumentKind::User);
        documents
            .iter()
            .map(|(name, document)| User::of_document(UserName::new(name)?, &document.value))
            .collect()
    }

    /// A user.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Damaged`].
    pub fn get(&self, tenant: &TenantName, name: &UserName) -> Result<User, Error> {
        match self.find(tenant, name)? {
            Some((user, _)) => Ok(user),
            None => Err(Error::NotFound(name.to_string())),
        }
    }

    /// Creates a user with a password, or gives one a new password; durable when
    /// it returns. Open connections stay.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Verifier`] where the iterations are out of
    /// bounds; [`Error::Store`].
    pub async fn create(
        &self,
        tenant: &TenantName,
        name: &UserName,
        password: Password,
        iterations: Option<u32>,
        creation: Creation,
    ) -> Result<User, Error> {
        if creation == Creation::New && self.find(tenant, name)?.is_some() {
            return Err(Error::Exists(name.to_string()));
        }
        let iterations = iterations.unwrap_or(ITERATIONS_DEFAULT);
        let salts = ScramHash::ALL.map(|hash| (hash, self.salt()));
        let verifiers = self
            .hashing(move || {
                let derive = |(hash, salt)| {
                    Verifier::derive(hash, &password, salt, iterations)
                        .map(|verifier| (hash, verifier))
                };
                salts.into_iter().map(derive).collect::<Result<_, _>>()
            })
            .await?;
        let mut user = User { name: name.clone(), created: self.now(), verifiers };
        let expected = match creation {
            Creation::New => DocumentExpectation::Absent,
            Creation::Replace => {
                if let Some((old, _)) = self.find(tenant, name)? {
                    user.created = old.created;
                }
                DocumentExpectation::Any
            }
        };
        match self.put(tenant, &user, expected).await {
            Err(Error::Store(aquifer_stream::Error::DocumentChanged { .. })) => {
                Err(Error::Exists(name.to_string()))
            }
            other => other.map(|()| user),
        }
    }

    /// Deletes a user. Connections that are logged in stay until their session
    /// ends.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn delete(&self, tenant: &TenantName, name: &UserName) -> Result<(), Error> {
        let key = key(tenant, name);
        for _ in 0..ATTEMPTS_MAX {
            let Some(document) = self.inner.store.document(&key) else {
                return Err(Error::NotFound(name.to_string()));
            };
            let expected = DocumentExpectation::Version(document.version);
            match self.inner.store.delete_document(key.clone(), expected).await {
                Err(aquifer_stream::Error::DocumentChanged { .. }) => {}
                other => return Ok(other?),
            }
        }
        Err(Error::Contended(name.to_string()))
    }

    /// Sets or takes away one verifier of a user. A user without any is created
    /// by the first and deleted with the last.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is nothing to take away,
    /// [`Error::Contended`], [`Error::Store`].
    pub async fn set_verifier(
        &self,
        tenant: &TenantName,
        name: &UserName,
        hash: ScramHash,
        verifier: Option<Verifier>,
    ) -> Result<(), Error> {
        if let Some(verifier) = &verifier {
            verifier.check(hash)?;
        }
        for _ in 0..ATTEMPTS_MAX {
            let (mut user, expected) = match self.find(tenant, name)? {
                Some((user, version)) => (user, DocumentExpectation::Version(version)),
                None => {
                    let user = User {
                        name: name.clone(),
                        created: self.now(),
                        verifiers: std::collections::BTreeMap::new(),
                    };
                    (user, DocumentExpectation::Absent)
                }
            };
            match &verifier {
                Some(verifier) => {
                    user.verifiers.insert(hash, verifier.clone());
                }
                None => {
                    if user.verifiers.remove(&hash).is_none() {
                        return Err(Error::NotFound(name.to_string()));
                    }
                }
            }
            let done = if user.verifiers.is_empty() {
                let deleted = self.inner.store.delete_document(key(tenant, name), expected).await;
                deleted.map_err(Error::from)
            } else {
                self.put(tenant, &user, expected).await
            };
            match done {
                Err(Error::Store(aquifer_stream::Error::DocumentChanged { .. })) => {}
                other => return other,
            }
        }
        Err(Error::Contended(name.to_string()))
    }

    /// What a SCRAM login is checked against. A user who does not exist has a
    /// verifier too, one that nothing matches: who asks cannot tell the two
    /// apart.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub async fn verifier(
        &self,
        tenant: &TenantName,
        name: &UserName,
        hash: ScramHash,
    ) -> Result<Verifier, Error> {
        let user = self.find(tenant, name)?;
        let verifier = user.and_then(|(mut user, _)| user.verifiers.remove(&hash));
        // Asked for every user, so that a store that is slow to make the secret
        // does not tell who exists.
        let nobody = self.nobody(tenant, name, hash).await;
        Ok(verifier.unwrap_or(nobody))
    }

    /// Whether this is the user's password: by the stronger verifier where
    /// there are two. Takes the same time for users who do not exist.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub async fn is_password(
        &self,
        tenant: &TenantName,
        name: &UserName,
        password: Password,
    ) -> Result<bool, Error> {
        let user = self.find(tenant, name)?;
        let mut verifiers = user.map(|(user, _)| user.verifiers).unwrap_or_default();
        let of_user = ScramHash::ALL
            .into_iter()
            .find_map(|hash| verifiers.remove(&hash).map(|verifier| (hash, verifier)));
        let nobody = self.nobody(tenant, name, ScramHash::Sha512).await;
        let (hash, verifier) = of_user.unwrap_or((ScramHash::Sha512, nobody));
        Ok(self.hashing(move || verifier.matches(hash, &password)).await)
    }

    /// A nonce that was never used: printable, without a comma.
    #[must_use]
    pub fn nonce(&self) -> String {
        let mut bytes = [0; 24];
        self.inner.random.fill(&mut bytes);
        STANDARD.encode(bytes)
    }

    fn find(&self, tenant: &TenantName, name: &UserName) -> Result<Option<(User, u64)>, Error> {
        let document = self.inner.store.document(&key(tenant, name));
        let read = |document: Arc<Document>| {
            User::of_document(name.clone(), &document.value).map(|user| (user, document.version))
        };
        document.map(read).transpose()
    }

    async fn put(
        &self,
        tenant: &TenantName,
        user: &User,
        expected: DocumentExpectation,
    ) -> Result<(), Error> {
        let text = user.to_document()?;
        self.inner.store.put_document(key(tenant, &user.name), text, expected).await?;
        Ok(())
    }

    /// The verifier of a user who does not exist.
    async fn nobody(&self, tenant: &TenantName, name: &UserName, hash: ScramHash) -> Verifier {
        let inner = &self.inner;
        let made = || secret(&inner.store, inner.random.as_ref());
        let secret = match inner.secret.get_or_try_init(made).await {
            Ok(secret) => secret,
            Err(error) => {
                tracing::warn!(%error, "the secret of logins cannot be stored yet");
                &inner.stand_in
            }
        };
        let of = |what: &str| {
            let mut context = hmac::Context::with_key(secret);
            // No part can pass for another's end: neither has a NUL in it.
            for part in [what, hash.as_str(), tenant.as_str(), name.as_str()] {
                context.update(part.as_bytes());
                context.update(&[0]);
            }
            context.sign()
        };
        let mut salt = of("salt").as_ref().to_vec();
        salt.truncate(SALT_BYTES);
        let key = |what| {
            let mut key = of(what).as_ref().to_vec();
            key.resize(hash.bytes(), 0);
            key
        };
        Verifier {
            salt,
            iterations: ITERATIONS_DEFAULT,
            stored_key: key("stored key"),
            server_key: key("server key"),
        }
    }

    async fn hashing<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        // The semaphore is never closed.
        let _permit = self.inner.hashing.acquire().await;
        tasks::run_blocking(work).await
    }

    fn salt(&self) -> Vec<u8> {
        let mut salt = vec![0; SALT_BYTES];
        self.inner.random.fill(&mut salt);
        salt
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.inner.clock.now_ms())
    }
}

fn key(tenant: &TenantName, name: &UserName) -> DocumentKey {
    DocumentKey::new(tenant.clone(), DocumentKind::User, name.as_str())
}

/// The server's secret, made where there is none.
async fn secret(store: &StreamStore, random: &dyn Random) -> Result<hmac::Key, Error> {
    let key = DocumentKey::new(TenantName::default_tenant(), DocumentKind::Server, SECRET_NAME);
    let damaged = |why: &str| Error::Damaged { name: SECRET_NAME.to_owned(), why: why.to_owned() };
    for _ in 0..ATTEMPTS_MAX {
        if let Some(document) = store.document(&key) {
            let bytes = STANDARD.decode(&document.value).unwrap_or_default();
            if bytes.len() != SECRET_BYTES {
                return Err(damaged("it has a wrong size"));
            }
            return Ok(hmac::Key::new(hmac::HMAC_SHA512, &bytes));
        }
        let mut bytes = [0; SECRET_BYTES];
        random.fill(&mut bytes);
        let text = STANDARD.encode(bytes);
        match store.put_document(key.clone(), text, DocumentExpectation::Absent).await {
            Ok(_) | Err(aquifer_stream::Error::DocumentChanged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Contended(SECRET_NAME.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use aquifer_stream::{Environment, Options};
    use prometheus_client::registry::Registry;

    use super::*;

    async fn open(data: &Path) -> (StreamStore, Users) {
        let environment = Environment::real();
        let (clock, random) = (environment.clock.clone(), environment.random.clone());
        let options =
            Options { data: data.join("data"), journal_file_bytes: 1 << 20, ..Options::default() };
        let mut registry = Registry::default();
        let store = StreamStore::open(options, environment, &mut registry).await.unwrap();
        let users = Users::new(store.clone(), clock, random);
        (store, users)
    }

    fn tenant() -> TenantName {
        TenantName::default_tenant()
    }

    fn name(name: &str) -> UserName {
        UserName::new(name).unwrap()
    }

    fn password(text: &str) -> Password {
        Password::new(text).unwrap()
    }

    #[tokio::test]
    async fn users_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let (store, users) = open(directory.path()).await;
        let (alice, bob) = (name("alice"), name("bob"));
        let create = async |user: &UserName, text: &str, creation| {
            users.create(&tenant(), user, password(text), Some(4096), creation).await
        };
        create(&alice, "one", Creation::New).await.unwrap();
        create(&bob, "two", Creation::New).await.unwrap();
        let again = create(&alice, "other", Creation::New).await;
        assert!(matches!(again, Err(Error::Exists(_))));
        create(&alice, "three", Creation::Replace).await.unwrap();
        users.delete(&tenant(), &bob).await.unwrap();
        assert!(matches!(users.delete(&tenant(), &bob).await, Err(Error::NotFound(_))));
        let nobody = users.verifier(&tenant(), &bob, ScramHash::Sha256).await.unwrap();
        drop(users);
        store.shutdown().await.unwrap();
        drop(store);

        let (store, users) = open(directory.path()).await;
        let names: Vec<_> =
            users.list(&tenant()).unwrap().into_iter().map(|user| user.name).collect();
        assert_eq!(names, std::slice::from_ref(&alice));
        for (user, text, is_right) in [
            (&alice, "three", true),
            (&alice, "one", false),
            (&bob, "two", false),
            (&name("carol"), "three", false),
        ] {
            let found = users.is_password(&tenant(), user, password(text)).await.unwrap();
            assert_eq!(found, is_right, "{user} {text}");
        }
        // The salt of one who does not exist is as constant as that of one who does.
        assert_eq!(users.verifier(&tenant(), &bob, ScramHash::Sha256).await.unwrap(), nobody);
        store.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn no_password_is_ever_written() {
        let directory = tempfile::tempdir().unwrap();
        let (store, users) = open(directory.path()).await;
        let secret = "a-password-that-is-easily-found";
        users
            .create(&tenant(), &name("alice"), password(secret), None, Creation::New)
            .await
            .unwrap();
        store.shutdown().await.unwrap();
        let disk = aquifer_env::RealDisk::new();
        let mut directories = vec![directory.path().to_owned()];
        let mut is_name_found = false;
        while let Some(path) = directories.pop() {
            use aquifer_env::Disk as _;
            directories.extend(disk.list_dirs(&path).unwrap());
            for file in disk.list(&path).unwrap() {
                let file = disk.open_read(&file).unwrap();
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_at(&mut bytes, 0).unwrap();
                let has =
                    |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!has(secret));
                is_name_found |= has("alice");
            }
        }
        assert!(is_name_found, "the user is not in any file that was looked at");
    }

    #[tokio::test]
    async fn verifiers_come_and_go_one_by_one() {
        let directory = tempfile::tempdir().unwrap();
        let (store, users) = open(directory.path()).await;
        let user = name("alice");
        let verifier =
            |hash| Verifier::derive(hash, &password("one"), b"salt".to_vec(), 4096).unwrap();
        let set = async |hash, verifier| users.set_verifier(&tenant(), &user, hash, verifier).await;
        for hash in ScramHash::ALL {
            assert!(matches!(set(hash, None).await, Err(Error::NotFound(_))));
            set(hash, Some(verifier(hash))).await.unwrap();
        }
        let found = users.get(&tenant(), &user).unwrap().verifiers;
        assert_eq!(found, ScramHash::ALL.map(|hash| (hash, verifier(hash))).into());
        let crossed = set(ScramHash::Sha256, Some(verifier(ScramHash::Sha512))).await;
        assert!(matches!(crossed, Err(Error::Verifier(_))));
        set(ScramHash::Sha512, None).await.unwrap();
        assert!(users.is_password(&tenant(), &user, password("one")).await.unwrap());
        set(ScramHash::Sha256, None).await.unwrap();
        assert!(matches!(users.get(&tenant(), &user), Err(Error::NotFound(_))));
        store.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn those_who_do_not_exist_look_like_users() {
        let directory = tempfile::tempdir().unwrap();
        let (store, users) = open(directory.path()).await;
        let mut salts = BTreeSet::new();
        for who in ["a", "b"] {
            for hash in ScramHash::ALL {
                let verifier = users.verifier(&tenant(), &name(who), hash).await.unwrap();
                verifier.check(hash).unwrap();
                assert_eq!(verifier.iterations(), ITERATIONS_DEFAULT);
                assert_eq!(verifier.salt.len(), SALT_BYTES);
                salts.insert(verifier.salt);
            }
        }
        assert_eq!(salts.len(), 4);
        assert_ne!(users.nonce(), users.nonce());
        store.shutdown().await.unwrap();
    }
}
