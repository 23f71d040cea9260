//! What every request asks for (whose token, whose namespace), kept until any system entry changes here.
//!
//! The store counts commits that touch system entries; what was read under an older count is not used again. So a
//! change is seen as soon as it is committed, wherever it was made.

use std::sync::Arc;

use arc_swap::ArcSwap;
use imbl::OrdMap;

/// Entries kept by one cache; over it the cache starts anew.
const CACHED_MAX: usize = 16_384;

/// A cache of decoded system entries. Whoever reads waits for nobody, and changes nothing that others read.
pub(super) struct Cache<K, V>(ArcSwap<(u64, OrdMap<K, V>)>);

impl<K: Ord, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(ArcSwap::from_pointee((0, OrdMap::new())))
    }
}

impl<K: Ord + Clone, V: Clone> Cache<K, V> {
    /// What `show` makes of what was put under this key and generation, or of what `load` finds. Only what is found is
    /// kept: guesses at tokens fill no memory.
    pub(super) fn get_or<T, E>(
        &self,
        generation: u64,
        key: K,
        load: impl FnOnce(&K) -> Result<Option<V>, E>,
        show: impl FnOnce(&V) -> T,
    ) -> Result<Option<T>, E> {
        let cached = self.0.load();
        if cached.0 == generation
            && let Some(value) = cached.1.get(&key)
        {
            return Ok(Some(show(value)));
        }
        drop(cached);
        let Some(value) = load(&key)? else { return Ok(None) };
        self.0.rcu(|cached| {
            if cached.0 > generation {
                return Arc::clone(cached);
            }
            let mut map = match cached.0 == generation && cached.1.len() < CACHED_MAX {
                true => cached.1.clone(),
                false => OrdMap::new(),
            };
            map.insert(key.clone(), value.clone());
            Arc::new((generation, map))
        });
        Ok(Some(show(&value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_generation_forgets_and_an_old_one_leaves_nothing() {
        let cache = Cache::default();
        let get =
            |generation, found: Option<u8>| cache.get_or(generation, "key", |_| Ok::<_, ()>(found), |value| *value);
        assert_eq!(get(1, None), Ok(None));
        assert_eq!(get(1, Some(7)), Ok(Some(7)));
        assert_eq!(get(1, None), Ok(Some(7)), "kept");
        assert_eq!(get(2, Some(8)), Ok(Some(8)), "read anew");
        assert_eq!(get(1, Some(9)), Ok(Some(9)), "a late reader of an old generation");
        assert_eq!(get(2, None), Ok(Some(8)), "did no harm");
    }
}
