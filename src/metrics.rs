//! Every metric's name and meaning, in one place.
//!
//! No metric carries personal data: label values come from the enums of this crate, never from a message
//! (POLICY P15).

/// Makes the enum of one kind from its table. The meaning is the variant's documentation and what the
/// exporter tells; what is in the table is in `ALL`.
macro_rules! metrics {
    ($(#[$attribute:meta])* $kind:ident { $($variant:ident => $name:literal, $help:literal;)+ }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $kind {
            $(#[doc = concat!($help, ".")] $variant,)+
        }

        impl $kind {
            const ALL: &[$kind] = &[$($kind::$variant),+];

            /// Returns the name under which it is exported.
            pub fn name(self) -> &'static str {
                match self {
                    $($kind::$variant => $name,)+
                }
            }

            fn help(self) -> &'static str {
                match self {
                    $($kind::$variant => $help,)+
                }
            }
        }
    };
}

metrics! {
    /// A number that only grows.
    Counter {
        Connections => "lazaret_connections_total", "Connections accepted, by direction";
        ConnectionsRefused => "lazaret_connections_refused_total", "Connections turned away before their session, by direction and reason";
        AcceptErrors => "lazaret_accept_errors_total", "Connections that could not be accepted, by direction: out of descriptors, most often";
        TurnedAway => "lazaret_turned_away_total", "Sessions ended because of what the client said, by direction and reason";
        TlsHandshakes => "lazaret_tls_handshakes_total", "TLS handshakes with clients, by result";
        SignIns => "lazaret_sign_ins_total", "Attempts of clients to sign in, by outcome";
        Transactions => "lazaret_transactions_total", "Transactions that reached the end of data, by direction and outcome";
        Dispositions => "lazaret_dispositions_total", "Dispositions of policy, one for each recipient, by direction";
        Degraded => "lazaret_degraded_total", "Analysers that failed on a message, by analyser";
        Panics => "lazaret_panics_total", "Panics caught in a session, an analyser or a task";
        Lessons => "lazaret_lessons_total", "Lessons learned, by label";
        ListLookups => "lazaret_list_lookups_total", "Look-ups in lists, by result: a false positive is a look into the file in vain";
        Reviews => "lazaret_reviews_total", "What people did with kept mail, by action";
        OutboxAttempts => "lazaret_outbox_attempts_total", "Attempts to deliver from the outbox, by result";
        Purged => "lazaret_purged_total", "Quarantine entries removed by retention";
        StateStoresSetAside => "lazaret_state_stores_set_aside_total", "State stores set aside because they did not open";
        JournalAnswers => "lazaret_journal_answers_total", "Messages that were answered, in part at least, from an earlier attempt, by direction";
        JournalDoubts => "lazaret_journal_doubts_total", "Attempts that may have sent a message twice, by cause";
        JournalFailures => "lazaret_journal_failures_total", "Notes that the journal failed to make, by step";
        JournalEvictions => "lazaret_journal_evictions_total", "Attempts that the journal forgot because it was full";
        JournalsSetAside => "lazaret_journals_set_aside_total", "Journals set aside because they were damaged";
        NextHopFailures => "lazaret_next_hop_failures_total", "Failures of next hops, by kind";
        NextHopTlsHandshakes => "lazaret_next_hop_tls_handshakes_total", "TLS handshakes with next hops, by result";
        MtaStsFetches => "lazaret_mta_sts_fetches_total", "MTA-STS policies fetched, by result";
        DnsFailures => "lazaret_dns_failures_total", "Look-ups that had no answer for now, by kind";
        Reloads => "lazaret_reloads_total", "Reloads of the configuration, by result";
    }
}

metrics! {
    /// A number that goes up and down.
    Gauge {
        Sessions => "lazaret_sessions", "Sessions open now";
        BytesInFlight => "lazaret_bytes_in_flight", "Memory that messages in flight hold, in bytes";
        ModelLessons => "lazaret_model_lessons", "Lessons in the current model";
        CorrespondentsFalsePositives => "lazaret_correspondents_false_positive_rate", "How often a stranger is taken for a correspondent, between 0 and 1";
        OutboxWaiting => "lazaret_outbox_waiting", "Releases that wait in the outbox";
        JournalEntries => "lazaret_journal_entries", "Recipients of unsettled messages that the journal remembers";
        NextHopsSetAside => "lazaret_next_hops_set_aside", "Next hops that are set aside after a failure";
    }
}

metrics! {
    /// A distribution of durations in seconds.
    Histogram {
        Scan => "lazaret_scan_seconds", "Time of one scan";
        Transaction => "lazaret_transaction_seconds", "Time from the end of data to our reply";
    }
}

impl Counter {
    /// Adds one under a label such as `("direction", "inbound")`.
    pub fn increment(self, labels: &[(&'static str, &'static str)]) {
        self.add(1, labels);
    }

    /// Adds `count` under labels.
    pub fn add(self, count: u64, labels: &[(&'static str, &'static str)]) {
        ::metrics::counter!(self.name(), labels).increment(count);
    }
}

impl Gauge {
    /// Sets the value.
    pub fn set(self, value: f64) {
        ::metrics::gauge!(self.name()).set(value);
    }

    /// Adds to the value; a negative number takes away.
    pub fn add(self, delta: f64) {
        ::metrics::gauge!(self.name()).increment(delta);
    }
}

impl Histogram {
    /// Records one duration.
    pub fn record(self, duration: std::time::Duration) {
        ::metrics::histogram!(self.name()).record(duration.as_secs_f64());
    }
}

/// Tells the exporter what every metric means. Called once, when the exporter is installed.
pub fn describe() {
    for counter in Counter::ALL {
        ::metrics::describe_counter!(counter.name(), counter.help());
    }
    for gauge in Gauge::ALL {
        ::metrics::describe_gauge!(gauge.name(), gauge.help());
    }
    for histogram in Histogram::ALL {
        ::metrics::describe_histogram!(histogram.name(), histogram.help());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_of_one_form() {
        let counters = Counter::ALL.iter().map(|counter| counter.name());
        let gauges = Gauge::ALL.iter().map(|gauge| gauge.name());
        let histograms = Histogram::ALL.iter().map(|histogram| histogram.name());
        let names: Vec<&str> = counters.chain(gauges).chain(histograms).collect();
        for name in &names {
            assert!(name.starts_with("lazaret_"), "{name}");
            assert_eq!(names.iter().filter(|other| other == &name).count(), 1, "{name}");
        }
        assert!(Counter::ALL.iter().all(|counter| counter.name().ends_with("_total")));
    }
}
