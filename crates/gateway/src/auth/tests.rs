//! Tokens and accounts against a real store in a temporary directory.

use std::future::Future;
use std::sync::atomic::AtomicU64;

use proptest::prelude::*;
use stonechat_mailbox::{CommitSink, Committed, JournalStore, StoreConfig};

use super::*;

struct NoSink;

impl CommitSink for NoSink {
    fn committed(&mut self, _: Vec<Committed>) {}
    fn failed(&mut self, error: &StoreError) {
        panic!("the store failed: {error}");
    }
}

/// A store, a clock that stands still until moved, and what is needed to start again.
struct World {
    dir: tempfile::TempDir,
    now_ms: Arc<AtomicU64>,
}

const START_MS: u64 = 1_800_000_000_000;

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            now_ms: Arc::new(AtomicU64::new(START_MS)),
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        JournalStore::open(StoreConfig::new(self.dir.path()), Box::new(NoSink)).unwrap()
    }

    async fn auth(&self, store: &Arc<dyn Store>) -> Authenticator {
        let now_ms = Arc::clone(&self.now_ms);
        let config = AuthConfig {
            token_ttl_s_default: 100,
            token_ttl_s_max: 1_000,
        };
        Authenticator::open_at(Arc::clone(store), config, move || {
            now_ms.load(Ordering::SeqCst)
        })
        .await
        .unwrap()
    }

    fn pass(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn device(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

fn refused(why: &'static str) -> Result<UserId, AuthError> {
    Err(AuthError::Unauthorized(why))
}

const EXPIRED: &str = "the token has expired";
const REVOKED: &str = "the token is revoked";

#[test]
fn a_token_names_its_user_and_only_its_device() {
    run(async {
        let world = World::new();
        let store = world.store();
        let auth = world.auth(&store).await;
        let (alice, phone, laptop) = (user("alice"), device("phone"), device("laptop"));
        let error = auth.issue(&alice, None, None).await.unwrap_err();
        assert!(matches!(error, AccountError::UnknownUser(_)), "{error}");
        assert!(auth.create_user(&alice).await.unwrap().1);
        assert!(!auth.create_user(&alice).await.unwrap().1);

        let any = auth.issue(&alice, None, None).await.unwrap().token;
        let bound = auth.issue(&alice, Some(&phone), None).await.unwrap().token;
        assert_eq!(auth.authenticate(&any, &phone).await, Ok(alice.clone()));
        assert_eq!(auth.authenticate(&any, &laptop).await, Ok(alice.clone()));
        assert_eq!(auth.authenticate(&bound, &phone).await, Ok(alice.clone()));
        assert_eq!(
            auth.authenticate(&bound, &laptop).await,
            refused("the token is for another device")
        );
        store.close().await.unwrap();
    });
}

#[test]
fn tokens_expire_and_have_a_longest_time() {
    run(async {
        let world = World::new();
        let store = world.store();
        let auth = world.auth(&store).await;
        let (alice, phone) = (user("alice"), device("phone"));
        auth.create_user(&alice).await.unwrap();
        for bad in [0, 1_001, u64::MAX] {
            let error = auth.issue(&alice, None, Some(bad)).await.unwrap_err();
            assert!(
                matches!(error, AccountError::Ttl { ttl_s_max: 1_000 }),
                "{error}"
            );
        }
        let issued = auth.issue(&alice, None, Some(5)).await.unwrap();
        let long = auth.issue(&alice, None, Some(1_000)).await.unwrap();
        world.now_ms.store(issued.expires_ms - 1, Ordering::SeqCst);
        assert_eq!(
            auth.authenticate(&issued.token, &phone).await,
            Ok(alice.clone())
        );
        world.pass(1);
        assert_eq!(
            auth.authenticate(&issued.token, &phone).await,
            refused(EXPIRED)
        );
        assert_eq!(auth.authenticate(&long.token, &phone).await, Ok(alice));
        // The longest time was lowered since: it holds for tokens issued before, too.
        let now_ms = world.now_ms.load(Ordering::SeqCst);
        let config = AuthConfig {
            token_ttl_s_default: 1,
            token_ttl_s_max: 4,
        };
        let strict = Authenticator::open_at(Arc::clone(&store), config, move || now_ms)
            .await
            .unwrap();
        assert_eq!(
            strict.authenticate(&long.token, &phone).await,
            refused(EXPIRED)
        );
        store.close().await.unwrap();
    });
}

#[test]
fn rotated_keys_verify_until_their_tokens_have_expired() {
    run(async {
        let world = World::new();
        let store = world.store();
        let auth = world.auth(&store).await;
        let (alice, phone) = (user("alice"), device("phone"));
        auth.create_user(&alice).await.unwrap();
        let old = auth.issue(&alice, None, Some(1_000)).await.unwrap();
        assert_eq!(auth.rotate(false).await.unwrap().keys, 2);
        let new = auth.issue(&alice, None, Some(1_000)).await.unwrap();
        let kid = |token: &str| token.split('.').nth(1).unwrap().to_owned();
        assert_ne!(kid(&old.token), kid(&new.token));
        assert_eq!(
            auth.authenticate(&old.token, &phone).await,
            Ok(alice.clone())
        );
        assert_eq!(
            auth.authenticate(&new.token, &phone).await,
            Ok(alice.clone())
        );

        // After the longest time a rotation drops the first key, not the second one.
        world.pass(1_000_000 + 10);
        assert_eq!(auth.rotate(false).await.unwrap().keys, 2);
        assert_eq!(
            auth.authenticate(&old.token, &phone).await,
            refused("the token's signing key is unknown or retired")
        );
        assert_eq!(
            auth.authenticate(&new.token, &phone).await,
            refused(EXPIRED)
        );

        // A key that leaked: everything signed so far is void at once.
        let last = auth.issue(&alice, None, None).await.unwrap();
        assert_eq!(auth.rotate(true).await.unwrap().keys, 1);
        assert_eq!(
            auth.authenticate(&last.token, &phone).await,
            refused("the token's signing key is unknown or retired")
        );
        for keys in 2..=keys::KEYS_MAX {
            assert_eq!(auth.rotate(false).await.unwrap().keys, keys);
        }
        let error = auth.rotate(false).await.unwrap_err();
        assert!(matches!(error, AccountError::TooManyKeys(_)), "{error}");
        store.close().await.unwrap();
    });
}

#[test]
fn revoking_voids_what_was_issued_and_nothing_later() {
    run(async {
        let world = World::new();
        let store = world.store();
        let auth = world.auth(&store).await;
        let (alice, phone) = (user("alice"), device("phone"));
        auth.create_user(&alice).await.unwrap();
        // The clock stands still: order must not hang on it.
        let one = auth.issue(&alice, None, None).await.unwrap();
        let two = auth.issue(&alice, None, None).await.unwrap();
        assert_eq!(auth.revoke(&one.id).await.unwrap(), alice);
        assert_eq!(
            auth.authenticate(&one.token, &phone).await,
            refused(REVOKED)
        );
        assert_eq!(
            auth.authenticate(&two.token, &phone).await,
            Ok(alice.clone())
        );
        assert!(auth.may_have_used(&alice, &phone, &two.id));
        assert!(!auth.may_have_used(&alice, &phone, &one.id));
        assert!(auth.may_have_used(&alice, &device("never-seen"), &one.id));

        assert!(auth.still_stands(&alice, &phone, Some(&one.id)).await);
        assert!(!auth.still_stands(&alice, &phone, Some(&two.id)).await);

        auth.revoke_all(&alice).await.unwrap();
        assert!(!auth.still_stands(&alice, &phone, None).await);
        assert_eq!(
            auth.authenticate(&two.token, &phone).await,
            refused(REVOKED)
        );
        let three = auth.issue(&alice, None, None).await.unwrap();
        assert_eq!(
            auth.authenticate(&three.token, &phone).await,
            Ok(alice.clone())
        );

        assert!(auth.still_stands(&alice, &phone, None).await);
        auth.set_disabled(&alice, true).await.unwrap();
        assert!(!auth.still_stands(&alice, &phone, None).await);
        assert_eq!(
            auth.authenticate(&three.token, &phone).await,
            refused("the user is disabled")
        );
        let error = auth.issue(&alice, None, None).await.unwrap_err();
        assert!(matches!(error, AccountError::Disabled(_)), "{error}");
        auth.set_disabled(&alice, false).await.unwrap();
        assert_eq!(
            auth.authenticate(&three.token, &phone).await,
            Ok(alice.clone())
        );

        store.remove_account(&alice).await.unwrap();
        assert!(!auth.still_stands(&alice, &phone, None).await);
        assert_eq!(
            auth.authenticate(&three.token, &phone).await,
            refused("there is no such user")
        );
        // Another user of the same name does not inherit tokens.
        auth.create_user(&alice).await.unwrap();
        assert_eq!(
            auth.authenticate(&three.token, &phone).await,
            refused(REVOKED)
        );
        for bad in ["", "alice", "alice.short", "Alice.AAAAAAAAAAAAAAAAAAAAAA"] {
            let error = auth.revoke(bad).await.unwrap_err();
            assert!(matches!(error, AccountError::TokenId), "{error}");
        }
        store.close().await.unwrap();
    });
}

#[test]
fn keys_and_revocations_survive_a_restart_and_the_latter_are_purged() {
    run(async {
        let world = World::new();
        let store = world.store();
        let auth = world.auth(&store).await;
        let (alice, phone) = (user("alice"), device("phone"));
        auth.create_user(&alice).await.unwrap();
        auth.rotate(false).await.unwrap();
        let good = auth.issue(&alice, None, None).await.unwrap();
        let void = auth.issue(&alice, None, None).await.unwrap();
        auth.revoke(&void.id).await.unwrap();
        store.close().await.unwrap();
        drop((auth, store));

        let store = world.store();
        let auth = world.auth(&store).await;
        assert_eq!(
            auth.authenticate(&good.token, &phone).await,
            Ok(alice.clone())
        );
        assert_eq!(
            auth.authenticate(&void.token, &phone).await,
            refused(REVOKED)
        );
        assert_eq!(store.values("auth/key/").await.unwrap().len(), 2);
        assert_eq!(store.values("auth/revoked/").await.unwrap().len(), 1);
        world.pass(1_000_001);
        auth.revoke("alice.AAAAAAAAAAAAAAAAAAAAAA").await.unwrap();
        let left = store.values("auth/revoked/").await.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, "auth/revoked/alice.AAAAAAAAAAAAAAAAAAAAAA");

        store
            .put_value("auth/key/x", Some("{}".into()))
            .await
            .unwrap();
        let error = KeyRing::load(&*store).await.err().unwrap();
        assert!(matches!(error, AccountError::Damaged { .. }), "{error}");
        store.close().await.unwrap();
    });
}

fn claims() -> impl Strategy<Value = Claims> {
    (
        "[a-z0-9._+-]{1,64}",
        proptest::option::of("[a-zA-Z0-9._-]{1,64}"),
        any::<u64>(),
        any::<u64>(),
        "[a-zA-Z0-9_-]{22}",
    )
        .prop_map(|(name, bound, issued_ms, expires_ms, nonce)| Claims {
            user: user(&name),
            device: bound.map(|name| device(&name)),
            issued_ms,
            expires_ms,
            nonce,
        })
}

fn ring() -> KeyRing {
    KeyRing::default().rotated(1, 1, false).unwrap().ring
}

proptest! {
    #[test]
    fn what_is_signed_verifies_and_its_id_names_the_user(claims in claims()) {
        let ring = ring();
        let token = ring.sign(&claims);
        prop_assert!(token.len() <= TOKEN_BYTES_MAX);
        prop_assert_eq!(token::user_of_id(&claims.id()), Some(claims.user.clone()));
        prop_assert_eq!(ring.verify(&token), Ok(claims));
    }

    #[test]
    fn another_key_does_not_verify(claims in claims()) {
        let (ring, other) = (ring(), ring());
        prop_assert!(other.verify(&ring.sign(&claims)).is_err());
        // Not even under the right key id.
        let forged = other.sign(&claims).replacen(other.signing_kid(), ring.signing_kid(), 1);
        prop_assert_eq!(ring.verify(&forged), Err("the token's signature is wrong"));
    }

    #[test]
    fn no_change_of_a_token_verifies(claims in claims(), at in any::<prop::sample::Index>(), with in any::<char>()) {
        let ring = ring();
        let token = ring.sign(&claims);
        let at = at.index(token.len());
        let mut forged = token.clone();
        forged.replace_range(at..=at, &with.to_string());
        if forged != token {
            prop_assert!(ring.verify(&forged).is_err());
        }
        prop_assert!(ring.verify(&token[..at]).is_err());
        let longer = format!("{token}{with}");
        prop_assert!(ring.verify(&longer).is_err());
    }

    #[test]
    fn what_is_not_a_token_is_refused(text in ".{0,200}") {
        prop_assert!(ring().verify(&text).is_err());
    }
}

#[test]
fn a_long_text_is_refused_before_any_work() {
    let ring = ring();
    let long = format!(
        "st1.{}.{}.x",
        ring.signing_kid(),
        "A".repeat(TOKEN_BYTES_MAX)
    );
    assert_eq!(ring.verify(&long), Err("the token is malformed"));
}

#[test]
fn what_was_issued_is_remembered_with_what_became_of_it() {
    run(async {
        let world = World::new();
        let store = world.store();
        let auth = world.auth(&store).await;
        let (alice, al, phone) = (user("alice"), user("al"), device("phone"));
        assert!(matches!(
            auth.issued(&alice).await,
            Err(AccountError::UnknownUser(_))
        ));
        for name in [&alice, &al] {
            auth.create_user(name).await.unwrap();
        }
        let before = auth.issue(&alice, None, Some(1_000)).await.unwrap();
        auth.revoke_all(&alice).await.unwrap();
        let short = auth.issue(&alice, Some(&phone), Some(1)).await.unwrap();
        let lost = auth.issue(&alice, None, Some(500)).await.unwrap();
        let good = auth.issue(&alice, None, Some(500)).await.unwrap();
        auth.issue(&al, None, None).await.unwrap();
        auth.revoke(&lost.id).await.unwrap();
        world.pass(2_000);

        // Also after a restart.
        drop(auth);
        let auth = world.auth(&store).await;
        let told = auth.issued(&alice).await.unwrap();
        let states: Vec<_> = told
            .iter()
            .map(|one| (one.id.as_str(), one.state))
            .collect();
        use TokenState::{Expired, Good, Revoked};
        let expected = [
            (good.id.as_str(), Good),
            (&lost.id, Revoked),
            (&short.id, Expired),
            (&before.id, Revoked),
        ];
        assert_eq!(states, expected);
        assert_eq!(told[2].device.as_ref(), Some(&phone));
        assert_eq!(told[2].expires_ms, short.expires_ms);
        // What is told agrees with what opens.
        for (one, issued) in told.iter().zip([&good, &lost, &short, &before]) {
            let opens = auth.authenticate(&issued.token, &phone).await.is_ok();
            assert_eq!(opens, one.state == Good, "{}", one.id);
        }
        auth.rotate(true).await.unwrap();
        let told = auth.issued(&alice).await.unwrap();
        assert_eq!(told[0].state, Revoked, "its key is gone");

        auth.forget_issued(&alice).await.unwrap();
        assert_eq!(auth.issued(&alice).await.unwrap(), []);
        assert_eq!(auth.issued(&al).await.unwrap().len(), 1, "another's stay");
        store.close().await.unwrap();
    });
}

#[test]
fn only_the_newest_tokens_are_remembered() {
    run(async {
        let world = World::new();
        let store = world.store();
        let auth = world.auth(&store).await;
        let alice = user("alice");
        auth.create_user(&alice).await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..ISSUED_MAX + 3 {
            ids.push(auth.issue(&alice, None, None).await.unwrap().id);
        }
        let told = auth.issued(&alice).await.unwrap();
        let told: Vec<_> = told.into_iter().map(|one| one.id).collect();
        ids.reverse();
        ids.truncate(ISSUED_MAX);
        assert_eq!(told, ids);
        store.close().await.unwrap();
    });
}
