//! The memory that messages in flight may take, over all sessions.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A budget of memory, shared by every listener of the process. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Memory {
    kibibytes: Arc<Semaphore>,
}

/// The part of the budget that one message holds; given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Claim {
    permit: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// Makes a budget of so many bytes, rounded down to KiB.
    pub fn new(bytes: usize) -> Self {
        Memory { kibibytes: Arc::new(Semaphore::new((bytes / 1024).min(Semaphore::MAX_PERMITS))) }
    }

    /// Returns the number of bytes that nobody holds.
    pub fn available_bytes(&self) -> usize {
        self.kibibytes.available_permits().saturating_mul(1024)
    }

    /// Enlarges a claim to so many bytes; `false`, and nothing changed, where the budget has not as much.
    pub(super) fn enlarge(&self, claim: &mut Claim, bytes: usize) -> bool {
        let held = claim.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(1024).saturating_sub(held);
        if missing == 0 {
            return true;
        }
        let Ok(missing) = u32::try_from(missing) else { return false };
        let Ok(permit) = Arc::clone(&self.kibibytes).try_acquire_many_owned(missing) else { return false };
        match &mut claim.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_grows_within_the_budget_and_is_given_back() {
        let memory = Memory::new(10 * 1024);
        let (mut a, mut b) = (Claim::default(), Claim::default());
        assert!(memory.enlarge(&mut a, 1) && memory.enlarge(&mut a, 6 * 1024) && memory.enlarge(&mut a, 100));
        assert!(!memory.enlarge(&mut b, 5 * 1024));
        assert!(memory.enlarge(&mut b, 4 * 1024));
        assert_eq!(memory.available_bytes(), 0);
        drop(a);
        assert_eq!(memory.available_bytes(), 6 * 1024);
    }
}
