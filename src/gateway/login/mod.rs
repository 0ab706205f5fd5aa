//! Signing in on a listener (RFC 4954): one [`Login`] a session, driven step by step.
//!
//! Passwords are checked against our own accounts, or passed on to the next hop. They are never logged and
//! are wiped after use. What a sign-in is worth is asked again at every MAIL: an account that was removed
//! or disabled meanwhile sends no further message.

use std::error::Error as StdError;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Access, Clock, Standing};
use crate::accounts::{self, Accounts, LoginName, Source, Verdict};
use crate::mail::{Client, EnhancedCode, Mail, Reply};
use crate::metrics::Counter;
use crate::privacy::{PseudonymKey, error_chain};
use crate::relay::{self, Relay};
use crate::smtp::sasl::{Credentials, Exchange, Problem, Proof, Step};
use crate::smtp::server::{Mechanism, SignIn, SignInAnswer};

/// Random bytes in our nonce of SCRAM.
const NONCE_LEN: usize = 24;

/// Who knows the passwords of a listener's clients.
#[derive(Clone)]
pub enum Authority {
    /// Nobody: nobody signs in.
    Nobody,
    /// Our own submission accounts.
    Accounts(Accounts),
    /// The next hop, which is asked with every name and password; the accounts only limit how often.
    NextHop(Arc<dyn Passwords>, Accounts),
}

/// A next hop that can be asked whether a password is right.
#[async_trait]
pub trait Passwords: Send + Sync {
    /// Returns the way onwards of a client that has signed in with the next hop, or `None` where it refuses
    /// the password for good. An error means that nobody knows, and counts as no failure of the client's.
    async fn verify(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<Relay>, Box<dyn StdError + Send + Sync>>;
}

#[async_trait]
impl Passwords for Relay {
    async fn verify(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<Relay>, Box<dyn StdError + Send + Sync>> {
        match self.sign_in(&credentials.name, &credentials.password).await? {
            relay::SignedIn::Accepted(relay, _) => Ok(Some(relay)),
            relay::SignedIn::Refused(reply) if reply.is_permanent() => Ok(None),
            relay::SignedIn::Refused(reply) => Err(format!("the next hop answered {}", reply.code()).into()),
        }
    }
}

/// How clients of a listener sign in. Cloning shares it.
#[derive(Clone)]
pub struct SignIns {
    /// Who knows the passwords.
    pub authority: Authority,
    /// Whether nobody may sign in over a connection that is not encrypted.
    pub needs_tls: bool,
    /// The key of names in the log.
    pub pseudonyms: PseudonymKey,
    /// The clock.
    pub clock: Clock,
}

/// The sign-in of one session.
pub struct Login {
    shared: SignIns,
    exchange: Option<Exchange>,
    signed_in: Option<SignedIn>,
}

enum SignedIn {
    Account(LoginName),
    NextHop(String, Relay),
}

impl SignedIn {
    fn name(&self) -> &str {
        match self {
            SignedIn::Account(name) => name.as_str(),
            SignedIn::NextHop(name, _) => name,
        }
    }
}

/// Why nobody knows whether a sign-in is right.
#[derive(Debug, Error)]
enum Failure {
    #[error("looking up an account")]
    Accounts(#[from] accounts::Error),
    #[error("asking the next hop about a password")]
    NextHop(#[source] Box<dyn StdError + Send + Sync>),
    #[error("drawing a nonce")]
    Random(#[source] getrandom::Error),
}

impl Login {
    /// Begins a session in which nobody has signed in.
    pub fn new(shared: SignIns) -> Self {
        Login { shared, exchange: None, signed_in: None }
    }

    /// Returns the mechanisms by which this client may sign in now, the best first. A password that is to be
    /// passed on must be heard, so there is no SCRAM then.
    pub fn mechanisms(&self, client: &Client) -> Vec<Mechanism> {
        if client.login.is_some() || self.lacks_tls(client) {
            return Vec::new();
        }
        match self.shared.authority {
            Authority::Nobody => Vec::new(),
            Authority::Accounts(_) => vec![Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login],
            Authority::NextHop(..) => vec![Mechanism::Plain, Mechanism::Login],
        }
    }

    /// Takes a step of a sign-in. The caller keeps the name of [`SignInAnswer::Done`] in
    /// [`Client::login`] for as long as the sign-in holds, and ends a session that fails too often.
    pub async fn step(&mut self, client: &Client, step: SignIn) -> SignInAnswer {
        let exchange = self.exchange.take();
        let taken = match step {
            SignIn::Begin(mechanism, initial) => {
                if let Some(reply) = self.refusal(client, mechanism) {
                    return SignInAnswer::Refused(reply);
                }
                let initial = initial.map(Zeroizing::new);
                Exchange::begin(mechanism, initial.as_ref().map(|initial| initial.as_slice()))
            }
            SignIn::Response(response) => {
                let response = Zeroizing::new(response);
                let Some(mut exchange) = exchange else {
                    return SignInAnswer::Refused(out_of_order("no sign-in is under way"));
                };
                exchange.respond(&response).map(|step| (exchange, step))
            }
            SignIn::Cancel => {
                let reply = Reply::new(501, EnhancedCode(5, 7, 0), "sign-in cancelled");
                return SignInAnswer::Refused(reply);
            }
        };
        let (exchange, step) = match taken {
            Ok(taken) => taken,
            Err(problem) => return SignInAnswer::Refused(problem_reply(problem)),
        };
        match self.go_on(client, exchange, step).await {
            Ok(answer) => answer,
            Err(failure) => {
                Counter::SignIns.increment(&[("outcome", "undecided")]);
                tracing::error!(error = error_chain(&failure), "a sign-in could not be decided");
                SignInAnswer::Refused(try_again())
            }
        }
    }

    /// Refuses a MAIL of a client that may not send here, or not as this sender.
    ///
    /// # Errors
    /// The reply to the MAIL.
    pub async fn check_mail(&self, access: &Access, client: &Client, mail: &Mail) -> Result<(), Reply> {
        access.check_client(client, self.standing(client))?;
        let (Some(SignedIn::Account(name)), Authority::Accounts(accounts)) =
            (self.current(client), &self.shared.authority)
        else {
            return Ok(());
        };
        match accounts.submitter(name).await {
            Ok(Some(account)) if account.is_disabled => Err(no_more()),
            Ok(None) => Err(no_more()),
            Ok(Some(account)) if !account.may_send_as(mail.reverse_path.as_ref()) => Err(Reply::new(
                553,
                EnhancedCode(5, 7, 1),
                "your account may not send as this address; ask your administrator to allow it",
            )),
            Ok(Some(_)) => Ok(()),
            Err(error) => {
                tracing::error!(error = error_chain(&error), "an account could not be looked up");
                Err(Reply::new(451, EnhancedCode(4, 3, 0), "local trouble, try again"))
            }
        }
    }

    /// Returns the way onwards of a client that has signed in with the next hop: its mail goes over this one
    /// and over no other. `None` where it has not, or has signed in with us.
    pub fn relay(&self, client: &Client) -> Option<&Relay> {
        match self.current(client)? {
            SignedIn::NextHop(_, relay) => Some(relay),
            SignedIn::Account(_) => None,
        }
    }

    fn standing(&self, client: &Client) -> Standing {
        if self.current(client).is_some() {
            Standing::SignedIn
        } else if matches!(self.shared.authority, Authority::Nobody) {
            Standing::Stranger
        } else if self.lacks_tls(client) {
            Standing::NeedsTls
        } else {
            Standing::MaySignIn
        }
    }

    /// The sign-in of this session, while it holds. A name that the session has forgotten (STARTTLS) or
    /// that somebody else vouched for (XCLIENT) is none of ours.
    fn current(&self, client: &Client) -> Option<&SignedIn> {
        self.signed_in.as_ref().filter(|signed_in| client.login.as_deref() == Some(signed_in.name()))
    }

    fn lacks_tls(&self, client: &Client) -> bool {
        self.shared.needs_tls && client.tls.is_none()
    }

    /// Returns why this client may not begin with this mechanism now.
    fn refusal(&self, client: &Client, mechanism: Mechanism) -> Option<Reply> {
        if client.login.is_some() {
            Some(out_of_order("you have signed in already"))
        } else if matches!(self.shared.authority, Authority::Nobody) {
            Some(out_of_order("nobody signs in here"))
        } else if self.lacks_tls(client) {
            Some(Reply::new(538, EnhancedCode(5, 7, 11), "encrypt the connection with STARTTLS first"))
        } else if !self.mechanisms(client).contains(&mechanism) {
            Some(Reply::new(504, EnhancedCode(5, 5, 4), "this mechanism is not offered"))
        } else {
            None
        }
    }

    async fn go_on(
        &mut self,
        client: &Client,
        mut exchange: Exchange,
        step: Step,
    ) -> Result<SignInAnswer, Failure> {
        let challenge = match step {
            Step::Challenge(challenge) => challenge,
            Step::Password(credentials) => return self.password(client, credentials).await,
            Step::Keys(name) => {
                let Authority::Accounts(accounts) = &self.shared.authority else {
                    return Ok(SignInAnswer::Refused(problem_reply(Problem::NotOffered)));
                };
                let mut nonce = [0u8; NONCE_LEN];
                getrandom::fill(&mut nonce).map_err(Failure::Random)?;
                let keys = accounts.scram_keys(&name).await?;
                match exchange.challenge(keys, &URL_SAFE_NO_PAD.encode(nonce)) {
                    Ok(challenge) => challenge,
                    Err(problem) => return Ok(SignInAnswer::Refused(problem_reply(problem))),
                }
            }
            Step::Proof(proof) => match self.proof(client, &mut exchange, &proof).await? {
                Ok(signature) => signature,
                Err(answer) => return Ok(answer),
            },
            Step::Done(name) => {
                return Ok(match LoginName::parse(&name) {
                    Ok(name) => self.accept(client, SignedIn::Account(name)),
                    Err(_) => self.refuse(client, &name),
                });
            }
        };
        self.exchange = Some(exchange);
        Ok(SignInAnswer::Challenge(challenge))
    }

    async fn password(&mut self, client: &Client, given: Credentials) -> Result<SignInAnswer, Failure> {
        let (source, now) = (Source::new(client.peer.ip()), (self.shared.clock)());
        let verdict = match &self.shared.authority {
            Authority::Nobody => Verdict::Refused,
            Authority::Accounts(accounts) => {
                match accounts.verify_plain(&given.name, &given.password, source, now).await? {
                    Verdict::Accepted(account) => Verdict::Accepted(SignedIn::Account(account.name)),
                    Verdict::Refused => Verdict::Refused,
                    Verdict::Limited => Verdict::Limited,
                }
            }
            Authority::NextHop(passwords, limits) => {
                let check = async {
                    let relay = passwords.verify(&given).await.map_err(Failure::NextHop)?;
                    Ok::<_, Failure>(relay.map(|relay| SignedIn::NextHop(given.name.clone(), relay)))
                };
                limits.limited(&given.name, source, now, check).await?
            }
        };
        Ok(match verdict {
            Verdict::Accepted(signed_in) => self.accept(client, signed_in),
            Verdict::Refused => self.refuse(client, &given.name),
            Verdict::Limited => self.limited(client, &given.name),
        })
    }

    /// Verifies a proof; returns our own signature, or what the client hears instead.
    async fn proof(
        &self,
        client: &Client,
        exchange: &mut Exchange,
        proof: &Proof,
    ) -> Result<Result<Vec<u8>, SignInAnswer>, Failure> {
        let Authority::Accounts(accounts) = &self.shared.authority else {
            return Ok(Err(SignInAnswer::Refused(problem_reply(Problem::NotOffered))));
        };
        let (source, now) = (Source::new(client.peer.ip()), (self.shared.clock)());
        Ok(match accounts.verify_scram(proof, source, now).await? {
            Verdict::Accepted((_, proven)) => {
                exchange.confirm(proven).map_err(|problem| SignInAnswer::Refused(problem_reply(problem)))
            }
            Verdict::Refused => Err(self.refuse(client, proof.name())),
            Verdict::Limited => Err(self.limited(client, proof.name())),
        })
    }

    fn accept(&mut self, client: &Client, signed_in: SignedIn) -> SignInAnswer {
        let name = signed_in.name().to_owned();
        self.log(client, &name, "accepted");
        self.signed_in = Some(signed_in);
        SignInAnswer::Done(name, Reply::new(235, EnhancedCode(2, 7, 0), "signed in"))
    }

    fn refuse(&self, client: &Client, name: &str) -> SignInAnswer {
        self.log(client, name, "refused");
        SignInAnswer::Refused(Reply::new(535, EnhancedCode(5, 7, 8), "wrong name or password"))
    }

    fn limited(&self, client: &Client, name: &str) -> SignInAnswer {
        self.log(client, name, "limited");
        let text = "too many failed sign-ins; try again in a quarter of an hour";
        SignInAnswer::Refused(Reply::new(454, EnhancedCode(4, 7, 0), text))
    }

    fn log(&self, client: &Client, name: &str, outcome: &'static str) {
        Counter::SignIns.increment(&[("outcome", outcome)]);
        let name = LoginName::parse(name).map_or_else(|_| name.to_owned(), |name| name.as_str().to_owned());
        let login = self.shared.pseudonyms.pseudonym("login", &name);
        tracing::info!(client = %client.peer.ip(), %login, outcome, "sign-in");
    }
}

/// Returns what the client hears of a response that cannot be used (RFC 4954, sections 4 and 6).
fn problem_reply(problem: Problem) -> Reply {
    match problem {
        Problem::Malformed => Reply::new(501, EnhancedCode(5, 5, 2), "malformed response"),
        Problem::TooLong => Reply::new(500, EnhancedCode(5, 5, 6), "the response is too long"),
        Problem::ForeignIdentity => {
            Reply::new(535, EnhancedCode(5, 7, 8), "you may not act under another name than your own")
        }
        Problem::NotOffered => {
            Reply::new(504, EnhancedCode(5, 5, 4), "channel bindings and extensions are not offered")
        }
    }
}

fn out_of_order(text: &str) -> Reply {
    Reply::new(503, EnhancedCode(5, 5, 1), text)
}

fn try_again() -> Reply {
    Reply::new(454, EnhancedCode(4, 7, 0), "cannot check names and passwords now, try again")
}

fn no_more() -> Reply {
    Reply::new(550, EnhancedCode(5, 7, 1), "your account may not send any more; ask your administrator")
}

#[cfg(test)]
mod tests;
