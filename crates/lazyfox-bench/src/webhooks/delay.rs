//! How long after the end of a job its delivery begins to arrive.

use anyhow::{Context as _, Result};

use super::WebhooksArgs;
use crate::job::ENDPOINT;
use crate::paced::{Delays, Pace, play};
use crate::receiver::Receiver;
use crate::report::table;
use crate::server::Site;

pub(super) async fn measure(site: &Site, args: &WebhooksArgs) -> Result<()> {
    let pace = Pace {
        rate: args.rate,
        seconds: args.rate_seconds,
        workers: args.workers,
    };
    for store in &args.stores {
        let receiver = Receiver::start().await?;
        let server = site.start_fresh(store, &[ENDPOINT.to_owned()]).await?;
        let played = play(&server, &pace, args.body(&receiver.url)).await?;
        receiver.wait_for(played.handled.len()).await?;
        server.kill().await?;
        let deliveries = receiver.stop()?;

        let mut delays = Delays::default();
        for (id, job) in &played.handled {
            let arrived = deliveries
                .first_bytes
                .get(id)
                .with_context(|| format!("job {id} was not delivered"))?;
            delays.add(job.taken, job.reported, *arrived);
        }
        let mut title = format!("{pace}, {store}");
        if deliveries.repeats > 0 {
            title.push_str(&format!(", {} delivered again", deliveries.repeats));
        }
        let rows = delays.rows("job-done", "first byte of the webhook");
        println!("{}", table(&[&title, "p50 / p99 µs"], &rows));
    }
    Ok(())
}
