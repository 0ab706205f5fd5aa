//! A resolver for tests: its answers are set by hand, and what is not set does not exist.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::dns::{Error, Exchange, Mx, Resolver, Tlsa, TlsaRecord};

/// What [`Fake`] answers. Names are compared in lower case and without a final dot.
#[derive(Debug, Default)]
pub struct Fake {
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    addresses: HashMap<String, Result<Vec<IpAddr>, Error>>,
    mx: HashMap<String, Result<Mx, Error>>,
    tlsa: HashMap<(String, u16), Result<Tlsa, Error>>,
    txt: HashMap<String, Result<Vec<String>, Error>>,
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_lowercase()
}

impl Fake {
    /// Makes a resolver for which no name exists.
    pub fn new() -> Self {
        Fake::default()
    }

    fn with(&self, set: impl FnOnce(&mut Answers)) -> &Self {
        set(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        self
    }

    /// Sets the addresses of a host.
    pub fn set_addresses(&self, host: &str, answer: Result<Vec<IpAddr>, Error>) -> &Self {
        self.with(|answers| {
            answers.addresses.insert(key(host), answer);
        })
    }

    /// Sets where a domain's mail goes.
    pub fn set_mx(&self, domain: &str, answer: Result<Mx, Error>) -> &Self {
        self.with(|answers| {
            answers.mx.insert(key(domain), answer);
        })
    }

    /// Sets the exchanges of a domain, given as preference and host.
    pub fn set_exchanges(&self, domain: &str, secure: bool, exchanges: &[(u16, &str)]) -> &Self {
        let exchanges = exchanges
            .iter()
            .map(|(preference, host)| Exchange { preference: *preference, host: key(host) })
            .collect();
        self.set_mx(domain, Mx::new(exchanges, secure).ok_or(Error::NoData))
    }

    /// Sets the TLSA records of a service.
    pub fn set_tlsa(&self, host: &str, port: u16, answer: Result<Tlsa, Error>) -> &Self {
        self.with(|answers| {
            answers.tlsa.insert((key(host), port), answer);
        })
    }

    /// Sets secure TLSA records of a service, given as usage, selector, matching type and data.
    pub fn set_secure_tlsa(&self, host: &str, port: u16, records: &[(u8, u8, u8, &[u8])]) -> &Self {
        let records = records
            .iter()
            .map(|&(usage, selector, matching, data)| TlsaRecord {
                usage,
                selector,
                matching,
                data: data.to_vec(),
            })
            .collect();
        self.set_tlsa(host, port, Ok(Tlsa { secure: true, records }))
    }

    /// Sets the texts at a name.
    pub fn set_txt(&self, name: &str, answer: Result<Vec<String>, Error>) -> &Self {
        self.with(|answers| {
            answers.txt.insert(key(name), answer);
        })
    }
}

#[async_trait]
impl Resolver for Fake {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Error> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.addresses.get(&key(host)).cloned().unwrap_or(Err(Error::NoSuchName))
    }

    async fn mx(&self, domain: &str) -> Result<Mx, Error> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        match answers.mx.get(&key(domain)).cloned().unwrap_or(Err(Error::NoSuchName)) {
            Err(Error::NoData) => Ok(Mx::implicit(domain, false)),
            answer => answer,
        }
    }

    async fn tlsa(&self, host: &str, port: u16) -> Result<Tlsa, Error> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.tlsa.get(&(key(host), port)).cloned().unwrap_or(Ok(Tlsa::default()))
    }

    async fn txt(&self, name: &str) -> Result<Vec<String>, Error> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.txt.get(&key(name)).cloned().unwrap_or(Err(Error::NoSuchName))
    }
}
