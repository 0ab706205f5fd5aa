//! Every metric's name, in one place.
//!
//! No metric carries personal data: label values come from the enums of this crate, never from a message
//! (POLICY P15).

/// A number that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Connections accepted, by direction.
    Connections,
    /// Connections turned away before their session, by direction and reason.
    ConnectionsRefused,
    /// Transactions that reached the end of data, by direction and outcome.
    Transactions,
    /// Dispositions of policy, one for each recipient, by direction.
    Dispositions,
    /// Analysers that failed on a message, by analyser.
    Degraded,
    /// Panics caught in a session or an analyser.
    Panics,
    /// Lessons learned, by label.
    Lessons,
    /// What people did with kept mail, by action.
    Reviews,
    /// Attempts to deliver from the outbox, by result.
    OutboxAttempts,
    /// Entries that retention removed.
    Purged,
    /// State stores set aside because they did not open.
    StateStoresSetAside,
    /// Sessions ended because of what the client said, by direction and reason.
    TurnedAway,
    /// TLS handshakes with clients, by result.
    TlsHandshakes,
    /// Connections that could not be accepted, by direction: out of descriptors, most often.
    AcceptErrors,
}

impl Counter {
    /// Every counter.
    pub const ALL: [Counter; 14] = [
        Counter::Connections,
        Counter::ConnectionsRefused,
        Counter::Transactions,
        Counter::Dispositions,
        Counter::Degraded,
        Counter::Panics,
        Counter::Lessons,
        Counter::Reviews,
        Counter::OutboxAttempts,
        Counter::Purged,
        Counter::StateStoresSetAside,
        Counter::TurnedAway,
        Counter::TlsHandshakes,
        Counter::AcceptErrors,
    ];

    /// Returns the name under which it is exported.
    pub fn name(self) -> &'static str {
        match self {
            Counter::Connections => "lazaret_connections_total",
            Counter::ConnectionsRefused => "lazaret_connections_refused_total",
            Counter::Transactions => "lazaret_transactions_total",
            Counter::Dispositions => "lazaret_dispositions_total",
            Counter::Degraded => "lazaret_degraded_total",
            Counter::Panics => "lazaret_panics_total",
            Counter::Lessons => "lazaret_lessons_total",
            Counter::Reviews => "lazaret_reviews_total",
            Counter::OutboxAttempts => "lazaret_outbox_attempts_total",
            Counter::Purged => "lazaret_purged_total",
            Counter::StateStoresSetAside => "lazaret_state_stores_set_aside_total",
            Counter::TurnedAway => "lazaret_turned_away_total",
            Counter::TlsHandshakes => "lazaret_tls_handshakes_total",
            Counter::AcceptErrors => "lazaret_accept_errors_total",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Counter::Connections => "Connections accepted",
            Counter::ConnectionsRefused => "Connections turned away before their session",
            Counter::Transactions => "Transactions that reached the end of data",
            Counter::Dispositions => "Dispositions, one for each recipient",
            Counter::Degraded => "Analysers that failed on a message",
            Counter::Panics => "Panics caught in a session or an analyser",
            Counter::Lessons => "Lessons learned",
            Counter::Reviews => "Actions of people on kept mail",
            Counter::OutboxAttempts => "Attempts to deliver from the outbox",
            Counter::Purged => "Quarantine entries removed by retention",
            Counter::StateStoresSetAside => "State stores set aside because they did not open",
            Counter::TurnedAway => "Sessions ended because of what the client said",
            Counter::TlsHandshakes => "TLS handshakes with clients",
            Counter::AcceptErrors => "Connections that could not be accepted",
        }
    }

    /// Adds one under a label such as `("direction", "inbound")`.
    pub fn increment(self, labels: &[(&'static str, &'static str)]) {
        self.add(1, labels);
    }

    /// Adds `count` under labels.
    pub fn add(self, count: u64, labels: &[(&'static str, &'static str)]) {
        ::metrics::counter!(self.name(), labels).increment(count);
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gauge {
    /// Sessions open now.
    Sessions,
    /// Memory that messages in flight hold, in bytes.
    BytesInFlight,
    /// Lessons in the current model.
    ModelLessons,
    /// Releases that wait in the outbox.
    OutboxWaiting,
}

impl Gauge {
    /// Every gauge.
    pub const ALL: [Gauge; 4] =
        [Gauge::Sessions, Gauge::BytesInFlight, Gauge::ModelLessons, Gauge::OutboxWaiting];

    /// Returns the name under which it is exported.
    pub fn name(self) -> &'static str {
        match self {
            Gauge::Sessions => "lazaret_sessions",
            Gauge::BytesInFlight => "lazaret_bytes_in_flight",
            Gauge::ModelLessons => "lazaret_model_lessons",
            Gauge::OutboxWaiting => "lazaret_outbox_waiting",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Gauge::Sessions => "Sessions open now",
            Gauge::BytesInFlight => "Memory that messages in flight hold, in bytes",
            Gauge::ModelLessons => "Lessons in the current model",
            Gauge::OutboxWaiting => "Releases that wait in the outbox",
        }
    }

    /// Sets the value.
    pub fn set(self, value: f64) {
        ::metrics::gauge!(self.name()).set(value);
    }

    /// Adds to the value; a negative number takes away.
    pub fn add(self, delta: f64) {
        ::metrics::gauge!(self.name()).increment(delta);
    }
}

/// A distribution of durations in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Histogram {
    /// One scan.
    Scan,
    /// From the end of data to our reply.
    Transaction,
}

impl Histogram {
    /// Every histogram.
    pub const ALL: [Histogram; 2] = [Histogram::Scan, Histogram::Transaction];

    /// Returns the name under which it is exported.
    pub fn name(self) -> &'static str {
        match self {
            Histogram::Scan => "lazaret_scan_seconds",
            Histogram::Transaction => "lazaret_transaction_seconds",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Histogram::Scan => "Time of one scan",
            Histogram::Transaction => "Time from the end of data to the reply",
        }
    }

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
        let mut names: Vec<&str> = Counter::ALL.map(Counter::name).to_vec();
        names.extend(Gauge::ALL.map(Gauge::name));
        names.extend(Histogram::ALL.map(Histogram::name));
        for name in &names {
            assert!(name.starts_with("lazaret_"), "{name}");
            assert_eq!(names.iter().filter(|other| other == &name).count(), 1, "{name}");
        }
        assert!(Counter::ALL.iter().all(|counter| counter.name().ends_with("_total")));
    }
}
