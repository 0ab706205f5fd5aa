//! Finding entries: who may see which, by what they are searched, in which order they come.
//!
//! Addresses, domains, symbols and ids are looked up in columns. Any other text is compared with what is
//! sealed, entry by entry from the newest on, over a bounded number of them; the page says when it
//! stopped there.

use std::fmt;

use bytes::Bytes;
use sqlx::{QueryBuilder, Sqlite};
use time::OffsetDateTime;

use super::entry::{COLUMNS, Entry, EntryId, Private, State, read};
use super::put::body_place;
use super::{Error, Quarantine};
use crate::mail::{Address, Direction, Domain};
use crate::store::SealError;
use crate::store::timestamp::{from_column, to_column};

/// Entries on one page, at most.
pub const PAGE_LIMIT: usize = 200;
/// Entries unsealed for one page of a free-text search, at most.
pub const UNSEAL_LIMIT: usize = 5_000;
/// Characters of a search text that count.
const TEXT_LIMIT_CHARS: usize = 200;
/// Rows fetched at once in a free-text search.
const BATCH: usize = 250;

/// Whose entries somebody may see and act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them: an administrator, or the machinery itself.
    All,
    /// The inbound ones for this address. Any other entry is as if it did not exist.
    Recipient(Address),
}

/// A place in the order of entries, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    received_at: OffsetDateTime,
    id: EntryId,
}

impl Cursor {
    /// Reads what `Display` wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (milliseconds, id) = text.split_once('-')?;
        Some(Cursor { received_at: from_column(milliseconds.parse().ok()?), id: EntryId::parse(id)? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", to_column(self.received_at), self.id)
    }
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// A text to search for: an address, a domain, a symbol, the first six characters or more of an id;
    /// or words that stand in subject, sender or recipient.
    pub text: String,
    /// Only entries in one of these states; none means all.
    pub states: Vec<State>,
    /// Only entries that travelled this way.
    pub direction: Option<Direction>,
    /// Only entries after this place.
    pub after: Option<Cursor>,
    /// Entries on the page; 0 and what is over [`PAGE_LIMIT`] count as that.
    pub page_size: usize,
}

/// Some entries, newest first.
#[derive(Debug, Clone)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// How many there are on all pages; `None` for a free-text search, which does not count.
    pub total: Option<u64>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<Cursor>,
    /// Whether the search stopped at [`UNSEAL_LIMIT`]; it goes on at `next`.
    pub stopped_early: bool,
}

/// How a search text is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Address(Address),
    Domain(Domain),
    Symbol(String),
    IdPrefix(String),
}

impl Quarantine {
    /// Lists entries in a scope.
    ///
    /// # Errors
    /// A store's failure, or a record that does not open.
    pub async fn list(&self, scope: &Scope, query: &Query) -> Result<Page, Error> {
        let text: String = query.text.trim().chars().take(TEXT_LIMIT_CHARS).collect();
        if text.is_empty() {
            return self.list_by(scope, query, None).await;
        }
        for term in terms(&text) {
            let page = self.list_by(scope, query, Some(&term)).await?;
            if page.total != Some(0) {
                return Ok(page);
            }
        }
        self.list_containing(scope, query, &text).await
    }

    /// Returns one entry; `None` when there is none in this scope.
    ///
    /// # Errors
    /// A store's failure, or a record that does not open.
    pub async fn find(&self, scope: &Scope, id: &EntryId) -> Result<Option<Entry>, Error> {
        let mut sql = self.select(COLUMNS, scope, &Query::default(), None);
        sql.push(" AND e.id = ").push_bind(id.as_str());
        let row = sql.build().fetch_optional(self.records.pool()).await?;
        row.map(|row| read(&row, &self.sealer)).transpose()
    }

    /// Whether anything is kept for a recipient.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn has_mail_for(&self, address: &Address) -> Result<bool, Error> {
        let mut sql = QueryBuilder::new("SELECT EXISTS (SELECT 1 FROM quarantine_entries e WHERE 1 = 1");
        self.restrict(&mut sql, &Scope::Recipient(address.clone()));
        sql.push(")");
        Ok(sql.build_query_scalar().fetch_one(self.records.pool()).await?)
    }

    /// Returns the message of an entry as it was accepted; `None` when there is no such entry in this
    /// scope, or its body is gone.
    ///
    /// # Errors
    /// A store's failure, or a body that does not open.
    pub async fn body(&self, scope: &Scope, id: &EntryId) -> Result<Option<Bytes>, Error> {
        let Some(entry) = self.find(scope, id).await? else { return Ok(None) };
        let Some(sealed) = self.bodies.get(&entry.transaction).await? else { return Ok(None) };
        let body =
            self.sealer.open_large(body_place(&entry.transaction), sealed).await.map_err(Error::Seal)?;
        Ok(Some(body.into()))
    }

    /// Adds the condition that every reader and writer of entries goes through.
    pub(super) fn restrict(&self, sql: &mut QueryBuilder<Sqlite>, scope: &Scope) {
        sql.push(" AND e.state <> 'provisional'");
        if let Scope::Recipient(address) = scope {
            sql.push(" AND e.direction = 'inbound' AND e.recipient_hash = ");
            sql.push_bind(self.address_hash(address).as_str().to_owned());
        }
    }

    fn select(
        &self,
        columns: &'static str,
        scope: &Scope,
        query: &Query,
        term: Option<&Term>,
    ) -> QueryBuilder<Sqlite> {
        let mut sql = QueryBuilder::new("SELECT ");
        sql.push(columns).push(" WHERE 1 = 1");
        self.restrict(&mut sql, scope);
        if !query.states.is_empty() {
            let mut list = sql.push(" AND e.state IN (").separated(", ");
            for state in &query.states {
                list.push_bind(state.as_str());
            }
            sql.push(")");
        }
        if let Some(direction) = query.direction {
            sql.push(" AND e.direction = ").push_bind(direction.as_str());
        }
        match term {
            None => {}
            Some(Term::Address(address)) => {
                let hash = self.address_hash(address).as_str().to_owned();
                sql.push(" AND (e.recipient_hash = ").push_bind(hash.clone());
                sql.push(" OR e.sender_hash = ").push_bind(hash.clone());
                sql.push(" OR e.from_hash = ").push_bind(hash).push(")");
            }
            Some(Term::Domain(domain)) => {
                let domain = domain.as_str().to_owned();
                sql.push(" AND (e.recipient_domain = ").push_bind(domain.clone());
                sql.push(" OR e.sender_domain = ").push_bind(domain.clone());
                sql.push(" OR e.from_domain = ").push_bind(domain).push(")");
            }
            Some(Term::Symbol(symbol)) => {
                sql.push(" AND instr(e.symbols, ").push_bind(format!(" {symbol} ")).push(") > 0");
            }
            Some(Term::IdPrefix(prefix)) => {
                let length = i64::try_from(prefix.len()).unwrap_or(0);
                for (opening, column) in [(" AND (", "e.id"), (" OR ", "e.body_id")] {
                    sql.push(opening).push("substr(").push(column).push(", 1, ").push_bind(length);
                    sql.push(") = ").push_bind(prefix.clone());
                }
                sql.push(")");
            }
        }
        sql
    }

    async fn list_by(&self, scope: &Scope, query: &Query, term: Option<&Term>) -> Result<Page, Error> {
        let total: i64 = self
            .select("count(*) FROM quarantine_entries e", scope, query, term)
            .build_query_scalar()
            .fetch_one(self.records.pool())
            .await?;
        let page_size = page_size(query);
        let mut entries = self.fetch(scope, query, term, query.after.as_ref(), page_size + 1).await?;
        let more = entries.len() > page_size;
        entries.truncate(page_size);
        let next = if more { entries.last().map(place) } else { None };
        Ok(Page { entries, total: u64::try_from(total).ok(), next, stopped_early: false })
    }

    async fn list_containing(&self, scope: &Scope, query: &Query, text: &str) -> Result<Page, Error> {
        let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        let page_size = page_size(query);
        let mut page = Page { entries: Vec::new(), total: None, next: None, stopped_early: false };
        let mut after = query.after.clone();
        let mut unsealed = 0;
        loop {
            let batch = self.fetch(scope, query, None, after.as_ref(), BATCH).await?;
            let last_batch = batch.len() < BATCH;
            for entry in batch {
                after = Some(place(&entry));
                unsealed += 1;
                if contains_all(&entry.private, &words) {
                    if page.entries.len() == page_size {
                        page.next = page.entries.last().map(place);
                        return Ok(page);
                    }
                    page.entries.push(entry);
                }
            }
            if last_batch {
                return Ok(page);
            }
            if unsealed >= UNSEAL_LIMIT {
                page.next = after;
                page.stopped_early = true;
                return Ok(page);
            }
        }
    }

    async fn fetch(
        &self,
        scope: &Scope,
        query: &Query,
        term: Option<&Term>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let mut sql = self.select(COLUMNS, scope, query, term);
        if let Some(cursor) = after {
            sql.push(" AND (e.received_at, e.id) < (").push_bind(to_column(cursor.received_at));
            sql.push(", ").push_bind(cursor.id.as_str().to_owned()).push(")");
        }
        sql.push(" ORDER BY e.received_at DESC, e.id DESC LIMIT ");
        sql.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = sql.build().fetch_all(self.records.pool()).await?;
        let sealer = self.sealer.clone();
        // A page of entries takes milliseconds to open.
        tokio::task::spawn_blocking(move || rows.iter().map(|row| read(row, &sealer)).collect())
            .await
            .map_err(|_| Error::Seal(SealError::Thread))?
    }
}

fn page_size(query: &Query) -> usize {
    if query.page_size == 0 { PAGE_LIMIT } else { query.page_size.min(PAGE_LIMIT) }
}

fn place(entry: &Entry) -> Cursor {
    Cursor { received_at: entry.received_at, id: entry.id.clone() }
}

fn contains_all(private: &Private, words: &[String]) -> bool {
    let fields = [
        &private.subject,
        &private.from_name,
        &private.from_address,
        &private.reverse_path,
        &private.recipient,
    ]
    .map(|field| field.expose().to_lowercase());
    words.iter().all(|word| fields.iter().any(|field| field.contains(word.as_str())))
}

/// Returns what a text may be besides free text, most specific first.
fn terms(text: &str) -> Vec<Term> {
    let mut terms = Vec::new();
    if text.contains('@') {
        terms.extend(Address::parse(text).ok().map(Term::Address));
        return terms;
    }
    if text.len() >= 6 && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()) {
        terms.push(Term::IdPrefix(text.to_owned()));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase() || byte == b'_') {
        terms.push(Term::Symbol(text.to_owned()));
    }
    if text.contains('.') {
        terms.extend(Domain::parse(text).ok().map(Term::Domain));
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let names: Vec<&str> = terms(text)
            .iter()
            .map(|term| match term {
                Term::Address(_) => "address",
                Term::Domain(_) => "domain",
                Term::Symbol(_) => "symbol",
                Term::IdPrefix(_) => "id",
            })
            .collect();
        assert_eq!(names, expected, "{text:?}");
    }

    #[test]
    fn a_search_text_is_understood_by_its_form() {
        check("alice@example.org", &["address"]);
        check("@example.org", &[]);
        check("example.org", &["domain"]);
        check("URI_TEXT_MISMATCH", &["symbol"]);
        check("0zz345", &["id"]);
        check("invoice", &["id"]);
        check("your invoice", &[]);
        check("' OR 1=1 --", &[]);
    }

    #[test]
    fn a_cursor_survives_a_link() {
        let text = "1767225600123-0zz3456789abcdef";
        assert_eq!(Cursor::parse(text).unwrap().to_string(), text);
        for bad in ["", "-", "1", "x-0zz3456789abcdef", "1-short", "99999999999999999999-0zz3456789abcdef"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }
}
