//! A transaction with as many next hops as its recipients need: a leg for each route that is taken.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::mail::{Client, EnhancedCode, Mail, Recipient, Reply};
use crate::metrics::Counter;
use crate::relay::route::{Leg, Routes};
use crate::relay::{Begun, Error, Outcome};

/// An open transaction. Dropping it closes its connections.
#[derive(Debug)]
pub struct Transaction {
    /// The legs that have begun, by route.
    legs: Vec<(usize, Leg)>,
    /// What further legs begin with; `None` when there is one route for all.
    open: Option<Box<Open>>,
    /// The route of each accepted recipient, in order.
    accepted: Vec<usize>,
}

#[derive(Debug)]
struct Open {
    routes: Arc<Routes>,
    /// Those that recipients may take.
    choice: Vec<usize>,
    client: Option<Client>,
    mail: Mail,
}

impl Transaction {
    pub(super) async fn begin(
        routes: &Arc<Routes>,
        client: Option<&Client>,
        mail: &Mail,
    ) -> Result<Begun, Error> {
        let choice = routes.open_to(client, mail);
        let [route] = *choice.as_slice() else {
            let open =
                Open { routes: Arc::clone(routes), choice, client: client.cloned(), mail: mail.clone() };
            let transaction =
                Transaction { legs: Vec::new(), open: Some(Box::new(open)), accepted: Vec::new() };
            return Ok(Begun::Ready(transaction, Reply::new(250, EnhancedCode(2, 1, 0), "Ok")));
        };
        let group = routes.group(route).ok_or(Error::NoTarget)?;
        Ok(match group.begin(client, mail).await? {
            (Leg::Refused(reply), _) => Begun::Refused(reply),
            (leg, reply) => {
                let transaction = Transaction { legs: vec![(route, leg)], open: None, accepted: Vec::new() };
                Begun::Ready(transaction, reply)
            }
        })
    }

    /// Sends RCPT; the reply is the client's. Where the recipient's route depends on it, MAIL goes before
    /// its first recipient, and a refusal of it is the reply to each of them.
    ///
    /// # Errors
    /// [`enum@Error`] when there is no reply: this recipient's next hop is of no more use here, and those of
    /// its recipients that were accepted before will have [`Outcome::Failed`]. The others are not touched.
    pub async fn rcpt(&mut self, to: &Recipient) -> Result<Reply, Error> {
        let route = self.route_of(to).ok_or(Error::NoTarget)?;
        if let Some(open) = &self.open
            && self.legs.iter().all(|(begun, _)| *begun != route)
        {
            let group = open.routes.group(route).ok_or(Error::NoTarget)?;
            match group.begin(open.client.as_ref(), &open.mail).await {
                Ok((leg, _)) => self.legs.push((route, leg)),
                Err(error) => {
                    self.legs.push((route, Leg::Failed));
                    return Err(error);
                }
            }
        }
        let (_, leg) = self.legs.iter_mut().find(|(begun, _)| *begun == route).ok_or(Error::NoTarget)?;
        let reply = match leg {
            Leg::Server(transaction) => match transaction.rcpt(to).await {
                Ok(reply) => reply,
                Err(error) => {
                    Counter::NextHopFailures.increment(&[("kind", error.kind())]);
                    *leg = Leg::Failed;
                    return Err(error);
                }
            },
            Leg::Maildir(delivery) => delivery.rcpt(&to.address),
            Leg::Refused(reply) => reply.clone(),
            Leg::Failed => return Err(Error::Failed),
        };
        if reply.is_positive() {
            self.accepted.push(route);
        }
        Ok(reply)
    }

    fn route_of(&self, to: &Recipient) -> Option<usize> {
        match &self.open {
            Some(open) => open.routes.choose(&open.choice, to),
            None => self.legs.first().map(|(route, _)| *route),
        }
    }

    /// Sends a message, given in parts: dots are as they are, and lines end with CR LF, unless MAIL
    /// declared it as binary. All next hops get it at once.
    ///
    /// Returns an outcome for each accepted recipient, in their order.
    pub async fn data(self, message: &[Bytes]) -> Vec<Outcome> {
        let mut routes = Vec::with_capacity(self.legs.len());
        let mut sending = Vec::with_capacity(self.legs.len());
        for (route, leg) in self.legs {
            let recipients = self.accepted.iter().filter(|taken| **taken == route).count();
            routes.push(route);
            sending.push(leg.data(recipients, message));
        }
        let mut outcomes: Vec<_> = join_all(sending).await.into_iter().map(Vec::into_iter).collect();
        let of_each = self.accepted.iter().map(|accepted| {
            let leg = routes.iter().zip(&mut outcomes).find(|(route, _)| *route == accepted);
            leg.and_then(|(_, left)| left.next()).unwrap_or_else(|| Outcome::Failed(Arc::new(Error::Failed)))
        });
        of_each.collect()
    }

    /// Ends the transaction without a message. A connection is kept if its next hop answers RSET well.
    pub async fn abandon(self) {
        let mut abandoning = Vec::with_capacity(self.legs.len());
        for (_, leg) in self.legs {
            abandoning.push(leg.abandon());
        }
        join_all(abandoning).await;
    }
}

impl Leg {
    /// Sends the message to the recipients that were accepted here; without any there is nothing to send.
    async fn data(self, recipients: usize, message: &[Bytes]) -> Vec<Outcome> {
        if recipients == 0 {
            self.abandon().await;
            return Vec::new();
        }
        let outcomes = match self {
            Leg::Server(transaction) => transaction.data(message).await,
            Leg::Maildir(delivery) => {
                let written = delivery.data(message).await;
                vec![written.unwrap_or_else(|error| Outcome::Failed(Arc::new(error))); recipients]
            }
            Leg::Refused(reply) => vec![Outcome::Refused(reply); recipients],
            Leg::Failed => vec![Outcome::Failed(Arc::new(Error::Failed)); recipients],
        };
        if let Some(Outcome::Failed(error)) = outcomes.iter().find(|o| matches!(o, Outcome::Failed(_))) {
            Counter::NextHopFailures.increment(&[("kind", error.kind())]);
        }
        outcomes
    }

    async fn abandon(self) {
        match self {
            Leg::Server(transaction) => transaction.abandon().await,
            Leg::Maildir(_) | Leg::Refused(_) | Leg::Failed => {}
        }
    }
}
