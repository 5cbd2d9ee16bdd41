//! Limits, mounts and networks, as the kernel enforces them.

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use lazyfox::providers::Exit;

use crate::engine;
use crate::place::{Place, run_of};

#[tokio::test]
async fn one_that_takes_too_much_memory_is_out_of_memory() {
    const LIMIT: u64 = 64 * 1024 * 1024;
    let (engine, place) = (engine::shared().await, Place::new());
    let mut run = place.open(&engine).await;
    let mut spec = place.script("echo begun; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done");
    run_of(&mut spec).memory_bytes = Some(LIMIT);
    let (ended, lines) = run.run_out(spec).await;
    assert_eq!(ended.exit, Exit::OutOfMemory { limit: Some(LIMIT) });
    assert_eq!(lines, ["begun"]);
}

#[tokio::test]
async fn open_files_and_shared_memory_are_as_configured() {
    let (engine, place) = (engine::shared().await, Place::new());
    let mut run = place.open(&engine).await;
    let mut spec = place.script("ulimit -n; while read l; do echo $l; done < /proc/self/mounts");
    run_of(&mut spec).open_files = Some(123);
    run_of(&mut spec).shm_bytes = Some(8 * 1024 * 1024);
    let (_, lines) = run.run_out(spec).await;
    assert_eq!(lines[0], "123");
    let shm = lines
        .iter()
        .find(|line| line.contains(" /dev/shm "))
        .unwrap();
    assert!(shm.contains("size=8192k"), "{shm}");
}

#[tokio::test]
async fn mounts_are_written_to_unless_they_are_read_only() {
    let (engine, place) = (engine::shared().await, Place::new());
    let mut run = place.open(&engine).await;
    let script = "echo x > /shared/new && echo written; exit 0";
    let mut spec = place.script(script);
    run_of(&mut spec).mounts = vec![place.mount(true)];
    let (_, lines) = run.run_out(spec).await;
    assert!(
        lines.len() == 1 && lines[0].contains("Read-only file system"),
        "{lines:?}"
    );
    assert!(!place.shared().join("new").exists());

    let (_, lines) = run.run_out(place.script(script)).await;
    assert_eq!(lines, ["written"]);
    assert!(place.shared().join("new").exists());
}

#[tokio::test]
async fn a_network_of_the_engine_is_joined_when_it_is_named() {
    let (engine, place) = (engine::shared().await, Place::new());
    let docker = engine.docker().await;
    let name = "lazyfox-test-network";
    let request = NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig {
                subnet: Some("10.213.77.0/24".to_owned()),
                gateway: Some("10.213.77.1".to_owned()),
                ..IpamConfig::default()
            }]),
            ..Ipam::default()
        }),
        ..NetworkCreateRequest::default()
    };
    docker.create_network(request).await.unwrap();
    let mut run = place.open(&engine).await;
    let mut spec = place.script("while read l; do echo $l; done < /proc/net/route");
    run_of(&mut spec).network = Some(name.to_owned());
    spec.server_host = "10.213.77.1".to_owned();
    let (_, lines) = run.run_out(spec).await;
    docker.remove_network(name).await.unwrap();
    // The gateway in hexadecimal, the last byte first.
    assert!(
        lines.iter().any(|line| line.contains("014DD50A")),
        "{lines:?}"
    );
}
