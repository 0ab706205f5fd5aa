//! How much one person, the mail of one sender, and one hour may move the shared model.
//!
//! Who is alone with an opinion, or comes in numbers, does not change the model of all at once. What is over is in the
//! log and teaches nothing. Administrators, commands and mail servers, which are teacher 0, have no limit.

use std::collections::BTreeMap;

/// Lessons in an hour: from one person, and from all persons together.
const A_PERSON_AN_HOUR: u32 = 100;
const ALL_AN_HOUR: u32 = 1_000;
/// Lessons in a day that the models did not agree with anyway: from one person, and about the mail of one sender; and
/// one more for so many lessons in all.
const AGAINST_BY_A_PERSON: u32 = 3;
const AGAINST_ABOUT_A_SENDER: u32 = 10;
const FOR_ANOTHER_BY_A_PERSON: u32 = 200;
const FOR_ANOTHER_ABOUT_A_SENDER: u32 = 100;
const HOURS_A_DAY: i64 = 24;
/// Most persons, and most senders, that are remembered by themselves.
pub(super) const MAX_REMEMBERED: usize = 10_000;

/// Lessons of somebody, or about somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Budget {
    /// The hour of the last lesson, and the lessons in it.
    pub(super) hour: i64,
    pub(super) lessons: u32,
    /// Lessons against the models on that day.
    pub(super) against: u32,
}

impl Budget {
    /// Counts a lesson, and returns the counts of its hour and its day.
    fn count(&mut self, hour: i64, is_against: bool) -> (u32, u32) {
        if self.hour / HOURS_A_DAY != hour / HOURS_A_DAY {
            self.against = 0;
        }
        if self.hour != hour {
            (self.hour, self.lessons) = (hour, 0);
        }
        self.lessons = self.lessons.saturating_add(1);
        self.against = self.against.saturating_add(u32::from(is_against));
        (self.lessons, self.against)
    }
}

/// What persons used up, and what is used up of senders.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Budgets {
    pub(super) persons: BTreeMap<u32, Budget>,
    pub(super) senders: BTreeMap<u32, Budget>,
    pub(super) all: Budget,
}

impl Budgets {
    /// Counts a lesson of a teacher about the mail of a sender, and says whether it is one that a model takes that has
    /// so many lessons.
    pub(super) fn take(
        &mut self,
        teacher: u32,
        sender: Option<u32>,
        hour: i64,
        is_against: bool,
        lessons: u32,
    ) -> bool {
        if teacher == 0 {
            return true;
        }
        for all in [&mut self.persons, &mut self.senders] {
            if all.len() >= MAX_REMEMBERED {
                all.retain(|_, budget| budget.hour / HOURS_A_DAY == hour / HOURS_A_DAY);
            }
        }
        let (by_person, against) = remembered(&mut self.persons, teacher).count(hour, is_against);
        let most = AGAINST_BY_A_PERSON + lessons / FOR_ANOTHER_BY_A_PERSON;
        if by_person > A_PERSON_AN_HOUR || (is_against && against > most) {
            // What teaches nothing costs the others nothing.
            return false;
        }
        let (by_all, _) = self.all.count(hour, is_against);
        let about = sender.map(|sender| remembered(&mut self.senders, sender).count(hour, is_against));
        let about = about.map_or(0, |(_, against)| against);
        let most = AGAINST_ABOUT_A_SENDER + lessons / FOR_ANOTHER_ABOUT_A_SENDER;
        by_all <= ALL_AN_HOUR && (!is_against || about <= most)
    }
}

/// Finds what is remembered of somebody. Where there are too many to tell apart, the rest count as one.
pub(super) fn remembered<T: Default>(all: &mut BTreeMap<u32, T>, number: u32) -> &mut T {
    let is_known = all.contains_key(&number) || all.len() < MAX_REMEMBERED;
    all.entry(if is_known { number } else { u32::MAX }).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how many lessons are taken of those that so many persons give about one sender.
    fn taken(persons: u32, each: u32, is_against: bool, lessons: u32) -> usize {
        let mut budgets = Budgets::default();
        let give = (0..each).flat_map(|_| 1..=persons);
        give.filter(|person| budgets.take(*person, Some(7), 5, is_against, lessons)).count()
    }

    #[test]
    fn persons_senders_and_hours_have_limits_and_the_administrator_has_none() {
        assert_eq!(taken(1, 200, false, 0), 100);
        assert_eq!(taken(30, 100, false, 0), 1_000);
        assert_eq!(taken(1, 50, true, 0), 3);
        assert_eq!(taken(1, 50, true, 1_000), 8);
        assert_eq!(taken(30, 3, true, 0), 10, "many who are of one mind about one sender");
        assert_eq!(taken(30, 3, true, 1_000), 20);
        let mut budgets = Budgets::default();
        assert!((0..5_000).all(|_| budgets.take(0, Some(7), 5, true, 0)));
        // Another day, and another sender.
        assert!((0..4).map(|_| budgets.take(1, Some(1), 5, true, 0)).eq([true, true, true, false]));
        assert!(budgets.take(1, Some(1), 24, true, 0));
    }

    #[test]
    fn who_is_one_too_many_shares_with_the_others() {
        let mut budgets = Budgets::default();
        for person in 1..=20_000 {
            budgets.take(person, Some(person), 1, true, 0);
        }
        assert!(budgets.persons.len() <= MAX_REMEMBERED + 1 && budgets.senders.len() <= MAX_REMEMBERED + 1);
        assert!(!budgets.take(20_001, None, 1, true, 0));
        // The next day there is room for all.
        assert!(budgets.take(20_001, None, 25, true, 0) && budgets.persons.len() == 1);
    }
}
