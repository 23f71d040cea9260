//! What every request asks for (whose token, whose namespace), kept until any system entry changes here.
//!
//! The store counts commits that touch system entries; what was read under an older count is not used again. So a
//! change is seen as soon as it is committed, wherever it was made.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// Entries kept by one cache; over it the cache starts anew.
const CACHED_MAX: usize = 16_384;

/// A cache of decoded system entries.
pub(super) struct Cache<K, V>(RwLock<(u64, BTreeMap<K, V>)>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(RwLock::new((0, BTreeMap::new())))
    }
}

impl<K: Ord, V: Clone> Cache<K, V> {
    /// What was put under this key and generation, or what `load` finds. Only what is found is kept: guesses at
    /// tokens fill no memory.
    pub(super) fn get_or<E>(
        &self,
        generation: u64,
        key: K,
        load: impl FnOnce(&K) -> Result<Option<V>, E>,
    ) -> Result<Option<V>, E> {
        let cached = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if cached.0 == generation
            && let Some(value) = cached.1.get(&key)
        {
            return Ok(Some(value.clone()));
        }
        drop(cached);
        let Some(value) = load(&key)? else { return Ok(None) };
        let mut cached = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if cached.0 < generation || cached.1.len() >= CACHED_MAX {
            *cached = (generation.max(cached.0), BTreeMap::new());
        }
        if cached.0 == generation {
            cached.1.insert(key, value.clone());
        }
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_generation_forgets_and_an_old_one_leaves_nothing() {
        let cache = Cache::default();
        let get = |generation, found: Option<u8>| cache.get_or(generation, "key", |_| Ok::<_, ()>(found));
        assert_eq!(get(1, None), Ok(None));
        assert_eq!(get(1, Some(7)), Ok(Some(7)));
        assert_eq!(get(1, None), Ok(Some(7)), "kept");
        assert_eq!(get(2, Some(8)), Ok(Some(8)), "read anew");
        assert_eq!(get(1, Some(9)), Ok(Some(9)), "a late reader of an old generation");
        assert_eq!(get(2, None), Ok(Some(8)), "did no harm");
    }
}
