//! The account's API keys: at most five at a time, each in a slot whose index stays its own.

use std::fmt;

/// The most keys an account may hold at a time.
pub const MOST_KEYS: usize = 5;

/// One pair of `key_id` and `api_key`, as the mint call carries them. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Names the key.
    pub key_id: String,
    /// Proves the right to it.
    pub api_key: String,
}

impl ApiKey {
    /// A random pair, each half in the form of a UUID.
    pub fn random() -> Self {
        Self {
            key_id: random_uuid(),
            api_key: random_uuid(),
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

fn random_uuid() -> String {
    let bits = fastrand::u128(..);
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// The slots; a removed key leaves a hole that the next added one fills.
pub(super) struct KeyRing {
    slots: Vec<Option<ApiKey>>,
}

impl KeyRing {
    /// None if there are more keys than an account may hold.
    pub(super) fn new(keys: Vec<ApiKey>) -> Option<Self> {
        (keys.len() <= MOST_KEYS).then(|| Self {
            slots: keys.into_iter().map(Some).collect(),
        })
    }

    /// The index of the slot that holds exactly this pair.
    pub(super) fn find(&self, key_id: &str, api_key: &str) -> Option<usize> {
        self.slots.iter().position(|slot| {
            slot.as_ref()
                .is_some_and(|key| key.key_id == key_id && key.api_key == api_key)
        })
    }

    /// Adds a random key in the first free slot; none if all are taken.
    pub(super) fn add(&mut self) -> Option<(usize, ApiKey)> {
        let key = ApiKey::random();
        let free = self.slots.iter().position(Option::is_none);
        let index = match free {
            Some(index) => index,
            None if self.slots.len() < MOST_KEYS => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.slots[index] = Some(key.clone());
        Some((index, key))
    }

    /// Replaces the `api_key` of a slot and keeps its `key_id`; none if the slot holds no key.
    pub(super) fn regenerate(&mut self, index: usize) -> Option<ApiKey> {
        let key = self.slots.get_mut(index)?.as_mut()?;
        key.api_key = random_uuid();
        Some(key.clone())
    }

    /// Empties a slot; false if it held no key.
    pub(super) fn remove(&mut self, index: usize) -> bool {
        self.slots
            .get_mut(index)
            .is_some_and(|slot| slot.take().is_some())
    }

    /// The keys in use, by slot.
    pub(super) fn in_use(&self) -> Vec<ApiKey> {
        self.slots.iter().flatten().cloned().collect()
    }

    /// The indexes of the slots that hold a key.
    pub(super) fn indexes(&self) -> Vec<usize> {
        let taken = |(index, slot): (usize, &Option<ApiKey>)| slot.as_ref().map(|_| index);
        self.slots.iter().enumerate().filter_map(taken).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_key_has_the_form_of_a_uuid() {
        let key = ApiKey::random();
        let lengths: Vec<_> = key.key_id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&key.api_key[14..15], "4");
        assert!("89ab".contains(&key.api_key[19..20]));
    }

    #[test]
    fn a_regenerated_key_replaces_the_old_one_in_its_slot() {
        let old = ApiKey::random();
        let mut ring = KeyRing::new(vec![ApiKey::random(), old.clone()]).unwrap();
        let new = ring.regenerate(1).unwrap();
        assert_eq!(ring.find(&old.key_id, &old.api_key), None);
        assert_eq!(ring.find(&new.key_id, &new.api_key), Some(1));
        assert_eq!(ring.regenerate(2), None);
    }

    #[test]
    fn a_removed_key_moves_no_other() {
        let keys: Vec<_> = (0..MOST_KEYS).map(|_| ApiKey::random()).collect();
        let mut ring = KeyRing::new(keys.clone()).unwrap();
        assert_eq!(ring.add(), None);
        assert!(ring.remove(1));
        assert!(!ring.remove(1));
        assert_eq!(ring.find(&keys[4].key_id, &keys[4].api_key), Some(4));
        assert_eq!(ring.add().unwrap().0, 1);
        assert_eq!(ring.indexes(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn debug_shows_no_key() {
        let key = ApiKey::random();
        let shown = format!("{key:?}");
        assert!(!shown.contains(&key.api_key) && !shown.contains(&key.key_id));
    }
}
