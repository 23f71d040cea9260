//! Keys at work: what opens, what does not, and what stays in the file.

use super::*;
use crate::secret::Secret;

const OWNER: NamespaceId = NamespaceId([7; 16]);

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("keyring")
    }

    fn source(&self) -> KeySource {
        KeySource::File(self.directory.path().join("data.key"))
    }

    fn create(&self) -> Keyring {
        let key = ClusterKey::generate().unwrap();
        self.source().write(std::slice::from_ref(&key)).unwrap();
        let keys = (SecretBytes(b"node key".to_vec()), SecretBytes(b"authority key".to_vec()));
        let keyring = Keyring::create(
            self.file(),
            self.source(),
            key.clone(),
            Vec::new(),
            keys.0,
            keys.1,
            MachineClock::start(0),
        )
        .unwrap();
        let cluster = keyring.secret(NamespaceId::CLUSTER, key.bytes()).unwrap();
        keyring.keep(vec![cluster, keyring.fresh(OWNER).unwrap()]).unwrap();
        keyring
    }

    fn open(&self) -> Result<Keyring, KeyError> {
        Keyring::open(self.file(), self.source(), MachineClock::start(0))
    }
}

#[test]
fn what_was_sealed_opens_after_a_restart_and_nothing_else_does() {
    let place = Place::new();
    let sealed = place.create().seal(1, OWNER, b"here", b"hello").unwrap();
    let keyring = place.open().unwrap();
    assert_eq!(keyring.node_key().0, b"node key");
    assert_eq!(keyring.open_sealed(OWNER, b"here", &sealed).unwrap(), "hello");
    assert_eq!(keyring.open_sealed(OWNER, b"there", &sealed), Err(CipherError::Damaged));
    for index in 0..sealed.len() {
        let mut changed = sealed.to_vec();
        changed[index] ^= 0x10;
        // The format byte is for the caller to judge.
        assert_eq!(keyring.open_sealed(OWNER, b"here", &changed).is_ok(), index == 0, "byte {index}");
        assert!(keyring.open_sealed(OWNER, b"here", &sealed[..index]).is_err());
    }
    assert_eq!(keyring.seal(1, NamespaceId([8; 16]), b"", b""), Err(CipherError::NoKey));
}

#[test]
fn no_two_seals_are_alike_within_and_across_processes() {
    let place = Place::new();
    let first = place.create();
    let second = place.open().unwrap();
    let all: std::collections::BTreeSet<_> = [&first, &second, &first, &second]
        .iter()
        .map(|keyring| keyring.seal(1, OWNER, b"", b"same").unwrap())
        .collect();
    assert_eq!(all.len(), 4);
    for sealed in all {
        assert_eq!(first.open_sealed(OWNER, b"", &sealed).unwrap(), "same", "each opens what the other sealed");
    }
}

#[test]
fn a_destroyed_key_opens_nothing_and_is_in_no_file() {
    let place = Place::new();
    let keyring = place.create();
    let sealed = keyring.seal(1, OWNER, b"", b"secret").unwrap();
    assert!(!keyring.must_shred());
    let old_copy = std::fs::read(place.file()).unwrap();
    keyring.keep(keyring.secrets().into_iter().filter(|secret| secret.owner != OWNER).collect()).unwrap();
    assert_eq!(keyring.open_sealed(OWNER, b"", &sealed), Err(CipherError::NoKey));
    assert_eq!(place.open().unwrap().open_sealed(OWNER, b"", &sealed), Err(CipherError::NoKey));
    // An old copy of the file would still open, until the cluster key is another.
    assert!(keyring.must_shred());
    let other = ClusterKey::generate().unwrap();
    let mut secrets = keyring.secrets();
    secrets.retain(|secret| secret.owner != NamespaceId::CLUSTER);
    secrets.push(keyring.secret(NamespaceId::CLUSTER, other.bytes()).unwrap());
    keyring.keep(secrets).unwrap();
    keyring.relock(other.clone()).unwrap();
    place.source().write(&[other]).unwrap();
    assert!(!keyring.must_shred());
    assert!(place.open().is_ok());
    std::fs::write(place.file(), old_copy).unwrap();
    assert!(matches!(place.open(), Err(KeyError::Wrong { .. })));
}

#[test]
fn a_new_key_settles_before_it_is_used_and_the_old_one_still_opens() {
    let place = Place::new();
    let keyring = place.create();
    let old = keyring.seal(1, OWNER, b"", b"old").unwrap();
    let mut secrets = keyring.secrets();
    let mut fresh = keyring.fresh(OWNER).unwrap();
    secrets.push(fresh.clone());
    keyring.keep(secrets.clone()).unwrap();
    let number = |sealed: &[u8]| sealed[1..9].to_vec();
    assert_eq!(number(&keyring.seal(1, OWNER, b"", b"").unwrap()), number(&old));
    secrets.pop();
    secrets.iter_mut().filter(|secret| secret.owner == OWNER).for_each(|secret| secret.rank -= 2 * SETTLE_MS);
    fresh.rank -= SETTLE_MS + 1;
    secrets.push(fresh.clone());
    keyring.keep(secrets).unwrap();
    assert_eq!(number(&keyring.seal(1, OWNER, b"", b"").unwrap()), fresh.number.to_be_bytes());
    assert_eq!(keyring.open_sealed(OWNER, b"", &old).unwrap(), "old");
}

#[test]
fn a_file_that_is_damaged_or_without_its_key_is_refused() {
    let place = Place::new();
    drop(place.create());
    let good = std::fs::read(place.file()).unwrap();
    for (index, is_key_id) in [(0, false), (9, true), (20, false), (40, false), (good.len() - 1, false)] {
        let mut changed = good.clone();
        changed[index] ^= 1;
        std::fs::write(place.file(), changed).unwrap();
        let error = place.open().err().unwrap();
        assert_eq!(matches!(error, KeyError::Wrong { .. }), is_key_id, "byte {index}: {error}");
    }
    std::fs::write(place.file(), &good[..30]).unwrap();
    assert!(matches!(place.open(), Err(KeyError::Damaged(_))));
    std::fs::write(place.file(), &good).unwrap();
    std::fs::remove_file(place.directory.path().join("data.key")).unwrap();
    assert!(matches!(place.open(), Err(KeyError::Absent(_))));
}

#[test]
fn keys_come_from_variables_commands_and_files() {
    let key = ClusterKey::generate().unwrap();
    let text = key.to_text();
    let variable = KeySource::Variable(text.clone());
    assert_eq!(variable.read().unwrap().as_deref(), Some(std::slice::from_ref(&key)));
    assert!(!format!("{variable:?} {key:?}").contains(text.expose()));
    let command = KeySource::Command(format!("echo '# of a KMS'; echo {}", text.expose()));
    assert_eq!(command.read().unwrap().as_deref(), Some(std::slice::from_ref(&key)));
    let failing = KeySource::Command("exit 3".into()).read().unwrap_err().to_string();
    assert!(failing.contains("failed") && failing.contains('3'), "{failing}");
    for bad in ["", "# nothing", "hunter2", &"g".repeat(64)] {
        let error = KeySource::Variable(Secret::new(bad)).read().unwrap_err().to_string();
        assert!(
            error.contains("STARLING_CLUSTER_KEY") && (bad.is_empty() || !error.contains(&bad[..bad.len().min(7)])),
            "{error}"
        );
    }
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key.bytes());
    assert_eq!(ClusterKey::parse(&base64), Some(key));
}

mod any_bytes {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A file that nobody wrote, and one that was changed anywhere: refused, never read as something else.
        #[test]
        fn are_no_keyring(noise in prop::collection::vec(any::<u8>(), 0..400), at in any::<u16>(), flip in 1..=u8::MAX) {
            let place = Place::new();
            drop(place.create());
            let good = std::fs::read(place.file()).unwrap();
            let mut changed = good.clone();
            changed[usize::from(at) % good.len()] ^= flip;
            for bytes in [noise.clone(), [&good[..32], &noise].concat(), changed, good[..usize::from(at) % good.len()].to_vec()] {
                std::fs::write(place.file(), bytes).unwrap();
                let error = Keyring::open(place.file(), place.source(), MachineClock::start(0)).err();
                prop_assert!(matches!(error, Some(KeyError::Damaged(_) | KeyError::Wrong { .. })), "{:?}", error);
            }
        }

        #[test]
        fn of_a_source_are_keys_or_an_error(text in "\\PC{0,140}", bytes in any::<[u8; 32]>()) {
            if let Ok(keys) = ClusterKey::parse_all(&text) {
                prop_assert!(!keys.is_empty());
            }
            let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            let (key, commented) = (ClusterKey::parse(&hex).unwrap(), format!("# {text}\n {hex} # the key"));
            prop_assert_eq!(key.bytes(), &bytes);
            prop_assert!(ClusterKey::parse_all(&commented) == Ok(vec![key]));
        }
    }
}
