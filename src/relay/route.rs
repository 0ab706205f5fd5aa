//! Which next hops mail goes to, and which of them is asked.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use crate::mail::{Client, Domain, EnhancedCode, Mail, Recipient, Reply};
use crate::relay::health;
use crate::relay::maildir::{Delivery, Maildir};
use crate::relay::server::Server;
use crate::relay::smtp::{self, Started, temporary};
use crate::relay::{Config, Credentials, Error, Match, NextHop, Target};

/// Every route, the last of which takes what no other takes.
#[derive(Debug)]
pub(super) struct Routes {
    routes: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    condition: Condition,
    group: Group,
}

#[derive(Debug)]
enum Condition {
    Recipient(HashSet<Domain>),
    Sender(HashSet<Domain>),
    Account(HashSet<String>),
    Any,
}

/// The targets of one route.
#[derive(Debug)]
pub(super) struct Group {
    hops: Vec<Hop>,
    /// Priority and weight of each.
    ranks: Vec<(u16, u16)>,
}

#[derive(Debug)]
pub(super) enum Hop {
    Server(Arc<Server>),
    Maildir(Arc<Maildir>),
}

/// A part of a transaction: those of its recipients that take one route.
#[derive(Debug)]
pub(super) enum Leg {
    Server(Box<smtp::Transaction>),
    Maildir(Delivery),
    /// MAIL was refused there.
    Refused(Reply),
    /// It is out of reach, or has failed since.
    Failed,
}

impl Routes {
    pub(super) fn new(config: Config) -> Self {
        let config = Arc::new(config);
        let given = config.routes.iter().map(|route| Route {
            condition: match &route.matches {
                Match::RecipientDomains(domains) => Condition::Recipient(domains.iter().cloned().collect()),
                Match::SenderDomains(domains) => Condition::Sender(domains.iter().cloned().collect()),
                Match::Accounts(names) => Condition::Account(names.iter().cloned().collect()),
            },
            group: Group::new(&route.targets, &config),
        });
        let last = Route { condition: Condition::Any, group: Group::new(&config.targets, &config) };
        Routes { routes: given.chain([last]).collect() }
    }

    /// Returns the routes that recipients of this mail may take, in order. Only the last takes everybody.
    pub(super) fn open_to(&self, client: Option<&Client>, mail: &Mail) -> Vec<usize> {
        let sender = mail.reverse_path.as_ref().and_then(|path| path.domain());
        let login = client.and_then(|client| client.login.as_deref());
        let mut open = Vec::new();
        for (index, route) in self.routes.iter().enumerate() {
            let is_for_all = match &route.condition {
                Condition::Recipient(_) => {
                    open.push(index);
                    continue;
                }
                Condition::Sender(domains) => sender.is_some_and(|sender| domains.contains(sender)),
                Condition::Account(names) => login.is_some_and(|login| names.contains(login)),
                Condition::Any => true,
            };
            if is_for_all {
                open.push(index);
                break;
            }
        }
        open
    }

    /// Returns the one of the open routes that a recipient takes.
    pub(super) fn choose(&self, open: &[usize], recipient: &Recipient) -> Option<usize> {
        open.iter().copied().find(|&index| match self.routes.get(index).map(|route| &route.condition) {
            Some(Condition::Recipient(domains)) => {
                recipient.address.domain().is_some_and(|domain| domains.contains(domain))
            }
            Some(_) => true,
            None => false,
        })
    }

    pub(super) fn group(&self, index: usize) -> Option<&Group> {
        self.routes.get(index).map(|route| &route.group)
    }

    pub(super) fn hops(&self) -> impl Iterator<Item = &Hop> {
        self.routes.iter().flat_map(|route| &route.group.hops)
    }

    /// Returns the way for one client alone, who signs in to the servers of the route of its account, or of
    /// the last one.
    pub(super) fn for_client(&self, credentials: &Credentials) -> Self {
        let is_open = |route: &&Route| match &route.condition {
            Condition::Account(names) => names.contains(credentials.login.as_str()),
            Condition::Any => true,
            Condition::Recipient(_) | Condition::Sender(_) => false,
        };
        let group = self.routes.iter().find(is_open).map(|route| route.group.for_client(credentials));
        let route = group.map(|group| Route { condition: Condition::Any, group });
        Routes { routes: route.into_iter().collect() }
    }
}

impl Group {
    fn new(targets: &[Target], config: &Arc<Config>) -> Self {
        let hops = targets.iter().map(|target| match &target.next_hop {
            NextHop::Maildir { path } => Hop::Maildir(Arc::new(Maildir::new(path.clone()))),
            _ => Hop::Server(Arc::new(Server::new(target.clone(), Arc::clone(config)))),
        });
        let ranks = targets.iter().map(|target| (target.priority, target.weight));
        Group { hops: hops.collect(), ranks: ranks.collect() }
    }

    /// Nobody can sign in to a Maildir.
    fn for_client(&self, credentials: &Credentials) -> Self {
        let servers = self.hops.iter().zip(&self.ranks).filter_map(|(hop, rank)| match hop {
            Hop::Server(server) => {
                Some((Hop::Server(Arc::new(server.for_client(credentials.clone()))), *rank))
            }
            Hop::Maildir(_) => None,
        });
        let (hops, ranks) = servers.unzip();
        Group { hops, ranks }
    }

    /// Returns the hops in the order in which they are to be tried: first those that seem well, then, so
    /// that the end of an outage is noticed at once, the one set aside that is due first.
    pub(super) fn attempts(&self) -> Attempts {
        let order = match self.ranks.len() {
            0 | 1 => (0..self.ranks.len()).collect(),
            _ => health::order(&self.ranks, random),
        };
        Attempts { order: order.into_iter(), aside: None }
    }

    /// Begins a leg at the first hop that takes or refuses the sender.
    pub(super) async fn begin(&self, client: Option<&Client>, mail: &Mail) -> Result<(Leg, Reply), Error> {
        let started_at = Instant::now();
        let mut last = Err(Error::NoTarget);
        let mut attempts = self.attempts();
        while let Some(hop) = attempts.next(self) {
            let server = match hop {
                Hop::Server(server) => server,
                Hop::Maildir(maildir) => {
                    let leg = Leg::Maildir(Delivery::new(Arc::clone(maildir), mail));
                    return Ok((leg, Reply::new(250, EnhancedCode(2, 1, 0), "Ok")));
                }
            };
            match server.begin(client, mail).await {
                Ok(Started::Ready(transaction, reply)) => return Ok((Leg::Server(transaction), reply)),
                Ok(Started::Refused(reply)) => {
                    let is_closing = reply.code() == 421;
                    let reply = temporary(reply);
                    last = Ok((Leg::Refused(reply.clone()), reply));
                    if !is_closing {
                        break;
                    }
                }
                Err(error) => last = Err(error),
            }
            if started_at.elapsed() >= server.config.command_timeout {
                break;
            }
        }
        last
    }
}

/// The hops of a group that are still to be tried. Whether one may be is asked when its turn comes.
#[derive(Debug)]
pub(super) struct Attempts {
    order: std::vec::IntoIter<usize>,
    /// The first that is due of those set aside.
    aside: Option<(Instant, usize)>,
}

impl Attempts {
    pub(super) fn next<'a>(&mut self, group: &'a Group) -> Option<&'a Hop> {
        for index in self.order.by_ref() {
            let hop = group.hops.get(index)?;
            let Hop::Server(server) = hop else { return Some(hop) };
            if server.health().may_try(server.config.connect_timeout) {
                return Some(hop);
            }
            // Well again in this moment, it is due now.
            let until = server.health().set_aside_until().unwrap_or_else(Instant::now);
            if self.aside.is_none_or(|(first, _)| until < first) {
                self.aside = Some((until, index));
            }
        }
        self.aside.take().and_then(|(_, index)| group.hops.get(index))
    }
}

/// A number to draw by. It protects nothing: without randomness the first of equals is taken.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Address;
    use crate::relay;

    #[test]
    fn the_first_route_that_matches_is_taken() {
        let domain = |name: &str| Domain::parse(name).unwrap();
        let route = |matches| relay::Route { matches, targets: Vec::new() };
        let routes = Routes::new(Config {
            routes: vec![
                route(Match::RecipientDomains(vec![domain("a.example")])),
                route(Match::Accounts(vec!["alice".to_owned()])),
                route(Match::SenderDomains(vec![domain("s.example")])),
                route(Match::RecipientDomains(vec![domain("b.example")])),
            ],
            ..Config::new("maildir:/x".parse().unwrap(), "gw.example")
        });
        let check = |login: Option<&str>, sender: &str, recipient: &str, expected: (usize, usize)| {
            let mut client = Client::new("192.0.2.1:1".parse().unwrap());
            client.login = login.map(str::to_owned);
            let mail = Mail { reverse_path: Address::parse(sender).ok(), ..Mail::default() };
            let open = routes.open_to(Some(&client), &mail);
            let chosen = routes.choose(&open, &Address::parse(recipient).unwrap().into()).unwrap();
            assert_eq!((chosen, open.len()), expected, "{login:?} {sender} {recipient}");
        };
        check(Some("alice"), "x@s.example", "c@A.example", (0, 2));
        check(Some("alice"), "x@s.example", "c@b.example", (1, 2));
        check(Some("bob"), "x@s.example", "c@b.example", (2, 2));
        check(None, "", "c@b.example", (3, 3));
        check(None, "x@sub.s.example", "c@sub.b.example", (4, 3));
        check(None, "x@t.example", "postmaster", (4, 3));
    }
}
