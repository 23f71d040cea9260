//! The outstanding invites of this process. Owns their one use and their expiry; keeps only public keys, never the
//! secrets. Refuses to know how they travel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Outstanding invites.
pub const INVITES_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Invites {
    /// By the DER SubjectPublicKeyInfo of the invite's client key.
    by_key: Mutex<BTreeMap<Vec<u8>, Invite>>,
}

#[derive(Debug)]
struct Invite {
    expires_secs: u64,
    /// A join with it is going on.
    claimed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InviteState {
    Outstanding,
    Expired,
    /// Never made here, used, or expired long ago.
    Unknown,
}

impl Invites {
    /// Remembers an invite; false if there are [`INVITES_MAX`] that have not expired.
    pub(super) fn add(&self, key: Vec<u8>, expires_secs: u64, now_secs: u64) -> bool {
        let mut invites = self.lock();
        invites.retain(|_, invite| invite.expires_secs > now_secs || invite.claimed);
        if invites.len() >= INVITES_MAX {
            return false;
        }
        invites.insert(key, Invite { expires_secs, claimed: false });
        true
    }

    pub(super) fn state(&self, key: &[u8], now_secs: u64) -> InviteState {
        match self.lock().get(key) {
            Some(invite) if invite.expires_secs > now_secs => InviteState::Outstanding,
            Some(_) => InviteState::Expired,
            None => InviteState::Unknown,
        }
    }

    /// Takes an invite for one attempt to join. `None` if it is gone or another attempt is going on.
    pub(super) fn claim(self: &Arc<Self>, key: &[u8]) -> Option<InviteClaim> {
        let mut invites = self.lock();
        let invite = invites.get_mut(key).filter(|invite| !invite.claimed)?;
        invite.claimed = true;
        Some(InviteClaim { invites: Arc::clone(self), key: key.to_vec() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Vec<u8>, Invite>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One attempt to use an invite. Dropped without [`InviteClaim::spend`], the invite is free for another attempt.
pub(super) struct InviteClaim {
    invites: Arc<Invites>,
    key: Vec<u8>,
}

impl InviteClaim {
    /// The join succeeded: the invite is used up.
    pub(super) fn spend(self) {
        self.invites.lock().remove(&self.key);
    }
}

impl Drop for InviteClaim {
    fn drop(&mut self) {
        if let Some(invite) = self.invites.lock().get_mut(&self.key) {
            invite.claimed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_use_but_a_failed_attempt_is_not_a_use() {
        let invites = Arc::new(Invites::default());
        assert!(invites.add(vec![1], 100, 0));
        let claim = invites.claim(&[1]).unwrap();
        assert!(invites.claim(&[1]).is_none(), "claimed twice");
        drop(claim);
        invites.claim(&[1]).unwrap().spend();
        assert!(invites.claim(&[1]).is_none());
        assert_eq!(invites.state(&[1], 0), InviteState::Unknown);
    }

    #[test]
    fn bounded_and_expired_ones_make_room() {
        let invites = Invites::default();
        for index in 0..INVITES_MAX {
            assert!(invites.add(index.to_be_bytes().to_vec(), 100, 0));
        }
        assert!(!invites.add(vec![1], 200, 99));
        assert_eq!(invites.state(&0usize.to_be_bytes(), 100), InviteState::Expired);
        assert!(invites.add(vec![1], 200, 100));
        assert_eq!(invites.state(&0usize.to_be_bytes(), 100), InviteState::Unknown);
    }
}
