//! The resolvers of this machine, asked through hickory-resolver, with its cache.
//!
//! DNSSEC is validated here, from the root's own keys, when it is switched on: the AD bit of a resolver on
//! the other side of a network proves nothing. It needs resolvers that hand signatures through. Without it
//! no answer counts as secure, and TLSA records are not even asked for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::TXT;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::timeout;

use crate::dns::{
    Error, Exchange, MAX_ADDRESSES, MAX_TEXT_BYTES, MAX_TEXTS, MAX_TLSA, MAX_TLSA_BYTES, Mx, Resolver, Tlsa,
    TlsaRecord,
};
use crate::metrics::Counter;

/// No answer is kept longer, whatever its TTL says.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// No absence is kept longer.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(15 * 60);
/// One question may take this many times [`Config::timeout`]: retries, aliases and signatures included.
const MAX_TIMEOUTS: u32 = 4;

/// Questions under way over one TCP connection; the next ones are a temporary failure.
const MAX_REQUESTS: usize = 256;

/// How names are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The resolvers to ask; none for those in `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Time for one answer of one resolver.
    pub timeout: Duration,
    /// How often a question is asked again.
    pub retries: usize,
    /// Whether DNSSEC is validated, which DANE needs. The resolvers must hand signatures through.
    pub dnssec: bool,
    /// Answers that are kept.
    pub cache_size: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            retries: 2,
            dnssec: false,
            cache_size: 8 * 1024,
        }
    }
}

/// The resolvers of this machine. Cloning shares the cache.
#[derive(Clone)]
pub struct System {
    resolver: TokioResolver,
    dnssec: bool,
    limit: Duration,
}

impl System {
    /// Makes a resolver; nothing is asked yet.
    ///
    /// Where `/etc/resolv.conf` cannot be read or names no server, the one on this machine is asked, as
    /// resolv.conf(5) says.
    ///
    /// # Errors
    /// [`Error::Setup`] when the resolver cannot be made.
    pub fn new(config: &Config) -> Result<Self, Error> {
        System::build(config, None)
    }

    /// Makes a resolver that trusts other DNSSEC keys than the root's.
    #[cfg(test)]
    pub(super) fn with_trust_anchors(config: &Config, anchors: TrustAnchors) -> Result<Self, Error> {
        System::build(config, Some(Arc::new(anchors)))
    }

    fn build(config: &Config, anchors: Option<Arc<TrustAnchors>>) -> Result<Self, Error> {
        let servers = if config.servers.is_empty() {
            match read_system_conf() {
                Ok((system, _)) => system.into_parts().2,
                Err(_) => {
                    tracing::warn!("resolv.conf names no server; asking 127.0.0.1");
                    vec![NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST))]
                }
            }
        } else {
            config.servers.iter().map(|server| name_server(*server)).collect()
        };
        // No domain and no search list: see `Resolver`.
        let servers = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = config.timeout;
        options.attempts = config.retries;
        options.validate = config.dnssec;
        options.cache_size = config.cache_size;
        options.max_active_requests = MAX_REQUESTS;
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        options.positive_max_ttl = Some(MAX_TTL);
        options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
        if let Some(anchors) = anchors {
            builder = builder.with_trust_anchor(anchors);
        }
        let resolver = builder.build().map_err(|error| Error::Setup(error.as_metrics_label()))?;
        Ok(System { resolver, dnssec: config.dnssec, limit: config.timeout.saturating_mul(MAX_TIMEOUTS) })
    }

    async fn lookup(&self, name: Name, kind: RecordType) -> Result<Lookup, NetError> {
        timeout(self.limit, self.resolver.lookup(name, kind)).await.unwrap_or(Err(NetError::Timeout))
    }

    async fn lookup_ip(&self, host: &str) -> Result<LookupIp, Error> {
        let lookup = self.resolver.lookup_ip(name(host)?);
        let found = timeout(self.limit, lookup).await.unwrap_or(Err(NetError::Timeout));
        found.map_err(|error| failure(&error))
    }

    /// Whether every record of an answer is proved by DNSSEC, the aliases that led to it included.
    fn is_secure(&self, records: &[Record]) -> bool {
        self.dnssec
            && !records.is_empty()
            && records
                .iter()
                .filter(|record| record.record_type() != RecordType::RRSIG)
                .all(|record| record.proof.is_secure())
    }
}

#[async_trait]
impl Resolver for System {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Error> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let found = self.lookup_ip(host).await?;
        let addresses: Vec<IpAddr> = found.iter().take(MAX_ADDRESSES).collect();
        if addresses.is_empty() { Err(Error::NoData) } else { Ok(addresses) }
    }

    async fn mx(&self, domain: &str) -> Result<Mx, Error> {
        let found = match self.lookup(name(domain)?, RecordType::MX).await {
            Ok(found) => found,
            Err(error) => {
                return match failure(&error) {
                    Error::NoData => Ok(Mx::implicit(domain, self.is_secure(denial(&error)))),
                    error => Err(error),
                };
            }
        };
        let exchanges = found.answers().iter().filter_map(|record| match &record.data {
            RData::MX(mx) => Some(Exchange {
                preference: mx.preference,
                host: mx.exchange.to_ascii().trim_end_matches('.').to_ascii_lowercase(),
            }),
            _ => None,
        });
        let secure = self.is_secure(found.answers());
        Ok(Mx::new(exchanges.collect(), secure).unwrap_or_else(|| Mx::implicit(domain, false)))
    }

    async fn tlsa(&self, host: &str, port: u16) -> Result<Tlsa, Error> {
        if !self.dnssec || host.parse::<IpAddr>().is_ok() {
            return Ok(Tlsa::default());
        }
        match self.lookup_ip(host).await {
            Ok(addresses) if self.is_secure(addresses.as_lookup().answers()) => {}
            Ok(_) => return Ok(Tlsa::default()),
            Err(error) if error.is_absence() => return Ok(Tlsa::default()),
            Err(error) => return Err(error),
        }
        let found = match self.lookup(name(&format!("_{port}._tcp.{host}"))?, RecordType::TLSA).await {
            Ok(found) => found,
            Err(error) => {
                let error = failure(&error);
                return if error.is_absence() { Ok(Tlsa::default()) } else { Err(error) };
            }
        };
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::TLSA(tlsa) if tlsa.cert_data.len() <= MAX_TLSA_BYTES => Some(TlsaRecord {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data.clone(),
            }),
            _ => None,
        });
        Ok(Tlsa { secure: self.is_secure(found.answers()), records: records.take(MAX_TLSA).collect() })
    }

    async fn txt(&self, text_name: &str) -> Result<Vec<String>, Error> {
        let found = self.lookup(name(text_name)?, RecordType::TXT).await.map_err(|error| failure(&error))?;
        let texts = found.answers().iter().filter_map(|record| match &record.data {
            RData::TXT(txt) => read_text(txt),
            _ => None,
        });
        let texts: Vec<String> = texts.take(MAX_TEXTS).collect();
        if texts.is_empty() { Err(Error::NoData) } else { Ok(texts) }
    }
}

/// A resolver at an address, asked over UDP, and over TCP where an answer is cut.
fn name_server(address: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

/// Reads a name as fully qualified.
fn name(text: &str) -> Result<Name, Error> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err(Error::InvalidName);
    }
    let mut name = Name::from_utf8(text).map_err(|_| Error::InvalidName)?;
    name.set_fqdn(true);
    Ok(name)
}

/// Joins the pieces of a text; `None` where it is too long.
pub(super) fn read_text(txt: &TXT) -> Option<String> {
    let bytes = txt.txt_data.concat();
    (bytes.len() <= MAX_TEXT_BYTES).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Says what an unsuccessful look-up means, and counts it where it is one. Texts of the library are left
/// behind: they repeat the name.
fn failure(error: &NetError) -> Error {
    let error = meaning(error);
    if let Error::Temporary(kind) = error {
        Counter::DnsFailures.increment(&[("kind", kind)]);
    } else if error == Error::Bogus {
        Counter::DnsFailures.increment(&[("kind", "bogus")]);
    }
    error
}

fn meaning(error: &NetError) -> Error {
    let absence = |code: ResponseCode| match code {
        ResponseCode::NXDomain => Error::NoSuchName,
        ResponseCode::NoError => Error::NoData,
        _ => Error::Temporary(error.as_metrics_label()),
    };
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => absence(none.response_code),
        NetError::Dns(DnsError::Nsec { response, proof, .. }) if proof.is_insecure() => {
            absence(response.response_code)
        }
        NetError::Dns(DnsError::Nsec { proof, .. }) if proof.is_bogus() => Error::Bogus,
        NetError::Dns(DnsError::DnssecBogus) => Error::Bogus,
        _ => Error::Temporary(error.as_metrics_label()),
    }
}

/// The records that prove an absence.
fn denial(error: &NetError) -> &[Record] {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.authorities.as_deref().unwrap_or(&[]),
        _ => &[],
    }
}
