//! `GET /v1/token`: the token now, or the wait for another one.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, VARY};
use hyper::{HeaderMap, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::Room;
use super::accept::{Form, form};
use super::conditions::{Tags, Wait, names};
use crate::api::Watcher;
use crate::api::failure::Failure;
use crate::caller::Visitor;
use crate::caller::rule::Right;
use crate::clock::Stamp;
use crate::listener::{Answer, Body, Connection};
use crate::vend::{Live, Unavailable};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const BY_ACCEPT: HeaderValue = HeaderValue::from_static("accept");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What there is to say at one moment.
enum Found {
    /// A token that the caller does not have.
    New(Arc<Live>),
    /// The token that the caller has.
    Same(Arc<Live>),
    /// None.
    Nothing(Unavailable),
}

impl Found {
    fn new(
        current: Result<Arc<Live>, Unavailable>,
        has: impl FnOnce(&HeaderValue) -> bool,
    ) -> Self {
        match current {
            Ok(live) if has(&live.etag) => Self::Same(live),
            Ok(live) => Self::New(live),
            Err(why) => Self::Nothing(why),
        }
    }
}

/// Which of the headers that matter are there: one look at the few names is cheaper than asking the map for each.
#[derive(Default)]
struct Special {
    accept: bool,
    if_none_match: bool,
    prefer: bool,
}

impl Special {
    fn of(headers: &HeaderMap) -> Self {
        let mut special = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "accept" => special.accept = true,
                "if-none-match" => special.if_none_match = true,
                "prefer" => special.prefer = true,
                _ => {}
            }
        }
        special
    }
}

impl Room {
    pub(super) fn token(
        self: &Arc<Self>,
        headers: &HeaderMap,
        visitor: &Arc<Visitor>,
        connection: &Connection,
    ) -> Answer {
        let special = Special::of(headers);
        let form = if special.accept {
            form(headers)
        } else {
            Some(Form::Json)
        };
        let Some(form) = form else {
            return self.failed(&Failure::NotAcceptable).into();
        };
        let wait = match special.prefer {
            true => Wait::of(headers),
            false => Ok(None),
        };
        let Ok(wait) = wait else {
            return self.failed(&Failure::BadWait).into();
        };
        if let Some(wait) = wait {
            let right = match wait.length().is_zero() {
                true => Right::Vend,
                false => Right::Watch,
            };
            if let Err(denial) = visitor.may(right) {
                return self.failed(&denial.into()).into();
            }
            let (room, visitor) = (Arc::clone(self), Arc::clone(visitor));
            let drain = connection.drain.clone();
            let tags = Tags::of(headers);
            let hung_up = CancellationToken::new();
            return Answer::wait(hung_up.clone(), async move {
                let mut response = tokio::select! {
                    biased;
                    response = room.awaited(form, &tags, wait, &visitor) => response,
                    () = hung_up.cancelled() => room.as_it_stands(form, &tags, &visitor),
                    () = drain.cancelled() => room.cut_short(form, &tags, &visitor),
                };
                response
                    .headers_mut()
                    .insert(PREFERENCE_APPLIED, wait.applied());
                response
            });
        }
        if let Err(denial) = visitor.may(Right::Vend) {
            return self.failed(&denial.into()).into();
        }
        let now = self.clock.now();
        let found = Found::new(self.vend.current(now), |tag| {
            special.if_none_match && names(headers, tag)
        });
        self.answer_with(found, form, now, visitor).into()
    }

    /// The first token that the caller does not have, or what there is when the wait is over.
    async fn awaited(
        &self,
        form: Form,
        tags: &Tags,
        wait: Wait,
        visitor: &Visitor,
    ) -> Response<Body> {
        let mut changes = self.vend.watch();
        let (found, now) = self.look(tags);
        if matches!(found, Found::New(_)) || wait.length().is_zero() {
            return self.answer_with(found, form, now, visitor);
        }
        drop(found);
        let _stream = match visitor.waits() {
            Ok(stream) => stream,
            Err(denial) => return self.failed(&denial.into()),
        };
        let _watcher = Watcher::new(&self.watchers);
        let mut end = pin!(tokio::time::sleep(wait.length()));
        loop {
            let over = tokio::select! {
                changed = changes.changed() => changed.is_err(),
                () = end.as_mut() => true,
            };
            let (found, now) = self.look(tags);
            if over || matches!(found, Found::New(_)) {
                return self.answer_with(found, form, now, visitor);
            }
        }
    }

    /// The answer for a caller that has shut its writing half: its wait is over.
    fn as_it_stands(&self, form: Form, tags: &Tags, visitor: &Visitor) -> Response<Body> {
        let (found, now) = self.look(tags);
        self.answer_with(found, form, now, visitor)
    }

    /// The answer for somebody who would have waited longer.
    fn cut_short(&self, form: Form, tags: &Tags, visitor: &Visitor) -> Response<Body> {
        match self.look(tags) {
            (Found::Nothing(_), _) => self.failed(&Failure::Draining),
            (found, now) => self.answer_with(found, form, now, visitor),
        }
    }

    fn look(&self, tags: &Tags) -> (Found, Stamp) {
        let now = self.clock.now();
        let found = Found::new(self.vend.current(now), |tag| tags.name(tag));
        (found, now)
    }

    fn answer_with(
        &self,
        found: Found,
        form: Form,
        now: Stamp,
        visitor: &Visitor,
    ) -> Response<Body> {
        match found {
            Found::New(live) => {
                self.vends.ok();
                visitor.vended(&live.token);
                match form {
                    Form::Json => vended(live.json(now), JSON, &live),
                    Form::Text => vended(live.text.clone(), TEXT, &live),
                }
            }
            Found::Same(live) => {
                self.not_modified.inc();
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                describe(response.headers_mut(), &live);
                response
            }
            Found::Nothing(why) => {
                let failure = Failure::unavailable(why, &self.vend.status(), now);
                self.failed(&failure)
            }
        }
    }

    fn failed(&self, failure: &Failure) -> Response<Body> {
        self.vends.failed(failure);
        let mut response = failure.response();
        response.headers_mut().insert(VARY, BY_ACCEPT);
        response
    }
}

fn vended(body: Bytes, form: HeaderValue, live: &Live) -> Response<Body> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, form);
    describe(headers, live);
    response
}

fn describe(headers: &mut HeaderMap, live: &Live) {
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(VARY, BY_ACCEPT);
    headers.insert(ETAG, live.etag.clone());
}
