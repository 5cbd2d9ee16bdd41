//! An endpoint's deliveries: what became of them, and sending them again.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::delivery;
use lazyfox_core::id::DeliveryId;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Delivery, DeliveryQuery, Redelivery};

use super::auth;
use super::error::{ApiError, ApiResult, Code};
use super::query::Params;
use crate::app::App;
use crate::json::Object;
use crate::keyring::Need;
use crate::views;

/// Deliveries made due again in one commit.
const AGAIN_AT_ONCE: usize = 500;

/// `GET /deliveries?job=&state=&limit=&cursor=`: newest first.
pub(super) async fn deliveries(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Read).await?;
    let params = Params::of(&uri);
    let job = params.get("job").map(|text| auth::job(&text)).transpose()?;
    let query = DeliveryQuery {
        job,
        state: state(&params)?,
        limit: params.page()?,
        before: params.number("cursor")?,
        ..DeliveryQuery::of(endpoint.clone())
    };
    let page = app.store.deliveries(query).await?;
    let traffic = app.traffic();
    let deliveries = page.deliveries.iter().map(|delivery| {
        let hold = traffic.hold(&endpoint, &delivery.webhook.host.as_str().into());
        views::delivery(delivery, hold.as_deref())
    });
    Ok(views::page("deliveries", deliveries, page.next).into_response())
}

/// `POST /deliveries/{delivery}/redeliver`: sends one again, whatever became of it.
pub(super) async fn redeliver(
    State(app): State<Arc<App>>,
    Path((endpoint, delivery)): Path<(String, String)>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Write).await?;
    let unknown = || ApiError::new(Code::DeliveryNotFound, "delivery not found or expired");
    let id: DeliveryId = delivery.parse().map_err(|_| unknown())?;
    let again = app.store.redeliver(&endpoint, vec![id], app.now()).await?;
    match again.first() {
        Some(Redelivery::Due) => {
            app.wakes.outbox.notify_one();
            let mut object = Object::new();
            object.string("id", &id.to_string());
            object.string("state", delivery::State::Pending.as_str());
            Ok(object.into_response())
        }
        Some(Redelivery::Outdated) => Err(ApiError::new(
            Code::NotRedeliverable,
            format!(
                "the job {} was retried after the end that this delivery reports; \
                 see deliveries?job={}",
                id.job, id.job
            ),
        )),
        Some(Redelivery::Unknown) | None => Err(unknown()),
    }
}

/// `POST /deliveries/redeliver?from=&to=&state=`: sends those again whose jobs ended in this time.
pub(super) async fn redeliver_range(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Write).await?;
    let params = Params::of(&uri);
    let time = |name| params.number(name).map(|ms| ms.map(point_in_time));
    let Some(from) = time("from")? else {
        let message = "from is missing, it should be the first point in time that is meant, in \
                       milliseconds since 1970";
        return Err(ApiError::new(Code::InvalidQuery, message));
    };
    let which = match params.get("state").as_deref() {
        None => Some(delivery::State::Failed),
        Some("all") => None,
        Some(_) => state(&params)?,
    };
    let mut query = DeliveryQuery {
        state: which,
        created: from..time("to")?.unwrap_or(Timestamp::NEVER),
        limit: AGAIN_AT_ONCE,
        ..DeliveryQuery::of(endpoint.clone())
    };
    let mut redelivered = 0;
    loop {
        let page = app.store.deliveries(query.clone()).await?;
        let ids: Vec<DeliveryId> = page.deliveries.iter().map(id_of).collect();
        if !ids.is_empty() {
            let again = app.store.redeliver(&endpoint, ids, app.now()).await?;
            redelivered += again.iter().filter(|it| **it == Redelivery::Due).count();
            app.wakes.outbox.notify_one();
        }
        query.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    let mut object = Object::new();
    object.number("redelivered", redelivered);
    Ok(object.into_response())
}

fn id_of(delivery: &Delivery) -> DeliveryId {
    delivery.id
}

fn point_in_time(ms: u64) -> Timestamp {
    Timestamp::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn state(params: &Params<'_>) -> ApiResult<Option<delivery::State>> {
    let known = delivery::State::ALL.map(delivery::State::as_str);
    params.word("state", delivery::State::parse, known)
}
