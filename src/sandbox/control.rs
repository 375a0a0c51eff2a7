//! What `/_sandbox/` answers: the log, the state, and the levers. Only a regenerated or added key is ever shown.

use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answer::Answer;
use super::script::Script;
use super::settings::SwitchChange;
use super::{Error, Sandbox};

/// Answers a control request; `path` is what follows `/_sandbox/`.
pub(super) fn answer(sandbox: &Sandbox, method: &Method, path: &str, body: &[u8]) -> Answer {
    let allowed = match path {
        "log" | "state" => [Method::GET].as_slice(),
        "faults" => &[Method::POST, Method::DELETE],
        "keys/add" | "keys/regenerate" | "keys/remove" | "revoke" | "switches" => &[Method::POST],
        _ => return problem(404, "nothing is here"),
    };
    if !allowed.contains(method) {
        let names: Vec<_> = allowed.iter().map(Method::as_str).collect();
        let names = names.join(", ");
        let mut answer = problem(405, &format!("use {names}"));
        answer.headers.push(("allow", names));
        return answer;
    }
    let done = match path {
        "log" => Ok(json!(sandbox.log())),
        "state" => Ok(sandbox.state()),
        "faults" if method == Method::DELETE => {
            sandbox.clear_faults();
            Ok(sandbox.faults_json())
        }
        "faults" => queue_faults(sandbox, body),
        "revoke" => revoke(sandbox, body),
        "switches" => read(body).map(|change: SwitchChange| {
            json!(sandbox.switch(|switches| *switches = change.applied_to(*switches)))
        }),
        _ => move_key(sandbox, path, body),
    };
    match done {
        Ok(value) => Answer::json(200, &value.to_string()),
        Err(detail) => problem(400, &detail),
    }
}

/// The answer to a request that a browser might have been led to send.
pub(super) fn not_allowed() -> Answer {
    problem(
        403,
        "send the header `X-Bearerd-Request: true`, and neither `Origin` nor `Sec-Fetch-Site`",
    )
}

/// The answer to a body that is too long.
pub(super) fn too_large() -> Answer {
    problem(413, "the body is too large")
}

fn problem(status: u16, detail: &str) -> Answer {
    let title = match status {
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        _ => "Bad Request",
    };
    let body = json!({"type": "about:blank", "title": title, "status": status, "detail": detail});
    let mut answer = Answer::json(status, &body.to_string());
    answer.headers = vec![("content-type", "application/problem+json".into())];
    answer
}

/// Reads a body; the error says what is wrong with it, and may quote it back to its sender.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|e| format!("the body is not what was expected: {e}"))
}

fn queue_faults(sandbox: &Sandbox, body: &[u8]) -> Result<Value, String> {
    sandbox.script(Script::from_json(body)?);
    Ok(sandbox.faults_json())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    token: Option<String>,
    #[serde(default)]
    all: bool,
}

fn revoke(sandbox: &Sandbox, body: &[u8]) -> Result<Value, String> {
    let revocation: Revocation = read(body)?;
    let revoked = match revocation {
        Revocation {
            token: Some(token),
            all: false,
        } => usize::from(sandbox.revoke(&token)),
        Revocation {
            token: None,
            all: true,
        } => sandbox.revoke_all(),
        _ => return Err("give either `token` or `all: true`".into()),
    };
    Ok(json!({"revoked": revoked}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    #[serde(default)]
    index: usize,
}

fn move_key(sandbox: &Sandbox, path: &str, body: &[u8]) -> Result<Value, String> {
    let slot: Slot = read(if body.is_empty() { b"{}" } else { body })?;
    let said = |e: Error| e.to_string();
    if path == "keys/remove" {
        sandbox.remove_key(slot.index).map_err(said)?;
        return Ok(json!({"index": slot.index}));
    }
    let (index, key) = if path == "keys/add" {
        sandbox.add_key().map_err(said)?
    } else {
        let key = sandbox.regenerate_key(slot.index).map_err(said)?;
        (slot.index, key)
    };
    Ok(json!({"index": index, "key_id": key.key_id, "api_key": key.api_key}))
}
