//! Rspamd's HTTP: `POST /checkv2` with the message as body and its envelope in header fields, answered in
//! JSON; `/learnspam` and `/learnham`; `/ping`. What `rspamc` and Rspamd's clients in mail servers speak.

use std::net::{IpAddr, SocketAddr};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::time::timeout;

use super::{Answer, Current, IDLE, Question, points};
use crate::learn::Label;
use crate::mail::Address;
use crate::verdict::Disposition;

/// Returns the requests that are answered.
pub fn router(service: Current) -> Router {
    Router::new()
        .route("/checkv2", post(check))
        .route("/check", post(check))
        .route("/symbols", post(check))
        .route("/learnspam", post(|state, headers, body| learn(state, headers, body, Label::Spam)))
        .route("/learnham", post(|state, headers, body| learn(state, headers, body, Label::Ham)))
        .route("/ping", get(|| async { "pong\r\n" }))
        .with_state(service)
}

/// Reads the message, within its limit and time.
async fn read(service: &Current, headers: &HeaderMap, body: Body) -> Result<Bytes, Response> {
    let is_packed = |name: &str| {
        headers.get(name).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
    };
    if is_packed("content-encoding") || is_packed("compression") {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed messages are not taken"));
    }
    let limit = service.load().message_bytes;
    match timeout(IDLE, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(raw)) => Ok(raw),
        Ok(Err(_)) => Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "the message is too large, or broke off")),
        Err(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, "the message took too long")),
    }
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "error": reason }))).into_response()
}

async fn check(State(service): State<Current>, headers: HeaderMap, body: Body) -> Response {
    let raw = match read(&service, &headers, body).await {
        Ok(raw) => raw,
        Err(response) => return response,
    };
    match service.load_full().ask(raw, question(&headers)).await {
        Ok(answer) => Json(as_json(&answer)).into_response(),
        Err(_) => {
            let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, "too many scans: try again later");
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
            response
        }
    }
}

async fn learn(State(service): State<Current>, headers: HeaderMap, body: Body, label: Label) -> Response {
    if !service.load().may_teach {
        return refuse(StatusCode::FORBIDDEN, "teaching is not allowed here");
    }
    let raw = match read(&service, &headers, body).await {
        Ok(raw) => raw,
        Err(response) => return response,
    };
    let person = headers.get("deliver-to").and_then(|value| mailbox(value.to_str().ok()?));
    match service.load_full().teach(raw, label, person).await {
        Ok(true) => Json(json!({ "success": true })).into_response(),
        Ok(false) => {
            (StatusCode::ALREADY_REPORTED, Json(json!({ "error": "it was learned before" }))).into_response()
        }
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "it could not be learned: try again later"),
    }
}

/// Reads an address, in angle brackets or not.
fn mailbox(text: &str) -> Option<Address> {
    Address::parse(text.trim_matches(['<', '>', ' '])).ok()
}

/// Reads the envelope. What cannot be read is as if it had not been said.
fn question(headers: &HeaderMap) -> Question {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let ip = text("ip").and_then(|ip| ip.parse::<IpAddr>().ok());
    let recipients = headers.get_all("rcpt").iter().chain(headers.get_all("deliver-to"));
    Question {
        client: ip.map(|ip| SocketAddr::new(ip, 0)),
        helo: text("helo").unwrap_or_default().chars().take(255).collect(),
        from: text("from").and_then(mailbox),
        recipients: recipients.filter_map(|value| mailbox(value.to_str().ok()?)).collect(),
    }
}

fn as_json(answer: &Answer) -> serde_json::Value {
    let action = match answer.disposition {
        Disposition::Deliver => "no action",
        Disposition::Tag => "add header",
        // Rspamd knows no quarantine: what is to be kept is what its clients put into the junk folder.
        Disposition::Quarantine => "add header",
        Disposition::Defer => "soft reject",
        Disposition::Reject => "reject",
    };
    let symbols: serde_json::Map<String, serde_json::Value> = answer
        .findings()
        .iter()
        .map(|finding| {
            let name = finding.symbol.as_str();
            let score = points(finding.score.points());
            let description = finding.explanation.expose();
            (
                name.to_owned(),
                json!({ "name": name, "score": score, "metric_score": score, "description": description }),
            )
        })
        .collect();
    let marks = answer.marks();
    let added: serde_json::Map<String, serde_json::Value> = marks
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!({ "value": value, "order": 0 })))
        .collect();
    // What came with such names is not ours.
    let removed: serde_json::Map<String, serde_json::Value> =
        super::MARKS.iter().map(|name| ((*name).to_owned(), json!(0))).collect();
    let message = &answer.scanned.message;
    let id = message.header("Message-ID").map(|field| field.value.trim().trim_matches(['<', '>']).to_owned());
    json!({
        "is_skipped": false,
        "score": points(answer.score()),
        "required_score": points(answer.required()),
        "thresholds": {
            "add header": points(answer.thresholds.tag().points()),
            "reject": points(answer.thresholds.reject().points()),
        },
        "action": action,
        "symbols": symbols,
        "messages": {},
        "milter": { "add_headers": added, "remove_headers": removed },
        "message-id": id.unwrap_or_else(|| "undef".to_owned()),
        "time_real": answer.scanned.scan.elapsed.as_secs_f64(),
    })
}
