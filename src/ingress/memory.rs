//! The memory that messages in flight may take, over all sessions.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Gauge;

/// What the budget is counted in, in bytes.
const UNIT_BYTES: usize = 1024;

/// A budget of memory, shared by every listener of the process. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Memory {
    kibibytes: Arc<Semaphore>,
}

/// The part of the budget that one message holds; given back when dropped.
#[derive(Debug, Default)]
pub struct Claim {
    permit: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// Makes a budget of so many bytes, rounded down to KiB.
    pub fn new(bytes: usize) -> Self {
        Memory { kibibytes: Arc::new(Semaphore::new((bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS))) }
    }

    /// Returns the number of bytes that nobody holds.
    pub fn available_bytes(&self) -> usize {
        self.kibibytes.available_permits().saturating_mul(UNIT_BYTES)
    }

    /// Enlarges a claim to so many bytes; `false`, and nothing changed, where the budget has not as much.
    /// Nobody waits: who holds a part of a message while it waits for the rest would wait for the others.
    pub fn enlarge(&self, claim: &mut Claim, bytes: usize) -> bool {
        let missing = bytes.div_ceil(UNIT_BYTES).saturating_sub(claim.units());
        if missing == 0 {
            return true;
        }
        let Ok(missing) = u32::try_from(missing) else { return false };
        let Ok(permit) = Arc::clone(&self.kibibytes).try_acquire_many_owned(missing) else { return false };
        Gauge::BytesInFlight.add(in_bytes(permit.num_permits()));
        match &mut claim.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        true
    }
}

impl Claim {
    fn units(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.permit.is_some() {
            Gauge::BytesInFlight.add(-in_bytes(self.units()));
        }
    }
}

/// The gauge's number for so many units; exact up to 2^53 bytes.
fn in_bytes(units: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a budget of 8 PiB is not to be had")]
    let units = units as f64;
    units * 1024.0
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

    #[test]
    fn a_tiny_message_claims_no_more_than_a_kibibyte() {
        let memory = Memory::new(1 << 20);
        let mut claims: Vec<Claim> = (0..1024).map(|_| Claim::default()).collect();
        assert!(claims.iter_mut().all(|claim| memory.enlarge(claim, 1)));
        assert_eq!(memory.available_bytes(), 0);
    }

    #[test]
    fn two_thousand_sessions_with_50_mb_each_stay_within_the_budget() {
        const BUDGET: usize = 256 << 20;
        const MESSAGE: usize = 50 << 20;
        const STEP: usize = 256 << 10;
        let memory = Memory::new(BUDGET);
        let mut claims: Vec<Option<Claim>> = (0..2000).map(|_| Some(Claim::default())).collect();
        let (mut whole, mut put_off) = (0, 0);
        for size in (STEP..=MESSAGE).step_by(STEP) {
            for slot in &mut claims {
                let Some(claim) = slot else { continue };
                if !memory.enlarge(claim, size) {
                    // 452: what was held is given back at once.
                    *slot = None;
                    put_off += 1;
                } else if size == MESSAGE {
                    *slot = None;
                    whole += 1;
                }
            }
            let held: usize = claims.iter().flatten().map(|claim| claim.units() * UNIT_BYTES).sum();
            assert_eq!(held + memory.available_bytes(), BUDGET);
        }
        assert_eq!(whole + put_off, 2000);
        assert!(whole >= 1, "nobody got through");
        assert_eq!(memory.available_bytes(), BUDGET);
    }
}
