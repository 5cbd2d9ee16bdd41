//! What the public SDK's worker needs of a server, point by point. The numbers are those of the project's
//! checklist of the protocol:
//!
//! 1. credentials come bare or as Bearer, polls are never refused quickly: `auth`
//! 2. polls are held, and wake at once: `polls`
//! 3. so are polls for jobs to stop: `stops`
//! 4. one job is an object, several are an array: `polls`
//! 5. results are taken in any dress and answered 200: `results`
//! 6. progress, `stopPod`, `{}`, errors of any type: `progress`, `results`
//! 7. heartbeats: `leases`
//! 8. clients get 200 and JSON: `runs`, `job_api`
//! 9. GET and POST: `job_api`
//! 10. waits hold: `runs`
//! 11. streams drain: `streams`
//! 12. types of fields: `job_api`
//! 13. `/runsync` holds 90 s by itself: `runs`
//! 14. unknown jobs are 404, known ones at once not: `bad_input`, `runs`
//! 16. idle connections live: `bodies`
//! 17. the environment of a worker: `environment`
//! 18. reserved names: `bad_input`
//!
//! Point 15 is about calls that this server does not have yet.

mod ahead;
mod environment;
mod leases;
mod polls;
mod progress;
mod results;
mod stops;
mod streams;
